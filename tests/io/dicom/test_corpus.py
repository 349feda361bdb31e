"""Every file of pydicom's own collection: pixels as pydicom decodes them, or one ReadError."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom.datadict import tag_for_keyword
from pydicom.pixels.processing import apply_color_lut, apply_modality_lut
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from fabrica import io as fio
from fabrica.errors import ReadError
from fabrica.io.dicom.header import MACROS, WANTED, read_header
from fabrica.io.dicom.read import is_dicom, read_dicom, read_series
from fabrica.io.dicom.unusual import by_pydicom
from tests.real import DATA as REAL

DATA = REAL / "dicom_pydicom"
pytestmark = pytest.mark.skipif(not DATA.is_dir(), reason=f"no DICOM collection at {DATA}; set FABRICA_DATA")


def files() -> list[Path]:
    return sorted(p for p in DATA.rglob("*") if p.is_file()) if DATA.is_dir() else []


def expected(path: Path) -> np.ndarray[Any, Any] | None:
    """Physical values (frames, H, W[, 3]) by pydicom alone, None where pydicom cannot decode the file."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            dataset = pydicom.dcmread(path, force=True)
            if not dataset.file_meta.get("TransferSyntaxUID"):
                implicit, little = dataset.original_encoding
                explicit = ExplicitVRLittleEndian if little else ExplicitVRBigEndian
                dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian if implicit else explicit
            array = dataset.pixel_array
        except Exception:
            return None
        if dataset.PhotometricInterpretation == "PALETTE COLOR":
            array = apply_color_lut(array, dataset)
            array = array >> 8 if array.dtype.itemsize == 2 else array
        elif dataset.SamplesPerPixel == 1:
            array = _rescaled(array, dataset)
    single = int(dataset.get("NumberOfFrames") or 1) == 1 and array.shape[0] != 1
    return array[None] if single else array


def _rescaled(array: np.ndarray[Any, Any], dataset: pydicom.Dataset) -> np.ndarray[Any, Any]:
    groups = [
        group[0].PixelValueTransformationSequence[0]
        for holder in ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence")
        if (group := dataset.get(holder)) and "PixelValueTransformationSequence" in group[0]
    ]
    if groups:  # the collection has the same transformation for all frames of a file
        array = array * float(groups[0].RescaleSlope) + float(groups[0].RescaleIntercept)
    else:
        padding = dataset.get("PixelPaddingValue")
        stored, array = array, np.asarray(apply_modality_lut(array, dataset)) * float(dataset.get("DoseGridScaling", 1))
        if padding:
            array[stored == padding] = array[stored != padding].min()
    if dataset.PhotometricInterpretation == "MONOCHROME1":
        slope, intercept = float(dataset.get("RescaleSlope", 1)), float(dataset.get("RescaleIntercept", 0))
        array = slope * (2**dataset.BitsStored - 1) + 2 * intercept - array
    return array


@pytest.mark.parametrize("path", files(), ids=lambda p: str(p.relative_to(DATA)))
def test_pixels_equal_pydicom_or_one_read_error(path: Path) -> None:
    wanted = expected(path)
    if wanted is None:
        try:
            image = read_dicom(path)
        except ReadError as error:
            assert str(path) in str(error) and "\n" not in str(error)
            return
        assert path.name in MORE_THAN_PYDICOM, f"{path.name}: pydicom cannot decode it, yet we got an image"
        assert np.array_equal(image.data, read_dicom(path.with_name(MORE_THAN_PYDICOM[path.name])).data)
        return
    images = [read_dicom(path, str(k)) for k in range(1, len(wanted) + 1)]
    found = np.concatenate([image.data if image.data.ndim == 4 else image.data[:, None] for image in images], axis=1)
    image = images[0]
    found = np.moveaxis(found, 0, -1) if image.channels == 3 else found[0]
    assert found.shape == wanted.shape
    np.testing.assert_allclose(found, wanted, rtol=1e-6, atol=1e-4)
    for image in images:
        low, high = image.origin["range"]
        assert low - 1e-3 <= image.data.min() and image.data.max() <= high + 1e-3


# What pydicom 3.0 refuses and the file with the same pixels in another encoding.
MORE_THAN_PYDICOM = {
    "liver_deflate.dcm": "liver.dcm",
    "liver_nonbyte_aligned_deflate.dcm": "liver_nonbyte_aligned.dcm",
    "emri_small_jpeg_2k_lossless_too_short.dcm": "emri_small.dcm",
}


