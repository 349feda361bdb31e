"""The mark that strides leave: a pattern of a network's own period, points in the spectrum (Odena et al. 2016)."""

from __future__ import annotations

import itertools

import numpy as np

from fabrica.errors import UsageError
from fabrica.image import Float32, Float64

RING = (3, 5)  # bins from a point to those that tell what would be there without it; a Hann window blurs over one


def stride_peak(images: Float32, stride: int, real: Float32 | None = None) -> float:
    """How far the spectrum of images (N, C, H, W) stands out where a pattern of period `stride` would show: at the
    frequencies (k / stride, l / stride). 1: not at all; 4: four times the power around.

    The largest over these points of the mean spectrum of the images.
    real    images (M, C, H, W): what is around is no less than it is in them. A pattern below the texture of real
            images cannot be seen, and in images without any texture of the finest a thousandth of a grey value is one.
    Raises UsageError for images too small to have frequencies beside.
    """
    height, width = images.shape[2:]
    if min(height, width) < 2 * stride * RING[1]:
        raise UsageError(f"images of {height} x {width} pixels are too small to look for a pattern of {stride}")
    power = _power(images)
    floors = [power] if real is None else [power, _power(real)]
    steps = range(-RING[1], RING[1] + 1)
    ring = [(y, x) for y, x in itertools.product(steps, steps) if max(abs(y), abs(x)) >= RING[0]]
    peaks = []
    for k, n in itertools.product(range(stride // 2 + 1), range(stride)):
        if (k, n) != (0, 0):
            row, column = round(k * height / stride), round(n * width / stride)
            around = [[one[(row + y) % height, (column + x) % width] for y, x in ring] for one in floors]
            peaks.append(power[row % height, column % width] / max(*np.median(around, axis=1), 1e-20))
    return float(max(peaks))


def _power(images: Float32) -> Float64:
    """The mean spectrum (H, W) of the images, each less its mean and under a Hann window."""
    height, width = images.shape[2:]
    window = np.outer(np.hanning(height + 1)[:-1], np.hanning(width + 1)[:-1])
    values = images.astype(np.float64)
    values = (values - values.mean(axis=(2, 3), keepdims=True)) * window
    power: Float64 = (np.abs(np.fft.fft2(values)) ** 2).mean(axis=(0, 1))
    return power
