"""Shares of right answers, and paired comparisons of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import stats

from fabrica.errors import UsageError
from fabrica.metrics.memorisation import wilson
from fabrica.metrics.readers.estimate import LEVEL, Estimate, checked_level


def share(hits: float, of: float, *, level: float = LEVEL) -> Estimate:
    """A share of independent answers with Wilson's interval (1927); of none, NaN and a note.

    Raises UsageError for counts below 0, and more hits than answers."""
    checked_level(level)
    if not 0 <= hits <= of:
        raise UsageError(f"{hits:g} hits of {of:g} answers; expected 0 <= hits <= answers")
    if of == 0:
        return Estimate(np.nan, np.nan, np.nan, method="Wilson", note="no answers: there is no share")
    value = hits / of
    low, high = wilson(hits, of, level)
    # rounding may leave the ends beside the value where it is 0 or 1
    return Estimate(value, min(low, value), max(high, value), float(np.sqrt(value * (1 - value) / of)), method="Wilson")


@dataclass(frozen=True)
class Accuracy:
    """One reader's shares of right answers: of all, of diseased (sensitivity) and of normal cases (specificity), with
    Wilson's intervals over cases; and the counts."""

    accuracy: Estimate
    sensitivity: Estimate
    specificity: Estimate
    hits: int
    misses: int
    false_alarms: int
    correct_rejections: int


def accuracy(answers: npt.ArrayLike, truth: npt.ArrayLike, *, level: float = LEVEL) -> Accuracy:
    """One reader's answers (C,), 1 for "diseased", 0 for "normal", NaN for none, against the truth (C,)."""
    said, ill = np.asarray(answers, dtype=np.float64), np.asarray(truth)
    if said.ndim != 1 or said.shape != ill.shape:
        raise UsageError(f"answers have shape {said.shape}, truth {ill.shape}; expected (cases,) both")
    there = np.isfinite(said)
    if not (np.isin(said[there], (0, 1)).all() and np.isin(ill, (0, 1)).all()):
        raise UsageError("answers or truth hold values other than 0 and 1; cut scores at a threshold first")
    yes, ill = said[there] == 1, ill[there].astype(bool)
    hits, misses = int((yes & ill).sum()), int((~yes & ill).sum())
    alarms, rejections = int((yes & ~ill).sum()), int((~yes & ~ill).sum())
    return Accuracy(
        share(hits + rejections, len(yes), level=level),
        share(hits, hits + misses, level=level),
        share(rejections, alarms + rejections, level=level),
        hits,
        misses,
        alarms,
        rejections,
    )


@dataclass(frozen=True)
class Paired:
    """Two conditions' answers to the same cases.

    only_one, only_two  cases that one condition alone has right.
    difference          share right of one less that of two, with Bonett and Price's interval (2012).
    p                   McNemar's exact test, two-sided: the binomial test that a case on which they differ is as likely
                        to go either way. 1 where they never differ.
    mid_p               the same with half the probability of what was seen (Fagerland et al. 2013): nearer to its
    level.
    """

    only_one: int
    only_two: int
    difference: Estimate
    p: float
    mid_p: float


def mcnemar(one: npt.ArrayLike, two: npt.ArrayLike, *, level: float = LEVEL) -> Paired:
    """Answers right (1) or wrong (0) of two conditions (C,) to the same cases, of one reader; NaN leaves a case out.

    McNemar 1947; exact by the binomial distribution, and fit for any number of disagreements. Cases of several readers
    are not independent: compare those by `means.mean_difference`."""
    checked_level(level)
    first, second = np.asarray(one, dtype=np.float64), np.asarray(two, dtype=np.float64)
    if first.ndim != 1 or first.shape != second.shape:
        raise UsageError(f"answers have shapes {first.shape} and {second.shape}; expected (cases,) both")
    both = np.isfinite(first) & np.isfinite(second)
    first, second = first[both], second[both]
    if not np.isin(np.concatenate([first, second]), (0, 1)).all():
        raise UsageError("answers hold values other than 0 (wrong) and 1 (right)")
    if not len(first):
        raise UsageError("no case was answered in both conditions")
    n, b, c = len(first), int((first > second).sum()), int((second > first).sum())
    p = float(stats.binomtest(b, b + c).pvalue) if b + c else 1.0
    mid = 2 * stats.binom.cdf(min(b, c), b + c, 0.5) - stats.binom.pmf(b, b + c, 0.5)
    return Paired(b, c, _bonett_price(b, c, n, level), p, min(1.0, float(mid)))


def _bonett_price(b: int, c: int, n: int, level: float) -> Estimate:
    """Bonett and Price 2012, Journal of Educational and Behavioral Statistics 37:479, equation 6: two cases are added,
    one of each disagreement, so that no disagreement has an interval too."""
    one, two = (b + 1) / (n + 2), (c + 1) / (n + 2)
    error = float(np.sqrt((one + two - (one - two) ** 2) / (n + 2)))
    half = float(stats.norm.ppf(0.5 + level / 2)) * error
    low, high = max(-1.0, one - two - half), min(1.0, one - two + half)
    return Estimate((b - c) / n, low, high, error, method="Bonett-Price")
