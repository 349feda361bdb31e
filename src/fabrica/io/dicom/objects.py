"""DICOM objects that are copies of a source object with new pixels, and what they share with new ones."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from pydicom.dataset import Dataset
from pydicom.tag import BaseTag
from pydicom.uid import UID

from fabrica.errors import UsageError
from fabrica.image import Image
from fabrica.io.dicom.geometry import LPS_TO_RAS, orientation_of, position_of
from fabrica.io.dicom.keywords import LOSSY, LOSSY_KEYWORDS, STALE
from fabrica.io.dicom.provenance import (
    PROCESSED,
    PROCESSING,
    SYNTHESISED,
    SYNTHESIZING,
    TRANSLATED,
    Maker,
    add_derivation,
    add_equipment,
    digest,
    digest_of,
)
from fabrica.io.dicom.stored import Stored, number, set_pixels, set_window, window_of


@dataclass(frozen=True)
class Series:
    """What the objects of one image share.

    sources     the datasets the image was read from, if any.
    synthetic   of nobody: a new patient.
    translated  of the sources' patient, but made by a generative model.
    """

    image: Image
    maker: Maker
    sources: tuple[Dataset, ...]
    synthetic: bool
    translated: bool
    same_geometry: bool
    content: str
    window: tuple[float, float] | None
    patient: str
    study_uid: UID
    series_uid: UID
    frame_of_reference_uid: UID

    def sources_of(self, k: int) -> tuple[Dataset, ...]:
        """The sources of slice `k`: its own where there are as many as slices, else all."""
        slices = self.image.data.shape[1] if self.image.data.ndim == 4 else 1
        return self.sources[k : k + 1] if len(self.sources) == slices else self.sources


def series(image: Image, maker: Maker, sources: tuple[Dataset, ...], synthetic: bool, translated: bool) -> Series:
    """Gather what is shared, with UIDs that repeat where the maker is reproducible."""
    content = maker.uid_content or digest_of(image.data)
    if (
        maker.uid_content or translated or image.unit == "label"
    ):  # two patients may have the same pixels, an empty slice or mask say
        content = digest(content.encode(), *(str(source.get("SOPInstanceUID")).encode() for source in sources))
    whose = maker.uid_seed or content  # a uid_seed may join several series in one patient and study
    study = maker.uid("study", whose)
    return Series(
        image,
        maker,
        sources,
        synthetic,
        translated,
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
    size = (image.data.shape[1] if image.data.ndim == 4 else 1, *image.data.shape[-2:])
    if not sources or image.origin.get("shape") != size:
        return False
    return bool(np.allclose(image.origin["grid"], image.affine, atol=1e-6))


def copyable(image: Image, sources: Sequence[Dataset]) -> bool:
    """Whether each slice can be a copy of its own source: as many, single frames, grey or RGB of 8 or 16 bits.

    Others (multi-frame, segmentations, palettes, 32 bits) become new objects in the same study, and so does an
    image of another modality than its sources: an MR object cannot hold HU.
    """
    slices = image.data.shape[1] if image.data.ndim == 4 else 1
    modality = str(image.origin.get("modality") or "").upper()
    return len(sources) == slices and all(
        modality in ("", modality_of(source))
        and source.get("SOPClassUID")  # some de-identification leaves none
        and int(source.get("NumberOfFrames") or 1) == 1
        and "PerFrameFunctionalGroupsSequence" not in source
        and source.get("BitsAllocated") in (8, 16)
        and not str(source.get("PhotometricInterpretation")).startswith("PALETTE")
        for source in sources
    )


def modality_of(dataset: Dataset) -> str:
    """DICOM's two letters, "" where the object has none."""
    return str(dataset.get("Modality") or "").strip().upper()


def derived(shared: Series, k: int, stored: Stored) -> Dataset:
    """Slice `k`: a copy of its source with new pixels, new identity and a record of both."""
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
    set_pixels(dataset, stored, rescaled, str(source.get("RescaleType") or rescale_type(shared.image)))
    if rescaled and "RescaleType" not in source and shared.image.unit == "HU":
        del dataset.RescaleType
    set_window(dataset, shared.window)
    if not shared.same_geometry:
        set_plane(dataset, shared, k)
    record(dataset, shared, [source])
    return dataset


def record(dataset: Dataset, shared: Series, sources: Sequence[Dataset]) -> None:
    """How the object came to be, from which sources, and the marks of these that stick."""
    derivation, equipment = PROCESSED, PROCESSING
    if shared.synthetic or shared.translated:
        derivation, equipment = SYNTHESISED if shared.synthetic else TRANSLATED, SYNTHESIZING
        dataset.SyntheticData = "YES"
    for source in sources:
        if source.get("SyntheticData") == "YES":
            dataset.SyntheticData = "YES"
        if source.get("BurnedInAnnotation") == "YES":
            dataset.BurnedInAnnotation = "YES"
        _set_lossy(dataset, source)
    if created := shared.maker.created:
        dataset.InstanceCreationDate, dataset.InstanceCreationTime = created[:8], created[8:]
    add_derivation(dataset, shared.maker, sources, derivation)
    add_equipment(dataset, shared.maker, equipment)


def set_plane(dataset: Dataset, shared: Series, k: int) -> None:
    """Image Plane and Frame of Reference modules from the affine."""
    matrix = shared.image.affine
    plane = orientation_of(matrix)
    if plane is None:
        raise UsageError("the affine shears the slice plane, which DICOM cannot hold; resample the image first")
    along_w, along_h, spacing = plane
    uneven = shared.image.origin.get("positions") if shared.same_geometry else None
    place = position_of(matrix, k) if uneven is None else LPS_TO_RAS @ uneven[k]
    dataset.ImagePositionPatient = [number(float(v)) for v in place]
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


def _set_lossy(dataset: Dataset, source: Dataset) -> None:
    """Once lossy, always lossy (PS3.3 C.7.6.1.1.5), whether the source says so or only its encoding does."""
    if source.get("LossyImageCompression") == "01" and dataset.get("LossyImageCompression") != "01":
        dataset.update(copy_elements(source, LOSSY_KEYWORDS))
    syntax = str(source.file_meta.get("TransferSyntaxUID", "")) if hasattr(source, "file_meta") else ""
    if syntax in LOSSY and dataset.get("LossyImageCompression") != "01":
        dataset.LossyImageCompression = "01"
        dataset.LossyImageCompressionMethod = LOSSY[syntax]


def _copy_readable(source: Dataset) -> Dataset:
    """A deep copy without what cannot be parsed or does not belong in a new object (meta, pixels, padding)."""
    unfit = (0x0000, 0x0002, 0x7FE0, 0xFFFA, 0xFFFC)
    return copy_elements(source, [t for t in source.keys() if t.group not in unfit and t.element != 0x0000])  # noqa: SIM118


def copy_elements(source: Dataset, tags: Iterable[BaseTag | str]) -> Dataset:
    """A deep copy of those of the elements that are there and can be parsed."""
    dataset = Dataset()
    for tag in tags:
        if tag not in source:
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


def rescale_type(image: Image) -> str:
    return "HU" if image.unit == "HU" else "US"  # US: unspecified


def _several(value: object) -> list[object]:
    """The values of an attribute with none, one or several."""
    if value is None or value == "":
        return []
    return [value] if isinstance(value, str) else list(value)  # type: ignore[call-overload]
