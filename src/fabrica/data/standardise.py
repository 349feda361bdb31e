"""From an image of any size, orientation and spacing to the arrays a network sees: numpy only."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import cast

import numpy as np

from fabrica.codec import Codec, Limits
from fabrica.errors import UsageError
from fabrica.image import Float32, Float64, Image
from fabrica.io.display import facing, upright
from fabrica.io.uneven import evenly

Spacing = tuple[float, ...]


def standardise(
    image: Image,
    codec: Codec,
    size: Sequence[int],
    channels: int,
    fit: str,
    slices: str = "middle",
    context: int = 0,
    limits: Limits | None = None,
    step: int = 1,
) -> Iterator[tuple[Float32, Spacing]]:
    """Yield (values, spacing) for every network image that `image` gives.

    values   float32 (C, *size) in [-1, 1]; for a label codec C = classes, -1 or 1. With `context`, slices k - context
             to k + context one after the other: C * (2 context + 1); beyond the ends the last one stands in.
    spacing  mm between pixel centres in the order of `size`; () where the image does not know.

    A volume for a 3-D size gives one array, turned to the nearest RAS+ order: W runs to the patient's right, H to
    anterior, D to superior. A volume for a 2-D size gives the middle third of its axial slices (or all of them), each
    as a radiologist sees it: row 0 anterior, column 0 the patient's right. A single slice whose plane is known
    (`Image.placed`) is turned alike, see `faced`; any other 2-D image stays as it stands.
    Percentile limits are those of the whole volume, unless `limits` are given. `fit` is that of
    `fabrica.recipe.DataConfig`; "pad" and "crop" keep the proportions in mm where the spacing is known. Padding is the
    codec's low value (label 0). What is cut off at the front is a multiple of `step` pixels, so that images made of
    repeated pixels stay so.

    Raises UsageError for other channels than expected, and for a 2-D image where a volume is.
    """
    expected = 1 if codec.kind == "label" else channels
    if image.channels != expected:
        raise UsageError(
            f"{name(image)} has {image.channels} channels; expected {expected} (data.channels): "
            "leave it out (data.where), convert it, or set data.channels"
        )
    if codec.kind == "label" and (top := int(np.rint(image.data.max()))) >= codec.classes:
        raise UsageError(
            f"{name(image)} has labels up to {top}, and its codec has {codec.classes} classes; give it more, with kind "
            f"label and classes {top + 1} (codec, codec_b or codec_mask), or number the labels anew"
        )
    if len(image.size) < len(size):
        raise UsageError(f"{name(image)} is 2-D and data.size {list(size)} is a volume's; give [H, W]")
    image = evenly(image) if len(size) == 3 else image
    image = oriented(image, "RAS" if len(size) == 3 else "LPS") if len(image.size) == 3 else faced(image)
    if context and len(image.size) == len(size):
        raise UsageError(f"{name(image)} is one slice, and data.context={context} needs its neighbours; give volumes")
    values = image.data if codec.kind == "label" else codec.scaled(image.data, limits or codec.limits(image.data))
    spacing = image.spacing if image.measured else ()
    if len(image.size) == len(size):
        yield _fitted(values, codec, size, fit, spacing, step)
        return
    depth = image.size[0]
    for k in learned(depth, slices):
        near = [_fitted(values[:, n], codec, size, fit, spacing[1:], step) for n in neighbours(k, context, depth)]
        yield np.concatenate([plane for plane, _ in near]), near[0][1]


def placed(image: Image, size: Sequence[int], fit: str) -> Float64:
    """The affine (4, 4) of what `standardise` makes of an image of as many dimensions as `size`: where it lies in
    mm."""
    image = oriented(evenly(image), "RAS") if len(image.size) == 3 else faced(image)
    inner = inner_size(image.size, size, fit, image.spacing if image.measured else ())
    affine = image.affine.copy()
    for axis, (source, have, want) in enumerate(zip(image.size, inner, size, strict=True)):
        k = len(size) - 1 - axis
        common, step = min(have, want), source / have
        first = (have - common) // 2 - (want - common) // 2
        affine[:3, 3] += image.affine[:3, k] * ((first + 0.5) * step - 0.5)
        affine[:3, k] *= step
    return affine


def learned(depth: int, slices: str) -> range:
    """Which slices of a volume a network for slices learns from: the "middle" third, or "all"."""
    return range(depth // 3, max(depth - depth // 3, depth // 3 + 1)) if slices == "middle" else range(depth)


def neighbours(k: int, context: int, depth: int) -> list[int]:
    """The slices from k - context to k + context; beyond the ends the last one stands in."""
    return [min(max(n, 0), depth - 1) for n in range(k - context, k + context + 1)]


def _fitted(
    values: Float32, codec: Codec, size: Sequence[int], fit: str, spacing: Spacing, step: int
) -> tuple[Float32, Spacing]:
    fitted, mm = fitted_to(values, size, fit, spacing, codec.kind == "label", step)
    return (codec.encode(Image(fitted, unit="label")) if codec.kind == "label" else fitted), mm


def name(image: Image) -> str:
    """What an error message calls this image."""
    return str(image.origin.get("path") or image.origin.get("patient") or "an image")


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


def turn(affine: Float64, order: str) -> tuple[tuple[int, int, int], list[int]]:
    """Which axes of (C, D, H, W) become D, H, W, and which of the new ones are reversed then."""
    directions = affine[:3, :3] / np.maximum(np.linalg.norm(affine[:3, :3], axis=0), 1e-12)
    # the assignment of voxel axes (w, h, d) to x, y, z that agrees best, so that oblique volumes keep three axes
    nearest = max(itertools.permutations(range(3)), key=lambda p: sum(abs(directions[k, p[k]]) for k in range(3)))
    axes = (3 - nearest[2], 3 - nearest[1], 3 - nearest[0])  # voxel axis k is array axis 3 - k
    signs = [directions[k, nearest[k]] * (1 if letter in "RAS" else -1) for k, letter in enumerate(order)]
    return axes, [3 - k for k, sign in enumerate(signs) if sign < 0]


def fitted_to(
    values: Float32, size: Sequence[int], fit: str, spacing: Spacing = (), labels: bool = False, step: int = 1
) -> tuple[Float32, Spacing]:
    """Values (C, *S) as (C, *size), and the spacing in mm that results (() where `spacing` is ()).

    labels   values are label numbers: the nearest is taken, and padding is 0 instead of -1.
    """
    source = values.shape[1:]
    inner = inner_size(source, size, fit, spacing)
    resized = resample(values, inner, nearest=labels)
    mm = tuple(s * n / m for s, n, m in zip(spacing, source, inner, strict=True)) if spacing else ()
    return _centred(resized, size, 0.0 if labels else -1.0, step), mm


def inner_size(source: Sequence[int], size: Sequence[int], fit: str, spacing: Spacing = ()) -> tuple[int, ...]:
    """The size to which `fit` resamples an array of this size on its way to `size`, before it is padded or cropped."""
    if fit == "exact":
        return tuple(source)
    if fit == "stretch":
        return tuple(size)
    extent = [n * mm for n, mm in zip(source, spacing or (1.0,) * len(source), strict=True)]
    ratios = [want / length for want, length in zip(size, extent, strict=True)]
    scale = min(ratios) if fit == "pad" else max(ratios)
    return tuple(max(1, round(length * scale)) for length in extent)


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


def _centred(values: Float32, size: Sequence[int], fill: float, step: int) -> Float32:
    """(C, *S) -> (C, *size): cropped or padded by the same amount on both sides, at the front by multiples of step."""
    if values.shape[1:] == tuple(size):
        return values
    out = np.full((values.shape[0], *size), fill, dtype=np.float32)
    to, of = [slice(None)], [slice(None)]
    for have, want in zip(values.shape[1:], size, strict=True):
        common = min(have, want)
        before, first = ((n - common) // 2 // step * step for n in (want, have))
        to.append(slice(before, before + common))
        of.append(slice(first, first + common))
    out[tuple(to)] = values[tuple(of)]
    return out
