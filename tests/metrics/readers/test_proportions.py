"""Shares with Wilson's interval, and paired ones by McNemar's exact test, against all outcomes counted."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from fabrica.errors import UsageError
from fabrica.metrics.readers import proportions
from tests.draws import draws


@settings(max_examples=draws(50), deadline=None)
@given(st.integers(1, 200).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson(counts: tuple[int, int]) -> None:
    hits, n = counts
    found = proportions.share(hits, n)
    exact = stats.binomtest(hits, n).proportion_ci(method="wilson")
    assert (found.low, found.high) == pytest.approx((exact.low, exact.high), abs=1e-12)
    assert 0 <= found.low <= found.value <= found.high <= 1


def test_shares_of_nothing_and_of_too_many() -> None:
    assert np.isnan(proportions.share(0, 0).value) and "no answers" in proportions.share(0, 0).note
    for hits, of in ((3, 2), (-1, 2)):
        with pytest.raises(UsageError, match="0 <= hits <= answers"):
            proportions.share(hits, of)


def test_accuracy_of_a_reader() -> None:
    found = proportions.accuracy([1, 1, 0, 0, 1, np.nan], [1, 1, 1, 0, 0, 0])
    assert (found.hits, found.misses, found.false_alarms, found.correct_rejections) == (2, 1, 1, 1)
    assert found.accuracy.value == pytest.approx(3 / 5)
    assert found.sensitivity.value == pytest.approx(2 / 3) and found.specificity.value == pytest.approx(1 / 2)


def test_a_reader_who_saw_one_class() -> None:
    found = proportions.accuracy([1, 0], [1, 1])
    assert np.isnan(found.specificity.value) and found.sensitivity.value == 0.5


@pytest.mark.parametrize(
    ("answers", "truth", "said"),
    [([1, 0], [1], "expected \\(cases,\\)"), ([2, 0], [1, 0], "0 and 1"), ([1, 0], [1, 3], "0 and 1")],
)
def test_answers_that_are_none(answers: list[float], truth: list[float], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        proportions.accuracy(answers, truth)


def counted(b: int, c: int) -> tuple[float, float]:
    """Exact and mid p: the share of all 2^n ways in which b + c disagreements may fall that are as uneven, or more; for
    mid-p those that are as uneven count half."""
    uneven = [abs(2 * sum(way) - (b + c)) for way in product((0, 1), repeat=b + c)]
    more, same = (float(np.mean([test(u) for u in uneven])) for test in (abs(b - c).__lt__, abs(b - c).__eq__))
    return more + same, more + same / 2


@pytest.mark.parametrize(("b", "c"), [(b, c) for b in range(7) for c in range(5)])
def test_mcnemar_counts_all_ways(b: int, c: int) -> None:
    one = [1] * b + [0] * c + [1, 1, 0]
    two = [0] * b + [1] * c + [1, 1, 0]
    found = proportions.mcnemar(one, two)
    exact, mid = counted(b, c)
    assert (found.only_one, found.only_two) == (b, c)
    assert found.p == pytest.approx(exact)
    assert found.mid_p == pytest.approx(1.0 if b == c else mid)  # by doubling the smaller tail
    assert found.difference.low < found.difference.value < found.difference.high


def test_mcnemar_of_answers_that_never_differ() -> None:
    found = proportions.mcnemar([1, 0, 1, np.nan], [1, 0, 1, 1])
    assert found.p == 1 and found.mid_p == 1 and found.difference.value == 0
    assert found.difference.low == pytest.approx(-found.difference.high) and found.difference.high > 0


def test_bonett_and_prices_interval() -> None:
    """Of 10 and 2 disagreements of 40: (11 - 3) / 42, and the variance (14 / 42 - (8 / 42)^2) / 42."""
    one, two = [1] * 10 + [0] * 2 + [1] * 28, [0] * 10 + [1] * 2 + [1] * 28
    found = proportions.mcnemar(one, two).difference
    half = 1.959964 * np.sqrt((14 / 42 - (8 / 42) ** 2) / 42)
    assert (found.low, found.high) == pytest.approx((8 / 42 - half, 8 / 42 + half), abs=1e-6)


def test_pairs_that_are_none() -> None:
    with pytest.raises(UsageError, match="no case"):
        proportions.mcnemar([np.nan], [1])
    with pytest.raises(UsageError, match="0 \\(wrong\\) and 1 \\(right\\)"):
        proportions.mcnemar([0.5], [1])
    with pytest.raises(UsageError, match="expected \\(cases,\\)"):
        proportions.mcnemar([[1]], [[1]])
