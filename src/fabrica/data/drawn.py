"""DICOM segmentations and structure sets as the masks of the series that they were drawn on, wherever they lie.

One rule where a series has several: SEG before RTSTRUCT, which would have to be filled in first; then by series number,
then by path. What an object says itself goes before what names of files suggest.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

from fabrica.data.item import Item
from fabrica.data.label_names import column
from fabrica.data.manifest import Row

DRAWN = ("segmentation", "structures")  # kinds


def give_drawn(rows: Sequence[Row], items: Sequence[Item], kinds: Iterable[str] = ("",)) -> list[str]:
    """Give rows of these kinds their masks, in place: the SEG or RTSTRUCT that refers to their series; returns notes
    on those that are not used, which their rows have too.

    rows, items  of all images, in the same order.
    """
    images: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        if row.series and row.kind in kinds and row.kind not in DRAWN:
            images[row.series].append(row)
    drawn: dict[str, dict[str, tuple[Row, Item]]] = defaultdict(dict)  # series -> file -> one of its rows
    unused: dict[str, set[str]] = defaultdict(set)  # why -> files
    for row, item in zip(rows, items, strict=True):
        if row.kind not in DRAWN:
            continue
        if why := _why_not(row, item, images):
            unused[why].add(row.path)
            row.notes = "; ".join(filter(None, (row.notes, f"no mask: {why}")))
        else:
            drawn[row.refers].setdefault(row.path, (row, item))
    several = []
    for series, objects in drawn.items():
        first, *others = sorted(objects.values(), key=lambda each: _rank(each[0]))
        several += [first[0].path] if others else []
        labels = _labels(*first)
        for row in images[series]:
            row.mask, row.mask_labels = first[0].path, labels
    notes = [
        f"{len(files)} SEG or RTSTRUCT not used as mask{'s' * (len(files) > 1)}, {min(files)} for one: {why}"
        for why, files in sorted(unused.items())
    ]
    if several:
        notes.append(
            f"{len(several)} series have several SEG or RTSTRUCT: used is the first (SEG before RTSTRUCT, then by "
            f"series number and path), as {several[0]}; name another in the column `mask`"
        )
    return notes


def _why_not(row: Row, item: Item, images: dict[str, list[Row]]) -> str:
    if not row.refers:
        return "it does not say which series it was drawn on"
    if row.refers not in images:
        return "the series that it was drawn on is not here, or is set apart"
    if Path(row.path).suffix.lower() == ".zip" or item.is_series:
        return "it lies in an archive, or in several files; unpack them"
    return ""


def _rank(row: Row) -> tuple[bool, int, str]:
    number = int(row.series_number) if row.series_number.isdecimal() else 2**31
    return row.kind != "segmentation", number, row.path


def _labels(row: Row, item: Item) -> str:
    """The names of what it shows. Regions of interest are numbered anew in their order; segments keep their numbers."""
    numbered = item.segments if row.kind == "segmentation" else enumerate((name for _, name in item.segments), start=1)
    return column({(number,): name for number, name in numbered if name})
