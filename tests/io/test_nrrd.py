"""NRRD: bytes written here by hand, where ITK puts them (seen with SimpleITK 2.5.7 and pynrrd 1.1.3), and damage."""

from __future__ import annotations

import bz2
import gzip
import tempfile
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
TO_RAS = {
    "right-anterior-superior": np.eye(4),
    "RAS": np.eye(4),
    "LAS": np.diag([-1.0, 1.0, 1.0, 1.0]),
    "left-anterior-superior": np.diag([-1.0, 1.0, 1.0, 1.0]),
    "LPS": np.diag([-1.0, -1.0, 1.0, 1.0]),
    "left-posterior-superior": np.diag([-1.0, -1.0, 1.0, 1.0]),
    "scanner-xyz": np.diag([-1.0, -1.0, 1.0, 1.0]),
}
LPS = TO_RAS["LPS"]
TYPES = {"i1": "signed char", "u1": "uchar", "i2": "short int", "u2": "unsigned short", "i4": "int32_t", "u4": "uint",
         "i8": "signed long long int", "u8": "uint64", "f4": "float", "f8": "double"}  # fmt: skip
PACK = {"raw": bytes, "gzip": gzip.compress, "bz2": bz2.compress}
AXES = "space directions: (1,0,0) (0,2,0) (0,0,3)"


def header(values: npt.NDArray[Any], *lines: str, magic: str = "NRRD0004") -> bytes:
    """values: slowest axis first. A line that is given takes the place of the one that is usual."""
    usual = [f"type: {TYPES[values.dtype.str[1:]]}", f"dimension: {values.ndim}", "encoding: raw",
             f"endian: {'big' if values.dtype.str[0] == '>' else 'little'}",
             f"sizes: {' '.join(str(n) for n in values.shape[::-1])}"]  # fmt: skip
    given_names = {line.partition(":")[0] for line in lines}
    known = [line for line in usual if line.partition(":")[0] not in given_names]
    return "".join(f"{line}\n" for line in (magic, "# a comment", *known, *lines)).encode()


def save(path: Path, values: npt.NDArray[Any], *lines: str, before: bytes = b"") -> Path:
    path.write_bytes(header(values, *lines) + b"\n" + before + values.tobytes())
    return path


def vector(numbers: npt.NDArray[np.float64]) -> str:
    return f"({','.join(repr(float(number)) for number in numbers)})"


