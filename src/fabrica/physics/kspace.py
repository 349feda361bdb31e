"""What happens to a magnetic resonance picture in k-space: lines left out, lines of another position, a cut edge.

An image is (..., H, W), not negative; its k-space lines run along the phase axis, `axis` -2 (rows, the phase encoding
is vertical) or -1. The images are magnitudes: their phase is taken as zero.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from fabrica.image import Array, Float32, Float64

Mask = npt.NDArray[np.bool_]


def cartesian_mask(lines: int, acceleration: float, centre: float, rng: np.random.Generator) -> Mask:
    """Which of (lines,) are acquired, the lowest frequency in the middle (lines // 2).

    round(lines / acceleration) in all: the share `centre` of all lines in the middle, the rest at random (the masks
    of Zbontar et al., fastMRI, arXiv 1811.08839, but with their number kept). The middle wins where the
    two do not agree.
    """
    middle = max(1, round(lines * centre))
    mask = np.zeros(lines, bool)
    first = lines // 2 - middle // 2
    mask[first : first + middle] = True
    others = np.flatnonzero(~mask)
    wanted = min(max(round(lines / acceleration) - middle, 0), len(others))
    mask[rng.choice(others, wanted, replace=False)] = True
    return mask


def undersampled(image: Float32, mask: Mask, axis: int) -> Float32:
    """The zero-filled magnitude of the acquired lines. Every line acquired gives the image back."""
    return _by_lines(image, mask.astype(np.float32), axis)


def breathing(lines: int, shift: float, period: float, rng: np.random.Generator) -> Float64:
    """(lines,) where the moving part is while each line is acquired, in pixels: a sine of amplitude `shift` that
    takes `period` lines, in a random phase."""
    return shift * np.sin(2 * np.pi * (np.arange(lines) / period + rng.random()))


def ghosted(image: Float32, shifts: Float64, share: float, axis: int) -> Float32:
    """Motion ghosts: a share of the signal moves along the phase axis, by `shifts` (lines,) pixels at each line.

    A line k of the moving part carries the phase exp(-2 pi i k shift / lines) (Fourier shift theorem), so a periodic
    motion repeats edges every lines / period pixels (Wood and Henkelman, Med Phys 12:143, 1985).
    """
    lines = len(shifts)
    turned = np.exp(-2j * np.pi * (np.arange(lines) - lines // 2) / lines * shifts)
    return _by_lines(image, (1 - share + share * turned).astype(np.complex64), axis)


def truncated(image: Float32, keep: float) -> Float32:
    """Gibbs ringing: only frequencies up to `keep` of the highest one stay, along both axes. 1 changes nothing."""
    rows, columns = (np.abs(np.fft.fftfreq(side)) <= keep / 2 for side in image.shape[-2:])
    return np.asarray(np.abs(np.fft.ifft2(np.fft.fft2(image) * np.outer(rows, columns))), np.float32)


def _by_lines(image: Float32, weights: Array, axis: int) -> Float32:
    """The magnitude after each line of k-space, the lowest frequency in the middle, was multiplied by its weight. The
    other axis is read out whole, so its transform and the inverse cancel."""
    along = [1] * image.ndim
    along[axis] = len(weights)
    spectrum = np.fft.fft(image, axis=axis) * np.fft.ifftshift(weights).reshape(along)
    return np.asarray(np.abs(np.fft.ifft(spectrum, axis=axis)), np.float32)
