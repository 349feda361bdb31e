"""NIfTI: equal to nibabel, kept within half a stored step, whole or ReadError when damaged."""

from __future__ import annotations

import gzip
import tempfile
import tracemalloc
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fabrica import io as fio
from fabrica.errors import ReadError
from fabrica.image import Image
from tests.draws import draws
from tests.real import DATA

RNG = np.random.default_rng(0)
LAS = np.array([[-1.5, 0, 0, 90], [0, 1.25, 0, -126], [0, 0, 3, -72], [0, 0, 0, 1]], np.float64)


def oblique(seed: int) -> npt.NDArray[np.float64]:
    """A rotation, three voxel sizes and an offset, all exact in float32 as the format stores them."""
    rng = np.random.default_rng(seed)
    rotation, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    affine = np.eye(4)
    affine[:3, :3] = rotation * rng.uniform(0.3, 5, 3)
    affine[:3, 3] = rng.uniform(-300, 300, 3)
    return affine.astype(np.float32).astype(np.float64)


def save(path: Path, values: npt.NDArray[Any], affine: npt.NDArray[np.float64] = LAS, **fields: Any) -> Path:
    """Written by nibabel, then single header fields overwritten."""
    nib.save(nib.Nifti1Image(values, affine), path)
    raw = path.read_bytes()
    header = nib.Nifti1Header(raw[:348])
    for name, value in fields.items():
        header[name] = value
    path.write_bytes(header.binaryblock + raw[348:])
    return path


# --- exactness against nibabel ----------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["u1", "i1", "i2", "u2", "i4", "u4", "f4", "f8", ">i2", ">f4"])
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
def test_values_and_affine_equal_nibabels(tmp_path: Path, dtype: str, suffix: str, kind: Any) -> None:
    values = (RNG.random((7, 6, 5)) * 100).astype(dtype)
    header = kind.header_class(endianness=">" if dtype[0] == ">" else "<")
    header.set_data_dtype(dtype)
    path = tmp_path / f"x{suffix}"
    nib.save(kind(values, oblique(3), header), path)
    image = fio.read(path)
    assert image.data.shape == (1, 5, 6, 7)
    np.testing.assert_array_equal(image.data[0], np.asarray(nib.load(path).dataobj).T.astype(np.float32))
    np.testing.assert_allclose(image.affine, nib.load(path).affine, atol=1e-12)
    assert image.unit == "arbitrary"
    assert "range" not in image.origin


def test_scale_factor_and_window(tmp_path: Path) -> None:
    stored = RNG.integers(-3000, 3000, (4, 5, 6), dtype=np.int16)
    fields: dict[str, Any] = {"scl_slope": 0.25, "scl_inter": -10, "cal_min": -100, "cal_max": 300}
    read = fio.read(save(tmp_path / "x.nii", stored, **fields))
    np.testing.assert_array_equal(read.data[0], stored.T * 0.25 - 10)
    assert read.origin["step"] == 0.25
    assert read.origin["window"] == (100.0, 400.0)


@pytest.mark.parametrize(
    ("dims", "shape"),
    [
        ((7, 6), (1, 6, 7)),
        ((7, 6, 1), (1, 6, 7)),
        ((7, 6, 5), (1, 5, 6, 7)),
        ((7, 6, 5, 1, 1), (1, 5, 6, 7)),
        ((7, 1, 5), (1, 5, 7)),
        ((1, 6, 5), (1, 5, 6)),
    ],
)
def test_dimensions(tmp_path: Path, dims: tuple[int, ...], shape: tuple[int, ...]) -> None:
    values = np.arange(np.prod(dims), dtype=np.float32).reshape(dims)
    image = fio.read(save(tmp_path / "x.nii", values))
    assert image.data.shape == shape
    np.testing.assert_array_equal(image.data.ravel(), values.ravel(order="F"))


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize("dims", [(7, 6, 5, 3), (7, 6, 1, 3), (7, 6, 5, 1, 2), (4, 3, 2, 5, 6), (1, 3, 2, 4)])
def test_several_volumes_are_several_images(tmp_path: Path, dims: tuple[int, ...], suffix: str) -> None:
    values = RNG.integers(-999, 999, dims).astype(np.int16)
    path = save(tmp_path / "x.nii", values)
    if suffix == ".nii.gz":
        path = tmp_path / "x.nii.gz"
        path.write_bytes(gzip.compress((tmp_path / "x.nii").read_bytes()))
    whole = values.reshape(*dims[:3], -1, order="F")  # in the order of the file
    names = [f"volume={k}" for k in range(1, whole.shape[3] + 1)]
    assert fio.frames(path) == names
    for k in RNG.permutation(len(names)):
        image = fio.read(path, names[k])
        np.testing.assert_array_equal(image.data.reshape(dims[2::-1]), whole[..., k].T)
        assert image.origin["tells"] == names[k]
    for frame, message in (("", f"holds {len(names)} volumes"), ("volume=0", "no frame"), ("2", "no frame '2'")):
        with pytest.raises(ReadError, match=f"{message}.*from volume=1 to volume={len(names)}") as caught:
            fio.read(path, frame)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("intent", "channels"), [(1007, 3), (1006, 3), (2003, 3), (2004, 4)])
