"""U-statistics of means over several random factors, by moments of products (Barrett, Clarkson, Gallas).

A mean over readers (R) and cases, or over readers, normal cases (N) and diseased cases (D), varies because all of them
are samples. Its variance is a sum over the sets of factors that two terms of the mean may share. With x a table of
terms, w its weights (0 where a reading is missing) and S such a set,

    B_S = sum over pairs of terms with the same S of w x w' x',      all other indices free ("biased"),
    U_S = the same over pairs with the same S and all other indices different, by inclusion and exclusion:
          U_S = sum over T containing S of (-1)^|T \\ S| B_T.

Divided by the same sums of weights these are the moments M (Gallas 2006, Academic Radiology 13:353; Gallas et al.
2009, Communications in Statistics 38:2586). The variance is sum_S c_S M_S with c_S = U_S(w) / (sum w)^2 and 1 taken
off the coefficient of the empty set. One-shot, since no resampling is needed; unbiased, so that it may be negative.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fabrica.errors import UsageError
from fabrica.image import Float64

# The order of the moments M1 to M8 in the literature, and of those of one reader.
READERS_AND_BOTH_CLASSES = ("RND", "RD", "RN", "R", "ND", "D", "N", "")
BOTH_CLASSES = ("ND", "D", "N", "")
READERS_AND_CASES = ("RC", "R", "C", "")
CASES = ("C", "")
FACTORS = {READERS_AND_BOTH_CLASSES: "RND", BOTH_CLASSES: "ND", READERS_AND_CASES: "RC", CASES: "C"}
Sets = tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Moments:
    """The moments of one mean, or of two means over the same readers and cases; (..., S) along the sets of factors.

    sets          which factors two terms share, in the order of the moments.
    one, two      the two means (...); the same array for one mean.
    unbiased      moments over different indices; of a set without any pair 0, as its coefficient is, but NaN of the
                  empty set: where no two terms are independent there is no variance to be known.
    biased        moments over all indices: those of the empirical distribution (V-statistic, "MLE").
    coefficients  of the variance, or of the covariance of the two means.
    """

    sets: Sets
    one: Float64
    two: Float64
    unbiased: Float64
    biased: Float64
    coefficients: Float64

    @property
    def covariance(self) -> Float64:
        """The unbiased estimate (...): the variance of one mean, or the covariance of two."""
        return _rounded((self.coefficients * self.unbiased).sum(-1), self.biased)

    @property
    def covariance_mle(self) -> Float64:
        """The same by biased moments: too large on average, and hardly ever negative."""
        return _rounded((self.coefficients * self.biased).sum(-1), self.biased)

    def components(self, biased: bool = False) -> dict[str, Float64]:
        """Variance components by set of factors (Barrett, Clarkson and Kupinski's; Gallas 2009, equation 19)."""
        moments = dict(zip(self.sets, np.moveaxis(self.biased if biased else self.unbiased, -1, 0), strict=True))
        return {
            name: np.asarray(sum((-1) ** (len(name) - len(sub)) * moments[sub] for sub in self.sets if _in(sub, name)))
            for name in self.sets
            if name
        }

    def component_coefficients(self) -> dict[str, Float64]:
        """What each component counts in the variance: 1 / readers for R in a complete study, and so on."""
        by_set = dict(zip(self.sets, np.moveaxis(self.coefficients, -1, 0), strict=True))
        return {
            name: np.asarray(sum(by_set[over] for over in self.sets if _in(name, over))) for name in self.sets if name
        }


@dataclass(frozen=True, eq=False)
class Spread:
    """A mean or a difference of two (...), with its unbiased variance, the biased one, and degrees of freedom."""

    value: Float64
    variance: Float64
    variance_mle: Float64
    df: Float64

    @property
    def usable(self) -> Float64:
        """The variance to make an interval of: the biased one where the unbiased one is negative."""
        return np.asarray(np.where(self.variance < 0, np.maximum(self.variance_mle, 0.0), self.variance))


def moments(one: Float64, there_one: Float64, two: Float64, there_two: Float64, sets: Sets) -> Moments:
    """Moments of two tables of terms (..., *factors) and their weights, 0 where a reading is missing.

    The last axes are the factors, in the order of FACTORS[sets]; any axes before them are studies of their own.
    """
    factors = FACTORS[sets]
    if one.shape != two.shape or one.ndim < len(factors):
        raise UsageError(f"tables of {one.shape} and {two.shape}; expected two equal (..., {', '.join(factors)})")
    one, two = one * there_one, two * there_two
    products = _unbiased({name: _sum(one, two, name, factors) for name in sets}, sets)
    weights = _unbiased({name: _sum(there_one, there_two, name, factors) for name in sets}, sets)
    biased = np.stack([_ratio(_sum(one, two, n, factors), _sum(there_one, there_two, n, factors)) for n in sets], -1)
    axes = tuple(range(-len(factors), 0))
    total_one, total_two = there_one.sum(axes), there_two.sum(axes)
    coefficients = np.stack([_ratio(weights[name], total_one * total_two) for name in sets], -1)
    unbiased = np.stack([_ratio(products[name], weights[name]) for name in sets], -1)
    unbiased[..., -1][coefficients[..., -1] == 0] = (
        np.nan
    )  # no two terms are independent: the square of the mean is unknown
    coefficients[..., -1] -= 1
    return Moments(
        sets,
        _ratio(one.sum(axes), total_one),
        _ratio(two.sum(axes), total_two),
        unbiased,
        biased,
        coefficients,
    )


def spread(of: Moments, *, bounded: bool = False) -> Spread:
    """The mean, its variance and degrees of freedom.

    bounded  variance components that are estimated below 0 count as 0, as Hillis (2014) bounds covariances: the
             variance is at least that of the means of any one factor. No longer unbiased, never negative, and what
             holds its level where cases hardly vary."""
    biased, number = of.components(biased=True), _numbers(of)
    variance = np.maximum(of.covariance, _floor(biased, number)) if bounded else of.covariance
    return Spread(of.one, variance, of.covariance_mle, _degrees_of_freedom(variance, biased, number))


def spread_of_difference(one: Moments, two: Moments, cross: Moments, *, bounded: bool = False) -> Spread:
    """The first mean less the second, with moments of each and of both; bounded as in `spread`."""
    scale = np.maximum(one.biased, two.biased)
    variance = _rounded(one.covariance + two.covariance - 2 * cross.covariance, scale)
    mle = _rounded(one.covariance_mle + two.covariance_mle - 2 * cross.covariance_mle, scale)
    first, second, both = (each.components(biased=True) for each in (one, two, cross))
    biased = {name: first[name] + second[name] - 2 * both[name] for name in first}
    counts = [_numbers(one), _numbers(two)]
    number = {name: np.minimum(counts[0][name], counts[1][name]) for name in counts[0]}
    if bounded:
        variance = np.maximum(variance, _floor(biased, number))
    return Spread(one.one - two.one, variance, mle, _degrees_of_freedom(variance, biased, number))


def _floor(biased: dict[str, Float64], number: dict[str, Float64]) -> Float64:
    """The largest variance of the mean by one factor alone: that of its levels' means over their number."""
    return np.asarray(np.stack([_ratio(biased[name], df) for name, df in number.items()]).max(0))


def _numbers(of: Moments) -> dict[str, Float64]:
    """Degrees of freedom of each single factor: how many levels it is worth, less 1."""
    counts = of.component_coefficients()
    return {name: np.round(_ratio(1.0, value) - 1) for name, value in counts.items() if len(name) == 1}


def _degrees_of_freedom(variance: Float64, biased: dict[str, Float64], number: dict[str, Float64]) -> Float64:
    """Satterthwaite's, with the mean squares of the single factors (Obuchowski, Gallas and Hillis 2012; "BDG" in
    iMRMC), and at least those of the smallest factor (Gaylor and Hopper 1969), also for a negative variance."""
    least = np.min(np.stack(list(number.values())), axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        pieces = sum(biased[name] ** 2 / df**3 for name, df in number.items())
        found = np.where(variance > 0, variance**2 / pieces, least)  # infinite where nothing varies
    return np.asarray(np.maximum(found, least))


def _rounded(variance: Float64, moments: Float64) -> Float64:
    """0 for what is left over by rounding, or a study in which nothing varies would have an interval."""
    return np.where(np.abs(variance) < 1e-13 * np.abs(moments).max(-1), 0.0, variance)


def _in(part: str, whole: str) -> bool:
    return set(part) <= set(whole)


def _sum(one: Float64, two: Float64, shared: str, factors: str) -> Float64:
    """Sum of products of all pairs of terms that share these factors."""
    free = tuple(i - len(factors) for i, name in enumerate(factors) if name not in shared)
    kept = tuple(range(-len(shared), 0))
    return np.asarray((one.sum(free) * two.sum(free)).sum(kept))


def _unbiased(biased: dict[str, Float64], sets: Sets) -> dict[str, Float64]:
    return {
        name: np.asarray(sum((-1) ** (len(over) - len(name)) * biased[over] for over in sets if _in(name, over)))
        for name in sets
    }


def _ratio(numerator: Float64 | float, denominator: Float64) -> Float64:
    """0 where nothing stands below."""
    numerator, denominator = np.broadcast_arrays(np.asarray(numerator, np.float64), denominator)
    # sums of many weights of 0 and 1 are whole numbers, those left over by rounding are none
    there = np.abs(denominator) > 1e-12
    return np.divide(numerator, denominator, out=np.zeros(denominator.shape), where=there)
