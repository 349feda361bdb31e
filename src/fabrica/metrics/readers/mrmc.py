"""Multi-reader multi-case (MRMC) analysis of the area under the ROC curve: one-shot U-statistics.

Gallas 2006, "One-shot estimate of MRMC variance: AUC", Academic Radiology 13:353, for complete studies; Gallas and
Brown 2008, "Reader studies for validation of CAD systems", Neural Networks 21:387, for any other (readings missing,
split plot). Values, variances, degrees of freedom, intervals and components equal those of iMRMC 2.1.2.

The AUC of a reader is the share of pairs of a diseased and a normal case that he puts in order, ties counting half. The
study's AUC is that share over the pairs of all readers: their mean where all have read equally many cases.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from scipy.optimize import brentq
from scipy.stats import norm

from fabrica.errors import UsageError
from fabrica.image import Float64
from fabrica.metrics.readers.area_gap import METHOD, AreaGap
from fabrica.metrics.readers.estimate import (
    CONSTANT,
    LEVEL,
    NEGATIVE,
    ONE_READER,
    Estimate,
    by_t,
    checked_level,
    checked_scale,
    notes,
)
from fabrica.metrics.readers.ustatistics import (
    BOTH_CLASSES,
    READERS_AND_BOTH_CLASSES,
    Moments,
    Spread,
    moments,
    spread,
    spread_of_difference,
)

Bool = npt.NDArray[np.bool_]
ALIKE = "all pairs are in one order: the interval of these cases' number, as if all readers were one"


@dataclass(frozen=True, eq=False)
class Analysis:
    """The AUC of one modality, or the difference of two.

    value         AUC, or first less second.
    variance      unbiased (U-statistic); may be negative.
    variance_mle  biased (V-statistic), "MLE" in iMRMC.
    normal, t     the interval and the test (of AUC 0.5, of no difference) by the normal distribution, and by Student's
                  with BDG degrees of freedom: t is the one to report.
    moments       of the one modality; of the first, the second, and their product for a difference.
    readers, normals, diseased   how many have, or are, readings.
    note          what is unusual; stands in both estimates too.
    """

    value: float
    variance: float
    variance_mle: float
    normal: Estimate
    t: Estimate
    moments: tuple[Moments, ...]
    readers: int
    normals: int
    diseased: int
    note: str = ""


def auc(scores: npt.ArrayLike, truth: npt.ArrayLike, *, level: float = LEVEL, scale: str = "identity") -> Analysis:
    """AUC of one modality over readers and cases, both random.

    scores  (R, C), higher for disease; NaN where a reader has not read a case.
    truth   (C,), true or 1 for disease.
    scale   "logit": the interval of t stays inside (0, 1); an AUC of 0 or 1 has Newcombe's of as many cases, as if all
            readers were one.

    One reader is analysed over cases alone. Raises UsageError for fewer than two normal or two diseased cases that
    have been read, and where no two readings are independent.
    """
    table, diseased = checked(scores, truth)
    success, there = successes(table, diseased)
    fixed = _fixed(there)
    found = of_successes(success, there, fixed=fixed)
    of = _analysis(spread(found), (found,), [there], 0.5, level, scale, fixed)
    return replace(of, t=_by_size(of, level)) if scale == "logit" and of.value in (0.0, 1.0) else of


def _by_size(of: Analysis, level: float) -> Estimate:
    low, high = score_interval(of.value, of.normals, of.diseased, level)
    said = notes(ONE_READER if of.readers < 2 else "", ALIKE)
    return replace(of.t, low=low, high=high, method="Newcombe 2006, method 5", note=said)


def auc_difference(
    one: npt.ArrayLike, two: npt.ArrayLike, truth: npt.ArrayLike, *, level: float = LEVEL, scale: str = "identity"
) -> Analysis:
    """AUC of modality one less that of modality two, over the same readers and cases; arguments as of `auc`.

    scale  "logit": the interval and tests of t are made of both AUCs' on the logit scale (`area_gap`), which hold their
           level where AUCs are high and differ; "identity": iMRMC's.

    Readings that only one modality has count in that one's AUC, and their covariance is of what both have.
    """
    first, diseased = checked(one, truth)
    second, _ = checked(two, truth)
    if first.shape != second.shape:
        raise UsageError(f"scores have shapes {first.shape} and {second.shape}; expected the same readers and cases")
    (s1, w1), (s2, w2) = successes(first, diseased), successes(second, diseased)
    fixed = _fixed(w1) or _fixed(w2)
    if fixed and _read(w1) != _read(w2):
        raise UsageError("one reader has read a modality, and other readers the other: they cannot be compared")
    parts = (
        of_successes(s1, w1, fixed=fixed),
        of_successes(s2, w2, fixed=fixed),
        of_successes(s1, w1, s2, w2, fixed=fixed),
    )
    gap = AreaGap(spread(parts[0]), spread(parts[1]), spread_of_difference(*parts))
    plain = _analysis(gap.gap, parts, [w1, w2], 0.0, level, "identity", fixed)
    return replace(plain, t=_recovered(plain.t, gap, level)) if checked_scale(scale) == "logit" else plain


def _recovered(plain: Estimate, gap: AreaGap, level: float) -> Estimate:
    if not plain.error > 0:
        return plain

    def limits(at: float) -> tuple[float, float]:
        low, high = gap.limits(at)
        return float(low), float(high)

    low, high = limits(level)
    found = replace(plain, low=low, high=high, method=METHOD, limits=limits)
    return replace(found, p=2 * min(found.p_above(0.0), found.p_below(0.0)))


def reader_aucs(scores: npt.ArrayLike, truth: npt.ArrayLike, *, level: float = LEVEL) -> list[Estimate]:
    """Each reader's AUC, with its interval over cases: by the unbiased variance (that of the U-statistic of one reader)
    on the logit scale, which holds its level better than the plain one near 1 (Qin and Hotilovac 2008).

    A reader without two cases of each class has NaN and a note; an AUC of 0 or 1 has Newcombe's score interval
    (2006, method 5), the plain one being of width 0.
    """
    table, diseased = checked(scores, truth, least=0)
    return [_one_reader(row[None], diseased, level) for row in table]


def _one_reader(row: Float64, diseased: Bool, level: float) -> Estimate:
    success, there = successes(row, diseased)
    normals, positives = (int(there.any(axis).sum()) for axis in ((0, 2), (0, 1)))
    if min(normals, positives) < 1:
        return Estimate(np.nan, np.nan, np.nan, note="no case of one class was read")
    found = of_successes(success, there, fixed=True)
    value = float(found.one)
    if min(normals, positives) < 2:
        return Estimate(value, np.nan, np.nan, note="fewer than two cases of one class were read; no interval")
    if value in (0.0, 1.0):
        low, high = score_interval(value, normals, positives, level)
        return Estimate(value, low, high, method="Newcombe 2006, method 5", note="all pairs in order: no variance")
    of = spread(found)
    note = NEGATIVE if of.variance < 0 else ""
    variance = float(of.usable)
    return by_t(value, variance, np.inf, level=level, null=0.5, scale="logit", method="DeLong, logit", note=note)


def differences(one: Float64, two: Float64, diseased: Bool) -> AreaGap:
    """AUC of one less that of two, scores (..., R, C) of many studies at once: what `auc_difference` computes of
    one."""
    (s1, w1), (s2, w2) = successes(one, diseased), successes(two, diseased)
    first, second = of_successes(s1, w1), of_successes(s2, w2)
    return AreaGap(spread(first), spread(second), spread_of_difference(first, second, of_successes(s1, w1, s2, w2)))


def score_interval(value: float, normals: int, diseased: int, level: float = LEVEL) -> tuple[float, float]:
    """Interval of an AUC by its size alone (Newcombe 2006, Statistics in Medicine 25:559, method 5): all values whose
    distance is within their own standard error, Hanley and McNeil's with both classes of the mean size."""
    checked_level(level)
    z, mean = float(norm.ppf(0.5 + level / 2)), (normals + diseased) / 2

    def error(theta: float) -> float:
        more = (mean - 1) * ((1 - theta) / (2 - theta) + theta / (1 + theta))
        return float(np.sqrt(theta * (1 - theta) * (1 + more) / (normals * diseased)))

    tiny = 1e-9
    low = 0.0 if value <= tiny else brentq(lambda t: value - t - z * error(t), 0.0, value - tiny * value)
    high = 1.0 if value >= 1 - tiny else brentq(lambda t: value - t + z * error(t), value + tiny * (1 - value), 1.0)
    return float(low), float(high)