def test_the_fifth_axis_of_a_vector_is_channels(tmp_path: Path, intent: int, channels: int) -> None:
    values = RNG.integers(0, 255, (5, 4, 3, 2, channels)).astype(np.uint8)
    path = save(tmp_path / "x.nii", values, intent_code=intent)
    assert fio.frames(path) == ["volume=1", "volume=2"]
    np.testing.assert_array_equal(fio.read(path, "volume=2").data, values[:, :, :, 1].T)
    single = fio.read(save(tmp_path / "y.nii", values[:, :, :, :1], intent_code=intent))
    np.testing.assert_array_equal(single.data, values[:, :, :, 0].T)
    (copy,) = fio.write(single, tmp_path / "copy.nii.gz")
    assert fio.frames(copy) == [""]
    np.testing.assert_array_equal(fio.read(copy).data, single.data)


def test_a_volume_is_reached_without_the_others(tmp_path: Path) -> None:
    """Neither kept nor, where plain, read: the file's other volumes are a hole, or memory would show them."""
    header = nib.Nifti1Header(endianness="<")
    header.set_data_shape((64, 64, 32, 4000))
    header.set_data_dtype(np.int16)
    header.set_sform(LAS, code=1)
    header["vox_offset"] = 352
    one = RNG.integers(-999, 999, (32, 64, 64)).astype(np.int16)
    with (tmp_path / "x.nii").open("wb") as file:
        file.write(header.binaryblock + bytes(4))
        file.seek(352 + 3000 * one.nbytes)
        file.write(one.tobytes())
        file.truncate(352 + 4000 * one.nbytes)  # a gigabyte that the disk need not hold
    tracemalloc.start()
    image = fio.read(tmp_path / "x.nii", "volume=3001", budget=2**20)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    np.testing.assert_array_equal(image.data[0], one)
    assert most < 8 * image.data.nbytes


