"""One image through a network that translates, in physical units and on its own grid: slice by slice, or a volume in
windows, in flat memory.

Images are seen as in training: turned alike, at about the same millimetres a voxel, in windows of the same size. What
comes out lies on the voxels of the source again.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy.ndimage import find_objects, label

from fabrica.codec import ABSENT, Codec, Limits
from fabrica.data.standardise import at_spacing, inner_size, neighbours
from fabrica.errors import UsageError
from fabrica.geometry import as_seen, faced, planes_of, resample, turn, upright
from fabrica.image import Array, Float32, Image, name
from fabrica.inference.tiling import PLANES, Net, whole, windowed
from fabrica.io.grids import on_grid
from fabrica.progress import Count
from fabrica.recipe.found import Fingerprint, HeldOutError
from fabrica.recipe.schema import DataConfig

WIDEST = 2048  # pixels


@dataclass(frozen=True)
class Way:
    """One direction of a translator.

    net        windows (B, C * (2 context + 1), *W) in [-1, 1], and the channels of each contrast beside after them ->
               (B, n * C2, *W): the result, and n - 1 maps beside it in the same network units (of the result's range,
               or of the source's).
    source     how the image's values become the network's; target: how the result's become physical.
    data       size, fit and context as in training.
    seen       what training's images of the source had in common, their mm a voxel among it.
    modality   of the result, DICOM's letters.
    restores   the result is the image itself made better, or otherwise has its scale: it keeps scale and display, of
               percentiles its own, and values that lie beyond what the codec reaches.
    local      the network answers alike wherever a window lies: slices up to WIDEST pixels a side go through it whole.
    maps       for each map beside the result, the codec whose range it is measured in.
    auxiliary  the codec of each contrast that the network sees beside the image.
    model      the model's name; direction: "a2b", or "b2a".
    held_out   how good its results were found to be on held-out images.
    back       the network of the other direction, where the model goes both ways.
    labels     of results that are label maps: what their numbers are called; mirror: the axes along which its images
               may be mirrored; largest: the numbers of which only the largest connected piece is given.
    """

    net: Net
    source: Codec
    target: Codec
    data: DataConfig
    seen: Fingerprint
    modality: str
    maps: Sequence[Codec] = ()
    restores: bool = False
    local: bool = False
    auxiliary: Sequence[Codec] = ()
    model: str = ""
    direction: str = "a2b"
    held_out: HeldOutError = field(default_factory=HeldOutError)
    back: Net | None = None
    labels: Mapping[int, str] = field(default_factory=dict)
    mirror: Sequence[int] = ()
    largest: Sequence[int] = ()

    @property
    def name(self) -> str:
        """From what to what."""
        sides = self.data.a, self.data.b
        return " to ".join(sides if self.direction == "a2b" else sides[::-1])


def translated(
    image: Image,
    way: Way,
    *,
    auxiliary: Sequence[Image | None] = (),
    own: Image | None = None,
    contrast: int = 0,
    overlap: float = 0.5,
    batch: int = 0,
    progress: Count | None = None,
) -> list[Image]:
    """The result and the maps beside it, each (C2, *S) on the grid of the image; maps hold differences in its unit.

    auxiliary   an image for each of `way.auxiliary`, laid on the grid of the image; None where there is none; (): none.
    contrast    of a way to labels: which of side a (0) and what lies beside it (1, 2 ...) the image is; where it is not
                side a, that is `own`, or missing.

    Raises UsageError for images that this network cannot see: other channels, slices where it sees volumes; and for
    images beside that cannot be laid on the grid.
    """
    flat = len(way.data.size) == 2
    channels = 1 if way.source.kind == "label" else way.data.channels
    for each in (image, own, *auxiliary):
        if each and each.channels != channels:
            raise UsageError(f"{name(each)} has {each.channels} channels; this model sees {channels}")
    if len(image.size) == 2 and not flat:
        raise UsageError(f"{name(image)} is a slice and this model sees volumes; give the whole series")
    if len(image.size) == 2 and way.data.context:
        raise UsageError(
            f"{name(image)} is one slice and this model sees {way.data.context} slices on each side; give the series"
        )
    given = [own, *(auxiliary or [None] * len(way.auxiliary))]
    given[contrast] = image
    codecs = (way.source, *way.auxiliary)
    seen = [laid(each, codec, image, way) for each, codec in zip(given, codecs, strict=True)]
    results = _Results(image, way, seen[contrast].limits)
    along = _slice_by_slice if flat else _volume
    along(image, way, seen, results, overlap, batch, progress)
    return results.images()


@dataclass(frozen=True)
class Laid:
    """A contrast on the grid of the image, which is one of them: physical values (C, D, H, W) turned like it, or None
    for none."""

    seen: Float32 | None
    codec: Codec
    limits: Limits
    channels: int

    def plane(self, k: int, size: Sequence[int]) -> Float32:
        """Network values (C, *size) of slice k."""
        if self.seen is None:
            return np.full((self.channels, *size), ABSENT, dtype=np.float32)
        return resample(self.codec.scaled(self.seen[:, k], self.limits), size)

    def volume(self, size: Sequence[int]) -> Float32:
        """Network values (C, *size) of the whole."""
        if self.seen is None:
            return np.full((self.channels, *size), ABSENT, dtype=np.float32)
        return resample(self.codec.scaled(self.seen, self.limits), size)


def laid(other: Image | None, codec: Codec, image: Image, way: Way) -> Laid:
    """Another contrast of the image, or the image itself, on its grid."""
    channels = 1 if codec.kind == "label" else way.data.channels
    if other is None:
        return Laid(None, codec, codec.span, channels)
    moved = other if other is image else on_grid(other, image)
    return Laid(turned(moved.data, image, way), codec, codec.limits(moved.data), channels)


class _Results:
    """Where slices of the results go, in physical units: arrays on the image's grid, filled through turned views."""

    def __init__(self, image: Image, way: Way, limits: Limits) -> None:
        self.image, self.way, self.limits = image, way, limits if way.restores else None
        self.beyond = turned(image.data, image, way) if way.restores and not way.target.clip else None
        low, high = image.origin.get("range", (-np.inf, np.inf))  # no MR or radiograph goes below zero
        self.allowed = min(low, float(image.data.min())), max(high, float(image.data.max()))
        codecs = [way.target, *way.maps]
        self.channels = [1 if codec.kind == "label" else way.data.channels for codec in codecs]
        kinds = [
            _whole_numbers(way.target) if way.target.kind == "label" else np.float32,
            *[np.float32] * len(way.maps),
        ]
        self.arrays = [np.empty((n, *image.size), dtype=kind) for n, kind in zip(self.channels, kinds, strict=True)]
        self.views = [turned(array, image, way) for array in self.arrays]
        ranges = [self.limits or codec.span for codec in way.maps]
        self.halves = [np.float32((high - low) / 2) for low, high in ranges]

    def put(self, planes: slice, values: Float32) -> None:
        """Network values (n * C2, d, H, W) of these planes of the turned volume."""
        made, *maps = np.split(values, np.cumsum(self._widths())[:-1])
        self.views[0][:, planes] = self.way.target.decode(made, self.limits)
        if self.beyond is not None and self.limits:
            whole = self.views[0][:, planes] + self.way.target.excess(self.beyond[:, planes], self.limits)
            self.views[0][:, planes] = np.clip(whole, *self.allowed)
        for view, differences, half in zip(self.views[1:], maps, self.halves, strict=True):
            view[:, planes] = differences * half

    def _widths(self) -> list[int]:
        label = self.way.target.kind == "label"
        return [self.way.target.classes if label else self.channels[0], *self.channels[1:]]

    def images(self) -> list[Image]:
        origin = _origin(self.image, self.way)
        if self.way.largest:
            self.arrays[0] = largest_only(self.arrays[0], self.way.largest)
        made = self.image.with_data(self.arrays[0], unit=self.way.target.unit, origin=origin)
        plain = {key: value for key, value in origin.items() if key not in ("range", "window", "step")}
        maps = zip(self.arrays[1:], self.way.maps, strict=True)
        return [made, *(self.image.with_data(array, unit=codec.unit, origin=plain) for array, codec in maps)]


def _whole_numbers(codec: Codec) -> type[np.unsignedinteger[Any]]:
    """The smallest type that holds a codec's label numbers: a float takes four times the memory."""
    return np.uint8 if max(codec.numbers or [codec.classes - 1]) < 256 else np.uint16


def enlarged(image: Image, factor: int) -> Image:
    """The image with its pixels, a volume's in the axial plane, repeated `factor` times along each axis: the grid on
    which a network that adds resolution works. Every new voxel lies within its old one."""
    axes = [1, 2] if len(image.size) == 2 else sorted(turn(image.affine, "LPS")[0][1:])
    data, affine = image.data, image.affine.copy()
    for axis in axes:
        data, column = data.repeat(factor, axis), data.ndim - 1 - axis
        affine[:, column] /= factor
        affine[:, 3] -= affine[:, column] * (factor - 1) / 2
    return image.with_data(data, affine=affine)


def turned(data: Float32, image: Image, way: Way) -> Float32:
    """A view of values (C, *S) of the image as (C, D, H, W), turned as the network saw images in training."""
    if len(image.size) == 2:
        return (upright(data, image.affine) if image.placed else data)[:, None]
    return as_seen(data, image.affine, _order(way))


def _order(way: Way) -> str:
    """Axes as `fabrica.data.standardise` turns them."""
    return "LPS" if len(way.data.size) == 2 else "RAS"


def _slice_by_slice(
    image: Image,
    way: Way,
    contrasts: Sequence[Laid],
    results: _Results,
    overlap: float,
    batch: int,
    progress: Count | None,
) -> None:
    depth, *plane = turned(image.data, image, way).shape[1:]
    size = working_size(plane, turned_spacing(image, way)[1:], way)
    window = [min(n, WIDEST) for n in size] if way.local else way.data.size
    first, *others = contrasts
    for k in range(depth):
        near = [first.plane(n, size) for n in neighbours(k, way.data.context, depth)]
        near += [other.plane(k, size) for other in others]
        made = whole(way.net, np.concatenate(near), window, overlap=overlap, batch=batch)
        results.put(slice(k, k + 1), resample(made, plane)[:, None])
        if progress:
            progress(k + 1, depth)


def _volume(
    image: Image,
    way: Way,
    contrasts: Sequence[Laid],
    results: _Results,
    overlap: float,
    batch: int,
    progress: Count | None,
) -> None:
    source = turned(image.data, image, way).shape[1:]
    size = working_size(source, turned_spacing(image, way), way)
    choices = {"overlap": overlap, "batch": batch, "progress": progress}
    slabs = windowed(way.net, _Encoded(contrasts, source[0], tuple(size)), way.data.size, **choices)  # type: ignore[arg-type]
    for planes, values in _on_source(slabs, size[0], source):
        results.put(planes, values)
        del values  # before the network sees more: of many classes these are large


def _on_source(slabs: Iterable[Float32], depth: int, size: Sequence[int]) -> Iterator[tuple[slice, Float32]]:
    """Slabs (C, d, h, w) of a volume of this depth, a few planes at a time on another grid of `size` (D, H, W), so that
    no more of it stands in memory than these are made of."""
    at_hand, first = np.empty((0, 0, 0, 0), dtype=np.float32), 0  # planes of the volume, and which is the first of them
    done = 0
    for slab in slabs:
        at_hand = np.concatenate([at_hand, slab], axis=1) if at_hand.size else slab
        while done < size[0]:
            planes = slice(done, min(done + PLANES, size[0]))
            needed, weights = planes_of(depth, size[0], planes)
            if needed.stop > first + at_hand.shape[1]:
                break
            part = at_hand[:, needed.start - first : needed.stop - first]
            if depth != size[0]:
                part = np.moveaxis(np.tensordot(part, weights, axes=([1], [1])), -1, 1)
            yield planes, resample(part, (part.shape[1], *size[1:]))
            del part
            done = planes.stop
        following = planes_of(depth, size[0], slice(done, done + 1))[0].start if done < size[0] else depth
        at_hand, first = at_hand[:, following - first :].copy(), following
        del slab


@dataclass(frozen=True)
class _Encoded:
    """Volumes of `depth` planes in network values at another size, one after the other as channels, computed for the
    planes that are asked for."""

    contrasts: Sequence[Laid]
    depth: int
    size: tuple[int, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        each = (one.codec.classes if one.codec.kind == "label" else one.channels for one in self.contrasts)
        return (sum(each), *self.size)

    def __getitem__(self, where: tuple[slice, ...]) -> Float32:
        _, planes = where
        parts = [self._planes(one, planes) for one in self.contrasts]
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def _planes(self, one: Laid, planes: slice) -> Float32:
        needed, weights = planes_of(self.depth, self.size[0], planes)
        if one.seen is None:
            return np.full((one.channels, len(weights), *self.size[1:]), ABSENT, dtype=np.float32)
        values = one.codec.scaled(one.seen[:, needed], one.limits)
        if self.depth != self.size[0]:
            values = np.moveaxis(np.tensordot(values, weights, axes=([1], [1])), -1, 1)
        return resample(values, (values.shape[1], *self.size[1:]))


def working_size(size: Sequence[int], spacing: Sequence[float], way: Way) -> list[int]:
    """The size at which the network sees an array of this size and mm a voxel (empty: not known).

    As in training: with fit "exact" as it is; where mm are known, at training's; else scaled into `data.size`.
    """
    data = way.data
    if data.fit != "exact" and spacing and way.seen.spacing:
        return at_spacing(size, tuple(spacing), way.seen.spacing)
    return list(inner_size(size, data.size, data.fit))


def turned_spacing(image: Image, way: Way) -> tuple[float, ...]:
    """mm a voxel of the turned volume (D, H, W), a slice's own D being 1; () if not known."""
    if not image.measured:
        return ()
    if len(image.size) == 2:
        return (1.0, *faced(image).spacing)
    return tuple(image.spacing[axis - 1] for axis in turn(image.affine, _order(way))[0])


def _origin(image: Image, way: Way) -> dict[str, object]:
    """The source's, with what the target's values are."""
    if way.restores:
        return dict(image.origin)
    kept = {key: value for key, value in image.origin.items() if key not in ("range", "window", "step")}
    if way.target.kind == "label":
        return {**kept, "modality": "SEG", "step": 1.0, "labels": dict(way.labels)}
    low, high = way.target.span
    step = 1.0 if high - low > 256 else (high - low) / 65535
    window = ((low + high) / 2, high - low)
    return {**kept, "modality": way.modality or "OT", "range": (low, high), "window": window, "step": step}


def largest_only(labels: Array, numbers: Sequence[int]) -> Array:
    """A label map (1, *S) in which, of each of these labels, only the largest connected piece is left."""
    for number in numbers:
        whole = labels[0] == number
        if not whole.any():
            continue
        part = find_objects(whole.view(np.uint8))[0]
        pieces, count = label(whole[part])
        if count > 1:
            keep = 1 + int(np.bincount(pieces.ravel())[1:].argmax())
            labels[0][part][whole[part] & (pieces != keep)] = 0
    return labels
