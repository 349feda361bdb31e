"""How near an image is to its reference: PSNR, SSIM, MS-SSIM; and how much a set varies: diversity.

Arrays are (N, C, H, W) or (N, C, D, H, W) in any unit; `data_range` is the width of the values' range in
that unit (2 for network units, [-1, 1]). Scores come one an image, float64 (N,), averaged over channels.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.ndimage import correlate1d

from fabrica.errors import UsageError
from fabrica.image import Float32, Float64

TAPS, SIGMA = 11, 1.5
K1, K2 = 0.01, 0.03
SCALE_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)

Values = npt.NDArray[np.floating[Any]]


def _checked(a: Values, b: Values) -> tuple[Float64, Float64]:
    if a.shape != b.shape or a.ndim not in (4, 5):
        raise UsageError(
            f"images have shapes {a.shape} and {b.shape}; expected two equal (N, C, H, W) or (N, C, D, H, W)"
        )
    return np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)


def _per_image(values: Float64) -> Float64:
    mean: Float64 = values.reshape(len(values), -1).mean(1)
    return mean


def psnr(a: Values, b: Values, data_range: float) -> Float64:
    """Peak signal-to-noise ratio in dB, 10 log10(data_range^2 / mean squared error); inf if equal."""
    a, b = _checked(a, b)
    with np.errstate(divide="ignore"):
        return 10 * np.log10(data_range**2 / _per_image((a - b) ** 2))


def _smooth(values: Float64, borders: bool) -> Float64:
    """Gaussian window on the spatial axes; without `borders` only where it lies wholly inside the image."""
    offsets = np.arange(TAPS) - TAPS // 2
    window = np.exp(-(offsets**2) / (2 * SIGMA**2))
    window /= window.sum()
    edge = TAPS // 2
    for axis in range(2, values.ndim):
        values = correlate1d(values, window, axis=axis, mode="mirror")
        if not borders:
            values = values[(slice(None),) * axis + (slice(edge, values.shape[axis] - edge),)]
    return values


def _ssim_parts(a: Float64, b: Float64, data_range: float, borders: bool = False) -> tuple[Float64, Float64]:
    """Mean SSIM and mean contrast-structure term of each image."""
    luminance, contrast = similarity(a, b, data_range, lambda values: _smooth(values, borders))
    return _per_image(luminance * contrast), _per_image(contrast)


def similarity(
    a: Float64, b: Float64, data_range: float, smooth: Callable[[Float64], Float64], unbiased: float = 1.0
) -> tuple[Float64, Float64]:
    """The luminance and the contrast-structure term of SSIM at each pixel (Wang et al. 2004, eqs. 6 and 13).

    smooth    the mean over the window around each pixel.
    unbiased  n / (n - 1) for sample variances in windows of n pixels; 1: as in the paper.
    """
    c1, c2 = (K1 * data_range) ** 2, (K2 * data_range) ** 2
    mean_a, mean_b = smooth(a), smooth(b)
    variances = unbiased * (smooth(a * a + b * b) - mean_a**2 - mean_b**2)
    covariance = unbiased * (smooth(a * b) - mean_a * mean_b)
    contrast = (2 * covariance + c2) / (variances + c2)
    luminance = (2 * mean_a * mean_b + c1) / (mean_a**2 + mean_b**2 + c1)
    return luminance, contrast


def _require_side(shape: tuple[int, ...], levels: int = 1) -> None:
    needed = TAPS * 2 ** (levels - 1)
    if min(shape[2:]) < needed:
        raise UsageError(
            f"images of size {shape[2:]} are too small for SSIM with {levels} level(s); "
            f"expected every side to be at least {needed}"
        )


def ssim(a: Values, b: Values, data_range: float) -> Float64:
    """Structural similarity (Wang et al. 2004), Gaussian window of 11 taps, sigma 1.5, borders left out.

    The same as scikit-image with gaussian_weights=True and use_sample_covariance=False. 1 is identical.
    """
    a, b = _checked(a, b)
    _require_side(a.shape)
    return _ssim_parts(a, b, data_range)[0]


def levels_for(size: tuple[int, ...]) -> int:
    """How many scales, at most 5, fit the window of `ms_ssim` into an image of this spatial size."""
    return max(1, min(len(SCALE_WEIGHTS), int(np.log2(max(1, min(size) // TAPS))) + 1))


def ms_ssim(a: Values, b: Values, data_range: float, levels: int | None = None) -> Float64:
    """Multi-scale SSIM (Wang, Simoncelli & Bovik 2003, eq. 7). 1 is identical.

    levels  scales to use; None takes as many of the five as fit. Five need sides of at least 176; with fewer
            the published weights of the scales in use are rescaled to sum to 1, so scores of images of
            different sizes are not comparable. Negative terms count as 0.

    As in torchmetrics the last scale takes in the borders, mirrored: of its few pixels the interior alone
    would leave out most.
    """
    a, b = _checked(a, b)
    levels = levels_for(a.shape[2:]) if levels is None else levels
    if not 1 <= levels <= len(SCALE_WEIGHTS):
        raise UsageError(f"levels is {levels}; expected 1 to {len(SCALE_WEIGHTS)}")
    _require_side(a.shape, levels)
    weights = np.array(SCALE_WEIGHTS[:levels]) / sum(SCALE_WEIGHTS[:levels])
    score = np.ones(len(a))
    for level, weight in enumerate(weights):
        last = level == levels - 1
        whole, contrast = _ssim_parts(a, b, data_range, borders=last)
        score *= np.clip(whole if last else contrast, 0, None) ** weight
        if not last:
            a, b = _halved(a), _halved(b)
    return score


def _halved(values: Float64) -> Float64:
    """Mean over 2 x 2 (x 2) blocks; an odd last row is left out."""
    for axis in range(2, values.ndim):
        pairs = values.shape[axis] // 2
        blocks = np.moveaxis(values, axis, 0)[: 2 * pairs]
        values = np.moveaxis((blocks[::2] + blocks[1::2]) / 2, 0, axis)
    return values


def diversity(
    images: Float32, pairs: int = 500, seed: int = 0, *, data_range: float = 2.0, level: float = 0.95
) -> tuple[float, float, float]:
    """(mean, low, high) of MS-SSIM over random pairs within a set (N, C, *S): lower is more diverse.

    Compare it with the same figure of real images: a mode-collapsed generator scores clearly higher. The
    interval is a bootstrap over images, not over pairs, because pairs share images.
    """
    if len(images) < 2:
        raise UsageError(f"diversity needs at least 2 images, found {len(images)}")
    rng = np.random.default_rng(seed)
    total = len(images) * (len(images) - 1) // 2
    chosen = rng.choice(total, min(pairs, total), replace=False)
    first, second = _unrank(chosen)
    scores = np.concatenate(
        [ms_ssim(images[first[i : i + 32]], images[second[i : i + 32]], data_range) for i in range(0, len(chosen), 32)]
    )
    counts = rng.multinomial(len(images), np.full(len(images), 1 / len(images)), size=500)
    weights = counts[:, first] * counts[:, second]
    used = weights.sum(1) > 0
    means = (weights[used] @ scores) / weights[used].sum(1)
    tail = (1 - level) / 2
    low, high = np.quantile(means, [tail, 1 - tail]) if used.any() else (scores.min(), scores.max())
    return float(scores.mean()), float(low), float(high)


def _unrank(ranks: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """The pair (i, j), i < j, that stands at each rank of (0,1) (0,2) (1,2) (0,3) ..."""
    j = ((1 + np.sqrt(1 + 8 * ranks.astype(np.float64))) / 2).astype(np.int64)
    j -= (j * (j - 1) // 2 > ranks).astype(np.int64)
    return ranks - j * (j - 1) // 2, j