@pytest.mark.parametrize("damage", ["cut", "flipped"])
def test_a_damaged_file_gives_none_of_its_volumes(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "x.nii.gz"
    nib.save(nib.Nifti1Image(RNG.integers(-999, 999, (9, 8, 7, 6)).astype(np.int16), LAS), path)
    data = bytearray(path.read_bytes())
    if damage == "flipped":
        data[-8] ^= 1  # in the checksum
    path.write_bytes(data if damage == "flipped" else data[:-200])
    with pytest.raises(ReadError):
        fio.read(path, "volume=1")


def test_colour_voxels_become_channels(tmp_path: Path) -> None:
    values = np.zeros((4, 3, 2), [("R", "u1"), ("G", "u1"), ("B", "u1")])
    values["G"] = np.arange(24).reshape(4, 3, 2)
    image = fio.read(save(tmp_path / "x.nii", values))
    assert image.data.shape == (3, 2, 3, 4)
    np.testing.assert_array_equal(image.data[1], values["G"].T)


def test_the_affine_is_sform_else_qform_else_voxel_sizes(tmp_path: Path) -> None:
    values = np.zeros((3, 4, 5), np.int16)
    image = nib.Nifti1Image(values, None)
    image.header.set_zooms((2, 3, 4))
    image.header.set_qform(oblique(1), code=1)
    nib.save(image, tmp_path / "q.nii")
    np.testing.assert_allclose(fio.read(tmp_path / "q.nii").affine, nib.load(tmp_path / "q.nii").affine, atol=1e-6)
    image.header.set_sform(oblique(2), code=2)
    nib.save(image, tmp_path / "s.nii")
    np.testing.assert_allclose(fio.read(tmp_path / "s.nii").affine, oblique(2), atol=1e-6)
    bare = fio.read(save(tmp_path / "x.nii", values, sform_code=0, qform_code=0, pixdim=[1, 2, 3, 4, 1, 1, 1, 1]))
    np.testing.assert_array_equal(bare.affine, np.diag([2, 3, 4, 1]))
    assert "no orientation" in bare.origin["notes"][0] and "other programs mirror it" in bare.origin["notes"][0]
    microns = fio.read(save(tmp_path / "x.nii", values, xyzt_units=3))
    np.testing.assert_allclose(microns.affine[:3], LAS[:3] / 1000)
    assert "converted to mm" in microns.origin["notes"][0]
    broken = fio.read(save(tmp_path / "x.nii", values, srow_x=[0, 0, 0, 0]))
    assert "sform is not a usable affine" in broken.origin["notes"][0]


@pytest.mark.parametrize(
    ("code", "moved", "said"),
    [(2, 0.09, ""), (2, 0.2, "ITK, Slicer and ANTs, which take the qform"), (1, 0.2, "programs that take the qform")],
)
def test_forms_that_differ_are_noted_and_the_sform_is_kept(tmp_path: Path, code: int, moved: float, said: str) -> None:
    """Which of them ITK takes was seen with SimpleITK 2.5.7: the sform where its code is 1, else the qform."""
    image = nib.Nifti1Image(np.zeros((30, 4, 5), np.int16), None)
    turned = LAS.copy()
    turned[2, 0] = moved / 29  # the far corners lie that much apart, the first voxel in one place
    image.header.set_sform(LAS, code=code)
    image.header.set_qform(LAS, code=1)
    image.header["srow_z"] = turned[2]
    nib.save(image, tmp_path / "x.nii")
    read = fio.read(tmp_path / "x.nii")
    np.testing.assert_allclose(read.affine, turned, atol=1e-6)
    notes = read.origin.get("notes", ())
    assert (len(notes) == 1 and said in notes[0] and "differ by up to 0.2 mm" in notes[0]) if said else notes == ()


def test_nan_is_replaced_and_noted(tmp_path: Path) -> None:
    values = np.full((2, 2, 2), -5, np.float64)
    values[0, 0, 0], values[1, 1, 1], values[0, 1, 0], values[1, 0, 0] = np.nan, np.inf, 1e300, 7
    image = fio.read(save(tmp_path / "x.nii", values))
    assert sorted(set(image.data.ravel())) == [-5, 7]
    assert "3 voxels" in image.origin["notes"][0] and image.origin["nan"] == 3
    assert "nan" not in fio.read(save(tmp_path / "x.nii", np.ones((2, 2, 2), np.float32))).origin
    with pytest.raises(ReadError, match="not one voxel"):
        fio.read(save(tmp_path / "x.nii", np.full((2, 2, 2), np.nan)))


# --- write and read back ----------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=draws(40))
@given(
    dtype=st.sampled_from(["u1", "i1", "i2", "u2", "i4", "f4"]),
    slope=st.sampled_from([1.0, 0.5, 0.013, 3.7, -2.0]),
    inter=st.sampled_from([0.0, -1024.0, 0.7]),
    dims=st.tuples(st.integers(1, 9), st.integers(1, 9), st.integers(1, 5), st.integers(1, 3)),
    volume=st.integers(1, 3),
    suffix=st.sampled_from([".nii", ".nii.gz"]),
    seed=st.integers(0, 2**32 - 1),
)
def test_round_trip(
    dtype: str, slope: float, inter: float, dims: tuple[int, ...], volume: int, suffix: str, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    kind = np.dtype(dtype)
    stored = rng.integers(0 if kind.kind == "u" else -100, 100, dims).astype(kind)
    header = nib.Nifti1Header(endianness="<")
    header.set_data_shape(dims)
    header.set_data_dtype(kind)
    header.set_sform(oblique(seed), code=1 + seed % 4)
    header["scl_slope"], header["scl_inter"], header["vox_offset"] = slope, inter, 352
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "source.nii"
        source.write_bytes(header.binaryblock + b"\0\0\0\0" + stored.tobytes(order="F"))
        image = fio.read(source, f"volume={min(volume, dims[3])}" if dims[3] > 1 else "")
        shift = rng.uniform(-0.4, 0.4, image.data.shape) * abs(slope)
        changed = image.with_data(image.data + shift.astype(np.float32))
        for kept in (image, changed):
            (path,) = fio.write(kept, Path(folder) / f"x{suffix}")
            back, loaded = fio.read(path), nib.load(path)
            rounding = 2.0**-22 * float(np.abs(kept.data).max())
            assert np.abs(back.data - kept.data).max() <= abs(slope) / 2 + rounding
            np.testing.assert_allclose(back.affine, image.affine, atol=1e-6, rtol=1e-6)
            np.testing.assert_allclose(loaded.affine, oblique(seed), atol=1e-6, rtol=1e-6)
            assert loaded.shape == dims[:3]
            sizes = np.linalg.norm(loaded.header.get_sform()[:3, :3], axis=0)  # else MONAI ignores where it lies
            np.testing.assert_allclose(loaded.header["pixdim"][1:4], sizes, atol=1e-5)
            squeezed = np.asarray(loaded.dataobj).T.reshape(back.data.shape)
            np.testing.assert_allclose(squeezed, back.data, rtol=1e-6, atol=1e-6)
            assert int(loaded.header["sform_code"]) == 1 + seed % 4
        if kind.kind in "iu":
            assert nib.load(fio.write(image, path)[0]).get_data_dtype() == kind


@pytest.mark.parametrize("shape", [(1, 5, 6), (3, 5, 6), (1, 4, 5, 6), (2, 4, 5, 6)])
def test_images_from_elsewhere_are_float32_and_exact(tmp_path: Path, shape: tuple[int, ...]) -> None:
    image = Image(RNG.normal(0, 500, shape).astype(np.float32), oblique(5), "HU", {"window": (40.0, 400.0)})
    (path,) = fio.write(image, tmp_path / "x.nii.gz")
    back = fio.read(path)
    np.testing.assert_array_equal(back.data, image.data)
    np.testing.assert_array_equal(back.affine, image.affine)
    assert (back.unit, back.origin["window"]) == ("HU", (40.0, 400.0))
    assert nib.load(path).header.get_xyzt_units()[0] == "mm"
    np.testing.assert_allclose(nib.load(path).header.get_qform(), image.affine, atol=1e-3)


def test_labels_are_whole_numbers_and_stay_labels(tmp_path: Path) -> None:
    image = Image(RNG.integers(0, 118, (1, 4, 5, 6)).astype(np.float32), LAS, "label")
    (path,) = fio.write(image, tmp_path / "x.nii.gz")
    assert nib.load(path).get_data_dtype() == np.uint8
    assert fio.read(path).unit == "label"


def test_a_rescaled_copy_is_not_rounded_to_the_sources_steps(tmp_path: Path) -> None:
    source = fio.read(save(tmp_path / "x.nii", RNG.integers(0, 4000, (6, 6, 6), dtype=np.int16)))
    unit_range = source.with_data(source.data / np.float32(4000))
    back = fio.read(fio.write(unit_range, tmp_path / "y.nii")[0])
    np.testing.assert_array_equal(back.data, unit_range.data)
    beyond = source.with_data(source.data * 100)
    np.testing.assert_array_equal(fio.read(fio.write(beyond, tmp_path / "y.nii")[0]).data, beyond.data)


def test_synthetic_volumes_say_so_and_keep_saying_it(tmp_path: Path) -> None:
    image = Image(np.zeros((1, 3, 4, 5), np.float32), LAS)
    (path,) = fio.write(image, tmp_path / "x.nii.gz", synthetic=True, model="ddpm-head", model_hash="ab12", seed=7)
    header = nib.load(path).header
    assert b"SyntheticData=YES" in header["descrip"].item()
    assert b"ModelHash=ab12" in header.extensions[0].get_content().__str__().encode()
    back = fio.read(path)
    assert (back.origin["synthetic"], back.origin["seed"], back.origin["model"]) == (True, 7, "ddpm-head")
    (copy,) = fio.write(back, tmp_path / "copy.nii")
    assert fio.read(copy).origin["synthetic"] is True
    assert "synthetic" not in fio.read(fio.write(image, tmp_path / "y.nii")[0]).origin


def test_the_same_image_gives_the_same_bytes(tmp_path: Path) -> None:
    image = Image(np.ones((1, 3, 4, 5), np.float32), LAS)
    first = fio.write(image, tmp_path / "a.nii.gz")[0].read_bytes()
    assert fio.write(image, tmp_path / "b.nii.gz")[0].read_bytes() == first


# --- damage and bombs -------------------------------------------------------------------------------------------


def sound(suffix: str, folder: Path) -> bytes:
    values = np.random.default_rng(1).integers(0, 3000, (9, 8, 7), dtype=np.int16)
    return fio.write(fio.read(save(folder / "source.nii", values)), folder / f"sound{suffix}")[0].read_bytes()


def outcome(path: Path, data: bytes) -> npt.NDArray[Any] | ReadError:
    path.write_bytes(data)
    try:
        return fio.read(path, budget=2**26).data
    except ReadError as error:
        assert "\n" not in str(error)
        return error


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize("part", [0.0, 0.01, 0.1, 0.2, 0.3, 0.5, 0.9, 0.99, -8, -1])
def test_a_truncated_file_is_a_read_error(tmp_path: Path, suffix: str, part: float) -> None:
    data = sound(suffix, tmp_path)
    keep = len(data) + int(part) if part < 0 else int(part * len(data))
    assert isinstance(outcome(tmp_path / f"x{suffix}", data[:keep]), ReadError)


def test_a_flipped_bit_in_a_gzipped_file_is_noticed(tmp_path: Path) -> None:
    data, whole = sound(".nii.gz", tmp_path), fio.read(tmp_path / "sound.nii.gz").data
    for position in range(10, len(data), 17):  # the ten bytes before are a date and such
        damaged = bytearray(data)
        damaged[position] ^= 16
        result = outcome(tmp_path / "x.nii.gz", bytes(damaged))
        assert isinstance(result, ReadError) or np.array_equal(result, whole), position


@settings(deadline=None, max_examples=draws(150))
@given(changes=st.lists(st.tuples(st.integers(0, 420), st.integers(0, 255)), min_size=1, max_size=6))
def test_damage_anywhere_is_a_read_error_and_nothing_else(changes: list[tuple[int, int]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        damaged = bytearray(sound(".nii", Path(folder)))
        for position, value in changes:
            damaged[position] = value
        outcome(Path(folder) / "x.nii", bytes(damaged))


def bomb(**fields: Any) -> bytes:
    header = nib.Nifti1Header(endianness="<")
    header.set_data_dtype(np.uint8)
    header.set_data_shape((16, 16, 16))
    header["vox_offset"], header["magic"] = 352, b"n+1"
    for name, value in fields.items():
        header[name] = value
    return bytes(header.binaryblock) + b"\0\0\0\0"


def test_a_small_file_cannot_ask_for_gigabytes(tmp_path: Path) -> None:
    path = tmp_path / "x.nii.gz"
    path.write_bytes(gzip.compress(bomb(dim=[3, 30000, 30000, 30000, 1, 1, 1, 1])))
    assert path.stat().st_size < 150
    with pytest.raises(ReadError, match=r"30000 x 30000 x 30000 voxels needs [\d,.]+ GB"):
        fio.read(path)
    path.write_bytes(gzip.compress(bomb(vox_offset=2e9) + bytes(10_000_000)))
    with pytest.raises(ReadError, match="voxels said to begin"):
        fio.read(path)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"dim": [3, 4, -4, 4, 1, 1, 1, 1]}, "dimensions"),
        ({"dim": [5, 4, 4, 4, 2, 2, 1, 1]}, "holds 4 volumes"),
        ({"dim": [4, 4, 4, 4, 32000, 1, 1, 1]}, "the file is cut short"),
        ({"dim": [9, 4, 4, 4, 2, 2, 1, 1]}, "dimensions"),
        ({"datatype": 32, "bitpix": 64}, "complex"),
        ({"datatype": 999}, "NIfTI"),
        ({"magic": b"ni1"}, "hdr/.img pair"),
        ({"vox_offset": np.nan}, "voxels said to begin"),
    ],
)
def test_headers_that_make_no_sense(tmp_path: Path, fields: dict[str, Any], message: str) -> None:
    (tmp_path / "x.nii").write_bytes(bomb(**fields) + bytes(100_000))
    with pytest.raises(ReadError, match=message):
        fio.read(tmp_path / "x.nii")


# --- real volumes -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("folder", ["ct_mr_totalsegmentator", "mri_fernando", "mri_hippocampus_msd"])
def test_real_volumes_agree_with_nibabel(folder: str, tmp_path: Path) -> None:
    paths = sorted((DATA / folder).rglob("*.nii.gz"))[:12]
    if not paths:
        pytest.skip(f"no real volumes: {folder} is not in the data folder (set FABRICA_DATA)")
    for path in paths:
        image, loaded = fio.read(path), nib.load(path)
        np.testing.assert_allclose(image.data[0], np.asarray(loaded.dataobj).T, rtol=1e-6, err_msg=str(path))
        np.testing.assert_allclose(image.affine, loaded.affine, atol=1e-6)
    (copy,) = fio.write(image, tmp_path / "copy.nii.gz")
    np.testing.assert_array_equal(np.asarray(nib.load(copy).dataobj), np.asarray(loaded.dataobj))
    np.testing.assert_allclose(nib.load(copy).affine, loaded.affine, atol=1e-6)
