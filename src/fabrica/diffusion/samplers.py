"""Samplers: from noise to an image, along a decreasing sequence of times from 1 to 0.

Each is a function (denoise, x, schedule, times, noise) -> x_0. `denoise(x_t, t)` answers with the estimate of x_0;
`noise()` gives fresh Gaussian noise like x, and only "ddpm" asks for it. x has the shape (B, C, *S) and is
standard Gaussian noise at t = 1. Steps are written in h = lambda_next - lambda with lambda = log(alpha / sigma),
so that every formula holds for h = inf: at a start without signal (alpha = 0) and at the data (sigma = 0).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from fabrica.diffusion.arrays import Array
from fabrica.diffusion.objective import Denoise
from fabrica.diffusion.schedule import Schedule
from fabrica.errors import UsageError, unknown

Noise = Callable[[], Array]
Sampler = Callable[[Denoise, Array, Schedule, Sequence[float], Noise | None], Array]


def ddpm(denoise: Denoise, x: Array, schedule: Schedule, times: Sequence[float], noise: Noise | None = None) -> Array:
    """Ancestral sampling (Ho et al. 2020, Algorithm 2), with the posterior q(x_s | x_t, x_0) of any s < t.

    Between neighbours of the schedule's table this is eq. 6-7 with the smaller variance, beta tilde.
    """
    if noise is None:
        raise UsageError("the ddpm sampler adds noise at each step; give noise, a function that draws it anew")
    alpha, sigma, _ = schedule.levels_at(times)
    for i in range(1, len(times)):
        ratio = alpha[i - 1] / alpha[i]  # alpha of x_t given x_s
        variance = sigma[i - 1] ** 2 - (ratio * sigma[i]) ** 2  # and its variance
        x_0 = denoise(x, times[i - 1])
        mean = (ratio * sigma[i] ** 2 * x + alpha[i] * variance * x_0) / sigma[i - 1] ** 2
        std = math.sqrt(max(variance, 0.0)) * sigma[i] / sigma[i - 1]
        x = mean + std * noise() if std > 0 else mean
    return x


def ddim(denoise: Denoise, x: Array, schedule: Schedule, times: Sequence[float], noise: Noise | None = None) -> Array:
    """DDIM without noise (Song et al. 2021, eq. 12, eta = 0): the first-order step of the ODE."""
    alpha, sigma, lam = schedule.levels_at(times)
    for i in range(1, len(times)):
        x_0 = denoise(x, times[i - 1])
        x = sigma[i] / sigma[i - 1] * x - alpha[i] * math.expm1(lam[i - 1] - lam[i]) * x_0
    return x


def heun(denoise: Denoise, x: Array, schedule: Schedule, times: Sequence[float], noise: Noise | None = None) -> Array:
    """Heun's second-order steps in x / alpha over sigma / alpha (Karras et al. 2022, Algorithm 1).

    Written as the DDIM step and a correction by the change of the x_0 estimate; the last step is Euler's, as there.
    """
    alpha, sigma, lam = schedule.levels_at(times)
    for i in range(1, len(times)):
        h = lam[i] - lam[i - 1]
        x_0 = denoise(x, times[i - 1])
        x = sigma[i] / sigma[i - 1] * x - alpha[i] * math.expm1(-h) * x_0
        if sigma[i] > 0:
            x = x + alpha[i] * _heun_weight(h) * (denoise(x, times[i]) - x_0)
    return x


def _heun_weight(h: float) -> float:
    """The trapezoid's (e^h - 1) / 2 grows without bound, up to infinity from alpha = 0. Where one step takes more
    than three quarters of sigma / alpha away, the trapezoid in e^lambda, (1 - e^-h) / 2, stays in bounds.
    """
    return math.expm1(h) / 2 if h < math.log(4.0) else -math.expm1(-h) / 2


def dpmpp_2m(
    denoise: Denoise, x: Array, schedule: Schedule, times: Sequence[float], noise: Noise | None = None
) -> Array:
    """DPM-Solver++(2M) (Lu et al. 2022b, Algorithm 2): second order from two x_0 estimates, the last step first order.

    After a first step from alpha = 0 the earlier estimate is infinitely far away, and its weight is 0.
    """
    alpha, sigma, lam = schedule.levels_at(times)
    before: Array | None = None
    for i in range(1, len(times)):
        h = lam[i] - lam[i - 1]
        x_0 = denoise(x, times[i - 1])
        ahead = x_0
        if before is not None and sigma[i] > 0:
            ahead = x_0 + h / (2 * (lam[i - 1] - lam[i - 2])) * (x_0 - before)
        x = sigma[i] / sigma[i - 1] * x - alpha[i] * math.expm1(-h) * ahead
        before = x_0
    return x


def unipc(
    denoise: Denoise,
    x: Array,
    schedule: Schedule,
    times: Sequence[float],
    noise: Noise | None = None,
    *,
    order: int = 2,
) -> Array:
    """UniPC with B(h) = e^h - 1 in data prediction (Zhao et al. 2023, Algorithms 5-8): predict, then correct.

    The corrector uses the estimate at the predicted point, which is also the next step's: one evaluation a step.
    order   of the predictor, 1 to 3; the corrector brings the whole one order higher.
    """
    alpha, sigma, lam = schedule.levels_at(times)
    past: list[tuple[float, Array]] = []  # (lambda, x_0 estimate) before the present one, newest first
    x_0 = denoise(x, times[0])
    for i in range(1, len(times)):
        h = lam[i] - lam[i - 1]
        if sigma[i] == 0:
            return alpha[i] * x_0
        nodes = [(at - lam[i - 1]) / h for at, _ in past]
        changes = [estimate - x_0 for _, estimate in past]
        straight = sigma[i] / sigma[i - 1] * x - alpha[i] * math.expm1(-h) * x_0
        predicted = _corrected(straight, alpha[i], h, nodes, changes)
        if i == len(times) - 1:
            return predicted
        ahead = denoise(predicted, times[i])
        x = _corrected(straight, alpha[i], h, [*nodes, 1.0], [*changes, ahead - x_0])
        if math.isfinite(h):  # an estimate at lambda = -inf carries no slope
            past = [(lam[i - 1], x_0), *past][: order - 1]
        x_0 = ahead
    return x


def _corrected(straight: Array, alpha: float, h: float, nodes: list[float], changes: list[Array]) -> Array:
    """The first-order step and what the change of x_0 along lambda adds to it (Zhao et al. 2023, eq. 9)."""
    for weight, change in zip(_unipc_weights(nodes, h), changes, strict=True):
        straight = straight + alpha * weight * change
    return straight


def _unipc_weights(nodes: Sequence[float], h: float) -> list[float]:
    """The weight of x_0(lambda + r h) - x_0(lambda) for each node r: the integral of e^{-(1 - r) h} h dr over [0, 1]
    is exact for polynomials of as high a degree as there are nodes. A single node is weighed by B(h) / 2, the
    paper's degenerate case, which holds for h = inf as well.
    """
    moment = -math.expm1(-h)
    if len(nodes) <= 1:
        return [moment / 2 / r for r in nodes]
    moments = []
    for k in range(1, len(nodes) + 1):
        moment = 1.0 - k / h * moment  # by parts
        moments.append(moment)
    powers = np.array([[node**k for node in nodes] for k in range(1, len(nodes) + 1)])
    weights: list[float] = np.linalg.solve(powers, np.array(moments)).tolist()
    return weights


SAMPLERS: dict[str, Sampler] = {
    "ddpm": ddpm,
    "ddim": ddim,
    "heun": heun,
    "dpmpp-2m": dpmpp_2m,
    "unipc": unipc,
}


def evaluations(name: str, steps: int) -> int:
    """How often a sampler calls `denoise` for this many steps down to t = 0."""
    if name not in SAMPLERS:
        raise unknown("sampler", name, SAMPLERS)
    return 2 * steps - 1 if name == "heun" else steps
