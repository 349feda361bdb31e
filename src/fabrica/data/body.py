"""Where the patient is in an image: what is brighter than air, without holes, in one piece."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from fabrica.codec import Codec
from fabrica.image import Bools, Float32

AIR = -500.0  # HU: below it, air; the threshold of SynthRAD's body masks
FAINT = -0.9  # network value, where there are no Hounsfield units: a twentieth of the range


def threshold(codec: Codec) -> float:
    """The network value above which a voxel is no air."""
    if codec.unit == "HU" and codec.kind == "window" and codec.low < AIR < codec.high:
        return 2 * (AIR - codec.low) / (codec.high - codec.low) - 1
    return FAINT


def body(values: Float32, above: float) -> Bools:
    """bool (*S): the largest piece of the image (C, *S) whose first channel is above this value, holes filled slice by
    slice (lungs and sinuses belong to the body). Where nothing is brighter, all of the image."""
    bright = values[0] > above
    pieces, count = ndimage.label(bright)
    if count == 0:
        return np.ones_like(bright)
    if count > 1:
        sizes = np.bincount(pieces.ravel())
        sizes[0] = 0
        bright = pieces == sizes.argmax()
    if bright.ndim == 3:
        return np.stack([ndimage.binary_fill_holes(plane) for plane in bright])
    filled: Bools = ndimage.binary_fill_holes(bright)
    return filled
