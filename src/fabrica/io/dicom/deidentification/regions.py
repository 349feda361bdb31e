"""Ultrasound: pixels outside the regions in which the header says that there is an image, blanked."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset

from fabrica.image import Array
from fabrica.io.dicom.file import OpenDicom
from fabrica.io.dicom.pixels import decode_frames, frame_count

Bool = npt.NDArray[np.bool_]
_ENDS = ("RegionLocationMinX0", "RegionLocationMinY0", "RegionLocationMaxX1", "RegionLocationMaxY1")


def outside(dataset: Dataset) -> Bool | None:
    """(H, W), true where no region of SequenceOfUltrasoundRegions (PS3.3 C.8.5.5) lies; None where there is none. The
    ends of a region belong to it."""
    rows, columns = int(dataset.get("Rows") or 0), int(dataset.get("Columns") or 0)
    mask: Bool = np.ones((rows, columns), dtype=bool)
    for region in dataset.get("SequenceOfUltrasoundRegions") or ():
        ends = [region.get(keyword) for keyword in _ENDS]
        if None not in ends:
            left, top, right, bottom = (max(0, int(end)) for end in ends)
            mask[top : bottom + 1, left : right + 1] = False
    return None if mask.all() else mask


def blanked(file: OpenDicom, mask: Bool, budget: int) -> Iterator[tuple[Array, str]]:
    """Each frame decoded, black where the mask is true, and its colour space: (H, W) or (H, W, 3) of stored values."""
    for frame, space in decode_frames(file, range(frame_count(file)), budget):
        made = frame.copy()
        made[mask] = made.max() if space == "MONOCHROME1" else 0
        yield made, space
