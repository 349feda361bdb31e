"""The single degradations, their parameters and their defaults.

A step is a mapping of its name and what differs from the defaults, {"name": "low-dose", "dose": 0.1}. All of them:

CT, in HU
low-dose      the image is the full-dose scan; it gets the noise that a scan at the share `dose` has more: image + FBP(
              thinned sinogram - sinogram), which leaves its anatomy as sharp as it was (Yu et al., JCAT 36:477, 2012).
              `photons` a ray at full dose, `electronic` noise of a ray (standard deviation in photons), `views`,
              `geometry` parallel (half a turn) or fan (a turn), `filter` hann (soft tissue) or ramp. The defaults
              give an abdomen of 512 x 512 pixels 20 to 50 HU of noise by its size, and more where the arms are in the
              way: the tube does not follow the patient. A ray is one pixel wide, so coarser pixels have less noise.
              `full`: the image is the noiseless patient; the plain FBP of a noisy scan at `dose`, resampled and all.
sparse-view   the FBP of `views` noiseless parallel projections over half a turn.
MR, magnitude (where there are negative values: above the lowest)
undersample   `acceleration` times fewer lines of k-space, the share `centre` of all lines whole in the middle, the same
              lines in all slices; zeros for the others. `phase` encoding: vertical or horizontal in the slice as seen.
ghost         the share `strength` of the signal breathes along `phase`: `shift` pixels to and fro in `period` lines.
gibbs         the share `keep` of each axis' frequencies, the low ones.
rician        noise of `sigma`, relative to the image's 99th percentile, in the real and the imaginary part.
bias          a smooth factor of mean 1, the standard deviation of its logarithm about `strength`; its waves are one to
              two times as long as the image's longest side.
X-ray         (grey values and exposure: see `fabrica.physics.radiography`; `latitude` is the log of their ratio)
quantum       Poisson noise, `photons` a pixel in the open beam.
scatter       the share `share` of the exposure comes spread, `width` mm (pixels where the image knows no mm).
any image
blur          a Gaussian of `sigma` pixels.
gaussian      white noise, standard deviation `sigma` of the range of grey values.
downsample    means of `factor` x `factor` pixels, each repeated over its pixels: x[::factor, ::factor] is the smaller
              image. Where a side is no multiple the last pixels are repeated for the mean, and the result is cropped.
              The steps after it work on the smaller image.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.ndimage import gaussian_filter

from fabrica.data.resolution import FACTORS
from fabrica.image import Float32
from fabrica.phantoms.mri import coil_bias, rician
from fabrica.physics import kspace, radiography, tomography

Parameters = Mapping[str, Any]


@dataclass(frozen=True)
class Seen:
    """What a step may know of the image beside its values: mm between pixels (D, H, W), and the range of its greys."""

    mm: tuple[float, float, float]
    low: float
    high: float


@dataclass(frozen=True)
class Limits:
    """A number and where it may lie, ends included; a whole number where the default is one."""

    default: float
    least: float
    most: float


@dataclass(frozen=True)
class Step:
    """work         (values (C, D, H, W), seen, parameters, random numbers) -> values, (D, H, W) axial.
    subject      "CT", "MR", "X-ray" or "any".
    parameters   name -> limits, or what there is to choose from, the default first.
    """

    work: Callable[[Float32, Seen, Parameters, np.random.Generator], Float32]
    subject: str
    parameters: dict[str, Limits | tuple[str | bool | int, ...]]


def _by_slices(values: Float32, work: Callable[[Float32], Float32]) -> Float32:
    """`work` on each (H, W) of (C, D, H, W), one after the other."""
    return np.stack([np.stack([work(plane) for plane in channel]) for channel in values])


def _low_dose(values: Float32, seen: Seen, p: Parameters, rng: np.random.Generator) -> Float32:
    fan = p["geometry"] == "fan"
    project, back = (tomography.fan_project, tomography.fan_fbp) if fan else (tomography.project, tomography.fbp)
    mm = seen.mm[1:]

    def scanned(hu: Float32) -> Float32:
        clean = project(tomography.attenuation(hu), mm, p["views"])
        if p["full"]:
            noisy = tomography.counted(clean, p["photons"] * p["dose"], p["electronic"], rng)
            return _in_view(hu, tomography.hounsfield(back(noisy, hu.shape, mm, p["filter"])))
        noisy = tomography.thinned(clean, p["photons"], p["dose"], p["electronic"], rng)
        noise = back(noisy - clean, hu.shape, mm, p["filter"]) * np.float32(1000 / tomography.MU_WATER)
        return _in_view(hu, hu + noise)

    return _by_slices(values, scanned)


def _sparse_view(values: Float32, seen: Seen, p: Parameters, rng: np.random.Generator) -> Float32:
    mm = seen.mm[1:]

    def scanned(hu: Float32) -> Float32:
        sinogram = tomography.project(tomography.attenuation(hu), mm, p["views"])
        return _in_view(hu, tomography.hounsfield(tomography.fbp(sinogram, hu.shape, mm, p["filter"])))

    return _by_slices(values, scanned)


def _in_view(hu: Float32, changed: Float32) -> Float32:
    """What lies below -1024 HU is no tissue but what a scanner fills its corners with: it stays."""
    return np.asarray(np.where(hu < -1024, hu, changed), np.float32)


def _phase_axis(p: Parameters) -> int:
    return -2 if p["phase"] == "vertical" else -1


def _undersample(values: Float32, seen: Seen, p: Parameters, rng: np.random.Generator) -> Float32:
    axis = _phase_axis(p)
    mask = kspace.cartesian_mask(values.shape[axis], p["acceleration"], p["centre"], rng)
    return _by_slices(values, lambda plane: kspace.undersampled(plane, mask, axis))


def _ghost(values: Float32, seen: Seen, p: Parameters, rng: np.random.Generator) -> Float32:
    axis = _phase_axis(p)
    shifts = kspace.breathing(values.shape[axis], p["shift"], p["period"], rng)
    return _by_slices(values, lambda plane: kspace.ghosted(plane, shifts, p["strength"], axis))


def _gibbs(values: Float32, seen: Seen, p: Parameters, rng: np.random.Generator) -> Float32:
    return _by_slices(values, lambda plane: kspace.truncated(plane, p["keep"]))


def _rician(values: Float32, seen: Seen, p: Parameters, rng: np.random.Generator) -> Float32:
    sigma = p["sigma"] * float(np.percentile(values, 99))
    return _by_slices(values, lambda plane: rician(plane, sigma, rng))


def _bias(values: Float32, seen: Seen, p: Parameters, rng: np.random.Generator) -> Float32:
    """The field is that of a coil's 250 to 500 mm, for an image whose longest side is 250 mm."""
    extent = [side * mm for side, mm in zip(values.shape[1:], seen.mm, strict=True)]
    reach = 250 / max(extent[1:] if values.shape[1] == 1 else extent)
    axes = [
        np.arange(side, dtype=np.float32) * (mm * reach) for side, mm in zip(values.shape[1:], seen.mm, strict=True)
    ]
    wave = int(rng.integers(2**63))  # the same waves for each slice
    places = (np.stack(np.meshgrid(z, axes[1], axes[2], indexing="ij"), -1)[0] for z in axes[0])
    field = np.stack([coil_bias(place, p["strength"], np.random.default_rng(wave)) for place in places])
    return values * np.asarray(field / field.mean(dtype=np.float64), np.float32)


