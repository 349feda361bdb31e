"""Reading DICOM made in the test: values, places, series, and files that lie."""

from __future__ import annotations

import copy
import resource
import struct
import tracemalloc
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.sequence import Sequence
from pydicom.uid import (
    UID,
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    RLELossless,
    generate_uid,
)

from fabrica import io as fio
from fabrica.data.find import contents
from fabrica.data.scan import scan
from fabrica.errors import FabricaError, ReadError
from fabrica.io.dicom.header import read_header
from fabrica.io.dicom.read import is_dicom, read_dicom, read_series

SERIES = generate_uid(entropy_srcs=["series"])


def sample(path: Path, pixels: np.ndarray[Any, Any], syntax: UID = ExplicitVRLittleEndian, **attributes: Any) -> Path:
    """Write a minimal CT-like file around `pixels` (H, W) or (frames, H, W); `attributes` override anything."""
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.SOPClassUID, dataset.SOPInstanceUID = CTImageStorage, generate_uid()
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.SeriesInstanceUID, dataset.Modality, dataset.PatientID = SERIES, "CT", "P1"
    dataset.Rows, dataset.Columns = pixels.shape[-2:]
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated = dataset.BitsStored = 8 * pixels.dtype.itemsize
    dataset.HighBit = dataset.BitsStored - 1
    dataset.PixelRepresentation = int(pixels.dtype.kind == "i")
    dataset.PixelSpacing = [1, 1]
    if pixels.ndim == 3:
        dataset.NumberOfFrames = len(pixels)
    dataset.PixelData = pixels.tobytes()
    for keyword, value in attributes.items():
        setattr(dataset, keyword, value)
    dataset["PixelData"].VR = "OB" if dataset.BitsAllocated == 8 or syntax == JPEG2000Lossless else "OW"
    if dataset.file_meta.TransferSyntaxUID.is_encapsulated:
        dataset["PixelData"].is_undefined_length = True
    dataset.save_as(path, enforce_file_format=True)
    return path


def slices(folder: Path, depths: list[float], **attributes: Any) -> list[Path]:
    """One 4 x 6 slice at each z, its value its z; named so that the name order is not the spatial one."""
    return [
        sample(
            folder / f"{(7 * k) % len(depths)}_{k}.dcm",
            np.full((4, 6), round(z * 10), "i2"),
            ImagePositionPatient=[-10, -20, z],
            ImageOrientationPatient=[1, 0, 0, 0, 1, 0],
            InstanceNumber=len(depths) - k,
            **attributes,
        )
        for k, z in enumerate(depths)
    ]


def test_rescale_unit_range_step_and_window(tmp_path: Path) -> None:
    pixels = np.array([[-5, 0], [7, 100]], "i2")
    path = sample(
        tmp_path / "a.dcm", pixels, RescaleSlope=2, RescaleIntercept=-1024, WindowCenter=[40, 1], WindowWidth=[400, 2]
    )
    image = read_dicom(path)
    assert image.data.tolist() == [[[-1034, -1024], [-1010, -824]]]
    assert image.unit == "HU" and image.origin["step"] == 2 and image.origin["window"] == (40, 400)
    assert image.origin["range"] == (-32768 * 2 - 1024, 32767 * 2 - 1024)
    assert image.origin["modality"] == "CT" and image.origin["patient"] == "P1"
    assert "PixelData" not in image.origin["dicom"][0]
    assert read_dicom(sample(tmp_path / "b.dcm", pixels)).unit == "arbitrary"  # CT without a rescale
    us = sample(tmp_path / "c.dcm", pixels, RescaleSlope=1, RescaleIntercept=0, RescaleType="US")
    assert read_dicom(us).unit == "arbitrary"


def test_useless_rescale_is_noted_and_ignored(tmp_path: Path) -> None:
    image = read_dicom(sample(tmp_path / "a.dcm", np.eye(3, dtype="u2"), RescaleSlope=0, RescaleIntercept=5))
    assert np.array_equal(image.data[0], np.eye(3)) and any("slope" in n for n in image.origin["notes"])


