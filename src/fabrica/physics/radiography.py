"""What a detector's quanta and scattered radiation make of a radiograph, from its grey values alone.

A radiograph shows the logarithm of the exposure. `low` and `high` are the grey values of the most and the least
exposed pixel (air dark, bone bright, as readers give them), and `latitude` is the natural logarithm of the ratio of
these exposures: grey g was exposed to exp(-latitude (g - low) / (high - low)) of the open beam. The display's own
curve is not known; a straight line stands for it. Where high = low nothing is known of exposures, and nothing
changes. A pixel more than one such range beyond (a burned-in letter, a dead pixel) counts as exposed like the end of
that. Images are (..., H, W).
"""

from __future__ import annotations

import math

import numpy as np
import scipy.fft

from fabrica.image import Float32


def exposure(grey: Float32, low: float, high: float, latitude: float) -> Float32:
    """Grey values to exposures, 1 where grey is `low`."""
    return np.asarray(np.exp((grey - low) * (-latitude / (high - low))), np.float32)


def developed(exposed: Float32, low: float, high: float, latitude: float) -> Float32:
    """Exposures (above 0) to grey values: the inverse of `exposure`."""
    return np.asarray(low - np.log(exposed) * ((high - low) / latitude), np.float32)


def quantum(
    grey: Float32, low: float, high: float, latitude: float, photons: float, rng: np.random.Generator
) -> Float32:
    """Poisson noise: a pixel of exposure E counts photons x E on average, so that the variance of its grey value is
    ((high - low) / latitude)^2 / (photons x E). A pixel without a photon counts as half a one."""
    if high <= low:
        return grey
    held = _held(grey, low, high)
    found = rng.poisson(photons * exposure(held, low, high, latitude).astype(np.float64))
    noisy = np.asarray(np.maximum(found, 0.5) / photons, np.float32)
    return grey + (developed(noisy, low, high, latitude) - held)


def scattered(
    grey: Float32, low: float, high: float, latitude: float, share: float, width: tuple[float, float]
) -> Float32:
    """Scatter: `share` of the exposure (the scatter fraction) comes spread by a Gaussian, standard deviation `width` in
    pixels (rows, columns), the rest straight. The whole exposure stays, as with automatic exposure control."""
    if high <= low:
        return grey
    held = _held(grey, low, high)
    primary = exposure(held, low, high, latitude)
    smallest = np.float32(1e-6) * primary.min()  # rounding of the transform must not reach 0
    total = np.float32(1 - share) * primary + np.float32(share) * gaussian(primary, width)
    return grey + (developed(np.maximum(total, smallest), low, high, latitude) - held)


def _held(grey: Float32, low: float, high: float) -> Float32:
    return np.asarray(np.clip(grey, 2 * low - high, 2 * high - low), np.float32)


def gaussian(image: Float32, width: tuple[float, float]) -> Float32:
    """Each (H, W) convolved with a Gaussian of standard deviation `width` (rows, columns) in pixels, mirrored at its
    borders: a product of cosine transforms, as quick for a wide Gaussian as for a narrow one."""
    rows, columns = (
        np.exp(-0.5 * (math.pi * sigma * np.arange(side) / side) ** 2)
        for side, sigma in zip(image.shape[-2:], width, strict=True)
    )
    spectrum = scipy.fft.dctn(image, axes=(-2, -1)) * np.outer(rows, columns).astype(np.float32)
    return np.asarray(scipy.fft.idctn(spectrum, axes=(-2, -1)), np.float32)
