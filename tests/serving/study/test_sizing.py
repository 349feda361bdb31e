"""Effects in words as parameters of simulated readers, and power that grows with what it should grow with."""

from __future__ import annotations

import numpy as np
import pytest

from fabrica.errors import UsageError
from fabrica.serving.study.sizing import detecting_of, grading_of, powers, roe_metz_of


@pytest.mark.parametrize(("effect", "scores"), [(0.3, 5), (1.0, 5), (-0.5, 7), (0.2, 2)])
def test_simulated_scores_differ_by_the_effect(effect: float, scores: int) -> None:
    model = grading_of(effect, scores)
    grades, _ = model.grades(200, 50, np.random.default_rng(0), 20)
    assert grades.min() == 1 and grades.max() == scores
    assert (grades[:, 1] - grades[:, 0]).mean() == pytest.approx(effect, abs=0.03)


@pytest.mark.parametrize(("start", "effect"), [(0.8, 0.1), (0.7, -0.1), (0.9, 0.0)])
def test_aucs_are_those_asked_for(start: float, effect: float) -> None:
    assert roe_metz_of(start, effect).aucs == pytest.approx((start + effect, start))


@pytest.mark.parametrize("effect", [0.0, 0.1, 0.4])
def test_shares_are_those_asked_for(effect: float) -> None:
    answers, truth = detecting_of(effect).answers(100, 50, 50, np.random.default_rng(0), 20)
    assert (answers == truth).mean() == pytest.approx(0.5 + effect, abs=0.01)


@pytest.mark.parametrize("kind", ["clarity", "detection", "real-or-synthetic", "preference"])
def test_a_larger_effect_and_study_has_more_power(kind: str) -> None:
    few, many = (powers(kind, 0.12, [4], [n], studies=100, target=0.99)[0].share.value for n in (20, 70))
    large = powers(kind, 0.19 if kind == "detection" else 0.4, [4], [20], studies=100, target=0.99)[0].share.value
    assert few < many and few < large


def test_the_search_ends_where_the_power_is_reached() -> None:
    found = powers("clarity", 1.0, [3, 5], [20, 40, 400], studies=100)
    assert found[-1].share.value >= 0.8 and all(size.share.value < 0.8 for size in found[:-1])
    assert len(found) < 6


def test_without_an_effect_a_difference_is_shown_as_often_as_the_level_allows() -> None:
    (found,) = powers("clarity", 0.0, [5], [40], studies=400)
    assert found.share.low < 0.05 and found.share.value < 0.09


@pytest.mark.parametrize(
    ("kind", "effect", "more", "said"),
    [
        ("clarity", 9.0, {}, "below"),
        ("clarity", 0.5, {"scores": 1}, "two or more"),
        ("detection", 0.3, {}, "expected both from 0.5 to below 1"),
        ("preference", 0.6, {}, "a share above a half"),
        ("taste", 0.5, {}, "no kind 'taste'"),
        ("clarity", 0.5, {"claim": "equivalence"}, "expected a number above 0"),
        ("clarity", 0.5, {"readers": [1]}, "two or more of each"),
        ("detection", 0.05, {"readers": [0]}, "two or more of each"),
    ],
)
def test_what_cannot_be(kind: str, effect: float, more: dict[str, object], said: str) -> None:
    sizes = {"readers": [3], "cases": [20], "studies": 10, **more}
    with pytest.raises(UsageError, match=said):
        powers(kind, effect, **sizes)  # type: ignore[arg-type]
