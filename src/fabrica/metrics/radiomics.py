"""Radiomic features for distances between sets of images: they need no weights and no download.

After the Frechet radiomic distance (FRD; Konz et al., arXiv:2412.01496): interpretable statistics of grey
levels, texture and detail, z-scored by the real set. Two things are ours: no filtered copies of the image
beyond wavelets and LoG, which keeps it near a millisecond an image; and a coarse layout (4 x 4 block means,
symmetry, centre), because plain radiomics has no sense of place and scores misplaced organs well.
So figures are not comparable with the FRD of other programs.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from fabrica.errors import UsageError
from fabrica.image import Float32, Float64
from fabrica.metrics import texture as group

GROUPS = (
    (group.GREY_NAMES, group.grey),
    (group.TEXTURE_NAMES, group.texture),
    (group.RUN_NAMES, group.runs),
    (group.EDGE_NAMES, group.edges),
    (group.WAVELET_NAMES, group.wavelets),
    (group.BLOB_NAMES, group.blobs),
    (group.SPECTRUM_NAMES, group.spectrum),
    (group.LAYOUT_NAMES, group.layout),
)
FEATURE_NAMES: tuple[str, ...] = tuple(name for names, _ in GROUPS for name in names)

SMALLEST_SIDE = 16
CLIP = 10.0
_BATCH = 32  # planes at a time: the working set stays in the processor's cache


def middle_planes(images: Float32) -> list[Float32]:
    """2-D images as they are, (N, C, H, W); of volumes the axial, coronal and sagittal middle planes."""
    if images.ndim == 4:
        return [images]
    if images.ndim != 5:
        raise UsageError(f"images have shape {images.shape}; expected (N, C, H, W) or (N, C, D, H, W)")
    depth, height, width = (side // 2 for side in images.shape[2:])
    return [images[:, :, depth], images[:, :, :, height], images[..., width]]


def radiomic_features(images: Float32) -> Float64:
    """Features (N, len(FEATURE_NAMES)) of images (N, C, H, W) or (N, C, D, H, W) in [-1, 1].

    Values outside [-1, 1] are clipped. Channels, and the three middle planes of a volume, are measured
    apart and averaged. Sides must be at least 16; sets to be compared should have one size, because texture
    is measured in pixels. Raises UsageError for a smaller or wrongly shaped array, or one with NaN.
    """
    planes = middle_planes(images)
    measured = [_of_plane(plane[:, c]) for plane in planes for c in range(plane.shape[1])]
    return np.asarray(np.mean(measured, axis=0), dtype=np.float64)


def _of_plane(plane: Float32) -> Float64:
    if min(plane.shape[1:]) < SMALLEST_SIDE:
        raise UsageError(f"planes are {plane.shape[1:]}; radiomic features need sides of {SMALLEST_SIDE} or more")
    if not np.isfinite(plane).all():
        raise UsageError("images hold NaN or infinity; expected finite values in [-1, 1]")
    plane = np.clip(plane, -1, 1).astype(np.float32, copy=False)
    return np.concatenate(
        [
            np.concatenate([measure(plane[i : i + _BATCH]) for _, measure in GROUPS], axis=1)
            for i in range(0, len(plane), _BATCH)
        ]
    )


def standardiser(real: Float64) -> tuple[Float64, Float64]:
    """Centre and scale (F,) for `standardised`, from the features (N, F) of the REAL reference set.

    Median, and the 5th to 95th percentile range over 3.29, which is the standard deviation of a Gaussian but
    is not set by a few odd images. Where that range is empty (a feature that is nearly always the same) it
    is the standard deviation. A feature that does not vary gets scale 0 and is dropped by `standardised`.
    """
    low, centre, high = np.percentile(real, [5, 50, 95], axis=0)
    smallest = 1e-7 * np.maximum(1, np.abs(centre))
    scale = (high - low) / 3.29
    scale = np.where(scale > smallest, scale, real.std(0))
    return centre, np.where(scale > smallest, scale, 0.0)


def standardised(features: Float64, centre: Float64, scale: Float64) -> Float64:
    """z-scores (N, F') of features (N, F), cut to +-10 so that noise images do not swamp a distance.

    F' leaves out the features with scale 0.
    """
    kept = scale > 0
    return np.clip((features[:, kept] - centre[kept]) / scale[kept], -CLIP, CLIP)


def standard_features(real: Float32) -> tuple[Float64, Callable[[Float32], Float64]]:
    """The features (N, F) of real images (N, C, *S), each of mean 0 and standard deviation 1, and what measures other
    images on that scale."""
    raw = radiomic_features(real)
    scaling = standardiser(raw)
    return standardised(raw, *scaling), lambda images: standardised(radiomic_features(images), *scaling)
