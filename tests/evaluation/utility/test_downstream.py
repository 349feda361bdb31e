"""Networks that learn from examples: the same for the same seed, better than guessing, and their scores."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import mannwhitneyu

from fabrica.codec import Codec
from fabrica.evaluation.utility.downstream import answered, auc, learned, mean_dice
from fabrica.evaluation.utility.examples import Examples, Lesson


def discs(count: int, seed: int, shape: tuple[int, ...] = (16, 16), voxels: bool = True) -> Examples:
    """A ball of random size and place, grey on noise; of classifiers, class 1 is a large one."""
    rng = np.random.default_rng(seed)
    grid = np.stack(np.meshgrid(*(np.arange(n) for n in shape), indexing="ij"))
    images, maps, sizes = [], [], []
    for _ in range(count):
        middle, radius = rng.uniform(5, min(shape) - 5, len(shape)), rng.uniform(2, 5)
        inside = ((grid - middle.reshape(-1, *[1] * len(shape))) ** 2).sum(0) < radius**2
        images.append(np.where(inside, 0.6, -0.6) + 0.1 * rng.standard_normal(shape))
        maps.append(inside)
        sizes.append(int(radius > 3.5))
    answers = np.stack(maps).astype(np.uint8) if voxels else np.array(sizes)
    return Examples(np.stack(images)[:, None].astype(np.float32), answers, [f"p{k}" for k in range(count)])


def lesson(shape: tuple[int, ...] = (16, 16), voxels: bool = True) -> Lesson:
    names = ["background", "ball"] if voxels else ["small", "large"]
    return Lesson(
        discs(24, 0, shape, voxels),
        discs(16, 1, shape, voxels),
        names,
        voxels,
        lambda n, seed, tell: discs(n, seed, shape, voxels),
        Codec("window", 0, 1),
        (),
        "balls",
        "test",
    )


@pytest.mark.parametrize(
    ("shape", "augment", "steps", "least"), [((16, 16), False, 30, 0.8), ((16, 16, 16), True, 40, 0.5)]
)
def test_a_segmenter_learns_and_is_the_same_for_the_same_seed(
    shape: tuple[int, ...], augment: bool, steps: int, least: float
) -> None:
    told = lesson(shape)
    first, again = (answered(learned(told.train, told, augment, 8, 3), told.test.images) for _ in range(2))
    assert first.shape == told.test.answers.shape
    assert np.array_equal(first, again)
    good = answered(learned(told.train, told, augment, steps, 3), told.test.images)
    assert np.nanmean(mean_dice(good, told.test.answers, 2)) > least


def test_a_classifier_learns() -> None:
    told = lesson(voxels=False)
    chances = answered(learned(told.train, told, False, 40, 0), told.test.images)
    assert np.allclose(chances.sum(1), 1, atol=1e-5)
    assert auc(chances, told.test.answers) > 0.8


def test_the_mean_dice_counts_what_is_missed_and_not_what_is_absent() -> None:
    truth = np.array([[[0, 1, 1, 2]], [[0, 0, 1, 1]], [[0, 0, 0, 0]], [[0, 0, 0, 0]]], dtype=np.uint8)
    made = np.array([[[0, 1, 1, 0]], [[0, 0, 1, 0]], [[0, 0, 0, 0]], [[1, 0, 0, 0]]], dtype=np.uint8)
    found = mean_dice(made, truth, 3)
    assert found[:2] == pytest.approx([0.5, 2 / 3])  # class 2 missed: 0; class 2 absent: left out
    assert np.isnan(found[2])
    assert found[3] == 0  # a false alarm


@pytest.mark.parametrize("seed", range(5))
def test_the_area_under_the_curve_is_that_of_the_rank_test(seed: int) -> None:
    rng = np.random.default_rng(seed)
    truth, chance = rng.integers(0, 2, 50), rng.integers(0, 8, 50) / 8  # with ties
    expected = mannwhitneyu(chance[truth == 1], chance[truth == 0]).statistic / (
        (truth == 1).sum() * (truth == 0).sum()
    )
    assert auc(np.stack([1 - chance, chance], 1), truth) == pytest.approx(expected)


def test_one_class_has_no_curve() -> None:
    assert np.isnan(auc(np.full((4, 2), 0.5), np.zeros(4, dtype=np.int64)))
