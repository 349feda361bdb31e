"""Geometry: no image mirrored, none distorted, none aliased."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fabrica.codec import Codec
from fabrica.data.standardise import fitted_to, neighbours, placed, standardise
from fabrica.errors import UsageError
from fabrica.geometry import as_seen, faced, oriented, resample
from fabrica.image import VOLUMES, Image
from fabrica.io import to_display
from tests.draws import draws

WINDOW = Codec("window", 0, 100)


def noise(*shape: int) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize("sizes", [((32, 48), (16, 16)), ((12, 32, 48), (4, 16, 24))])
def test_shrinking_by_whole_factors_is_the_mean_of_blocks(sizes: tuple[tuple[int, ...], tuple[int, ...]]) -> None:
    source, target = sizes
    values = noise(2, *source)
    expected = torch.nn.functional.interpolate(torch.from_numpy(values)[None], target, mode="area")[0].numpy()
    np.testing.assert_allclose(resample(values, target), expected, atol=1e-6)


def test_growing_is_linear_between_pixel_centres() -> None:
    values = noise(1, 9, 13)
    expected = torch.nn.functional.interpolate(
        torch.from_numpy(values)[None], (20, 31), mode="bilinear", align_corners=False
    )[0].numpy()
    np.testing.assert_allclose(resample(values, (20, 31)), expected, atol=1e-5)


@settings(max_examples=draws(30), deadline=None)
@given(st.integers(1, 60), st.integers(1, 60))
def test_resampling_keeps_constants_and_never_overshoots(source: int, target: int) -> None:
    np.testing.assert_allclose(resample(np.full((1, source, 5), 0.7, np.float32), (target, 5)), 0.7, atol=1e-6)
    values = noise(1, source, 3)
    out = resample(values, (target, 3))
    assert out.min() >= values.min() - 1e-5 and out.max() <= values.max() + 1e-5
    if target <= source:  # means of areas keep the mean of the whole
        np.testing.assert_allclose(out.mean(), values.mean(), atol=1e-4)


def test_fine_stripes_become_grey_not_stripes() -> None:
    stripes = np.tile(np.array([0, 1], np.float32), 64)[None, None].repeat(64, axis=1)
    np.testing.assert_allclose(resample(stripes, (16, 40)), 0.5, atol=0.13)  # picking pixels gives 0.5 of aliasing


@pytest.mark.parametrize(
    ("fit", "size", "visible"),
    [
        ("pad", (32, 32), (16, 32)),
        ("crop", (32, 32), (32, 32)),
        ("stretch", (32, 32), (32, 32)),
        ("exact", (60, 90), (40, 80)),
    ],
)
def test_fit(fit: str, size: tuple[int, int], visible: tuple[int, int]) -> None:
    out, _ = fitted_to(np.ones((1, 40, 80), np.float32), size, fit)
    assert out.shape == (1, *size)
    column, row = out[0, :, size[1] // 2], out[0, size[0] // 2]
    assert [int((line == 1).sum()) for line in (column, row)] == list(visible)
    assert set(np.unique(out)) <= {-1.0, 1.0}
    assert np.array_equal(out, out[:, ::-1]) and np.array_equal(out, out[..., ::-1])  # centred


def test_exact_crops_and_pads_without_touching_a_value() -> None:
    values = noise(1, 28, 28)
    padded, _ = fitted_to(values, (32, 32), "exact")
    assert np.array_equal(padded[:, 2:30, 2:30], values) and (padded[:, :2] == -1).all()
    back, _ = fitted_to(padded, (28, 28), "exact")
    assert np.array_equal(back, values)


def test_proportions_are_those_in_millimetres() -> None:
    out, mm = fitted_to(np.ones((1, 20, 64, 64), np.float32), (64, 64, 64), "pad", spacing=(5.0, 1.0, 1.0))
    assert np.count_nonzero(out[0, :, 32, 32] == 1) == 64  # 100 mm, the longest side
    assert np.count_nonzero(out[0, 32, :, 32] == 1) == 41  # 64 mm
    np.testing.assert_allclose(mm, (100 / 64, 64 / 41, 64 / 41))


@pytest.mark.parametrize("axes", list(itertools.permutations(range(3))))
@pytest.mark.parametrize("signs", list(itertools.product([1, -1], repeat=3)))
def test_every_orientation_of_a_volume_becomes_the_same(axes: tuple[int, ...], signs: tuple[int, ...]) -> None:
    """A volume whose values tell where they lie, stored in all 48 ways: afterwards W runs to the right, and the
    affine still tells the truth."""
    spacing = np.array([1.0, 2.0, 3.0])  # of x, y, z
    shape = np.array([4, 5, 6])
    affine = np.eye(4)
    affine[:3, :3] = 0
    for voxel_axis, (world, sign) in enumerate(zip(axes, signs, strict=True)):
        affine[world, voxel_axis] = sign * spacing[world]
        affine[world, 3] = 0 if sign > 0 else spacing[world] * (shape[world] - 1)
    counts = shape[list(axes)]
    d, h, w = np.meshgrid(*(np.arange(n) for n in counts[::-1]), indexing="ij")
    mm = np.einsum("ij,jdhw->idhw", affine[:3, :3], np.stack([w, h, d])) + affine[:3, 3, None, None, None]
    image = Image((mm[0] + 100 * mm[1] + 10_000 * mm[2])[None].astype(np.float32), affine)
    found = oriented(image, "RAS")
    assert found.size == (6, 5, 4) and found.spacing == (3.0, 2.0, 1.0)
    np.testing.assert_allclose(found.affine, np.diag([1.0, 2.0, 3.0, 1.0]), atol=1e-9)
    assert found.data[0, 0, 0].tolist() == [0, 1, 2, 3]
    assert found.data[0, 0, :, 0].tolist() == [0, 200, 400, 600, 800]
    assert found.data[0, :, 0, 0].tolist() == [0, 30_000, 60_000, 90_000, 120_000, 150_000]
    viewed = oriented(image, "LPS")
    assert viewed.data[0, 0, 0].tolist() == [803, 802, 801, 800]  # column 0 right, row 0 anterior


def test_oblique_volumes_keep_their_three_axes() -> None:
    angle = np.deg2rad(44)
    affine = np.eye(4)
    affine[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    found = oriented(Image(noise(1, 3, 4, 5), affine), "RAS")
    assert found.size == (3, 4, 5) and np.linalg.det(found.affine[:3, :3]) == pytest.approx(1)


def test_a_volume_gives_the_middle_third_of_its_slices() -> None:
    data = np.arange(9, dtype=np.float32)[None, :, None, None] * np.ones((1, 9, 8, 8), np.float32) * 10
    image = Image(data, np.diag([-1.5, -1.5, 4.0, 1.0]))
    slices = list(standardise(image, WINDOW, (8, 8), 1, "pad"))
    levels = [float(values.mean()) for values, _ in slices]
    np.testing.assert_allclose(levels, [30 / 50 - 1, 40 / 50 - 1, 50 / 50 - 1], atol=1e-6)
    assert all(mm == (1.5, 1.5) for _, mm in slices)
    single = list(standardise(image.with_data(data[:, :1]), WINDOW, (8, 8), 1, "pad"))
    assert len(single) == 1


def test_a_volume_stays_whole_for_a_volume() -> None:
    image = Image(noise(1, 6, 8, 8) + 50, np.diag([2.0, 2.0, 2.0, 1.0]))
    ((values, mm),) = standardise(image, WINDOW, (6, 8, 8), 1, "pad")
    np.testing.assert_allclose(values, WINDOW.encode(image), atol=1e-6)
    assert mm == (2.0, 2.0, 2.0)


def test_pictures_know_no_millimetres() -> None:
    ((_, mm),) = standardise(Image(noise(1, 8, 8)), WINDOW, (8, 8), 1, "pad")
    assert mm == ()


def test_label_maps_stay_labels() -> None:
    labels = np.random.default_rng(1).integers(0, 3, (1, 30, 50)).astype(np.float32)
    codec = Codec("label", classes=3, unit="label")
    ((values, _),) = standardise(Image(labels, unit="label"), codec, (20, 20), 1, "pad")
    assert values.shape == (3, 20, 20) and set(np.unique(values)) == {-1.0, 1.0}
    assert ((values == 1).sum(axis=0) == 1).all() and (values[0, 0] == 1).all()  # padding is background


def test_what_does_not_fit_is_named() -> None:
    picture = Image(noise(3, 8, 8), origin={"path": "photo.png"})
    with pytest.raises(UsageError, match=r"photo\.png has 3 channels; expected 1"):
        list(standardise(picture, WINDOW, (8, 8), 1, "pad"))
    with pytest.raises(UsageError, match=r"photo\.png is 2-D"):
        list(standardise(picture, WINDOW, (8, 8, 8), 3, "pad"))


def test_the_last_slice_stands_in_beyond_the_ends() -> None:
    assert neighbours(2, 1, 5) == [1, 2, 3]
    assert neighbours(0, 2, 5) == [0, 0, 0, 1, 2] and neighbours(4, 2, 5) == [2, 3, 4, 4, 4]
    assert neighbours(0, 1, 1) == [0, 0, 0] and neighbours(3, 0, 5) == [3]


@pytest.mark.parametrize("slices", ["middle", "all"])
def test_neighbours_are_channels_even_where_they_are_not_learned(slices: str) -> None:
    data = np.arange(9, dtype=np.float32)[None, :, None, None] * np.ones((1, 9, 8, 8), np.float32) * 10
    image = Image(data, np.diag([-1.5, -1.5, 4.0, 1.0]))
    found = [values for values, _ in standardise(image, WINDOW, (8, 8), 1, "pad", slices, context=2)]
    levels = [np.rint((values.mean(axis=(1, 2)) + 1) * 5).astype(int).tolist() for values in found]
    numbers = range(3, 6) if slices == "middle" else range(9)
    assert levels == [[min(max(n, 0), 8) for n in range(k - 2, k + 3)] for k in numbers]


def test_neighbours_of_label_maps_are_one_hot_each() -> None:
    labels = np.arange(3, dtype=np.float32)[None, :, None, None] * np.ones((1, 3, 4, 4), np.float32)
    codec = Codec("label", classes=3, unit="label")
    found = [
        values for values, _ in standardise(Image(labels, unit="label"), codec, (4, 4), 1, "pad", "all", context=1)
    ]
    shown = np.stack(found)[..., 0, 0].reshape(3, 3, 3)  # slice, neighbour, class
    assert np.array_equal(shown.argmax(axis=2), [[0, 0, 1], [0, 1, 2], [1, 2, 2]])
    assert (np.sort(shown, axis=2) == [-1, -1, 1]).all()


def test_neighbours_of_a_single_slice_are_asked_for_in_vain() -> None:
    with pytest.raises(
        UsageError, match=r"one\.png is one slice, and data\.context=1 needs its neighbours; give volumes"
    ):
        list(standardise(Image(noise(1, 8, 8), origin={"path": "one.png"}), WINDOW, (8, 8), 1, "pad", context=1))


def test_what_is_seen_is_a_view_that_writes_into_the_volume() -> None:
    data, affine = np.zeros((1, 3, 4, 5), np.float32), np.diag([1.0, -1.0, 1.0, 1.0])
    view = as_seen(data, affine, "RAS")
    view[0, 0, 0, 0] = 7
    assert data[0, 0, 3, 0] == 7 and np.shares_memory(view, data)
    assert np.array_equal(as_seen(data, affine, "RAS"), oriented(Image(data, affine), "RAS").data)


@pytest.mark.parametrize("size", [(21, 30), (17, 11), (24, 9)])
def test_repeated_pixels_stay_repeated_where_they_are_cropped_or_padded(size: tuple[int, int]) -> None:
    coarse = np.random.default_rng(0).uniform(0, 255, (1, *size)).astype(np.float32)
    fine = coarse.repeat(2, 1).repeat(2, 2)
    ((values, _),) = standardise(Image(fine), Codec("window", 0, 255), (26, 28), 1, "exact", step=2)
    assert values.shape == (1, 26, 28)
    np.testing.assert_array_equal(values[:, ::2, ::2].repeat(2, 1).repeat(2, 2), values)


@pytest.mark.parametrize("fit", ["pad", "crop", "stretch", "exact"])
@pytest.mark.parametrize("size", [(20, 12), (31, 44)])
def test_what_a_network_sees_is_placed_where_it_lies(fit: str, size: tuple[int, int]) -> None:
    """An image whose values are their own places in mm shows what place each pixel of the network's image has."""
    affine = np.diag([0.7, -1.9, 1.0, 1.0])
    affine[:3, 3] = 3.0, -5.0, 0.0
    rows, columns = np.mgrid[:24, :40].astype(np.float32)
    for axis, values in ((0, affine[0, 0] * columns + affine[0, 3]), (1, affine[1, 1] * rows + affine[1, 3])):
        image = Image(values[None].astype(np.float32), affine)
        low, high = float(image.data.min()), float(image.data.max())
        (seen, _), *_ = standardise(image, Codec("window", low, high), size, 1, fit)
        found, matrix = (seen[0] + 1) / 2 * (high - low) + low, placed(image, size, fit)
        h, w = np.mgrid[: size[0], : size[1]]
        expected = matrix[axis, 0] * w + matrix[axis, 1] * h + matrix[axis, 3]
        inside = (expected > low + 2) & (expected < high - 2) & (seen[0] > -1)
        assert inside.sum() > 40
        np.testing.assert_allclose(found[inside], expected[inside], atol=0.2)  # areas, not points


