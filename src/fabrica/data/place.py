"""Place: what the place of one image in a folder says of it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Place:
    """What the place of one image says.

    case     the path without suffix and without the folders that only sort: the same for an image and its pair.
    guessed  the patient was told from the beginning of the file's name, not by a folder.
    classes  what the masks in the folder `mask` show, in the order of their labels; mask_frame: as in `Row`.
    """

    case: str = ""
    split: str = ""
    domain: str = ""
    patient: str = ""
    label: str = ""
    mask: str = ""
    pair: str = ""
    guessed: bool = False
    classes: tuple[str, ...] = ()
    mask_frame: str = ""
