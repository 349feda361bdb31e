"""Smooth curves, and tubes along them cut into mass points for the chest phantom. Lengths in mm."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from fabrica.image import Float32, Float64

Points = npt.NDArray[np.floating]
Parts = list[tuple[Float32, Float32]]  # (points (..., 3) of the body frame, mass (...) = volume x attenuation)


def smooth(knots: Sequence[float], values: Sequence[float], at: Float64) -> Float64:
    """Cubic Hermite curve through the knots (finite-difference tangents), constant beyond the ends."""
    x, y = np.asarray(knots, float), np.asarray(values, float)
    gaps = np.diff(x)
    rises = np.diff(y) / gaps
    inner = (rises[:-1] * gaps[1:] + rises[1:] * gaps[:-1]) / (gaps[1:] + gaps[:-1])
    slope = np.concatenate([rises[:1], inner, rises[-1:]])
    k = np.clip(np.searchsorted(x, at) - 1, 0, len(x) - 2)
    step = gaps[k]
    t = np.clip((at - x[k]) / step, 0, 1)
    left = (1 + 2 * t) * y[k] + t * step * slope[k]
    right = (3 - 2 * t) * y[k + 1] + (t - 1) * step * slope[k + 1]
    return np.asarray((1 - t) ** 2 * left + t**2 * right, np.float64)


def parabola(paths: Float64, count: int = 17) -> Float64:
    """Paths (k, 3, c) as smooth curves (k, count, c) through the same three points."""
    t = np.linspace(0, 1, count)[:, None]
    a, b, c = paths[:, None, 0], paths[:, None, 1], paths[:, None, 2]
    return a * (1 - t) * (1 - 2 * t) + b * 4 * t * (1 - t) + c * t * (2 * t - 1)


def tube_points(paths: Points, radii: Points, step: float) -> tuple[Float32, Float32]:
    """Solid round tubes as points and the volume that each stands for (mm^3).

    paths (k, m, 3) and radii (k, m) in mm. Points lie no more than about `step` mm apart along the tube, and
    across it at the Gauss-Chebyshev nodes of the chord 2 sqrt(r^2 - u^2), so that the volume is exact.
    Returns points (k, n, u, 3) and volumes (k, n, u).
    """
    paths, radii = paths.astype(np.float32), radii.astype(np.float32)
    legs, m = np.diff(paths, axis=1), paths.shape[1]
    length = np.sqrt(np.einsum("kmc,kmc->km", legs, legs))
    n = max(1, math.ceil(length.max() * (m - 1) / step))
    at = (np.arange(n) + 0.5) / n * (m - 1)
    k = np.minimum(at.astype(int), m - 2)
    f = (at - k).astype(np.float32)
    centre = paths[:, k] * (1 - f)[:, None] + paths[:, k + 1] * f[:, None]
    radius = radii[:, k] * (1 - f) + radii[:, k + 1] * f
    knot = np.arange(m)  # the tube turns gradually from leg to leg, or the bends would crack
    bend = (legs[:, np.maximum(knot - 1, 0)] + legs[:, np.minimum(knot, m - 2)])[..., ::2]  # in the picture
    way = bend[:, k] * (1 - f)[:, None] + bend[:, k + 1] * f[:, None]
    way /= np.linalg.norm(way, axis=2, keepdims=True) + 1e-6

    across = max(1, math.ceil(math.pi * float(radii.max()) / step))
    angle = np.arange(1, across + 1) * np.pi / (across + 1)
    offset = radius[..., None] * np.cos(angle, dtype=np.float32)
    points = np.moveaxis(np.empty((3, *offset.shape), np.float32), 0, -1)  # each axis contiguous: it is faster
    points[..., 0] = centre[..., None, 0] - offset * way[..., 1:]
    points[..., 1] = centre[..., None, 1]
    points[..., 2] = centre[..., None, 2] + offset * way[..., :1]
    share = np.float32(2 * np.pi / (across + 1)) * np.sin(angle, dtype=np.float32) ** 2
    volume = (radius**2 * length[:, k] * (m - 1) / n)[..., None] * share
    return points, volume


def both_sides(parts: Parts) -> Parts:
    """The patient's left side and its mirror image."""
    return parts + [(points * np.array([-1, 1, 1], np.float32), mass) for points, mass in parts]