@settings(deadline=None, max_examples=draws(40))
@given(
    dtype=st.sampled_from(list(TYPES)),
    order=st.sampled_from("<>"),
    size=st.tuples(st.integers(2, 5), st.integers(2, 5), st.integers(2, 5)),
    beyond=st.sampled_from(["", "vector", "RGB-color", "list", "time"]),
    at=st.integers(0, 3),
    space=st.sampled_from(list(TO_RAS)),
    encoding=st.sampled_from([*PACK, "ascii"]),
    apart=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
def test_what_is_written_is_read_in_its_place(
    dtype: str,
    order: str,
    size: tuple[int, ...],
    beyond: str,
    at: int,
    space: str,
    encoding: str,
    apart: bool,
    seed: int,
) -> None:
    """`beyond`: the kind of a fourth axis, which stands at any place among those of space."""
    rng = np.random.default_rng(seed)
    images = rng.integers(0 if dtype[0] == "u" else -99, 100, (3 if beyond else 1, *size)).astype(order + dtype)
    values = np.ascontiguousarray(np.moveaxis(images, 0, 3 - at)) if beyond else images[0]
    directions = np.linalg.qr(rng.normal(size=(3, 3)))[0] * rng.uniform(0.3, 5, 3)
    origin = rng.normal(0, 99, 3)
    vectors, kinds = [vector(column) for column in directions.T], ["domain"] * 3
    if beyond:
        vectors.insert(at, "none")
        kinds.insert(at, beyond)
    lines = [f"space: {space}", f"space directions: {' '.join(vectors)}", f"space origin: {vector(origin)}"]
    lines += [f"kinds: {' '.join(kinds)}", f"encoding: {encoding}", "key:=a: value"]
    raw = values.tobytes()
    raw = " ".join(str(v) for v in values.ravel()).encode() if encoding == "ascii" else PACK[encoding](raw)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / ("x.nhdr" if apart else "x.nrrd")
        if apart:
            (Path(folder) / "x.dat").write_bytes(raw)
            path.write_bytes(header(values, *lines, "data file: x.dat"))
        else:
            path.write_bytes(header(values, *lines) + b"\n" + raw)
        place = np.eye(4)
        place[:3, :3], place[:3, 3] = directions, origin
        if beyond in ("list", "time"):
            assert fio.frames(path) == ["volume=1", "volume=2", "volume=3"]
            expected = {f"volume={k}": images[k - 1 : k] for k in (2, 3, 1)}
        else:
            expected = {"": images}
        for frame, data in expected.items():
            image = fio.read(path, frame)
            np.testing.assert_array_equal(image.data, data.astype(np.float32))
            np.testing.assert_allclose(image.affine, TO_RAS[space] @ place, atol=1e-9)
            assert (image.origin["format"], fio.format_of(path)) == ("nrrd", "nrrd")
            for target in ("copy.nrrd", "copy.nhdr"):
                files = fio.write(image, Path(folder) / target, synthetic=True, seed=7, model="a\\n b")
                back = fio.read(files[0])
                np.testing.assert_array_equal(back.data, image.data)
                np.testing.assert_allclose(back.affine, image.affine, atol=1e-9)
                assert back.origin["stored"]["dtype"][1:] == ("f4" if dtype == "f8" else dtype)
                assert (back.origin["synthetic"], back.origin["model"]) == (True, "a\\n b")
                assert len(files) == 1 + (target == "copy.nhdr")


def test_what_itk_makes_of_a_header(tmp_path: Path) -> None:
    values, path = np.arange(24, dtype=np.int16).reshape(2, 3, 4), tmp_path / "x.nrrd"
    scale = LPS @ np.diag([1.0, 2.0, 3.0, 1.0])
    for lines, note in (
        (("spacings: 1 2 3",), "no space in the header"),
        ((AXES, "space dimension: 3"), "no space in the header"),
        ((AXES, "space: 3D-left-handed"), "says nothing of the patient"),
    ):
        image = fio.read(save(path, values, *lines))
        np.testing.assert_array_equal(image.affine, scale)
        assert note in image.origin["notes"][0] and len(image.origin["notes"]) == 1
    assert "no voxel sizes" in fio.read(save(path, values)).origin["notes"][0]
    microns = fio.read(save(path, values, "space: RAS", AXES, 'space units: "um" "um" "um"'))
    np.testing.assert_allclose(microns.affine, np.diag([0.001, 0.002, 0.003, 1]))
    assert "converted from um to mm" in microns.origin["notes"][0]
    flat = fio.read(
        save(path, values, "space: RAS", "space directions: (1,0,0) (0,2,0) (0,0,0)", "kinds: domain domain list"),
        "volume=2",
    )
    np.testing.assert_array_equal(flat.data[0], values[1])
    np.testing.assert_array_equal(flat.affine, np.diag([1, 2, 1, 1.0]))
    assert fio.read(save(path, values.astype(np.int8), "TYPE: int8", "Encoding: raw", "space: RAS", AXES)).size == (
        2,
        3,
        4,
    )


def test_axes_whose_kinds_are_not_said(tmp_path: Path) -> None:
    values, path = np.arange(120, dtype=np.int16).reshape(5, 2, 3, 4), tmp_path / "x.nrrd"
    assert len(fio.frames(save(path, values))) == 5
    assert any("the first three taken as space" in note for note in fio.read(path, "volume=1").origin["notes"])
    four = "space directions: (1,0,0,0) (0,1,0,0) (0,0,1,0) (0,0,0,2)"
    assert len(fio.frames(save(path, values, "space: left-posterior-superior-time", four))) == 5
    np.testing.assert_array_equal(fio.read(path, "volume=5").data[0], values[4])
    np.testing.assert_array_equal(fio.read(path, "volume=5").affine, LPS)


@pytest.mark.parametrize("encoding", ["raw", "gzip"])
def test_lines_and_bytes_are_skipped(tmp_path: Path, encoding: str) -> None:
    """Bytes of packed voxels are skipped once they are unpacked, lines before."""
    values = np.arange(24, dtype=np.int16).reshape(2, 3, 4)
    raw = PACK[encoding](b"ab" + values.tobytes())
    (tmp_path / "x.nrrd").write_bytes(
        header(values, f"encoding: {encoding}", "line skip: 2", "byteskip: 2") + b"\none\ntwo\n" + raw
    )
    np.testing.assert_array_equal(fio.read(tmp_path / "x.nrrd").data[0], values)
    path = save(tmp_path / "y.nrrd", values, "byte skip: -1", before=b"anything")
    np.testing.assert_array_equal(fio.read(path).data[0], values)


def test_a_slice_in_space_keeps_its_place(tmp_path: Path) -> None:
    values = RNG.integers(0, 255, (3, 4)).astype(np.uint8)
    lines = ("space: LPS", "space directions: (0,2,0) (0,0,-3)", "space origin: (5,6,7)")
    image = fio.read(save(tmp_path / "x.nrrd", values, *lines))
    np.testing.assert_array_equal(image.data[0], values)
    np.testing.assert_array_equal(image.affine, LPS @ [[0, 0, -1, 5], [2, 0, 0, 6], [0, -3, 0, 7], [0, 0, 0, 1]])
    (copy,) = fio.write(image, tmp_path / "copy.nrrd")
    np.testing.assert_array_equal(fio.read(copy).affine, image.affine)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (("dimension: 2",), "expected two or more"),
        (("sizes: 4 0 2",), "at least 1"),
        (("sizes: 30000 30000 30000",), "needs .* GB"),
        (("sizes: 4 3 2 30000", "dimension: 4"), "the file is cut short"),
        (("type: block",), "expected whole or floating-point numbers"),
        (("endian: middle",), "expected little or big"),
        (("encoding: hex",), "expected raw, gzip, bzip2 or ascii"),
        (("kinds: complex domain domain",), "expected real voxels"),
        (("kinds: domain domain",), "expected one for each"),
        (("space directions: (1,0,0) none none",), "1 of 3 axes are of space"),
        (("byte skip: -2",), "expected 0 or more"),
        (("encoding: gzip", "byte skip: -1"), "-1 of raw voxels"),
        (("data file: absent.raw",), "absent.raw, which is not there"),
        (("data file: ../outside.raw",), "outside its folder"),
        (("data file: LIST",), "voxels in several files"),
        (("data file: a%03d.raw 1 9 1",), "voxels in several files"),
        (("data file: short.raw",), "the file is cut short"),
    ],
)
def test_headers_that_make_no_sense(tmp_path: Path, lines: tuple[str, ...], message: str) -> None:
    home = tmp_path / "home"
    home.mkdir()
    for path in (tmp_path / "outside.raw", home / "short.raw"):
        path.write_bytes(bytes(40))
    with pytest.raises(ReadError, match=message) as caught:
        fio.read(save(home / "x.nrrd", np.zeros((2, 3, 4), np.int16), *lines))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("encoding", list(PACK))
