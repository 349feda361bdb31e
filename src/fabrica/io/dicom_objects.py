"""The two kinds of DICOM object Fabrica makes: derived from a source object, or new from nothing."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from pydicom.dataset import Dataset
from pydicom.uid import (
    UID,
    ComputedRadiographyImageStorage,
    CTImageStorage,
    MRImageStorage,
    SecondaryCaptureImageStorage,
)

from fabrica.errors import UsageError
from fabrica.image import Image
from fabrica.io.dicom_geometry import affine, frame_geometry, gaps, orientation_of, place, position_of, stack_step
from fabrica.io.dicom_keywords import LOSSY, OF_PATIENT_AND_STUDY, STALE
from fabrica.io.dicom_provenance import PROCESSING, SYNTHESIZING, Maker, add_derivation, add_equipment, digest
from fabrica.io.dicom_stored import Stored, number, set_pixels, set_window, window_of

_CLASSES = {
    "CT": CTImageStorage,
    "MR": MRImageStorage,
    "CR": ComputedRadiographyImageStorage,
    "DX": ComputedRadiographyImageStorage,
}


@dataclass(frozen=True)
class Series:
    """What the objects of one image share. `sources` are the datasets the image was read from, if any."""

    image: Image
    maker: Maker
    sources: tuple[Dataset, ...]
    synthetic: bool
    same_geometry: bool
    content: str
    window: tuple[float, float] | None
    patient: str
    study_uid: UID
    series_uid: UID
    frame_of_reference_uid: UID


def series(image: Image, maker: Maker, sources: tuple[Dataset, ...], synthetic: bool) -> Series:
    """Gather what is shared, with UIDs that repeat where the maker is reproducible."""
    content = digest(np.ascontiguousarray(image.data).tobytes())
    whose = maker.uid_seed or content  # a uid_seed may join several series in one patient and study
    study = maker.uid("study", whose)
    return Series(
        image,
        maker,
        sources,
        synthetic,
        same_geometry(image, sources),
        content,
        window_of(image),
        "SYN" + digest(b"patient", study.encode())[:13].upper(),
        study,
        maker.uid("series", content),
        maker.uid("frame of reference", whose, digest(image.affine.tobytes())),
    )


def same_geometry(image: Image, sources: Sequence[Dataset]) -> bool:
    """Whether the image still lies where its sources did, voxel for voxel."""
    if not sources or (int(sources[0].Rows), int(sources[0].Columns)) != image.data.shape[-2:]:
        return False
    slices = image.data.shape[1] if image.data.ndim == 4 else 1
    frames = int(sources[0].get("NumberOfFrames") or 1)
    if len(sources) == 1 and frames == slices:
        matrix = frame_geometry(sources[0], list(range(frames)), [])[1]
    elif len(sources) == slices:
        places = [place(source, 0, []) for source in sources]
        matrix = affine(places[0], stack_step(places, gaps(places)[1]))
    else:
        return False
    return bool(np.allclose(matrix, image.affine, atol=1e-6))


def copyable(image: Image, sources: Sequence[Dataset]) -> bool:
    """Whether each slice can be a copy of its own source: as many, single frames, grey or RGB of 8 or 16 bits.

    Others (multi-frame, segmentations, palettes, 32 bits) become new objects in the same study.
    """
    slices = image.data.shape[1] if image.data.ndim == 4 else 1
    return len(sources) == slices and all(
        int(source.get("NumberOfFrames") or 1) == 1
        and "PerFrameFunctionalGroupsSequence" not in source
        and source.get("BitsAllocated") in (8, 16)
        and not str(source.get("PhotometricInterpretation")).startswith("PALETTE")
        for source in sources
    )


def derived(shared: Series, stored: Sequence[Stored]) -> list[Dataset]:
    """One object a slice, each a copy of its source with new pixels, new identity and a record of both."""
    return [_derived_slice(shared, k, s) for k, s in enumerate(stored)]


def _derived_slice(shared: Series, k: int, stored: Stored) -> Dataset:
    source, maker = shared.sources[k], shared.maker
    dataset = _copy_readable(source)
    for keyword in STALE:
        if keyword in dataset:
            delattr(dataset, keyword)
    _drop_overlays(dataset, keep=shared.same_geometry)
    dataset.SOPInstanceUID = maker.uid("instance", shared.content, str(k))
    dataset.SeriesInstanceUID = shared.series_uid
    kinds = [str(v) for v in _several(source.get("ImageType"))]
    dataset.ImageType = ["DERIVED", "SECONDARY", *kinds[2:]]
    if maker.description:
        dataset.SeriesDescription = maker.description[:64]
    if source.get("PixelRepresentation") != int(stored.grid.signed) and "PixelPaddingValue" in dataset:
        del dataset.PixelPaddingValue
    if source.get("PhotometricInterpretation") == "MONOCHROME1" and source.get("PixelIntensityRelationshipSign"):
        dataset.PixelIntensityRelationshipSign = -int(source.PixelIntensityRelationshipSign)
    if "PresentationLUTShape" in dataset:
        dataset.PresentationLUTShape = "IDENTITY"
    rescaled = "RescaleSlope" in source or "ModalityLUTSequence" in source
    set_pixels(dataset, stored, rescaled, str(source.get("RescaleType") or _rescale_type(shared.image)))
    if rescaled and "RescaleType" not in source and shared.image.unit == "HU":
        del dataset.RescaleType
    set_window(dataset, shared.window)
    if not shared.same_geometry:
        _set_plane(dataset, shared, k)
    _set_lossy(dataset, source)
    add_derivation(dataset, maker, [source], shared.synthetic)
    add_equipment(dataset, maker, PROCESSING)
    return dataset


def new(shared: Series, stored: Sequence[Stored]) -> list[Dataset]:
    """Objects with all the attributes their class demands, and nothing taken from a source but its study."""
    modality = str(shared.image.origin.get("modality") or "OT")[:16].upper()
    class_uid = _CLASSES.get(modality, SecondaryCaptureImageStorage)
    if shared.image.channels == 3:
        class_uid = SecondaryCaptureImageStorage
    return [_new_slice(shared, k, s, class_uid, modality) for k, s in enumerate(stored)]


def _new_slice(shared: Series, k: int, stored: Stored, class_uid: UID, modality: str) -> Dataset:
    maker, image = shared.maker, shared.image
    dataset = Dataset()
    dataset.SOPClassUID = class_uid
    dataset.SOPInstanceUID = maker.uid("instance", shared.content, str(k))
    _set_patient_and_study(dataset, shared)
    dataset.Modality = "CR" if class_uid == ComputedRadiographyImageStorage else modality
    dataset.SeriesInstanceUID = shared.series_uid
    dataset.SeriesNumber, dataset.InstanceNumber = 1, k + 1
    dataset.SeriesDescription = (maker.description or maker.statement)[:64]
    dataset.Manufacturer = maker.software[:64]
    if maker.model:
        dataset.ManufacturerModelName = maker.model[:64]
    if maker.version:
        dataset.SoftwareVersions = maker.version[:64]
    dataset.ContentDate = dataset.ContentTime = ""
    if not dataset.get("BodyPartExamined"):  # PS3.3 C.7.3.1: required of a body part that may be paired
        dataset.Laterality = ""
    _set_modality(dataset, class_uid)
    if class_uid in (CTImageStorage, MRImageStorage) or image.data.ndim == 4 or _lies_in_patient(image):
        _set_plane(dataset, shared, k)
    else:
        _set_spacing(dataset, image)
    unit = _rescale_type(image)
    set_pixels(dataset, stored, class_uid == CTImageStorage, unit)
    set_window(dataset, shared.window)
    if shared.sources:
        _set_lossy(dataset, shared.sources[0])
    add_derivation(dataset, maker, shared.sources, shared.synthetic)
    add_equipment(dataset, maker, SYNTHESIZING if shared.synthetic else PROCESSING)
    return dataset


def _set_patient_and_study(dataset: Dataset, shared: Series) -> None:
    """Type 1 and 2 attributes of patient and study: invented, empty, or those of the source."""
    dataset.SpecificCharacterSet = "ISO_IR 192"
    empty = "PatientBirthDate PatientSex StudyDate StudyTime StudyID AccessionNumber ReferringPhysicianName"
    for keyword in empty.split():
        setattr(dataset, keyword, "")
    dataset.StudyInstanceUID = shared.study_uid
    if shared.synthetic:
        dataset.PatientName, dataset.PatientID = "SYNTHETIC^FABRICA", shared.patient
        dataset.SyntheticData = "YES"
        dataset.BurnedInAnnotation, dataset.LossyImageCompression = "NO", "00"
        return
    dataset.PatientName, dataset.PatientID = "", str(shared.image.origin.get("patient", ""))[:64]
    if shared.sources:
        source = _copy_readable(shared.sources[0])
        for keyword in OF_PATIENT_AND_STUDY:
            if keyword in source:
                dataset[keyword] = source[keyword]


def _set_modality(dataset: Dataset, class_uid: UID) -> None:
    """What CT, MR, CR and secondary capture each demand beyond the common modules (PS3.3 C.8)."""
    dataset.ImageType = ["DERIVED", "SECONDARY"]
    if class_uid == CTImageStorage:
        dataset.ImageType = ["DERIVED", "SECONDARY", "AXIAL"]
        dataset.KVP = dataset.AcquisitionNumber = None
        dataset.PatientPosition = ""
    elif class_uid == MRImageStorage:
        dataset.ImageType = ["DERIVED", "SECONDARY", "OTHER"]
        dataset.ScanningSequence, dataset.SequenceVariant = "RM", "NONE"  # RM: Research Mode
        dataset.ScanOptions = dataset.MRAcquisitionType = dataset.PatientPosition = ""
        dataset.RepetitionTime = dataset.EchoTime = dataset.EchoTrainLength = None
    elif class_uid == ComputedRadiographyImageStorage:
        dataset.BodyPartExamined = dataset.get("BodyPartExamined", "")
        dataset.ViewPosition = dataset.PatientOrientation = ""
    else:
        dataset.ConversionType = "SYN"  # a synthetic image, in PS3.3 C.8.6.1's own sense: computed, not digitised
        dataset.PatientOrientation = ""


def _lies_in_patient(image: Image) -> bool:
    """Whether the affine says more than the size of a pixel."""
    return not np.allclose(image.affine, np.diag([*np.linalg.norm(image.affine[:3, :3], axis=0), 1.0]), atol=1e-6)


def _set_plane(dataset: Dataset, shared: Series, k: int) -> None:
    """Image Plane and Frame of Reference modules from the affine."""
    matrix = shared.image.affine
    plane = orientation_of(matrix)
    if plane is None:
        raise UsageError("the affine shears the slice plane, which DICOM cannot hold; resample the image first")
    along_w, along_h, spacing = plane
    dataset.ImagePositionPatient = [number(float(v)) for v in position_of(matrix, k)]
    dataset.ImageOrientationPatient = [number(float(v)) for v in (*along_w, *along_h)]
    dataset.PixelSpacing = [number(s) for s in spacing]
    between = float(np.linalg.norm(matrix[:3, 2]))
    dataset.SliceThickness = number(between)
    if "SpacingBetweenSlices" in dataset:
        dataset.SpacingBetweenSlices = number(between)
    if "SliceLocation" in dataset:
        del dataset.SliceLocation
    kept = shared.same_geometry and shared.sources and shared.sources[0].get("FrameOfReferenceUID")
    dataset.FrameOfReferenceUID = kept or shared.frame_of_reference_uid
    dataset.PositionReferenceIndicator = ""


def _set_spacing(dataset: Dataset, image: Image) -> None:
    """Pixel spacing of a projection image; for CR at the detector, where DICOM says it is measured."""
    rows, columns = image.spacing
    if dataset.SOPClassUID == ComputedRadiographyImageStorage:
        dataset.ImagerPixelSpacing = [number(rows), number(columns)]
    else:
        dataset.NominalScannedPixelSpacing = [number(rows), number(columns)]


def _set_lossy(dataset: Dataset, source: Dataset) -> None:
    """Once lossy, always lossy (PS3.3 C.7.6.1.1.5), whether the source says so or only its encoding does."""
    syntax = str(source.file_meta.get("TransferSyntaxUID", "")) if hasattr(source, "file_meta") else ""
    if syntax in LOSSY and dataset.get("LossyImageCompression") != "01":
        dataset.LossyImageCompression = "01"
        dataset.LossyImageCompressionMethod = LOSSY[syntax]


def _copy_readable(source: Dataset) -> Dataset:
    """A deep copy without what cannot be parsed or does not belong in a new object (meta, pixels, padding)."""
    dataset = Dataset()
    for tag in list(source.keys()):
        if tag.group in (0x0000, 0x0002, 0x7FE0, 0xFFFA, 0xFFFC) or tag.element == 0x0000:
            continue
        try:
            element = copy.deepcopy(source[tag])
            _ = element.value
        except Exception:  # one unreadable element must not cost the patient the rest
            continue
        dataset.add(element)
    return dataset


def _drop_overlays(dataset: Dataset, keep: bool) -> None:
    """Remove curves, and the overlays that lay in unused pixel bits or no longer fit the image."""
    tags = list(dataset.keys())
    for tag in (tag for tag in tags if 0x5000 <= tag.group <= 0x60FF):
        separate = (tag.group << 16 | 0x3000) in dataset
        if not (keep and tag.group >= 0x6000 and separate):
            del dataset[tag]


def _rescale_type(image: Image) -> str:
    return "HU" if image.unit == "HU" else "US"  # US: unspecified


def _several(value: object) -> list[object]:
    """The values of an attribute with none, one or several."""
    if value is None or value == "":
        return []
    return [value] if isinstance(value, str) else list(value)  # type: ignore[call-overload]
