"""Intervals of any figure of readers and cases: by the jackknife over cases (Obuchowski and Rockette), or by a
bootstrap over both."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from fabrica.errors import UsageError
from fabrica.image import Float64
from fabrica.metrics.readers.estimate import (
    CONSTANT,
    LEVEL,
    ONE_READER,
    Estimate,
    by_t,
    checked_level,
    notes,
)
from fabrica.metrics.readers.ustatistics import Spread

RESAMPLES = 2000
Index = npt.NDArray[np.int64]


def obuchowski_rockette(figures: Float64, without: Float64) -> Spread:
    """The mean over readers of a figure of merit, readers and cases both random.

    figures  (..., R), each reader's figure of all cases; for two modalities the differences of the figures.
    without  (..., R, J), the same figures with one case less, for each of J cases.

    The variance is (MS_R + R max(Cov2, 0)) / R, where MS_R is the variance of the figures between readers and Cov2 the
    mean covariance of two readers' figures that comes from the cases, by the jackknife; Hillis's degrees of freedom
    (Obuchowski and Rockette 1995, Communications in Statistics 24:285; Hillis 2014, Statistics in Medicine 33:330,
    section 3). With one reader the variance is the jackknife's, over cases alone.
    """
    readers, cases = without.shape[-2:]
    if figures.shape != without.shape[:-1] or cases < 2:
        raise UsageError(
            f"figures of {figures.shape}, with a case less {without.shape}; expected (R,) and (R, J), J at least 2"
        )
    off = without - without.mean(-1, keepdims=True)
    covariance = (off @ np.swapaxes(off, -1, -2)) * (cases - 1) / cases
    if readers > 1:
        return of_figures(figures, covariance)
    variance = covariance[..., 0, 0]
    return Spread(figures.mean(-1), variance, variance, np.full(variance.shape, cases - 1.0))


def of_figures(figures: Float64, covariance: Float64) -> Spread:
    """The same of figures (..., R) of two readers or more whose covariances from the cases are known, (..., R, R)."""
    readers = figures.shape[-1]
    diagonal = np.trace(covariance, axis1=-2, axis2=-1)
    between = np.maximum((covariance.sum((-2, -1)) - diagonal) / (readers * (readers - 1)), 0)
    squares = figures.var(-1, ddof=1)
    whole = squares + readers * between
    with np.errstate(divide="ignore", invalid="ignore"):
        df = np.where(squares > 0, whole**2 / (squares**2 / (readers - 1)), np.inf)
    return Spread(figures.mean(-1), whole / readers, whole / readers, df)


def estimate(
    found: Spread, *, readers: int, level: float = LEVEL, null: float = 0.0, scale: str = "identity"
) -> Estimate:
    """The interval of one such mean, and its test against `null`."""
    value, variance, df = float(found.value), float(found.variance), float(found.df)
    note = ONE_READER if readers < 2 else ""
    method = "Obuchowski-Rockette, jackknife over cases" + (", logit" if scale == "logit" else "")
    if not variance > 1e-15 * max(value**2, 1e-300):
        return Estimate(value, np.nan, np.nan, 0.0, df, np.nan, method, notes(note, CONSTANT))
    return by_t(value, variance, df, level=level, null=null, scale=scale, method=method, note=note)


def bootstrap(
    statistic: Callable[[Index, Index], float],
    readers: int,
    cases: int,
    *,
    strata: npt.ArrayLike | None = None,
    seed: int = 0,
    resamples: int = RESAMPLES,
    level: float = LEVEL,
) -> Estimate:
    """The percentile interval of statistic(readers, cases), both drawn anew with replacement by their indices.

    strata  (C,) labels; cases are drawn within them, as in a study with so many diseased cases.

    Its variance is (R - 1) / R of that between readers, but counts that of single readings three times (Owen 2007,
    Annals of Applied Statistics 1:386): where readings vary much it is too wide. Prefer intervals by Student's t.
    Resamples without a number (NaN) are left out, and said where they are more than one in twenty.
    """
    checked_level(level)
    if min(readers, cases) < 1:
        raise UsageError(f"{readers} readers and {cases} cases; a bootstrap needs at least one of each")
    labels = np.zeros(cases) if strata is None else np.asarray(strata)
    if labels.shape != (cases,):
        raise UsageError(f"strata have shape {labels.shape}; expected ({cases},)")
    groups = [np.flatnonzero(labels == label) for label in np.unique(labels)]
    rng = np.random.default_rng(seed)
    drawn = [
        statistic(
            rng.integers(0, readers, readers), np.concatenate([rng.choice(group, len(group)) for group in groups])
        )
        for _ in range(resamples)
    ]
    value = float(statistic(np.arange(readers), np.arange(cases)))
    return _percentiles(value, np.asarray(drawn), level, "bootstrap over readers and cases")


def bootstrap_mean(
    table: npt.ArrayLike, *, seed: int = 0, resamples: int = RESAMPLES, level: float = LEVEL
) -> Estimate:
    """The same for the mean of a table (R, C), NaN where there is no answer, all resamples at once."""
    values = np.asarray(table, dtype=np.float64)
    if values.ndim != 2 or not np.isfinite(values).any():
        raise UsageError(f"a table of shape {values.shape}; expected (readers, cases) with at least one number")
    checked_level(level)
    rng = np.random.default_rng(seed)
    there = np.isfinite(values).astype(np.float64)
    times = [rng.multinomial(n, np.full(n, 1 / n), resamples).astype(np.float64) for n in values.shape]
    sums = ((times[0] @ np.nan_to_num(values)) * times[1]).sum(1)
    counts = ((times[0] @ there) * times[1]).sum(1)
    means = np.divide(sums, counts, out=np.full(resamples, np.nan), where=counts > 0)
    return _percentiles(float(np.nanmean(values)), means, level, "bootstrap over readers and cases")


def _percentiles(value: float, drawn: Float64, level: float, method: str) -> Estimate:
    known = drawn[np.isfinite(drawn)]
    lost = len(drawn) - len(known)
    if not len(known):
        return Estimate(value, np.nan, np.nan, method=method, note="no resample has a value; no interval can be given")
    low, high = np.quantile(known, [0.5 - level / 2, 0.5 + level / 2])
    note = f"{lost} of {len(drawn)} resamples have no value and are left out" if lost > len(drawn) / 20 else ""
    return Estimate(
        value, float(low), float(high), float(known.std(ddof=1)) if len(known) > 1 else np.nan, method=method, note=note
    )
