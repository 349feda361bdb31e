"""Visual grading characteristics and signed ranks, against their definitions."""

from __future__ import annotations

from itertools import combinations_with_replacement

import numpy as np
import pytest
from scipy import stats

from fabrica.errors import UsageError
from fabrica.metrics.readers import grading
from fabrica.metrics.roc import area_under_curve


def grades(seed: int = 0, readers: int = 4, cases: int = 25, better: float = 0.5) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    latent = 3 + rng.normal(size=cases) + rng.normal(0, 0.5, (readers, 1)) + rng.normal(size=(2, readers, cases))
    one, two = np.clip(np.round(latent + np.array([better, 0])[:, None, None]), 1, 5)
    return one, two


def test_the_area_is_that_of_the_readers() -> None:
    one, two = grades()
    one[2, 3] = np.nan
    found = grading.vgc(one, two)
    for reader, area in enumerate(found.readers):
        both = np.isfinite(one[reader])
        assert area == pytest.approx(area_under_curve(one[reader, both], two[reader, both]))
    assert found.area.value == pytest.approx(np.mean(found.readers))
    assert 0 < found.area.low < found.area.value < found.area.high < 1
    np.testing.assert_array_equal(found.curve[[0, -1]], [[0, 0], [1, 1]])
    assert (np.diff(found.curve, axis=0) >= 0).all()


def test_the_curve_of_one_reader_has_his_area() -> None:
    one, two = grades(1, readers=1)
    found = grading.vgc(one, two)
    assert np.trapezoid(found.curve[:, 1], found.curve[:, 0]) == pytest.approx(found.area.value)


def test_leaving_out_a_case() -> None:
    one, two = grades(2)
    two[0, 4] = np.nan
    one, two = (np.where(np.isfinite(one + two), each, np.nan) for each in (one, two))
    _, without = grading.areas(one, two)
    for case in (0, 4, 24):
        kept = np.arange(25) != case
        np.testing.assert_allclose(without[:, case], grading.areas(one[:, kept], two[:, kept])[0])


def test_conditions_that_are_the_same_or_never_meet() -> None:
    _, two = grades(3)
    same = grading.vgc(two, two)
    assert same.area.value == 0.5
    apart = grading.vgc(two + 10, two)
    assert apart.area.value == 1 and np.isnan(apart.area.low) and "above all others" in apart.area.note


def test_signed_ranks_are_of_cases() -> None:
    one, two = grades(4)
    found = grading.wilcoxon(one, two)
    gap = (one - two).mean(0)
    assert found.p == pytest.approx(stats.wilcoxon(gap[gap != 0]).pvalue)
    assert found.cases == 25 and found.unequal == (gap != 0).sum()
    walsh = [(a + b) / 2 for a, b in combinations_with_replacement(gap, 2)]
    assert found.shift.value == pytest.approx(np.median(walsh))
    assert found.shift.low <= found.shift.value <= found.shift.high


def test_ranks_of_what_never_differs() -> None:
    _, two = grades(5)
    found = grading.wilcoxon(two, two)
    assert found.p == 1 and found.unequal == 0 and found.shift.value == 0 and np.isnan(found.shift.low)
    one_case = grading.wilcoxon([[4.0]], [[3.0]])
    assert one_case.p == 1 and np.isnan(one_case.shift.low)


def test_grades_that_are_equal_but_for_rounding_are_ties() -> None:
    """Means of three readers: 0.1 + 0.2 is not 0.3 in binary."""
    one = np.array([[0.1, 1.0], [0.2, 1.0], [0.0, 1.0]])
    two = np.array([[0.3, 0.0], [0.0, 1.0], [0.0, 1.0]])
    assert grading.wilcoxon(one, two).unequal == 1


def test_the_interval_of_the_shift_covers_it() -> None:
    rng = np.random.default_rng(6)
    hits = 0
    for _ in range(200):
        base = rng.normal(size=20)
        found = grading.wilcoxon(base + 0.5 + rng.normal(size=20), base).shift
        hits += found.low <= 0.5 <= found.high
    assert 0.90 <= hits / 200 <= 0.99


@pytest.mark.parametrize(
    ("one", "two", "said"),
    [
        (np.zeros((2, 3)), np.zeros((2, 4)), "expected \\(readers, cases\\) both"),
        (np.array([[1.0, np.nan]]), np.zeros((1, 2)), "1 cases with both grades; expected 2"),
        (np.full((1, 2), np.inf), np.zeros((1, 2)), "infinite"),
        (np.zeros((0, 2)), np.zeros((0, 2)), "0 cases with both grades"),
    ],
)
def test_what_cannot_be_compared(one: np.ndarray, two: np.ndarray, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        grading.vgc(one, two)
