"""Ordinal scores of two conditions by a cumulative-link mixed model.

    P(score <= k) = F(theta_k - eta),   eta = x delta_reader + u_reader + w_case,   x = 1/2 or -1/2,

with F the logistic distribution (proportional odds; McCullagh 1980, Journal of the Royal Statistical Society B 42:109)
or the normal one, delta_reader the effect of the condition on a reader's scores, and normal effects of readers and of
cases. Fitted by maximum likelihood, these integrated out by Laplace's approximation (Tuerlinckx et al. 2006, British
Journal of Mathematical and Statistical Psychology 59:225). The effect of the condition is the mean of delta_reader over
readers who are a sample, by Obuchowski and Rockette's analysis of these figures with the covariances of the fit: a
variance of delta within the likelihood is 0 in many studies of five readers, and intervals then too narrow.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from scipy import optimize, special, stats

from fabrica.errors import UsageError
from fabrica.image import Float64
from fabrica.metrics.readers.estimate import LEVEL, ONE_READER, Estimate, by_t, checked_level, notes
from fabrica.metrics.readers.resampling import of_figures

LINKS = ("logit", "probit")
FAR = 40.0  # the ends of the outer grades, on the scale of the link
LEAST, MOST = -5.0, 3.0  # limits of the logarithms of the standard deviations
SEPARATED = 12.0  # an effect beyond this, on the scale of the link, comes of scores that hardly overlap
STEP = 1e-4
Index = npt.NDArray[np.int64]


@dataclass(frozen=True)
class CumulativeLink:
    """The fitted model.

    effect      delta, the first condition less the second on the link's scale, over readers and cases: of the logit its
                exponential is the odds ratio of a higher score. Test of 0.
    readers     each reader's own, with its interval over cases.
    thresholds  theta, one fewer than the scores that occur.
    reader, case   standard deviations of u and w.
    """

    effect: Estimate
    readers: tuple[Estimate, ...]
    thresholds: tuple[float, ...]
    reader: float
    case: float
    log_likelihood: float
    link: str


def compare(one: npt.ArrayLike, two: npt.ArrayLike, *, link: str = "logit", level: float = LEVEL) -> CumulativeLink:
    """Fit scores (R, C) of the same readers and cases under both conditions, NaN where there is none.

    Intervals are by Student's t with Hillis's degrees of freedom, of single readers normal. Readers who have scored
    nothing are left out. Raises UsageError for other shapes, scores that are all equal, a reader who has not scored
    both conditions, and fewer than two cases.
    """
    checked_level(level)
    if link not in LINKS:
        raise UsageError(f"no link {link!r}; expected one of {', '.join(LINKS)}")
    scores, grades = _scores(one, two)
    model = _Model(scores, len(grades), link)
    found = _minimum(model, model.start(), np.arange(model.number) if model.readers > 1 else model.but_reader)
    effect, readers = _effects(model, found, level)
    theta, _, sds = model.parts(found[None])
    sds = np.where(sds < 1.01 * np.exp(LEAST), 0.0, sds)
    return CumulativeLink(
        effect,
        readers,
        tuple(float(t) for t in theta[0]),
        float(sds[0, 0]),
        float(sds[0, 1]),
        -float(model.deviance(found[None])[0]),
        link,
    )


class _Model:
    """The likelihood of many parameters (P, N) at once; warm from one call to the next. The parameters: the first
    threshold and the logarithms of the steps between them, the readers' effects, and logarithms of two deviations."""

    def __init__(self, scores: Index, grades: int, link: str) -> None:
        """Scores (2, R, C) from 0, -1 where there is none."""
        self.there = (scores >= 0).astype(np.float64)
        self.scores = np.maximum(scores, 0)
        self.thresholds = grades - 1
        self.readers, self.cases = scores.shape[1:]
        self.number = self.thresholds + self.readers + 2
        self.effects = np.arange(self.thresholds, self.thresholds + self.readers)
        self.but_reader = np.delete(np.arange(self.number), -2)
        self.x = np.array([0.5, -0.5])[:, None, None]
        self.functions = _logistic if link == "logit" else _normal
        self.mode = np.zeros((1, self.readers)), np.zeros((1, self.cases))

    def start(self) -> Float64:
        """Thresholds of the pooled shares, no effects, and moderate deviations."""
        counts = np.bincount(self.scores[self.there > 0], minlength=self.thresholds + 1)
        shares = np.cumsum(counts)[:-1] / counts.sum()
        theta = 1.3 * (special.logit(shares) if self.functions is _logistic else stats.norm.ppf(shares))
        return np.concatenate([theta[:1], np.log(np.diff(theta)), np.zeros(self.readers), [-0.7, -0.3]])

    def parts(self, parameters: Float64) -> tuple[Float64, Float64, Float64]:
        """Thresholds (P, K - 1), effects (P, R) and deviations (P, 2); one reader's own level is in the thresholds."""
        k = self.thresholds
        theta = np.cumsum(np.concatenate([parameters[:, :1], np.exp(parameters[:, 1:k])], 1), 1)
        sds = np.exp(parameters[:, -2:])
        if self.readers < 2:
            sds[:, 0] = 0.0
        return theta, parameters[:, self.effects], sds

    def deviance(self, parameters: Float64) -> Float64:
        """Minus the logarithm of the likelihood (P,)."""
        theta, delta, sds = self.parts(parameters)
        number = len(parameters)
        edges = np.concatenate([np.full((number, 1), -FAR), theta, np.full((number, 1), FAR)], 1)
        upper, lower = edges[:, self.scores + 1], edges[:, self.scores]
        fixed = delta[:, None, :, None] * self.x
        su, sw = sds[:, :1], sds[:, 1:]
        u, w = (np.repeat(each, number, 0) for each in self.mode)
        for _ in range(50):
            eta = fixed + (su * u)[:, None, :, None] + (sw * w)[:, None, None, :]
            log_p, slope, curve = _log_likelihood(upper - eta, lower - eta, self.functions, self.there)
            step_u, step_w, logdet = _newton(slope, curve, u, w, su, sw)
            size = max(float(np.abs(step_u).max()), float(np.abs(step_w).max()))
            if size < 1e-7:
                break
            shrink = min(1.0, 2.0 / size)
            u, w = u + shrink * step_u, w + shrink * step_w
        self.mode = u[:1], w[:1]
        return np.asarray(-log_p.sum((1, 2, 3)) + ((u**2).sum(1) + (w**2).sum(1) + logdet) / 2)


