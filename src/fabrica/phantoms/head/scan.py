"""The machines of the head phantom: how tissue fractions become MR, CT and PET pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import ndimage

from fabrica.image import Float32, Float64
from fabrica.phantoms import mri
from fabrica.phantoms.head.anatomy import INDEX, TISSUES

MAGNETIC = ("T1", "T2", "FLAIR", "PD")
CONTRASTS = (*MAGNETIC, "CT", "PET")

# tissue: (CT number in HU, glucose uptake relative to white matter, texture as a fraction of T1 and of uptake)
_TABLE: dict[str, tuple[float, float, float]] = {
    "air": (-1000, 0, 0),
    "skin": (45, 0.5, 0.08),
    "fat": (-100, 0.15, 0.06),
    "cortical bone": (1250, 0.25, 0.10),
    "marrow": (330, 0.8, 0.12),
    "CSF": (9, 0.1, 0.01),
    "grey matter": (38.5, 4.0, 0.025),
    "white matter": (28.5, 1.0, 0.02),
    "deep grey matter": (37, 4.4, 0.03),
    "eye": (10, 0.4, 0.01),
    "sinus air": (-995, 0, 0),
    "muscle": (55, 0.9, 0.05),
    "dura": (62, 0.8, 0.04),
    "tumour core": (20, 3.0, 0.10),
    "tumour rim": (42, 7.5, 0.08),
    "oedema": (21, 0.8, 0.05),
}
_HU = np.array([_TABLE[name][0] for name in TISSUES])
_UPTAKE = np.array([_TABLE[name][1] for name in TISSUES])
_TEXTURE = np.array([_TABLE[name][2] for name in TISSUES])
_FWHM = 2.355  # full width at half maximum of a Gaussian, in standard deviations


@dataclass(frozen=True)
class Scanner:
    """What differs between two MR scanners.

    tesla      field strength
    gain       stored units per unit of signal
    noise      sigma of each part of the complex signal, relative to white matter
    bias       standard deviation of the logarithm of the coil sensitivity
    blur       standard deviation of the in-plane point spread, mm
    """

    tesla: float
    gain: float
    noise: float
    bias: float
    blur: float
    sequences: dict[str, mri.Sequence]


def _flair(tr: float, te: float, tesla: float) -> mri.Sequence:
    """Inversion recovery that nulls CSF."""
    return mri.Sequence(tr, te, mri.null_time(mri.relaxation("CSF", tesla).t1, tr))


SCANNERS = {
    "A": Scanner(
        tesla=1.5,
        gain=2000,
        noise=0.032,
        bias=0.06,
        blur=0.85,
        sequences={
            "T1": mri.Sequence(400, 12),
            "T2": mri.Sequence(4500, 100),
            "FLAIR": _flair(9000, 110, 1.5),
            "PD": mri.Sequence(4500, 20),
        },
    ),
    "B": Scanner(
        tesla=3.0,
        gain=900,
        noise=0.02,
        bias=0.17,
        blur=0.55,
        sequences={
            "T1": mri.Sequence(600, 9),
            "T2": mri.Sequence(6000, 85),
            "FLAIR": _flair(10000, 125, 3.0),
            "PD": mri.Sequence(6000, 12),
        },
    ),
}


@dataclass(frozen=True)
class Scene:
    """What lies in the scanner.

    parts    tissue fractions (tissues, D, H, W), sums of 1
    grain    texture shared by all contrasts, mean 0 and deviation 1, (D, H, W)
    grid     voxel centres, (D, H, W, 3) RAS+ mm
    spacing  mm between voxels along D, H, W
    """

    parts: Float32
    grain: Float32
    grid: Float32
    spacing: Float64

    def mix(self, values: Sequence[float] | Float64) -> Float32:
        """One value a tissue, weighted by the fractions, (D, H, W)."""
        mixed: Float32 = np.tensordot(np.asarray(values, dtype=np.float32), self.parts, axes=1)
        return mixed

    def blurred(self, data: Float32, sigma: float, through: bool = False) -> Float32:
        """Gaussian point spread of `sigma` mm, in plane and, if asked, through the slices."""
        widths = sigma / self.spacing * (float(through), 1.0, 1.0)
        smooth: Float32 = ndimage.gaussian_filter(data, widths)
        return smooth


Picture = tuple[Float32, dict[str, Any]]


def acquire(contrast: str, scene: Scene, scanner: Scanner, rng: np.random.Generator) -> Picture:
    """A picture of the scene, integers (D, H, W), and its origin: modality, step, range (and window)."""
    if contrast == "CT":
        return _tomography(scene, rng)
    if contrast == "PET":
        return _emission(scene, rng)
    return _magnetic(contrast, scene, scanner, rng)


def _magnetic(contrast: str, scene: Scene, scanner: Scanner, rng: np.random.Generator) -> Picture:
    """Signal equation per tissue, texture through T1 and T2, point spread, coil bias, Rician noise."""
    sequence = scanner.sequences[contrast]
    tissues = [mri.relaxation(tissue, scanner.tesla) for tissue in TISSUES]
    grainy = [mri.Relaxation(r.t1 * (1 + cv), r.t2 * (1 + cv), r.pd) for r, cv in zip(tissues, _TEXTURE, strict=True)]
    clear = np.array([mri.signal(r, sequence) for r in tissues])
    change = np.array([mri.signal(r, sequence) for r in grainy]) - clear
    signal = scene.blurred(scene.mix(clear) + scene.grain * scene.mix(change), scanner.blur)
    signal *= mri.coil_bias(scene.grid, scanner.bias, rng)
    sigma = scanner.noise * float(clear[INDEX["white matter"]])
    stored = np.rint(mri.rician(signal, sigma, rng) * np.float32(scanner.gain))
    return np.clip(stored, 0, 4095), {"modality": "MR", "step": 1.0, "range": (0.0, 4095.0)}


def _tomography(scene: Scene, rng: np.random.Generator) -> Picture:
    """CT in HU: attenuation of the mixture, point spread, noise with the grain of filtered back-projection."""
    attenuation = 1 + _HU / 1000
    attenuation[INDEX["cortical bone"]] *= rng.uniform(0.88, 1.1)
    exact = scene.mix(attenuation) + scene.grain * scene.mix(attenuation * _TEXTURE * 0.02)
    exact = scene.blurred(exact, 0.9)
    white = rng.standard_normal(exact.shape, dtype=np.float32)
    # Filtered back-projection suppresses low frequencies (ramp) and the highest (apodisation).
    noise = ndimage.gaussian_filter(white, (0, 0.5, 0.5)) - ndimage.gaussian_filter(white, (0, 1.5, 1.5))
    noise *= np.float32(rng.uniform(2.0, 3.5)) / noise.std()
    stored = np.rint((exact - 1) * 1000 + noise)
    header = {"modality": "CT", "step": 1.0, "range": (-1024.0, 3071.0), "window": (40.0, 80.0)}
    return np.clip(stored, -1024, 3071), header


def _emission(scene: Scene, rng: np.random.Generator) -> Picture:
    """FDG-like PET: uptake blurred to 5.5 mm (FWHM), counting noise, a reconstruction filter of 3 mm."""
    uptake = scene.mix(_UPTAKE) + scene.grain * scene.mix(_UPTAKE * _TEXTURE)
    blurred = scene.blurred(np.maximum(uptake, 0), 5.5 / _FWHM, through=True)
    counts = rng.uniform(2.0, 4.0) * float(np.prod(scene.spacing))  # per voxel of white matter
    noisy = (rng.poisson(blurred * counts) / counts).astype(np.float32)
    stored = np.rint(scene.blurred(noisy, 3.0 / _FWHM, through=True) * np.float32(2500))
    return np.clip(stored, 0, 32767), {"modality": "PT", "step": 1.0, "range": (0.0, 32767.0)}
