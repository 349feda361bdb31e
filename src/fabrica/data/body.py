"""Where the patient is in an image: what is brighter than air, without holes, in one piece."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from fabrica.codec import Codec
from fabrica.image import Float32

Mask = npt.NDArray[np.bool_]

AIR = -500.0  # HU: below it, air; the threshold of SynthRAD's body masks
FAINT = -0.9  # network value, where there are no Hounsfield units: a twentieth of the range


def threshold(codec: Codec) -> float:
    """The network value above which a voxel is no air."""
    if codec.unit == "HU" and codec.kind == "window" and codec.low < AIR < codec.high:
        return 2 * (AIR - codec.low) / (codec.high - codec.low) - 1
    return FAINT


def body(values: Float32, above: float) -> Mask:
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
    filled: Mask = ndimage.binary_fill_holes(bright)
    return filled
