"""npz and zip: equal to NumPy and Pillow, reached at random, whole or ReadError when damaged."""

from __future__ import annotations

import io
import os
import pickle
import tempfile
import time
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image as Pillow

from fabrica import io as fio
from fabrica.errors import ReadError
from fabrica.image import Image
from tests.draws import draws
from tests.real import DATA

RNG = np.random.default_rng(0)


def real(name: str) -> Path:
    if not (DATA / name).is_file():
        pytest.skip(f"no real images: {name} is not in the data folder (set FABRICA_DATA)")
    return DATA / name


def noise(*shape: int, dtype: Any = np.uint8) -> npt.NDArray[Any]:
    return RNG.integers(0, np.iinfo(dtype).max, shape, dtype=dtype, endpoint=True)


@pytest.fixture(params=["stored", "deflated"])
def medmnist(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, dict[str, npt.NDArray[Any]]]:
    arrays: dict[str, Any] = {
        "train_images": noise(12, 28, 28),
        "train_labels": noise(12, 14) % 2,  # multi-label: wide enough to be taken for a picture
        "test_images": noise(5, 28, 28),
        "test_labels": noise(5, 14) % 2,
    }
    save = np.savez if request.param == "stored" else np.savez_compressed
    save(tmp_path / "x.npz", **arrays)
    return tmp_path / "x.npz", arrays


def test_frames_labels_and_images(medmnist: tuple[Path, dict[str, npt.NDArray[Any]]]) -> None:
    path, arrays = medmnist
    names = fio.frames(path)
    assert names == [f"train_images/{i}" for i in range(12)] + [f"test_images/{i}" for i in range(5)]
    labels = fio.npz_labels(path)
    assert sorted(labels) == ["test_labels", "train_labels"]
    np.testing.assert_array_equal(labels["train_labels"], arrays["train_labels"])
    for name in RNG.permutation(names):
        key, _, index = name.partition("/")
        image = fio.read(path, name)
        np.testing.assert_array_equal(image.data, arrays[key][int(index)][None])
        assert image.origin["range"] == (0.0, 255.0)
        assert image.origin["frame"] == name


@pytest.mark.parametrize(
    ("shape", "one"),
    [
        ((4, 9, 10), (1, 9, 10)),
        ((4, 9, 10, 1), (1, 9, 10)),
        ((4, 9, 10, 3), (3, 9, 10)),
        ((4, 9, 10, 4), (4, 9, 10)),
        ((4, 1, 9, 10), (1, 9, 10)),
        ((4, 3, 9, 10), (3, 9, 10)),
        ((4, 12, 9, 10), (1, 12, 9, 10)),
        ((4, 12, 9, 10, 1), (1, 12, 9, 10)),
        ((4, 3, 12, 9, 10), (3, 12, 9, 10)),
    ],
)
@pytest.mark.parametrize("order", ["C", "F"])
def test_array_layouts(tmp_path: Path, shape: tuple[int, ...], one: tuple[int, ...], order: Any) -> None:
    values = np.asarray(noise(*shape, dtype=np.uint16), order=order)
    np.savez(tmp_path / "x.npz", images=values)
    assert fio.frames(tmp_path / "x.npz") == [f"images/{i}" for i in range(4)]
    data = fio.read(tmp_path / "x.npz", "images/2").data
    assert data.shape == one
    expected = values[2] if shape[-1] in (10,) else np.moveaxis(values[2], -1, 0)
    np.testing.assert_array_equal(data.reshape(one), expected.reshape(one))


def test_arrays_that_are_one_image_or_none(tmp_path: Path) -> None:
    arrays: dict[str, Any] = {
        "ct": noise(20, 30, dtype=np.uint16),
        "skin": noise(20, 30, 3),
        "ages": noise(20),
        "few": noise(20, 3),
    }
    np.savez(tmp_path / "x.npz", **arrays, names=np.array(["a", "b"]), wave=np.ones((9, 9), np.complex64))
    assert fio.frames(tmp_path / "x.npz") == ["ct", "skin"]
    np.testing.assert_array_equal(fio.read(tmp_path / "x.npz", "skin").data, arrays["skin"].transpose(2, 0, 1))
    with pytest.raises(ReadError, match="holds 2 images; name one, such as 'ct'"):
        fio.read(tmp_path / "x.npz")
    with pytest.raises(ReadError, match="expected a stack of images"):
        fio.read(tmp_path / "x.npz", "ages/3")
    np.savez(tmp_path / "y.npz", ct=arrays["ct"])
    np.testing.assert_array_equal(fio.read(tmp_path / "y.npz").data[0], arrays["ct"])


