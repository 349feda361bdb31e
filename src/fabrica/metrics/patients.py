"""Scores over patients: a patient's images are no independent cases, so means and intervals are over patients."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fabrica.image import Float64

RESAMPLES = 2000


@dataclass(frozen=True)
class Interval:
    """A mean over patients, and the 95 % interval of a bootstrap over them."""

    mean: float
    low: float
    high: float


def by_patient(scores: npt.ArrayLike, patients: list[str]) -> Float64:
    """The mean score of each patient, float64 (P,), in sorted order: images of one patient are no independent cases.

    Images without a score (NaN) are left out; a patient without any is NaN."""
    values = np.asarray(scores, dtype=np.float64)
    names, index = np.unique(np.asarray(patients), return_inverse=True)
    there = np.isfinite(values)
    sums = np.bincount(index[there], values[there], len(names))
    counts = np.bincount(index[there], minlength=len(names))
    means: Float64 = np.divide(sums, counts, out=np.full(len(names), np.nan), where=counts > 0)
    return means


def known_mean(scores: Float64, axis: int) -> Float64:
    """The mean along an axis of what is there; NaN where nothing is."""
    there = np.isfinite(scores)
    counts = there.sum(axis)
    sums = np.where(there, scores, 0.0).sum(axis)
    means: Float64 = np.divide(sums, counts, out=np.full(counts.shape, np.nan), where=counts > 0)
    return means


def interval(scores: Float64, seed: int = 0) -> Interval:
    """Mean over patients' scores (P,) with its percentile bootstrap; NaN are left out, and of nobody all is NaN."""
    values = scores[np.isfinite(scores)]
    if not len(values):
        return Interval(float("nan"), float("nan"), float("nan"))
    low, high = bootstrapped(values, seed)
    return Interval(float(values.mean()), low, high)


def interval_over_columns(scores: Float64, seed: int = 0) -> Interval:
    """The mean over columns (K classes, regions) of their means over patients (P, K), so that what few patients have
    counts as much as what all have; with the percentile bootstrap over patients. NaN are left out, in a resample also
    columns that none of the drawn patients has."""
    there = np.isfinite(scores)
    kept = there.any(1)
    values, there = np.where(there, scores, 0.0)[kept], there[kept].astype(np.float64)
    if not len(values):
        return Interval(float("nan"), float("nan"), float("nan"))
    drawn = np.random.default_rng(seed).integers(0, len(values), (RESAMPLES, len(values)))
    times = np.stack([np.bincount(each, minlength=len(values)) for each in drawn]).astype(np.float64)
    sums, counts = times @ values, times @ there
    means = np.divide(sums, counts, out=np.full(sums.shape, np.nan), where=counts > 0)
    low, high = np.quantile(np.nanmean(means, axis=1), [0.025, 0.975])
    found = there.sum(0) > 0
    mean = (values.sum(0)[found] / there.sum(0)[found]).mean()
    return Interval(float(mean), float(low), float(high))


def bootstrapped(values: Float64, seed: int) -> tuple[float, float]:
    """The 95 % interval of the mean of patients' values (P,), by percentiles of a bootstrap over them."""
    drawn = np.random.default_rng(seed).integers(0, len(values), (RESAMPLES, len(values)))
    low, high = np.quantile(values[drawn].mean(1), [0.025, 0.975])
    return float(low), float(high)
