"""The detector of the chest phantom: scatter, blur, quanta and the display curve."""

from __future__ import annotations

import math

import numpy as np

from fabrica.image import Float32
from fabrica.phantoms.chest.anatomy import Anatomy


def expose(integral: Float32, pixel: float, a: Anatomy, rng: np.random.Generator) -> Float32:
    """Line integrals (H, H) to display values 0..4095: the detector, range compression, edges, the film-like curve.
    `pixel` in mm."""
    exposure, contrast = rng.normal(0, 0.10), rng.uniform(1.63, 2.1)
    photons = rng.uniform(20000, 60000)
    sharpen, equalise = rng.uniform(0.35, 0.8), rng.uniform(0.5, 0.64)
    density = detect(integral, pixel, photons, rng)

    broad, near = _blur_matrix(len(integral), 45 / pixel), _blur_matrix(len(integral), 6 / pixel)
    ground = np.float32(2.75 * (0.5 + 0.5 * a.depth) + 0.012 * (a.fat - 7))
    level = broad @ np.maximum(density, np.float32(0.7)) @ broad.T
    density = density - ground - np.float32(equalise) * (level - ground)
    density += np.float32(sharpen) * (density - near @ density @ near.T)
    curve = 1 / (1 + np.exp(-np.float32(contrast) * (density + np.float32(exposure))))
    return np.asarray(np.rint(np.clip(curve * 4095, 0, 4095)), np.float32)


def detect(integral: Float32, pixel: float, photons: float, rng: np.random.Generator) -> Float32:
    """What a flat detector makes of line integrals (H, H): -log of the signal, with scatter, blur and noise.

    primary = exp(-integral); first-order scatter is born along the ray in proportion to integral x primary and
    arrives spread over 26 mm, 8 % of it past the grid; focal spot and pixel aperture blur; the quanta are Poisson
    with `photons` per mm^2 in the open beam (as a Gaussian of the same variance). `pixel` in mm.
    """
    n = len(integral)
    wide, focal = _blur_matrix(n, 26 / pixel), _blur_matrix(n, math.hypot(0.35 / pixel, 0.42))
    primary = np.exp(-integral)
    scatter = wide @ (integral * primary) @ wide.T
    signal = focal @ (primary + np.float32(0.08) * scatter) @ focal.T
    noise = rng.standard_normal((n, n), dtype=np.float32)
    signal += np.sqrt(signal / np.float32(photons * pixel * pixel)) * noise
    return np.asarray(-np.log(np.maximum(signal, np.float32(2e-3))), np.float32)


def _blur_matrix(size: int, sigma: float) -> Float32:
    """(size, size) Gaussian weights of a row blur, sigma in pixels; rows sum to one, so that edges keep level."""
    at = np.arange(size, dtype=np.float32)
    weights = np.exp(-0.5 * ((at[:, None] - at[None, :]) / np.float32(max(sigma, 1e-3))) ** 2)
    return np.asarray(weights / weights.sum(1, keepdims=True), np.float32)
