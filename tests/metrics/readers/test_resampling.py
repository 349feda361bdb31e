"""The jackknife and the bootstrap over readers and cases, against closed forms."""

from __future__ import annotations

import numpy as np
import pytest

from fabrica.errors import UsageError
from fabrica.metrics.readers import estimate, resampling


def table(seed: int = 0, readers: int = 4, cases: int = 30) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.normal(1, 1, (readers, 1)) + rng.normal(size=cases) + rng.normal(size=(readers, cases))


def left_out(values: np.ndarray) -> np.ndarray:
    return (values.sum(1, keepdims=True) - values) / (values.shape[1] - 1)


def test_of_means_the_jackknife_has_a_closed_form() -> None:
    values = table()
    readers, cases = values.shape
    found = resampling.obuchowski_rockette(values.mean(1), left_out(values))
    covariance = np.cov(values) / cases  # of the readers' means, from the cases
    between = covariance[~np.eye(readers, dtype=bool)].mean()
    squares = values.mean(1).var(ddof=1)
    assert float(found.variance) == pytest.approx((squares + readers * max(between, 0)) / readers)
    assert float(found.df) == pytest.approx((squares + readers * between) ** 2 / (squares**2 / (readers - 1)))


def test_one_reader_has_the_error_of_his_cases() -> None:
    values = table(readers=1)
    found = resampling.obuchowski_rockette(values.mean(1), left_out(values))
    assert float(found.variance) == pytest.approx(values.var(ddof=1) / values.size)
    said = resampling.estimate(found, readers=1)
    assert estimate.ONE_READER in said.note and said.low < values.mean() < said.high


def test_what_never_varies_has_no_interval() -> None:
    values = np.full((3, 10), 0.7)
    said = resampling.estimate(resampling.obuchowski_rockette(values.mean(1), left_out(values)), readers=3)
    assert np.isnan(said.low) and estimate.CONSTANT in said.note


def test_readers_who_are_quite_alike() -> None:
    """All the variance comes from the cases: the degrees of freedom are infinite, and nothing is divided by nothing."""
    values = np.repeat(table(readers=1), 3, 0)
    found = resampling.obuchowski_rockette(values.mean(1), left_out(values))
    assert np.isinf(found.df) and float(found.variance) == pytest.approx(values[0].var(ddof=1) / values.shape[1])


def test_shapes_that_do_not_fit() -> None:
    with pytest.raises(UsageError, match=r"expected \(R,\) and \(R, J\)"):
        resampling.obuchowski_rockette(np.zeros(3), np.zeros((2, 5)))
    with pytest.raises(UsageError, match="J at least 2"):
        resampling.obuchowski_rockette(np.zeros(3), np.zeros((3, 1)))


def test_the_bootstrap_of_a_mean() -> None:
    """Its variance is the biased one of readers and cases: that of all resamples, computed without drawing any."""
    values = table(1)
    r, c = values.shape
    found = resampling.bootstrap_mean(values, resamples=20_000)
    between, of_cases = values.mean(1).var() / r, values.mean(0).var() / c
    rest = values - values.mean(0) - values.mean(1)[:, None] + values.mean()
    assert found.error**2 == pytest.approx(between + of_cases + (rest**2).mean() / (r * c), rel=0.05)
    by_index = resampling.bootstrap(lambda i, j: float(values[np.ix_(i, j)].mean()), r, c, resamples=2000)
    assert by_index.error == pytest.approx(found.error, rel=0.1)
    assert (by_index.low, by_index.high) == pytest.approx((found.low, found.high), abs=0.15)


def test_it_is_reproducible_and_strata_are_kept() -> None:
    strata, seen = np.arange(10) % 2, []

    def statistic(readers: np.ndarray, cases: np.ndarray) -> float:
        seen.append(strata[cases].sum())
        return float(cases.mean())

    first = resampling.bootstrap(statistic, 3, 10, strata=strata, resamples=50)
    assert set(seen) == {5}
    assert first == resampling.bootstrap(statistic, 3, 10, strata=strata, resamples=50)
    assert first != resampling.bootstrap(statistic, 3, 10, strata=strata, resamples=50, seed=1)


def test_resamples_without_a_value() -> None:
    found = resampling.bootstrap(lambda r, c: float(c.mean()) if 0 in r else np.nan, 3, 10, resamples=200)
    assert "resamples have no value" in found.note and np.isfinite(found.low)
    assert np.isnan(resampling.bootstrap(lambda r, c: np.nan, 3, 10, resamples=20).low)


def test_what_cannot_be_drawn() -> None:
    with pytest.raises(UsageError, match="0 readers"):
        resampling.bootstrap(lambda r, c: 0.0, 0, 5)
    with pytest.raises(UsageError, match="strata have shape"):
        resampling.bootstrap(lambda r, c: 0.0, 2, 5, strata=[1, 2])
    with pytest.raises(UsageError, match="at least one number"):
        resampling.bootstrap_mean(np.full((2, 2), np.nan))