def checked(scores: npt.ArrayLike, truth: npt.ArrayLike, least: int = 2) -> tuple[Float64, Bool]:
    """Scores (R, C) as float64, and truth (C,) as bool; UsageError for anything else."""
    table, given = np.asarray(scores, dtype=np.float64), np.asarray(truth)
    if table.ndim != 2 or given.shape != table.shape[1:]:
        raise UsageError(
            f"scores have shape {table.shape}, truth {given.shape}; expected (readers, cases) and (cases,)"
        )
    if given.dtype != np.bool_ and not np.isin(given, (0, 1)).all():
        raise UsageError("truth holds values other than 0 and 1; say 1 for diseased and 0 for normal cases")
    if np.isinf(table).any():
        raise UsageError("scores hold infinite values; expected numbers, NaN where a reading is missing")
    diseased = given.astype(bool)
    seen = np.isfinite(table).any(0)
    for name, group in (("diseased", diseased), ("normal", ~diseased)):
        if (count := int((seen & group).sum())) < least:
            raise UsageError(f"{count} {name} cases were read; the variance of an AUC needs at least two of each class")
    return table, diseased


def successes(scores: Float64, diseased: Bool) -> tuple[Float64, Float64]:
    """Success (..., R, N, D) of readers' scores (..., R, C): 1 where a diseased case has the higher score than a normal
    one, 0.5 for ties, 0 otherwise; and 1 where both were read, else 0."""
    low, high = scores[..., ~diseased][..., :, None], scores[..., diseased][..., None, :]
    there = np.isfinite(low) & np.isfinite(high)
    with np.errstate(invalid="ignore"):
        success = (high > low) + 0.5 * (high == low)
    return np.asarray(success, np.float64), there.astype(np.float64)


