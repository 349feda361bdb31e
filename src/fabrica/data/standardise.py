"""From an image of any size, orientation and spacing to the arrays a network sees: numpy only."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from fabrica.codec import Codec, Limits
from fabrica.errors import UsageError
from fabrica.geometry import faced, oriented, resample
from fabrica.image import Float32, Float64, Image, name
from fabrica.io.uneven import evenly

Spacing = tuple[float, ...]
ALIKE = 0.1  # of the voxel size: images whose voxels differ less from training's are left at theirs


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
    `fabrica.recipe.schema.DataConfig`; "pad" and "crop" keep the proportions in mm where the spacing is known. Padding
    is the codec's low value (label 0). What is cut off at the front is a multiple of `step` pixels, so that images made
    of repeated pixels stay so.

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


def at_spacing(size: Sequence[int], spacing: Spacing, wanted: Sequence[float]) -> list[int]:
    """The size of an array of this size and mm a voxel at another spacing; an axis that is ALIKE stays as it is, and so
    do all where no mm are known."""
    ratios = [mm / new for mm, new in zip(spacing, wanted, strict=True)] if spacing else [1.0] * len(size)
    return [n if abs(r - 1) <= ALIKE else max(1, round(n * r)) for n, r in zip(size, ratios, strict=True)]


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


def middle(images: Float32, size: Sequence[int]) -> Float32:
    """The middle part (N, C, *size) of images (N, C, *S): what `DataConfig.fit` "exact" had padded."""
    around = zip(images.shape[2:], size, strict=True)
    cut = tuple(slice((have - want) // 2, (have - want) // 2 + want) for have, want in around)
    return images[:, :, *cut]