def _newton(
    slope: Float64, curve: Float64, u: Float64, w: Float64, su: Float64, sw: Float64
) -> tuple[Float64, Float64, Float64]:
    """The step to the mode of the standardised effects (P, R) and (P, C), and log det of minus the Hessian: cases are
    eliminated first, whose block is diagonal."""
    of_readers, of_cases = su * slope.sum((1, 3)) - u, sw * slope.sum((1, 2)) - w
    block = 1 + sw**2 * curve.sum((1, 2))
    cross = (su * sw)[..., None] * curve.sum(1)
    scaled = cross / block[:, None]
    own = np.einsum("pr,rs->prs", 1 + su**2 * curve.sum((1, 3)), np.eye(u.shape[1]))
    left = own - scaled @ np.swapaxes(cross, 1, 2)
    step_u = np.linalg.solve(left, (of_readers - (scaled @ of_cases[..., None])[..., 0])[..., None])[..., 0]
    step_w = (of_cases - (np.swapaxes(cross, 1, 2) @ step_u[..., None])[..., 0]) / block
    return step_u, step_w, np.log(block).sum(1) + np.linalg.slogdet(left)[1]


def _log_likelihood(
    upper: Float64, lower: Float64, functions: Callable[[Float64], tuple[Float64, ...]], there: Float64
) -> tuple[Float64, Float64, Float64]:
    """log P of each score, its slope along eta, and minus its curvature; 0 where there is no score."""
    flip = lower > 0  # differences of small tails, not of numbers near 1
    b, a = np.where(flip, -lower, upper), np.where(flip, -upper, lower)
    (fb, db, ddb), (fa, da, dda) = functions(b), functions(a)
    p = np.maximum(fb - fa, 1e-150)  # its inverse is squared below
    sign = np.where(flip, 1.0, -1.0)
    slope = sign * (db - da) / p
    curve = slope**2 - (ddb - dda) / p
    return np.log(p) * there, slope * there, np.maximum(curve, 0.0) * there


def _logistic(x: Float64) -> tuple[Float64, ...]:
    f = special.expit(x)
    d = f * special.expit(-x)
    return f, d, d * (1 - 2 * f)


def _normal(x: Float64) -> tuple[Float64, ...]:
    d = np.exp(-(x**2) / 2) / np.sqrt(2 * np.pi)
    return special.ndtr(x), d, -x * d


def _minimum(model: _Model, start: Float64, free: Index) -> Float64:
    """L-BFGS over the free parameters, with gradients by forward differences, all of them in one evaluation."""
    moves = np.eye(len(start))[free] * STEP
    bounds = [(LEAST, MOST) if i >= model.number - 2 else (None, None) for i in free]

    def value_and_gradient(at: Float64) -> tuple[float, Float64]:
        whole = start.copy()
        whole[free] = at
        values = model.deviance(np.concatenate([whole[None], whole + moves]))
        return float(values[0]), (values[1:] - values[0]) / STEP

    options = {"gtol": 1e-3, "ftol": 1e-10}
    result = optimize.minimize(
        value_and_gradient, start[free], jac=True, method="L-BFGS-B", bounds=bounds, options=options
    )
    found = start.copy()
    found[free] = result.x
    return found


