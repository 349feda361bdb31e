"""Ordinal scores of two conditions by a cumulative-link mixed model.

    P(score <= k) = F(theta_k - eta),   eta = x delta + u_reader + x v_reader + w_case,   x = 1/2 or -1/2,

with F the logistic distribution (proportional odds; McCullagh 1980, Journal of the Royal Statistical Society B 42:109)
or the normal one, delta the effect of the condition, and normal effects of readers, of readers on conditions and of
cases, which all are samples. Fitted by maximum likelihood, the effects integrated out by Laplace's approximation
(Tuerlinckx et al. 2006, British Journal of Mathematical and Statistical Psychology 59:225).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import optimize, special, stats

from fabrica.errors import UsageError
from fabrica.image import Float64
from fabrica.metrics.readers.estimate import LEVEL, ONE_READER, Estimate, checked_level, notes

LINKS = ("logit", "probit")
FAR = 40.0  # the ends of the outer grades, on the scale of the link
LEAST, MOST = -5.0, 3.0  # limits of the logarithms of the standard deviations
SEPARATED = 12.0  # an effect beyond this, on the scale of the link, comes of scores that hardly overlap
STEP = 1e-3
Index = npt.NDArray[np.int64]


@dataclass(frozen=True)
class CumulativeLink:
    """The fitted model.

    effect      delta, the first condition less the second on the scale of the link: of the logit its exponential is the
                odds ratio of a higher score. Test of 0.
    thresholds  theta, one fewer than the scores that occur.
    reader, reader_condition, case   standard deviations of u, v and w.
    """

    effect: Estimate
    thresholds: tuple[float, ...]
    reader: float
    reader_condition: float
    case: float
    log_likelihood: float
    link: str


def compare(one: npt.ArrayLike, two: npt.ArrayLike, *, link: str = "logit", level: float = LEVEL) -> CumulativeLink:
    """Fit scores (R, C) of the same readers and cases under both conditions, NaN where there is none.

    The interval is by Student's t: the variance of delta between readers counts with R - 1 degrees of freedom, and is
    raised by R / (R - 1), which maximum likelihood lacks; the rest as if known (Satterthwaite). With one reader his own
    effects are left out. Raises UsageError for other shapes, scores that are all equal, and fewer than two cases.
    """
    checked_level(level)
    if link not in LINKS:
        raise UsageError(f"no link {link!r}; expected one of {', '.join(LINKS)}")
    scores, grades = _scores(one, two)
    model = _Model(scores, len(grades), link)
    start = model.start()
    free = np.array([True] * (model.thresholds + 1) + [model.readers > 1] * 2 + [True])
    found = _minimum(model, start, free)
    effect = _effect(model, found, free, level)
    theta, _, sds = model.parts(found[None])
    sds = np.where(np.isclose(np.log(np.maximum(sds, 1e-9)), LEAST, atol=1e-3), 0.0, sds)
    return CumulativeLink(
        effect,
        tuple(float(t) for t in theta[0]),
        *(float(s) for s in sds[0]),
        log_likelihood=-float(model.deviance(found[None])[0]),
        link=link,
    )


class _Model:
    """The likelihood of many parameters (P, N) at once; warm from one call to the next."""

    def __init__(self, scores: Index, grades: int, link: str) -> None:
        """Scores (2, R, C) from 0, -1 where there is none."""
        self.there = (scores >= 0).astype(np.float64)
        self.scores = np.maximum(scores, 0)
        self.thresholds = grades - 1
        self.readers, self.cases = scores.shape[1:]
        self.x = np.array([0.5, -0.5])[:, None, None]
        self.functions = _logistic if link == "logit" else _normal
        self.mode: tuple[Float64, Float64, Float64] | None = None

    def start(self) -> Float64:
        """Thresholds of the pooled shares, no effect, and moderate deviations."""
        counts = np.bincount(self.scores[self.there > 0], minlength=self.thresholds + 1)
        shares = np.cumsum(counts)[:-1] / counts.sum()
        theta = 1.3 * (special.logit(shares) if self.functions is _logistic else stats.norm.ppf(shares))
        own = [-0.7, -1.0] if self.readers > 1 else [LEAST, LEAST]
        return np.concatenate([theta[:1], np.log(np.diff(theta)), [0.0], own, [-0.3]])

    def parts(self, parameters: Float64) -> tuple[Float64, Float64, Float64]:
        """Thresholds (P, K - 1), effects (P,) and deviations (P, 3)."""
        k = self.thresholds
        theta = np.cumsum(np.concatenate([parameters[:, :1], np.exp(parameters[:, 1:k])], 1), 1)
        sds = np.exp(parameters[:, k + 1 :])
        if self.readers < 2:
            sds[:, :2] = 0.0
        return theta, parameters[:, k], sds

    def deviance(self, parameters: Float64) -> Float64:
        """Minus the logarithm of the likelihood (P,)."""
        theta, delta, sds = self.parts(parameters)
        number = len(parameters)
        edges = np.concatenate([np.full((number, 1), -FAR), theta, np.full((number, 1), FAR)], 1)
        upper, lower = edges[:, self.scores + 1], edges[:, self.scores]
        fixed = delta[:, None, None, None] * self.x
        su, sv, sw = (sds[:, i, None] for i in range(3))
        u, v, w = self._begin(number)
        for _ in range(50):
            eta = fixed + self._random(u, v, w, su, sv, sw)
            log_p, slope, curve = _log_likelihood(upper - eta, lower - eta, self.functions, self.there)
            steps, logdet = self._newton(slope, curve, (u, v, w), (su, sv, sw))
            size = max(float(np.abs(step).max()) for step in steps)
            if size < 1e-7:
                break
            shrink = min(1.0, 2.0 / size)
            u, v, w = (each + shrink * step for each, step in zip((u, v, w), steps, strict=True))
        self.mode = (u[:1], v[:1], w[:1])
        penalty = ((u**2).sum(1) + (v**2).sum(1) + (w**2).sum(1)) / 2
        return np.asarray(-log_p.sum((1, 2, 3)) + penalty + logdet / 2)

    def _begin(self, number: int) -> tuple[Float64, Float64, Float64]:
        if self.mode is None:
            self.mode = np.zeros((1, self.readers)), np.zeros((1, self.readers)), np.zeros((1, self.cases))
        u, v, w = (np.repeat(each, number, 0) for each in self.mode)
        return u, v, w

    def _random(self, u: Float64, v: Float64, w: Float64, su: Float64, sv: Float64, sw: Float64) -> Float64:
        of_readers = (su * u)[:, None, :, None] + self.x * (sv * v)[:, None, :, None]
        return np.asarray(of_readers + (sw * w)[:, None, None, :])

    def _newton(
        self,
        slope: Float64,
        curve: Float64,
        at: tuple[Float64, Float64, Float64],
        sds: tuple[Float64, Float64, Float64],
    ) -> tuple[tuple[Float64, Float64, Float64], Float64]:
        """The step to the mode of the standardised effects and log det of minus the Hessian: cases are eliminated
        first, whose block is diagonal, and then there are two unknowns a reader."""
        (u, v, w), (su, sv, sw) = at, sds
        x, r = self.x, self.readers
        gradient = np.concatenate([su * slope.sum((1, 3)) - u, sv * (x * slope).sum((1, 3)) - v], 1)
        of_cases = sw * slope.sum((1, 2)) - w
        block = 1 + sw**2 * curve.sum((1, 2))
        cross = np.concatenate(
            [su[..., None] * sw[..., None] * curve.sum(1), sv[..., None] * sw[..., None] * (x * curve).sum(1)], 1
        )
        whole = np.zeros((len(u), 2 * r, 2 * r))
        i = np.arange(r)
        whole[:, i, i] = 1 + su**2 * curve.sum((1, 3))
        whole[:, i + r, i + r] = 1 + sv**2 * (x**2 * curve).sum((1, 3))
        whole[:, i, i + r] = whole[:, i + r, i] = su * sv * (x * curve).sum((1, 3))
        scaled = cross / block[:, None]
        left = whole - scaled @ np.swapaxes(cross, 1, 2)
        step = np.linalg.solve(left, (gradient - (scaled @ of_cases[..., None])[..., 0])[..., None])[..., 0]
        step_w = (of_cases - (np.swapaxes(cross, 1, 2) @ step[..., None])[..., 0]) / block
        logdet = np.log(block).sum(1) + np.linalg.slogdet(left)[1]
        return (step[:, :r], step[:, r:], step_w), logdet


def _log_likelihood(
    upper: Float64, lower: Float64, functions: Callable[[Float64], tuple[Float64, ...]], there: Float64
) -> tuple[Float64, Float64, Float64]:
    """log P of each score, its slope along eta, and minus its curvature; 0 where there is no score."""
    flip = lower > 0  # differences of small tails, not of numbers near 1
    b, a = np.where(flip, -lower, upper), np.where(flip, -upper, lower)
    (fb, db, ddb), (fa, da, dda) = functions(b), functions(a)
    p = np.maximum(fb - fa, 1e-290)
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


def _minimum(model: _Model, start: Float64, free: npt.NDArray[np.bool_]) -> Float64:
    """L-BFGS with gradients by central differences, all of them in one evaluation."""
    places = np.flatnonzero(free)
    moves = np.eye(len(start))[places] * STEP
    bounds = [(LEAST, MOST) if i > model.thresholds else (None, None) for i in places]

    def value_and_gradient(at: Float64) -> tuple[float, Float64]:
        whole = start.copy()
        whole[places] = at
        values = model.deviance(np.concatenate([whole[None], whole + moves, whole - moves]))
        n = len(places)
        return float(values[0]), (values[1 : n + 1] - values[n + 1 :]) / (2 * STEP)

    result = optimize.minimize(
        value_and_gradient,
        start[places],
        jac=True,
        method="L-BFGS-B",
        bounds=bounds,
        options={"gtol": 1e-4, "ftol": 1e-10},
    )
    found = start.copy()
    found[places] = result.x
    return found


def _effect(model: _Model, found: Float64, free: npt.NDArray[np.bool_], level: float) -> Estimate:
    place = model.thresholds
    value, readers = float(found[place]), model.readers
    method = "cumulative-link mixed model, Laplace; Student's t"
    note = ONE_READER if readers < 2 else ""
    if abs(value) > SEPARATED:
        return Estimate(value, np.nan, np.nan, method=method, note=notes(note, "the conditions' scores hardly overlap"))
    inner = free & ((np.arange(len(found)) <= place) | ((found > LEAST + 0.1) & (found < MOST - 0.1)))
    variance = _variance(model, found, np.flatnonzero(inner), place)
    if not variance > 0:
        return Estimate(value, np.nan, np.nan, method=method, note=notes(note, "the fit has no curvature; no interval"))
    df = np.inf
    if readers > 1:
        between = float(np.exp(2 * found[place + 2])) / readers
        variance += between / (readers - 1)
        own = between * readers / (readers - 1)
        df = (readers - 1) * (variance / own) ** 2
    error = float(np.sqrt(variance))
    quantile = float(stats.t.ppf(0.5 + level / 2, df))
    p = float(2 * stats.t.sf(abs(value) / error, df))
    return Estimate(value, value - quantile * error, value + quantile * error, error, df, p, method, note)


def _variance(model: _Model, found: Float64, places: Index, place: int) -> float:
    """The variance of one parameter: of the inverse of the Hessian by differences."""
    n, step = len(places), 2e-2
    pairs = [(i, j) for i in range(n) for j in range(i, n)]
    moves = np.eye(len(found))[places] * step
    points = [found + a * moves[i] + b * moves[j] for i, j in pairs for a, b in ((1, 1), (1, -1), (-1, 1), (-1, -1))]
    values = model.deviance(np.stack(points)).reshape(-1, 4)
    hessian = np.zeros((n, n))
    for (i, j), (pp, pm, mp, mm) in zip(pairs, values, strict=True):
        hessian[i, j] = hessian[j, i] = (pp - pm - mp + mm) / (4 * step**2)
    try:
        inverse = np.linalg.inv(hessian)
    except np.linalg.LinAlgError:
        return float("nan")
    at = int(np.flatnonzero(places == place)[0])
    return float(inverse[at, at])


def _scores(one: npt.ArrayLike, two: npt.ArrayLike) -> tuple[Index, Float64]:
    """Scores (2, R, C) as places among those that occur, -1 for none; and those."""
    first, second = np.asarray(one, np.float64), np.asarray(two, np.float64)
    if first.ndim != 2 or first.shape != second.shape:
        raise UsageError(f"scores have shapes {first.shape} and {second.shape}; expected (readers, cases) both")
    both = np.stack([first, second])
    there = np.isfinite(both)
    if np.isinf(both).any():
        raise UsageError("scores hold infinite values; expected numbers, NaN where one is missing")
    for name, each in (("first", there[0]), ("second", there[1])):
        if (cases := int(each.any(0).sum())) < 2:
            raise UsageError(f"{cases} cases have scores of the {name} condition; a comparison needs two or more")
    grades = np.unique(both[there])
    if len(grades) < 2:
        raise UsageError(f"all scores are {grades[0]:g}; there is nothing to compare")
    if len(grades) > 20:
        raise UsageError(f"{len(grades)} different scores; a cumulative-link model is for a scale of at most 20 grades")
    return np.where(there, np.searchsorted(grades, both), -1), grades
