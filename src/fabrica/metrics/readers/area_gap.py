"""The interval of a difference of two areas, made of the intervals of both: the method of variance estimates recovery
(MOVER; Zou and Donner 2008, Statistics in Medicine 27:1693; of correlated areas under ROC curves Zou and Yue 2013,
Statistics in Medicine 32:5077).

Student's interval d ± q s is symmetric, and an area near 1 is skewed: the higher it happens to come out, the less it
seems to vary. Of a first area that is the lower one s is therefore too small just where the difference comes out too
high, and "not worse" is claimed too often: twice as often as it may at areas of 0.91 and 0.96. With [l, u] the interval
of each area on the logit scale and r the correlation of both,

    low  = d - sqrt((A1 - l1)^2 + (u2 - A2)^2 - 2 r (A1 - l1) (u2 - A2))
    high = d + sqrt((u1 - A1)^2 + (A2 - l2)^2 - 2 r (u1 - A1) (A2 - l2)).

q is the quantile of the difference's degrees of freedom, and r follows from the three variances. Where both areas are
much correlated and intervals reach the ends of the scale, a larger q may give a shorter side: the longest side of all
smaller q is taken, so that an interval of a higher level holds that of a lower one.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import special

from fabrica.image import Float64
from fabrica.metrics.readers.estimate import quantile_of
from fabrica.metrics.readers.ustatistics import Spread

METHOD = "Student's t, BDG degrees of freedom, of both AUCs' logit intervals (MOVER)"
QUANTILES = np.geomspace(0.1, 60, 36)  # at which sides are looked at, beside the one that is asked for


@dataclass(frozen=True, eq=False)
class AreaGap:
    """Two areas and their difference `gap`, one less two (...)."""

    one: Spread
    two: Spread
    gap: Spread

    def limits(self, level: float) -> tuple[Float64, Float64]:
        """Low and high (...) at this level of confidence; NaN where nothing varies. An area of 0 or 1 has no interval
        on the logit scale: Student's of the difference, then."""
        of, first, second = self.gap, self.one.value, self.two.value
        q, r = quantile_of(of.df, level), self._correlation()
        upto = np.minimum(np.append(QUANTILES, np.inf).reshape(-1, *[1] * q.ndim), q)
        (l1, u1), (l2, u2) = (_logit(area, upto) for area in (self.one, self.two))
        below, above = _side(first - l1, u2 - second, r).max(0), _side(u1 - first, second - l2, r).max(0)
        plain = q * np.sqrt(np.maximum(of.usable, 0.0))
        inside = (first > 0) & (first < 1) & (second > 0) & (second < 1)
        below, above = (np.where(inside, side, plain) for side in (below, above))
        varies = of.usable > 0
        return np.where(varies, of.value - below, np.nan), np.where(varies, of.value + above, np.nan)

    def _correlation(self) -> Float64:
        """Such that both variances give that of the difference."""
        v1, v2 = self.one.usable, self.two.usable
        product = np.sqrt(v1 * v2)
        found = np.divide(v1 + v2 - self.gap.usable, 2 * product, out=np.zeros(product.shape), where=product > 0)
        return np.asarray(np.clip(found, -1, 1))


def _logit(area: Spread, q: Float64) -> tuple[Float64, Float64]:
    value = area.value
    with np.errstate(divide="ignore", invalid="ignore"):
        middle, half = special.logit(value), q * np.sqrt(area.usable) / (value * (1 - value))
        return special.expit(middle - half), special.expit(middle + half)


def _side(one: Float64, two: Float64, r: Float64) -> Float64:
    return np.asarray(np.sqrt(np.maximum(one**2 + two**2 - 2 * r * one * two, 0.0)))
