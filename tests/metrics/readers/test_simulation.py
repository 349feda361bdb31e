"""Simulated readers have the truth that their parameters say; power by simulation."""

from __future__ import annotations

import numpy as np
import pytest

from fabrica.errors import UsageError
from fabrica.metrics.readers import mrmc, power
from fabrica.metrics.readers.power import Stated
from fabrica.metrics.readers.simulation import Detecting, Grading, RoeMetz

MODELS = (RoeMetz(one=1.0, two=2.0), Detecting(drift=0.8), Grading((0.0, 0.7), reader_shift=0.2, drift=0.8))


def drawn(model: RoeMetz | Detecting | Grading, seed: int, readers: int, cases: int, studies: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    if isinstance(model, RoeMetz):
        return model.scores(readers, cases, cases, rng, studies)[0]
    if isinstance(model, Detecting):
        return model.answers(readers, cases, cases, rng, studies)[0]
    return model.grades(readers, cases, rng, studies)[0]


@pytest.mark.parametrize("model", MODELS)
def test_the_same_seed_is_the_same_study(model: RoeMetz | Detecting | Grading) -> None:
    first, again, other = (drawn(model, seed, 2, 4, 3) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_areas_of_roe_and_metz() -> None:
    model = RoeMetz(one=1.0, two=2.0, reader=0.2, reader_modality=0.1)
    scores, truth = model.scores(6, 10, 10, np.random.default_rng(0), 1500)
    success, _ = mrmc.successes(scores, truth)
    np.testing.assert_allclose(success.mean((0, 2, 3, 4)), model.aucs, atol=0.012)


def test_correlations_of_roe_and_metz() -> None:
    """Of one case's scores: over modalities C + RC; over readers C + mC; of normal cases of one reader, R + mR."""
    model = RoeMetz(reader=0.1, reader_modality=0.2)
    scores, truth = model.scores(2, 2, 1, np.random.default_rng(1), 60_000)
    assert truth.tolist() == [False, False, True]

    def covariance(a: np.ndarray, b: np.ndarray) -> float:
        return float(np.cov(a, b)[0, 1])

    case = scores[..., 0]
    assert covariance(case[:, 0, 0], case[:, 1, 0]) == pytest.approx(0.1 + 0.3 + 0.2, abs=0.03)
    assert covariance(case[:, 0, 0], case[:, 0, 1]) == pytest.approx(0.3 + 0.3, abs=0.03)
    assert covariance(case[:, 0, 0], case[:, 1, 1]) == pytest.approx(0.3, abs=0.03)
    assert covariance(scores[:, 0, 0, 0], scores[:, 0, 0, 1]) == pytest.approx(0.3, abs=0.03)
    assert covariance(scores[:, 0, 0, 0], scores[:, 0, 0, 2]) == pytest.approx(0.0, abs=0.03)


@pytest.mark.parametrize("drift", [0.0, 1.5])
def test_rates_of_detection(drift: float) -> None:
    model = Detecting(d_prime=1.2, criterion=0.3, reader_d=0.4, reader_c=0.3, drift=drift)
    answers, truth = model.answers(4, 30, 30, np.random.default_rng(2), 3000)
    hit, rejection = model.rates
    assert answers[..., truth].mean() == pytest.approx(hit, abs=0.01)
    assert 1 - answers[..., ~truth].mean() == pytest.approx(rejection, abs=0.01)


def test_a_drift_is_along_the_readers_own_order() -> None:
    """Two readers' orders differ, so that no case is harder for all."""
    answers, _ = Detecting(d_prime=0, reader_c=0, case=0, drift=6.0).answers(2, 50, 50, np.random.default_rng(3), 400)
    assert abs(np.corrcoef(answers[:, 0].ravel(), answers[:, 1].ravel())[0, 1]) < 0.03


@pytest.mark.parametrize("drift", [0.0, 1.0])
def test_shares_of_grades(drift: float) -> None:
    model = Grading((0.0, 0.7), reader_shift=0.2, drift=drift)
    grades, levels = model.grades(3, 4000, np.random.default_rng(4))
    expected = model.shares(levels)
    assert expected.shape == (1, 2, 3, 5) and expected.sum(-1) == pytest.approx(1)
    seen = np.stack([(grades == k).mean(-1) for k in range(1, 6)], -1)
    np.testing.assert_allclose(seen, expected, atol=0.035)


def test_shares_of_two_readings() -> None:
    model = Grading((0.0, 0.0), bias=0.5, drift=1.0)
    grades, levels = model.grades(2, 60_000, np.random.default_rng(5))
    joint = model.shares_together(levels[0, 0])
    assert joint.shape == (2, 2, 5, 5) and joint.sum((-1, -2)) == pytest.approx(1)
    np.testing.assert_allclose(joint.sum(-1)[0, 1], model.shares(levels[0, 0])[0], atol=1e-6)
    for (a, r), (b, s) in (((0, 0), (0, 1)), ((0, 0), (1, 0))):
        seen = np.histogram2d(grades[0, a, r], grades[0, b, s], bins=np.arange(0.5, 6))[0] / 60_000
        np.testing.assert_allclose(joint[r, s], seen, atol=0.01)


def test_studies_of_nobody() -> None:
    with pytest.raises(UsageError, match="0 readers"):
        RoeMetz().scores(0, 5, 5, np.random.default_rng(0))
    with pytest.raises(UsageError, match="0 cases"):
        Grading().grades(2, 0, np.random.default_rng(0))


def test_power_rises_with_the_study() -> None:
    model = RoeMetz(one=1.0, two=1.6, reader_modality=0.005)
    shares = [power.of_auc(model, r, n, n, studies=100).share.value for r, n in ((3, 10), (5, 25), (8, 50))]
    assert shares[0] < shares[1] < shares[2] and shares[2] > 0.5


def test_power_of_nothing_is_the_level() -> None:
    null = Grading((0.0, 0.0), reader_shift=0.15)
    found = power.of_grades(null, 6, 30, studies=1500)
    assert found.share.low < 0.06 and found.share.value < 0.07
    one_sided = power.of_grades(null, 6, 30, Stated("superiority"), studies=1500)
    assert one_sided.share.value < 0.04


def test_equivalence_and_detection() -> None:
    same = power.of_grades(Grading((0.0, 0.0)), 6, 60, Stated("equivalence", 0.5), studies=200)
    assert same.share.value > 0.9
    guessing = Detecting(d_prime=0.0, reader_d=0.0)
    assert power.of_detection(guessing, 6, 40, 40, Stated("equivalence", 0.15), studies=200).share.value > 0.7
    assert power.of_detection(guessing, 6, 40, 40, studies=400).share.value < 0.09
    assert power.of_detection(Detecting(), 6, 40, 40, Stated("superiority"), studies=200).share.value > 0.95


def test_the_least_size() -> None:
    asked: list[tuple[int, int]] = []

    def made(readers: int, cases: int) -> power.Power:
        asked.append((readers, cases))
        return power.Power(readers, cases, power.share(min(readers * cases, 100), 100))

    found = power.least([(10, 10), (2, 10), (4, 20), (8, 8)], made)
    assert asked == [(2, 10), (8, 8), (4, 20)] and found[-1].share.value == 0.8
    assert len(power.least([(2, 2), (2, 3)], made)) == 2


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: power.of_auc(RoeMetz(), 1, 5, 5), "two or more of each"),
        (lambda: Stated("better"), "no claim 'better'"),
        (lambda: Stated("equivalence"), "the margin 0"),
        (lambda: Stated(alpha=5), "alpha is 5"),
        (lambda: power.of_auc(RoeMetz(), 3, 5, 5, studies=0), "0 simulated studies"),
        (lambda: power.of_grades(Grading((0.0,)), 3, 5), "expected two to compare"),
        (lambda: power.least([], lambda r, c: power.of_auc(RoeMetz(), r, c, c)), "no sizes"),
        (lambda: power.least([(2, 2)], lambda r, c: power.of_auc(RoeMetz(), r, c, c), target=80), "power to reach"),
    ],
)
def test_what_is_refused(call: object, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        call()  # type: ignore[operator]


def test_a_study_in_which_nothing_varies_shows_nothing() -> None:
    truth = np.arange(8) % 2 == 1
    alike = np.broadcast_to(truth.astype(float), (1, 3, 8))
    assert power.shown(mrmc.differences(alike, 1 - alike, truth).limits, Stated()).tolist() == [0.0]
