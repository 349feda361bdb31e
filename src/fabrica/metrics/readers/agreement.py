"""How far readers agree with one another, and with themselves.

Intervals are over cases: they are of these readers. By the jackknife over cases on a scale on which such coefficients
are nearly normal, Fisher's z = artanh; ICC by the F distribution, as its forms are defined.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import stats

from fabrica.errors import UsageError
from fabrica.image import Float64
from fabrica.metrics.readers.estimate import LEVEL, Estimate, checked_level, notes

WEIGHTS = ("none", "linear", "quadratic")
SCALES = ("nominal", "ordinal", "interval", "ratio")
UNDEFINED = "all grades fall into one category: no disagreement can be expected, and the coefficient is undefined"


def cohen_kappa(
    one: npt.ArrayLike, two: npt.ArrayLike, *, weights: str = "quadratic", level: float = LEVEL
) -> Estimate:
    """Cohen's weighted kappa of two readers' grades (C,), NaN leaving a case out (Cohen 1968, Psychological Bulletin
    70:213). Weights by the distance of the grades themselves, "none" for categories without an order."""
    table = _grades(np.stack([np.asarray(one, np.float64), np.asarray(two, np.float64)]))
    if weights not in WEIGHTS:
        raise UsageError(f"no weights {weights!r}; expected one of {', '.join(WEIGHTS)}")
    both = table[:, np.isfinite(table).all(0)]
    if not both.shape[1]:
        raise UsageError("no case was graded by both readers")
    return _over_cases(both, lambda values, kept: kappas(values, kept, weights), level)


def kappas(values: Float64, kept: Float64, weights: str) -> Float64:
    """Weighted kappa of two rows of grades (2, C) for each row of case weights (K, C): 1 - observed / expected
    disagreement; NaN where none can be expected."""
    distance = DISTANCES[weights]
    grades, places = np.unique(values, return_inverse=True)
    places = places.reshape(values.shape)
    total = kept.sum(1)
    observed = kept @ distance(values[0], values[1]) / total
    first, second = (kept @ np.eye(len(grades))[row] / total[:, None] for row in places)
    expected = np.einsum("ka,ab,kb->k", first, distance(grades[:, None], grades[None, :]), second)
    return _coefficient(observed, expected)


def fleiss_kappa(grades: npt.ArrayLike, *, level: float = LEVEL) -> Estimate:
    """Fleiss's kappa of several readers' categories (R, C) (Fleiss 1971, Psychological Bulletin 76:378), NaN where
    there is none: each case counts by its pairs of readers, so that cases with other numbers of readers are no
    difficulty."""
    table = _grades(np.asarray(grades, np.float64))
    kept = table[:, np.isfinite(table).sum(0) >= 2]
    if not kept.shape[1]:
        raise UsageError("no case was graded by two readers")
    return _over_cases(kept, fleiss_kappas, level)


def fleiss_kappas(values: Float64, kept: Float64) -> Float64:
    """Fleiss's kappa of grades (R, C) for each row of case weights (K, C)."""
    counts = _counts(values)
    readers = counts.sum(1)
    agree = (counts * (counts - 1)).sum(1) / (readers * (readers - 1))
    shares = kept @ counts / (kept @ readers)[:, None]
    return _coefficient(1 - kept @ agree / kept.sum(1), 1 - (shares**2).sum(1))


def krippendorff_alpha(grades: npt.ArrayLike, *, scale: str = "ordinal", level: float = LEVEL) -> Estimate:
    """Krippendorff's alpha of several readers' grades (R, C), NaN where there is none (Krippendorff 2004, "Content
    analysis", chapter 11; Hayes and Krippendorff 2007). Scale: nominal, ordinal, interval or ratio."""
    if scale not in SCALES:
        raise UsageError(f"no scale {scale!r}; expected one of {', '.join(SCALES)}")
    table = _grades(np.asarray(grades, np.float64))
    if scale == "ratio" and (table[np.isfinite(table)] < 0).any():
        raise UsageError("grades below 0 have no ratios; take the scale interval")
    kept = table[:, np.isfinite(table).sum(0) >= 2]
    if not kept.shape[1]:
        raise UsageError("no case was graded by two readers")
    return _over_cases(kept, lambda values, weights: alphas(values, weights, scale), level)


