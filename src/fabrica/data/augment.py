"""Random changes to training images, each a pure function of seed and position: a resumed run repeats them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import lru_cache

import numpy as np
import numpy.typing as npt
from scipy.ndimage import map_coordinates, zoom

from fabrica.image import Float32, Float64
from fabrica.recipe.schema import DataConfig

Int64 = npt.NDArray[np.int64]
STEP = 4  # pixels from one crop to the next: squares of up to 4 x 4 stay whole (super-resolution, pixel unshuffling)
POWER, GAIN, COIL, NOISE = 1.5, 1.35, 0.25, 0.05  # of another scanner: see `as_other_scanner`
KNOT = 16  # pixels between the knots of an elastic deformation


@dataclass(frozen=True)
class Changes:
    """What is changed at random, by the same amount on both sides of a pair.

    crop     a part of so many pixels along each axis; 0: the whole image.
    flip     mirrored left to right (never for anatomy whose side matters).
    jitter   moved by up to so many whole pixels along each axis.
    turn     turned in the plane by up to so many degrees either way.
    bend     elastic deformation: displacements with this standard deviation in pixels, smooth over KNOT pixels
             (Simard et al. 2003). Turning and bending interpolate: linearly, labels to the nearest. That smooths noise,
             so a network that learns to take noise away should not have them.
    zoom     enlarged or made smaller in the plane by up to this share: by a factor between 1 / (1 + zoom) and 1 + zoom.
    gamma    grey values, from 0 to 1, to a power between 1 / (1 + gamma) and 1 + gamma; never for HU.
    scanner  the grey values of side a alone, as another scanner, another sequence and another hand at the grey window
             might have given them, see `as_other_scanner`; 1 is much. Never for HU, nor for labels.
    apart    side b moved against a by up to so many whole pixels along each axis: where pairs lie off by as much, and
             a network would learn by which displacement it knows each of few patients.
    augment  patches of cases (`fabrica.data.patches`) turned, scaled, bent, mirrored, and changed in grey value.
    """

    crop: int = 0
    flip: bool = False
    jitter: int = 0
    turn: float = 0.0
    zoom: float = 0.0
    bend: float = 0.0
    gamma: float = 0.0
    scanner: float = 0.0
    apart: int = 0
    augment: bool = False


AS_THEY_ARE = Changes()


def changes_of(data: DataConfig) -> Changes:
    """What a recipe asks for."""
    return Changes(**{each.name: getattr(data, each.name) for each in fields(Changes)})


def changed(images: Float32, seed: int, positions: Int64, changes: Changes, labels: bool = False) -> Float32:
    """Images (B, C, *S) in [-1, 1] after the random changes that belong to their positions (B,) in the endless stream
    of training images; labels: they are one-hot."""
    if changes.jitter:
        images = shifted(images, seed, positions, changes.jitter)
    if changes.crop or changes.turn or changes.zoom or changes.bend:
        images = np.stack(
            [_cut(one, stream(seed, at, 1), changes, labels) for one, at in zip(images, positions, strict=True)]
        )
    if changes.flip:
        images = flip_left_right(images, seed, positions)
    if changes.gamma and not labels:
        for image, position in zip(images, positions, strict=True):
            power = (1 + changes.gamma) ** stream(seed, position, 2).uniform(-1, 1)
            shown = np.clip(image, -1, 1)  # what lies beyond stays as far beyond
            image[:] = ((shown + 1) / 2) ** np.float32(power) * 2 - 1 + (image - shown)
    return images


def as_other_scanner(images: Float32, seed: int, positions: Int64, strength: float) -> Float32:
    """Grey values of images (B, C, *S) in [-1, 1] as another scanner might have given them, in place: to a power, times
    a gain, times the smooth sensitivity of a coil, with noise; each drawn anew for a position.

    At strength 1 power and gain lie within a factor of 1.5 and 1.35, the logarithm of the sensitivity, a wave of about
    the image's size along each axis, within 0.25 of 0, and noise has a standard deviation of up to a twentieth of the
    range. What is padding (-1) stays so.
    """
    for image, position in zip(images, positions, strict=True):
        draw = stream(seed, position, 3)
        power, gain = (np.float32(most ** (strength * draw.uniform(-1, 1))) for most in (POWER, GAIN))
        shown = (np.clip(image, -1, 1) + 1) / 2
        shown = shown**power * gain * np.exp(_sensitivity(draw, image.shape[1:]) * np.float32(strength * COIL))
        sigma = np.float32(strength * NOISE * draw.uniform())
        shown += sigma * draw.standard_normal(shown.shape, dtype=np.float32) * (image > -1)
        image[:] = np.clip(2 * shown - 1, -1, 1)
    return images


def _sensitivity(draw: np.random.Generator, size: Sequence[int]) -> Float32:
    """A smooth field (*S) between -1 and 1: the mean of a wave along each axis, of half to one and a half periods."""
    waves = [
        np.cos(2 * np.pi * (draw.uniform(0.5, 1.5) * np.linspace(0, 1, n) + draw.uniform())).astype(np.float32)
        for n in size
    ]
    sums = [wave.reshape([-1 if k == axis else 1 for k in range(len(size))]) for axis, wave in enumerate(waves)]
    field: Float32 = sum(sums[1:], sums[0]) / np.float32(len(size))
    return field


def _cut(image: Float32, draw: np.random.Generator, changes: Changes, labels: bool) -> Float32:
    """A part of the image (C, *S), turned, zoomed and bent; beyond the borders their pixels are repeated."""
    sides = image.shape[1:]
    wanted = [changes.crop or n for n in sides]
    corner = [STEP * int(draw.integers((n - w) // STEP + 1)) for n, w in zip(sides, wanted, strict=True)]
    if not (changes.turn or changes.zoom or changes.bend):
        return image[(slice(None), *(slice(k, k + w) for k, w in zip(corner, wanted, strict=True)))]
    starts = zip(corner, wanted, strict=True)
    places: Float64 = np.stack(np.meshgrid(*(k + np.arange(w, dtype=float) for k, w in starts), indexing="ij"))
    if changes.bend:
        places = places + changes.bend * np.stack([_smooth(draw, wanted) for _ in sides])
    middle = (np.array(sides[-2:]) - 1)[:, None, None] / 2
    angle = np.deg2rad(changes.turn) * draw.uniform(-1, 1)
    rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    if changes.zoom:
        rotation *= (1 + changes.zoom) ** draw.uniform(-1, 1)
    away = places[-2:].reshape(2, -1) - middle.reshape(2, 1)
    places[-2:] = (rotation @ away + middle.reshape(2, 1)).reshape(places[-2:].shape)
    order = 0 if labels else 1
    return np.stack([map_coordinates(plane, places, order=order, mode="nearest") for plane in image])


def _smooth(draw: np.random.Generator, size: list[int]) -> Float64:
    """A smooth random field of this size with standard deviation 1."""
    field = draw.standard_normal([-(-n // KNOT) + 3 for n in size])
    for knots, n in zip(field.shape, size, strict=True):  # the first axis becomes the last
        field = np.tensordot(field, _splines(knots, n + 2 * KNOT), (0, 0))
    inner = field[tuple(slice((have - n) // 2, (have - n) // 2 + n) for have, n in zip(field.shape, size, strict=True))]
    smooth: Float64 = inner / max(float(field.std()), 1e-9)
    return smooth


@lru_cache(maxsize=64)
def _splines(knots: int, n: int) -> Float64:
    """What each of so many knots adds to n places between the first and the last, (knots, n), by cubic splines. Along
    each axis by itself that is a hundredth of the work of interpolating a volume at once."""
    return np.stack([zoom(alone, n / knots, order=3) for alone in np.eye(knots)])


def stream(seed: int, position: int, which: int = 0) -> np.random.Generator:
    """Random numbers that belong to a position; of several, each its own."""
    return np.random.default_rng([seed & 0xFFFF_FFFF_FFFF_FFFF, int(position), *([which] if which else [])])


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


def shifted(images: Float32, seed: int, positions: Int64, most: int, which: int = 0) -> Float32:
    """Each image (B, C, *S) moved by up to `most` pixels along each axis, in place; the border's pixels are repeated.

    Whole pixels: no value is interpolated, and two sides of a pair that get the same arguments move alike. which: of
    several such moves of a position, each its own.
    """
    for image, position in zip(images, positions, strict=True):
        steps = stream(seed, position, which)
        for axis, side in enumerate(image.shape[1:], start=1):
            by = int(steps.integers(-most, most + 1))
            image[:] = image.take(np.clip(np.arange(side) + by, 0, side - 1), axis)
    return images


def _mixed(z: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58_476D_1CE4_E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D0_49BB_1331_11EB)
    return z ^ (z >> np.uint64(31))
