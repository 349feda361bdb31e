"""The physics of magnetic resonance pictures: relaxation, signal equations, coil bias, Rician noise.

Relaxation times in ms, proton density relative to water. At 1.5 T brain, fat and muscle follow BrainWeb
(Kwan, Evans and Pike, IEEE TMI 18:1085, 1999); at 3 T grey and white matter follow Wansapura et al. (JMRI
9:531, 1999), muscle Stanisz et al. (MRM 54:507, 2005). The T1 of CSF, 4.3 s at every field, follows Rooney
et al. (MRM 57:308, 2007). Bone, skin, dura and the lesions are plausible values, chosen, not measured.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fabrica.image import Float32


@dataclass(frozen=True)
class Relaxation:
    """T1 and T2 in ms at one field strength, proton density `pd` in 0..1."""

    t1: float
    t2: float
    pd: float


@dataclass(frozen=True)
class Sequence:
    """Repetition, echo and inversion time in ms. Without an inversion (None) it is a spin echo."""

    tr: float
    te: float
    ti: float | None = None


# tissue: (T1 at 1.5 T, T1 at 3 T, T2 at 1.5 T, T2 at 3 T, proton density)
_TABLE: dict[str, tuple[float, float, float, float, float]] = {
    "air": (1, 1, 1, 1, 0.0),
    "skin": (760, 950, 38, 34, 0.72),
    "fat": (350, 380, 70, 62, 1.0),
    "cortical bone": (200, 250, 2, 1.5, 0.15),
    "marrow": (400, 440, 58, 50, 0.75),
    "CSF": (4300, 4300, 1900, 1700, 1.0),
    "grey matter": (833, 1331, 83, 95, 0.86),
    "white matter": (500, 832, 70, 76, 0.77),
    "deep grey matter": (740, 1180, 74, 78, 0.83),
    "eye": (3800, 3900, 900, 800, 0.98),
    "sinus air": (1, 1, 1, 1, 0.0),
    "muscle": (900, 1412, 47, 44, 0.80),
    "dura": (700, 900, 32, 28, 0.60),
    "tumour core": (1700, 2000, 210, 190, 0.92),
    "tumour rim": (380, 430, 105, 100, 0.86),  # T1 shortened by gadolinium
    "oedema": (1050, 1450, 165, 155, 0.85),
}


def relaxation(tissue: str, tesla: float) -> Relaxation:
    """Relaxation of a named tissue at 1.5 or 3 T. Raises KeyError for another tissue."""
    t1_low, t1_high, t2_low, t2_high, pd = _TABLE[tissue]
    high = tesla > 2
    return Relaxation(t1_high if high else t1_low, t2_high if high else t2_low, pd)


def spin_echo(tissue: Relaxation, tr: float, te: float) -> float:
    """S = PD (1 - 2 exp(-(TR - TE/2)/T1) + exp(-TR/T1)) exp(-TE/T2), with the 180° pulse at TE/2."""
    longitudinal = 1 - 2 * np.exp(-(tr - te / 2) / tissue.t1) + np.exp(-tr / tissue.t1)
    return float(tissue.pd * longitudinal * np.exp(-te / tissue.t2))


def inversion_recovery(tissue: Relaxation, tr: float, te: float, ti: float) -> float:
    """S = PD (1 - 2 exp(-TI/T1) + exp(-TR/T1)) exp(-TE/T2); signed."""
    longitudinal = 1 - 2 * np.exp(-ti / tissue.t1) + np.exp(-tr / tissue.t1)
    return float(tissue.pd * longitudinal * np.exp(-te / tissue.t2))


def null_time(t1: float, tr: float) -> float:
    """The inversion time at which a tissue gives no signal: TI = T1 ln(2 / (1 + exp(-TR/T1))), in ms."""
    return float(t1 * np.log(2 / (1 + np.exp(-tr / t1))))


def signal(tissue: Relaxation, sequence: Sequence) -> float:
    """The magnitude signal of a tissue, relative to fully relaxed water without decay (1.0)."""
    if sequence.ti is None:
        return spin_echo(tissue, sequence.tr, sequence.te)
    return abs(inversion_recovery(tissue, sequence.tr, sequence.te, sequence.ti))


def rician(magnitude: Float32, sigma: float, rng: np.random.Generator) -> Float32:
    """Magnitude of a complex signal with Gaussian noise `sigma` in each part: sqrt((S + n1)² + n2²).

    Any shape, any unit. Without signal this is Rayleigh noise of mean sigma sqrt(pi/2) (Gudbjartsson and
    Patz, MRM 34:910, 1995).
    """
    noise = rng.standard_normal((2, *magnitude.shape), dtype=np.float32) * np.float32(sigma)
    noisy: Float32 = np.hypot(magnitude + noise[0], noise[1])
    return noisy


def coil_bias(places: Float32, strength: float, rng: np.random.Generator) -> Float32:
    """A smooth positive sensitivity, mean about 1, at scanner positions (..., 3) in mm.

    The logarithm is a sum of four plane waves of 250 to 500 mm with total standard deviation `strength`.
    """
    direction = rng.standard_normal((4, 3))
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    wave = direction * (2 * np.pi / rng.uniform(250, 500, (4, 1)))
    phase = rng.uniform(0, 2 * np.pi, 4)
    angles = places @ wave.T.astype(np.float32) + phase.astype(np.float32)
    field = np.cos(angles).sum(axis=-1) * np.float32(strength / np.sqrt(2))
    bias: Float32 = np.exp(field)
    return bias
