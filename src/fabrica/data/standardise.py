"""From an image of any size, orientation and spacing to the arrays a network sees: numpy only."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import cast

import numpy as np

from fabrica.codec import Codec
from fabrica.errors import UsageError
from fabrica.image import Float32, Float64, Image

Spacing = tuple[float, ...]


def standardise(
    image: Image, codec: Codec, size: Sequence[int], channels: int, fit: str
) -> Iterator[tuple[Float32, Spacing]]:
    """Yield (values, spacing) for every network image that `image` gives.

    values   float32 (C, *size) in [-1, 1]; for a label codec C = classes, -1 or 1.
    spacing  mm between pixel centres in the order of `size`; () where the image does not know.

    A volume for a 3-D size gives one array, turned to the nearest RAS+ order: W runs to the patient's right, H to
    anterior, D to superior. A volume for a 2-D size gives the middle third of its axial slices, each as a
    radiologist sees it: row 0 anterior, column 0 the patient's right. An image that is 2-D stays as it stands.
    Percentile limits are those of the whole volume. `fit` is that of `fabrica.recipe.DataConfig`; "pad" and
    "crop" keep the proportions in mm where the spacing is known. Padding is the codec's low value (label 0).

    Raises UsageError for other channels than expected, and for a 2-D image where a volume is.
    """
    expected = 1 if codec.kind == "label" else channels
    if image.channels != expected:
        raise UsageError(
            f"{name(image)} has {image.channels} channels; expected {expected} (data.channels): "
            "leave it out (data.where), convert it, or set data.channels"
        )
    if len(image.size) < len(size):
        raise UsageError(f"{name(image)} is 2-D and data.size {list(size)} is a volume's; give [H, W]")
    if len(image.size) == 3:
        image = oriented(image, "RAS" if len(size) == 3 else "LPS")
    values = image.data if codec.kind == "label" else codec.encode(image)
    spacing = image.spacing if is_placed(image) else ()
    planes = [values]
    if len(image.size) > len(size):
        depth = image.size[0]
        planes = [values[:, k] for k in range(depth // 3, max(depth - depth // 3, depth // 3 + 1))]
        spacing = spacing[1:]
    for plane in planes:
        fitted, mm = fitted_to(plane, size, fit, spacing, codec.kind == "label")
        if codec.kind == "label":
            fitted = codec.encode(Image(fitted, unit="label"))
        yield fitted, mm


def name(image: Image) -> str:
    """What an error message calls this image."""
    return str(image.origin.get("path") or image.origin.get("patient") or "an image")


def is_placed(image: Image) -> bool:
    """Whether the affine says something, or is the default of formats that know no millimetres."""
    return not np.array_equal(image.affine, np.eye(4)) or image.origin.get("format") in ("dicom", "nifti")


def oriented(image: Image, order: str) -> Image:
    """The volume (C, D, H, W) with its axes turned to the nearest `order`, e.g. "RAS": W runs to the right, H to
    anterior, D to superior; "L", "P" and "I" are the opposites. No value is interpolated; the affine follows."""
    directions = image.affine[:3, :3] / np.maximum(np.linalg.norm(image.affine[:3, :3], axis=0), 1e-12)
    # the assignment of voxel axes (w, h, d) to x, y, z that agrees best, so that oblique volumes keep three axes
    axes = max(itertools.permutations(range(3)), key=lambda p: sum(abs(directions[k, p[k]]) for k in range(3)))
    data, affine = image.data, image.affine.copy()
    data = data.transpose(0, *(3 - axes[k] for k in (2, 1, 0)))  # voxel axis k is array axis 3 - k
    affine[:, :3] = affine[:, list(axes)]
    for k, letter in enumerate(order):
        towards = 1 if letter in "RAS" else -1
        if affine[k, k] * towards < 0:
            affine[:, 3] += affine[:, k] * (data.shape[3 - k] - 1)
            affine[:, k] *= -1
            data = np.flip(data, axis=3 - k)
    return image.with_data(data, affine=affine)


def fitted_to(
    values: Float32, size: Sequence[int], fit: str, spacing: Spacing = (), labels: bool = False
) -> tuple[Float32, Spacing]:
    """Values (C, *S) as (C, *size), and the spacing in mm that results (() where `spacing` is ()).

    labels   values are label numbers: the nearest is taken, and padding is 0 instead of -1.
    """
    source = values.shape[1:]
    if fit == "exact":
        inner = tuple(source)
    elif fit == "stretch":
        inner = tuple(size)
    else:
        extent = [n * mm for n, mm in zip(source, spacing or (1.0,) * len(source), strict=True)]
        ratios = [want / length for want, length in zip(size, extent, strict=True)]
        scale = min(ratios) if fit == "pad" else max(ratios)
        inner = tuple(max(1, round(length * scale)) for length in extent)
    resized = resample(values, inner, nearest=labels)
    mm = tuple(s * n / m for s, n, m in zip(spacing, source, inner, strict=True)) if spacing else ()
    return _centred(resized, size, 0.0 if labels else -1.0), mm


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


def _centred(values: Float32, size: Sequence[int], fill: float) -> Float32:
    """(C, *S) -> (C, *size): cropped or padded by the same amount on both sides."""
    if values.shape[1:] == tuple(size):
        return values
    out = np.full((values.shape[0], *size), fill, dtype=np.float32)
    to, of = [slice(None)], [slice(None)]
    for have, want in zip(values.shape[1:], size, strict=True):
        common = min(have, want)
        to.append(slice((want - common) // 2, (want - common) // 2 + common))
        of.append(slice((have - common) // 2, (have - common) // 2 + common))
    out[tuple(to)] = values[tuple(of)]
    return out
