"""MGH: equal to nibabel, coronal where the header says that it knows no place, whole or ReadError when damaged."""

from __future__ import annotations

import gzip
import tempfile
from pathlib import Path

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

RNG = np.random.default_rng(0)


def oblique(seed: int) -> npt.NDArray[np.float64]:
    rng = np.random.default_rng(seed)
    affine = np.eye(4)
    affine[:3, :3] = np.linalg.qr(rng.normal(size=(3, 3)))[0] * rng.uniform(0.3, 5, 3)
    affine[:3, 3] = rng.uniform(-300, 300, 3)
    return affine


def loaded_by_nibabel(path: Path) -> nib.MGHImage:
    """From bytes, since nibabel leaves the file open."""
    raw = path.read_bytes()
    return nib.MGHImage.from_bytes(gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw)


@settings(deadline=None, max_examples=draws(40))
@given(
    dtype=st.sampled_from(["u1", "i2", "i4", "f4"]),
    dims=st.tuples(st.integers(1, 6), st.integers(2, 6), st.integers(1, 6), st.integers(1, 3)),
    suffix=st.sampled_from([".mgh", ".mgz"]),
    seed=st.integers(0, 2**32 - 1),
)
def test_values_and_places_are_nibabels(dtype: str, dims: tuple[int, ...], suffix: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    values = rng.integers(0, 100, dims).astype(dtype)
    size = dims if dims[3] > 1 else dims[:3]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"x{suffix}"
        nib.save(nib.MGHImage(values.reshape(size), oblique(seed)), path)
        names = [f"volume={k}" for k in range(1, dims[3] + 1)] if dims[3] > 1 else [""]
        assert (fio.format_of(path), fio.frames(path)) == ("mgh", names)
        for k, name in enumerate(names):
            image = fio.read(path, name)
            np.testing.assert_array_equal(image.data.reshape(dims[2::-1]), values[..., k].T.astype(np.float32))
            (copy,) = fio.write(image, Path(folder) / f"copy{suffix}", synthetic=True, seed=7)
            back, loaded = fio.read(copy), loaded_by_nibabel(copy)
            np.testing.assert_array_equal(back.data, image.data)
            np.testing.assert_allclose(back.affine, image.affine, atol=1e-3)
            np.testing.assert_allclose(loaded.affine, loaded_by_nibabel(path).affine, atol=1e-3)
            assert (loaded.shape, loaded.get_data_dtype().str[1:]) == (dims[:3], dtype)
            assert (back.origin["synthetic"], back.origin["seed"]) == (True, 7)


def test_without_a_good_place_it_is_coronal(tmp_path: Path) -> None:
    """By FreeSurfer's own code (setDirectionCosine, MRI_CORONAL: x from right to left, y from head to neck, z from back
    to front): the sizes in the header are not to be trusted either. nibabel 5.4.2 has y and z the other way round."""
    path = tmp_path / "x.mgh"
    nib.save(nib.MGHImage(np.zeros((4, 6, 8), np.int16), oblique(1)), path)
    raw = bytearray(path.read_bytes())
    raw[28:30] = b"\0\0"
    path.write_bytes(raw)
    image = fio.read(path)
    np.testing.assert_array_equal(image.affine, [[-1, 0, 0, 2], [0, 0, 1, -4], [0, -1, 0, 3], [0, 0, 0, 1]])
    assert "1 mm voxels, coronal" in image.origin["notes"][0]


@pytest.mark.parametrize("suffix", [".mgh", ".mgz"])
def test_channels_and_units_are_kept_by_marks(tmp_path: Path, suffix: str) -> None:
    image = Image(RNG.normal(size=(3, 4, 5, 6)).astype(np.float32), oblique(2), "HU", {"window": (40.0, 400.0)})
    (path,) = fio.write(image, tmp_path / f"x{suffix}")
    back = fio.read(path)
    np.testing.assert_array_equal(back.data, image.data)
    assert (back.unit, back.origin["window"]) == ("HU", (40.0, 400.0))
    labels = Image(RNG.integers(0, 40_000, (1, 4, 5, 6)).astype(np.float32), oblique(2), "label")
    (path,) = fio.write(labels, tmp_path / f"y{suffix}")
    assert loaded_by_nibabel(path).get_data_dtype() == ">i4"  # what FreeSurfer reads, of the types that hold them
    np.testing.assert_array_equal(fio.read(path).data, labels.data)


@pytest.mark.parametrize("zipped", [False, True])
def test_a_file_cut_short_is_refused_wherever_it_ends(tmp_path: Path, zipped: bool) -> None:
    values, path = RNG.integers(-999, 999, (4, 5, 6)).astype(np.int16), tmp_path / "x.mgz"
    nib.save(nib.MGHImage(values, oblique(3)), tmp_path / "x.mgh")
    raw = (tmp_path / "x.mgh").read_bytes()[: 284 + values.nbytes]  # a footer need not be there
    whole = gzip.compress(raw) if zipped else raw
    path.write_bytes(whole)
    np.testing.assert_array_equal(fio.read(path).data[0], values.T)
    for keep in range(0, len(whole), 7):
        path.write_bytes(whole[:keep])
        with pytest.raises(ReadError) as caught:
            fio.read(path)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("dims", [(30000,) * 3, (900, 900, 4)])
def test_a_small_file_cannot_ask_for_gigabytes(tmp_path: Path, dims: tuple[int, ...]) -> None:
    nib.save(nib.MGHImage(np.zeros((2, 2, 2), np.uint8), np.eye(4)), tmp_path / "x.mgh")
    raw = bytearray((tmp_path / "x.mgh").read_bytes())
    raw[4:16] = np.array(dims, ">i4").tobytes()
    for path, content in ((tmp_path / "x.mgh", bytes(raw)), (tmp_path / "x.mgz", gzip.compress(raw))):
        path.write_bytes(content)
        with pytest.raises(ReadError, match="the file is cut short"):
            fio.read(path)