def test_a_file_cut_short_is_refused_wherever_it_ends(tmp_path: Path, encoding: str) -> None:
    values = RNG.integers(-999, 999, (4, 5, 6)).astype(np.int16)
    whole = header(values, f"encoding: {encoding}") + b"\n" + PACK[encoding](values.tobytes())
    (tmp_path / "x.nrrd").write_bytes(whole)
    np.testing.assert_array_equal(fio.read(tmp_path / "x.nrrd").data[0], values)
    for keep in range(0, len(whole), 7):
        (tmp_path / "x.nrrd").write_bytes(whole[:keep])
        with pytest.raises(ReadError):
            fio.read(tmp_path / "x.nrrd")


@settings(deadline=None, max_examples=draws(100))
@given(changes=st.lists(st.tuples(st.integers(0, 200), st.integers(0, 255)), min_size=1, max_size=6))
def test_damage_anywhere_is_a_read_error_and_nothing_else(changes: list[tuple[int, int]]) -> None:
    values = np.arange(24, dtype=np.int16).reshape(2, 3, 4)
    damaged = bytearray(header(values, "space: LPS", AXES, "kinds: domain domain domain") + b"\n" + values.tobytes())
    for position, value in changes:
        damaged[position] = value
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "x.nrrd").write_bytes(damaged)
        try:
            fio.read(Path(folder) / "x.nrrd", budget=2**26)
        except ReadError as error:
            assert "\n" not in str(error)
