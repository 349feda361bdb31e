"""Claims of estimates equal the tests of statsmodels and scipy, and hold by their definitions."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from fabrica.errors import UsageError
from fabrica.metrics.readers import equivalence, means
from fabrica.metrics.readers.estimate import Estimate
from tests.draws import draws


def paired(seed: int = 0, shift: float = 0.1) -> tuple[np.ndarray, Estimate]:
    gap = np.random.default_rng(seed).normal(shift, 0.5, 30)
    return gap, means.mean(gap[None])


def test_equivalence_is_two_one_sided_t_tests() -> None:
    gap, of = paired()
    found = equivalence.equivalent(of, -0.3, 0.4)
    above = stats.ttest_1samp(gap, -0.3, alternative="greater").pvalue
    below = stats.ttest_1samp(gap, 0.4, alternative="less").pvalue
    assert found.p == pytest.approx(max(above, below))
    assert (found.low, found.high) == pytest.approx(tuple(stats.ttest_1samp(gap, 0).confidence_interval(0.9)))


def test_it_equals_statsmodels() -> None:
    weightstats = pytest.importorskip("statsmodels.stats.weightstats")
    gap, of = paired(1)
    p, _, _ = weightstats.ttost_paired(gap, np.zeros(30), -0.3, 0.3)
    assert equivalence.equivalent(of, -0.3, 0.3).p == pytest.approx(p)


@settings(max_examples=draws(60), deadline=None)
@given(
    st.floats(-2, 2),
    st.floats(0.01, 1),
    st.floats(1, 100) | st.just(float("inf")),
    st.floats(0.01, 2),
    st.floats(0.01, 2),
)
def test_what_is_shown_lies_within_the_margins(value: float, error: float, df: float, low: float, high: float) -> None:
    of = Estimate(value, 0.0, 0.0, error, df)
    both = equivalence.equivalent(of, -low, high)
    assert both.shown == (both.p <= 0.05)
    if abs(both.p - 0.05) > 1e-9:
        assert both.shown == (-low < both.low and both.high < high)
    better, not_worse = equivalence.superior(of), equivalence.not_inferior(of, low)
    assert better.shown <= not_worse.shown and better.p >= not_worse.p
    if abs(better.p - 0.025) > 1e-9:
        assert better.shown == (better.low > 0)
    assert equivalence.superior(of, by=0.5).p >= better.p


def test_nothing_is_shown_without_an_error() -> None:
    of = Estimate(0.0, np.nan, np.nan, 0.0)
    for found in (equivalence.equivalent(of, -1, 1), equivalence.not_inferior(of, 1), equivalence.superior(of)):
        assert not found.shown and np.isnan(found.p) and found.note == equivalence.CONSTANT


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda of: equivalence.equivalent(of, 0.1, 0.2), "one below 0 and one above"),
        (lambda of: equivalence.not_inferior(of, -0.1), "above 0"),
        (lambda of: equivalence.superior(of, alpha=5), "alpha is 5"),
        (lambda of: equivalence.holm([0.1, 1.2]), "between 0 and 1"),
    ],
)
def test_what_is_refused(call: object, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        call(paired()[1])  # type: ignore[operator]


@settings(max_examples=draws(60), deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_equals_statsmodels(p_values: list[float]) -> None:
    multitest = pytest.importorskip("statsmodels.stats.multitest")
    expected = multitest.multipletests(p_values, method="holm")[1]
    np.testing.assert_allclose(equivalence.holm(p_values), expected, atol=1e-12)


def test_holm_by_hand() -> None:
    assert equivalence.holm([0.04, 0.01, 0.03]) == pytest.approx([0.06, 0.03, 0.06])
    assert equivalence.holm([]) == []
    corrected = equivalence.holm([0.04, np.nan, 0.01])
    assert np.isnan(corrected[1]) and corrected[::2] == pytest.approx([0.04, 0.02])
