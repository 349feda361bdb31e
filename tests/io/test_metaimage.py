"""MetaImage: bytes written here by hand, where ITK puts them (seen with SimpleITK 2.5.7), and damage."""

from __future__ import annotations

import tempfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fabrica import io as fio
from fabrica.errors import ReadError
from tests.draws import draws

RNG = np.random.default_rng(0)
LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
NAMES = {"i1": "MET_CHAR", "u1": "MET_UCHAR", "i2": "MET_SHORT", "u2": "MET_USHORT", "i4": "MET_INT", "u4": "MET_UINT",
         "i8": "MET_LONG_LONG", "u8": "MET_ULONG_LONG", "f4": "MET_FLOAT", "f8": "MET_DOUBLE"}  # fmt: skip


def header(values: npt.NDArray[Any], name: str = "LOCAL", channels: int = 1, **fields: object) -> bytes:
    """values: (..., Y, X), or (..., Y, X, C) of several channels."""
    sizes = values.shape[:-1] if channels > 1 else values.shape
    known: dict[str, object] = {"ObjectType": "Image", "NDims": len(sizes), "BinaryData": "True"}
    known |= {"DimSize": " ".join(str(n) for n in sizes[::-1])}
    known |= {"ElementNumberOfChannels": channels} if channels > 1 else {}
    known |= {"ElementSpacing": " ".join("1" for _ in sizes), "ElementType": NAMES[values.dtype.str[1:]]}
    known |= fields
    return "".join(f"{key} = {value}\n" for key, value in {**known, "ElementDataFile": name}.items()).encode()


def save(path: Path, values: npt.NDArray[Any], channels: int = 1, **fields: object) -> Path:
    path.write_bytes(header(values, "LOCAL", channels, **fields) + values.tobytes())
    return path


def words(numbers: npt.NDArray[np.float64]) -> str:
    return " ".join(repr(float(number)) for number in numbers.ravel())