def test_monochrome1_is_inverted_within_the_storable_range(tmp_path: Path) -> None:
    pixels = np.array([[0, 1], [1000, 4095]], "u2")
    path = sample(
        tmp_path / "a.dcm",
        pixels,
        PhotometricInterpretation="MONOCHROME1",
        BitsStored=12,
        HighBit=11,
        WindowCenter=1000,
        WindowWidth=300,
    )
    image = read_dicom(path)
    assert image.data[0].tolist() == [[4095, 4094], [3095, 0]]
    assert image.origin["window"] == (3095, 300)
    assert any("MONOCHROME1" in note for note in image.origin["notes"])


def test_enhanced_frames_have_their_own_rescale_and_place(tmp_path: Path) -> None:
    groups = []
    for z, slope in ((10.0, 1.0), (4.0, 2.0), (7.0, 3.0)):  # out of order on purpose
        group, value, where = Dataset(), Dataset(), Dataset()
        value.RescaleSlope, value.RescaleIntercept, value.RescaleType = slope, -1, "HU"
        where.ImagePositionPatient = [0, 0, z]
        group.PixelValueTransformationSequence = Sequence([value])
        group.PlanePositionSequence = Sequence([where])
        groups.append(group)
    shared, turned = Dataset(), Dataset()
    turned.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    shared.PlaneOrientationSequence = Sequence([turned])
    path = sample(
        tmp_path / "a.dcm",
        np.ones((3, 2, 2), "u2"),
        PerFrameFunctionalGroupsSequence=Sequence(groups),
        SharedFunctionalGroupsSequence=Sequence([shared]),
    )
    image = read_dicom(path)
    assert image.data[0, :, 0, 0].tolist() == [1, 2, 0]  # z = 4, 7, 10
    assert image.affine[:3, 2].tolist() == [0, 0, 3] and image.affine[2, 3] == 4 and image.unit == "HU"
    assert "missing" not in image.origin
    groups[0].PlanePositionSequence[0].ImagePositionPatient = [0, 0, 16.0]
    groups.append(copy.deepcopy(groups[1]))
    groups[3].PlanePositionSequence[0].ImagePositionPatient = [0, 0, 10.0]
    gap = sample(
        tmp_path / "b.dcm",
        np.ones((4, 2, 2), "u2"),
        PerFrameFunctionalGroupsSequence=Sequence(groups),
        SharedFunctionalGroupsSequence=Sequence([shared]),
    )
    assert read_dicom(gap).origin["missing"] == 1
    third = read_dicom(path, frame="3")
    assert third.data[0, 0, 0] == 2 and third.affine[2, 3] == 7


def test_oblique_affine_maps_pixels_to_the_patient(tmp_path: Path) -> None:
    row, column = np.array([0.6, 0.8, 0.0]), np.array([0.0, 0.0, -1.0])
    path = sample(
        tmp_path / "a.dcm",
        np.zeros((4, 6), "u2"),
        ImagePositionPatient=[-10, 20, 30],
        ImageOrientationPatient=[*row, *column],
        PixelSpacing=[0.5, 2],
        SliceThickness=3,
    )
    affine = read_dicom(path).affine
    for w, h in ((0, 0), (5, 0), (0, 3), (2, 1)):
        lps = np.array([-10, 20, 30]) + w * 2 * row + h * 0.5 * column  # PS3.3 C.7.6.2.1.1
        np.testing.assert_allclose((affine @ [w, h, 0, 1])[:3], lps * [-1, -1, 1], atol=1e-9)
    normal = np.cross(row, column) * [-1, -1, 1]
    np.testing.assert_allclose(affine[:3, 2], 3 * normal, atol=1e-9)


def test_radiographs_take_the_spacing_of_the_detector(tmp_path: Path) -> None:
    path = sample(tmp_path / "a.dcm", np.zeros((4, 6), "u2"), ImagerPixelSpacing=[0.2, 0.1], Modality="DX")
    dataset_without = read_dicom(path).origin["dicom"][0]
    assert dataset_without.PixelSpacing == [1, 1]  # PixelSpacing wins where both stand
    bare = sample(tmp_path / "b.dcm", np.zeros((4, 6), "u2"), ImagerPixelSpacing=[0.2, 0.1], PixelSpacing=None)
    assert read_dicom(bare).spacing == pytest.approx((0.2, 0.1))


