"""What a segmentation or structure set was drawn on, and whether that is the image it is to be laid on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from pydicom.dataset import Dataset

from fabrica.errors import UsageError
from fabrica.image import Image, name

_HOLDERS = ("ReferencedFrameOfReferenceSequence", "RTReferencedStudySequence")
_SERIES = ("ReferencedSeriesSequence", "RTReferencedSeriesSequence")


def series_referred(dataset: Dataset) -> list[str]:
    """The SeriesInstanceUIDs that a SEG or RTSTRUCT refers to, each once."""
    return list(dict.fromkeys(_series(dataset)))


def check_drawn_on(dataset: Dataset, grid: Image, path: Path) -> None:
    """Raise UsageError where a SEG or RTSTRUCT says that it was drawn on another series than the grid, or in another
    frame of reference, in which places mean nothing there. Where one of them does not say, nothing is asked."""
    image = next(iter(grid.origin.get("dicom", ())), None)
    if image is None:
        return
    frame, series = (str(image.get(keyword) or "") for keyword in ("FrameOfReferenceUID", "SeriesInstanceUID"))
    frames = list(dict.fromkeys(_frames(dataset)))
    if frame and frames and frame not in frames:
        raise UsageError(
            f"{path}: drawn in the frame of reference {frames[0]}, and {name(grid)} lies in {frame}: their places "
            "cannot be compared; give the image that it was drawn on"
        )
    drawn_on = series_referred(dataset)
    if series and drawn_on and series not in drawn_on:
        raise UsageError(
            f"{path}: drawn on series {drawn_on[0]}, and {name(grid)} is series {series}; give the image that it was "
            "drawn on"
        )


def _series(holder: Dataset) -> Iterator[str]:
    for keyword in _SERIES:
        for item in holder.get(keyword) or []:
            if item.get("SeriesInstanceUID"):
                yield str(item.SeriesInstanceUID)
    for keyword in _HOLDERS:
        for item in holder.get(keyword) or []:
            yield from _series(item)


def _frames(dataset: Dataset) -> Iterator[str]:
    """Frames of reference: of a SEG its own, of an RTSTRUCT those of its regions, else those that it lists."""
    of_regions = [item.get("ReferencedFrameOfReferenceUID") for item in dataset.get("StructureSetROISequence") or []]
    listed = [item.get("FrameOfReferenceUID") for item in dataset.get("ReferencedFrameOfReferenceSequence") or []]
    own = [dataset.get("FrameOfReferenceUID")]
    for several in (of_regions, listed, own):
        if any(several):
            yield from (str(uid) for uid in several if uid)
            return
