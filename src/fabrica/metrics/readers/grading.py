"""Ordinal scores of image quality under two conditions: visual grading characteristics, and Wilcoxon's signed ranks."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import stats

from fabrica.errors import UsageError
from fabrica.image import Float64
from fabrica.metrics.readers.estimate import LEVEL, Estimate, checked_level
from fabrica.metrics.readers.resampling import estimate, obuchowski_rockette


@dataclass(frozen=True, eq=False)
class Grading:
    """Visual grading characteristics of a condition against a reference (Bath and Mansson 2007, British Journal of
    Radiology 80:169).

    area       the chance that an image of the condition is graded above one of the reference, ties counting half, mean
               over readers: 0.5 where they are graded alike. Interval and test (of 0.5) over readers and cases.
    readers    each reader's area.
    curve      (K, 2) over the categories' thresholds, pooled over readers: the share of reference images and of the
               condition's images that are graded at or above it, from (0, 0) to (1, 1).
    """

    area: Estimate
    readers: tuple[float, ...]
    curve: Float64


def vgc(condition: npt.ArrayLike, reference: npt.ArrayLike, *, level: float = LEVEL) -> Grading:
    """Grades (R, C) of the same cases by the same readers under both, higher for better; NaN where there is none.

    The interval respects that cases are paired and that readers see the same ones: jackknife over cases, with
    Obuchowski and Rockette's analysis of the readers' areas; on the logit scale, so that it stays inside (0, 1). A
    reader's cases that lack one of the grades are left out. Raises UsageError for other shapes, and for readers without
    two cases.
    """
    checked_level(level)
    new, old = _pair(condition, reference)
    area, without = areas(new, old)
    whole = estimate(obuchowski_rockette(area, without), readers=len(area), level=level, null=0.5, scale="logit")
    if float(area.mean()) in (0.0, 1.0):
        whole = Estimate(
            float(area.mean()), np.nan, np.nan, note="every image of one condition is graded above all others"
        )
    grades = np.unique(new[np.isfinite(new)].tolist() + old[np.isfinite(old)].tolist())
    cuts = np.append(grades, np.inf)[::-1]
    curve = np.stack([[(values[np.isfinite(values)] >= cut).mean() for cut in cuts] for values in (old, new)], axis=1)
    return Grading(whole, tuple(float(a) for a in area), curve)


def areas(new: Float64, old: Float64) -> tuple[Float64, Float64]:
    """VGC areas (..., R) of grades (..., R, C), and with each case left out in turn (..., R, C); NaN in both grades
    where a case was not graded."""
    there = (np.isfinite(new) & np.isfinite(old)).astype(np.float64)
    with np.errstate(invalid="ignore"):
        above = (new[..., :, None] > old[..., None, :]) + 0.5 * (new[..., :, None] == old[..., None, :])
    above = above * there[..., :, None] * there[..., None, :]
    number, total = there.sum(-1), above.sum((-2, -1))
    own = np.diagonal(above, axis1=-2, axis2=-1)
    left = total[..., None] - above.sum(-1) - above.sum(-2) + own
    fewer = number[..., None] - there
    return total / number**2, left / fewer**2


@dataclass(frozen=True)
class Ranked:
    """Wilcoxon's signed-rank test of paired grades.

    shift      the Hodges-Lehmann estimate, the median of all means of two differences, with its interval.
    p          two-sided; 1 where no case differs.
    cases      how many have grades of both.
    unequal    how many of them differ: the test rests on these.
    """

    shift: Estimate
    p: float
    cases: int
    unequal: int


def wilcoxon(condition: npt.ArrayLike, reference: npt.ArrayLike, *, level: float = LEVEL) -> Ranked:
    """Each case's mean grade over readers, (R, C) or (C,), under both conditions: the same readers, over cases alone.

    Cases are the independent units; grades of one case by several readers are not, and pooled they make p too small.
    Ties have mean ranks and differences of 0 are left out (Wilcoxon 1945; Hodges and Lehmann 1963). The interval is
    that of the ranks of all means of two differences, by the test's normal approximation with its variance for ties.
    """
    checked_level(level)
    new, old = (np.asarray(each, dtype=np.float64) for each in (condition, reference))
    new, old = _pair(np.atleast_2d(new), np.atleast_2d(old), least=1)
    both = np.isfinite(new) & np.isfinite(old)
    seen = both.any(0)
    gap = np.where(both, new - old, 0.0)[:, seen].sum(0) / both[:, seen].sum(0)
    gap = np.round(gap, 12)  # means of whole grades that are equal but for rounding are ties
    unequal = int((gap != 0).sum())
    p = 1.0 if not unequal else float(stats.wilcoxon(gap[gap != 0]).pvalue)
    return Ranked(_hodges_lehmann(gap, level), p, len(gap), unequal)


def _hodges_lehmann(gap: Float64, level: float) -> Estimate:
    n = len(gap)
    means = np.sort(((gap[:, None] + gap[None, :]) / 2)[np.triu_indices(n)])
    value = float(np.median(means))
    ranks = stats.rankdata(np.abs(gap))
    spread = float(np.sqrt((ranks[gap != 0] ** 2).sum())) / 2
    low = int(np.floor(len(means) / 2 - float(stats.norm.ppf(0.5 + level / 2)) * spread - 0.5))
    method = "Hodges-Lehmann, normal approximation"
    if not spread:
        return Estimate(value, np.nan, np.nan, method=method, note="no case differs; no interval can be given")
    if low < 0:
        return Estimate(value, np.nan, np.nan, method=method, note=f"{n} cases are too few for an interval")
    return Estimate(value, float(means[low]), float(means[-1 - low]), method=method)


def _pair(new: npt.ArrayLike, old: npt.ArrayLike, least: int = 2) -> tuple[Float64, Float64]:
    one, two = np.asarray(new, dtype=np.float64), np.asarray(old, dtype=np.float64)
    if one.ndim != 2 or one.shape != two.shape:
        raise UsageError(f"grades have shapes {one.shape} and {two.shape}; expected (readers, cases) both")
    if np.isinf(one).any() or np.isinf(two).any():
        raise UsageError("grades hold infinite values; expected numbers, NaN where one is missing")
    both = np.isfinite(one) & np.isfinite(two)
    if (few := both.sum(1)).size == 0 or few.min() < least:
        raise UsageError(
            f"a reader has {few.min() if few.size else 0} cases with both grades; expected {least} or more"
        )
    return np.where(both, one, np.nan), np.where(both, two, np.nan)
