"""Which part of its input moved a network's answer: occlusion (Zeiler and Fergus 2014, ECCV, section 4.2) and
integrated gradients (Sundararajan, Taly and Yan 2017, ICML, eq. 1 to 3), of any function of an array."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import uniform_filter

from fabrica.errors import UsageError
from fabrica.image import Float32, Float64

Effect = Callable[[Float32], Float64]
"""changed inputs (B, C, *S) -> how far each moved the answer, by K measures: (B, K)."""
Gradient = Callable[[Float32], tuple[Float64, Float32]]
"""inputs (B, C, *S) -> the answers F (B,), one number each, and their gradients (B, C, *S)."""

Count = Callable[[int, int], None]
"""Called with (done, total)."""

COMPLETE = 0.05  # of F(x) - F(baseline), by which attributions may miss it (Sundararajan et al., section 5)
FEWEST, MOST = 16, 256  # steps on the way from the baseline


def places(size: Sequence[int], window: Sequence[int], stride: Sequence[int]) -> list[tuple[slice, ...]]:
    """Windows that cover an array of this size, `stride` apart, the last of each axis at its border."""
    for n, w, step in zip(size, window, stride, strict=True):
        if not (1 <= w <= n and 1 <= step <= w):
            raise UsageError(
                f"windows of {list(window)} in steps of {list(stride)} do not cover {list(size)}; expected windows no "
                "larger than that, and steps from 1 to the window"
            )
    starts = [sorted({*range(0, n - w, step), n - w}) for n, w, step in zip(size, window, stride, strict=True)]
    return [
        tuple(slice(k, k + w) for k, w in zip(corner, window, strict=True)) for corner in itertools.product(*starts)
    ]


def local_mean(x: Float32, window: Sequence[int]) -> Float32:
    """Of each place of x (C, *S) the mean over the window around it, the border repeated, channel by channel."""
    mean: Float32 = uniform_filter(x, (0, *window), mode="nearest")
    return mean


def occlusion(
    effect: Effect,
    x: Float32,
    fill: Float32,
    window: Sequence[int],
    stride: Sequence[int],
    *,
    batch: int = 16,
    progress: Count | None = None,
) -> Float64:
    """(K, *S): of each place of x (C, *S) the mean effect of the windows over it, each put in its turn in place of x.

    fill    (C, *S), what stands in a window instead of x.
    window, stride   of the windows and their distances, in elements of S; see `places`.
    """
    where = places(x.shape[1:], window, stride)
    sums: Float64 | None = None
    counts = np.zeros(x.shape[1:])
    for start in range(0, len(where), batch):
        some = where[start : start + batch]
        changed = np.repeat(x[None], len(some), 0)
        for one, place in zip(changed, some, strict=True):
            here = (slice(None), *place)
            one[here] = fill[here]
        moved = np.asarray(effect(changed), dtype=np.float64)
        if sums is None:
            sums = np.zeros((moved.shape[1], *x.shape[1:]))
        for by, place in zip(moved, some, strict=True):
            sums[(slice(None), *place)] += by.reshape(-1, *[1] * len(place))
            counts[place] += 1
        if progress:
            progress(start + len(some), len(where))
    assert sums is not None  # there is always a window
    means: Float64 = sums / counts
    return means


@dataclass(frozen=True, eq=False)
class Attribution:
    """Integrated gradients of F at x.

    map      (C, *S), what each element of x adds to F(x) - F(baseline), in F's unit.
    total    the sum of the map; expected: F(x) - F(baseline), which it should be (completeness).
    steps    gradients on the way that were asked for.
    """

    map: Float64
    total: float
    expected: float
    steps: int

    @property
    def gap(self) -> float:
        """How far the sum misses what it should be."""
        return abs(self.total - self.expected)

    @property
    def complete(self) -> bool:
        """Whether it misses no more than COMPLETE, or no more than rounding where there is nothing to attribute."""
        return self.gap <= max(COMPLETE * abs(self.expected), 1e-4 * float(np.abs(self.map).sum()))


def integrated_gradients(
    gradient: Gradient,
    x: Float32,
    baseline: Float32,
    *,
    steps: int = FEWEST,
    most: int = MOST,
    batch: int = 8,
    progress: Count | None = None,
) -> Attribution:
    """(x - baseline) times the mean gradient on the straight way from the baseline to x, both (C, *S).

    The mean is by Gauss and Legendre's quadrature, exact for polynomials up to 2 steps - 1. Where the sum misses
    F(x) - F(baseline) by more than COMPLETE, the steps are doubled, up to `most`.

    Raises UsageError for fewer than one step.
    """
    if steps < 1:
        raise UsageError(f"asked for {steps} steps of integrated gradients; expected at least 1")
    ends, _ = gradient(np.stack([x, baseline]))
    expected = float(ends[0] - ends[1])
    while True:
        found = _integrated(gradient, x, baseline, expected, steps, batch, progress)
        if found.complete or 2 * steps > most:
            return found
        steps *= 2


def _integrated(
    gradient: Gradient,
    x: Float32,
    baseline: Float32,
    expected: float,
    steps: int,
    batch: int,
    progress: Count | None,
) -> Attribution:
    total = np.zeros(x.shape)
    for start, alphas, weights in _quadrature(steps, batch):
        shape = (-1, *[1] * x.ndim)
        way = baseline + alphas.astype(np.float32).reshape(shape) * (x - baseline)
        total += (weights.reshape(shape) * gradient(way)[1]).sum(0)
        if progress:
            progress(start + len(alphas), steps)
    found = total * (x - baseline)
    return Attribution(found, float(found.sum()), expected, steps)


def _quadrature(steps: int, batch: int) -> Iterator[tuple[int, Float64, Float64]]:
    """Places from 0 to 1 and their weights, which sum to 1, a batch at a time."""
    nodes, weights = np.polynomial.legendre.leggauss(steps)
    for start in range(0, steps, batch):
        yield start, (nodes[start : start + batch] + 1) / 2, weights[start : start + batch] / 2


def default_window(size: Sequence[int]) -> tuple[list[int], list[int]]:
    """(window, stride) for an array of this size: of images an eighth of the shorter side by its half, of volumes,
    where there are many more of them, a quarter without overlap."""
    flat = len(size) == 2
    side = max(1, math.ceil(min(size) / (8 if flat else 4)))
    window = [min(n, side) for n in size]
    return window, [max(1, w // 2) if flat else w for w in window]
