"""Images on the voxels of others of the same patient: values, labels, uneven slices, and what lies apart."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from fabrica.errors import UsageError
from fabrica.geometry import faced
from fabrica.image import Float32, Float64, Image
from fabrica.io.grids import on_grid


def placed(size: tuple[int, int, int], affine: Float64, unit: str = "arbitrary") -> Image:
    """A ramp over the patient: 2 x - 3 y + 5 z + 40 at x, y, z mm."""
    d, h, w = np.meshgrid(*(np.arange(n) for n in size), indexing="ij")
    mm = np.einsum("ij,jdhw->idhw", affine[:3, :3], np.stack([w, h, d])) + affine[:3, 3, None, None, None]
    data = np.einsum("i,idhw->dhw", [2.0, -3.0, 5.0], mm) + 40
    return Image(data[None].astype(np.float32), affine, unit, {"format": "nifti", "path": f"{unit}.nii"})


def grid_of(spacing: Sequence[float], start: Sequence[float], axes: Sequence[int] = (0, 1, 2)) -> Float64:
    """Voxel axis k runs along patient axis axes[k]; negative spacing runs backwards."""
    affine = np.zeros((4, 4))
    for k, (axis, mm) in enumerate(zip(axes, spacing, strict=True)):
        affine[axis, k] = mm
    affine[:, 3] = *start, 1
    return affine


GRID = placed((6, 7, 8), grid_of((1.0, 1.5, 2.0), (10, 20, 30)))  # x 10 to 17, y 20 to 29, z 30 to 40


def test_an_image_on_the_same_grid_is_returned_as_it_is() -> None:
    image = placed((6, 7, 8), GRID.affine + 1e-4)
    assert on_grid(image, GRID) is image
    assert on_grid(image, GRID, labels=True) is image


@pytest.mark.parametrize(
    ("size", "affine"),
    [
        ((12, 14, 16), grid_of((1.0, 1.5, 2.0), (6.3, 16.4, 25.5))),  # shifted by parts of voxels
        ((5, 5, 5), grid_of((3.0, 4.0, 5.0), (8, 17, 27))),  # coarser
        ((40, 40, 40), grid_of((0.5, 0.5, 0.5), (5, 15, 25))),  # finer
        ((20, 20, 20), grid_of((-1.0, -1.0, 1.0), (20, 35, 25))),  # as DICOM lies
        ((20, 24, 12), grid_of((1.5, 1.0, -1.0), (20, 15, 25), axes=(1, 2, 0))),  # sagittal: other axes
    ],
)
def test_a_ramp_comes_back_exactly_on_the_others_grid(size: tuple[int, int, int], affine: Float64) -> None:
    found = on_grid(placed(size, affine), GRID)
    assert found.size == GRID.size and np.array_equal(found.affine, GRID.affine)
    np.testing.assert_allclose(found.data, GRID.data, atol=2e-3)


def test_voxels_on_the_border_are_not_lost_to_rounding() -> None:
    """0.7 mm has no exact number: the last voxel lies at 8.999... or 9.000...1."""
    image = placed((10, 10, 10), grid_of((0.7, 0.7, 0.7), (0.1, 0.2, 0.3)), "HU")
    grid = placed((7, 7, 7), grid_of((0.7, 0.7, 0.7), [v + 3 * 0.7 for v in (0.1, 0.2, 0.3)]), "HU")
    np.testing.assert_allclose(on_grid(image, grid).data, grid.data, atol=1e-3)


def test_voxels_reach_half_a_voxel_around_their_centres() -> None:
    coarse = Image(np.full((1, 2, 2, 2), 7, np.float32), np.diag([2.0, 2.0, 2.0, 1.0]), "HU", {"format": "nifti"})
    fine = placed((8, 8, 8), grid_of((1.0, 1.0, 1.0), (-2.5, -2.5, -2.5)))  # -2.5 to 4.5 mm; the other is -1 to 3
    found = on_grid(coarse, fine).data[0]
    assert (found[2:6, 2:6, 2:6] == 7).all()
    assert np.count_nonzero(found == 7) == 4**3 and set(np.unique(found)) == {-1024.0, 7.0}


def test_labels_are_taken_from_the_nearest_voxel() -> None:
    data = np.random.default_rng(0).choice([0, 3, 9], (1, 6, 7, 8)).astype(np.float32)
    near = GRID.affine + grid_of((0, 0, 0), (0.4, -0.6, 0.9))  # less than half a voxel each
    near[3, 3] = 1
    assert np.array_equal(on_grid(Image(data, near, "label", {"format": "nifti"}), GRID, labels=True).data, data)


@pytest.mark.parametrize(("unit", "outside"), [("HU", -1024.0), ("arbitrary", None), ("label", 0.0)])
def test_beyond_an_image_is_air_or_its_lowest_value(unit: str, outside: float | None) -> None:
    image = placed((6, 7, 8), grid_of((1.0, 1.5, 2.0), (14, 20, 30)), unit)
    found = on_grid(image, GRID, labels=unit == "label").data[0]
    lowest = float(image.data.min()) if outside is None else outside
    assert (found[..., :4] == lowest).all()
    np.testing.assert_allclose(found[..., 4:], GRID.data[0, ..., 4:], atol=1e-3)


def test_images_that_lie_apart_are_no_pair() -> None:
    with pytest.raises(UsageError, match=r"HU\.nii and its pair arbitrary\.nii lie apart in the patient") as refused:
        on_grid(placed((6, 7, 8), grid_of((1.0, 1.5, 2.0), (60, 20, 30)), "HU"), GRID)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("one", "other"), [((1, 8, 8), (1, 8, 9)), ((1, 3, 8, 8), (1, 4, 8, 8)), ((1, 8, 8), (1, 4, 8, 8))]
)
def test_other_sizes_need_millimetres(one: tuple[int, ...], other: tuple[int, ...]) -> None:
    shown = " x ".join(str(n) for n in one[1:])
    with pytest.raises(UsageError, match=f"a.png is {shown} and its pair b.png is .* without positions") as refused:
        on_grid(
            Image(np.zeros(one, np.float32), origin={"path": "a.png"}),
            Image(np.zeros(other, np.float32), origin={"path": "b.png"}),
        )
    assert "\n" not in str(refused.value)


def test_an_image_that_knows_no_place_is_turned_with_its_pair() -> None:
    """Same size, one with and one without an affine: both must be turned alike, or one is mirrored."""
    plain = Image(GRID.data, origin={"format": "npz"})
    assert np.array_equal(on_grid(plain, GRID).affine, GRID.affine)
    turned: Float32 = on_grid(GRID, plain).affine[:3, :3]
    assert np.array_equal(turned, np.diag([1.0, 1.5, 2.0]))  # stored order, own millimetres
    flat = Image(np.zeros((1, 8, 8), np.float32), origin={"format": "raster"})
    assert on_grid(flat, flat) is flat


@pytest.mark.parametrize("formats", [("nifti", "raster"), ("raster", "nifti"), ("dicom", "nifti"), ("mgh", "dicom")])
def test_pictures_of_one_plane_are_turned_alike_whatever_their_formats(formats: tuple[str, str]) -> None:
    """A slice of a volume format is shown upright, a picture as stored: side by side, both as the grid is."""
    affine = np.array([[0, 0, 3.0, 4], [0.5, 0, 0, 5], [0, 0.5, 0, 6], [0, 0, 0, 1]])
    data = np.random.default_rng(0).normal(size=(1, 6, 8)).astype(np.float32)
    one, other = (
        Image(data, np.eye(4) if form == "raster" else affine, "arbitrary", {"format": form}) for form in formats
    )
    for image, grid in ((one, other), (other, one)):
        np.testing.assert_array_equal(faced(on_grid(image, grid)).data, faced(grid).data)
    assert not np.array_equal(faced(one).data, faced(other).data)
