"""Write label maps as DICOM segmentations (SEG), by highdicom, on the very slices of the images they were made of.

highdicom asks much of the headers of source images: it is given slim ones, of slices in the same places, and what the
sources themselves say is put into the finished object.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as DicomSequence
from pydicom.uid import CTImageStorage

from fabrica.errors import UsageError
from fabrica.geometry import places
from fabrica.image import MOST_LABELS, Image
from fabrica.io.dicom.anatomy import Code, meaning
from fabrica.io.dicom.file import as_text, attribute
from fabrica.io.dicom.geometry import LPS_TO_RAS, numbers, orientation_of
from fabrica.io.dicom.kinds import SEGMENTATIONS
from fabrica.io.dicom.new import lies_in_patient, set_patient_and_study
from fabrica.io.dicom.objects import Series, record, series
from fabrica.io.dicom.provenance import Maker, code
from fabrica.io.dicom.stored import number
from fabrica.io.palette import RGB, colours

KINDS = {"seg": "BINARY", "seg-labelmap": "LABELMAP"}
MOST_UNNAMED = 1000  # segments that a numbering without gaps may add
_STANDS = "2.25."  # before the number of a slice, for what it was made of
_SPACINGS = ("PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing")


def segmentation(
    image: Image, kind: str, maker: Maker, sources: tuple[Dataset, ...], synthetic: bool, translated: bool
) -> Dataset:
    """A label map (1, D, H, W) or (1, H, W) as one object: "seg" (a frame for each segment on each of its slices) or
    "seg-labelmap" (one frame a slice, its pixels the numbers).

    The number of a segment is its label. Those of "seg" have no gaps: numbers between that nothing has are listed, as
    are labels of origin["labels"] without a voxel.
    Raises UsageError for what is no label map, and for what this kind cannot hold.
    """
    from highdicom.seg import Segmentation

    labels = _labels(image)
    shared = series(image, maker, sources, synthetic, translated)
    if kind == "seg" and labels[0].size < 8:  # highdicom packs bits of frames that fill no byte amiss
        raise UsageError(
            f"slices of {labels[0].size} pixels; this kind of segmentation has 8 or more: use seg-labelmap"
        )
    planes = _planes(shared)
    listed = _listed(image, labels, kind)
    empty = not labels.any()
    if empty and kind == "seg":  # a frame for each segment all the same, which one slice is enough for
        labels, planes = labels[:1], planes[:1]
    names = {number: str(image.origin.get("labels", {}).get(number, "")) for number in listed}
    shades = colours(names)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of numbers that have more digits than a header holds
        made: Any = Segmentation(
            source_images=[_stub(shared, k, plane, labels.shape[1:]) for k, plane in enumerate(planes)],
            pixel_array=labels,
            segmentation_type=KINDS[kind],
            segment_descriptions=[_description(n, name, shades[n], maker) for n, name in names.items()],
            series_instance_uid=shared.series_uid,
            series_number=1,
            sop_instance_uid=maker.uid("instance", shared.content, kind),
            instance_number=1,
            manufacturer=maker.software[:64] or "Fabrica",
            manufacturer_model_name=(maker.model or maker.software)[:64] or "Fabrica",
            software_versions=maker.version[:64] or "unknown",
            device_serial_number=maker.model_hash[:64] or "none",
            content_label="SEGMENTATION",
            content_description=maker.description[:64] or None,
            omit_empty_frames=kind == "seg" and not empty,
            series_description=(maker.description or maker.statement)[:64] or None,
        )
    dataset = Dataset(made)
    highdicoms = made.ContributingEquipmentSequence
    set_patient_and_study(dataset, shared, sources)
    dataset.SpecificCharacterSet = "ISO_IR 192"  # of which names of segments may need more than the source's
    dataset.ContributingEquipmentSequence = DicomSequence(
        [*(sources[0].get("ContributingEquipmentSequence") or [] if sources else []), *highdicoms]
    )
    for keyword in ("InstanceCreationDate", "InstanceCreationTime"):
        delattr(dataset, keyword)
    if maker.created:
        dataset.ContentDate, dataset.ContentTime = maker.created[:8], maker.created[8:]
        for equipment in highdicoms:
            equipment.ContributionDateTime = maker.created
    _refer(dataset, planes, sources)
    _place(dataset, shared, planes)
    record(dataset, shared, sources)
    dataset.BurnedInAnnotation = "NO"  # whatever the images have: a mask shows none of it
    return dataset


def _labels(image: Image) -> npt.NDArray[Any]:
    """(D, H, W), 8 or 16 bits."""
    if image.unit != "label" or image.channels != 1:
        raise UsageError(
            f"a segmentation is written of a label map of one channel, found {image.channels} in {image.unit}"
        )
    data = image.data[0] if image.data.ndim == 4 else image.data
    low, high = float(data.min()), float(data.max())
    if not 0 <= low <= high <= MOST_LABELS:
        raise UsageError(f"labels from {low:g} to {high:g}; a segmentation has 0 to {MOST_LABELS}")
    labels = np.empty(data.shape, np.uint8 if high < 256 else np.uint16)
    for k, plane in enumerate(data):
        labels[k] = np.rint(plane)
        if not np.array_equal(labels[k], plane):
            raise UsageError("labels between whole numbers; a segmentation has whole numbers alone: round them first")
    return labels


def _listed(image: Image, labels: npt.NDArray[Any], kind: str) -> list[int]:
    """The numbers of the segments: those that are named or there; of "seg" from 1 without a gap."""
    counted = sum(np.bincount(plane.ravel(), minlength=int(labels.max()) + 1) for plane in labels)
    named = {int(n) for n in image.origin.get("labels", {})}
    if named and not 1 <= min(named) <= max(named) <= MOST_LABELS:
        raise UsageError(f"labels named {min(named)} to {max(named)}; expected 1 to {MOST_LABELS}")
    found = sorted({*named, *(int(n) for n in np.flatnonzero(counted) if n)}) or [1]
    if kind != "seg":
        return found
    if found[-1] - len(found) > MOST_UNNAMED:
        raise UsageError(
            f"labels up to {found[-1]}, of which {len(found)} are used; this kind of segmentation numbers its segments "
            "without gaps: write it as seg-labelmap, or number the labels anew"
        )
    return list(range(1, found[-1] + 1))


def _description(label: int, name: str, shade: RGB, maker: Maker) -> Any:
    """The item of SegmentSequence."""
    from highdicom import AlgorithmIdentificationSequence
    from highdicom.color import CIELabColor
    from highdicom.seg import SegmentDescription
    from highdicom.sr import CodedConcept
    from pydicom.sr.codedict import codes

    def concept(found: Code) -> Any:
        return CodedConcept(*found)

    says = meaning(name)
    algorithm = AlgorithmIdentificationSequence(
        name=(maker.model or maker.software)[:64] or "Fabrica",
        family=codes.DCM.ArtificialIntelligence,
        version=(maker.model_hash or maker.version)[:64] or "unknown",
        source=maker.software[:64] or None,
    )
    item = SegmentDescription(
        segment_number=label,
        segment_label=(" ".join(name.replace("\\", "/").split()) or f"label {label}")[:64],
        segmented_property_category=concept(says.category),
        segmented_property_type=concept(says.kind),
        algorithm_type="AUTOMATIC",
        algorithm_identification=algorithm,
        anatomic_regions=[concept(says.within)] if says.within else None,
        display_color=CIELabColor.from_rgb(*shade),
    )
    if says.side:
        holder = item.AnatomicRegionSequence if says.within else item.SegmentedPropertyTypeCodeSequence
        keyword = "AnatomicRegionModifierSequence" if says.within else "SegmentedPropertyTypeModifierCodeSequence"
        setattr(holder[0], keyword, DicomSequence([code(*says.side)]))
    return item


@dataclass(frozen=True)
class _Plane:
    """A slice of the label map: where it lies, in DICOM's keywords ({} where that is not known), and the dataset that
    it was made of with the number of its frame there (0 of a file of one); None where it lies on none."""

    said: dict[str, Any]
    source: tuple[Dataset, int] | None = None


def _planes(shared: Series) -> list[_Plane]:
    """Slice for slice where the label map lies: as its sources say it, to the digit, where it lies on them."""
    image, sources = shared.image, shared.sources
    depth = image.data.shape[1] if image.data.ndim == 4 else 1
    origins = [_source_of(shared, k, depth) for k in range(depth)]
    first = origins[0]
    if image.data.ndim == 3 and not (_position(first) if sources else lies_in_patient(image)):
        known = not sources or any(sources[0].get(keyword) for keyword in _SPACINGS)
        spacing = {"PixelSpacing": [number(mm) for mm in image.spacing]} if known and image.measured else {}
        return [_Plane(spacing, first)]
    where = places(image if shared.same_geometry else replace(image, origin={}))
    common = _common(image, first, uneven=shared.same_geometry and "positions" in image.origin)
    return [
        _Plane({"ImagePositionPatient": _position(source) or _numbers(LPS_TO_RAS @ place), **common}, source)
        for source, place in zip(origins, where, strict=True)
    ]


def _source_of(shared: Series, k: int, depth: int) -> tuple[Dataset, int] | None:
    """The dataset and frame that slice k was made of, where it lies on it pixel for pixel."""
    sources, frames = shared.sources, shared.image.origin.get("frames", ())
    if not shared.same_geometry:
        return None
    if len(sources) == 1 and len(frames) == depth:
        return sources[0], int(frames[k])
    if len(sources) != depth or int(sources[k].get("NumberOfFrames") or 1) > 1:
        return None
    own = (sources[k].get("Rows"), sources[k].get("Columns")) == shared.image.data.shape[-2:]  # no montage of slices
    return (sources[k], 0) if own else None


def _common(image: Image, first: tuple[Dataset, int] | None, uneven: bool) -> dict[str, Any]:
    """How all slices lie beside their position."""
    plane = orientation_of(image.affine)
    if plane is None:
        raise UsageError("the affine shears the slice plane, which DICOM cannot hold; resample the image first")
    along_w, along_h, spacing = plane
    step = abs(float(LPS_TO_RAS @ image.affine[:3, 2] @ np.cross(along_w, along_h)))
    said = {
        "ImageOrientationPatient": _said_by(first, "PlaneOrientationSequence", "ImageOrientationPatient", 6),
        "PixelSpacing": _said_by(first, "PixelMeasuresSequence", "PixelSpacing", 2),
        "SliceThickness": _said_by(first, "PixelMeasuresSequence", "SliceThickness", 1),
    }
    found: dict[str, Any] = {
        "ImageOrientationPatient": said["ImageOrientationPatient"] or _numbers((*along_w, *along_h)),
        "PixelSpacing": said["PixelSpacing"] or _numbers(spacing),
        "SliceThickness": (said["SliceThickness"] or [number(step or 1.0)])[0],
    }
    if not uneven and step:  # of one slice, too, for which highdicom would write 1 mm
        found["SpacingBetweenSlices"] = number(step)
    return found


def _position(source: tuple[Dataset, int] | None) -> list[Any] | None:
    return _said_by(source, "PlanePositionSequence", "ImagePositionPatient", 3)


def _said_by(source: tuple[Dataset, int] | None, group: str, keyword: str, count: int) -> list[Any] | None:
    """What a frame says, None where these are not `count` numbers."""
    if source is None:
        return None
    dataset, frame = source
    value = attribute(dataset, max(0, frame - 1), group, keyword)
    found = numbers(as_text(value), count)
    return None if found is None else _numbers(found)


def _numbers(values: Iterable[float]) -> list[Any]:
    return [number(float(value)) for value in values]


def _stub(shared: Series, k: int, plane: _Plane, size: tuple[int, ...]) -> Dataset:
    """A source image of which highdicom takes place, frame of reference and an instance UID that stands for slice k."""
    stub = Dataset()
    stub.SOPClassUID, stub.SOPInstanceUID = CTImageStorage, f"{_STANDS}{k + 1}"
    stub.StudyInstanceUID, stub.SeriesInstanceUID = shared.study_uid, shared.series_uid
    stub.FrameOfReferenceUID = _frame_of_reference(shared) or shared.frame_of_reference_uid
    stub.Modality = "CT"
    for keyword in ("PatientID", "PatientName", "PatientBirthDate", "PatientSex", "AccessionNumber", "StudyID",
                    "StudyDate", "StudyTime"):  # fmt: skip
        setattr(stub, keyword, "")
    stub.Rows, stub.Columns = size
    for keyword, value in plane.said.items():
        setattr(stub, keyword, value)
    return stub


def _frame_of_reference(shared: Series) -> str:
    """That of the sources, "" where the label map does not lie on them, or they have none."""
    kept = shared.same_geometry and shared.sources and shared.sources[0].get("FrameOfReferenceUID")
    return str(kept or "")


def _refer(dataset: Dataset, planes: Sequence[_Plane], sources: Sequence[Dataset]) -> None:
    """Put what the slices were made of in the place of what stood for it."""
    done = set()
    for item in dataset.PerFrameFunctionalGroupsSequence:
        for derivation in item.get("DerivationImageSequence") or []:
            for reference in derivation.SourceImageSequence:
                if id(reference) not in done:  # shared by the frames of one slice
                    done.add(id(reference))
                    stood = str(reference.ReferencedSOPInstanceUID).removeprefix(_STANDS)
                    _point(reference, planes[int(stood) - 1])
        if not _is_known(item):
            del item.DerivationImageSequence
    by_series: dict[str, list[Dataset]] = {}
    for source in sources:
        if source.get("SOPClassUID") and source.get("SOPInstanceUID") and source.get("SeriesInstanceUID"):
            reference = Dataset()
            reference.ReferencedSOPClassUID = source.SOPClassUID
            reference.ReferencedSOPInstanceUID = source.SOPInstanceUID
            by_series.setdefault(str(source.SeriesInstanceUID), []).append(reference)
    del dataset.ReferencedSeriesSequence, dataset.SourceImageSequence
    # of another segmentation the images that it was drawn on itself
    items = [copy.deepcopy(i) for s in sources[:1] if _is_drawn(s) for i in s.get("ReferencedSeriesSequence") or []]
    by_series = {} if items else by_series
    for uid, references in by_series.items():
        item = Dataset()
        item.SeriesInstanceUID, item.ReferencedInstanceSequence = uid, DicomSequence(references)
        items.append(item)
    if items:
        dataset.ReferencedSeriesSequence = DicomSequence(items)


def _is_drawn(source: Dataset) -> bool:
    return source.get("SOPClassUID") in SEGMENTATIONS


def _point(reference: Dataset, plane: _Plane) -> None:
    dataset, frame = plane.source or (Dataset(), 0)
    reference.ReferencedSOPClassUID = dataset.get("SOPClassUID") or ""
    reference.ReferencedSOPInstanceUID = dataset.get("SOPInstanceUID") or ""
    if frame:
        reference.ReferencedFrameNumber = frame


def _is_known(item: Dataset) -> bool:
    """Whether a frame's sources have a name."""
    references = [ref for found in item.get("DerivationImageSequence") or [] for ref in found.SourceImageSequence]
    return all(ref.ReferencedSOPInstanceUID and ref.ReferencedSOPClassUID for ref in references)


def _place(dataset: Dataset, shared: Series, planes: Sequence[_Plane]) -> None:
    """The frame of reference, of what has a place or whose source has one; and the UID of how frames are indexed."""
    placed = "ImagePositionPatient" in planes[0].said
    first = shared.sources[0] if shared.sources else Dataset()
    if not placed:  # PS3.3 C.7.6.1: of what has no orientation in mm
        dataset.PatientOrientation = first.get("PatientOrientation") or ""
    if not placed and not _frame_of_reference(shared):
        for keyword in ("FrameOfReferenceUID", "PositionReferenceIndicator"):
            if keyword in dataset:
                delattr(dataset, keyword)
    else:
        kept = first.get("PositionReferenceIndicator") if shared.same_geometry else ""
        dataset.PositionReferenceIndicator = kept or ""
    uid = shared.maker.uid("dimensions", shared.content)
    for item in (*dataset.DimensionOrganizationSequence, *dataset.DimensionIndexSequence):
        item.DimensionOrganizationUID = uid