def of_successes(
    one: Float64, there: Float64, two: Float64 | None = None, there_two: Float64 | None = None, *, fixed: bool = False
) -> Moments:
    """Moments of success tables (..., R, N, D); of two: their covariance. Fixed: these readers, random cases."""
    if two is None or there_two is None:
        two, there_two = one, there
    if not fixed:
        return moments(one, there, two, there_two, READERS_AND_BOTH_CLASSES)
    (first, w1), (second, w2) = _over_readers(one, there), _over_readers(two, there_two)
    return moments(first, w1, second, w2, BOTH_CLASSES)


def _over_readers(success: Float64, weight: Float64) -> tuple[Float64, Float64]:
    """The mean success over readers (..., N, D), and how many it is of."""
    summed = weight.sum(-3)
    return np.divide((success * weight).sum(-3), summed, out=np.zeros(summed.shape), where=summed > 0), summed


def _read(there: Float64) -> set[int]:
    return {int(i) for i in np.flatnonzero(there.any((1, 2)))}


def _fixed(there: Float64) -> bool:
    return len(_read(there)) < 2


def _analysis(
    found: Spread,
    parts: tuple[Moments, ...],
    there: list[Float64],
    null: float,
    level: float,
    scale: str,
    fixed: bool,
) -> Analysis:
    if np.isnan(found.variance):
        raise UsageError(
            "no two readers have read different cases of both classes; the variance needs at least two cases of each "
            "class that different readers have read"
        )
    both = np.maximum.reduce(there)
    note = ONE_READER if fixed else ""
    variance, df = float(found.variance), float(found.df)
    used = float(found.usable)
    if variance < 0:
        note = notes(note, NEGATIVE)
    if used <= 0:
        note = notes(note, CONSTANT)
    names = "normal", f"Student's t, BDG degrees of freedom{', logit' if scale == 'logit' else ''}"
    normal, t = (
        _estimate(float(found.value), used, freedom, level, null, way, name, note)
        for freedom, way, name in ((np.inf, "identity", names[0]), (df, scale, names[1]))
    )
    return Analysis(
        float(found.value),
        variance,
        float(found.variance_mle),
        normal,
        t,
        parts,
        len(_read(both)),
        int(both.any((0, 2)).sum()),
        int(both.any((0, 1)).sum()),
        note,
    )


def _estimate(
    value: float, variance: float, df: float, level: float, null: float, scale: str, method: str, note: str
) -> Estimate:
    if variance <= 0:
        return Estimate(value, np.nan, np.nan, 0.0, df, np.nan, method, note)
    return by_t(value, variance, df, level=level, null=null, scale=scale, method=method, note=note)
