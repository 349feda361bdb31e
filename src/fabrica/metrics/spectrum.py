"""What a network leaves in the spectrum of its images: a pattern of its strides' period (Odena et al. 2016), and less
of high frequencies, which is blur."""

from __future__ import annotations

import itertools

import numpy as np

from fabrica.errors import UsageError
from fabrica.image import Float32, Float64

RINGS = 16  # of frequency
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
    power = _mean_power(images)
    floors = [power] if real is None else [power, _mean_power(real)]
    steps = range(-RING[1], RING[1] + 1)
    ring = [(y, x) for y, x in itertools.product(steps, steps) if max(abs(y), abs(x)) >= RING[0]]
    peaks = []
    for k, n in itertools.product(range(stride // 2 + 1), range(stride)):
        if (k, n) != (0, 0):
            row, column = round(k * height / stride), round(n * width / stride)
            around = [[one[(row + y) % height, (column + x) % width] for y, x in ring] for one in floors]
            peaks.append(power[row % height, column % width] / max(*np.median(around, axis=1), 1e-20))
    return float(max(peaks))


def power_kept(made: Float32, real: Float32) -> tuple[Float64, Float64]:
    """How much of the power of images (N, C, *S) a copy of them has, ring by ring of frequency: the middles of the
    rings as shares of Nyquist, and the ratios; 1 is all of it, less is blur, more is noise.

    Powers are means over the images, each less its mean and under a Hann window. There are RINGS rings, fewer of images
    below 64 pixels, so that each holds some frequencies.
    """
    rings = max(2, min(RINGS, min(real.shape[2:]) // 4))
    axes = np.meshgrid(*(2 * np.fft.fftfreq(side) for side in real.shape[2:]), indexing="ij")
    ring = (rings * np.sqrt(sum(axis**2 for axis in axes))).astype(int)  # corners, beyond Nyquist, are left out

    def power(images: Float32) -> Float64:
        return np.asarray(np.bincount(ring.ravel(), _mean_power(images).ravel())[:rings], dtype=np.float64)

    return (np.arange(rings) + 0.5) / rings, power(made) / np.maximum(power(real), 1e-20)


def _mean_power(images: Float32) -> Float64:
    """The mean of `_power` (*S) over images (N, C, *S)."""
    total = np.zeros(images.shape[2:])
    for image in images:
        total += _power(image)
    return np.asarray(total / len(images))


def _power(image: Float32) -> Float64:
    """The power spectrum (*S) of one image (C, *S) less its mean and under a Hann window, over its channels."""
    values = image.astype(np.float64)
    values -= values.mean(axis=tuple(range(1, image.ndim)), keepdims=True)
    for axis, side in enumerate(image.shape[1:], start=1):
        values *= np.hanning(side + 1)[:-1].reshape(-1, *[1] * (image.ndim - 1 - axis))
    power: Float64 = (np.abs(np.fft.fftn(values, axes=range(1, image.ndim))) ** 2).sum(0)
    return power
