"""DICOM structure sets (RTSTRUCT) of contours whose every corner is known, as planning systems write them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as Items
from pydicom.uid import RTStructureSetStorage

from tests.io.dicom import series as make

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Contour:
    """Corners (N, 2) as (w, h) in pixels of slice k (which may lie between two), `lift` mm along its normal (N,)."""

    k: float
    corners: Array
    kind: str = "CLOSED_PLANAR"
    lift: Any = 0.0

    def points(self, where: make.Grid) -> Array:
        """(N, 3) LPS mm."""
        between = np.array([np.interp(self.k, np.arange(len(where.places)), axis) for axis in where.places.T])
        rows, columns = where.spacing
        w, h = np.asarray(self.corners, float).T
        flat = between + w[:, None] * columns * where.along_w + h[:, None] * rows * where.along_h
        return flat + np.broadcast_to(self.lift, w.shape)[:, None] * where.normal


def structures(
    regions: Mapping[str, Sequence[Contour]],
    where: make.Grid,
    numbers: Sequence[int] = (),
    decimals: int = 4,
    **attributes: Any,
) -> Dataset:
    """The object of these regions, in this order; `numbers` are their ROINumbers, else 1, 2, ..."""
    dataset = Dataset()
    dataset.SOPClassUID, dataset.Modality = RTStructureSetStorage, "RTSTRUCT"
    dataset.PatientID, dataset.PatientName = "P1", "Sample^Anna"
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = make.uid("study"), make.uid("structures")
    dataset.StructureSetLabel = "DRAWN"
    series, study, frame = Dataset(), Dataset(), Dataset()
    series.SeriesInstanceUID = make.uid("series")
    study.RTReferencedSeriesSequence = Items([series])
    frame.FrameOfReferenceUID = make.uid("frame of reference")
    frame.RTReferencedStudySequence = Items([study])
    dataset.ReferencedFrameOfReferenceSequence = Items([frame])
    listed, drawn = [], []
    for k, (name, contours) in enumerate(regions.items()):
        region, holder = Dataset(), Dataset()
        region.ROINumber = holder.ReferencedROINumber = numbers[k] if numbers else k + 1
        region.ReferencedFrameOfReferenceUID, region.ROIName = frame.FrameOfReferenceUID, name
        listed.append(region)
        items = []
        for contour in contours:
            item = Dataset()
            points = contour.points(where)
            item.ContourGeometricType, item.NumberOfContourPoints = contour.kind, len(points)
            item.ContourData = [f"{value:.{decimals}f}" for value in points.ravel()]
            items.append(item)
        if items:
            holder.ContourSequence = Items(items)
            drawn.append(holder)
    dataset.StructureSetROISequence = Items(listed)
    if drawn:
        dataset.ROIContourSequence = Items(drawn)
    return make.put(dataset, attributes)