def _effects(model: _Model, found: Float64, level: float) -> tuple[Estimate, tuple[Estimate, ...]]:
    delta, readers = found[model.effects], model.readers
    method = "cumulative-link mixed model, Laplace"
    note = ONE_READER if readers < 2 else ""
    covariance = _covariance(model, found)
    alike = found[-1] > MOST - 0.1  # cases that are scored alike each time would vary without end on the link's scale
    if alike or np.abs(delta).max() > SEPARATED or not (np.diagonal(covariance) > 0).all():
        said = "the scores of the conditions hardly overlap for some reader; no interval can be given"
        if alike:
            said = "cases are scored alike by nearly all readers in both conditions; no interval can be given"
        return (
            Estimate(float(delta.mean()), np.nan, np.nan, method=method, note=notes(note, said)),
            tuple(Estimate(float(d), np.nan, np.nan, method=method, note=said) for d in delta),
        )
    errors = np.sqrt(np.diagonal(covariance))
    normal = float(stats.norm.ppf(0.5 + level / 2))
    each = tuple(
        Estimate(d, d - normal * e, d + normal * e, e, p=float(2 * stats.norm.sf(abs(d) / e)), method=method)
        for d, e in zip(map(float, delta), map(float, errors), strict=True)
    )
    if readers < 2:
        return replace(each[0], note=note), each
    whole = of_figures(delta, covariance)
    name = f"{method}; Obuchowski-Rockette over readers"
    return by_t(float(whole.value), float(whole.variance), float(whole.df), level=level, method=name), each


def _covariance(model: _Model, found: Float64) -> Float64:
    """Of the readers' effects (R, R): the inverse of the Hessian by differences, deviations at their limits held."""
    deviations = found[-2:]
    inner = (deviations > LEAST + 0.1) & (deviations < MOST - 0.1)
    if model.readers < 2:
        inner[0] = False
    places = np.concatenate([np.arange(model.number - 2), model.number - 2 + np.flatnonzero(inner)])
    n, step = len(places), 2e-2
    moves = np.eye(len(found))[places] * step
    one, two = np.triu_indices(n, 1)
    both = moves[one] + moves[two]
    values = model.deviance(found + np.concatenate([np.zeros((1, len(found))), moves, -moves, both, -both]))
    middle, up, down = values[0], values[1 : n + 1], values[n + 1 : 2 * n + 1]
    more, less = np.split(values[2 * n + 1 :], 2)
    hessian = np.diag(up + down - 2 * middle) / step**2
    mixed = more + less + 2 * middle - (up + down)[one] - (up + down)[two]
    hessian[one, two] = hessian[two, one] = mixed / (2 * step**2)
    try:
        inverse = np.linalg.inv(hessian)
    except np.linalg.LinAlgError:
        return np.full((model.readers, model.readers), np.nan)
    return np.asarray(inverse[np.ix_(model.effects, model.effects)])


def _scores(one: npt.ArrayLike, two: npt.ArrayLike) -> tuple[Index, Float64]:
    """Scores (2, R, C) as places among those that occur, -1 for none; and those."""
    first, second = np.asarray(one, np.float64), np.asarray(two, np.float64)
    if first.ndim != 2 or first.shape != second.shape:
        raise UsageError(f"scores have shapes {first.shape} and {second.shape}; expected (readers, cases) both")
    both = np.stack([first, second])
    there = np.isfinite(both)
    if np.isinf(both).any():
        raise UsageError("scores hold infinite values; expected numbers, NaN where one is missing")
    both, there = (each[:, there.any((0, 2))] for each in (both, there))
    for name, each in (("first", there[0]), ("second", there[1])):
        if (cases := int(each.any(0).sum())) < 2:
            raise UsageError(f"{cases} cases have scores of the {name} condition; a comparison needs two or more")
        if not each.any(1).all():
            raise UsageError(f"a reader has no scores of the {name} condition; leave that reader out")
    grades = np.unique(both[there])
    if len(grades) < 2:
        raise UsageError(f"all scores are {grades[0]:g}; there is nothing to compare")
    if len(grades) > 20:
        raise UsageError(f"{len(grades)} different scores; a cumulative-link model is for a scale of at most 20 grades")
    return np.where(there, np.searchsorted(grades, both), -1), grades
