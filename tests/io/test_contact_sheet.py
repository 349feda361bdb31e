"""Pictures for people: what is written is what was made, and a file is whole or not there."""

from __future__ import annotations

import resource
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Pillow
from PIL import ImageSequence

from fabrica.errors import FabricaError
from fabrica.io.contact_sheet import image_grid, planes, save_gif, save_picture


def images(count: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(0).uniform(-1, 1, (count, *shape)).astype(np.float32)


def frames(path: Path, mode: str) -> list[np.ndarray]:
    with Pillow.open(path) as gif:
        return [np.asarray(frame.convert(mode)) for frame in ImageSequence.Iterator(gif)]


def test_a_grey_gif_keeps_every_grey_of_every_frame(tmp_path: Path) -> None:
    made = images(5, 1, 32, 32)
    save_gif(made, tmp_path / "a.gif")
    found = frames(tmp_path / "a.gif", "L")
    assert len(found) == 5 and found[0].shape == (96, 96)  # enlarged like the tiles of a grid
    for frame, image in zip(found, made, strict=True):
        np.testing.assert_array_equal(frame, image_grid(image[None]))


def test_a_gif_runs_ten_frames_a_second_for_ever(tmp_path: Path) -> None:
    save_gif(images(3, 1, 32, 32), tmp_path / "a.gif")
    with Pillow.open(tmp_path / "a.gif") as gif:
        assert gif.info["duration"] == 100 and gif.info["loop"] == 0


def test_a_coloured_gif_keeps_its_colours_nearly(tmp_path: Path) -> None:
    across, down = np.meshgrid(np.linspace(-1, 1, 96), np.linspace(-1, 1, 96))
    made = np.stack([[across, down, -across], [down, across, down]]).astype(np.float32)
    save_gif(made, tmp_path / "a.gif")
    for frame, image in zip(frames(tmp_path / "a.gif", "RGB"), made, strict=True):
        error = np.abs(frame.astype(int) - image_grid(image[None]).astype(int))
        assert error.mean() < 8  # a GIF has 256 colours


def test_a_volume_moves_as_its_three_middle_planes(tmp_path: Path) -> None:
    save_gif(images(2, 1, 24, 32, 32), tmp_path / "a.gif")
    assert [frame.shape for frame in frames(tmp_path / "a.gif", "L")] == [(96, 288)] * 2


def test_a_full_disk_keeps_the_old_picture(tmp_path: Path) -> None:
    made = images(4, 1, 64, 64)
    save_gif(made, tmp_path / "a.gif")
    save_picture(image_grid(made), tmp_path / "a.png")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))  # every file ends at 100 bytes, as on a full disk
    try:
        with pytest.raises(FabricaError, match="nothing was changed"):
            save_gif(-made, tmp_path / "a.gif")
        with pytest.raises(FabricaError, match="nothing was changed"):
            save_picture(image_grid(-made), tmp_path / "a.png")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_grid_fills_row_by_row_with_a_gap_between() -> None:
    made = np.stack([np.full((1, 96, 96), grey, np.float32) for grey in (-1.0, 0.0, 1.0)])
    sheet = image_grid(made, columns=2, gap=2)
    assert sheet.shape == (96 + 2 + 96, 96 + 2 + 96)
    assert (sheet[0, 0], sheet[0, -1], sheet[-1, 0]) == (0, 128, 255)
    assert (sheet[96:98] == 96).all() and (sheet[98:, 98:] == 96).all()  # the place without an image is gap, too


def marked(depth: int, height: int, width: int) -> np.ndarray:
    """A volume (1, D, H, W) in RAS order: a voxel in the middle, and one beside it towards each of the patient's right
    (0.25), front (0.5) and head (0.75)."""
    volume = np.full((1, depth, height, width), -1.0, dtype=np.float32)
    d, h, w = depth // 2, height // 2, width // 2
    volume[0, d, h, w], volume[0, d, h, w + 1], volume[0, d, h + 1, w], volume[0, d + 1, h, w] = 0.0, 0.25, 0.5, 0.75
    return volume


def marks(plane: np.ndarray) -> dict[float, tuple[int, int]]:
    """Where they are, rows and columns from the middle one."""
    places = {float(plane[0, r, c]): (int(r), int(c)) for r, c in zip(*np.nonzero(plane[0] > -1), strict=True)}
    return {grey: (r - places[0.0][0], c - places[0.0][1]) for grey, (r, c) in places.items()}


def test_planes_are_the_middle_ones_as_a_radiologist_sees_them() -> None:
    axial, coronal, sagittal = planes(marked(5, 8, 12))
    assert (axial.shape, coronal.shape, sagittal.shape) == ((1, 8, 12), (1, 5, 12), (1, 5, 8))
    middle, up, left = (0, 0), (-1, 0), (0, -1)
    assert marks(axial) == {0.0: middle, 0.25: left, 0.5: up}  # right on the left, the front at the top
    assert marks(coronal) == {0.0: middle, 0.25: left, 0.75: up}  # right on the left, the head at the top
    assert marks(sagittal) == {0.0: middle, 0.5: left, 0.75: up}  # the front on the left, the head at the top


def test_voxels_are_drawn_as_long_as_they_are() -> None:
    volume = marked(10, 20, 30)[None]

    def size(sheet: np.ndarray, k: int) -> tuple[int, int]:
        """Rows and columns of the middle voxel in the k-th plane."""
        mark = sheet[:, 30 * k : 30 * (k + 1)] == 128
        return int(mark.any(1).sum()), int(mark.any(0).sum())

    long = image_grid(volume, spacing=(6.0, 3.0, 2.0), smallest=1)  # a cube of 60 mm, in pixels of 2 mm
    assert long.shape == (30, 90) and long[[0, 0, -1, -1], [0, -1, 0, -1]].tolist() == [0] * 4
    assert [size(long, k)[0] for k in (1, 2)] == [3, 3] and size(long, 1) == (3, 1)
    assert size(long, 0)[1] == 1 and size(long, 0)[0] in (1, 2)  # 3 mm: one or two pixels
    cubes = image_grid(volume, smallest=1)
    assert cubes.shape == (30, 90) and [size(cubes, k) for k in range(3)] == [(1, 1)] * 3
