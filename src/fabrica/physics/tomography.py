"""CT in one plane: line integrals, filtered back-projection, and the noise of a lower dose.

A slice is (H, W), a sinogram (views, rays); spacing is (row, column) in mm, a line integral in value x mm. View v
looks along the angle pi v / views, and ray j passes the centre of the image at s = x cos + y sin = (j - (rays - 1) / 2)
x pitch, x along columns, y along rows; the pitch is the wider of the two spacings. The rays cover the diagonal: the
corners of the image are scanned like its middle, there is no circle outside of which nothing is seen.

Projection follows the Fourier slice theorem: the image's spectrum on a polar grid (Kaiser-Bessel gridding of width 4
on a twofold grid: Fessler and Sutton, IEEE TSP 51:560, 2003; shape from Beatty et al., IEEE TMI 24:799, 2005), then
one inverse transform a view. Every part is a matrix, so `back_project` is the exact transpose of `project`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import scipy.fft
from scipy.ndimage import map_coordinates
from scipy.sparse import csr_array
from scipy.special import i0

from fabrica.image import Array, Float32, Float64

MU_WATER = 0.0193  # 1/mm at 70 keV, about the mean of a 120 kV spectrum behind a patient (NIST XCOM)
SOURCE = 541.0  # mm from the focus to the axis of a clinical scanner

_WIDTH = 4
_BETA = math.pi * math.sqrt((0.75 * _WIDTH) ** 2 - 0.8)

Spacing = tuple[float, float]
Size = tuple[int, int]


def project(image: Float32, spacing: Spacing, views: int) -> Float32:
    """Parallel line integrals (views, rays) of an image (H, W) over half a turn, in value x mm."""
    polar, scale = _polar(image.shape, spacing, views)
    grid = np.zeros(polar.grid, np.float32)
    grid[: image.shape[0], : image.shape[1]] = image * polar.deapodise
    grid = np.roll(grid, (-(image.shape[0] // 2), -(image.shape[1] // 2)), (0, 1))
    spectrum = _multiply(polar.matrix, scipy.fft.fft2(grid)).reshape(polar.phase.shape) * polar.phase
    rays = scipy.fft.irfft(spectrum, polar.length)[:, : polar.rays]
    return np.asarray(rays * np.float32(scale), np.float32)


def back_project(sinogram: Float32, size: Size, spacing: Spacing) -> Float32:
    """The transpose of `project`: (views, rays) to an image (H, W)."""
    polar, scale = _polar(size, spacing, len(sinogram))
    spectrum = scipy.fft.rfft(sinogram, polar.length)[:, : polar.phase.shape[1]] * polar.phase.conj()
    spectrum[:, 1:] *= 2  # a real ray's negative frequencies are not stored
    grid = scipy.fft.ifft2(_multiply(polar.matrix.T, spectrum).reshape(polar.grid)).real
    grid = np.roll(grid, (size[0] // 2, size[1] // 2), (0, 1))[: size[0], : size[1]]
    return np.asarray(grid * polar.deapodise * np.float32(scale * math.prod(polar.grid) / polar.length), np.float32)


def fbp(sinogram: Float32, size: Size, spacing: Spacing, window: str = "ramp") -> Float32:
    """The image (H, W) of parallel line integrals (views, rays): filtered back-projection.

    window  "ramp": Ram-Lak, sharp; "hann": the ramp times a Hann window that reaches 0 at the Nyquist frequency, a
            soft-tissue kernel.
    The filter is sampled in space, which keeps the level of large regions (Kak and Slaney, 1988, equation 61).
    """
    pitch, rays = max(spacing), sinogram.shape[1]
    length = scipy.fft.next_fast_len(2 * rays, real=True)
    step = np.minimum(np.arange(length), length - np.arange(length))
    kernel = np.where(step % 2 == 1, -1 / np.maximum(math.pi * step, 1) ** 2, 0.0)
    kernel[0] = 0.25
    response = scipy.fft.rfft(kernel).real / pitch
    if window == "hann":
        response *= 0.5 + 0.5 * np.cos(2 * math.pi * np.arange(len(response)) / length)
    filtered = scipy.fft.irfft(scipy.fft.rfft(sinogram, length) * response.astype(np.float32), length)[:, :rays]
    weight = math.pi / len(sinogram) * pitch / (spacing[0] * spacing[1])
    return back_project(np.ascontiguousarray(filtered), size, spacing) * np.float32(weight)


def fan_project(image: Float32, spacing: Spacing, views: int) -> Float32:
    """Line integrals (views, rays) of an image (H, W) from a focus that goes once around, in value x mm.

    View b stands at 2 pi b / views; the rays have equal angles between them, one pitch apart on the axis. The focus
    is SOURCE mm from the axis, or 1.5 half diagonals of a larger image. A ray (b, gamma) is the parallel ray at the
    angle b + gamma and s = distance x sin(gamma): taken from `project` by cubic interpolation.
    """
    half = (views + 1) // 2
    sinogram = project(image, spacing, half)
    distance, gamma = _fan(image.shape, spacing)
    angle = 2 * math.pi / views * np.arange(views)[:, None] + gamma
    s = np.broadcast_to(distance * np.sin(gamma), angle.shape)
    return _looked_up(_full_turn(sinogram), angle * (half / math.pi), s / max(spacing), sinogram.shape[1])


def fan_fbp(sinogram: Float32, size: Size, spacing: Spacing, window: str = "ramp") -> Float32:
    """The image (H, W) of fan-beam line integrals (views, rays): sorted to parallel rays by cubic interpolation, the
    two rays that run the same way in opposite directions averaged, then `fbp`."""
    views = len(sinogram)
    half = (views + 1) // 2
    distance, gamma = _fan(size, spacing)
    pitch, rays = max(spacing), _rays(size, spacing)
    at = np.arcsin(np.clip((np.arange(rays) - (rays - 1) / 2) * pitch / distance, gamma[0], gamma[-1]))
    angle = math.pi / half * np.arange(half)[:, None]
    closed = np.concatenate([sinogram, sinogram[:1]])
    both = np.zeros((half, rays), np.float32)
    for turned, ray in ((angle - at, at), (angle + math.pi + at, -at)):
        columns = np.broadcast_to(ray / (gamma[1] - gamma[0]), turned.shape)
        both += _looked_up(closed, turned * (views / (2 * math.pi)), columns, len(gamma))
    return fbp(both * np.float32(0.5), size, spacing, window)


def attenuation(hu: Float32) -> Float32:
    """CT numbers to 1/mm; nothing attenuates less than air, so what lies below -1000 HU is -1000."""
    return np.asarray(np.maximum(1 + hu / 1000, 0) * MU_WATER, np.float32)


def hounsfield(mu: Float32) -> Float32:
    """1/mm to CT numbers."""
    return np.asarray(mu * (1000 / MU_WATER) - 1000, np.float32)


def thinned(integrals: Float32, photons: float, dose: float, electronic: float, rng: np.random.Generator) -> Float32:
    """Line integrals as a scan at `dose` (0 to 1) would give them that counts a share of these very photons.

    The integrals are taken as those of the full dose, with its noise. Of n = photons x exp(-integral) counted photons
    each stays with probability `dose`, and of the electronic noise (standard deviation in photons) that part is added
    which the full dose does not have yet. The variance is that of Yu et al. (JCAT 36:477, 2012):
    (1 - a) / a x exp(P) / N0 x (1 + (1 + a) / a x Ne^2 exp(P) / N0). At dose 1 nothing changes.
    """
    counted = photons * np.exp(-integrals.astype(np.float64))
    whole = np.floor(counted + rng.random(counted.shape)).astype(np.int64)  # the fraction is a chance of one more
    few = rng.binomial(whole, dose) + electronic * math.sqrt(1 - dose * dose) * rng.standard_normal(counted.shape)
    return _logarithm(few, photons * dose) if dose < 1 else integrals


def counted(integrals: Float32, photons: float, electronic: float, rng: np.random.Generator) -> Float32:
    """Noiseless line integrals as a detector counts them: Poisson photons and Gaussian electronic noise."""
    found = rng.poisson(photons * np.exp(-integrals.astype(np.float64)))
    return _logarithm(found + electronic * rng.standard_normal(found.shape), photons)


def _logarithm(found: Float64, photons: float) -> Float32:
    return np.asarray(np.log(photons) - np.log(np.maximum(found, 1.0)), np.float32)  # a starved ray counts as one


@dataclass(frozen=True)
class _Polar:
    """What takes an image's padded spectrum to the spectra of its projections."""

    grid: Size
    rays: int
    length: int  # of a ray's transform
    deapodise: Float32  # (H, W)
    matrix: Any  # sparse (views x frequencies, grid), float32
    phase: Array  # complex64 (views, frequencies): puts the image's centre at the middle ray


