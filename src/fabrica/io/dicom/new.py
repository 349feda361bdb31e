"""DICOM objects that are new: of nobody, or of the source's patient but of another class."""

from __future__ import annotations

import numpy as np
from pydicom.dataset import Dataset
from pydicom.uid import (
    UID,
    ComputedRadiographyImageStorage,
    CTImageStorage,
    MRImageStorage,
    SecondaryCaptureImageStorage,
)

from fabrica.image import Image
from fabrica.io.dicom.keywords import OF_PATIENT_AND_STUDY, OF_PLACE
from fabrica.io.dicom.objects import Series, copy_elements, record, rescale_type, set_plane
from fabrica.io.dicom.stored import Stored, number, set_pixels, set_window

_CLASSES = {
    "CT": CTImageStorage,
    "MR": MRImageStorage,
    "CR": ComputedRadiographyImageStorage,
    "DX": ComputedRadiographyImageStorage,
}


def new(shared: Series, k: int, stored: Stored) -> Dataset:
    """Slice `k` with all that its class demands, and nothing taken from a source but patient, study and place."""
    maker, image, sources = shared.maker, shared.image, shared.sources_of(k)
    modality = str(image.origin.get("modality") or "OT")[:16].upper()
    grey = image.channels == 1
    class_uid = _CLASSES.get(modality, SecondaryCaptureImageStorage) if grey else SecondaryCaptureImageStorage
    dataset = Dataset()
    dataset.SOPClassUID = class_uid
    dataset.SOPInstanceUID = maker.uid("instance", shared.content, str(k))
    set_patient_and_study(dataset, shared, sources)
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
    if class_uid in (CTImageStorage, MRImageStorage) or image.data.ndim == 4 or lies_in_patient(image):
        set_plane(dataset, shared, k)
        _keep_place(dataset, shared, sources)
    else:
        _set_spacing(dataset, image)
    set_pixels(dataset, stored, class_uid == CTImageStorage, rescale_type(image))
    set_window(dataset, shared.window)
    record(dataset, shared, sources)
    return dataset


def set_patient_and_study(dataset: Dataset, shared: Series, sources: tuple[Dataset, ...]) -> None:
    """Type 1 and 2 attributes of patient and study: invented, empty, or those of the source."""
    dataset.SpecificCharacterSet = "ISO_IR 192"
    empty = "PatientBirthDate PatientSex StudyDate StudyTime StudyID AccessionNumber ReferringPhysicianName"
    for keyword in empty.split():
        setattr(dataset, keyword, "")
    dataset.StudyInstanceUID = shared.study_uid
    if shared.synthetic:
        dataset.PatientName, dataset.PatientID = "SYNTHETIC^FABRICA", shared.patient
        dataset.BurnedInAnnotation, dataset.LossyImageCompression = "NO", "00"
        return
    dataset.PatientName, dataset.PatientID = "", str(shared.image.origin.get("patient", ""))[:64]
    if sources:
        dataset.update(copy_elements(sources[0], OF_PATIENT_AND_STUDY))
        dataset.StudyInstanceUID = dataset.StudyInstanceUID or shared.study_uid  # some de-identification leaves none


def _keep_place(dataset: Dataset, shared: Series, sources: tuple[Dataset, ...]) -> None:
    """Place and number of the source slice itself, where the new one lies there: the affine only has even steps."""
    if not shared.same_geometry or not sources:
        return
    own = len(sources) == 1 and int(sources[0].get("NumberOfFrames") or 1) == 1
    own = own and (sources[0].Rows, sources[0].Columns) == shared.image.data.shape[-2:]  # not a montage of slices
    keywords = (*OF_PLACE, "InstanceNumber") if own else OF_PLACE[:2]
    dataset.update(copy_elements(sources[0], [k for k in keywords if sources[0].get(k) not in (None, "")]))


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


def lies_in_patient(image: Image) -> bool:
    """Whether the affine says more than the size of a pixel."""
    return not np.allclose(image.affine, np.diag([*np.linalg.norm(image.affine[:3, :3], axis=0), 1.0]), atol=1e-6)


def _set_spacing(dataset: Dataset, image: Image) -> None:
    """Pixel spacing of a projection image; for CR at the detector, where DICOM says it is measured."""
    rows, columns = image.spacing
    if dataset.SOPClassUID == ComputedRadiographyImageStorage:
        dataset.ImagerPixelSpacing = [number(rows), number(columns)]
    else:
        dataset.NominalScannedPixelSpacing = [number(rows), number(columns)]
