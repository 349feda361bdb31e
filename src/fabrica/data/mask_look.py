"""One look at each mask of a scan: whether it can be read, fits its image, and holds the labels that are named.

Masks in folders of classes and DICOM are not looked at: of the former there are hundreds a case, the latter were looked
at when they were found.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Executor
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fabrica import io
from fabrica.data.find import reason
from fabrica.data.helpers import shared
from fabrica.data.label_names import regions_in
from fabrica.data.manifest import Row
from fabrica.data.mask_files import READ
from fabrica.data.masks import CLASSES
from fabrica.errors import ReadError
from fabrica.image import Float32

CHUNK = 8  # masks that a process looks at before it answers
PIECE = 2**20  # voxels that are looked at in one piece
HIGHEST = 65535  # a label
WHITE = (255, 65535)  # of black and white
WHOLE = 1e-3  # how far from a whole number a label may be stored
HALF = 0.5  # of a probability: what belongs
LISTED = 8  # labels that a note lists


class MaskLook(NamedTuple):
    """What a mask holds.

    problem  why it cannot be read.
    size     in array order; () where it cannot be read.
    values   the labels in it, sorted; () where they are no labels: `odd` says why.
    """

    problem: str = ""
    size: tuple[int, ...] = ()
    values: tuple[int, ...] = ()
    odd: str = ""


def look_at(path: Path) -> MaskLook:
    """Decode a mask and tell what is in it."""
    try:
        image = io.read(path)
    except ReadError as error:
        return MaskLook(reason(error, path))
    if image.channels != 1:
        return MaskLook(size=image.size, odd=f"it has {image.channels} channels, expected one of label numbers")
    values = labels_of(image.data)
    if values is None:
        return MaskLook(size=image.size, odd="its values are no whole numbers from 0")
    if image.origin.get("format") == "raster" and len(values) > CLASSES:
        odd = f"it has {len(values)} different values; a picture of labels has few: if it was stored as JPEG, store PNG"
        return MaskLook(size=image.size, odd=odd)
    if values[-1] in WHITE and set(values) <= {0, values[-1]}:
        values = tuple(min(value, 1) for value in values)
    return MaskLook("", image.size, values)


def labels_of(data: Float32, piece: int = PIECE) -> tuple[int, ...] | None:
    """The labels that an array holds, sorted; of probabilities from 0 to 1 those of what is likely; None where there
    are other values. `piece` voxels are looked at together, for the sake of memory."""
    found: set[int] = set()
    flat = data.reshape(-1)
    low, high = float(flat.min()), float(flat.max())
    if low >= 0 and high <= 1:
        return tuple(sorted({int(low >= HALF), int(high >= HALF)}))
    for begin in range(0, flat.size, piece):
        part = flat[begin : begin + piece]
        low, high = float(part.min()), float(part.max())
        if low < 0 or high > HIGHEST or not np.isfinite(high):
            return None
        if low == high == int(low):
            found.add(int(low))
            continue
        whole = np.rint(part)
        if (np.abs(whole - part) > WHOLE).any():
            return None
        found.update(np.flatnonzero(np.bincount(whole.astype(np.intp))).tolist())
    return tuple(sorted(found))


def look_at_masks(
    root: Path, rows: Sequence[Row], helpers: Executor | None = None, progress: Callable[[int], None] | None = None
) -> dict[str, MaskLook]:
    """Path of a mask -> what it holds, of all files that rows name as masks; `progress` is called with how many."""
    named = {path for row in rows for path in row.mask_files if path.lower().endswith(READ)}
    paths = sorted(path for path in named if (root / path).is_file())
    found: dict[str, MaskLook] = {}
    parts = ({path: root / path for path in paths[k : k + CHUNK]} for k in range(0, len(paths), CHUNK))
    for part in shared(helpers, _look_part, parts):
        found |= part
        if progress:
            progress(len(found))
    return found


def _look_part(paths: dict[str, Path]) -> dict[str, MaskLook]:
    return {name: look_at(path) for name, path in paths.items()}


def drop_unfit(
    rows: Sequence[Row], sizes: Sequence[tuple[int, ...]], looks: Mapping[str, MaskLook]
) -> list[tuple[str, str]]:
    """Take masks away, in place, that cannot be read, and those of pictures that are of another size; returns (path,
    reason) of those that no row has any more. Volumes of another size stay: both lie somewhere in millimetres.

    sizes  of the images, in the order of the rows; () where not known.
    """
    dropped: dict[str, str] = {}
    for row, size in zip(rows, sizes, strict=True):
        for path in row.mask_files:
            look = looks.get(path)
            if look is None:
                continue
            why = look.problem
            if not why and size and look.size != size and 2 in (len(size), len(look.size)):
                why = f"is {_shape(look.size)}, its image {row.path} {_shape(size)}: expected one size"
            if why:
                dropped.setdefault(path, why if look.problem else f"a mask that {why}")
                row.notes = "; ".join(filter(None, (row.notes, f"its mask {path} was left out")))
                row.mask = row.mask_frame = row.mask_labels = ""
                break
    used = {path for row in rows for path in row.mask_files}
    return sorted((mask, why) for mask, why in dropped.items() if mask not in used)


def said_of(rows: Sequence[Row], sizes: Sequence[tuple[int, ...]], looks: Mapping[str, MaskLook]) -> list[str]:
    """What is odd about masks, each with a count and an example."""
    own = {row.mask: looks[row.mask] for row in rows if row.mask in looks}
    moved = [
        (row, size)
        for row, size in zip(rows, sizes, strict=True)
        if row.mask in own and size and own[row.mask].size != size
    ]
    notes = []
    if moved:
        row, size = moved[0]
        notes.append(
            f"{_masks(len(moved))} of another size than the image ({row.mask} is {_shape(own[row.mask].size)}, "
            f"{row.path} {_shape(size)}): brought onto it in mm"
        )
    odd: dict[str, list[str]] = defaultdict(list)
    plain: dict[int, list[str]] = defaultdict(list)
    for mask, look in own.items():
        if look.odd:
            odd[look.odd.partition(" ")[0] + look.odd.partition(";")[2]].append(mask)
        elif len(look.values) == 1:
            plain[look.values[0]].append(mask)
    notes += [f"{_masks(len(masks))} not of labels, {masks[0]} for one: {own[masks[0]].odd}" for masks in odd.values()]
    for value, masks in sorted(plain.items()):
        what = "nothing is marked" if value == 0 else "all is marked"
        notes.append(f"{_masks(len(masks))} of one value, {value}, {masks[0]} for one: {what}")
    return notes + _against_names(rows, own)


def _against_names(rows: Sequence[Row], looks: Mapping[str, MaskLook]) -> list[str]:
    """Labels that are named and that no mask holds, and those that masks hold and nobody names."""
    held: dict[str, set[int]] = defaultdict(set)  # column `mask_labels` -> labels in these masks
    whole = {row.mask_labels for row in rows if row.mask in looks and not looks[row.mask].odd}
    for row in rows:
        if row.mask in looks:
            held[row.mask_labels].update(looks[row.mask].values)
    notes = []
    for column in sorted(whole):
        named = {number: name for numbers, name in regions_in(column).items() for number in numbers}
        if absent := sorted(set(named) - held[column] - {0}):
            names = _some(f"{number} ({named[number]})" for number in absent)
            notes.append(f"no mask holds label {names}, though it is named")
        if (unnamed := sorted(held[column] - set(named) - {0})) and (column or len(unnamed) > 1):
            beside = "" if column else ": a labels.csv beside them with columns number and name does"
            notes.append(f"masks hold labels that nothing names, {_some(map(str, unnamed))}{beside}")
    return notes


def _some(words: Iterable[str]) -> str:
    listed = list(words)
    return ", ".join(listed[:LISTED]) + (f", ... ({len(listed)})" if len(listed) > LISTED else "")


def _shape(size: Sequence[int]) -> str:
    return " x ".join(map(str, size))


def _masks(count: int) -> str:
    return f"{count} mask{'s' * (count != 1)}"