def _polar(size: tuple[int, ...], spacing: Spacing, views: int) -> tuple[_Polar, float]:
    """The transform, which knows pixels only, and the mm of a pixel's share in a ray."""
    pitch = max(spacing)
    relative = (round(spacing[0] / pitch, 6), round(spacing[1] / pitch, 6))
    return _transform((size[0], size[1]), relative, views), relative[0] * relative[1] * pitch


@lru_cache(maxsize=3)
def _transform(size: Size, relative: Spacing, views: int) -> _Polar:
    """About 25 MB for 512 x 512 and 360 views."""
    rays = _rays(size, relative)
    length = scipy.fft.next_fast_len(rays + 8, real=True)
    grid = (scipy.fft.next_fast_len(2 * size[0]), scipy.fft.next_fast_len(2 * size[1]))
    frequency = np.arange((length + 1) // 2) / length
    angle = math.pi / views * np.arange(views)
    along = (np.outer(np.sin(angle), frequency) * relative[0], np.outer(np.cos(angle), frequency) * relative[1])
    row, of_row = _neighbours(along[0], grid[0])
    column, of_column = _neighbours(along[1], grid[1])
    index = (row[:, :, None] * np.int32(grid[1]) + column[:, None, :]).ravel()
    weight = (of_row[:, :, None] * of_column[:, None, :]).ravel()
    starts = np.arange(along[0].size + 1, dtype=np.int32) * _WIDTH**2
    matrix = csr_array((weight, index, starts), shape=(along[0].size, grid[0] * grid[1]))
    offset = [side // 2 - (side - 1) / 2 for side in size]  # of the pixel at the grid's origin from the centre
    phase = np.exp(-2j * math.pi * (along[0] * offset[0] + along[1] * offset[1] + frequency * (rays - 1) / 2))
    smooth = np.outer(*(_kernel_transform(side, points) for side, points in zip(size, grid, strict=True)))
    return _Polar(grid, rays, length, (1 / smooth).astype(np.float32), matrix, phase.astype(np.complex64))


def _neighbours(frequency: Float64, points: int) -> tuple[Array, Float32]:
    """The _WIDTH grid points nearest to frequencies in cycles a pixel, int32 and float32 (n, _WIDTH)."""
    at = frequency.ravel() * points
    near = np.ceil(at - _WIDTH / 2)[:, None] + np.arange(_WIDTH)
    distance = 2 / _WIDTH * (at[:, None] - near)
    weight = i0(_BETA * np.sqrt(np.maximum(1 - distance**2, 0))) / i0(_BETA)
    return near.astype(np.int32) % np.int32(points), weight.astype(np.float32)


def _kernel_transform(side: int, points: int) -> Float64:
    """(side,) the Fourier transform of the gridding kernel at the pixels of the image."""
    root = np.sqrt(_BETA**2 - (math.pi * _WIDTH * (np.arange(side) - side // 2) / points) ** 2)
    transform: Float64 = _WIDTH * np.sinh(root) / root / i0(_BETA)
    return transform


def _multiply(matrix: Any, values: Array) -> Array:
    """A real sparse matrix times a complex64 array, flattened."""
    product = matrix @ np.ascontiguousarray(values).view(np.float32).reshape(-1, 2)
    return np.ascontiguousarray(product).view(np.complex64).ravel()


def _rays(size: tuple[int, ...], spacing: Spacing) -> int:
    """How many rays, one pitch apart, cover the diagonal of the image; odd, so that one passes the centre."""
    return 2 * math.ceil(math.hypot(size[0] * spacing[0], size[1] * spacing[1]) / max(spacing) / 2) + 1


def _fan(size: tuple[int, ...], spacing: Spacing) -> tuple[float, Float64]:
    """The distance of the focus from the axis in mm, and the angles of the rays in radians."""
    radius = _rays(size, spacing) * max(spacing) / 2
    distance = max(SOURCE, 1.5 * radius)
    step = max(spacing) / distance
    count = 2 * math.ceil(math.asin(radius / distance) / step) + 1
    return distance, np.asarray((np.arange(count) - (count - 1) / 2) * step, np.float64)


def _full_turn(sinogram: Float32) -> Float32:
    """Half a turn of parallel views as a whole turn, and the first view once more: p(angle + pi, s) = p(angle, -s)."""
    return np.concatenate([sinogram, sinogram[:, ::-1], sinogram[:1]])


def _looked_up(closed: Float32, view: Float64, ray: Float64, rays: int) -> Float32:
    """A sinogram whose last view repeats the first, between its views (any turn) and rays (from the middle one)."""
    at = np.stack([view % (len(closed) - 1), ray + (rays - 1) / 2])
    return np.asarray(map_coordinates(closed, at, order=3, mode="nearest"), np.float32)
