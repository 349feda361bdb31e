"""Random changes to training images, each a pure function of seed and position: a resumed run repeats them."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from fabrica.image import Float32

Int64 = npt.NDArray[np.int64]


def coins(seed: int, positions: Int64) -> npt.NDArray[np.bool_]:
    """One fair coin for each position, whatever the batch it is in: the top bit of SplitMix64 (Steele, Lea and
    Flood, OOPSLA 2014) started at the seed."""
    with np.errstate(over="ignore"):
        start = _mixed(np.array(seed & 0xFFFF_FFFF_FFFF_FFFF, dtype=np.uint64))
        state = start + (positions.astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E37_79B9_7F4A_7C15)
        return (_mixed(state) >> np.uint64(63)).astype(bool)


def flip_left_right(images: Float32, seed: int, positions: Int64) -> Float32:
    """Mirror about half of the images (B, C, *S) along their last axis, in place; returns `images`.

    positions   (B,) where in the endless stream of training images each one stands.
    """
    chosen = coins(seed, positions)
    images[chosen] = images[chosen, ..., ::-1]
    return images


def shifted(images: Float32, seed: int, positions: Int64, most: int) -> Float32:
    """Each image (B, C, *S) moved by up to `most` pixels along each axis, in place; the border's pixels are repeated.

    Whole pixels: no value is interpolated, and two sides of a pair that get the same arguments move alike.
    """
    for image, position in zip(images, positions, strict=True):
        steps = np.random.default_rng([seed & 0xFFFF_FFFF_FFFF_FFFF, int(position)])
        for axis, side in enumerate(image.shape[1:], start=1):
            by = int(steps.integers(-most, most + 1))
            image[:] = image.take(np.clip(np.arange(side) + by, 0, side - 1), axis)
    return images


def _mixed(z: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58_476D_1CE4_E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D0_49BB_1331_11EB)
    return z ^ (z >> np.uint64(31))
