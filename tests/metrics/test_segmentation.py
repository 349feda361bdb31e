"""Scores of label maps: as of DeepMind's surface-distance and of MONAI, known shifts, the rule of empty masks."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
import surface_distance
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.metrics import compute_dice, compute_hausdorff_distance, compute_surface_dice
from scipy.ndimage import gaussian_filter
from torchmetrics.functional.segmentation import dice_score

from fabrica.errors import UsageError
from fabrica.metrics.segmentation import (
    ClassScores,
    Labels,
    compare,
    dice,
    hd95,
    iou,
    surface_dice,
    volume_error,
)
from fabrica.metrics.surfaces import Mask
from tests.draws import draws

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*namespace is deprecated:DeprecationWarning"),  # of surface_distance
    pytest.mark.filterwarnings("ignore:.*always_return_as_numpy:FutureWarning"),  # of MONAI with itself
    pytest.mark.filterwarnings("ignore:the (ground truth|prediction) of class:UserWarning"),
]


def reference(made: Mask, truth: Mask, spacing: Sequence[float], tolerance: float) -> tuple[float, float]:
    """Surface Dice and HD95 of surface-distance."""
    found = surface_distance.compute_surface_distances(truth, made, spacing)
    near = surface_distance.compute_surface_dice_at_tolerance(found, tolerance)
    return float(near), float(surface_distance.compute_robust_hausdorff(found, 95))


def blobs(rng: np.random.Generator, shape: Sequence[int], rough: float) -> tuple[Mask, Mask]:
    """Two masks that are alike, neither empty; rough noise where `rough` is 0, and cut by the border of the image."""
    fields = [gaussian_filter(rng.normal(size=shape), rough) for _ in range(2)]
    made = fields[0] + rng.uniform(0, 1) * fields[1]
    level = np.quantile(fields[0], rng.uniform(0.1, 0.95))
    found = made >= min(level, made.max()), fields[0] >= min(level, fields[0].max())
    return found[0], found[1]


@given(st.integers(0, 2**32 - 1), st.integers(2, 3), st.sampled_from([0.0, 0.7, 1.5, 3.0]))
@settings(max_examples=draws(150), deadline=None)
def test_surfaces_equal_the_reference(seed: int, dims: int, rough: float) -> None:
    rng = np.random.default_rng(seed)
    made, truth = blobs(rng, rng.integers(1, (40, 16)[dims - 2], dims), rough)
    spacing, tolerance = rng.uniform(0.3, 4, dims), rng.uniform(0, 5)
    expected = reference(made, truth, spacing, tolerance)
    assert surface_dice(made, truth, spacing, tolerance) == pytest.approx(expected[0], abs=1e-6)
    assert hd95(made, truth, spacing) == pytest.approx(expected[1], abs=1e-6)


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (3.0, 0.5, 0.75), (0.25, 2.0, 1.5)])
@pytest.mark.parametrize("tolerance", [0.0, 0.5, 1.0, 1.5, 3.0])
def test_what_lies_at_the_tolerance_falls_on_the_same_side(
    spacing: tuple[float, float, float], tolerance: float
) -> None:
    for seed in range(10):
        made, truth = blobs(np.random.default_rng(seed), (8, 13, 11), 1.0)
        expected = reference(made, truth, spacing, tolerance)
        found = surface_dice(made, truth, spacing, tolerance), hd95(made, truth, spacing)
        assert found == pytest.approx(expected, abs=1e-6)


def thin(*ones: tuple[int | slice, ...]) -> Mask:
    mask = np.zeros((9, 10, 12), dtype=bool)
    for one in ones:
        mask[one] = True
    return mask


@pytest.mark.parametrize(
    "made", [thin((4, 5, 6)), thin((0, 0, 0)), thin((3,)), thin((slice(None), 0)), thin((2, 3)), thin((..., 11))]
)
@pytest.mark.parametrize(
    "truth",
    [thin((4, 5, 7)), thin((8, 9, 11)), thin((slice(None),)), thin((0, 0, 0), (8, 9, 11), (4, 1, 1)), thin((3, 4))],
)
def test_single_voxels_lines_and_sheets_equal_the_reference(made: Mask, truth: Mask) -> None:
    spacing = (2.0, 0.8, 0.9)
    expected = reference(made, truth, spacing, 1.7)
    assert (surface_dice(made, truth, spacing, 1.7), hd95(made, truth, spacing)) == pytest.approx(expected, abs=1e-6)
    flat = made.any(0), truth.any(0)
    expected = reference(*flat, spacing[1:], 1.7)
    assert (surface_dice(*flat, spacing[1:], 1.7), hd95(*flat, spacing[1:])) == pytest.approx(expected, abs=1e-6)


def ball(shape: Sequence[int], middle: Sequence[float], radius: float, spacing: Sequence[float]) -> Mask:
    """Voxels whose centres lie within `radius` mm of the middle, in voxels."""
    apart = [(np.arange(n) - at) * mm for n, at, mm in zip(shape, middle, spacing, strict=True)]
    return np.asarray(sum(x**2 for x in np.meshgrid(*apart, indexing="ij", sparse=True)) < radius**2)


def test_a_larger_image_equals_the_reference() -> None:
    shape, spacing = (70, 260, 260), (2.5, 0.7, 0.7)  # more voxels than a slab holds
    far = ball(shape, (60, 230, 240), 18, spacing)
    made, truth = ball(shape, (9, 25, 30), 17, spacing) | far, ball(shape, (10, 28, 27), 15, spacing) | far
    found = surface_dice(made, truth, spacing, 2.0), hd95(made, truth, spacing)
    assert found == pytest.approx(reference(made, truth, spacing, 2.0), abs=1e-6)


def test_the_same_mask_is_perfect() -> None:
    mask, _ = blobs(np.random.default_rng(0), (12, 14, 16), 1.5)
    spacing = (2.0, 1.0, 1.0)
    assert (dice(mask, mask), iou(mask, mask), surface_dice(mask, mask, spacing, 0.0)) == (1, 1, 1)
    assert hd95(mask, mask, spacing) == 0
    assert volume_error(mask, mask, spacing) == (0, 0)


@pytest.mark.parametrize(("axis", "voxels"), [(0, 1), (1, 3), (2, 4)])
def test_a_shifted_box_lies_as_far_away_as_it_was_shifted(axis: int, voxels: int) -> None:
    spacing = (3.0, 0.8, 0.5)
    truth = np.zeros((20, 30, 40), dtype=bool)
    truth[5:13, 8:20, 10:26] = True
    made = np.roll(truth, voxels, axis)
    away = voxels * spacing[axis]
    assert hd95(made, truth, spacing) == pytest.approx(away)
    assert surface_dice(made, truth, spacing, away + 0.01) == 1
    assert 0 < surface_dice(made, truth, spacing, away - 0.01) < 1
    shared = 1 - voxels / truth.any(tuple(k for k in range(3) if k != axis)).sum()
    assert dice(made, truth) == pytest.approx(shared)
    assert iou(made, truth) == pytest.approx(shared / (2 - shared))


def test_volumes_are_in_ml_and_signed() -> None:
    truth = np.zeros((10, 10, 10), dtype=bool)
    truth[:5] = True
    made = truth.copy()
    made[5:7] = True
    assert volume_error(made, truth, (2.0, 1.0, 0.5)) == pytest.approx((0.2, 0.4))
    assert volume_error(truth, made, (2.0, 1.0, 0.5)) == pytest.approx((-0.2, -200 / 700))
    assert volume_error(made[0], truth[0], (10.0, 20.0)) == (0, 0)
    assert volume_error(made[:, 0], truth[:, 0], (10.0, 20.0)) == pytest.approx((20 * 2, 0.4))  # cm^2


def test_the_rule_of_empty_masks() -> None:
    empty, there = np.zeros((4, 6, 5), dtype=bool), np.zeros((4, 6, 5), dtype=bool)
    there[1, 2:5, 3] = True
    spacing = (2.0, 1.0, 3.0)
    diagonal = math.sqrt(8**2 + 6**2 + 15**2)
    for score in (dice(empty, empty), iou(empty, empty), surface_dice(empty, empty, spacing)):
        assert math.isnan(score)
    assert math.isnan(hd95(empty, empty, spacing))
    for made, truth in ((there, empty), (empty, there)):
        assert (dice(made, truth), iou(made, truth), surface_dice(made, truth, spacing, 1e9)) == (0, 0, 0)
        assert hd95(made, truth, spacing) == pytest.approx(diagonal)
    assert volume_error(empty, there, spacing) == pytest.approx((-0.018, -1))
    alarm = volume_error(there, empty, spacing)
    assert alarm[0] == pytest.approx(0.018) and math.isnan(alarm[1])


def test_no_distance_is_beyond_that_of_a_missed_organ() -> None:
    made, truth = np.zeros((3, 4), dtype=bool), np.zeros((3, 4), dtype=bool)
    made[0, 0], truth[-1, -1] = True, True
    assert hd95(made, truth, (1.0, 1.0)) <= hd95(made, np.zeros_like(made), (1.0, 1.0))


def one_by_one(
    made: Labels, truth: Labels, number: int, spacing: Sequence[float], tolerance: float, ignore: Mask
) -> ClassScores:
    """By the functions of one class, on the whole image."""
    one, two = (made == number) & ~ignore, (truth == number) & ~ignore
    near = surface_dice(one, two, spacing, tolerance)
    volume = two.sum() * math.prod(spacing) / 10 ** len(spacing)
    return ClassScores(
        dice(one, two), iou(one, two), near, hd95(one, two, spacing), volume, *volume_error(one, two, spacing)
    )


@given(st.integers(0, 2**32 - 1), st.integers(2, 3), st.booleans(), st.sampled_from(["uint8", "int16", "int64"]))
@settings(max_examples=draws(60), deadline=None)
def test_all_classes_at_once_equal_each_on_the_whole_image(seed: int, dims: int, hide: bool, dtype: str) -> None:
    rng = np.random.default_rng(seed)
    shape, spacing = rng.integers(3, (40, 14)[dims - 2], dims), rng.uniform(0.5, 3, dims)
    truth = np.floor(8 * gaussian_filter(rng.random(shape), 1.0)).astype(dtype)
    made = np.where(rng.random(shape) < 0.05, 7, np.roll(truth, 1, 0)).astype(dtype)
    ignore = gaussian_filter(rng.random(shape), 1.0) > (0.55 if hide else 2)
    classes = [4, 3, 1, 7, 9]  # any order; some that are rare, and one that is nowhere
    found = compare(made, truth, classes, spacing, {k: 0.5 * k for k in classes}, ignore if hide else None)
    assert list(found) == classes
    for number, scores in found.items():
        expected = one_by_one(made, truth, number, spacing, 0.5 * number, ignore)
        for name, value in vars(expected).items():
            assert getattr(scores, name) == pytest.approx(value, rel=1e-9, abs=1e-9, nan_ok=True), (number, name)


@pytest.mark.parametrize("seed", range(3))
def test_regions_equal_each_as_a_mask(seed: int) -> None:
    rng = np.random.default_rng(seed)
    made, truth = (np.kron(rng.integers(0, 4, (3, 4, 4)), np.ones((3, 3, 3))).astype(np.uint8) for _ in range(2))
    regions = {1: [1, 2, 3], 2: [2, 3], 9: [3, 7]}
    found = compare(made, truth, regions, (1.0, 2.0, 1.5))
    for number, own in regions.items():
        one, other = np.isin(made, own).astype(np.uint8), np.isin(truth, own).astype(np.uint8)
        assert found[number] == compare(one, other, [1], (1.0, 2.0, 1.5))[1]


def test_classes_are_told_absent_missed_and_false() -> None:
    truth = np.zeros((6, 6), dtype=np.uint8)
    made = truth.copy()
    truth[:2], made[1:3], truth[4], made[5] = 1, 1, 2, 3
    found = compare(made, truth, (1, 2, 3, 4), (1.0, 1.0))
    told = {k: (s.absent, s.missed, s.false_alarm) for k, s in found.items()}
    assert told == {1: (False,) * 3, 2: (False, True, False), 3: (False, False, True), 4: (True, False, False)}
    assert math.isnan(found[4].dice) and math.isnan(found[4].hd95) and found[4].volume_error == 0
    assert (found[2].dice, found[2].hd95) == pytest.approx((0, math.sqrt(72)))
    assert (found[3].dice, found[3].hd95) == pytest.approx((0, math.sqrt(72)))


def test_what_is_ignored_changes_nothing() -> None:
    rng = np.random.default_rng(0)
    truth = np.zeros((20, 20), dtype=np.uint8)
    truth[5:15, 5:15] = 1
    made = np.roll(truth, 1, 1)
    ignore = np.zeros((20, 20), dtype=bool)
    ignore[:8] = True
    first = compare(made, truth, (1, 2), (1.0, 2.0), ignore=ignore)
    for labels in (made, truth):
        labels[:8] = rng.integers(0, 3, (8, 20))
    assert repr(compare(made, truth, (1, 2), (1.0, 2.0), ignore=ignore)) == repr(first)
    assert first[1].dice == pytest.approx(0.9)


def one_hot(mask: Mask) -> torch.Tensor:
    return torch.tensor(np.stack([~mask, mask])[None].astype(np.float32))


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("dims", [2, 3])
def test_monai_agrees_where_a_class_is_on_both_sides(seed: int, dims: int) -> None:
    """Dice to the digit, and its surface Dice where it takes subvoxels; HD95 only about, as it does not weigh."""
    made, truth = blobs(np.random.default_rng(seed), (24, 30, 28)[:dims], 2.5)
    spacing = (1.5, 0.8, 0.8)[:dims]
    a, b = one_hot(made), one_hot(truth)
    assert dice(made, truth) == pytest.approx(float(compute_dice(a, b, include_background=False)), abs=1e-6)
    near = compute_surface_dice(a, b, class_thresholds=[1.1], spacing=spacing, use_subvoxels=True)
    assert surface_dice(made, truth, spacing, 1.1) == pytest.approx(float(near), abs=1e-5)
    theirs = float(compute_hausdorff_distance(a, b, percentile=95, spacing=spacing))
    assert hd95(made, truth, spacing) == pytest.approx(theirs, abs=2 * max(spacing))


def test_others_treat_empty_masks_as_the_docstring_says() -> None:
    empty, there = np.zeros((12, 12), dtype=bool), np.zeros((12, 12), dtype=bool)
    there[3:7, 3:7] = True
    a, b = one_hot(there), one_hot(empty)
    assert torch.isnan(compute_dice(a, b, include_background=False)).all()  # a false alarm
    assert float(compute_dice(b, a, include_background=False)) == 0
    for one, two in ((a, b), (b, a)):
        assert torch.isnan(compute_hausdorff_distance(one, two, percentile=95)).all()
        assert float(compute_surface_dice(one, two, class_thresholds=[1.0])) == 0
        assert float(dice_score(one.int(), two.int(), 2, include_background=False)) == 0
        assert float(dice_score(one.int(), two.int(), 2)) > 0.4  # macro: the background helps
    assert torch.isnan(dice_score(b.int(), b.int(), 2, include_background=False)).all()


SQUARE = np.zeros((4, 4), dtype=np.uint8)
PLAIN = SQUARE.astype(bool)


def test_bad_input_is_one_clear_line() -> None:
    with pytest.raises(UsageError, match="made mask is of type uint8; expected bool"):
        dice(SQUARE, PLAIN)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=r"shapes \(4, 4\) and \(4, 3\)"):
        iou(PLAIN, PLAIN[:, :3])
    with pytest.raises(UsageError, match=r"spacing is \(1.0,\); expected 2 numbers"):
        hd95(PLAIN, PLAIN, (1.0,))
    with pytest.raises(UsageError, match=r"spacing is \(0.0, 1.0\)"):
        surface_dice(PLAIN, PLAIN, (0.0, 1.0))
    with pytest.raises(UsageError, match="true label map is of type float32; expected integers"):
        compare(SQUARE, SQUARE.astype(np.float32), (1,), (1.0, 1.0))  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="classes hold 0; expected numbers from 1"):
        compare(SQUARE, SQUARE, (0, 1), (1.0, 1.0))
    with pytest.raises(UsageError, match="ignore is uint8"):
        compare(SQUARE, SQUARE, (1,), (1.0, 1.0), ignore=SQUARE)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="tolerance holds none for class 2"):
        compare(SQUARE, SQUARE, (1, 2), (1.0, 1.0), {1: 2.0})
