"""Sampling as a whole: which times to visit, and guidance."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from fabrica.diffusion.arrays import Array, namespace, parts
from fabrica.diffusion.objective import Denoise, noised
from fabrica.diffusion.samplers import SAMPLERS, Noise
from fabrica.diffusion.schedule import Schedule
from fabrica.errors import UsageError, unknown

SPACINGS = ("uniform", "log-snr", "karras", "quadratic")


def times(schedule: Schedule, steps: int, spacing: str = "uniform") -> list[float]:
    """The steps + 1 times of a sampler, decreasing from exactly 1 to exactly 0.

    "uniform"     in t, starting at t = 1 ("trailing", Lin et al. 2023, Table 2).
    "quadratic"   in sqrt(t): denser near the data (Song et al. 2021, Appendix D.2).
    "log-snr"     in lambda from -5.1 to 5.1 or to where the schedule ends before (Lu et al. 2022). The schedule's own
                  ends, which may be infinite, take the places of the first and the last.
    "karras"      in (sigma / alpha)^(1/7) from 80 to 0.002 or to where the schedule ends before, then 0
                  (Karras et al. 2022, eq. 5).
    The limits move with the schedule's shift. Raises UsageError for an unknown spacing or less than one step.
    """
    if steps < 1:
        raise UsageError(f"{steps} sampling steps; it takes at least 1")
    if spacing == "uniform":
        return [1.0 - i / steps for i in range(steps)] + [0.0]
    if spacing == "quadratic":
        return [(1.0 - i / steps) ** 2 for i in range(steps)] + [0.0]
    if spacing == "log-snr":
        first, last = _lambda_range(schedule, -5.1, 5.1)
        lam = np.linspace(first, last, steps + 1)
    elif spacing == "karras":
        first, last = _lambda_range(schedule, -math.log(80.0), -math.log(0.002))
        lam = -7 * np.log(np.linspace(math.exp(-first / 7), math.exp(-last / 7), steps))
    else:
        raise unknown("spacing", spacing, SPACINGS)
    inner: list[float] = schedule.time_of(lam[1:steps]).tolist()
    return [1.0, *inner, 0.0]


def _lambda_range(schedule: Schedule, lowest: float, highest: float) -> tuple[float, float]:
    """The part of [lowest, highest] that the schedule's table covers; the limits are those of an unshifted one."""
    ends = schedule.log_snr(np.array([1.0, 1.0 / schedule.levels])).tolist()
    moved = math.log(schedule.shift)
    return max(ends[0], lowest - moved), min(ends[1], highest - moved)


def guided(denoise: Denoise, denoise_null: Denoise, scale: float, rescale: float = 0.0) -> Denoise:
    """Classifier-free guidance (Ho & Salimans 2022, eq. 6), on x_0 estimates.

    scale    1: `denoise` alone; above: away from what `denoise_null`, which does not know the condition, sees.
    rescale  phi of Lin et al. 2023, eq. 15-16: how much of each image's overall contrast is taken back to that
             of `denoise`, against the over-exposure of large scales.
    """
    if scale == 1.0:
        return denoise

    def both(x_t: Array, t: float) -> Array:
        shown, hidden = denoise(x_t, t), denoise_null(x_t, t)
        x_0 = hidden + scale * (shown - hidden)
        if rescale == 0.0:
            return x_0
        xp, axes = namespace(x_0), tuple(range(1, x_0.ndim))
        wanted, found = (xp.std(x, axis=axes, correction=0, keepdims=True) for x in (shown, x_0))
        factor = xp.where(found > 0, wanted, 1.0) / xp.where(found > 0, found, 1.0)
        return x_0 * (rescale * factor + (1.0 - rescale))

    return both


@dataclass(frozen=True)
class Begin:
    """An image to start from, in place of noise alone.

    x_0       (B, C, *S).
    strength  from which time on it is drawn anew, in (0, 1]: near 0 hardly anything changes, 1 is a new image
              (SDEdit, Meng et al. 2022, Algorithm 1).
    keep      (B or 1, 1, *S) bool: where x_0 stays as it is, and what is drawn fits to it (inpainting); None: nowhere.
    """

    x_0: Array
    strength: float = 1.0
    keep: Array | None = None


def within(begin: Begin, encode: Callable[[Array], Array], size: Sequence[int]) -> Begin:
    """The same among latents (B, L, *size) of the image: kept where all of their pixels are."""
    keep = begin.keep
    for axis, places in enumerate(size if keep is not None else (), 2):
        keep = namespace(keep).stack([part.all(axis) for part in parts(keep, axis, places)], axis)
    return replace(begin, x_0=encode(begin.x_0), keep=keep)


def sample(
    denoise: Denoise,
    x: Array,
    schedule: Schedule,
    *,
    sampler: str = "dpmpp-2m",
    steps: int = 10,
    spacing: str = "uniform",
    noise: Noise | None = None,
    clip: float | None = None,
    begin: Begin | None = None,
) -> Array:
    """Images (B, C, *S) from noise x (B, C, *S) of standard deviation one.

    denoise   (x_t, t) -> the estimate of x_0.
    noise     fresh noise for each step; "ddpm" needs it, see `fabrica.diffusion.noise`.
    clip      clamps every estimate of x_0 to [-clip, clip]: 1 for pixels in [-1, 1], None for latents, which know
              no such limits.
    begin     start from this image, noised by x. Where it is kept, the estimate of x_0 is replaced by it, so that x_t
              is there at every step what noising has made of it (Lugmayr et al. 2022, eq. 8, without going back).

    Raises UsageError for an unknown sampler or spacing, less than one step, or missing noise.
    """
    if sampler not in SAMPLERS:
        raise unknown("sampler", sampler, SAMPLERS)
    visited = times(schedule, steps, spacing)
    if begin is not None:
        if not 0 < begin.strength <= 1:
            raise UsageError(f"strength is {begin.strength}; expected above 0 (no change) to 1 (a new image)")
        visited = [begin.strength, *(t for t in visited if t < begin.strength)]
        (alpha,), (sigma,), _ = schedule.levels_at([begin.strength])
        x = noised(begin.x_0, x, alpha, sigma)
    kept = None if begin is None else begin.keep

    def clipped(x_t: Array, t: float) -> Array:
        x_0 = denoise(x_t, t)
        x_0 = x_0 if clip is None else x_0.clip(-clip, clip)
        return x_0 if kept is None or begin is None else namespace(x_0).where(kept, begin.x_0, x_0)

    return SAMPLERS[sampler](clipped, x, schedule, visited, noise)