def test_series_is_sorted_by_position_never_by_name(tmp_path: Path) -> None:
    paths = slices(tmp_path, [5.0, 2.5, 10.0, 7.5, 0.0])
    image = read_series(paths)
    assert image.data[0, :, 0, 0].tolist() == [0, 25, 50, 75, 100]
    assert image.spacing == pytest.approx((2.5, 1, 1)) and image.origin["notes"] == ()
    assert [float(d.ImagePositionPatient[2]) for d in image.origin["dicom"]] == [0, 2.5, 5, 7.5, 10]
    np.testing.assert_allclose(image.affine[:3, 3], [10, 20, 0])


def test_gaps_and_duplicates_are_noted_and_counted(tmp_path: Path) -> None:
    gap = slices(tmp_path, [0.0, 1.0, 2.0, 5.0, 6.0])
    image = read_series(gap)
    assert "2 slices seem to be missing" in image.origin["notes"][0] and image.spacing[0] == pytest.approx(1)
    assert image.origin["missing"] == 2
    depths = [(image.affine @ [0, 0, 0, 1])[2] + z for z in (0, 1, 2, 5, 6)]
    np.testing.assert_allclose(image.origin["positions"][:, 2], depths)  # each slice keeps its own place
    (tmp_path / "double").mkdir()
    double = slices(tmp_path / "double", [0.0, 1.0, 1.0, 2.0])
    image = read_series(double)
    assert (
        image.data.shape == (1, 3, 4, 6) and "1 of 4 images lie at a place already filled" in image.origin["notes"][0]
    )
    assert "missing" not in image.origin


@pytest.mark.parametrize(
    "change",
    [
        {"ImageOrientationPatient": [0, 1, 0, 0, 0, -1]},
        {"PixelSpacing": [2, 1]},
        {"ImagePositionPatient": None},
        {"pixels": np.zeros((4, 5), "i2")},
        {"StudyInstanceUID": "1.2.3"},
        {"SeriesNumber": 7},
    ],
)
def test_a_stray_leaves_the_rest_a_volume(tmp_path: Path, change: dict[str, Any]) -> None:
    paths = slices(tmp_path, [0.0, 1.0, 2.0, 3.0])
    place = {"ImagePositionPatient": [-10, -20, 4], "ImageOrientationPatient": [1, 0, 0, 0, 1, 0]}
    pixels = change.get("pixels", np.full((4, 6), 77, "i2"))
    rest = {k: v for k, v in change.items() if k != "pixels"}
    sample(tmp_path / "odd.dcm", pixels, **{**place, **rest})
    image = fio.read(tmp_path)
    assert image.data[0, :, 0, 0].tolist() == [0, 10, 20, 30] and any(
        "odd.dcm" in note for note in image.origin["notes"]
    )
    assert fio.frames(tmp_path) == [""]
    assert len(image.origin["dicom"]) == len(paths)


def test_headerless_data_sets_are_dicom_and_text_is_not(tmp_path: Path) -> None:
    whole = sample(tmp_path / "a.dcm", np.ones((2, 2), "u2"), ImplicitVRLittleEndian).read_bytes()
    start = 132 + 12 + struct.unpack_from("<I", whole, 140)[0]
    bare = tmp_path / "bare"
    bare.write_bytes(whole[start:])
    assert is_dicom(bare) and read_dicom(bare).data.tolist() == [[[1, 1], [1, 1]]]
    for content in (
        b"",
        b"\x08",
        b"a,b,c\n1,2,3\n",
        b"\x89PNG\r\n\x1a\n" + b"\0" * 200,
        b"\x08\x00" + b"text " * 40,
        b"\0" * 400,
    ):
        bare.write_bytes(content)
        assert not is_dicom(bare)
        with pytest.raises(ReadError, match="not a DICOM file"):
            read_dicom(bare)
    with pytest.raises(ReadError):
        read_dicom(tmp_path / "absent.dcm")


def _peak(path: Path, budget: int) -> int:
    """Bytes of Python memory at the worst moment of a refused read."""
    tracemalloc.start()
    try:
        with pytest.raises(ReadError, match=r"budget|less than expected|within its header"):
            read_dicom(path, budget=budget)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_deflated_bomb_is_refused_before_it_unfolds(tmp_path: Path) -> None:
    path = sample(tmp_path / "a.dcm", np.zeros((4, 4), "u2"), DeflatedExplicitVRLittleEndian)
    assert read_dicom(path).data.shape == (1, 4, 4)
    raw = path.read_bytes()
    start = 132 + 12 + struct.unpack_from("<I", raw, 140)[0]
    body = zlib.decompress(raw[start:], -zlib.MAX_WBITS)
    squeeze = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    bomb = squeeze.compress(body) + squeeze.compress(b"\0" * 300 * 2**20) + squeeze.flush()
    path.write_bytes(raw[:start] + bomb)
    assert path.stat().st_size < 400_000
    assert _peak(path, 20 * 2**20) < 80 * 2**20
    assert read_header(path).get("Modality") == "CT"  # the header alone needs no more than its start