@settings(deadline=None, max_examples=draws(40))
@given(
    dtype=st.sampled_from(list(NAMES)),
    order=st.sampled_from("<>"),
    size=st.tuples(st.integers(2, 5), st.integers(2, 5), st.integers(2, 5)),
    channels=st.sampled_from([1, 1, 2, 3]),
    packing=st.sampled_from(["plain", "zlib", "text"]),
    apart=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
def test_what_is_written_is_read_in_its_place(
    dtype: str, order: str, size: tuple[int, ...], channels: int, packing: str, apart: bool, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    shape = (*size, channels) if channels > 1 else size
    values = rng.integers(0 if dtype[0] == "u" else -99, 100, shape).astype(order + dtype)
    directions, spacing, offset = np.linalg.qr(rng.normal(size=(3, 3)))[0], rng.uniform(0.3, 5, 3), rng.normal(0, 99, 3)
    fields: dict[str, object] = {"TransformMatrix": words(directions), "Offset": words(offset)}
    fields |= {"ElementSpacing": words(spacing), "AnatomicalOrientation": "RAI"}  # says something else: to be ignored
    fields |= {"BinaryDataByteOrderMSB": order == ">"}
    raw = values.tobytes()
    if packing == "zlib":
        raw = zlib.compress(raw)
        fields |= {"CompressedData": "True", "CompressedDataSize": len(raw)}
    if packing == "text":
        raw, fields["BinaryData"] = " ".join(str(v) for v in values.ravel()).encode(), "False"
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / ("x.mhd" if apart else "x.mha")
        name = "x.raw" if apart else "LOCAL"
        path.write_bytes(header(values, name, channels, **fields) + (b"" if apart else raw))
        if apart:
            (Path(folder) / "x.raw").write_bytes(raw)
        image = fio.read(path)
        expected = values if channels > 1 else values[..., None]
        np.testing.assert_array_equal(image.data, np.moveaxis(expected, -1, 0).astype(np.float32))
        place = np.eye(4)
        place[:3, :3], place[:3, 3] = directions.T * spacing, offset  # a row of the matrix is an axis's direction
        np.testing.assert_allclose(image.affine, LPS @ place, atol=1e-9)
        assert (image.origin["format"], fio.format_of(path), fio.frames(path)) == ("metaimage", "metaimage", [""])
        for target in ("copy.mha", "copy.mhd"):
            files = fio.write(image, Path(folder) / target, synthetic=True, seed=7)
            back = fio.read(files[0])
            np.testing.assert_array_equal(back.data, image.data)
            np.testing.assert_allclose(back.affine, image.affine, atol=1e-9)
            assert back.origin["stored"]["dtype"][1:] == ("f4" if dtype == "f8" else dtype)
            assert (back.origin["synthetic"], back.origin["seed"], len(files)) == (True, 7, 1 + (target[-1] == "d"))


def test_what_itk_makes_of_a_header(tmp_path: Path) -> None:
    values = np.arange(24, dtype=np.int16).reshape(2, 3, 4)
    matrix = "0 1 0 0 0 1 1 0 0"
    for name in ("TransformMatrix", "Rotation", "Orientation"):
        image = fio.read(save(tmp_path / "x.mha", values, **{name: matrix, "Position": "1 2 3"}))
        np.testing.assert_array_equal(image.affine, LPS @ [[0, 0, 1, 1], [1, 0, 0, 2], [0, 1, 0, 3], [0, 0, 0, 1]])
    negative = fio.read(save(tmp_path / "x.mha", values, ElementSpacing="-2 1 1"))
    np.testing.assert_array_equal(negative.affine, LPS @ np.diag([-2.0, 1, 1, 1]))
    sizes = fio.read(save(tmp_path / "x.mha", values, ElementSpacing="1 1 0"))
    np.testing.assert_array_equal(sizes.affine, LPS)
    assert "taken as 1" in sizes.origin["notes"][0]
    centimetres = fio.read(save(tmp_path / "x.mha", values, DistanceUnits="cm"))
    np.testing.assert_array_equal(centimetres.affine, LPS @ np.diag([10.0, 10, 10, 1]))
    assert "converted to mm" in centimetres.origin["notes"][0]
    flat = fio.read(save(tmp_path / "x.mha", values, TransformMatrix="0 0 0 0 0 0 0 0 0"))
    assert "no usable place" in flat.origin["notes"][0]
    scaled = save(tmp_path / "x.mha", values, ElementToIntensityFunctionSlope=2, ElementToIntensityFunctionOffset=-5)
    np.testing.assert_array_equal(fio.read(scaled).data[0], values * 2 - 5)
    assert "ITK shows the stored numbers" in fio.read(scaled).origin["notes"][0]
    assert fio.read(save(tmp_path / "x.mha", values, Modality="MET_MOD_CT")).origin["modality"] == "CT"


def test_two_dimensions_stay_two(tmp_path: Path) -> None:
    values = RNG.integers(0, 255, (4, 5)).astype(np.uint8)
    image = fio.read(save(tmp_path / "x.mha", values, ElementSpacing="2 3", Offset="5 6"))
    np.testing.assert_array_equal(image.data[0], values)
    np.testing.assert_array_equal(image.affine, LPS @ [[2, 0, 0, 5], [0, 3, 0, 6], [0, 0, 1, 0], [0, 0, 0, 1]])
    (copy,) = fio.write(image, tmp_path / "copy.mha")
    assert b"\nNDims = 2\n" in copy.read_bytes()
    np.testing.assert_array_equal(fio.read(copy).affine, image.affine)


@pytest.mark.parametrize("packed", [False, True])
def test_the_fourth_dimension_is_volumes(tmp_path: Path, packed: bool) -> None:
    values = RNG.integers(-99, 99, (5, 3, 4, 6)).astype(np.int16)
    path, matrix = tmp_path / "x.mha", "1 0 0 0 0 0 1 0 0 1 0 0 0 0 0 1"
    raw = zlib.compress(values.tobytes()) if packed else values.tobytes()
    path.write_bytes(header(values, CompressedData=packed, TransformMatrix=matrix, Offset="1 2 3 0") + raw)
    assert fio.frames(path) == [f"volume={k}" for k in range(1, 6)]
    for k in (3, 1, 5):
        image = fio.read(path, f"volume={k}")
        np.testing.assert_array_equal(image.data[0], values[k - 1])
        np.testing.assert_array_equal(image.affine, LPS @ [[1, 0, 0, 1], [0, 0, 1, 2], [0, 1, 0, 3], [0, 0, 0, 1]])
    with pytest.raises(ReadError, match="holds 5 volumes"):
        fio.read(path)


def test_bytes_before_the_voxels_are_skipped(tmp_path: Path) -> None:
    values = np.arange(24, dtype=np.int16).reshape(2, 3, 4)
    (tmp_path / "x.raw").write_bytes(b"seven b" + values.tobytes())
    for skipped in (7, -1):
        (tmp_path / "x.mhd").write_bytes(header(values, "x.raw", HeaderSize=skipped))
        np.testing.assert_array_equal(fio.read(tmp_path / "x.mhd").data[0], values)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("absent.raw", "absent.raw, which is not there"),
        ("../outside.raw", "outside its folder"),
        ("/etc/hostname", "outside its folder"),
        ("LIST", "voxels in several files"),
        ("slice%03d.raw 1 9 1", "voxels in several files"),
        ("short.raw", "the file is cut short"),
    ],
)
def test_voxels_that_are_not_beside_their_header(tmp_path: Path, name: str, message: str) -> None:
    home = tmp_path / "home"
    home.mkdir()
    values = np.zeros((2, 3, 4), np.int16)
    for path in (tmp_path / "outside.raw", home / "short.raw"):
        path.write_bytes(bytes(40))
    (home / "x.mhd").write_bytes(header(values, name))
    with pytest.raises(ReadError, match=message) as caught:
        fio.read(home / "x.mhd")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"DimSize": "4 3"}, "expected two sizes or more"),
        ({"DimSize": "4 0 2"}, "at least 1"),
        ({"DimSize": "4 -3 2"}, "at least 1"),
        ({"DimSize": "30000 30000 30000"}, "needs .* GB"),
        ({"DimSize": "4 3 2 30000", "NDims": 4, "ElementSpacing": "1 1 1 1"}, "the file is cut short"),
        ({"ElementType": "MET_STRING"}, "expected one of MET_CHAR"),
        ({"ObjectType": "Mesh"}, "holds a Mesh"),
        ({"TransformMatrix": "1 0 0 1"}, "has 4 numbers, expected 9"),
        ({"CompressedData": "True"}, "MetaImage"),
    ],
)
def test_headers_that_make_no_sense(tmp_path: Path, fields: dict[str, object], message: str) -> None:
    with pytest.raises(ReadError, match=message) as caught:
        fio.read(save(tmp_path / "x.mha", np.zeros((2, 3, 4), np.int16), **fields))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("packed", [False, True])