def alphas(values: Float64, kept: Float64, scale: str) -> Float64:
    """Krippendorff's alpha of grades (R, C) for each row of case weights (K, C)."""
    counts, grades = _counts(values), np.unique(values[np.isfinite(values)])
    readers = counts.sum(1)
    totals = kept @ counts
    n = totals.sum(1)
    if scale == "ordinal":  # by how many grades lie between, the ends counting half
        middles = np.cumsum(totals, 1) - totals / 2
        distance = (middles[:, :, None] - middles[:, None, :]) ** 2
    else:
        distance = np.broadcast_to(
            DISTANCES[scale](grades[:, None], grades[None, :]), (len(kept), len(grades), len(grades))
        )
    pairs = np.einsum("ca,cb->cab", counts, counts)
    pairs[:, range(len(grades)), range(len(grades))] -= counts
    coincidences = np.tensordot(kept / (readers - 1), pairs, 1)
    observed = (coincidences * distance).sum((1, 2)) / n
    expected = (totals[:, :, None] * totals[:, None, :] * distance).sum((1, 2)) / (n * (n - 1))
    return _coefficient(observed, expected)


FORMS = {
    "ICC(1,1)": "one-way random, absolute agreement, single reader",
    "ICC(2,1)": "two-way random, absolute agreement, single reader",
    "ICC(3,1)": "two-way mixed, consistency, single reader",
    "ICC(1,k)": "one-way random, absolute agreement, mean of k readers",
    "ICC(2,k)": "two-way random, absolute agreement, mean of k readers",
    "ICC(3,k)": "two-way mixed, consistency, mean of k readers",
}


def icc(grades: npt.ArrayLike, *, form: str = "ICC(2,1)", level: float = LEVEL) -> Estimate:
    """An intraclass correlation of grades (R, C), by Shrout and Fleiss's form (1979, Psychological Bulletin 86:420),
    with the interval of McGraw and Wong 1996 (Psychological Methods 1:30, table 7).

    Complete cases only. Raises UsageError for an unknown form, fewer than two readers or two complete cases; grades
    that are all equal give NaN and a note."""
    checked_level(level)
    if form not in FORMS:
        raise UsageError(f"no form {form!r}; expected one of {', '.join(FORMS)}")
    table = _grades(np.asarray(grades, np.float64))
    table = table[:, np.isfinite(table).all(0)]
    k, n = table.shape
    if n < 2:
        raise UsageError(f"{n} cases were graded by all readers; an intraclass correlation needs two or more")
    whole = table.mean()
    ms_c = k * ((table.mean(0) - whole) ** 2).sum() / (n - 1)
    ms_r = n * ((table.mean(1) - whole) ** 2).sum() / (k - 1)
    rest = table - table.mean(0) - table.mean(1)[:, None] + whole
    ms_e = (rest**2).sum() / ((n - 1) * (k - 1))
    ms_w = ((table - table.mean(0)) ** 2).sum() / (n * (k - 1))
    tiny = 1e-12 * max(float((table**2).mean()), 1e-300)
    method = f"{form}: {FORMS[form]}; McGraw-Wong"
    if ms_c <= tiny and ms_w <= tiny:
        return Estimate(
            np.nan, np.nan, np.nan, method=method, note="all grades are equal; the coefficient is undefined"
        )
    if (ms_e if form.startswith("ICC(3") else ms_w) <= tiny:
        return Estimate(1.0, np.nan, np.nan, method=method, note="readers differ nowhere; no interval can be given")
    if form.startswith("ICC(1"):
        value, low, high = _f_interval(ms_c / ms_w, n - 1, n * (k - 1), k, level)
    elif form.startswith("ICC(3"):
        value, low, high = _f_interval(ms_c / ms_e, n - 1, (n - 1) * (k - 1), k, level)
    else:
        value, low, high = _two_way(float(ms_c), float(ms_r), float(ms_e), n, k, level)
    if form.endswith(",k)"):  # Spearman and Brown
        value, low, high = (k * v / (1 + (k - 1) * v) if v > -1 / (k - 1) else -np.inf for v in (value, low, high))
    return Estimate(float(value), float(low), float(min(high, 1.0)), method=method)


@dataclass(frozen=True)
class Repeated:
    """How one reader's second grades agree with the first: the share of equal ones, weighted kappa, and ICC(2,1)."""

    equal: float
    kappa: Estimate
    icc: Estimate
    cases: int


def intra_reader(
    first: npt.ArrayLike, second: npt.ArrayLike, *, weights: str = "quadratic", level: float = LEVEL
) -> list[Repeated]:
    """Each reader's agreement with himself over the cases graded twice, (R, C) both, NaN elsewhere. A reader with fewer
    than two such cases has NaN and a note."""
    one, two = np.asarray(first, np.float64), np.asarray(second, np.float64)
    if one.ndim != 2 or one.shape != two.shape:
        raise UsageError(f"grades have shapes {one.shape} and {two.shape}; expected (readers, cases) both")
    found = []
    for pair in np.stack([one, two], 1):
        both = pair[:, np.isfinite(pair).all(0)]
        if both.shape[1] < 2:
            nothing = Estimate(np.nan, np.nan, np.nan, note="fewer than two cases were graded twice")
            found.append(Repeated(np.nan, nothing, nothing, both.shape[1]))
            continue
        kappa = cohen_kappa(both[0], both[1], weights=weights, level=level)
        found.append(Repeated(float((both[0] == both[1]).mean()), kappa, icc(both, level=level), both.shape[1]))
    return found


