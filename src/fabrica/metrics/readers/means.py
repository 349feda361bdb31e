"""Means over readers and cases that are both a sample: shares of right answers, scores, logarithms of times.

The variance of such a mean is that of its readers, of its cases and of both together, by one-shot U-statistics (Gallas,
Pennello and Myers 2007, Journal of the Optical Society of America A 24:B70, for binary answers). Intervals over cases
alone, or over all answers as if they were independent, are too narrow for other readers. Components that are estimated
below 0 count as 0 (`spread`, bounded).
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from fabrica.errors import UsageError
from fabrica.image import Float64
from fabrica.metrics.memorisation import wilson
from fabrica.metrics.readers.estimate import (
    CONSTANT,
    LEVEL,
    ONE_READER,
    Estimate,
    by_t,
    checked_level,
    notes,
)
from fabrica.metrics.readers.ustatistics import (
    CASES,
    READERS_AND_CASES,
    Moments,
    Spread,
    moments,
    spread,
    spread_of_difference,
)

METHOD = "two-way random effects, Student's t"
APART = "in one condition no two readers have answered different cases; no interval can be given"
ONE_CASE = "one case: no interval can be given"
ALIKE = "all answers are alike: Wilson's interval of as many answers as there are cases, as if all readers were one"


def mean(table: npt.ArrayLike, *, level: float = LEVEL, scale: str = "identity", null: float = 0.0) -> Estimate:
    """The mean of a table (R, C) of readers and cases, NaN where a reader has not answered; tested against `null`.

    scale  "logit" for shares of answers of 0 and 1: the interval stays inside (0, 1), and answers that are all alike
           have Wilson's interval of C answers instead of one of width 0.

    One reader is a sample of cases alone; one case, and values that are all equal, have no interval, and the note says
    so. Raises UsageError for other shapes and a table without any number.
    """
    checked_level(level)
    values = checked(table)
    values = values[np.isfinite(values).any(1)]
    there = np.isfinite(values).astype(np.float64)
    found = spread(table_moments(values, there), bounded=True)
    readers, cases = (int(there.any(axis).sum()) for axis in (1, 0))
    if scale == "logit":
        if not np.isin(values[there > 0], (0.0, 1.0)).all():
            raise UsageError("a table of shares holds values other than 0 and 1; take scale identity for their mean")
        if float(found.value) in (0.0, 1.0):
            low, high = wilson(float(found.value) * cases, cases, level)
            return Estimate(float(found.value), low, high, method="Wilson", note=ALIKE)
    return _estimate(found, readers, cases, level, scale, null)


def mean_difference(one: npt.ArrayLike, two: npt.ArrayLike, *, level: float = LEVEL) -> Estimate:
    """The mean of table one (R, C) less that of table two, of the same readers and cases; NaN where there is no answer.

    Raises UsageError for tables of other shapes."""
    checked_level(level)
    first, second = checked(one), checked(two)
    if first.shape != second.shape:
        raise UsageError(f"tables of {first.shape} and {second.shape}; expected the same readers and cases")
    kept = (np.isfinite(first) | np.isfinite(second)).any(1)
    first, second = first[kept], second[kept]
    w1, w2 = (np.isfinite(values).astype(np.float64) for values in (first, second))
    found = difference_spread(first, w1, second, w2)
    both = w1 * w2
    return _estimate(found, int(both.any(1).sum()), int(both.any(0).sum()), level, "identity", 0.0)


def difference_spread(one: Float64, there_one: Float64, two: Float64, there_two: Float64) -> Spread:
    """Mean of one (..., R, C) less that of two, with its variance."""
    return spread_of_difference(
        table_moments(one, there_one),
        table_moments(two, there_two),
        table_moments(one, there_one, two, there_two),
        bounded=True,
    )


def table_moments(
    one: Float64, there: Float64, two: Float64 | None = None, there_two: Float64 | None = None
) -> Moments:
    """Moments of tables (..., R, C), over readers and cases; over cases alone where there is one reader."""
    if two is None or there_two is None:
        two, there_two = one, there
    a, b = np.nan_to_num(one), np.nan_to_num(two)
    if one.shape[-2] > 1:
        return moments(a, there, b, there_two, READERS_AND_CASES)
    return moments(a[..., 0, :], there[..., 0, :], b[..., 0, :], there_two[..., 0, :], CASES)


def checked(table: npt.ArrayLike) -> Float64:
    """A table (R, C) as float64 with at least one number."""
    values = np.asarray(table, dtype=np.float64)
    if values.ndim != 2:
        raise UsageError(f"the table has shape {values.shape}; expected (readers, cases)")
    if np.isinf(values).any():
        raise UsageError("the table holds infinite values; expected numbers, NaN where an answer is missing")
    if not np.isfinite(values).any():
        raise UsageError("the table holds no number at all; expected answers by readers and cases")
    return values


def _estimate(found: Spread, readers: int, cases: int, level: float, scale: str, null: float) -> Estimate:
    value, variance, df = float(found.value), float(found.variance), float(found.df)
    said = [ONE_READER] if readers < 2 else []
    if cases < 2 or np.isnan(variance):
        return Estimate(value, np.nan, np.nan, method=METHOD, note=notes(*said, ONE_CASE if cases < 2 else APART))
    if variance == 0:
        return Estimate(value, np.nan, np.nan, 0.0, df, np.nan, METHOD, notes(*said, CONSTANT))
    method = METHOD + (", logit" if scale == "logit" else "")
    made = by_t(value, variance, df, level=level, null=null, scale=scale, method=method, note=notes(*said))
    tested = scale == "identity" or 0 < null < 1  # no share can be as far out as 0 or 1 on the logit scale
    return made if tested else replace(made, p=np.nan)
