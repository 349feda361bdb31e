"""d', criterion and ROC curves, against their definitions."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from fabrica.errors import UsageError
from fabrica.metrics.readers import detection
from fabrica.metrics.readers.estimate import ONE_READER
from fabrica.metrics.readers.simulation import Detecting
from fabrica.metrics.roc import area_under_curve

TRUTH = np.array([1] * 20 + [0] * 30)


def answers(hits: int, alarms: int) -> np.ndarray:
    row = np.zeros(50)
    row[:hits] = 1
    row[20 : 20 + alarms] = 1
    return row


@pytest.mark.parametrize(("hits", "alarms"), [(15, 6), (20, 0), (0, 30), (10, 15)])
def test_of_one_reader(hits: int, alarms: int) -> None:
    (found,) = detection.reader_sensitivity([answers(hits, alarms)], TRUTH)
    zh, zf = stats.norm.ppf([(hits + 0.5) / 21, (alarms + 0.5) / 31])
    assert found.d_prime.value == pytest.approx(zh - zf) and found.criterion.value == pytest.approx(-(zh + zf) / 2)
    assert found.d_prime.low < found.d_prime.value < found.d_prime.high
    assert bool(found.d_prime.note) == (hits == 20 or hits == 0)


def test_its_error_is_the_delta_methods() -> None:
    (found,) = detection.reader_sensitivity([answers(15, 6)], TRUTH)
    rates, step = np.array([15.5 / 21, 6.5 / 31]), 1e-6
    slopes = (stats.norm.ppf(rates + step) - stats.norm.ppf(rates - step)) / (2 * step)
    variance = (slopes**2 * rates * (1 - rates) / np.array([20, 30])).sum()
    assert found.d_prime.error == pytest.approx(np.sqrt(variance), rel=1e-6)
    assert found.criterion.error == pytest.approx(np.sqrt(variance) / 2, rel=1e-6)


def test_over_readers() -> None:
    table = np.stack([answers(15, 6), answers(18, 9), answers(12, 3), answers(20, 0)])
    found = detection.sensitivity(table, TRUTH)
    each = detection.reader_sensitivity(table, TRUTH)
    assert found.d_prime.value == pytest.approx(np.mean([one.d_prime.value for one in each]))
    assert found.criterion.value == pytest.approx(np.mean([one.criterion.value for one in each]))
    assert found.d_prime.low < found.d_prime.value < found.d_prime.high and not found.d_prime.note
    assert ONE_READER in detection.sensitivity(table[:1], TRUTH).d_prime.note


def test_leaving_out_a_case() -> None:
    rng = np.random.default_rng(0)
    table = np.where(rng.random((3, 50)) < 0.1, np.nan, (rng.random((3, 50)) < 0.3 + 0.4 * TRUTH))
    _, _, d_without, c_without = detection.of_answers(table, TRUTH == 1)
    for case in (0, 25, 49):
        kept = np.arange(50) != case
        d, c, _, _ = detection.of_answers(table[:, kept], TRUTH[kept] == 1)
        np.testing.assert_allclose(d_without[:, case], d)
        np.testing.assert_allclose(c_without[:, case], c)


def test_readers_recover_their_parameters() -> None:
    model = Detecting(d_prime=1.2, criterion=0.4, reader_d=0.1, reader_c=0.1)
    given, truth = model.answers(30, 2000, 2000, np.random.default_rng(1))
    found = detection.sensitivity(given[0], truth)
    assert found.d_prime.value == pytest.approx(1.2, abs=0.08) and found.criterion.value == pytest.approx(0.4, abs=0.08)


def test_a_reader_who_saw_one_class() -> None:
    table = np.stack([answers(15, 6), np.where(TRUTH == 1, 1.0, np.nan)])
    assert np.isnan(detection.reader_sensitivity(table, TRUTH)[1].d_prime.value)


def test_roc_curves() -> None:
    rng = np.random.default_rng(2)
    scores = np.round(rng.normal(size=(3, 50)) + TRUTH, 1)
    scores[1, ::7] = np.nan
    for row, curve in zip(scores, detection.roc(scores, TRUTH), strict=True):
        assert (curve.false_positive[0], curve.true_positive[0]) == (0, 0)
        assert (curve.false_positive[-1], curve.true_positive[-1]) == (1, 1)
        there = np.isfinite(row)
        area = area_under_curve(row[there & (TRUTH == 1)], row[there & (TRUTH == 0)])
        assert np.trapezoid(curve.true_positive, curve.false_positive) == pytest.approx(area)
        middle = len(curve.thresholds) // 2
        share = (row[there & (TRUTH == 1)] >= curve.thresholds[middle]).mean()
        assert curve.true_positive[middle] == pytest.approx(share)


def test_what_has_no_curve_or_figure() -> None:
    with pytest.raises(UsageError, match="reader 1 has read no case of one class"):
        detection.roc(np.stack([answers(1, 1), np.where(TRUTH == 1, 1.0, np.nan)]), TRUTH)
    with pytest.raises(UsageError, match="cut scores at a threshold"):
        detection.sensitivity([answers(1, 1) * 2], TRUTH)
    with pytest.raises(UsageError, match="at least two of each class"):
        detection.sensitivity([[1, 0, 1]], [1, 0, 0])
