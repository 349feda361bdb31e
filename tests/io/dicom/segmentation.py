"""DICOM segmentations (SEG) out of a ground truth: segments whose every value and place is known.

As with `tests.io.dicom.series`, the writer knows the habits of writers, and nothing of how Fabrica reads.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as Items

from tests.io.dicom import series as make

Array = np.ndarray[Any, Any]
SEG, LABEL_MAP = "1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.66.7"
NAMES = ("liver", "spleen", "tumour", "vessel")


def masks(
    present: Sequence[Sequence[bool]], kind: str = "BINARY", size: tuple[int, int] = (6, 8), seed: int = 0
) -> list[Array]:
    """Stored values (D, H, W) of segments, none empty on the planes where it is present, zero on the others. Of a label
    map, the one array that holds all their numbers."""
    rng = np.random.default_rng(seed)
    there = np.array(present, bool)
    shape = (there.shape[1], *size)
    if kind == "LABELMAP":
        labels = np.zeros(shape, np.uint8)
        for number, planes in enumerate(there, start=1):
            for k in np.flatnonzero(planes):
                labels[k][rng.random(size) < 0.4] = number
                labels[k].flat[number] = number
        return [labels]
    found = []
    for planes in there:
        values = rng.integers(0, 2 if kind == "BINARY" else 201, shape).astype(np.uint8)
        values[:, 0, 0] = 1
        found.append(values * planes[:, None, None])
    return found


def frames_of(parts: Sequence[Array], where: make.Grid, omit: bool = True, seed: int | None = None) -> list[make.Frame]:
    """A frame for each plane of each segment, numbered from 1; `omit` those that are empty, `seed` shuffles them."""
    frames = []
    for number, values in enumerate(parts, start=1):
        groups = {"SegmentIdentificationSequence": {"ReferencedSegmentNumber": number}}
        frames += [
            make.Frame(values[k], where, k, groups, (number, k + 1))
            for k in range(len(values))
            if values[k].any() or not omit
        ]
    if seed is not None:
        np.random.default_rng(seed).shuffle(frames)
    return frames


def segmentation(
    frames: Sequence[make.Frame],
    kind: str = "BINARY",
    listed: Sequence[int] = (1,),
    measures: dict[str, float] | None = None,
    **attributes: Any,
) -> Dataset:
    """The object of these frames: "BINARY", "FRACTIONAL" (of 200) or "LABELMAP"; `listed` in SegmentSequence."""
    dataset = make.enhanced(frames, Modality="SEG", SegmentationType=kind, SeriesDescription="drawn by hand")
    dataset.SOPClassUID = LABEL_MAP if kind == "LABELMAP" else SEG
    dataset.SeriesInstanceUID = make.uid("segmentation", *attributes.items())
    dataset.ImageType = ["DERIVED", "PRIMARY"]
    common = dataset.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
    del common.SliceThickness
    make.put(common, measures or {})
    if kind == "BINARY":
        dataset.BitsAllocated = dataset.BitsStored = 1
        dataset.HighBit = 0
        bits = np.packbits(np.stack([frame.pixels for frame in frames]).ravel(), bitorder="little").tobytes()
        dataset.PixelData = bits + b"\0" * (len(bits) % 2)
    if kind == "FRACTIONAL":
        dataset.SegmentationFractionalType, dataset.MaximumFractionalValue = "PROBABILITY", 200
    if kind == "LABELMAP":
        dataset.PixelPaddingValue = 0
        for groups in dataset.PerFrameFunctionalGroupsSequence:
            if "SegmentIdentificationSequence" in groups:
                del groups.SegmentIdentificationSequence
    dataset.SegmentSequence = Items([_segment(number) for number in listed])
    reference = Dataset()
    reference.SeriesInstanceUID = make.uid("series")
    dataset.ReferencedSeriesSequence = Items([reference])
    return make.put(dataset, attributes)


def _segment(number: int) -> Dataset:
    segment = Dataset()
    segment.SegmentNumber, segment.SegmentAlgorithmType = number, "MANUAL"
    segment.SegmentLabel = NAMES[(number - 1) % len(NAMES)]
    code = Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = "85756007", "SCT", "Tissue"
    segment.SegmentedPropertyCategoryCodeSequence = Items([code])
    return segment
