"""Where the axes of an image point, turned for viewing and for networks, and arrays brought to other sizes."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from itertools import permutations
from typing import cast

import numpy as np

from fabrica.image import Array, Float32, Float64, Image


def faced(image: Image) -> Image:
    """A 2-D image as `fabrica.io.to_display` shows it, where its plane in the patient is known: an axial one like the
    slices of a volume, the others with the head at the top. The affine follows; every other image is as it was."""
    if len(image.size) != 2 or not image.placed:
        return image
    swapped, flipped = facing(image.affine)
    data, affine = upright(image.data, image.affine), image.affine.copy()
    if swapped:
        affine[:, [0, 1]] = affine[:, [1, 0]]
    for k in (0, 1):
        if flipped[k]:
            affine[:, 3] += affine[:, k] * (data.shape[2 - k] - 1)
            affine[:, k] *= -1
    return image.with_data(data, affine=affine)


def oriented(image: Image, order: str) -> Image:
    """The volume (C, D, H, W) with its axes turned to the nearest `order`, e.g. "RAS": W runs to the right, H to
    anterior, D to superior; "L", "P" and "I" are the opposites. No value is interpolated; the affine follows."""
    axes, flipped = turn(image.affine, order)
    affine = image.affine.copy()
    affine[:, :3] = affine[:, [3 - axis for axis in axes[::-1]]]
    data = as_seen(image.data, image.affine, order)
    for axis in flipped:
        k = 3 - axis
        affine[:, 3] += affine[:, k] * (data.shape[axis] - 1)
        affine[:, k] *= -1
    return image.with_data(data, affine=affine)


def as_seen(data: Float32, affine: Float64, order: str) -> Float32:
    """A view of the volume (C, D, H, W) with its axes turned as by `oriented`: writing into it writes into `data`."""
    axes, flipped = turn(affine, order)
    turned = data.transpose(0, *axes)
    return turned[tuple(slice(None, None, -1 if axis in flipped else None) for axis in range(4))]


def places(image: Image) -> Float64:
    """(D, 3) RAS+ in mm: where the first voxel of each slice lies, by origin["positions"] where slices are uneven; of a
    2-D image one row."""
    own = image.origin.get("positions")
    depth = image.data.shape[1] if image.data.ndim == 4 else 1
    if own is not None and len(own) == depth:
        return np.asarray(own, np.float64)
    return np.asarray(image.affine[:3, 3] + np.arange(depth)[:, None] * image.affine[:3, 2], np.float64)


def turn(affine: Float64, order: str) -> tuple[tuple[int, int, int], list[int]]:
    """Which axes of (C, D, H, W) become D, H, W, and which of the new ones are reversed then."""
    directions = affine[:3, :3] / np.maximum(np.linalg.norm(affine[:3, :3], axis=0), 1e-12)
    # the assignment of voxel axes (w, h, d) to x, y, z that agrees best, so that oblique volumes keep three axes
    nearest = max(permutations(range(3)), key=lambda p: sum(abs(directions[k, p[k]]) for k in range(3)))
    axes = (3 - nearest[2], 3 - nearest[1], 3 - nearest[0])  # voxel axis k is array axis 3 - k
    signs = [directions[k, nearest[k]] * (1 if letter in "RAS" else -1) for k, letter in enumerate(order)]
    return axes, [3 - k for k, sign in enumerate(signs) if sign < 0]


def resample(values: Float32, size: Sequence[int], nearest: bool = False) -> Float32:
    """(C, *S) -> (C, *size), axis by axis: area means where it shrinks (no aliasing), linear where it grows.

    Pixels are areas, not points: the borders of the image stay where they are (align_corners=False). The range
    of the values never grows.
    """
    for axis, target in enumerate(size, start=1):
        source = values.shape[axis]
        if source == target:
            continue
        if nearest:
            index = np.minimum(((np.arange(target) + 0.5) * source / target).astype(int), source - 1)
            values = values.take(index, axis)
        else:
            moved = np.tensordot(values, _weights(source, target), axes=([axis], [1]))
            values = np.moveaxis(moved, -1, axis)
    return np.ascontiguousarray(values, dtype=np.float32)


def planes_of(source: int, target: int, planes: slice) -> tuple[slice, Float32]:
    """Of an axis of `source` planes brought to `target` as `resample` does it: which planes of it those `planes` of the
    result are made of, and with what weights (result, source)."""
    if source == target:
        return planes, np.eye(planes.stop - planes.start, dtype=np.float32)
    rows = _weights(source, target)[planes]
    used = np.flatnonzero(rows.any(0))
    of = slice(int(used[0]), int(used[-1]) + 1)
    return of, rows[:, of]


@lru_cache(maxsize=256)
def _weights(source: int, target: int) -> Float32:
    """(target, source): each row sums to 1."""
    step = source / target
    if target < source:  # the share of each source pixel that lies under the target pixel
        low = np.arange(target)[:, None] * step
        pixel = np.arange(source)
        cover = np.minimum(low + step, pixel + 1) - np.maximum(low, pixel)
        return cast(Float32, (np.clip(cover, 0, None) / step).astype(np.float32))
    centre = np.clip((np.arange(target) + 0.5) * step - 0.5, 0, source - 1)
    distance: Float64 = np.abs(centre[:, None] - np.arange(source))
    return np.clip(1 - distance, 0, None).astype(np.float32)


_ANTERIOR, _SUPERIOR = 1, 2  # patient axes; 0 is right


def upright(plane: Array, affine: Float64) -> Array:
    """A view of (C, H, W), in index order, for viewing."""
    swapped, flipped = facing(affine)
    plane = plane.swapaxes(1, 2) if swapped else plane
    return plane[:, :: -1 if flipped[1] else 1, :: -1 if flipped[0] else 1]


def facing(affine: Float64) -> tuple[bool, tuple[bool, bool]]:
    """How the plane of the index axes (w, h) is turned for viewing: whether rows become columns, and whether the new
    columns, and the new rows, are reversed then."""
    columns, rows, through = _closest_axes(affine)
    vertical = _ANTERIOR if through == _SUPERIOR else _SUPERIOR
    swapped = rows != vertical
    (columns, rows), (w, h) = ((rows, columns), (1, 0)) if swapped else ((columns, rows), (0, 1))
    # In every one of these views the world coordinate falls along the picture's rows and columns.
    return swapped, (bool(affine[columns, w] > 0), bool(affine[rows, h] > 0))


def _closest_axes(affine: Float64) -> tuple[int, int, int]:
    """The patient axis (0 right, 1 anterior, 2 superior) nearest to each of the index axes (w, h, d)."""
    size = np.linalg.norm(affine[:3, :3], axis=0)
    share = np.abs(affine[:3, :3]) / np.where(size > 0, size, 1.0)
    w, h, d = max(permutations(range(3)), key=lambda p: share[p[0], 0] + share[p[1], 1] + share[p[2], 2])
    return w, h, d
