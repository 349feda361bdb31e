"""Is a difference large, small enough, or not too bad? Superiority, equivalence and non-inferiority of estimates, and
Holm's correction of several tests.

All take an `Estimate` whose interval is known at any level, so that readers and cases are random wherever the estimate
says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fabrica.errors import UsageError
from fabrica.metrics.readers.estimate import Estimate

ALPHA = 0.05
CONSTANT = "the difference has no standard error; nothing can be shown"


@dataclass(frozen=True)
class Verdict:
    """What a test has shown.

    shown      whether the claim holds at the level alpha.
    p          of the claim's opposite.
    low, high  the interval that decides: for equivalence that of level 1 - 2 alpha, which must lie within the margins;
               for the one-sided claims its one end, the other infinite.
    """

    shown: bool
    p: float
    low: float
    high: float
    alpha: float
    method: str
    note: str = ""


def equivalent(of: Estimate, low: float, high: float, *, alpha: float = ALPHA) -> Verdict:
    """Two one-sided tests (TOST; Schuirmann 1987, Journal of Pharmacokinetics and Biopharmaceutics 15:657): that the
    difference lies between the margins low and high, which are stated before the study.

    Raises UsageError for margins that are not in order, or hold no 0."""
    if not low < 0 < high:
        raise UsageError(f"margins {low:g} and {high:g}; expected one below 0 and one above, such as -0.05 and 0.05")
    method = f"TOST, margins {low:g} to {high:g}"
    p = max(of.p_above(low), of.p_below(high))
    if np.isnan(p):
        return Verdict(False, np.nan, np.nan, np.nan, _checked(alpha), method, CONSTANT)
    return Verdict(p <= alpha, p, *of.at(1 - 2 * _checked(alpha)), alpha, method)


def not_inferior(of: Estimate, margin: float, *, alpha: float = 0.025) -> Verdict:
    """That the difference is above -margin: the new way is at most so much worse. One-sided, 0.025 by custom."""
    if not margin > 0:
        raise UsageError(f"the margin is {margin:g}; expected a number above 0: how much worse is still acceptable")
    return _above(of, -margin, alpha, f"non-inferiority, margin {margin:g}")


def superior(of: Estimate, by: float = 0.0, *, alpha: float = 0.025) -> Verdict:
    """That the difference is above `by`. One-sided, 0.025 by custom, as good as a two-sided test at 0.05."""
    return _above(of, by, alpha, f"superiority by more than {by:g}")


def _above(of: Estimate, least: float, alpha: float, method: str) -> Verdict:
    if np.isnan(p := of.p_above(least)):
        return Verdict(False, np.nan, np.nan, np.nan, _checked(alpha), method, CONSTANT)
    return Verdict(p <= alpha, p, of.at(1 - 2 * _checked(alpha))[0], np.inf, alpha, method)


def holm(p_values: Sequence[float]) -> list[float]:
    """P values corrected for their number (Holm 1979, Scandinavian Journal of Statistics 6:65), in the same order: each
    may be compared with alpha. NaN, a test that could not be done, stays NaN and counts for nothing."""
    given = np.asarray(p_values, dtype=np.float64)
    known = np.flatnonzero(np.isfinite(given))
    if ((given[known] < 0) | (given[known] > 1)).any():
        raise UsageError("p values lie between 0 and 1; others were given")
    order = known[np.argsort(given[known], kind="stable")]
    raised = given[order] * np.arange(len(order), 0, -1)
    out = np.full(given.shape, np.nan)
    out[order] = np.minimum(np.maximum.accumulate(raised), 1.0) if len(order) else raised
    return [float(p) for p in out]


def _checked(alpha: float) -> float:
    if not 0 < alpha < 0.5:
        raise UsageError(f"alpha is {alpha:g}; expected a number between 0 and 0.5, such as 0.05")
    return alpha