def test_codestream_that_asks_for_more_than_the_header_says(tmp_path: Path) -> None:
    siz = struct.pack(">HHIIIIIIIIH", 41, 0, 20000, 20000, 0, 0, 20000, 20000, 0, 0, 1) + b"\x07\x01\x01"
    j2k = b"\xff\x4f\xff\x51" + siz + b"\xff\xd9"
    jpeg = b"\xff\xd8\xff\xe0\x00\x04ab\xff\xc0\x00\x0b\x08\x4e\x20\x4e\x20\x01\x01\x11\x00\xff\xd9"
    for syntax, code in ((JPEG2000Lossless, j2k), (JPEGBaseline8Bit, jpeg)):
        path = sample(tmp_path / "a.dcm", np.zeros((16, 16), "u1"), syntax, PixelData=encapsulate([code]))
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        with pytest.raises(ReadError, match="20000 x 20000"):
            read_dicom(path)
        with pytest.raises(ReadError, match="budget"):
            read_dicom(path, budget=10**6)
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # kB; the lie is 400 MB


def test_lying_headers_allocate_nothing(tmp_path: Path) -> None:
    huge = sample(tmp_path / "a.dcm", np.zeros((4, 4), "u2"), Rows=60000, Columns=60000, NumberOfFrames=60)
    with pytest.raises(ReadError, match="budget"):
        read_dicom(huge, "1")
    many = sample(tmp_path / "m.dcm", np.zeros((4, 4), "u2"), NumberOfFrames=2**31 - 1)
    with pytest.raises(ReadError, match=r"2,147,483,647 frames in .* bytes|promises 2147483647 frames"):
        read_dicom(many)
    assert _peak(sample(tmp_path / "b.dcm", np.zeros((4, 4), "u2"), Rows=9000, Columns=9000), 2**30) < 10 * 2**20
    raw = sample(tmp_path / "c.dcm", np.zeros((4, 4), "u2"), PatientComments="x" * 20).read_bytes()
    at = raw.index(b"\x10\x00\x00\x40LT")
    lie = tmp_path / "c.dcm"  # a private element of 4 GB in a file of 1 kB
    lie.write_bytes(raw[:at] + b"\x11\x00\x01\x10UN\0\0\xf0\xff\xff\xff" + raw[at:])
    assert _peak(lie, 2**30) < 10 * 2**20


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, RLELossless])
def test_frames_that_are_not_there_are_no_images(tmp_path: Path, syntax: UID) -> None:
    """A header that promises thousands is refused once, not for each of them; of one that was cut short what is there
    is read."""
    pixels = np.arange(200 * 6 * 5, dtype="u2").reshape(200, 6, 5)
    path = sample(tmp_path / "x.dcm", pixels, NumberOfFrames=200)
    if syntax.is_encapsulated:
        dataset = pydicom.dcmread(path)
        dataset.compress(syntax, encoding_plugin="pydicom")
        dataset.save_as(path)
    assert contents(tmp_path).items
    found = fio.read(path, "170")
    np.testing.assert_array_equal(found.data[0], pixels[169])
    raw = path.read_bytes()
    at = raw.index(b"\x28\x00\x08\x00IS") + 8
    path.write_bytes(raw[:at] + b"9999" + raw[at + 4 :])
    with pytest.raises(ReadError, match="promises 9999 frames, and the pixel data hold 200"):
        fio.read(path)
    ((rejected, why),) = contents(tmp_path).rejected
    assert rejected == path and "promises 9999" in why
    path.write_bytes(raw[: -len(raw) // 5])
    assert contents(tmp_path).items and fio.read(path, "100").data[0, 0, 0] == pixels[99, 0, 0]


def test_any_damage_is_one_read_error(tmp_path: Path) -> None:
    """Flip bytes all over a file: it may still be readable, but nothing but a ReadError may come out."""
    whole = bytearray(slices(tmp_path, [0.0])[0].read_bytes())
    rng = np.random.default_rng(0)
    damaged = tmp_path / "damaged.dcm"
    errors = 0
    for _ in range(400):
        copy = bytearray(whole)
        for position in rng.integers(132, len(copy), size=4):
            copy[position] = int(rng.integers(256))
        damaged.write_bytes(copy)
        try:
            read_dicom(damaged, budget=2**24)
        except ReadError as error:
            errors += 1
            assert "\n" not in str(error)
    assert errors > 50


def test_uneven_slices_are_laid_evenly_for_what_holds_only_an_affine(tmp_path: Path) -> None:
    slices(tmp_path, [0.0, 4.0, 8.0, 12.0, 19.0, 26.0])
    image = fio.read(tmp_path)
    np.testing.assert_allclose(image.origin["positions"][:, 2], [0, 4, 8, 12, 19, 26])
    written = fio.read(fio.write(image, tmp_path / "a.nii.gz")[0])
    depth = written.affine[2, 3] + written.affine[2, 2] * np.arange(written.size[0])
    np.testing.assert_allclose(written.data[0, :, 0, 0], depth * 10, atol=1e-3)  # the value of a slice is its place
    back = fio.write(image.with_data(image.data + 5), tmp_path / "out")
    found = read_series(back)
    np.testing.assert_allclose(found.origin["positions"], image.origin["positions"])


def test_a_zip_of_dicom_is_read_like_its_folder(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    files = slices(tmp_path / "in", [0.0, 2.0, 4.0])
    archive = tmp_path / "data" / "study.zip"
    archive.parent.mkdir()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as packed:
        for path in files:
            packed.write(path, f"study/IM/{path.name}")
        packed.writestr("study/readme.txt", "text")
    image, wanted = fio.read(archive), fio.read(tmp_path / "in")
    assert np.array_equal(image.data, wanted.data) and np.array_equal(image.affine, wanted.affine)
    assert fio.frames(archive) == [""]
    manifest = scan(archive.parent)
    [row] = manifest.rows
    assert (row.path, row.patient, row.modality, row.domain, row.frame) == ("study.zip", "P1", "CT", "", "")
    assert np.array_equal(fio.read(manifest.file(row), row.frame).data, wanted.data)
    assert sum(manifest.files.values()) == 1 and manifest.files["used"] == 1
    other = sample(tmp_path / "b.dcm", np.ones((4, 6), "i2"), SeriesInstanceUID="1.2.3")
    with zipfile.ZipFile(archive, "a") as packed:
        packed.write(other, "study/b")
    found = scan(archive.parent)
    images = [fio.read(found.file(row), row.frame) for row in found.rows]
    assert sorted(image.data.shape for image in images) == [(1, 3, 4, 6), (1, 4, 6)]
    archive.write_bytes(archive.read_bytes()[:-40])
    with pytest.raises(FabricaError, match="zip"):
        scan(archive.parent)


@pytest.mark.parametrize("size", [(3, 7), (9, 3), (5, 5), (4, 4), (1, 1), (510, 3)])
@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ExplicitVRBigEndian])
def test_frames_of_bits_begin_and_end_anywhere_in_a_byte(tmp_path: Path, size: tuple[int, int], syntax: UID) -> None:
    mask = np.random.default_rng(0).integers(0, 2, (7, *size)).astype(np.uint8)
    data = np.packbits(mask.ravel(), bitorder="little").tobytes()
    data += b"\0" * (len(data) % 2)
    if syntax == ExplicitVRBigEndian:
        data = np.frombuffer(data, "<u2").astype(">u2").tobytes()
    bits = {"BitsAllocated": 1, "BitsStored": 1, "HighBit": 0}
    path = sample(tmp_path / "a.dcm", mask, syntax, PixelData=data, **bits)
    for number in range(7):
        assert np.array_equal(read_dicom(path, str(number + 1)).data[0], mask[number])
    short = sample(tmp_path / "b.dcm", np.repeat(mask, 3, axis=0), syntax, PixelData=data, **bits)
    assert np.array_equal(read_dicom(short, "7").data[0], mask[6])
    with pytest.raises(ReadError, match="frame 21 does; the file is cut short"):
        read_dicom(short, "21")