@pytest.mark.parametrize("frame", ["train_images/12", "train_images/-1", "train_images/x", "val_images/0", "7"])
def test_frames_that_do_not_exist(medmnist: tuple[Path, dict[str, npt.NDArray[Any]]], frame: str) -> None:
    with pytest.raises(ReadError, match="no frame"):
        fio.read(medmnist[0], frame)


def test_a_rewritten_file_is_read_anew(tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    for value in (1, 2):
        np.savez_compressed(path, images=np.full((3, 9, 9), value, np.uint8))
        os.utime(path, ns=(value, value))
        assert fio.read(path, "images/0").data.max() == value


def test_reading_one_frame_does_not_read_the_file(tmp_path: Path) -> None:
    """A stored array is sought in, a deflated one inflated once, a zip's directory read once."""
    images = noise(4000, 96, 96)
    np.savez(tmp_path / "stored.npz", images=images)
    np.savez_compressed(tmp_path / "deflated.npz", images=images[:1000])
    for name, count in [("stored.npz", 4000), ("deflated.npz", 1000)]:
        fio.read(tmp_path / name, "images/0")
        began = time.process_time()
        for index in range(0, count, count // 200):
            assert fio.read(tmp_path / name, f"images/{index}").data[0, 0, 0] == images[index, 0, 0]
        each = (time.process_time() - began) / 200
        began = time.process_time()
        with np.load(tmp_path / name) as whole:
            assert len(whole["images"]) == count
        assert each < (time.process_time() - began) / 2


def test_pickled_objects_are_never_loaded(tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> Any:
            return Path.touch, (tmp_path / "executed",)

    np.savez(tmp_path / "x.npz", images=np.array([Bomb()], object), y_labels=np.array([Bomb()], object))
    assert fio.frames(tmp_path / "x.npz") == []
    for attempt in (lambda: fio.read(tmp_path / "x.npz", "images/0"), lambda: fio.npz_labels(tmp_path / "x.npz")):
        with pytest.raises(ReadError):
            attempt()
    assert not (tmp_path / "executed").exists()
    pickle.loads(pickle.dumps(Bomb()))
    assert (tmp_path / "executed").exists()  # it would have


# --- Fabrica's own npz ------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=draws(30))
@given(
    shape=st.one_of(st.tuples(*[st.integers(1, 9)] * 3), st.tuples(*[st.integers(1, 9)] * 4)),
    unit=st.sampled_from(["HU", "arbitrary", "label"]),
    seed=st.integers(0, 2**32 - 1),
)
def test_round_trip(shape: tuple[int, ...], unit: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    origin = {"range": (-1024.0, 3071.0), "step": 0.5, "window": (40.0, 400.0), "modality": "CT"}
    affine = np.vstack([rng.normal(0, 100, (3, 4)), [0, 0, 0, 1]])
    image = Image(rng.normal(0, 1000, shape).astype(np.float32), affine, unit, origin)
    with tempfile.TemporaryDirectory() as folder:
        (path,) = fio.write(image, Path(folder) / "x.npz", synthetic=True, seed=3)
        back = fio.read(path)
        assert fio.frames(path) == [""]
    np.testing.assert_array_equal(back.data, image.data)
    np.testing.assert_array_equal(back.affine, affine)
    assert back.unit == unit
    assert {key: back.origin[key] for key in origin} == origin
    assert back.origin["synthetic"] is True


# --- zip --------------------------------------------------------------------------------------------------------


def pictures(path: Path, method: int = zipfile.ZIP_STORED) -> dict[str, npt.NDArray[Any]]:
    images = {f"CXR/{i:03d}.png": noise(16, 16) for i in range(5)}
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.writestr("readme.txt", "not an image")
        archive.writestr("__MACOSX/CXR/._000.png", b"not an image either")
        for name, values in images.items():
            buffer = io.BytesIO()
            Pillow.fromarray(values).save(buffer, format="png")
            archive.writestr(name, buffer.getvalue())
    return images


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_zip_of_pictures(tmp_path: Path, method: int) -> None:
    images = pictures(tmp_path / "x.zip", method)
    assert fio.frames(tmp_path / "x.zip") == sorted(images)
    for name, values in images.items():
        image = fio.read(tmp_path / "x.zip", name)
        np.testing.assert_array_equal(image.data[0], values)
        assert (image.origin["path"], image.origin["frame"]) == (str(tmp_path / "x.zip"), name)
    with pytest.raises(ReadError, match="holds 5 pictures; name one"):
        fio.read(tmp_path / "x.zip")
    with pytest.raises(ReadError, match="no member"):
        fio.read(tmp_path / "x.zip", "CXR/9.png")
    with pytest.raises(ReadError, match="not a picture"):
        fio.read(tmp_path / "x.zip", "readme.txt")


def test_zip_without_pictures(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr("readme.txt", "not an image")
    assert fio.frames(tmp_path / "x.zip") == []
    with pytest.raises(ReadError, match=r"holds no picture and no DICOM, found 1 \.txt"):
        fio.read(tmp_path / "x.zip")


# --- damage and bombs -------------------------------------------------------------------------------------------


def everything(path: Path) -> list[npt.NDArray[Any]] | ReadError:
    try:
        return [fio.read(path, frame, budget=2**24).data for frame in fio.frames(path)]
    except ReadError as error:
        assert "\n" not in str(error)
        return error


@pytest.mark.parametrize("part", [0.0, 0.01, 0.1, 0.3, 0.6, 0.9, 0.99, -1])
@pytest.mark.parametrize("suffix", [".npz", ".zip"])
def test_a_truncated_archive_is_a_read_error(tmp_path: Path, suffix: str, part: float) -> None:
    path = tmp_path / f"x{suffix}"
    if suffix == ".zip":
        pictures(path)
    else:
        np.savez(path, images=noise(5, 16, 16))
    data = path.read_bytes()
    path.write_bytes(data[: -1 if part < 0 else int(part * len(data))])
    assert isinstance(everything(path), ReadError)


@settings(deadline=None, max_examples=draws(120))
@given(kind=st.sampled_from(["stored", "deflated", "zip"]), data=st.data())
def test_damage_anywhere_is_a_read_error_and_nothing_else(kind: str, data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.bin"
        if kind == "zip":
            pictures(path)
        else:
            with path.open("wb") as file:
                (np.savez if kind == "stored" else np.savez_compressed)(file, images=noise(3, 16, 16))
        damaged = bytearray(path.read_bytes())
        for _ in range(data.draw(st.integers(1, 4))):
            place = data.draw(st.integers(0, min(300, len(damaged)) - 1))  # headers first and last break best
            damaged[place if data.draw(st.booleans()) else -1 - place] = data.draw(st.integers(0, 255))
        path.write_bytes(bytes(damaged))
        everything(path)


def test_a_small_archive_cannot_ask_for_gigabytes(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x.png", bytes(30_000_000))
    with pytest.raises(ReadError, match=r"member x\.png needs 28\.6 MB"):
        fio.read(tmp_path / "x.zip", "x.png", budget=2**20)
    np.savez_compressed(tmp_path / "x.npz", images=np.zeros((30, 1000, 1000), np.uint8))
    with pytest.raises(ReadError, match=r"array images\.npy needs .* more than the budget"):
        fio.read(tmp_path / "x.npz", "images/0", budget=2**22)
    np.savez(tmp_path / "y.npz", images=np.zeros((30, 1000, 1000), np.uint8))
    assert fio.read(tmp_path / "y.npz", "images/0", budget=2**22).data.shape == (1, 1000, 1000)


def test_a_header_that_lies_about_its_array(tmp_path: Path) -> None:
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": (10**12, 64, 64)})
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
        archive.writestr("images.npy", header.getvalue() + bytes(64 * 64))
    with pytest.raises(ReadError, match="not its size"):
        fio.frames(tmp_path / "x.npz")


# --- real archives ----------------------------------------------------------------------------------------------


def test_real_pneumoniamnist_agrees_with_numpy() -> None:
    path = real("pneumoniamnist_28/pneumoniamnist_reconstructed.npz")
    names = fio.frames(path)
    with np.load(path) as arrays:
        assert len(names) == sum(len(arrays[f"{split}_images"]) for split in ("train", "val", "test"))
        for name in RNG.choice(names, 50, replace=False):
            key, _, index = str(name).partition("/")
            np.testing.assert_array_equal(fio.read(path, str(name)).data[0], arrays[key][int(index)])
        np.testing.assert_array_equal(fio.npz_labels(path)["val_labels"], arrays["val_labels"])


def test_real_npz_of_single_slices_agrees_with_numpy() -> None:
    path = real("slices_msd_nih_15/slices.npz")
    with np.load(path) as arrays:
        assert fio.frames(path) == list(arrays)
        for name in arrays:
            np.testing.assert_array_equal(fio.read(path, name).data[0], arrays[name])


def test_real_zip_agrees_with_pillow() -> None:
    path = real("mednist_64/CXR.zip")
    names = fio.frames(path)
    assert len(names) == 10_000
    with zipfile.ZipFile(path) as archive:
        for name in RNG.choice(names, 60, replace=False):
            with Pillow.open(io.BytesIO(archive.read(str(name)))) as opened:
                np.testing.assert_array_equal(fio.read(path, str(name)).data[0], np.asarray(opened.convert("L")))
