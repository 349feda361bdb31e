"""Yes-no detection by signal detection theory: d' and the criterion, and the ROC curve of each reader.

Green and Swets 1966; Macmillan and Creelman 2005, "Detection theory", chapters 1 and 2.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import stats

from fabrica.errors import UsageError
from fabrica.image import Float64
from fabrica.metrics.readers.estimate import LEVEL, Estimate, checked_level
from fabrica.metrics.readers.mrmc import checked
from fabrica.metrics.readers.resampling import estimate, obuchowski_rockette

CORRECTION = "half an answer is added to each of the four counts (Hautus 1995)"


@dataclass(frozen=True)
class Sensitivity:
    """d' = z(hit rate) - z(false alarm rate), how far apart a reader holds the two classes in standard deviations, and
    the criterion c = -(z(hit rate) + z(false alarm rate)) / 2, above 0 for readers who rarely say "diseased"."""

    d_prime: Estimate
    criterion: Estimate


def sensitivity(answers: npt.ArrayLike, truth: npt.ArrayLike, *, level: float = LEVEL) -> Sensitivity:
    """d' and criterion, means over readers, with intervals over readers and cases (Obuchowski and Rockette's analysis
    of each reader's figures).

    answers  (R, C), 1 for "diseased", 0 for "normal", NaN for none; truth (C,), 1 for disease.

    Rates of 0 and 1 would have an infinite z: half an answer is added to hits, misses, false alarms and correct
    rejections of every reader alike (Hautus 1995, Behavior Research Methods 27:46; the log-linear rule). Raises
    UsageError for other shapes and values, and fewer than two cases of either class.
    """
    checked_level(level)
    table, diseased = _answers(answers, truth)
    d, c, d_without, c_without = of_answers(table, diseased)
    kept = np.isfinite(table).any(1)
    both = [
        estimate(obuchowski_rockette(value[kept], without[kept]), readers=int(kept.sum()), level=level)
        for value, without in ((d, d_without), (c, c_without))
    ]
    return Sensitivity(*both)


def of_answers(table: Float64, diseased: npt.NDArray[np.bool_]) -> tuple[Float64, Float64, Float64, Float64]:
    """d' and c (..., R) of answers (..., R, C), and both with each case left out in turn (..., R, C)."""
    said, there = np.nan_to_num(table), np.isfinite(table).astype(np.float64)
    ill = diseased.astype(np.float64)
    hits, of_ill = (said * ill).sum(-1), (there * ill).sum(-1)
    alarms, of_normal = (said * (1 - ill)).sum(-1), (there * (1 - ill)).sum(-1)
    d, c = _figures(hits, of_ill, alarms, of_normal)
    d_without, c_without = _figures(
        hits[..., None] - said * ill,
        of_ill[..., None] - there * ill,
        alarms[..., None] - said * (1 - ill),
        of_normal[..., None] - there * (1 - ill),
    )
    return d, c, d_without, c_without


def reader_sensitivity(answers: npt.ArrayLike, truth: npt.ArrayLike, *, level: float = LEVEL) -> list[Sensitivity]:
    """Each reader's d' and criterion, with normal intervals over cases by the delta method (Gourevitch, Galanter 1967,
    Psychometrika 32:25); rates corrected as in `sensitivity`. NaN for a reader who has not seen both classes."""
    checked_level(level)
    table, diseased = _answers(answers, truth, least=0)
    quantile = float(stats.norm.ppf(0.5 + level / 2))
    found = []
    for row in table:
        there = np.isfinite(row)
        counts = [int(there[group].sum()) for group in (diseased, ~diseased)]
        if min(counts) < 1:
            nothing = Estimate(np.nan, np.nan, np.nan, note="no case of one class was read")
            found.append(Sensitivity(nothing, nothing))
            continue
        rates = [(np.nansum(row[g]) + 0.5) / (n + 1) for g, n in zip((diseased, ~diseased), counts, strict=True)]
        z = stats.norm.ppf(rates)
        of = [r * (1 - r) / (n * stats.norm.pdf(s) ** 2) for r, n, s in zip(rates, counts, z, strict=True)]
        error = float(np.sqrt(sum(of)))
        note = CORRECTION if any(np.ptp(row[there & g]) == 0 for g in (diseased, ~diseased)) else ""
        figures = (float(z[0] - z[1]), error), (float(-(z[0] + z[1]) / 2), error / 2)
        found.append(
            Sensitivity(
                *(
                    Estimate(v, v - quantile * e, v + quantile * e, e, method="Gourevitch-Galanter", note=note)
                    for v, e in figures
                )
            )
        )
    return found


@dataclass(frozen=True, eq=False)
class Curve:
    """A reader's ROC curve from (0, 0) to (1, 1): false positive rate, true positive rate, and the thresholds (scores
    at or above which a case is called diseased), all (K,)."""

    false_positive: Float64
    true_positive: Float64
    thresholds: Float64


def roc(scores: npt.ArrayLike, truth: npt.ArrayLike) -> list[Curve]:
    """The empirical ROC curve of each reader's scores (R, C), higher for disease, NaN where there is none. The area
    below it by the trapezium rule is the reader's AUC. Raises UsageError where a reader has not read both classes."""
    table, diseased = checked(scores, truth, least=1)
    curves = []
    for reader, row in enumerate(table):
        there = np.isfinite(row)
        ill, normal = np.sort(row[there & diseased]), np.sort(row[there & ~diseased])
        if not len(ill) or not len(normal):
            raise UsageError(f"reader {reader} has read no case of one class; leave that reader out of the ROC curves")
        cuts = np.append(np.inf, np.unique(row[there])[::-1])
        rates = [1 - np.searchsorted(group, cuts) / len(group) for group in (normal, ill)]
        curves.append(Curve(rates[0], rates[1], cuts))
    return curves


def _figures(hits: Float64, of_ill: Float64, alarms: Float64, of_normal: Float64) -> tuple[Float64, Float64]:
    hit = stats.norm.ppf((hits + 0.5) / (of_ill + 1))
    alarm = stats.norm.ppf((alarms + 0.5) / (of_normal + 1))
    return hit - alarm, -(hit + alarm) / 2


def _answers(answers: npt.ArrayLike, truth: npt.ArrayLike, least: int = 2) -> tuple[Float64, npt.NDArray[np.bool_]]:
    table, diseased = checked(answers, truth, least)
    if not np.isin(table[np.isfinite(table)], (0, 1)).all():
        raise UsageError("answers hold values other than 0 and 1; cut scores at a threshold first")
    return table, diseased
