"""Means over readers and cases equal sums over all pairs, the analysis of variance, and Wilson's interval at the
ends."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from scipy import stats

from fabrica.errors import UsageError
from fabrica.image import Float64
from fabrica.metrics.memorisation import wilson
from fabrica.metrics.readers import estimate, means
from fabrica.metrics.readers.ustatistics import spread, spread_of_difference


def tables(seed: int, readers: int = 4, cases: int = 12, missing: float = 0.0) -> Float64:
    rng = np.random.default_rng(seed)
    table = rng.normal(size=(2, readers, 1)) + rng.normal(size=cases) + rng.normal(size=(2, readers, cases))
    return np.where(rng.random(table.shape) < missing, np.nan, table)


def enumerated(one: Float64, two: Float64) -> float:
    """The covariance of two means: mean product of all pairs of answers, less that of pairs that share nothing."""
    first, second = (
        {(r, c): t[r, c] for r, c in product(*map(range, t.shape)) if np.isfinite(t[r, c])} for t in (one, two)
    )
    pairs = [(x * y, a[0] != b[0] and a[1] != b[1]) for (a, x), (b, y) in product(first.items(), second.items())]
    return float(np.mean([p for p, _ in pairs]) - np.mean([p for p, apart in pairs if apart]))


@pytest.mark.parametrize("missing", [0.0, 0.3])
@pytest.mark.parametrize("seed", range(3))
def test_the_variance_equals_sums_written_out(seed: int, missing: float) -> None:
    one, two = tables(seed, missing=missing)
    parts = [
        means.table_moments(a, np.isfinite(a) * 1.0, b, np.isfinite(b) * 1.0)
        for a, b in ((one, one), (two, two), (one, two))
    ]
    assert means.mean(one).value == pytest.approx(np.nanmean(one))
    assert float(spread(parts[0]).variance) == pytest.approx(enumerated(one, one), rel=1e-9)
    total = enumerated(one, one) + enumerated(two, two) - 2 * enumerated(one, two)
    assert float(spread_of_difference(*parts).variance) == pytest.approx(total, rel=1e-9)
    assert means.mean_difference(one, two).error ** 2 >= total - 1e-12


@pytest.mark.parametrize("seed", range(3))
def test_of_a_complete_table_it_is_the_analysis_of_variance(seed: int) -> None:
    table = tables(seed)[0]
    r, c = table.shape
    ms_r = c * table.mean(1).var(ddof=1)
    ms_c = r * table.mean(0).var(ddof=1)
    rest = table - table.mean(0) - table.mean(1)[:, None] + table.mean()
    ms_rc = (rest**2).sum() / ((r - 1) * (c - 1))
    variance = (ms_rc + max(ms_r - ms_rc, 0) + max(ms_c - ms_rc, 0)) / (r * c)
    found = means.mean(table)
    assert found.error**2 == pytest.approx(variance)
    # Satterthwaite, with the mean squares of readers and of cases
    pieces = (ms_r / (r * c)) ** 2 / (r - 1) + (ms_c / (r * c)) ** 2 / (c - 1)
    assert found.df == pytest.approx(max(variance**2 / pieces, min(r, c) - 1))


def test_the_difference_of_complete_tables_is_the_mean_of_differences() -> None:
    one, two = tables(3)
    gap, whole = means.mean_difference(one, two), means.mean(one - two)
    assert (gap.value, gap.error, gap.df, gap.low) == pytest.approx((whole.value, whole.error, whole.df, whole.low))


def test_one_reader_is_the_t_test_over_cases() -> None:
    table = tables(1)[0, :1]
    found, test = means.mean(table), stats.ttest_1samp(table[0], 0)
    assert (found.error, found.p, found.df) == pytest.approx((stats.sem(table[0]), test.pvalue, 11))
    assert estimate.ONE_READER in found.note
    assert (found.low, found.high) == pytest.approx(tuple(test.confidence_interval()))


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_answers_that_are_all_alike(value: float) -> None:
    share = means.mean(np.full((5, 20), value), scale="logit")
    assert share.value == value and (share.low, share.high) == pytest.approx(wilson(20 * value, 20))
    plain = means.mean(np.full((5, 20), value))
    assert np.isnan(plain.low) and estimate.CONSTANT in plain.note


def test_one_case() -> None:
    found = means.mean(np.array([[1.0], [0.0], [1.0]]))
    assert found.value == pytest.approx(2 / 3) and np.isnan(found.low) and means.ONE_CASE in found.note
    alone = means.mean(np.array([[1.0]]))
    assert alone.value == 1 and estimate.ONE_READER in alone.note and means.ONE_CASE in alone.note


def test_components_below_0_count_as_0() -> None:
    """Cases that differ less between themselves than readings of them do: the variance is that of the readers'
    means."""
    rng = np.random.default_rng(1)
    table = rng.normal(size=(4, 1)) + rng.normal(size=(4, 12))
    table -= 0.9 * (table.mean(0) - table.mean())
    found = means.mean(table)
    assert found.error**2 == pytest.approx(table.mean(1).var(ddof=1) / 4) and found.df == pytest.approx(3, abs=0.2)


def test_a_reader_without_answers_is_no_reader() -> None:
    one = tables(2)[0]
    with_one_more = np.concatenate([one, np.full((1, one.shape[1]), np.nan)])
    assert means.mean(with_one_more) == means.mean(one)
    alone = means.mean(np.concatenate([one[:1], np.full((2, one.shape[1]), np.nan)]))
    assert alone == means.mean(one[:1]) and estimate.ONE_READER in alone.note


def test_readers_whose_answers_are_never_independent() -> None:
    """Each has answered one case, and that the same."""
    table = np.array([[1.0, np.nan], [0.0, np.nan]])
    assert means.ONE_CASE in means.mean(table).note
    one = np.array([[1.0, 0.0], [0.0, 1.0]])
    gap = means.mean_difference(one, np.array([[1.0, 1.0], [np.nan, np.nan]]))
    assert gap.value == -0.5 and np.isnan(gap.low) and means.APART in gap.note


def test_shares_stay_inside() -> None:
    rng = np.random.default_rng(0)
    table = (rng.random((4, 15)) < 0.93).astype(float)
    inside = means.mean(table, scale="logit", null=0.5)
    assert 0 < inside.low < inside.value < inside.high < 1 and inside.p < 0.05


@pytest.mark.parametrize(
    ("table", "options", "said"),
    [
        (np.zeros(3), {}, "expected \\(readers, cases\\)"),
        (np.full((2, 3), np.nan), {}, "no number at all"),
        (np.full((2, 3), np.inf), {}, "infinite"),
        (np.full((2, 3), 0.5), {"scale": "logit"}, "other than 0 and 1"),
        (np.ones((2, 3)), {"level": 95}, "between 0 and 1"),
    ],
)
def test_what_has_no_mean(table: Float64, options: dict[str, object], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        means.mean(table, **options)  # type: ignore[arg-type]


def test_many_studies_at_once() -> None:
    table = tables(4)
    found = spread(means.table_moments(table, np.ones(table.shape)))
    for i in range(2):
        alone = spread(means.table_moments(table[i], np.ones(table[i].shape)))
        assert (found.value[i], found.variance[i], found.df[i]) == pytest.approx(
            (float(alone.value), float(alone.variance), float(alone.df))
        )