def test_a_file_cut_short_is_refused_wherever_it_ends(tmp_path: Path, packed: bool) -> None:
    values = RNG.integers(-999, 999, (4, 5, 6)).astype(np.int16)
    raw = zlib.compress(values.tobytes()) if packed else values.tobytes()
    whole = header(values, CompressedData=packed) + raw
    (tmp_path / "x.mha").write_bytes(whole)
    np.testing.assert_array_equal(fio.read(tmp_path / "x.mha").data[0], values)
    for keep in range(0, len(whole), 7):
        (tmp_path / "x.mha").write_bytes(whole[:keep])
        with pytest.raises(ReadError):
            fio.read(tmp_path / "x.mha")


@settings(deadline=None, max_examples=draws(100))
@given(changes=st.lists(st.tuples(st.integers(0, 200), st.integers(0, 255)), min_size=1, max_size=6))
def test_damage_anywhere_is_a_read_error_and_nothing_else(changes: list[tuple[int, int]]) -> None:
    values = np.arange(24, dtype=np.int16).reshape(2, 3, 4)
    damaged = bytearray(header(values, TransformMatrix="1 0 0 0 1 0 0 0 1", Offset="1 2 3") + values.tobytes())
    for position, value in changes:
        damaged[position] = value
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "x.mha").write_bytes(damaged)
        try:
            fio.read(Path(folder) / "x.mha", budget=2**26)
        except ReadError as error:
            assert "\n" not in str(error)
