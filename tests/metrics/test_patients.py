"""Means over patients and their intervals."""

from __future__ import annotations

import numpy as np
import pytest

from fabrica.metrics.patients import by_patient, interval, interval_over_columns


def test_images_of_one_patient_count_once() -> None:
    means = by_patient([1.0, 3.0, 10.0, np.nan, np.nan], ["b", "b", "a", "a", "c"])
    np.testing.assert_equal(means, [10.0, 2.0, np.nan])
    found = interval(means)
    assert found.mean == 6
    assert found.low == 2
    assert found.high == 10


def test_the_interval_covers_the_true_mean_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    covered = 0
    for k in range(100):
        found = interval(rng.normal(3, 1, 40), seed=k)
        covered += found.low <= 3 <= found.high
    assert 88 <= covered <= 99


def test_the_interval_over_one_column_is_the_plain_one() -> None:
    scores = np.random.default_rng(0).normal(0.8, 0.1, 25)
    scores[[3, 7]] = np.nan
    one, other = interval_over_columns(scores[:, None], seed=4), interval(scores, seed=4)
    assert (one.mean, one.low, one.high) == pytest.approx((other.mean, other.low, other.high))


def test_columns_count_alike_however_many_patients_have_them() -> None:
    scores = np.full((20, 3), np.nan)
    scores[:, 0], scores[:2, 1] = 0.9, 0.3  # what only two have, and what nobody has
    found = interval_over_columns(scores)
    assert found.mean == pytest.approx(0.6)
    assert (found.low, found.high) == pytest.approx((0.6, 0.9))  # none of the two is in some resamples
    assert np.isnan(interval_over_columns(np.full((4, 2), np.nan)).mean)


def test_the_interval_over_columns_covers_the_true_mean_as_often_as_it_says() -> None:
    rng = np.random.default_rng(1)
    covered = 0
    for k in range(150):
        patients = rng.normal(0, 1, (40, 1))  # classes of one patient go together
        found = interval_over_columns(patients + rng.normal([0.0, 1.0, 2.0], 1, (40, 3)), seed=k)
        covered += found.low <= 1 <= found.high
    assert 0.86 <= covered / 150 <= 0.99