@pytest.mark.parametrize("axes", list(itertools.permutations(range(3))))
@pytest.mark.parametrize("signs", list(itertools.product([1, -1], repeat=3)))
def test_a_slice_alone_is_seen_as_a_radiologist_sees_it_and_as_it_would_be_in_its_volume(
    axes: tuple[int, ...], signs: tuple[int, ...]
) -> None:
    """In all 48 ways of storing it: the patient's right on the left or the front on the left, the head or the front at
    the top; an axial one is the very slice that its volume would have given."""
    affine = np.eye(4)
    affine[:3, :3] = 0.01
    for voxel_axis, (world, sign) in enumerate(zip(axes, signs, strict=True)):
        affine[world, voxel_axis] = sign * (1.0 + world)
    affine[:3, 3] = 5, -6, 7
    h, w = np.mgrid[:5, :7]
    vertical, horizontal = {2: (1, 0), 1: (2, 0), 0: (2, 1)}[axes[2]]
    for world in (vertical, horizontal):
        values = (affine[world, 0] * w + affine[world, 1] * h + affine[world, 3]).astype(np.float32)
        image = Image(values[None], affine, origin={"format": "nifti"})
        turned = faced(image)
        rows, columns = np.gradient(turned.data[0])
        assert (rows if world == vertical else columns).max() < -0.9  # mm in the patient fall along rows and columns
        for k, step in ((0, columns), (1, rows)):
            np.testing.assert_allclose(turned.affine[world, k], step, atol=1e-5)
        assert turned.data[0, 0, 0] == pytest.approx(turned.affine[world, 3], abs=1e-5)
        low, high = float(values.min()), float(values.max())
        ((seen, _),) = standardise(image, Codec("window", low, high), turned.size, 1, "exact")
        np.testing.assert_allclose((seen[0] + 1) * 127.5, to_display(image, ((low + high) / 2, high - low)), atol=0.51)
        if axes[2] == 2:
            volume = Image(values[None, None], affine, origin={"format": "nifti"})
            ((inside, _),) = standardise(volume, Codec("window", low, high), turned.size, 1, "exact")
            np.testing.assert_array_equal(seen, inside)


@pytest.mark.parametrize("form", ["dicom", "raster", "npz", "nifti"])
def test_slices_made_to_be_seen_as_stored_stay_so(form: str) -> None:
    """DICOM and pictures, whatever their affine; of a volume format, what has no place: a picture's or none."""
    affine = np.diag([0.5, 0.5, 1.0, 1.0]) if form in VOLUMES else np.array(
        [[0, 0, 3.0, 4], [0.5, 0, 0, 5], [0, 0.5, 0, 6], [0, 0, 0, 1]]
    )  # fmt: skip
    image = Image(noise(1, 8, 9), affine, origin={"format": form})
    assert faced(image) is image
    ((values, mm),) = standardise(image, WINDOW, (8, 9), 1, "exact")
    np.testing.assert_array_equal(values, WINDOW.scaled(image.data, WINDOW.span))
    assert mm == (0.5, 0.5)
