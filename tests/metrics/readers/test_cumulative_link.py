"""The cumulative-link mixed model: likelihoods by quadrature and by statsmodels, and parameters recovered."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import special, stats

from fabrica.errors import UsageError
from fabrica.metrics.readers import cumulative_link
from fabrica.metrics.readers.cumulative_link import LEAST, _Model
from fabrica.metrics.readers.simulation import Grading


def scores(seed: int = 0, readers: int = 5, cases: int = 40, spread: float = 1.0) -> np.ndarray:
    given, _ = Grading((0.8, 0.0), case=spread).grades(readers, cases, np.random.default_rng(seed))
    return given[0]


@pytest.fixture(scope="module")
def fitted() -> tuple[np.ndarray, cumulative_link.CumulativeLink]:
    given = scores(1, cases=60)
    return given, cumulative_link.compare(given[0], given[1], link="probit")


def test_parameters_are_recovered(fitted: tuple[np.ndarray, cumulative_link.CumulativeLink]) -> None:
    _, found = fitted
    assert found.effect.low < 0.8 < found.effect.high and found.effect.p < 0.01
    assert found.effect.value == pytest.approx(0.8, abs=0.3) and found.case == pytest.approx(1.0, abs=0.35)
    np.testing.assert_allclose(np.diff(found.thresholds), 1.2, atol=0.25)  # the sample's mean moves all of them
    assert found.reader < 0.9 and len(found.readers) == 5
    assert found.effect.value == pytest.approx(np.mean([each.value for each in found.readers]))


def test_conditions_exchanged_change_the_sign(fitted: tuple[np.ndarray, cumulative_link.CumulativeLink]) -> None:
    given, found = fitted
    other = cumulative_link.compare(given[1], given[0], link="probit")
    assert other.effect.value == pytest.approx(-found.effect.value, abs=1e-3)
    assert other.log_likelihood == pytest.approx(found.log_likelihood, abs=1e-3)


def by_quadrature(given: np.ndarray, theta: np.ndarray, delta: float, sd: float, link: str) -> float:
    """The log-likelihood of one reader's scores (2, 1, C) with an effect of each case, integrated on 80 nodes."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(80)
    weights = weights / weights.sum()
    f = special.expit if link == "logit" else stats.norm.cdf
    edges = np.concatenate([[-np.inf], theta, [np.inf]])
    total = 0.0
    for case in range(given.shape[2]):
        product = np.ones(len(nodes))
        for arm, x in ((0, 0.5), (1, -0.5)):
            k = int(given[arm, 0, case])
            eta = x * delta + sd * nodes
            product = product * (f(edges[k + 1] - eta) - f(edges[k] - eta))
        total += float(np.log(product @ weights))
    return total


@pytest.mark.parametrize("link", cumulative_link.LINKS)
@pytest.mark.parametrize("sd", [0.3, 1.0])
def test_laplace_is_near_the_integral(link: str, sd: float) -> None:
    given = (scores(2, readers=1, cases=12) - 1).astype(np.int64)
    model = _Model(given, 5, link)
    theta = np.array([-1.5, -0.4, 0.5, 1.6])
    parameters = np.concatenate([theta[:1], np.log(np.diff(theta)), [0.7], [LEAST, np.log(sd)]])
    exact = by_quadrature(given, theta, 0.7, sd, link)
    assert -float(model.deviance(parameters[None])[0]) == pytest.approx(exact, rel=0.01)


def test_without_random_effects_it_is_statsmodels() -> None:
    ordinal = pytest.importorskip("statsmodels.miscmodels.ordinal_model")
    given = scores(3, readers=1, cases=150, spread=1e-9)
    found = cumulative_link.compare(given[0], given[1])
    x = np.repeat([0.5, -0.5], 150)[:, None]
    theirs = ordinal.OrderedModel(given.ravel(), x, distr="logit").fit(method="bfgs", disp=False)
    assert found.effect.value == pytest.approx(theirs.params[0], rel=0.08)  # a small variance of cases may be found
    assert found.log_likelihood >= theirs.llf - 1e-3
    assert found.effect.error == pytest.approx(theirs.bse[0], rel=0.1)
    assert "one reader" in found.effect.note


def test_missing_scores_are_left_out() -> None:
    given = scores(4, readers=2, cases=20)
    more = np.concatenate([given, np.full((2, 2, 3), np.nan)], 2)
    one, two = (cumulative_link.compare(each[0], each[1]) for each in (given, more))
    assert one.effect.value == pytest.approx(two.effect.value, abs=1e-4)
    assert one.log_likelihood == pytest.approx(two.log_likelihood, abs=1e-4)


@pytest.mark.parametrize("changed", [0, 1])
def test_cases_that_are_scored_alike_have_no_interval(changed: int) -> None:
    """Perfect agreement, or all but one score: what cases vary by is unbounded, and an interval would be too narrow."""
    one = np.tile(1.0 + np.arange(6) % 3, (3, 1))
    two = one.copy()
    two[0, :changed] += 1
    found = cumulative_link.compare(one, two)
    for each in (found.effect, *found.readers):
        assert np.isnan(each.low) and np.isnan(each.high) and "scored alike" in each.note


def test_scores_that_hardly_overlap() -> None:
    found = cumulative_link.compare(np.full((2, 10), 5.0), np.full((2, 10), 1.0))
    assert np.isnan(found.effect.low) and found.effect.note


@pytest.mark.parametrize(
    ("one", "two", "link", "said"),
    [
        (np.ones((2, 5)), np.ones((2, 5)), "logit", "all scores are 1"),
        (np.ones((2, 5)), np.ones((2, 4)), "logit", "expected \\(readers, cases\\)"),
        (np.ones((2, 1)), np.zeros((2, 1)), "logit", "1 cases have scores of the first"),
        (np.ones((2, 5)), np.full((2, 5), np.nan), "logit", "0 cases have scores of the second"),
        (np.array([[1.0, 2, 3], [np.nan] * 3]), np.ones((2, 3)), "logit", "a reader has no scores of the first"),
        (np.arange(30.0).reshape(2, 15), np.zeros((2, 15)), "logit", "at most 20 grades"),
        (np.full((2, 5), np.inf), np.ones((2, 5)), "logit", "infinite"),
        (np.ones((2, 5)), np.zeros((2, 5)), "cauchit", "no link"),
    ],
)
def test_what_is_refused(one: np.ndarray, two: np.ndarray, link: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        cumulative_link.compare(one, two, link=link)