def _quantum(values: Float32, seen: Seen, p: Parameters, rng: np.random.Generator) -> Float32:
    return radiography.quantum(values, seen.low, seen.high, p["latitude"], p["photons"], rng)


def _scatter(values: Float32, seen: Seen, p: Parameters, rng: np.random.Generator) -> Float32:
    width = (p["width"] / seen.mm[1], p["width"] / seen.mm[2])
    return radiography.scattered(values, seen.low, seen.high, p["latitude"], p["share"], width)


def _blur(values: Float32, seen: Seen, p: Parameters, rng: np.random.Generator) -> Float32:
    return np.asarray(gaussian_filter(values, (0, 0, p["sigma"], p["sigma"])), np.float32)


def _gaussian(values: Float32, seen: Seen, p: Parameters, rng: np.random.Generator) -> Float32:
    noise = rng.standard_normal(values.shape, np.float32)
    return values + noise * np.float32(p["sigma"] * (seen.high - seen.low))


def _downsample(values: Float32, seen: Seen, p: Parameters, rng: np.random.Generator) -> Float32:
    factor, (channels, depth, height, width) = p["factor"], values.shape
    padded = np.pad(values, [(0, 0), (0, 0), (0, -height % factor), (0, -width % factor)], mode="edge")
    blocks = padded.reshape(channels, depth, -(-height // factor), factor, -(-width // factor), factor)
    return np.asarray(blocks.mean((3, 5), dtype=np.float64), np.float32)


_DOSE: dict[str, Limits | tuple[str | bool | int, ...]] = {
    "dose": Limits(0.25, 0.001, 1.0),
    "photons": Limits(5e5, 1.0, 1e12),
    "electronic": Limits(10.0, 0.0, 1e6),
    "views": Limits(720, 1, 5000),
    "geometry": ("parallel", "fan"),
    "filter": ("hann", "ramp"),
    "full": (False, True),
}
_PHASE = ("vertical", "horizontal")
_MASK: dict[str, Limits | tuple[str | bool | int, ...]] = {
    "acceleration": Limits(4.0, 1.0, 64.0),
    "centre": Limits(0.08, 0.0, 1.0),
    "phase": _PHASE,
}
_MOTION: dict[str, Limits | tuple[str | bool | int, ...]] = {
    "strength": Limits(0.6, 0.0, 1.0),
    "shift": Limits(4.0, 0.0, 100.0),
    "period": Limits(8.0, 2.0, 1000.0),
    "phase": _PHASE,
}
_LATITUDE = Limits(3.0, 0.1, 12.0)

STEPS: dict[str, Step] = {
    "low-dose": Step(_low_dose, "CT", _DOSE),
    "sparse-view": Step(_sparse_view, "CT", {"views": Limits(60, 1, 5000), "filter": ("ramp", "hann")}),
    "undersample": Step(_undersample, "MR", _MASK),
    "ghost": Step(_ghost, "MR", _MOTION),
    "gibbs": Step(_gibbs, "MR", {"keep": Limits(0.5, 0.02, 1.0)}),
    "rician": Step(_rician, "MR", {"sigma": Limits(0.05, 0.0, 10.0)}),
    "bias": Step(_bias, "MR", {"strength": Limits(0.3, 0.0, 3.0)}),
    "quantum": Step(_quantum, "X-ray", {"photons": Limits(500.0, 1.0, 1e12), "latitude": _LATITUDE}),
    "scatter": Step(
        _scatter, "X-ray", {"share": Limits(0.4, 0.0, 0.95), "width": Limits(30.0, 0.1, 1000.0), "latitude": _LATITUDE}
    ),
    "blur": Step(_blur, "any", {"sigma": Limits(1.5, 0.0, 100.0)}),
    "gaussian": Step(_gaussian, "any", {"sigma": Limits(0.02, 0.0, 10.0)}),
    "downsample": Step(_downsample, "any", {"factor": FACTORS}),
}
