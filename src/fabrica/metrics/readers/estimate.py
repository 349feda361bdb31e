"""What an analysis says: a value with its interval and test, and how they were come by."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from scipy import special, stats
from scipy.optimize import brentq

from fabrica.errors import UsageError
from fabrica.image import Float64

LEVEL = 0.95
ONE_READER = "one reader: the interval is over cases alone, and says nothing of other readers"
CONSTANT = "nothing varies between readers and cases; no interval can be given"
NEGATIVE = (
    "the unbiased variance is negative, as it may be by chance; the interval is of the biased one (never too small)"
)
NORMAL_ABOVE = 50.0  # degrees of freedom above which iMRMC takes the normal distribution for Student's t


@dataclass(frozen=True)
class Estimate:
    """A value with its interval.

    low, high  the interval; NaN where it cannot be given, and `note` says why.
    error      standard error; NaN where the method knows none.
    df         degrees of freedom of Student's t; infinite for the normal distribution.
    p          two-sided, of the hypothesis that `method` names; NaN where none is tested.
    method     the field's name of the interval.
    note       what a reader of the report must know of it; empty when all is as usual.
    limits     the interval at any level of confidence, of methods that do not lay as much on either side; None: value
               ± t × error.
    """

    value: float
    low: float
    high: float
    error: float = float("nan")
    df: float = float("inf")
    p: float = float("nan")
    method: str = ""
    note: str = ""
    limits: Callable[[float], tuple[float, float]] | None = field(default=None, compare=False, repr=False)

    def at(self, level: float) -> tuple[float, float]:
        """Low and high at this level of confidence; NaN without a standard error."""
        checked_level(level)
        if not (np.isfinite(self.error) and self.error > 0):
            return float("nan"), float("nan")
        if self.limits:
            return self.limits(level)
        half = float(self._t().ppf(0.5 + level / 2)) * self.error
        return self.value - half, self.value + half

    def p_above(self, least: float) -> float:
        """One-sided p of the hypothesis that the truth is `least` or less; NaN without a standard error."""
        if not (np.isfinite(self.error) and self.error > 0):
            return float("nan")
        if not self.limits:
            return float(self._t().sf((self.value - least) / self.error))
        return _tail(self.limits, self.value, least)

    def p_below(self, most: float) -> float:
        """The same of `most` or more."""
        return 1 - self.p_above(most)

    def _t(self) -> stats.rv_continuous:
        """The distribution, its degrees of freedom as in the interval."""
        return stats.norm() if not self.df <= NORMAL_ABOVE else stats.t(max(np.floor(self.df), 1.0))


LEAST_TAIL = 1e-10


def _tail(limits: Callable[[float], tuple[float, float]], value: float, null: float) -> float:
    """The one-sided p at which the interval's end reaches the null: the lower end where the value is above it."""
    end = 0 if value >= null else 1

    def past(alpha: float) -> float:
        return limits(1 - 2 * alpha)[end] - null

    sign = 1 if end == 0 else -1
    if past(LEAST_TAIL) * sign >= 0:
        alpha = LEAST_TAIL
    elif past(0.5 - LEAST_TAIL) * sign <= 0:  # the value is the null, but for rounding
        alpha = 0.5
    else:
        alpha = float(brentq(past, LEAST_TAIL, 0.5 - LEAST_TAIL))
    return alpha if end == 0 else 1 - alpha


def t_interval(
    value: Float64, variance: Float64, df: Float64, *, level: float = LEVEL, null: float = 0.0, scale: str = "identity"
) -> tuple[Float64, Float64, Float64]:
    """Low, high and two-sided p of values with these variances and degrees of freedom, all of one shape.

    Degrees of freedom are rounded down, and above 50 the normal distribution is taken, as iMRMC does.
    scale  "logit": the interval of a share is symmetric in log(v / (1 - v)), by the delta method, and so stays inside
           (0, 1); a share of 0 or 1 has no such interval (NaN).
    """
    checked_level(level)
    checked_scale(scale)
    value, variance, df = np.broadcast_arrays(
        np.asarray(value, np.float64), np.asarray(variance, np.float64), np.asarray(df, np.float64)
    )
    quantile = quantile_of(df, level)
    with np.errstate(divide="ignore", invalid="ignore"):
        error = np.sqrt(variance)
        if scale == "identity":
            low, high = value - quantile * error, value + quantile * error
            away = np.abs(value - null) / error
        else:
            middle, spread = special.logit(value), error / (value * (1 - value))
            low, high = special.expit(middle - quantile * spread), special.expit(middle + quantile * spread)
            away = np.abs(middle - special.logit(null)) / spread
        p = 2 * stats.t.sf(away, _whole(df))
    return low, high, p


def quantile_of(df: Float64, level: float) -> Float64:
    """How many standard errors an interval of this level reaches to either side."""
    return np.asarray(stats.t.ppf(0.5 + level / 2, _whole(df)))


def _whole(df: Float64) -> Float64:
    return np.where(df > NORMAL_ABOVE, np.inf, np.maximum(np.floor(df), 1.0))


def by_t(
    value: float,
    variance: float,
    df: float,
    *,
    level: float,
    null: float = 0.0,
    scale: str = "identity",
    method: str = "",
    note: str = "",
) -> Estimate:
    """One value with the interval and the test of `t_interval`."""
    low, high, p = t_interval(
        np.asarray(value), np.asarray(variance), np.asarray(df), level=level, null=null, scale=scale
    )
    return Estimate(value, float(low), float(high), float(np.sqrt(variance)), df, float(p), method, note)


def notes(*said: str) -> str:
    """Several remarks as one; the empty ones are left out."""
    return "; ".join(filter(None, said))


def checked_level(level: float) -> None:
    """Raises UsageError unless it is a level of confidence."""
    if not 0 < level < 1:
        raise UsageError(f"the level of confidence is {level}; expected a number between 0 and 1, such as 0.95")


def checked_scale(scale: str) -> str:
    """The scale; UsageError for any but identity and logit."""
    if scale not in ("identity", "logit"):
        raise UsageError(f"no scale {scale!r}; expected identity or logit")
    return scale
