"""Pictures show both contours in the class's colour where they lie, and planes through the largest error."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import binary_dilation

from fabrica import io
from fabrica.evaluation.segmentation.panels import SIDE, centre, overlays
from fabrica.image import Float32, Image
from fabrica.io.palette import colour_of
from tests.real import DATA

HIPPOCAMPUS = DATA / "mri_hippocampus_msd"


def flat(*boxes: tuple[int, tuple[slice, ...]], shape: tuple[int, ...] = (40, 60)) -> Image:
    data = np.zeros((1, *shape), dtype=np.float32)
    for number, box in boxes:
        data[0][box] = number
    return Image(data, unit="label")


def grey(shape: tuple[int, ...] = (40, 60), affine: np.ndarray | None = None) -> Image:
    ramp: Float32 = np.linspace(0, 100, int(np.prod(shape)), dtype=np.float32).reshape(1, *shape)
    return Image(ramp, np.eye(4) if affine is None else affine)


def of_colour(pixels: np.ndarray, number: int) -> np.ndarray:
    """Where a picture has the colour of a class, nearly."""
    wanted = np.array(colour_of(number))
    return np.asarray((np.abs(pixels.astype(int) - wanted) < 12).all(-1))


BOX = (slice(10, 30), slice(15, 45))


def test_regions_have_the_contours_of_all_their_labels() -> None:
    inner = (slice(15, 25), slice(20, 30))
    truth = flat((1, BOX), (2, inner))
    alone = overlays(grey(), truth, truth, [1])[0][1]
    regions = overlays(grey(), truth, truth, {1: [1, 2], 2: [2]})[0][1]
    around = (slice(116, 204), slice(156, 244))  # the border of the inner one, eight pixels a voxel
    assert of_colour(alone, 1)[around].any() and not of_colour(regions, 1)[around].any()
    assert of_colour(regions, 1).any() and of_colour(regions, 2)[around].any()


def test_colours_may_be_given() -> None:
    truth = flat((1, BOX))
    ((_, pixels),) = overlays(grey(), truth, truth, [1], colours={1: colour_of(3)})
    assert of_colour(pixels, 3).any() and not of_colour(pixels, 1).any()


def test_a_contour_runs_around_its_class_and_nowhere_else() -> None:
    truth = flat((2, BOX))
    ((name, pixels),) = overlays(grey(), truth, truth, [1, 2])
    assert name == "" and pixels.dtype == np.uint8 and pixels.shape == (320, SIDE, 3)
    inside = np.zeros((320, SIDE), dtype=bool)
    inside[80:240, 120:360] = True  # eight pixels a voxel
    # marching squares cuts the corners by half a voxel
    near = binary_dilation(inside, iterations=3) & binary_dilation(~inside, iterations=8)
    found = of_colour(pixels, 2)
    assert found.any() and not found[~near].any()
    assert not of_colour(pixels, 1).any()
    rows, columns = np.nonzero(found)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == pytest.approx((80, 240, 120, 360), abs=2)


def test_what_is_missed_is_dashed_and_what_is_made_up_solid() -> None:
    truth, nothing = flat((1, BOX)), flat()
    missed, alarm = (of_colour(overlays(grey(), *pair, [1])[0][1], 1) for pair in ((truth, nothing), (nothing, truth)))
    assert 0.3 * alarm.sum() < missed.sum() < 0.8 * alarm.sum()
    alone = overlays(grey(), truth, None, [1])[0][1]
    np.testing.assert_array_equal(of_colour(alone, 1), missed)


def test_both_contours_stand_where_they_differ() -> None:
    truth, made = flat((1, BOX)), flat((1, (slice(10, 30), slice(25, 55))))
    found = of_colour(overlays(grey(), truth, made, [1])[0][1], 1)
    left, right = found[100:220, 116:124], found[100:220, 196:204]
    assert left.any(1).mean() < 0.85 and right.any(1).all()


def test_pictures_of_colour_and_labels_that_fill_the_image_are_drawn() -> None:
    rgb = Image(np.stack([grey().data[0]] * 3))
    whole = flat((1, (slice(None), slice(None))))
    assert of_colour(overlays(rgb, whole, whole, [1])[0][1], 1).any()


def test_the_margin_is_in_millimetres_and_keeps_proportions() -> None:
    affine = np.diag([2.0, 1.0, 1.0, 1.0])  # two mm a column
    ((_, pixels),) = overlays(grey(affine=affine), flat((1, BOX)), None, [1], margin=4.0)
    # rows 10 - 4 to 30 + 4, columns 15 - 2 to 45 + 2: 28 x 68 mm
    assert pixels.shape == (round(SIDE * 28 / 68), SIDE, 3)
    ((_, whole),) = overlays(grey(affine=affine), flat(), None, [1], margin=4.0)
    assert whole.shape == (SIDE * 40 // 120, SIDE, 3)


def test_the_planes_go_through_the_middle_of_the_largest_error() -> None:
    truth = np.zeros((20, 30, 40), dtype=np.uint8)
    truth[5:15, 5:15, 5:15] = 1
    assert centre(truth, truth, [1]) == pytest.approx((9.5, 9.5, 9.5), abs=0.5)
    assert centre(truth, truth, [3]) == (10, 15, 20)
    made = truth.copy()
    made[5, 5:15, 5:15] = 0
    made[12:17, 20:25, 30:35] = 1
    made[0:9, 20:29, 0:9] = 2
    assert centre(truth, made, [1]) == (14, 22, 32)
    assert centre(truth, made, [1, 2]) == (4, 24, 4)


def volume(turned: bool) -> tuple[Image, Image, Image]:
    """An image with its label maps, as stored, or with two axes swapped and one reversed, in the same place."""
    rng = np.random.default_rng(0)
    shape, affine = (12, 20, 16), np.diag([1.0, 1.5, 3.0, 1.0])
    truth, made = np.zeros(shape, dtype=np.float32), np.zeros(shape, dtype=np.float32)
    truth[2:8, 4:14, 3:9], made[2:8, 5:14, 3:9], made[9, 16:18, 12:14] = 1, 1, 2
    arrays = [rng.random(shape).astype(np.float32), truth, made]
    if turned:
        arrays = [np.ascontiguousarray(a.transpose(0, 2, 1)[::-1]) for a in arrays]
        affine = affine[:, [1, 0, 2, 3]]
        affine[:, 3] += affine[:, 2] * (shape[0] - 1)
        affine[:, 2] *= -1
    image, *maps = (
        Image(a[None], affine, unit) for a, unit in zip(arrays, ("arbitrary", "label", "label"), strict=True)
    )
    return image, maps[0], maps[1]


def test_three_planes_are_the_same_however_the_volume_is_stored() -> None:
    one, two = (overlays(*volume(turned), [1, 2]) for turned in (False, True))
    assert [name for name, _ in one] == ["axial", "coronal", "sagittal"]
    # 16 x 1, 20 x 1.5 and 12 x 3 mm
    assert [pixels.shape[:2] for _, pixels in one] == [(480, 256), (480, 213), (480, 400)]
    for (_, a), (_, b) in zip(one, two, strict=True):
        np.testing.assert_array_equal(a, b)
    assert all(of_colour(pixels, 1).any() and not of_colour(pixels, 2).any() for _, pixels in one)
    other = overlays(*volume(False), [1, 2], through=2)
    assert all(of_colour(pixels, 2).any() for _, pixels in other)


@pytest.mark.skipif(not HIPPOCAMPUS.is_dir(), reason="the real MR images are not there")
def test_a_real_hippocampus_is_drawn_with_both_of_its_parts() -> None:
    name = "hippocampus_001.nii.gz"
    image, truth = io.read(HIPPOCAMPUS / "images" / name), io.read(HIPPOCAMPUS / "labels" / name)
    made = truth.with_data(np.roll(truth.data, 2, 2))
    pictures = dict(overlays(image, truth, made, [1, 2], margin=6.0))
    assert of_colour(pictures["sagittal"], 1).any() and of_colour(pictures["sagittal"], 2).any()
    assert all(max(pixels.shape) == SIDE for pixels in pictures.values())
