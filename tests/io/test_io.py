"""One read and one write for all formats: dispatch by content, folders, pictures for people, whole files."""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile
import warnings
from itertools import permutations, product
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image as Pillow

from fabrica import io as fio
from fabrica.errors import FabricaError, ReadError, UsageError
from fabrica.image import Image
from fabrica.io.atomic import atomic
from fabrica.io.display import tones
from tests.draws import draws
from tests.real import DATA

RNG = np.random.default_rng(0)


def grey(*shape: int) -> Image:
    values = RNG.integers(0, 256, shape).astype(np.float32)
    return Image(values, origin={"range": (0.0, 255.0), "step": 1.0})


# --- reading by content -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif", ".nii", ".nii.gz", ".npz", ".dcm"])
def test_content_decides_not_the_suffix(tmp_path: Path, suffix: str) -> None:
    (path,) = fio.write(grey(1, 20, 30), tmp_path / f"x{suffix}", synthetic=True)
    known = fio.read(path)
    kind = fio.format_of(path)
    for misleading in ("x", "x.txt", "x.png", "x.dcm", "x.nii"):
        other = path.rename(tmp_path / misleading)
        assert fio.format_of(other) == kind
        np.testing.assert_array_equal(fio.read(other).data, known.data)
        assert fio.frames(other) == [""]
        path = other
    with pytest.raises(ReadError, match="frame"):
        fio.read(path, "3")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("labels.csv", b"id,label\n1,2\n", r"not an image: a \.csv file; expected DICOM"),
        ("notes", b"hello\n", "not an image: no suffix"),
        ("x.png", b"hello\n", r"not what its suffix \.png says"),
        ("x.nii.gz", b"\x1f\x8b\x08\x00broken", r"not what its suffix \.nii\.gz says"),
        ("x.dcm", b"", "the file is empty"),
    ],
)
def test_what_is_not_an_image_is_said_in_one_line(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    for attempt in (fio.read, fio.frames):
        with pytest.raises(ReadError, match=message) as caught:
            attempt(tmp_path / name)
        assert "\n" not in str(caught.value)


def test_missing_files_and_empty_folders(tmp_path: Path) -> None:
    with pytest.raises(ReadError, match="cannot be opened"):
        fio.read(tmp_path / "absent.png")
    (tmp_path / "readme.txt").write_text("nothing here")
    with pytest.raises(ReadError, match="no DICOM slice among 1 files"):
        fio.read(tmp_path)


@settings(deadline=None, max_examples=draws(100))
@given(
    content=st.binary(max_size=600),
    start=st.sampled_from([b"", b"\x1f\x8b\x08", b"PK\3\4", b"II*\0", bytes(128) + b"DICM"]),
)
def test_arbitrary_bytes_are_a_read_error_and_nothing_else(content: bytes, start: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x"
        path.write_bytes(start + content)
        with pytest.raises(ReadError):
            fio.read(path, budget=2**24)


# --- folders of DICOM -------------------------------------------------------------------------------------------


def test_a_folder_is_one_series(tmp_path: Path) -> None:
    affine = np.array([[-0.8, 0, 0, 10], [0, -0.7, 0, 20], [0, 0, 2.5, -30], [0, 0, 0, 1]])
    volume = Image(np.rint(RNG.normal(0, 300, (1, 4, 12, 16))).astype(np.float32), affine, "HU", {"modality": "CT"})
    written = fio.write(volume, tmp_path / "first", synthetic=True, seed=1)
    assert len(written) == 4
    back = fio.read(tmp_path / "first")
    np.testing.assert_array_equal(back.data, volume.data)
    np.testing.assert_allclose(back.affine, affine, atol=1e-6)
    assert (back.unit, fio.frames(tmp_path / "first")) == ("HU", [""])

    for path in fio.write(volume.with_data(volume.data + 1), tmp_path / "second", synthetic=True, seed=2):
        path.rename(tmp_path / "first" / f"other-{path.name}")
    with pytest.raises(ReadError, match="2 DICOM series, expected one"):
        fio.read(tmp_path / "first")
    means = sorted(float(fio.read(tmp_path / "first", uid).data.mean()) for uid in fio.frames(tmp_path / "first"))
    assert means == pytest.approx([float(volume.data.mean()), float(volume.data.mean()) + 1], abs=1e-3)
    with pytest.raises(ReadError, match=r"no series '1\.2'"):
        fio.read(tmp_path / "first", "1.2")


def test_a_synthetic_mark_survives_every_change_of_format(tmp_path: Path) -> None:
    path = fio.write(grey(1, 16, 16), tmp_path / "x.png", synthetic=True)[0]
    for suffix in (".tif", ".dcm", ".nii.gz", ".npz", ".jpg", ".dcm", ".png"):
        picture: dict[str, Any] = {"bits": 8, "clip": True} if suffix in (".jpg", ".png") else {}
        (path,) = fio.write(fio.read(path), tmp_path / f"next{suffix}", **picture)
    assert fio.read(path).origin["synthetic"] is True


def test_real_dicom_folder_and_its_nifti_show_the_same_place() -> None:
    folder = DATA / "ct_mr_totalsegmentator"
    if not folder.is_dir():
        pytest.skip("no real volumes: ct_mr_totalsegmentator is not in the data folder (set FABRICA_DATA)")
    slices, mask = fio.read(folder / "example_ct_dicom"), fio.read(folder / "example_seg_dicom.nii.gz")
    assert slices.unit == "HU"
    assert slices.size == mask.size
    corners = np.array([[w, h, d, 1] for w, h, d in product(*[(0, n - 1) for n in mask.size[::-1]])]).T
    ours, theirs = (slices.affine @ corners)[:3], (mask.affine @ corners)[:3]
    for corner in theirs.T:  # the same box in the patient, whichever way each file runs through it
        assert np.linalg.norm(ours - corner[:, None], axis=0).min() < 0.1


# --- writing ----------------------------------------------------------------------------------------------------


def test_as_overrides_the_suffix(tmp_path: Path) -> None:
    for as_ in ("png", "nifti", "npz", "tiff", "jpeg", "dicom"):
        (path,) = fio.write(grey(1, 8, 8), tmp_path / "x.bin", as_=as_, synthetic=True)
        assert fio.format_of(path) == as_
    with pytest.raises(UsageError, match="as_='gif'; expected one of dicom, nifti, metaimage"):
        fio.write(grey(1, 8, 8), tmp_path / "x", as_="gif")
    with pytest.raises(UsageError, match="without a suffix"):
        fio.write(grey(1, 8, 8), tmp_path / "x")


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif", ".nii", ".nii.gz", ".npz"])
def test_a_full_disk_is_one_line_and_leaves_the_old_file(tmp_path: Path, suffix: str) -> None:
    """A limit on the size of files fails in the middle of writing, as a full disk does."""
    path = fio.write(grey(1, 16, 16), tmp_path / f"x{suffix}")[0]
    before = path.read_bytes()
    large = grey(1, 400, 400)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    try:
        with pytest.raises(FabricaError, match=r"cannot be written \(.*\); nothing was changed") as caught:
            fio.write(large, path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "\n" not in str(caught.value)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_atomic_keeps_the_old_file_when_the_block_fails(tmp_path: Path) -> None:
    path = tmp_path / ("long" * 60 + ".nii.gz")
    path.write_text("old")
    with pytest.raises(KeyError), atomic(path) as temporary:
        assert temporary.parent == path.parent
        assert temporary.name.endswith(".nii.gz")
        temporary.write_text("half")
        raise KeyError
    assert path.read_text() == "old"
    with atomic(path) as temporary:
        temporary.write_text("new")
    assert path.read_text() == "new"
    assert len(list(tmp_path.iterdir())) == 1
    with pytest.raises(FabricaError, match="cannot be written"), atomic(tmp_path / "absent" / "x") as temporary:
        temporary.write_text("no such folder")


def test_killed_while_writing_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "x.bin"
    path.write_text("old")
    script = (
        "import os, signal, sys; from fabrica.io.atomic import atomic\n"
        "with atomic(sys.argv[1]) as temporary:\n"
        "    temporary.write_text('half'); os.kill(os.getpid(), signal.SIGKILL)"
    )
    done = subprocess.run([sys.executable, "-c", script, str(path)], check=False)
    assert done.returncode == -9
    assert path.read_text() == "old"


def test_importing_io_is_light() -> None:
    heavy = ("torch", "monai", "nibabel", "tifffile", "pydicom")
    script = f"import sys, fabrica.io; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"


# --- pictures for people ----------------------------------------------------------------------------------------

R, A, S = 0, 1, 2  # the patient's axes: to the right, to the front, to the head


def patient(order: tuple[int, ...], signs: tuple[int, ...], shown: int) -> Image:
    """A volume whose index axis k (w, h, d) runs along patient axis order[k], up or down; 2 mm voxels, tilted a
    little. Each value is the place of its voxel along the patient's axis `shown`, so a picture tells how it lies."""
    size = (7, 6, 5)
    affine = np.eye(4)
    affine[:3, :3] = 0.02
    for axis, (along, sign) in enumerate(zip(order, signs, strict=True)):
        affine[along, axis] = 2.0 * sign
    affine[:3, 3] = (-30, 12, 5)
    w, h, d = np.meshgrid(*[np.arange(n) for n in size], indexing="ij")
    places = affine @ np.stack([w, h, d, np.ones_like(w)]).reshape(4, -1)
    values = places[shown].reshape(size)
    centre = float(values.mean())
    return Image(values.T[None].astype(np.float32), affine, origin={"window": (centre, 20.0)})


@pytest.mark.parametrize("order", list(permutations(range(3))))
@pytest.mark.parametrize("signs", list(product((1, -1), repeat=3)))
def test_volumes_are_shown_the_way_radiologists_look(order: tuple[int, ...], signs: tuple[int, ...]) -> None:
    """Axial: front at the top. Coronal and sagittal: head at the top. The patient's right on the left of the
    picture, or, seen from the side, the front."""
    vertical, horizontal = {S: (A, R), A: (S, R), R: (S, A)}[order[2]]
    sides = dict(zip(order, (7, 6, 5), strict=True))
    for shown in (R, A, S):
        picture = fio.to_display(patient(order, signs, shown)).astype(int)
        assert picture.shape == (sides[vertical], sides[horizontal])
        down, across = picture[-1].mean() - picture[0].mean(), picture[:, -1].mean() - picture[:, 0].mean()
        assert (down < -50) == (shown == vertical)
        assert (across < -50) == (shown == horizontal)
        assert abs(down) < 5 or shown == vertical
        assert abs(across) < 5 or shown == horizontal


def test_the_middle_slice_is_shown_and_unplaced_stacks_stay_as_stored() -> None:
    values = RNG.random((1, 5, 6, 7)).astype(np.float32)
    picture = fio.to_display(Image(values), window=(0.5, 1.0))
    np.testing.assert_array_equal(picture, np.rint(values[0, 2] * 255))
    flat = RNG.random((1, 6, 7)).astype(np.float32)
    las = np.diag([-1.0, 1, 1, 1])
    np.testing.assert_array_equal(fio.to_display(Image(flat, las), window=(0.5, 1.0)), np.rint(flat[0] * 255))
    from_nifti = Image(flat, las, origin={"format": "nifti"})
    np.testing.assert_array_equal(fio.to_display(from_nifti, window=(0.5, 1.0)), np.rint(flat[0, ::-1] * 255))


def test_windows() -> None:
    values = np.linspace(-1000, 1000, 2001, dtype=np.float32).reshape(1, 1, -1)
    image = Image(values, unit="HU", origin={"window": (0.0, 200.0)})
    picture = fio.to_display(image)[0]
    assert (picture[values[0, 0] <= -100] == 0).all()
    assert (picture[values[0, 0] >= 100] == 255).all()
    assert picture[1000] in (127, 128)
    assert fio.to_display(image, (500.0, 10.0))[0, 1400] == 0
    eight_bit = Image(np.array([[[0, 100, 200]]], np.float32), origin={"range": (0.0, 255.0)})
    np.testing.assert_array_equal(fio.to_display(eight_bit), [[0, 100, 200]])
    spiked = RNG.normal(100, 1, (1, 50, 50)).astype(np.float32)
    spiked[0, 0, 0] = 1e6
    assert 100 < fio.to_display(Image(spiked)).std() * 2 < 255
    assert fio.to_display(Image(np.full((1, 3, 3), 7, np.float32))).shape == (3, 3)
    colour = grey(3, 5, 6)
    picture_of_colour: npt.NDArray[np.uint8] = fio.to_display(colour)
    np.testing.assert_array_equal(picture_of_colour, colour.data.transpose(1, 2, 0))


def test_a_display_can_be_saved(tmp_path: Path) -> None:
    pixels = fio.to_display(patient((0, 1, 2), (-1, 1, 1), S))
    Pillow.fromarray(pixels).save(tmp_path / "x.png")
    np.testing.assert_array_equal(fio.read(tmp_path / "x.png").data[0], pixels)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("low", "high"), [(-1.0, 1.0), (0.0, 2000.0), (40.0, 40.0)])
def test_tones_go_from_black_to_white_and_of_one_value_are_black(channels: int, low: float, high: float) -> None:
    values = np.linspace(low, high, 12, dtype=np.float32).reshape(1, 3, 4).repeat(channels, axis=0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        below, above = np.full_like(values, low - 1), np.full_like(values, high + 1)
        found = tones(np.concatenate([below, values, above], axis=1), (low, high))
    assert found.shape == ((9, 4) if channels == 1 else (9, 4, 3))
    assert (found[:3] == 0).all() and (found[6:] == 255).all() and found.dtype == np.uint8
    wanted = np.linspace(0, 255, 12) if high > low else np.zeros(12)
    np.testing.assert_allclose(found[3:6].reshape(12, -1)[:, 0], wanted, atol=0.5)
