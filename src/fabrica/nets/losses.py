"""How alike images are, as functions to learn from: structure, gradients, frequencies.

Images are (B, C, H, W), `data_range` is the width of their values' range: 2 for [-1, 1]. Results are (B,). Everything
is computed in float32, whatever the precision around it, and slopes are finite everywhere, of equal and of constant
images too. `evaluation.fidelity` measures the first two in float64, in any number of dimensions.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import wraps

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, conv2d, pad

from fabrica.errors import UsageError

TAPS, SIGMA = 11, 1.5
K1, K2 = 0.01, 0.03
SCALE_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
LEAST = 1e-3  # what lesser terms of MS-SSIM count as: the slope of their power is infinite at 0
GMS_CONSTANT = 170 / 255**2  # for values in [0, 1] (Xue et al. 2014, section III)
TINY = 1e-6  # under roots

Loss = Callable[[Tensor, Tensor, float], Tensor]


def _in_float32(loss: Loss) -> Callable[..., Tensor]:
    """The loss, with images checked and outside of autocast."""

    @wraps(loss)
    def checked(a: Tensor, b: Tensor, data_range: float = 2.0) -> Tensor:
        if a.shape != b.shape or a.ndim != 4:
            raise UsageError(
                f"images have shapes {tuple(a.shape)} and {tuple(b.shape)}; expected two equal (B, C, H, W)"
            )
        with torch.autocast(a.device.type, enabled=False):
            return loss(a.float(), b.float(), data_range)

    return checked


@_in_float32
def ssim(a: Tensor, b: Tensor, data_range: float) -> Tensor:
    """Structural similarity, 1 is identical (Wang et al. 2004); Gaussian window of 11 pixels, sigma 1.5, where it lies
    wholly inside the image. UsageError below 11 pixels a side."""
    _require_window(a)
    return _ssim_parts(a, b, data_range)[0]


@_in_float32
def ms_ssim(a: Tensor, b: Tensor, data_range: float) -> Tensor:
    """Multi-scale structural similarity, 1 is identical (Wang et al. 2003, eq. 7).

    Five scales need sides of 176 pixels. Smaller images are compared at as many scales as the window of 11 fits into,
    whose weights are stretched to sum to 1; below 11 pixels a side: UsageError. The last scale takes in the borders,
    mirrored. Terms below 0.001 count as 0.001.
    """
    _require_window(a)
    levels = min(len(SCALE_WEIGHTS), int(math.log2(min(a.shape[2:]) // TAPS)) + 1)
    total = a.new_zeros(len(a))
    for level, weight in enumerate(SCALE_WEIGHTS[:levels]):
        last = level == levels - 1
        whole, contrast = _ssim_parts(a, b, data_range, borders=last)
        total = total + weight / sum(SCALE_WEIGHTS[:levels]) * (whole if last else contrast).clamp_min(LEAST).log()
        if not last:
            a, b = avg_pool2d(a, 2), avg_pool2d(b, 2)
    return total.exp()


@_in_float32
def gradient_similarity(a: Tensor, b: Tensor, data_range: float) -> Tensor:
    """The mean similarity of gradient magnitudes, 1 is identical (Xue et al. 2014, GMSM, eqs. 4 and 5)."""
    return _gradient_similarities(a, b, data_range).flatten(1).mean(1)


@_in_float32
def gradient_similarity_deviation(a: Tensor, b: Tensor, data_range: float) -> Tensor:
    """How unevenly gradient magnitudes are alike, 0 is identical (Xue et al. 2014, GMSD, eq. 6); 0.001 less where it is
    large. Gradients are what FSIM compares too."""
    deviation = _gradient_similarities(a, b, data_range).flatten(1).var(1, unbiased=False)
    return (deviation + TINY).sqrt() - math.sqrt(TINY)


@_in_float32
def frequency_distance(a: Tensor, b: Tensor, data_range: float) -> Tensor:
    """The mean distance of Fourier coefficients, 0 is identical, in units of half the range: weighs fine texture as
    much as large areas."""
    return _spectral_distances(a, b, data_range).flatten(1).mean(1)


@_in_float32
def focal_frequency_distance(a: Tensor, b: Tensor, data_range: float) -> Tensor:
    """The mean squared distance of Fourier coefficients, each weighted by how far it is off, from 0 to 1 for the
    worst of its image (Jiang et al. 2021, eqs. 8 to 10, alpha 1)."""
    distances = _spectral_distances(a, b, data_range)
    weights = distances.detach()
    weights = weights / weights.amax((1, 2, 3), keepdim=True).clamp_min(TINY)
    return (weights * distances.square()).flatten(1).mean(1)


def _require_window(a: Tensor) -> None:
    if min(a.shape[2:]) < TAPS:
        raise UsageError(
            f"images of {list(a.shape[2:])} pixels are too small for the window of SSIM; expected {TAPS} or more a side"
        )


def _ssim_parts(a: Tensor, b: Tensor, data_range: float, borders: bool = False) -> tuple[Tensor, Tensor]:
    """Mean SSIM and mean contrast-structure term of each image (B,)."""
    c1, c2 = (K1 * data_range) ** 2, (K2 * data_range) ** 2
    mean_a, mean_b, squares, product = _smooth(torch.stack([a, b, a * a + b * b, a * b]), borders)
    covariance = product - mean_a * mean_b
    variances = squares - mean_a.square() - mean_b.square()
    contrast = (2 * covariance + c2) / (variances + c2)
    luminance = (2 * mean_a * mean_b + c1) / (mean_a.square() + mean_b.square() + c1)
    return (luminance * contrast).flatten(1).mean(1), contrast.flatten(1).mean(1)


def _smooth(maps: Tensor, borders: bool) -> Tensor:
    """Weighted means over the window, (..., H, W) -> (..., H - 10, W - 10), or (..., H, W) with borders mirrored."""
    offsets = torch.arange(TAPS, device=maps.device) - TAPS // 2
    window = torch.softmax(-offsets.square() / (2 * SIGMA**2), 0)
    flat = maps.flatten(0, -3)[None]  # all maps as channels of one image: twenty times as fast as one by one
    count = flat.shape[1]
    if borders:
        flat = pad(flat, [TAPS // 2] * 4, mode="reflect")
    flat = conv2d(flat, window.view(1, 1, 1, -1).expand(count, 1, 1, -1), groups=count)
    flat = conv2d(flat, window.view(1, 1, -1, 1).expand(count, 1, -1, 1), groups=count)
    return flat.reshape(*maps.shape[:-2], *flat.shape[2:])


def _gradient_similarities(a: Tensor, b: Tensor, data_range: float) -> Tensor:
    """(B, C, h, w), on images of half the size as the paper takes them."""
    constant = GMS_CONSTANT * data_range**2
    squares = (_squared_gradient(torch.stack([a, b])) + TINY * constant).unbind()
    return (2 * (squares[0] * squares[1]).sqrt() + constant) / (squares[0] + squares[1] + constant)


def _squared_gradient(images: Tensor) -> Tensor:
    """By Prewitt's filters, thirds of differences of three pixels (eqs. 1 to 3)."""
    half = avg_pool2d(images.flatten(0, 1), 2)
    half = pad(half, [1] * 4, mode="replicate")
    columns, rows = half[..., 2:] - half[..., :-2], half[..., 2:, :] - half[..., :-2, :]
    across = (columns[..., :-2, :] + columns[..., 1:-1, :] + columns[..., 2:, :]) / 3
    down = (rows[..., :-2] + rows[..., 1:-1] + rows[..., 2:]) / 3
    return (across.square() + down.square()).reshape(*images.shape[:-2], *across.shape[2:])


def _spectral_distances(a: Tensor, b: Tensor, data_range: float) -> Tensor:
    """Absolute differences (B, C, H, W // 2 + 1) of orthonormal Fourier coefficients; values as if in [-1, 1]."""
    distances: Tensor = torch.fft.rfft2((a - b) * (2 / data_range), norm="ortho").abs()
    return distances
