"""Distillation as mathematics: the way of a sampler, and the one step that leads as far.

x_t = alpha x_0 + sigma noise at the start of a step, x_s at its end, s < t.
"""

from __future__ import annotations

from collections.abc import Sequence

from fabrica.diffusion.arrays import Array, namespace
from fabrica.diffusion.objective import Denoise, Level
from fabrica.diffusion.samplers import dpmpp_2m
from fabrica.diffusion.schedule import Schedule


def way(denoise: Denoise, x: Array, schedule: Schedule, times: Sequence[float], clip: float | None = None) -> Array:
    """All of x_t (T + 1, B, C, *S) that DPM-Solver++(2M) comes by on its way from noise x (B, C, *S), the first, to the
    image, the last; at T + 1 times, decreasing from 1 to 0.

    clip    clamps every estimate of x_0, as in `fabrica.diffusion.sample`.
    """
    seen: list[Array] = []

    def noted(x_t: Array, t: float) -> Array:
        seen.append(x_t)
        x_0 = denoise(x_t, t)
        return x_0 if clip is None else x_0.clip(-clip, clip)

    image = dpmpp_2m(noted, x, schedule, times)
    return namespace(x).stack([*seen, image])


def step_target(x_t: Array, x_s: Array, alpha_t: Level, sigma_t: Level, alpha_s: Level, sigma_s: Level) -> Array:
    """The estimate of x_0 with which one DDIM step from x_t ends at x_s (Salimans & Ho 2022, Algorithm 2)."""
    ratio = sigma_s / sigma_t
    return (x_s - ratio * x_t) / (alpha_s - ratio * alpha_t)
