"""What the network of a translator, a restorer or a segmenter sees at once of an image, and the way back from there
onto the image's own voxels: for what asks the network itself rather than for a result."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fabrica.codec import Limits
from fabrica.data.resolution import scale
from fabrica.data.standardise import neighbours
from fabrica.errors import UsageError
from fabrica.geometry import resample
from fabrica.image import Bools, Float32, Float64, Image, name
from fabrica.inference.translation import Way, enlarged, laid, turned, turned_spacing, working_size
from fabrica.io.grids import on_grid

MOST = 512  # pixels a side that are looked at of slices that go through a network whole


@dataclass(frozen=True, eq=False)
class Seen:
    """One window of an image.

    image    that all maps lie on, of a model that adds resolution on its finer grid.
    values   (C, *W), what the network sees: of volumes a window of them, of slices one slice with its neighbours.
    inside   bool (*W): what lies in the image, and is not padding; region: where the answer is asked about.
    limits   of the image's values, which are -1 and 1 in `values`.
    size     of the whole image, or slice, as the network has it; corner: where the window begins in it.
    plane    of slices: which one of the turned volume.
    """

    image: Image
    way: Way
    values: Float32
    inside: Bools
    region: Bools
    limits: Limits
    size: tuple[int, ...]
    corner: tuple[int, ...]
    plane: int | None

    def on_image(self, found: Float32 | Float64 | Bools) -> Image:
        """A map (*W) of the window on the voxels of the image, 0 where the window does not reach."""
        whole = np.zeros(self.size, dtype=np.float32)
        here = tuple(slice(max(k, 0), k + n) for k, n in zip(self.corner, found.shape, strict=True))
        inner = tuple(slice(max(-k, 0), max(-k, 0) + whole[here].shape[axis]) for axis, k in enumerate(self.corner))
        whole[here] = found[inner]
        out = np.zeros((1, *self.image.size), dtype=np.float32)
        view = turned(out, self.image, self.way)
        if self.plane is None:
            view[0] = resample(whole[None], view.shape[1:])[0]
        else:
            view[0, self.plane] = resample(whole[None], view.shape[2:])[0]
        kept = {key: value for key, value in self.image.origin.items() if key not in ("range", "window", "step")}
        return Image(out, self.image.affine, "arbitrary", kept)


def seen(image: Image, way: Way, *, at: Sequence[int] = (), region: Image | None = None, radius: int = 0) -> Seen:
    """What the network sees of an image around what is asked about: around `at`, or the middle of `region`, or the
    middle of the image.

    at       a voxel (x, y) or (x, y, z): column, row and slice of the array, from 0; what is asked about is then what
             lies within `radius` voxels of it, along each axis.
    region   an image on any grid, above 0 where it is asked about. Neither: everywhere.

    Raises UsageError for images that the network cannot see, and for places outside of them.
    """
    _check(image, way)
    given = image
    if (finer := scale(way.data.degrade)) > 1 and not image.origin.get("degraded"):
        image = enlarged(image, finer)
    marked = _marked(image, given, at, region, radius)
    where = turned(marked, image, way)[0]  # (D, H, W)
    own = laid(image, way.source, image, way)
    others = [laid(None, codec, image, way) for codec in way.auxiliary]
    spacing, depth = turned_spacing(image, way), where.shape[0]
    asked = np.argwhere(where > 0)
    middle = [(int(low) + int(high)) // 2 for low, high in zip(asked.min(0), asked.max(0), strict=True)]
    flat = len(way.data.size) == 2
    size = working_size(where.shape[1:] if flat else where.shape, spacing[1:] if flat else spacing, way)
    if flat:
        k: int | None = middle[0]
        planes = [own.plane(n, size) for n in neighbours(middle[0], way.data.context, depth)]
        whole = np.concatenate([*planes, *(other.plane(middle[0], size) for other in others)])
        shown = where[middle[0]][None]
        window = [min(n, MOST) for n in size] if way.local else way.data.size
    else:
        k = None
        whole = np.concatenate([each.volume(size) for each in (own, *others)])
        shown, window = where[None], way.data.size
    inner = resample((shown > 0).astype(np.float32), size)[0] > 0
    centre = np.argwhere(inner).mean(0) if inner.any() else np.array(size) / 2
    corner = [_begin(n, w, float(c)) for n, w, c in zip(size, window, centre, strict=True)]
    there = np.ones((1, *size), dtype=np.float32)
    return Seen(
        image,
        way,
        _cut(whole, corner, window, -1.0),
        _cut(there, corner, window, 0.0)[0] > 0,
        _cut(inner[None].astype(np.float32), corner, window, 0.0)[0] > 0,
        own.limits,
        tuple(size),
        tuple(corner),
        k,
    )


def _check(image: Image, way: Way) -> None:
    if way.source.kind == "label":
        raise UsageError(f"model {way.model} sees label maps, of which no part can be left out; explain takes images")
    if image.channels != way.data.channels:
        raise UsageError(f"{name(image)} has {image.channels} channels; this model sees {way.data.channels}")
    if len(image.size) == 2 and len(way.data.size) == 3:
        raise UsageError(f"{name(image)} is a slice and this model sees volumes; give the whole series")


def _marked(image: Image, given: Image, at: Sequence[int], region: Image | None, radius: int) -> Float32:
    """(1, *S) of the image, above 0 where it is asked about."""
    if at and region is not None:
        raise UsageError("a place (--at) and a region (--region) both say what to look at; leave one out")
    if region is not None:
        moved = region if region.size == given.size else on_grid(region, given, labels=True)
        marked = (moved.data[:1] > 0).astype(np.float32)
        for axis, (n, m) in enumerate(zip(image.size, given.size, strict=True), start=1):
            marked = marked.repeat(n // m, axis)
        if not marked.any():
            raise UsageError("the region is 0 everywhere on the image; mark by values above 0 what to look at")
        return marked
    if not at:
        return np.ones((1, *image.size), dtype=np.float32)
    size = given.size[::-1]
    if len(at) != len(size) or not all(0 <= k < n for k, n in zip(at, size, strict=True)):
        last = ",".join(str(n - 1) for n in size)
        letters = "x,y,z"[: 2 * len(size) - 1]
        raise UsageError(f"no voxel {','.join(map(str, at))} in {name(given)}; expected {letters} from 0 to {last}")
    marked = np.zeros((1, *image.size), dtype=np.float32)
    finer = [n // m for n, m in zip(image.size, given.size, strict=True)]
    around = [slice(max(0, (k - radius) * f), (k + radius + 1) * f) for k, f in zip(at[::-1], finer, strict=True)]
    marked[(slice(None), *around)] = 1
    return marked


def _begin(size: int, window: int, centre: float) -> int:
    """Where a window begins along an axis: around the centre, but within the image; below 0 where it is padded."""
    if size <= window:
        return -((window - size) // 2)
    return min(max(round(centre + 0.5 - window / 2), 0), size - window)


def _cut(values: Float32, corner: Sequence[int], window: Sequence[int], fill: float) -> Float32:
    out = np.full((len(values), *window), fill, dtype=np.float32)
    of = tuple(slice(max(k, 0), k + w) for k, w in zip(corner, window, strict=True))
    part = values[(slice(None), *of)]
    to = tuple(slice(max(-k, 0), max(-k, 0) + n) for k, n in zip(corner, part.shape[1:], strict=True))
    out[(slice(None), *to)] = part
    return out
