"""Images made by a model out of a patient's: of another modality or the same, with the patient, the place, the mark."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom.uid import CTImageStorage, MRImageStorage, SecondaryCaptureImageStorage, generate_uid

from fabrica import io as fio
from fabrica.errors import UsageError
from fabrica.image import Image
from fabrica.io.dicom.read import read_dicom
from fabrica.io.dicom.write import write_dicom
from tests.real import DATA as REAL

DATA = REAL / "dicom_pydicom"
DCIODVFY = shutil.which("dciodvfy")
UNKNOWN_TO_DCIODVFY = "(0x0008,0x001c)"  # SyntheticData is younger than the validator
MODEL: dict[str, Any] = {"model": "t1-to-ct", "model_hash": "ab12", "description": "CT from T1"}


def scanned(folder: Path, depths: tuple[float, ...] = (0, 3, 6, 9), **attributes: Any) -> Image:
    """An oblique MR series as a scanner would send it, numbered from the far end, with slices at `depths`."""
    affine = np.diag([0.7, 0.7, 3.0, 1.0])
    affine[:3, :3] = [[0.7, 0, 0], [0, 0.7 * 0.8, -3 * 0.6], [0, 0.7 * 0.6, 3 * 0.8]]
    affine[:3, 3] = -100, -90, 40
    data = np.random.default_rng(0).integers(0, 900, (1, len(depths), 6, 5)).astype(np.float32)
    image = Image(data, affine, origin={"modality": "MR"})
    for k, path in enumerate(write_dicom(image, folder, synthetic=True, uid_seed="scanner")):
        dataset = pydicom.dcmread(path)
        del dataset.SyntheticData, dataset.DerivationDescription, dataset.DerivationCodeSequence
        position = affine[:3, 3] + affine[:3, 2] / 3 * depths[k]
        dataset.ImagePositionPatient = [f"{v:.8g}" for v in position * [-1, -1, 1]]
        dataset.ImageType = ["ORIGINAL", "PRIMARY", "M_SE"]
        dataset.PatientName, dataset.PatientID, dataset.PatientPosition = "Doe^Jane", "J1", "FFP"
        dataset.InstanceNumber, dataset.EchoTime = 10 - k, 90
        for keyword, value in attributes.items():
            setattr(dataset, keyword, value)
        dataset.save_as(path)
    return fio.read(folder)


def translated(source: Image, modality: str = "CT") -> Image:
    """What `fabrica apply` makes of a source."""
    if modality != "CT":
        return source.with_data(source.data * 2, origin={**source.origin, "modality": modality})
    origin = {**source.origin, "modality": "CT", "range": (-1024.0, 3071.0), "window": (40.0, 400.0), "step": 1.0}
    return source.with_data(np.rint(source.data * 3 - 1000), unit="HU", origin=origin)


def complaints(path: Path) -> set[str]:
    if DCIODVFY is None:
        return set()
    done = subprocess.run([DCIODVFY, str(path)], capture_output=True, text=True, timeout=20, check=False)
    lines = (done.stdout + done.stderr).splitlines()
    return {line for line in lines if line.startswith("Error") and UNKNOWN_TO_DCIODVFY not in line}


@pytest.mark.parametrize("depths", [(0, 3, 6, 9), (0, 3, 6.2, 9.1)], ids=["even", "uneven"])
def test_ct_from_mr_is_a_new_ct_object_of_the_same_patient_in_the_same_place(
    tmp_path: Path, depths: tuple[float, ...]
) -> None:
    source = scanned(tmp_path / "mr", depths)
    ct = translated(source)
    paths = fio.write(ct, tmp_path / "ct", translated=True, **MODEL)
    found = fio.read(tmp_path / "ct")
    assert found.unit == "HU" and np.array_equal(found.data, ct.data)
    np.testing.assert_allclose(found.affine, source.affine, atol=1e-9)
    for old, new in zip(source.origin["dicom"], found.origin["dicom"], strict=True):
        assert (new.SOPClassUID, new.Modality, new.RescaleType) == (CTImageStorage, "CT", "HU")
        for kept in (
            *("PatientID", "PatientName", "StudyInstanceUID", "FrameOfReferenceUID", "PatientPosition"),
            *("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "InstanceNumber", "SliceThickness"),
        ):
            assert new[kept].value == old[kept].value, kept
        assert new.SeriesInstanceUID != old.SeriesInstanceUID and new.ImageType[0] == "DERIVED"
        [reference] = new.SourceImageSequence
        assert reference.ReferencedSOPInstanceUID == old.SOPInstanceUID
        assert reference.ReferencedSOPClassUID == MRImageStorage
        assert new.SyntheticData == "YES" and "SyntheticData" not in old
        assert new.DerivationCodeSequence[0].CodeMeaning and "CT from T1" in new.DerivationDescription
        assert len(new.ContributingEquipmentSequence) == len(old.ContributingEquipmentSequence) + 1
        assert "EchoTime" not in new
    assert all(complaints(path) == set() for path in paths)


def test_same_modality_stays_a_copy_of_its_source_and_is_marked(tmp_path: Path) -> None:
    source = scanned(tmp_path / "t1")
    for marked in (True, False):
        paths = fio.write(translated(source, "MR"), tmp_path / f"t2 {marked}", translated=marked, **MODEL)
        for old, new in zip(source.origin["dicom"], map(pydicom.dcmread, paths), strict=True):
            assert new.SOPClassUID == MRImageStorage and new.EchoTime == 90 and new.PatientID == "J1"
            assert list(new.ImageType) == ["DERIVED", "SECONDARY", "M_SE"]
            assert new.get("SyntheticData") == ("YES" if marked else None)
            assert new.InstanceNumber == old.InstanceNumber
        assert complaints(paths[0]) == set()


def test_another_modality_is_never_a_copy_even_where_nobody_says_translated(tmp_path: Path) -> None:
    source = scanned(tmp_path / "mr")
    ct = pydicom.dcmread(fio.write(translated(source), tmp_path / "ct")[0])
    assert ct.SOPClassUID == CTImageStorage and ct.PatientID == "J1" and "SyntheticData" not in ct
    pet = pydicom.dcmread(fio.write(translated(source, "PT"), tmp_path / "pt", translated=True)[0])
    assert pet.SOPClassUID == SecondaryCaptureImageStorage and pet.SyntheticData == "YES"


def test_burned_in_and_lossy_stick_to_the_slice_that_has_them(tmp_path: Path) -> None:
    source = scanned(tmp_path / "mr")
    second = source.origin["dicom"][1]
    second.BurnedInAnnotation, second.LossyImageCompression, second.LossyImageCompressionRatio = "YES", "01", 9
    written = [pydicom.dcmread(p) for p in fio.write(translated(source), tmp_path / "ct", translated=True)]
    assert [d.BurnedInAnnotation for d in written] == ["NO", "YES", "NO", "NO"]
    assert [d.LossyImageCompression for d in written] == ["00", "01", "00", "00"]
    assert written[1].LossyImageCompressionRatio == 9
    fewer = Image(source.data[:, :2], source.affine, "arbitrary", translated(source).origin)
    both = pydicom.dcmread(fio.write(fewer, tmp_path / "fewer", translated=True)[0])
    assert (both.BurnedInAnnotation, both.LossyImageCompression, len(both.SourceImageSequence)) == ("YES", "01", 4)
    assert source.origin["dicom"][0].LossyImageCompression == "00"  # the source itself is untouched


def test_uids_repeat_for_the_same_patient_only(tmp_path: Path) -> None:
    source = scanned(tmp_path / "mr")
    blank = translated(source).with_data(np.full_like(source.data, -1000))

    def uids(name: str) -> set[str]:
        written = [pydicom.dcmread(p) for p in fio.write(blank, tmp_path / name, translated=True, **MODEL)]
        return {str(d.SOPInstanceUID) for d in written} | {str(written[0].SeriesInstanceUID)}

    first = uids("a")
    assert len(first) == 5 and uids("b") == first
    for dataset in source.origin["dicom"]:
        dataset.SOPInstanceUID = generate_uid()
    assert not uids("c") & first


def test_other_formats_carry_the_mark_and_give_the_patient_back(tmp_path: Path) -> None:
    ct = translated(scanned(tmp_path / "mr"))
    [nifti] = fio.write(ct, tmp_path / "ct.nii.gz", translated=True, **MODEL)
    back = fio.read(nifti)
    assert back.origin["synthetic"] is True and back.origin["translated"] is True
    flat = back.with_data(back.data[:, 0] + 1000)
    [png] = fio.write(flat, tmp_path / "ct.png", clip=True)
    assert fio.read(png).origin["translated"] is True
    dataset = pydicom.dcmread(fio.write(back, tmp_path / "again")[0])
    assert dataset.SyntheticData == "YES" and dataset.PatientName != "SYNTHETIC^FABRICA"
    nobody = Image(back.data, back.affine, "HU", {"modality": "CT", "synthetic": True})
    dataset = pydicom.dcmread(fio.write(nobody, tmp_path / "nobody", translated=True)[0])
    assert dataset.SyntheticData == "YES" and dataset.PatientName == "SYNTHETIC^FABRICA"
    with pytest.raises(UsageError, match="nobody"):
        fio.write(ct, tmp_path / "both", synthetic=True, translated=True)


@pytest.mark.skipif(not DATA.is_dir(), reason=f"no DICOM collection at {DATA}; set FABRICA_DATA")
@pytest.mark.parametrize("name", ["test_files/MR_small.dcm", "data_store/MR2_UNCI.dcm", "data_store/emri_small.dcm"])
def test_real_mr_becomes_ct(tmp_path: Path, name: str) -> None:
    source = read_dicom(DATA / name, "1" if "emri" in name else "")
    ct = translated(source)
    paths = fio.write(ct, tmp_path / "ct", as_="dicom", translated=True, **MODEL)
    dataset = pydicom.dcmread(paths[-1])
    old = source.origin["dicom"][0]
    assert dataset.SOPClassUID == CTImageStorage and dataset.StudyInstanceUID == old.StudyInstanceUID
    assert dataset.FrameOfReferenceUID == old.FrameOfReferenceUID and dataset.PatientPosition == old.PatientPosition
    assert complaints(paths[-1]) <= complaints(DATA / name)
