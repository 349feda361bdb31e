"""Distances between distributions, against closed forms and constructed sets."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.linalg import sqrtm

from fabrica.errors import UsageError
from fabrica.image import Float64
from fabrica.metrics.distribution import _mmd, bootstrap, enough, floor, frechet, frechet_from_moments, kid, prdc


def gaussian(n: int, dims: int, seed: int, sd: float = 1.0, shift: float = 0.0) -> Float64:
    return np.random.default_rng(seed).normal(shift, sd, (n, dims))


def random_covariance(dims: int, seed: int) -> Float64:
    root = np.random.default_rng(seed).normal(size=(dims, dims))
    return root @ root.T / dims


def test_frechet_of_axis_aligned_gaussians_is_the_closed_form() -> None:
    sd_a, sd_b, gap = np.array([1.0, 2.0, 0.5]), np.array([3.0, 2.0, 0.1]), np.array([1.0, -2.0, 0.0])
    expected = (gap**2).sum() + ((sd_a - sd_b) ** 2).sum()
    found = frechet_from_moments(np.zeros(3), np.diag(sd_a**2), gap, np.diag(sd_b**2))
    assert found == pytest.approx(expected, abs=1e-12)


def test_frechet_of_any_covariances_equals_the_matrix_root() -> None:
    a, b = random_covariance(12, 0), random_covariance(12, 1)
    expected = np.trace(a + b - 2 * np.real(sqrtm(a @ b)))
    assert frechet_from_moments(np.zeros(12), a, np.zeros(12), b) == pytest.approx(expected, rel=1e-9)


def test_frechet_of_samples_equals_that_of_their_moments() -> None:
    a, b = gaussian(300, 20, 0), gaussian(200, 20, 1, sd=1.5, shift=0.3)
    expected = frechet_from_moments(a.mean(0), np.cov(a.T), b.mean(0), np.cov(b.T))
    assert frechet(a, b) == pytest.approx(expected, rel=1e-9)


def test_frechet_holds_with_fewer_images_than_dimensions() -> None:
    a, b = gaussian(15, 40, 0), gaussian(12, 40, 1)
    expected = frechet_from_moments(a.mean(0), np.cov(a.T), b.mean(0), np.cov(b.T))
    assert frechet(a, b) == pytest.approx(expected, rel=1e-6)
    assert frechet(a, a) == pytest.approx(0, abs=1e-9)


def test_frechet_converges_to_the_truth() -> None:
    truth = 10 * (0.3**2 + 0.5**2)
    assert frechet(gaussian(50_000, 10, 0), gaussian(50_000, 10, 1, sd=1.5, shift=0.3)) == pytest.approx(
        truth, rel=0.03
    )


def test_kid_is_zero_on_average_for_equal_distributions() -> None:
    values = [kid(gaussian(200, 16, s), gaussian(150, 16, s + 999), subsets=5)[0] for s in range(60)]
    assert abs(np.mean(values)) < 3 * np.std(values) / np.sqrt(60)
    assert min(values) < 0 < max(values)


def test_kid_equals_its_definition() -> None:
    a, b = gaussian(8, 3, 0), gaussian(10, 3, 1)

    def k(x: Float64, y: Float64) -> float:
        return float((x @ y / 3 + 1) ** 3)

    expected = (
        np.mean([k(x, y) for i, x in enumerate(a) for j, y in enumerate(a) if i != j])
        + np.mean([k(x, y) for i, x in enumerate(b) for j, y in enumerate(b) if i != j])
        - 2 * np.mean([k(x, y) for x in a for y in b])
    )
    assert _mmd(a, b) == pytest.approx(expected)


def test_kid_sees_a_change_of_variance_alone() -> None:
    mean, sd = kid(gaussian(400, 16, 0), gaussian(300, 16, 1, sd=1.5))
    assert mean > 5 * sd > 0  # a linear kernel compares means only and finds nothing here


def test_prdc_of_one_distribution() -> None:
    found = prdc(gaussian(500, 4, 0), gaussian(400, 4, 1))
    assert found["precision"] > 0.85
    assert found["recall"] > 0.85
    assert found["density"] == pytest.approx(1, abs=0.12)
    # The expected coverage of equal sets of N is 1 - 2^-k to first order (Naeem et al. 2020, eq. 5).
    assert prdc(gaussian(800, 4, 2), gaussian(800, 4, 3))["coverage"] == pytest.approx(1 - 2**-5, abs=0.02)


def test_prdc_of_a_dropped_mode_and_of_invented_images() -> None:
    two_modes = np.concatenate([gaussian(300, 4, 0), gaussian(300, 4, 1, shift=20)])
    dropped = prdc(two_modes, gaussian(600, 4, 2))
    assert dropped["precision"] > 0.85
    assert dropped["recall"] < 0.55
    assert dropped["coverage"] < 0.55
    invented = prdc(gaussian(600, 4, 2), two_modes)
    assert invented["precision"] < 0.55
    assert invented["recall"] > 0.85
    apart = prdc(gaussian(100, 4, 0), gaussian(100, 4, 1, shift=50))
    assert set(apart.values()) == {0.0}


def test_noise_is_not_precise_because_of_a_few_odd_real_images() -> None:
    real = np.concatenate([gaussian(490, 8, 0, sd=0.1), gaussian(10, 8, 1, sd=30)])
    noise = gaussian(300, 8, 2, sd=5)
    assert prdc(real, noise, drop=0.0)["precision"] > 0.9, "the trap itself"
    assert prdc(real, noise)["precision"] < 0.05
    assert prdc(real, noise)["coverage"] < 0.05


def test_bootstrap_holds_its_value_and_repeats() -> None:
    a, b = gaussian(120, 10, 0), gaussian(100, 10, 1, shift=0.5)
    value, low, high = bootstrap(frechet, a, b, n=50)
    assert low < value < high
    assert value == frechet(a, b)
    assert (value, low, high) == bootstrap(frechet, a, b, n=50)
    assert (value, low, high) != bootstrap(frechet, a, b, n=50, seed=1)


def test_bootstrap_respects_bounds() -> None:
    a = gaussian(60, 3, 0)
    value, low, high = bootstrap(lambda x, y: prdc(x, y)["coverage"], a, a.copy(), n=30, bounds=(0.0, 1.0))
    assert 0 <= low <= value <= high <= 1


@pytest.mark.slow
@pytest.mark.parametrize(("dims", "n", "shift"), [(10, 200, 0.5), (50, 300, 0.5), (10, 200, 0.0)])
def test_bootstrap_covers_the_expected_score(dims: int, n: int, shift: float) -> None:
    """The interval is for the score at this N; with no difference it may only be too wide."""

    def draw(seed: int) -> tuple[Float64, Float64]:
        return gaussian(n, dims, seed), gaussian(n, dims, seed + 10_000, sd=1 + shift / 2, shift=shift)

    expected = np.mean([frechet(*draw(50_000 + s)) for s in range(300)])
    hits = []
    for seed in range(150):
        _, low, high = bootstrap(frechet, *draw(seed), n=100, seed=seed)
        hits.append(low <= expected <= high)
    assert np.mean(hits) > 0.88
    if shift:
        assert np.mean(hits) < 0.995


def test_the_floor_falls_with_n() -> None:
    real = gaussian(2000, 20, 0)
    small, large = floor(real, 100), floor(real, 1000)
    assert small.n == 100 and large.n == 1000
    assert small.low <= small.value <= small.high
    # The bias goes as 1/N.
    assert small.value / large.value == pytest.approx(10, rel=0.25)
    assert small.note == "" == large.note


def test_the_floor_says_when_there_are_too_few_real_images() -> None:
    found = floor(gaussian(300, 5, 0), 300)
    assert found.n == 150
    assert "150 images, not 300" in found.note


def test_the_floor_is_what_an_equal_generator_scores() -> None:
    scores = [frechet(gaussian(200, 15, s), gaussian(200, 15, s + 500)) for s in range(40)]
    assert floor(gaussian(2000, 15, 99), 200).value == pytest.approx(np.mean(scores), rel=0.1)


def test_enough_warns_with_figures() -> None:
    assert enough(1000, 100) is None
    warning = enough(80, 100)
    assert warning is not None
    assert "singular" in warning and "500 images" in warning
    # Its estimate of the bias is the true one to within a third.
    bias = float(enough(300, 100).split("about ")[1].split(" ")[0])  # type: ignore[union-attr]
    assert bias == pytest.approx(frechet(gaussian(300, 100, 0), gaussian(300, 100, 1)), rel=1 / 3)


@pytest.mark.parametrize("score", [frechet, kid, prdc])
def test_bad_features_are_refused(score) -> None:  # type: ignore[no-untyped-def]
    good = gaussian(20, 3, 0)
    broken = good.copy()
    broken[3, 1] = np.nan
    for bad, words in (
        (good[:, :2], "dimensions"),
        (broken, "NaN"),
        (good[:1], "at least"),
        (good[0], "shape"),
    ):
        with pytest.raises(UsageError, match=words):
            score(good, bad)
