"""FSIM: feature similarity by phase congruency and gradients (Zhang, Zhang, Mou & Zhang, IEEE TIP 2011).

Phase congruency is Kovesi's (1999), with the constants of the authors' own program: what is compared are edges as the
eye finds them, whatever their contrast, weighted by how much of an edge there is.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.ndimage import correlate, uniform_filter

from fabrica.image import Float64

Values = npt.NDArray[np.floating[Any]]
Complex = npt.NDArray[np.complex128]

T1, T2 = 0.85, 160.0  # of phase congruency, and of gradients on the scale 0 to 255 (section III)
SCALES, ORIENTATIONS = 4, 4
SHORTEST, GROWTH = 6.0, 2.0  # wavelength in pixels of the finest filter, and factor from one to the next
BANDWIDTH, SPREAD = 0.55, 1.2  # sigma / f0 of the log-Gabor; orientations' distance / their sigma
NOISE_SDS, SHRINK = 2.0, 1.7
EPSILON = 1e-4
SIDE = 256  # larger images are averaged down to about this, the distance from which one looks
SCHARR = np.array([[3.0, 0, -3], [10, 0, -10], [3, 0, -3]]) / 16
"""Zhang et al. 2011, table I."""


def fsim(a: Values, b: Values, limits: tuple[float, float]) -> Float64:
    """Feature similarity of each pair, float64 (N,), 1 is identical; over channels and slices the mean.

    a, b    (N, C, H, W) or (N, C, D, H, W), any unit; volumes are compared slice by slice.
    limits  the values in that unit that are black and white, 0 and 255 of the paper's pictures.
    """
    low, high = limits
    planes = ((v.reshape(len(v), -1, *v.shape[-2:]) - np.float64(low)) * (255 / (high - low)) for v in (a, b))
    return np.array([np.mean([_fsim(x, y) for x, y in zip(*pair, strict=True)]) for pair in zip(*planes, strict=True)])


def _fsim(a: Float64, b: Float64) -> float:
    """Equations 4 to 7 on two planes (H, W) on the scale 0 to 255."""
    a, b = _far(a), _far(b)
    pc_a, pc_b = phase_congruency(a), phase_congruency(b)
    g_a, g_b = _gradient(a), _gradient(b)
    alike_pc = (2 * pc_a * pc_b + T1) / (pc_a**2 + pc_b**2 + T1)
    alike_g = (2 * g_a * g_b + T2) / (g_a**2 + g_b**2 + T2)
    weight = np.maximum(pc_a, pc_b)
    total = weight.sum()
    return float((alike_pc * alike_g * weight).sum() / total) if total > 0 else float((alike_pc * alike_g).mean())


def _far(plane: Float64) -> Float64:
    factor = max(1, round(min(plane.shape) / SIDE))
    if factor == 1:
        return plane
    smooth: Float64 = uniform_filter(plane, factor, mode="constant", origin=-((factor - 1) % 2))
    return smooth[::factor, ::factor]


def _gradient(plane: Float64) -> Float64:
    across = correlate(plane, SCHARR, mode="constant")
    down = correlate(plane, SCHARR.T, mode="constant")
    magnitude: Float64 = np.hypot(across, down)
    return magnitude


def phase_congruency(plane: Float64) -> Float64:
    """How far the phases of a plane's frequencies agree at each pixel, (H, W) in 0 to 1 (Kovesi 1999, eq. 2)."""
    spectrum = np.fft.fft2(plane)
    energy, amplitude = np.zeros(plane.shape), np.zeros(plane.shape)
    for filters in _filters(plane.shape):  # (SCALES, H, W) of one orientation
        answers: Complex = np.fft.ifft2(spectrum * filters)  # even part real, odd part imaginary
        mean = answers.sum(0)
        direction = mean / (np.abs(mean) + EPSILON)
        turned = answers * direction.conj()
        agreed = (turned.real - np.abs(turned.imag)).sum(0)
        energy += np.maximum(agreed - _noise(answers[0], filters), 0)
        amplitude += np.abs(answers).sum(0)
    congruency: Float64 = energy / np.maximum(amplitude, EPSILON)
    return congruency


def _noise(finest: Complex, filters: Float64) -> float:
    """The energy that noise alone gives, from the median answer of the finest filter (Rayleigh distributed)."""
    power = np.median(np.abs(finest) ** 2) / np.log(2) / (filters[0] ** 2).sum()
    kernels = np.fft.ifft2(filters).real * np.sqrt(finest.size)
    tau = np.sqrt(power * (kernels.sum(0) ** 2).sum())
    mean, deviation = tau * np.sqrt(np.pi / 2), tau * np.sqrt(2 - np.pi / 2)
    return float((mean + NOISE_SDS * deviation) / SHRINK)


@lru_cache(maxsize=8)
def _filters(shape: tuple[int, int]) -> Float64:
    """Log-Gabor filters in the frequency domain, (ORIENTATIONS, SCALES, H, W)."""
    v, u = np.meshgrid(*(_frequencies(n) for n in shape), indexing="ij")
    radius = np.hypot(u, v)
    lowpass = 1 / (1 + (radius / 0.45) ** 30)  # Butterworth: the corners of the spectrum have no orientation
    angle = np.arctan2(-v, u)
    radius[0, 0] = 1.0
    radial = []
    for scale in range(SCALES):
        centre = 1 / (SHORTEST * GROWTH**scale)
        bell = np.exp(-(np.log(radius / centre) ** 2) / (2 * np.log(BANDWIDTH) ** 2)) * lowpass
        bell[0, 0] = 0.0
        radial.append(bell)
    sigma = np.pi / ORIENTATIONS / SPREAD
    filters = []
    for orientation in range(ORIENTATIONS):
        turned = angle - orientation * np.pi / ORIENTATIONS
        distance = np.abs(np.arctan2(np.sin(turned), np.cos(turned)))
        filters.append(np.stack(radial) * np.exp(-(distance**2) / (2 * sigma**2)))
    return np.stack(filters)


def _frequencies(n: int) -> Float64:
    """-0.5 to 0.5 in cycles a pixel, zero first; for odd n to both ends, as Kovesi's program has it."""
    return np.fft.ifftshift((np.arange(n) - n // 2) / max(n - n % 2, 1))
