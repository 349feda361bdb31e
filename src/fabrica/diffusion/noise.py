"""Where images come from: Gaussian noise that belongs to a seed, or lies between two seeds.

One generator for each image makes all of its noise, so that a seed gives the same image whatever the batch, the device,
the number of processes, and whatever runs the network.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from scipy.special import ndtr, ndtri

from fabrica.errors import UsageError
from fabrica.image import Float32

Draw = Callable[[Sequence[int]], Float32]
"""draw(shape) -> Gaussian noise (N, *shape), float32, anew at each call: one row an image."""


def seeded(seeds: Sequence[int]) -> Draw:
    """The noise of images that come from these seeds, one each; UsageError for one below 0."""
    if min(seeds, default=0) < 0:
        raise UsageError(f"seed is {min(seeds)}; expected 0 or more")
    generators = [np.random.Generator(np.random.PCG64(seed)) for seed in seeds]

    def draw(shape: Sequence[int]) -> Float32:
        return np.stack([each.standard_normal(tuple(shape), dtype=np.float32) for each in generators])

    return draw


def between(first: int, last: int, frames: int) -> Draw:
    """The noise of `frames` images on the way from seed `first` to seed `last`, both included.

    Spherical interpolation (White 2016, "Sampling generative networks"): what lies between two Gaussian vectors of
    many dimensions on a straight line is shorter than any vector a network was trained on; on the arc it is not.
    """
    ends = seeded([first, last])
    share = np.linspace(0.0, 1.0, frames)

    def draw(shape: Sequence[int]) -> Float32:
        a, b = ends(shape).reshape(2, -1).astype(np.float64)
        cosine = a @ b / (np.linalg.norm(a) * np.linalg.norm(b))
        angle = np.arccos(np.clip(cosine, -1.0, 1.0))
        weights = np.stack([1.0 - share, share])
        if np.sin(angle) > 1e-4:  # else the same seed twice, or noise of one number: there is no arc
            weights = np.sin(weights * angle) / np.sin(angle)
        way: Float32 = (weights[0, :, None] * a + weights[1, :, None] * b).astype(np.float32)
        return way.reshape(frames, *shape)

    return draw


def truncated(z: Float32, limit: float) -> Float32:
    """Gaussian z (B, D) as if drawn within [-limit, limit] only: more typical images, less varied ones.

    The truncation trick (Brock et al. 2019, section 3.1), by the inverse distribution function instead of drawing
    again, so that each seed moves smoothly with the limit. 0: no limit.
    """
    if limit == 0:
        return z
    low, high = ndtr(-limit), ndtr(limit)
    kept: Float32 = ndtri(low + (high - low) * ndtr(z.astype(np.float64))).astype(np.float32)
    return kept
