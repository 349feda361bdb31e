"""Item: one image to be, as the files of a folder show it before tables and folders are asked."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class Item:
    """A file, one image of a container, or an image of a DICOM series in a folder (`is_series`).

    path, frame  by which `fabrica.io.read` finds it.
    study        stands for the patient where DICOM headers name none.
    segments     number and name of what a SEG or RTSTRUCT shows, of the whole file.
    mask_frame   of an image of an npz: which frame of the same file is its mask.
    size         in array order, of images that were decoded.
    The others are those of `fabrica.data.manifest.Row`.
    """

    path: Path
    frame: str = ""
    is_series: bool = False
    patient: str = ""
    study: str = ""
    modality: str = ""
    label: str = ""
    about: dict[str, str] = field(default_factory=dict)
    split: str = ""
    sha256: str = ""
    kind: str = ""
    series: str = ""
    series_number: str = ""
    description: str = ""
    image_type: str = ""
    refers: str = ""
    unit: str = ""
    channels: str = ""
    dims: str = ""
    notes: tuple[str, ...] = ()
    segments: tuple[tuple[int, str], ...] = ()
    size: tuple[int, ...] = ()
    mask_frame: str = ""