Distance = Callable[[Float64, Float64], Float64]
DISTANCES: dict[str, Distance] = {
    "none": lambda a, b: np.asarray(a != b, np.float64),
    "linear": lambda a, b: np.abs(a - b),
    "quadratic": lambda a, b: (a - b) ** 2,
    "nominal": lambda a, b: np.asarray(a != b, np.float64),
    "interval": lambda a, b: (a - b) ** 2,
    "ratio": lambda a, b: np.divide(a - b, a + b, out=np.zeros(np.broadcast(a, b).shape), where=a + b != 0) ** 2,
}


def _grades(table: Float64) -> Float64:
    if table.ndim != 2 or len(table) < 2:
        raise UsageError(f"grades have shape {table.shape}; expected (readers, cases) of two readers or more")
    if np.isinf(table).any():
        raise UsageError("grades hold infinite values; expected numbers, NaN where one is missing")
    return table


def _counts(values: Float64) -> Float64:
    """How many readers gave each case each grade, (C, G)."""
    grades = np.unique(values[np.isfinite(values)])
    return np.asarray((values[:, :, None] == grades).sum(0), np.float64)


def _coefficient(observed: Float64, expected: Float64) -> Float64:
    there = expected > 1e-12
    return np.asarray(1 - np.divide(observed, expected, out=np.full(observed.shape, np.nan), where=there))


def _over_cases(values: Float64, statistic: Callable[[Float64, Float64], Float64], level: float) -> Estimate:
    """The coefficient with its interval by the jackknife over cases, in Fisher's z (Miller 1974, Biometrika 61:1)."""
    checked_level(level)
    n = values.shape[1]
    every = statistic(values, np.ones((1, n)))[0]
    value, method = float(every), "jackknife over cases, Fisher's z"
    if np.isnan(value):
        return Estimate(value, np.nan, np.nan, method=method, note=UNDEFINED)
    if n < 3:
        return Estimate(value, np.nan, np.nan, method=method, note=f"{n} cases are too few for an interval")
    without = statistic(values, 1.0 - np.eye(n))
    known = without[np.isfinite(without)]
    if value >= 1 - 1e-12 or np.abs(known).max() >= 1 - 1e-12 or len(known) < n:
        note = "readers differ in one case at most; no interval can be given"
        return Estimate(value, np.nan, np.nan, method=method, note=note)
    z = np.arctanh(known)
    error = float(np.sqrt((n - 1) / n * ((z - z.mean()) ** 2).sum()))
    half = float(stats.t.ppf(0.5 + level / 2, n - 1)) * error
    middle = float(np.arctanh(value))
    note = "every case says the same; no interval can be given" if error < 1e-12 else ""
    low, high = (np.nan, np.nan) if note else (float(np.tanh(middle - half)), float(np.tanh(middle + half)))
    return Estimate(value, low, high, error * (1 - value**2), n - 1.0, method=method, note=notes(note))


def _f_interval(f: float, one: int, two: int, k: int, level: float) -> tuple[float, float, float]:
    """Of (F - 1) / (F + k - 1), by the quantiles of F."""
    tail = 0.5 + level / 2
    ends = f, f / stats.f.ppf(tail, one, two), f * stats.f.ppf(tail, two, one)
    value, low, high = ((each - 1) / (each + k - 1) for each in ends)
    return float(value), float(low), float(high)


def _two_way(ms_c: float, ms_r: float, ms_e: float, n: int, k: int, level: float) -> tuple[float, float, float]:
    """ICC(2,1) with Satterthwaite's degrees of freedom (Shrout and Fleiss 1979, p. 424; McGraw and Wong 1996)."""
    value = (ms_c - ms_e) / (ms_c + (k - 1) * ms_e + k * (ms_r - ms_e) / n)
    a, b = k * value / (n * (1 - value)), 1 + k * value * (n - 1) / (n * (1 - value))
    df = (a * ms_r + b * ms_e) ** 2 / ((a * ms_r) ** 2 / (k - 1) + (b * ms_e) ** 2 / ((n - 1) * (k - 1)))
    tail = 0.5 + level / 2
    up, down = stats.f.ppf(tail, n - 1, df), stats.f.ppf(tail, df, n - 1)
    rest = k * ms_r + (k * n - k - n) * ms_e
    low = n * (ms_c - up * ms_e) / (up * rest + n * ms_c)
    high = n * (down * ms_c - ms_e) / (rest + n * down * ms_c)
    return value, float(low), float(high)
