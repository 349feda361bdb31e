"""Writing DICOM: values and places survive, identities follow the rules, a validator finds nothing to say."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from fabrica.errors import FabricaError, UsageError
from fabrica.image import Image
from fabrica.io.dicom.read import read_dicom, read_series
from fabrica.io.dicom.write import write_dicom
from tests.draws import draws
from tests.real import DATA as REAL

DATA = REAL / "dicom_pydicom"
DCIODVFY = shutil.which("dciodvfy")
UNKNOWN_TO_DCIODVFY = "(0x0008,0x001c)"  # SyntheticData is younger than the validator


def rotation(angles: tuple[float, float, float]) -> np.ndarray[Any, Any]:
    matrix = np.eye(3)
    for axis, angle in enumerate(angles):
        c, s = np.cos(angle), np.sin(angle)
        turn = np.eye(3)
        i, j = (axis + 1) % 3, (axis + 2) % 3
        turn[[i, i, j, j], [i, j, i, j]] = c, -s, s, c
        matrix = matrix @ turn
    return matrix


def volume(modality: str = "CT", size: tuple[int, ...] = (4, 6, 5), seed: int = 0) -> Image:
    unit = "HU" if modality == "CT" else "arbitrary"
    data = np.random.default_rng(seed).normal(0, 300, (1, *size)).astype(np.float32)
    affine = np.diag([0.7, 0.7, 3.0, 1.0])
    affine[:3, 3] = -100, -90, 40
    return Image(data, affine, unit, {"modality": modality})


def source_ct(folder: Path, **attributes: Any) -> Image:
    """A volume as a scanner would send it: made here, then stripped of every sign that it was."""
    paths = write_dicom(volume(), folder, synthetic=True, uid_seed="scanner")
    for path in paths:
        dataset = pydicom.dcmread(path)
        del dataset.SyntheticData, dataset.DerivationDescription, dataset.DerivationCodeSequence
        dataset.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
        dataset.PatientName, dataset.PatientID, dataset.BurnedInAnnotation = "Doe^Jane", "J1", "YES"
        for keyword, value in attributes.items():
            setattr(dataset, keyword, value)
        dataset.save_as(path)
    return read_series(paths)


@settings(max_examples=draws(30), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    angles=st.tuples(*[st.floats(-3.1, 3.1)] * 3),
    spacing=st.tuples(*[st.floats(0.05, 20)] * 3),
    corner=st.tuples(*[st.floats(-900, 900)] * 3),
    modality=st.sampled_from(["CT", "MR", "PT"]),
    scale=st.floats(1e-3, 1e4),
)
def test_volume_survives_writing_anywhere_in_space(
    tmp_path: Path,
    angles: tuple[float, float, float],
    spacing: tuple[float, float, float],
    corner: tuple[float, float, float],
    modality: str,
    scale: float,
) -> None:
    image = volume(modality)
    # RAS and LPS differ by a half turn, so a rotation here is a right-handed stack of slices there.
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = rotation(angles) * spacing, corner
    image = Image(image.data * np.float32(1 if modality == "CT" else scale), affine, image.unit, image.origin)
    found = read_series(write_dicom(image, tmp_path / "v", synthetic=True, seed=1)[::-1])
    np.testing.assert_allclose(found.affine, affine, atol=1e-6)
    half = found.origin["step"] / 2
    assert half <= max(0.5 if modality == "CT" else 0, np.ptp(image.data) / 65000)
    assert np.abs(found.data - image.data).max() <= half * 1.001 + 1e-5
    assert found.unit == image.unit


def test_left_handed_volume_is_the_same_in_the_patient(tmp_path: Path) -> None:
    image = volume()
    flipped = image.affine.copy()
    flipped[:3, 2] *= -1
    found = read_series(write_dicom(Image(image.data, flipped, "HU", image.origin), tmp_path / "v", synthetic=True))
    np.testing.assert_allclose(found.data[:, ::-1], image.data, atol=0.5)
    np.testing.assert_allclose(found.affine @ [0, 0, 3, 1], flipped @ [0, 0, 0, 1], atol=1e-6)


def test_derived_series_keeps_values_patient_and_study_and_gets_its_own_identity(tmp_path: Path) -> None:
    source = source_ct(tmp_path / "source")
    result = source.with_data(source.data + np.float32(0.3))
    paths = write_dicom(result, tmp_path / "out", synthetic=False, version="1.0", model="denoiser", model_hash="ab12")
    assert [p.name for p in paths] == ["0001.dcm", "0002.dcm", "0003.dcm", "0004.dcm"]
    found = read_series(paths)
    assert np.array_equal(found.data, source.data)  # 0.3 is less than half of the source's step of 1 HU
    np.testing.assert_allclose(found.affine, source.affine, atol=1e-9)
    for old, new in zip(source.origin["dicom"], found.origin["dicom"], strict=True):
        assert (new.PatientID, new.PatientName) == ("J1", "Doe^Jane")
        for kept in ("StudyInstanceUID", "FrameOfReferenceUID", "SOPClassUID", "BurnedInAnnotation", "InstanceNumber"):
            assert new[kept].value == old[kept].value
        for changed in ("SeriesInstanceUID", "SOPInstanceUID"):
            assert new[changed].value != old[changed].value
        assert list(new.ImageType) == ["DERIVED", "SECONDARY", "AXIAL"]
        assert new.SourceImageSequence[0].ReferencedSOPInstanceUID == old.SOPInstanceUID
        assert "ab12" in new.DerivationDescription and new.DerivationCodeSequence[0].CodeMeaning
        before, after = old.ContributingEquipmentSequence, new.ContributingEquipmentSequence
        assert len(after) == len(before) + 1
        assert after[-1].PurposeOfReferenceCodeSequence[0].CodeValue == "109102"
        assert "SyntheticData" not in new
    assert len({d.SeriesInstanceUID for d in found.origin["dicom"]}) == 1
    assert len({d.SOPInstanceUID for d in found.origin["dicom"]}) == 4


def test_moved_geometry_gets_a_new_frame_of_reference(tmp_path: Path) -> None:
    source = source_ct(tmp_path / "source")
    affine = source.affine.copy()
    affine[0, 3] += 1
    moved = Image(source.data, affine, "HU", source.origin)
    found = read_series(write_dicom(moved, tmp_path / "out", synthetic=False))
    np.testing.assert_allclose(found.affine, affine, atol=1e-6)
    assert found.origin["dicom"][0].FrameOfReferenceUID != source.origin["dicom"][0].FrameOfReferenceUID
    fewer = Image(source.data[:, ::2].copy(), affine @ np.diag([1, 1, 2, 1.0]), "HU", source.origin)
    found = read_series(write_dicom(fewer, tmp_path / "fewer", synthetic=False))
    assert found.data.shape == fewer.data.shape and found.origin["patient"] == "J1"
    np.testing.assert_allclose(found.affine, fewer.affine, atol=1e-6)


def test_values_outside_the_source_are_rescaled_not_clipped(tmp_path: Path) -> None:
    source = source_ct(tmp_path / "source")
    wide = source.with_data(source.data * 100)
    found = read_series(write_dicom(wide, tmp_path / "out", synthetic=False))
    assert np.abs(found.data - wide.data).max() <= max(found.origin["step"], 1) / 2 * 1.001


def test_synthetic_mark_and_lossy_mark_stick(tmp_path: Path) -> None:
    source = source_ct(tmp_path / "s", SyntheticData="YES", LossyImageCompression="01", LossyImageCompressionRatio=9)
    for path in write_dicom(source, tmp_path / "out", synthetic=False):
        dataset = pydicom.dcmread(path)
        assert dataset.SyntheticData == "YES"
        assert dataset.LossyImageCompression == "01" and dataset.LossyImageCompressionRatio == 9


def test_what_described_the_old_pixels_is_gone(tmp_path: Path) -> None:
    icon = Dataset()
    icon.Rows = 1
    source = source_ct(
        tmp_path / "s",
        IconImageSequence=Sequence([icon]),
        WindowCenter=[1, 2],
        WindowWidth=[3, 4],
        WindowCenterWidthExplanation=["A", "B"],
    )
    source.origin["dicom"][0].add_new("SmallestImagePixelValue", "US", 3)
    source.origin["dicom"][0].add_new(0x60000010, "US", 6)  # an overlay in bits that are no longer there
    dataset = pydicom.dcmread(write_dicom(source, tmp_path / "out", synthetic=False)[0])
    assert 0x60000010 not in dataset
    for keyword in ("IconImageSequence", "SmallestImagePixelValue", "WindowCenterWidthExplanation"):
        assert keyword not in dataset
    assert (dataset.WindowCenter, dataset.WindowWidth) == (1, 3)


def test_padding_value_of_an_implicit_source_finds_its_type(tmp_path: Path) -> None:
    path = write_dicom(Image(np.full((1, 3, 3), 7, np.float32)), tmp_path / "a.dcm", synthetic=True)[0]
    dataset = pydicom.dcmread(path)
    dataset.PixelPaddingValue = 65000  # "US or SS": the implicit encoding does not say which
    dataset.file_meta.TransferSyntaxUID = pydicom.uid.ImplicitVRLittleEndian
    dataset.save_as(tmp_path / "b.dcm", implicit_vr=True, little_endian=True)
    derived = write_dicom(read_dicom(tmp_path / "b.dcm"), tmp_path / "c.dcm", synthetic=False)[0]
    element = pydicom.dcmread(derived)["PixelPaddingValue"]
    assert (element.VR, element.value) == ("US", 65000)


def test_synthetic_image_forgets_its_source(tmp_path: Path) -> None:
    source = source_ct(tmp_path / "source")
    path = write_dicom(source, tmp_path / "out", synthetic=True, model="m", model_hash="cafe", seed=7)[0]
    dataset = pydicom.dcmread(path)
    text = path.read_bytes()
    for secret in (b"Doe", b"J1 ", source.origin["dicom"][0].StudyInstanceUID.encode()):
        assert secret not in text
    assert text[:128] == b"\0" * 128
    assert dataset.PatientName == "SYNTHETIC^FABRICA" and dataset.PatientID and dataset.SyntheticData == "YES"
    equipment = dataset.ContributingEquipmentSequence[0]
    assert equipment.PurposeOfReferenceCodeSequence[0].CodeValue == "109100"
    assert "cafe" in equipment.ContributionDescription and "seed 7" in dataset.DerivationDescription
    assert dataset.file_meta.MediaStorageSOPInstanceUID == dataset.SOPInstanceUID
    assert dataset.file_meta.TransferSyntaxUID == pydicom.uid.ExplicitVRLittleEndian


def test_uids_repeat_with_a_seed_and_only_for_the_same_pixels(tmp_path: Path) -> None:
    def identity(image: Image, name: str, **maker: Any) -> tuple[str, ...]:
        dataset = pydicom.dcmread(write_dicom(image, tmp_path / name, synthetic=True, **maker)[1])
        keys = ("SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID", "PatientID")
        return tuple(str(dataset[key].value) for key in keys)

    first, other = volume(), volume(seed=1)
    assert identity(first, "a", seed=3) == identity(first, "b", seed=3)
    assert not set(identity(first, "a", seed=3)) & set(identity(other, "b", seed=3))
    assert not set(identity(first, "a", seed=3)) & set(identity(first, "b", seed=4))
    assert not set(identity(first, "a")) & set(identity(first, "b"))
    one, two = identity(first, "a", uid_seed="case 1"), identity(other, "b", uid_seed="case 1")
    assert one[2:] == two[2:] and not set(one[:2]) & set(two[:2])


def test_a_result_that_is_made_again_has_the_uids_of_its_sources_and_its_model(tmp_path: Path) -> None:
    """Another processor may round otherwise: the object is the same one all the same."""
    image = source_ct(tmp_path / "source")
    nearly = image.with_data(image.data + np.float32(0.4))
    made = {"model_hash": "ab", "uid_content": "1", "created": "20260102030405"}

    def uids(of: Image, name: str, **maker: Any) -> list[str]:
        datasets = [pydicom.dcmread(p) for p in write_dicom(of, tmp_path / name, synthetic=False, **maker)]
        assert {d.InstanceCreationDate + d.InstanceCreationTime for d in datasets} == {"20260102030405"}
        return [str(d[key].value) for d in datasets for key in ("SOPInstanceUID", "SeriesInstanceUID")]

    first = uids(image, "a", **made)
    assert uids(nearly, "b", **made) == first
    assert not set(uids(image, "c", **{**made, "model_hash": "cd"})) & set(first)
    assert not set(uids(image, "d", **{**made, "uid_content": "2"})) & set(first)
    for source in image.origin["dicom"]:
        source.SOPInstanceUID = f"{source.SOPInstanceUID[:60]}.1"
    assert not set(uids(image, "e", **made)) & set(first)


def test_radiograph_and_colour(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    xray = Image(
        rng.integers(0, 4096, (1, 7, 9)).astype(np.float32), np.diag([0.2, 0.1, 1, 1]), "arbitrary", {"modality": "DX"}
    )
    [path] = write_dicom(xray, tmp_path / "x.dcm", synthetic=True)
    found = read_dicom(path)
    assert np.array_equal(found.data, xray.data) and found.spacing == pytest.approx((0.1, 0.2))
    assert pydicom.dcmread(path).Modality == "CR"
    colour = Image(rng.integers(0, 256, (3, 5, 3)).astype(np.float32))
    assert np.array_equal(read_dicom(write_dicom(colour, tmp_path / "c.dcm", synthetic=True)[0]).data, colour.data)


def test_what_dicom_cannot_hold_is_said_before_anything_is_written(tmp_path: Path) -> None:
    bad = volume().data.copy()
    bad[0, -1, 0, 0] = np.nan  # in the last slice: the others must not be there either
    sheared = np.eye(4)
    sheared[0, 1] = 0.5
    for image, said in (
        (volume().with_data(bad), "NaN"),
        (Image(np.zeros((3, 2, 2, 2), np.float32)), "shape"),
        (Image(volume().data, sheared, "HU", {"modality": "CT"}), "shear"),
    ):
        with pytest.raises(UsageError, match=said):
            write_dicom(image, tmp_path / "out", synthetic=True)
    assert not (tmp_path / "out").exists()
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(FabricaError, match="folder"):
        write_dicom(volume(), tmp_path / "file", synthetic=True)
    with pytest.raises(FabricaError):
        write_dicom(Image(np.zeros((1, 2, 2), np.float32)), tmp_path / "absent" / "a.dcm", synthetic=True)


def complaints(path: Path) -> set[str]:
    assert DCIODVFY is not None
    done = subprocess.run([DCIODVFY, str(path)], capture_output=True, text=True, timeout=20, check=False)
    lines = (done.stdout + done.stderr).splitlines()
    return {line for line in lines if line.startswith("Error") and UNKNOWN_TO_DCIODVFY not in line}


@pytest.mark.skipif(DCIODVFY is None, reason="dciodvfy (Debian's dicom3tools) is not installed")
@pytest.mark.parametrize("modality", ["CT", "MR", "CR", "DX", "PT", "OT"])
def test_validator_accepts_synthetic_objects(tmp_path: Path, modality: str) -> None:
    image = volume(modality)
    flat = image.with_data(image.data[:, 0], affine=np.diag([0.2, 0.2, 1, 1]))
    for path in [
        *write_dicom(image, tmp_path / "v", synthetic=True, seed=1, model="m", model_hash="ab", description="Größe"),
        *write_dicom(flat, tmp_path / "a.dcm", synthetic=True),
    ]:
        assert complaints(path) == set()
    colour = Image(np.zeros((3, 5, 4), np.float32), origin={"modality": modality})
    assert complaints(write_dicom(colour, tmp_path / "c.dcm", synthetic=True)[0]) == set()


# Sources the validator itself can read and whose UIDs it does not mind being referred to.
DERIVABLE = [
    "test_files/CT_small.dcm",
    "test_files/MR_small.dcm",
    "test_files/MR_small_bigendian.dcm",
    "test_files/MR_small_implicit.dcm",
    "test_files/693_J2KI.dcm",
    "test_files/examples_overlay.dcm",
    "test_files/dicomdirtests/77654033/CR1/6154",
    "test_files/examples_rgb_color.dcm",
    "test_files/examples_palette.dcm",
    "data_store/RG3_J2KI.dcm",
    "data_store/MR2_UNCI.dcm",
    "data_store/MR-SIEMENS-DICOM-WithOverlays.dcm",
    "data_store/emri_small.dcm",
    "data_store/eCT_Supplemental.dcm",
    "data_store/OBXXXX1A.dcm",
    "data_store/liver.dcm",
    "test_files/rtdose.dcm",
    "data_store/parametric_map_float.dcm",
    "data_store/JPEG-LL.dcm",
]


@pytest.mark.skipif(not DATA.is_dir(), reason=f"no DICOM collection at {DATA}; set FABRICA_DATA")
@pytest.mark.parametrize("name", DERIVABLE)
def test_real_objects_survive_derivation(tmp_path: Path, name: str) -> None:
    image = read_dicom(DATA / name, "1" if "emri" in name else "")
    paths = write_dicom(image, tmp_path / "out", synthetic=False)
    found = read_series(paths) if image.data.ndim == 4 else read_dicom(paths[0])
    if image.data.ndim == 4 and not np.allclose(found.affine, image.affine, atol=1e-6):  # stored head to feet
        found = found.with_data(found.data[:, ::-1])
    else:
        np.testing.assert_allclose(found.affine, image.affine, atol=1e-6)
    full = np.ptp(image.data) / 65000  # of values that fill more than 16 bits
    assert np.abs(found.data - image.data).max() <= max(image.origin.get("step", 0), full) / 2 * 1.01 + 1e-6
    assert found.origin["patient"] == image.origin["patient"]
    if DCIODVFY:
        assert complaints(paths[0]) <= complaints(DATA / name)