def test_enough_of_the_collection_is_decodable() -> None:
    """Guards the test above: a broken expectation would let every file pass as undecodable."""
    readable = [p for p in files() if expected(p) is not None]
    assert len(readable) >= 150
    assert {p.name for p in files()} >= set(MORE_THAN_PYDICOM)


@pytest.mark.parametrize("name", ["emri_small.dcm", "emri_small_RLE.dcm", "emri_small_jpeg_2k_lossless.dcm"])
def test_one_frame_equals_that_frame_of_all(name: str) -> None:
    path = DATA / "data_store" / name
    assert fio.frames(path) == [f"time={k}" for k in range(1, 11)]  # it says nothing of where its frames lie
    with pytest.raises(ReadError, match="holds 10 images, expected one; name one as the frame: time=1"):
        read_dicom(path)
    wanted = expected(path)
    assert wanted is not None
    for number in ("1", "3", "10"):
        frame = read_dicom(path, frame=number)
        np.testing.assert_allclose(frame.data[0], wanted[int(number) - 1], rtol=1e-6)
        assert np.array_equal(frame.data, read_dicom(path, frame=f"time={number}").data)
    with pytest.raises(ReadError, match="from 1 to 10"):
        read_dicom(path, frame="11")


def test_frames_of_an_enhanced_object_are_the_slices_of_its_volume() -> None:
    path = DATA / "data_store" / "eCT_Supplemental.dcm"
    volume, frames = read_dicom(path), [read_dicom(path, "1"), read_dicom(path, "2")]
    places = [(volume.affine @ [0, 0, k, 1])[:3] for k in range(2)]
    for frame in frames:
        k = int(np.argmin([np.linalg.norm(place - frame.affine[:3, 3]) for place in places]))
        np.testing.assert_allclose(places[k], frame.affine[:3, 3], atol=1e-3)
        assert np.array_equal(volume.data[:, k], frame.data)
    assert volume.data.shape == (1, 2, 512, 512) and not np.array_equal(frames[0].data, frames[1].data)


@pytest.mark.parametrize("name", ["emri_small_RLE.dcm", "emri_small_jpeg_2k_lossless.dcm", "emri_small.dcm"])
def test_a_file_cut_short_is_an_error_not_a_picture(name: str, tmp_path: Path) -> None:
    whole = (DATA / "data_store" / name).read_bytes()
    for length in (len(whole) - 300, len(whole) // 2, 1500, 200, 140):
        cut = tmp_path / "cut.dcm"
        cut.write_bytes(whole[:length])
        with pytest.raises(ReadError):
            read_dicom(cut)


def test_headers_are_what_pydicom_says() -> None:
    """Elements stepped over or decoded without pydicom, and all of them by pydicom: the same text."""
    dicom = [p for p in files() if is_dicom(p)]
    assert len(dicom) > 200 and not any(p.suffix in (".txt", ".md", ".json", ".dump", ".gz") for p in dicom)
    readable = 0
    for path in dicom:
        try:
            slow = by_pydicom(path)
        except ReadError:
            continue
        fast = read_header(path)
        fast.begin = slow.begin
        assert fast == slow, path
        readable += 1
    assert readable > 200
    headers = {p.name: read_header(p) for p in dicom}
    assert headers["CT_small.dcm"].get("Modality") == "CT" and headers["CT_small.dcm"].frames == 1
    assert headers["emri_small.dcm"].frames == 10
    assert headers["rtplan.dcm"].frames == 0


def test_a_real_series_becomes_a_volume_in_its_place() -> None:
    folder = DATA / "test_files/dicomdirtests/98892001/CT5N"
    image = read_series(sorted(folder.iterdir(), reverse=True))
    depths = [float(d.ImagePositionPatient[2]) for d in image.origin["dicom"]]
    assert depths == sorted(depths) and len(depths) == image.data.shape[1] == 5
    for k, depth in enumerate(depths):
        assert (image.affine @ [0, 0, k, 1])[2] == pytest.approx(depth, abs=0.01)
    assert image.unit == "HU" and image.origin["notes"] == ()


def test_the_elements_that_are_asked_for_have_the_tags_of_the_standard() -> None:
    for keyword, tag in {**WANTED, **MACROS}.items():
        assert tag == tag_for_keyword(keyword), keyword
