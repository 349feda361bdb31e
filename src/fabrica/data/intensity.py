"""Random changes of grey values of training patches, as nnU-Net makes them (Isensee et al. 2021, supplementary note 4).

A patch is (C, *S) float32 in [-1, 1], the draw a random generator that belongs to its place in training. Probabilities
and ranges are that paper's, for values of standard deviation 1: those of codecs have about half of that.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.ndimage import gaussian_filter, zoom

from fabrica.image import Float32

DEVIATION = 0.5


def changed_values(values: Float32, draw: np.random.Generator, thick: Sequence[int] = ()) -> Float32:
    """The patch after noise, blur, brightness, contrast, low resolution and gamma, each at its own chance.

    thick   spatial axes of thick slices, along which nothing is blurred or made coarser.
    """
    axes = [axis for axis in range(1, values.ndim) if axis - 1 not in thick]
    values = values.copy()
    if draw.random() < 0.1:
        spread = DEVIATION * np.float32(np.sqrt(draw.uniform(0, 0.1)))
        values += spread * draw.standard_normal(values.shape, dtype=np.float32)
    if draw.random() < 0.2:
        values = gaussian_filter(values, draw.uniform(0.5, 1.0), axes=axes, truncate=3.0)
    if draw.random() < 0.15:
        values = (values + 1) * np.float32(draw.uniform(0.75, 1.25)) - 1  # air stays air
    if draw.random() < 0.15:
        values = _contrasted(values, draw.uniform(0.75, 1.25))
    if draw.random() < 0.25:
        values = coarsened(values, draw.uniform(0.5, 1.0), axes)
    if draw.random() < 0.1:
        values = -_powered(-values, draw.uniform(0.7, 1.5))
    if draw.random() < 0.3:
        values = _powered(values, draw.uniform(0.7, 1.5))
    return values


def coarsened(values: Float32, share: float, axes: Sequence[int]) -> Float32:
    """The patch at a share of its resolution along these axes: the nearest voxels are kept, and joined linearly."""
    coarse = values
    for axis in axes:
        side = values.shape[axis]
        kept = max(1, round(side * share))
        coarse = coarse.take(np.minimum(((np.arange(kept) + 0.5) * side / kept).astype(int), side - 1), axis)
    back = [n / m for n, m in zip(values.shape, coarse.shape, strict=True)]
    fine: Float32 = zoom(coarse, back, order=1, mode="nearest", grid_mode=True)
    return fine


def _contrasted(values: Float32, gain: float) -> Float32:
    """Further from or nearer to the mean, within the range that there was."""
    mean = values.mean(dtype=np.float64)
    spread: Float32 = (values - np.float32(mean)) * np.float32(gain) + np.float32(mean)
    return np.clip(spread, values.min(), values.max())


def _powered(values: Float32, power: float) -> Float32:
    """To a power between the lowest and highest value there are; mean and standard deviation stay."""
    low, high = values.min(), values.max()
    if not low < high:
        return values
    bent: Float32 = ((values - low) / (high - low)) ** np.float32(power)
    spread = bent.std() or np.float32(1)
    moved: Float32 = (bent - bent.mean()) / spread * values.std() + values.mean()
    return moved
