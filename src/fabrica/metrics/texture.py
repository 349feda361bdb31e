"""Hand-made image features, in groups: grey levels, texture, runs, edges, wavelets, blobs, spectrum, layout.

Every group is a function of planes (N, H, W), float32 in [-1, 1], that returns (N, F) float64, with a tuple
of F names beside it. Quantities with a long right tail are given as log1p, so that a z-score of them means
something. Definitions follow the IBSI reference manual (Zwanenburg et al. 2020) unless said otherwise.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.ndimage import gaussian_laplace

from fabrica.image import Float32, Float64

GREY_LEVELS = 32
RUN_LEVELS = 8
DISTANCES = (1, 3)
WAVELET_LEVELS = 3
LOG_SIGMAS = (1.0, 2.0, 4.0)
BANDS = 8
BLOCKS = 4
PERCENTILES = (1, 5, 10, 25, 50, 75, 90, 95, 99)

Int = npt.NDArray[np.int64]


def quantised(planes: Float32, levels: int) -> Int:
    """Grey levels 0..levels-1 in fixed bins over [-1, 1]: the same grey is the same level in every image."""
    bins = ((planes + 1) * np.float32(levels / 2)).astype(np.int64)
    return np.clip(bins, 0, levels - 1, out=bins)


def _stack(columns: Iterable[npt.NDArray[np.floating[Any]]]) -> Float64:
    return np.stack([np.asarray(c, dtype=np.float64) for c in columns], axis=1)


def _moments(values: Float32) -> tuple[Float64, Float64, Float64, Float64]:
    """Mean, standard deviation, skewness and log1p kurtosis of each row; flat rows have shape 0."""
    flat = values.reshape(len(values), -1)
    mean = flat.mean(1, dtype=np.float64)
    gap = flat - mean[:, None].astype(np.float32)
    square = gap * gap
    variance = square.mean(1, dtype=np.float64)
    third = np.einsum("ij,ij->i", square, gap, dtype=np.float64) / flat.shape[1]
    fourth = np.einsum("ij,ij->i", square, square, dtype=np.float64) / flat.shape[1]
    # A variance below float32's rounding is that of a flat image, whose shape is noise.
    safe = np.where(variance > 1e-10, variance, np.inf)
    return mean, np.sqrt(variance), third / safe**1.5, np.log1p(fourth / safe**2)


def _entropy(probabilities: Float64) -> Float64:
    logs = np.log2(np.where(probabilities > 0, probabilities, 1))
    entropy: Float64 = -(probabilities * logs).sum(-1)
    return entropy


GREY_NAMES = (
    *("mean", "sd", "skewness", "log_kurtosis", "mean_absolute_deviation", "log_energy"),
    *(f"percentile_{p:02d}" for p in PERCENTILES),
    *("entropy", "uniformity", "share_black", "share_white"),
)


def grey(planes: Float32) -> Float64:
    """First-order statistics of the grey levels."""
    flat = planes.reshape(len(planes), -1)
    mean, sd, skewness, kurtosis = _moments(planes)
    deviation = np.abs(flat - mean[:, None].astype(np.float32)).mean(1)
    energy = np.log1p(np.square(flat + 1).mean(1))  # energy above black, which is -1 here
    rows = np.arange(len(planes))[:, None] * GREY_LEVELS
    bins = quantised(flat, GREY_LEVELS) + rows
    counts = np.bincount(bins.ravel(), minlength=len(planes) * GREY_LEVELS).reshape(len(planes), GREY_LEVELS)
    shares = counts / flat.shape[1]
    ordered = np.sort(flat, axis=1)
    ranks = np.rint(np.array(PERCENTILES) / 100 * (flat.shape[1] - 1)).astype(int)
    black, white = (flat <= -0.99).mean(1), (flat >= 0.99).mean(1)
    first = (mean, sd, skewness, kurtosis, deviation, energy)
    return _stack((*first, *ordered[:, ranks].T, _entropy(shares), (shares**2).sum(1), black, white))


_TEXTURE = (
    *("contrast", "dissimilarity", "homogeneity", "correlation"),
    *("angular_second_moment", "entropy", "cluster_shade"),
)
TEXTURE_NAMES = (
    *(f"glcm{d}_{name}" for d in DISTANCES for name in _TEXTURE),
    *(f"glcm{d}_range_{name}" for d in DISTANCES for name in _TEXTURE[:4]),
)


def texture(planes: Float32) -> Float64:
    """Grey-level co-occurrence (Haralick 1973): mean over four directions, and the range of some of them."""
    levels = quantised(planes, GREY_LEVELS)
    means, ranges = [], []
    for d in DISTANCES:
        steps = ((0, d), (d, 0), (d, d), (d, -d))
        directions = np.stack([_texture_of(_co_occurrence(levels, *step)) for step in steps])
        means.append(directions.mean(0))
        ranges.append(np.ptp(directions[:, :, :4], axis=0))
    return np.concatenate([*means, *ranges], axis=1)


def _co_occurrence(levels: Int, down: int, right: int) -> Float64:
    """Symmetric, normalised co-occurrence matrices (N, GREY_LEVELS**2) for one step (rows, columns)."""
    n, height, width = levels.shape
    left = max(0, -right)
    here = levels[:, : height - down, left : width - max(0, right)]
    there = levels[:, down:, left + right : width + min(0, right)]
    cells = GREY_LEVELS**2
    codes = here * GREY_LEVELS + there
    codes += np.arange(n)[:, None, None] * cells
    counts = np.bincount(codes.ravel(), minlength=n * cells).reshape(n, GREY_LEVELS, GREY_LEVELS)
    both = (counts + counts.transpose(0, 2, 1)).reshape(n, cells)
    shares: Float64 = both / (2 * here[0].size)
    return shares


def _texture_of(shares: Float64) -> Float64:
    i, j = (index.ravel().astype(np.float64) for index in np.indices((GREY_LEVELS, GREY_LEVELS)))
    gap, both = np.abs(i - j), i + j
    weights = np.stack([gap**2, gap, 1 / (1 + gap**2), i, i**2, i * j, both, both**2, both**3], axis=1)
    contrast, dissimilarity, homogeneity, mean, square, product, s1, s2, s3 = (shares @ weights).T
    variance = square - mean**2
    flat = variance < 1e-9
    correlation = np.where(flat, 1.0, (product - mean**2) / np.where(flat, 1.0, variance))
    shade = s3 - 3 * s1 * s2 + 2 * s1**3
    return _stack(
        (
            *(np.log1p(contrast), dissimilarity, homogeneity, correlation, (shares**2).sum(1)),
            *(_entropy(shares), np.sign(shade) * np.log1p(np.abs(shade))),
        )
    )


_RUNS = (
    *("short_run_emphasis", "log_long_run_emphasis", "grey_level_non_uniformity"),
    *("run_length_non_uniformity", "run_percentage"),
)
RUN_NAMES = tuple(f"runs_{axis}_{name}" for axis in ("across", "down") for name in _RUNS)


def runs(planes: Float32) -> Float64:
    """Grey-level run lengths (Galloway 1975) along rows and along columns, with RUN_LEVELS grey levels."""
    levels = quantised(planes, RUN_LEVELS)
    return np.concatenate([_runs_of(levels), _runs_of(levels.transpose(0, 2, 1))], axis=1)


def _runs_of(levels: Int) -> Float64:
    n, height, width = levels.shape
    starts = np.ones(levels.shape, dtype=bool)
    starts[:, :, 1:] = levels[:, :, 1:] != levels[:, :, :-1]
    where = np.flatnonzero(starts)
    lengths = np.diff(where, append=levels.size)
    image = where // (height * width)
    value = np.ascontiguousarray(levels).ravel()[where]
    total = np.bincount(image, minlength=n).astype(np.float64)

    def mean_of(weights: Float64) -> Float64:
        return np.bincount(image, weights=weights, minlength=n) / total

    def non_uniformity(key: Int, kinds: int) -> Float64:
        counts = np.bincount(image * kinds + key, minlength=n * kinds).reshape(n, kinds)
        spread: Float64 = (counts.astype(np.float64) ** 2).sum(1) / total**2
        return spread

    square = lengths.astype(np.float64) ** 2
    return _stack(
        (
            *(mean_of(1 / square), np.log1p(mean_of(square)), non_uniformity(value, RUN_LEVELS)),
            *(non_uniformity(lengths - 1, width), total / (height * width)),
        )
    )


EDGE_NAMES = (
    *(f"gradient_{name}" for name in ("mean", "sd", "skewness", "log_kurtosis")),
    *(f"gradient_percentile_{p}" for p in (50, 90, 99)),
)


def edges(planes: Float32) -> Float64:
    """Magnitude of the gradient (forward differences), per pixel."""
    down = planes[:, 1:, :-1] - planes[:, :-1, :-1]
    right = planes[:, :-1, 1:] - planes[:, :-1, :-1]
    magnitude = np.sqrt(down * down + right * right)
    ordered = np.sort(magnitude.reshape(len(planes), -1), axis=1)
    ranks = np.rint(np.array((0.5, 0.9, 0.99)) * (ordered.shape[1] - 1)).astype(int)
    return _stack((*_moments(magnitude), *ordered[:, ranks].T))


WAVELET_NAMES = tuple(
    f"haar{level}_{band}_{name}"
    for level in range(1, WAVELET_LEVELS + 1)
    for band in ("across", "down", "diagonal")
    for name in ("log_energy", "log_kurtosis")
)


def wavelets(planes: Float32) -> Float64:
    """Energy and kurtosis of the Haar detail bands at three scales. Energy is log10 of the mean square."""
    half = np.float32(0.5)
    columns: list[Float64] = []
    for _ in range(WAVELET_LEVELS):
        height, width = (side // 2 * 2 for side in planes.shape[1:])
        top, bottom = planes[:, :height:2, :width], planes[:, 1:height:2, :width]
        low, high = (top + bottom) * half, (top - bottom) * half
        across = (low[:, :, ::2] - low[:, :, 1::2]) * half
        down = (high[:, :, ::2] + high[:, :, 1::2]) * half
        diagonal = (high[:, :, ::2] - high[:, :, 1::2]) * half
        planes = (low[:, :, ::2] + low[:, :, 1::2]) * half
        for band in (across, down, diagonal):
            mean, sd, _, kurtosis = _moments(band)
            columns += [np.log10(mean**2 + sd**2 + 1e-8), kurtosis]
    return _stack(columns)


BLOB_NAMES = tuple(f"log_sigma{sigma:g}_{name}" for sigma in LOG_SIGMAS for name in ("sd", "skewness", "log_kurtosis"))


def blobs(planes: Float32) -> Float64:
    """Laplacian of Gaussian at three scales, in pixels: bright and dark spots of that size."""
    columns: list[Float64] = []
    for sigma in LOG_SIGMAS:
        response = gaussian_laplace(planes, sigma, axes=(1, 2), truncate=3.0) * np.float32(sigma**2)
        columns += _moments(response)[1:]
    return _stack(columns)


SPECTRUM_NAMES = (*(f"spectrum_band{i + 1}" for i in range(BANDS)), "spectrum_slope")


def spectrum(planes: Float32) -> Float64:
    """Radial power spectrum under a Hann window: log10 power in 8 bands up to Nyquist, and its slope."""
    height, width = planes.shape[1:]
    window = np.outer(np.hanning(height), np.hanning(width)).astype(np.float32)
    centred = planes - planes.mean((1, 2), keepdims=True)
    power = np.abs(np.fft.rfft2(centred * window)) ** 2 / (window**2).sum()
    radius = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None])
    band = np.clip((radius * 2 * BANDS).astype(int), 0, BANDS).ravel()  # beyond Nyquist: left out
    band[0] = BANDS
    members = (band[:, None] == np.arange(BANDS)) / np.maximum(1, np.bincount(band, minlength=BANDS + 1)[:BANDS])
    logs = np.log10(power.reshape(len(planes), -1) @ members + 1e-8)
    centres = np.log10((np.arange(BANDS) + 0.5) / BANDS)
    centres -= centres.mean()
    slope = logs @ centres / (centres @ centres)
    return np.concatenate([logs, slope[:, None]], axis=1)


LAYOUT_NAMES = (
    *(f"block_{row}{column}" for row in range(BLOCKS) for column in range(BLOCKS)),
    *("mirror_correlation", "centre_across", "centre_down"),
)


def layout(planes: Float32) -> Float64:
    """Where things are: 4 x 4 block means, left-right symmetry, and the centre of brightness in [-1, 1]."""
    n, height, width = planes.shape
    rows = np.linspace(0, height, BLOCKS + 1).astype(int)
    columns = np.linspace(0, width, BLOCKS + 1).astype(int)
    sums = np.add.reduceat(np.add.reduceat(planes, rows[:-1], axis=1), columns[:-1], axis=2)
    blocks = (sums / np.outer(np.diff(rows), np.diff(columns))).reshape(n, -1)
    centred = planes - planes.mean((1, 2), keepdims=True)
    power = np.maximum((centred**2).sum((1, 2)), 1e-6)
    mirror = (centred * centred[:, :, ::-1]).sum((1, 2)) / power
    light = planes + 1
    total = np.maximum(light.sum((1, 2)), 1e-6)
    across = light.sum(1) @ np.linspace(-1, 1, width, dtype=np.float32) / total
    down = light.sum(2) @ np.linspace(-1, 1, height, dtype=np.float32) / total
    return _stack((*blocks.T, mirror, across, down))
