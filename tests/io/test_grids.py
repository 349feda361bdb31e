"""Images on the voxels of others of the same patient: values, labels, uneven slices, and what lies apart."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from fabrica.errors import UsageError
from fabrica.geometry import faced, places
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


# --- labels, voxel by voxel


def lying(size: tuple[int, ...], seed: int, uneven: bool, empty: bool = False) -> Image:
    """Labels, oblique and at random places near one another; a volume of uneven slices, or even ones."""
    rng = np.random.default_rng(seed)
    axes, _ = np.linalg.qr(np.eye(3) + 0.5 * rng.normal(size=(3, 3)))
    affine = np.eye(4)
    affine[:3, :3] = axes * rng.uniform(0.8, 2.5, 3)
    centre = affine[:3, :3] @ (np.array([*size[::-1], 1][:3]) - 1) / 2
    affine[:3, 3] = rng.normal(size=3) - centre
    data = rng.integers(0, 5, (1, *size)).astype(np.float32)
    origin: dict[str, object] = {"format": "nifti", "path": f"{seed}.nii"}
    if uneven and len(size) == 3:
        depths = np.cumsum(rng.uniform(0.5, 1.5, size[0]))
        origin["positions"] = affine[:3, 3] + (depths - depths[0])[:, None] * affine[:3, 2]
    return Image(np.zeros_like(data) if empty else data, affine, "label", origin)


def centres(image: Image) -> Float64:
    """(D, H, W, 3): where the voxels of an image lie."""
    first = places(image)
    h, w = (np.arange(n) for n in image.size[-2:])
    plane = w[None, :, None] * image.affine[:3, 0] + h[:, None, None] * image.affine[:3, 1]
    found: Float64 = first[:, None, None] + plane
    return found


def nearest(mask: Image, grid: Image) -> tuple[Float64, Float64]:
    """Voxel by voxel the label of the nearest pixel of the nearest slice, 0 outside; and how far, in voxels, each is
    from where the mask ends."""
    columns, rows = mask.affine[:3, 0], mask.affine[:3, 1]
    normal = np.cross(columns, rows) / np.linalg.norm(np.cross(columns, rows))
    first, values = places(mask), mask.data.reshape(-1, *mask.size[-2:])
    depths = first @ normal
    steps = np.abs(np.diff(depths)) if len(depths) > 1 else np.array([abs(mask.affine[:3, 2] @ normal)])
    low, high = (depths[0], -steps[0]), (depths[-1], steps[-1])
    ends = sorted([low, high] if depths[-1] >= depths[0] else [(low[0], -low[1]), (high[0], -high[1])])
    begin, end = (at + step / 2 for at, step in ends)
    found, edge = [], []
    for point in centres(grid).reshape(-1, 3):
        k = int(np.abs(depths - point @ normal).argmin())
        (w, h), *_ = np.linalg.lstsq(np.stack([columns, rows], axis=1), point - first[k], rcond=None)
        within = [point @ normal - begin, end - point @ normal]
        within += [w + 0.5, mask.size[-1] - 0.5 - w, h + 0.5, mask.size[-2] - 0.5 - h]
        inside = min(within) >= 0
        found.append(values[k, int(np.floor(h + 0.5)), int(np.floor(w + 0.5))] if inside else 0)
        edge.append(min(map(abs, within)))
    return np.array(found), np.array(edge)


@pytest.mark.parametrize("seed", range(25))
def test_each_voxel_takes_the_nearest_of_its_nearest_slice(seed: int) -> None:
    rng = np.random.default_rng(seed)
    sizes = [(7, 9, 8), (12, 11, 10), (10, 12), (1, 9, 9)]
    mask = lying(sizes[int(rng.integers(0, 4))], seed, bool(rng.integers(0, 2)))
    grid = lying(sizes[int(rng.integers(0, 4))], seed + 100, bool(rng.integers(0, 2)), empty=True)
    expected, edge = nearest(mask, grid)
    if not expected.any():
        with pytest.raises(UsageError, match="lie apart"):
            on_grid(mask, grid, labels=True)
        return
    found = on_grid(mask, grid, labels=True)
    assert found.size == grid.size and found.origin["resampled"]
    assert ("positions" in found.origin) == ("positions" in grid.origin)
    sure = edge > 3e-3
    assert np.array_equal(found.data.ravel()[sure], expected[sure]) and sure.mean() > 0.95


def test_a_slice_and_its_volume_share_labels() -> None:
    volume = lying((6, 7, 8), 3, uneven=True)
    for k in range(6):
        affine = volume.affine.copy()
        affine[:3, 3] = places(volume)[k]
        origin = {"format": "nifti"}
        plane = Image(volume.data[:, k], affine, "label", origin)
        np.testing.assert_array_equal(on_grid(volume, plane.with_data(plane.data * 0), labels=True).data, plane.data)
        back = on_grid(plane, volume, labels=True)
        np.testing.assert_array_equal(back.data[:, k], plane.data)
        assert not back.data[:, [j for j in range(6) if abs(j - k) > 1]].any()


def test_labels_of_another_place_are_no_pair_and_even_ones_of_uneven_slices_are_moved() -> None:
    mask = lying((6, 7, 8), 3, uneven=True)
    even = Image(np.zeros_like(mask.data), mask.affine, "label", {"format": "nifti"})
    assert on_grid(mask, mask.with_data(mask.data * 0), labels=True) is mask
    assert on_grid(mask, even, labels=True).origin["resampled"]
    far = mask.affine.copy()
    far[:3, 3] += 500
    with pytest.raises(UsageError, match="lie apart"):
        on_grid(mask, Image(mask.data, far, "label", {"format": "nifti"}), labels=True)
