"""Noise levels: how much of the image and how much noise there is at each time.

x_t = alpha(t) x_0 + sigma(t) noise, with t from 0 (data) to 1 (noise). Ratios are told as
lambda = log(alpha / sigma), half the log-SNR (Lu et al. 2022, DPM-Solver), from +inf at the data to -inf where
nothing of the image is left.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy.special import expit

from fabrica.diffusion.arrays import Array, like, namespace
from fabrica.errors import UsageError, unknown
from fabrica.image import Float64

BETAS = {"linear": (1e-4, 0.02), "scaled-linear": (0.0015, 0.0205)}
KINDS = (*BETAS, "cosine", "flow")


@dataclass(frozen=True)
class Schedule:
    """alpha(t) and sigma(t) of a diffusion or a flow.

    kind    "linear": beta from 1e-4 to 0.02 (Ho et al. 2020). "scaled-linear": sqrt(beta) linear, 0.0015 to
            0.0205 (Rombach et al. 2022, as used for latent diffusion of medical images). "cosine": Nichol &
            Dhariwal 2021, eq. 17, betas at most 0.999. "flow": alpha = 1 - t, sigma = t (rectified flow, Liu
            et al. 2022). All but "flow" keep the variance: alpha^2 + sigma^2 = 1.
    levels  entries of the discrete table; entry k (from 0) stands at t = (k + 1) / levels, alpha is linear in
            between and exactly 1 at t = 0. Without meaning for "flow".
    beta_start, beta_end    other ends for the linear kinds.
    zero_terminal_snr       shift and scale alpha so that alpha(1) = 0 and the first entry stays (Lin et al.
                            2023, Algorithm 1): then training sees what sampling starts from.
    shift   multiplies sigma / alpha: above 1 for more noise, as large images need it. The shift of Hoogeboom et
            al. 2023 (simple diffusion: side / 64) and of Esser et al. 2024 (SD3, eq. 23).

    Raises UsageError for values that make no schedule.
    """

    kind: str = "cosine"
    levels: int = 1000
    beta_start: float | None = None
    beta_end: float | None = None
    zero_terminal_snr: bool = False
    shift: float = 1.0

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise unknown("schedule", self.kind, KINDS)
        if self.levels < 2:
            raise UsageError(f"a schedule of {self.levels} levels; it needs at least 2, usually 1000")
        if not (self.shift > 0 and math.isfinite(self.shift)):
            raise UsageError(f"schedule shift is {self.shift}; it must be above 0, and 1 changes nothing")
        if self.betas:
            start, end = self.betas
            if not 0 < start <= end < 1:
                raise UsageError(f"beta_start {start} and beta_end {end}; expected 0 < start <= end < 1")
        elif self.beta_start is not None or self.beta_end is not None:
            raise UsageError(f"beta_start and beta_end mean nothing to the {self.kind} schedule; leave them out")

    @property
    def betas(self) -> tuple[float, float] | None:
        """The first and the last beta of the linear kinds; None of others, which have no such ends."""
        if self.kind not in BETAS:
            return None
        start, end = BETAS[self.kind]
        return (start if self.beta_start is None else self.beta_start, end if self.beta_end is None else self.beta_end)

    def alpha_sigma(self, t: Array) -> tuple[Array, Array]:
        """(alpha, sigma), float64, of times in [0, 1] of any shape and float type; times outside are clamped."""
        xp = namespace(t)
        t = xp.clip(xp.asarray(t, dtype=xp.float64), 0.0, 1.0)
        if self.kind == "flow":
            alpha, sigma = 1.0 - t, t
        else:
            fall = like(t, _fall(self))
            place = t * self.levels
            k = xp.asarray(xp.clip(xp.floor(place), 0, self.levels - 1), dtype=xp.int64)
            share = place - k
            gap = (1.0 - share) * fall[k] + share * fall[k + 1]
            alpha, sigma = 1.0 - gap, xp.sqrt(gap * (2.0 - gap))
        if self.shift == 1.0:
            return alpha, sigma
        sigma = self.shift * sigma
        norm = alpha + sigma if self.kind == "flow" else xp.hypot(alpha, sigma)
        return alpha / norm, sigma / norm

    def levels_at(self, times: Sequence[float]) -> tuple[list[float], list[float], list[float]]:
        """alpha, sigma and lambda at each time, in double precision."""
        t = np.asarray(times, dtype=np.float64)
        alpha, sigma = self.alpha_sigma(t)
        return alpha.tolist(), sigma.tolist(), self.log_snr(t).tolist()

    def log_snr(self, t: Float64) -> Float64:
        """lambda = log(alpha) - log(sigma): half the log-SNR. +inf at t = 0, -inf where alpha is 0."""
        alpha, sigma = self.alpha_sigma(t)
        with np.errstate(divide="ignore"):
            difference: Float64 = np.log(alpha) - np.log(sigma)
        return difference

    def time_of(self, log_snr: Float64) -> Float64:
        """The inverse of `log_snr`: times in [0, 1]; what lies beyond the schedule's ends gives 0 or 1."""
        log_snr = np.asarray(log_snr, dtype=np.float64) + math.log(self.shift)
        found: Float64
        if self.kind == "flow":
            found = expit(-log_snr)
            return found
        fall = _fall(self)
        gap = expit(-2.0 * log_snr) / (1.0 + np.sqrt(expit(2.0 * log_snr)))  # sigma^2 / (1 + alpha)
        k = np.clip(np.searchsorted(fall, gap), 1, self.levels)
        fraction = (gap - fall[k - 1]) / (fall[k] - fall[k - 1])
        found = (k - 1 + np.clip(fraction, 0.0, 1.0)) / self.levels
        return found


def coefficients(schedule: Schedule, t: Array, x: Array) -> tuple[Array, Array]:
    """alpha and sigma of times (B,), in the type of x (B, C, *S) and shaped to multiply it."""
    xp = namespace(x)
    shape = (-1, *[1] * (x.ndim - 1))
    alpha, sigma = (xp.asarray(each, dtype=x.dtype).reshape(shape) for each in schedule.alpha_sigma(t))
    return alpha, sigma


@lru_cache(maxsize=32)
def _fall(schedule: Schedule) -> Float64:
    """1 - alpha at t = 0, 1/levels, ..., 1: float64 (levels + 1,), rising from 0.

    Kept as a difference from one, because sigma and lambda near the data hang on its last digits.
    """
    alpha = np.sqrt(np.cumprod(1.0 - _betas(schedule)))
    if schedule.zero_terminal_snr:
        alpha = (alpha - alpha[-1]) * (alpha[0] / (alpha[0] - alpha[-1]))
    return np.concatenate([[0.0], 1.0 - alpha])


def _betas(schedule: Schedule) -> Float64:
    """beta_1 ... beta_T, float64 (levels,)."""
    n = schedule.levels
    if schedule.kind == "cosine":
        offset = 0.008  # keeps beta from vanishing near t = 0
        t = np.linspace(0.0, 1.0, n + 1)
        alpha_bar = np.cos((t + offset) / (1.0 + offset) * (math.pi / 2)) ** 2
        betas: Float64 = np.minimum(1.0 - alpha_bar[1:] / alpha_bar[:-1], 0.999)
        return betas
    assert schedule.betas
    start, end = schedule.betas
    if schedule.kind == "linear":
        return np.linspace(start, end, n)
    squared: Float64 = np.linspace(start**0.5, end**0.5, n) ** 2
    return squared
