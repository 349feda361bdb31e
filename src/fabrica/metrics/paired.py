"""How near a translated or restored image is to the true one, inside the body, in physical units.

For CT in HU as the SynthRAD challenges define it: values are clipped to [-1024, 3000], the range is 4024, and means are
taken over the body mask (SynthRAD2023, evaluation of synthetic CT). Other units take the true image's own limits.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.ndimage import uniform_filter
from scipy.stats import wilcoxon

from fabrica.errors import UsageError
from fabrica.image import Float32, Float64
from fabrica.metrics.fidelity import TAPS, ms_ssim, similarity
from fabrica.metrics.fsim import fsim
from fabrica.metrics.patients import bootstrapped

Mask = npt.NDArray[np.bool_]
Limits = tuple[float, float]

HOUNSFIELD: Limits = (-1024.0, 3000.0)
WINDOW = 7  # voxels a side, scikit-image's default, which SynthRAD takes
BINS = 100
METRICS = ("mae", "psnr", "ssim", "ms_ssim", "fsim", "nmi")
HIGHER_IS_BETTER = frozenset(METRICS) - {"mae"}


def compare(result: Float32, truth: Float32, limits: Limits, mask: Mask | None = None) -> dict[str, float]:
    """The scores METRICS of one image against the true one.

    result, truth   (1, H, W) or (1, D, H, W) in the same physical unit.
    limits          the lowest and highest value that counts, HOUNSFIELD for CT; values are clipped to them, but for the
                    mean absolute error.
    mask            bool (H, W) or (D, H, W), where the body is; None: everywhere.

    Scores that need larger images than this are NaN. Raises UsageError for other shapes, an empty mask, and values that
    are not numbers.
    """
    inside = _checked(result, truth, mask)
    low, high = limits
    width = high - low
    # black becomes 0, as in a picture: luminance terms of SSIM depend on it
    a, b = (np.where(inside, np.clip(v[0].astype(np.float64) - low, 0, width), 0) for v in (result, truth))
    error = (a - b)[inside]
    with np.errstate(divide="ignore"):
        psnr = 10 * np.log10(width**2 / (error**2).mean())
    least = min(a.shape)
    return {
        "mae": float(np.abs(result[0].astype(np.float64) - truth[0])[inside].mean()),
        "psnr": float(psnr),
        "ssim": _ssim(a, b, width, inside) if least >= WINDOW else float("nan"),
        "ms_ssim": float(ms_ssim(a[None, None], b[None, None], width)[0]) if least >= TAPS else float("nan"),
        "fsim": float(fsim(a[None, None], b[None, None], (0.0, width))[0]),
        "nmi": nmi(a[inside], b[inside]),
    }


def _checked(result: Float32, truth: Float32, mask: Mask | None) -> Mask:
    if result.shape != truth.shape or truth.ndim not in (3, 4) or len(truth) != 1:
        raise UsageError(f"images have shapes {result.shape} and {truth.shape}; expected two equal (1, [D,] H, W)")
    inside = np.ones(truth.shape[1:], dtype=bool) if mask is None else mask
    if inside.shape != truth.shape[1:]:
        raise UsageError(f"the mask has shape {inside.shape}; expected {truth.shape[1:]}, as the image")
    if not inside.any():
        raise UsageError("the body mask is empty; leave it out to judge the whole image")
    for name, values in (("result", result), ("true image", truth)):
        if not np.isfinite(values).all():
            raise UsageError(f"the {name} holds {(~np.isfinite(values)).sum()} values that are not finite numbers")
    return inside


def _ssim(a: Float64, b: Float64, width: float, inside: Mask) -> float:
    """Structural similarity with a uniform window and sample covariances, meaned over the mask less a rim of 3 voxels
    (scikit-image's defaults; SynthRAD's masked mean)."""
    n = WINDOW**a.ndim
    luminance, contrast = similarity(a, b, width, lambda values: uniform_filter(values, WINDOW), n / (n - 1))
    rim = (slice(WINDOW // 2, -(WINDOW // 2)),) * a.ndim
    chosen = (luminance * contrast)[rim][inside[rim]]
    return float(chosen.mean()) if chosen.size else float("nan")


def nmi(a: Float64, b: Float64) -> float:
    """Normalised mutual information (H(a) + H(b)) / H(a, b) of equally many values: 1 independent, 2 the same
    (Studholme et al. 1999), from a histogram of 100 x 100 bins."""
    joint = np.histogram2d(a.ravel(), b.ravel(), BINS)[0]
    whole = _entropy(joint)
    return (_entropy(joint.sum(0)) + _entropy(joint.sum(1))) / whole if whole > 0 else 2.0


def _entropy(counts: Float64) -> float:
    p = counts[counts > 0] / counts.sum()
    return float(-(p * np.log(p)).sum())


@dataclass(frozen=True)
class Difference:
    """Model one less model two over the same patients: mean, 95 % interval, and p of Wilcoxon's signed-rank test."""

    mean: float
    low: float
    high: float
    p: float


def difference(one: Float64, two: Float64, seed: int = 0) -> Difference:
    """Paired comparison of two models' scores (P,) over the same patients in the same order.

    Raises UsageError for other numbers of patients. With fewer than six the test cannot reach 5 %."""
    if one.shape != two.shape:
        raise UsageError(f"{len(one)} and {len(two)} patients were judged; a paired test needs the same ones")
    gap = one - two
    gap = gap[np.isfinite(gap)]
    if not len(gap):
        raise UsageError("no patient has a score of both models")
    low, high = bootstrapped(gap, seed)
    p = float(wilcoxon(gap).pvalue) if np.any(gap != 0) else 1.0
    return Difference(float(gap.mean()), low, high, p)
