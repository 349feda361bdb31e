"""Each classic is as strong as is best for it, and puts every pixel where it was."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, partial

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from fabrica.codec import Codec
from fabrica.data.degrade import degraded
from fabrica.evaluation.translation import classical_filters as filters
from fabrica.evaluation.translation.classical_filters import (
    Candidate,
    ClassicalFilter,
    ClassicalFilters,
    blurred,
    climbed,
    enlarged,
    same,
)
from fabrica.geometry import oriented
from fabrica.image import Float32, Image
from fabrica.inference.translation import Way
from fabrica.phantoms.chest.chest import chest
from fabrica.phantoms.head.head import head
from fabrica.recipe.found import Fingerprint
from fabrica.recipe.schema import DataConfig

SIDE = 96


@lru_cache(maxsize=1)
def lungs() -> Float32:
    """A chest phantom (H, W) in [0, 1]."""
    image = chest(5, SIDE).image.data[0]
    return np.asarray((image - image.min()) / np.ptp(image), dtype=np.float32)


def trial(before: Float32) -> Candidate:
    return Candidate(np.clip(before, 0, 1).astype(np.float32), lungs(), np.ones(lungs().shape, dtype=bool))


def noisy(sigma: float) -> Candidate:
    return trial(lungs() + sigma * np.random.default_rng(0).standard_normal(lungs().shape))


def way(unit: str = "arbitrary", low: float = 0.0, high: float = 1.0) -> Way:
    codec = Codec("window", low, high, unit)
    return Way(lambda x: x, codec, codec, DataConfig(size=[SIDE, SIDE]), Fingerprint(), "OT")


FILTERS: dict[
    str, tuple[Callable[..., ClassicalFilter], float]
] = {  # and the decibels that it gains at least, of 5 % noise
    "bilateral": (partial(filters._bilateral, spread=1.0, factor=1), 0.8),
    "nlm": (partial(filters._nlm, factor=1), 4.0),
    "tv": (partial(filters._tv, factor=1), 4.0),
}


@pytest.mark.parametrize("key", FILTERS)
@pytest.mark.parametrize("sigma", [0.01, 0.05])
def test_a_classic_is_as_strong_as_is_best_for_it(key: str, sigma: float) -> None:
    maker, gain = FILTERS[key]
    given = noisy(sigma)
    found = given.psnr(filters._best([maker], [given]))
    every = [given.psnr(maker(2.0**power)) for power in np.arange(-10, 0, 0.5)]
    assert found >= max(every) - 0.02
    assert min(every) < found - 1  # there was something to tune
    if sigma == 0.05:
        assert found > given.psnr(ClassicalFilter(same, "", 1)) + gain


def test_the_climb_finds_the_top_and_both_ends() -> None:
    assert climbed(lambda p: -((p + 7.4) ** 2)) == -7.5
    assert climbed(lambda p: p) == filters.MOST and climbed(lambda p: -p) == filters.LEAST


def test_a_known_blur_is_undone() -> None:
    given = trial(gaussian_filter(lungs(), 1.5))
    before = given.psnr(ClassicalFilter(same, "", 1))
    assert given.psnr(filters._best([partial(filters._wiener, blur=1.5, factor=1)], [given])) > before + 3
    assert given.psnr(filters._best([partial(filters._nlm, factor=1)], [given])) < before + 1  # no denoiser does it


@pytest.mark.parametrize(
    ("steps", "sigma"),
    [
        ([], 0.0),
        ([{"name": "gaussian", "sigma": 0.1}], 0.0),
        ([{"name": "blur"}], 1.5),
        ([{"name": "blur", "sigma": 3.0}, {"name": "blur", "sigma": 4.0}], 5.0),
        ([{"name": "blur", "sigma": 3.0}, {"name": "downsample", "factor": 2}], 1.5),
        ([{"name": "downsample"}, {"name": "blur", "sigma": 3.0}], 3.0),
    ],
)
def test_blur_is_told_in_pixels_of_the_small_image(steps: list[dict[str, object]], sigma: float) -> None:
    assert blurred(steps) == pytest.approx(sigma)


def test_bicubic_pixels_are_areas_and_do_not_move() -> None:
    rows, columns = np.mgrid[:30, :41] + 0.5
    ramp = (0.2 + rows / 100 + columns / 200).astype(np.float32)
    small = degraded(Image(ramp[None]), [{"name": "downsample", "factor": 4}], 0).data[0, ::4, ::4]
    assert small.shape == (8, 11)
    made = enlarged(small, 4, ramp.shape)
    assert made.shape == ramp.shape
    np.testing.assert_allclose(made[6:22, 6:34], ramp[6:22, 6:34], atol=2e-3)  # half a pixel is worth 5e-3


def test_volumes_are_restored_slice_by_slice_however_they_lie() -> None:
    drawn = head(3, 45, 3, contrasts=["CT"]).images["CT"]  # 45: the last small pixel is cut
    steps = [{"name": "downsample", "factor": 2}]
    beside = ClassicalFilters(way("HU", -1024, 3071), {"bicubic": ClassicalFilter(same, "", 2)}, 2, "")
    answers = []
    for order in ("RAS", "LPS", "SAR"):
        truth = oriented(drawn, order)
        given = degraded(truth, steps, 0)
        made = truth.with_data(beside.answer(given, "bicubic"))
        error, before = (np.abs(image.data - truth.data).mean() for image in (made, given))
        assert error < 0.8 * before
        answers.append(oriented(made, "RAS").data)
    np.testing.assert_allclose(answers[1], answers[0], atol=0.5)
    np.testing.assert_allclose(answers[2], answers[0], atol=0.5)


def test_values_keep_their_unit_and_the_source_its_own() -> None:
    rng = np.random.default_rng(0)
    given = Image(rng.uniform(100, 900, (2, 20, 30)).astype(np.float32))
    chosen = {"tv": filters._tv(2.0**-20, 1), "nlm": filters._nlm(0.5, 1)}
    kept = given.data.copy()
    answers = ClassicalFilters(way(low=0, high=1000), chosen, 1, "").answers(given)
    np.testing.assert_array_equal(given.data, kept)
    np.testing.assert_allclose(answers["identity"], given.data, atol=1e-3)
    np.testing.assert_allclose(answers["tv"], given.data, atol=0.5)
    assert np.ptp(answers["nlm"]) < 0.8 * np.ptp(given.data)
    assert all(answer.shape == given.data.shape and answer.dtype == np.float32 for answer in answers.values())
