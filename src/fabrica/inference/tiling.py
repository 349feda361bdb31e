"""A network over an image larger than what it was trained on: overlapping windows, blended, in flat memory.

A window's prediction is best in its middle: near its border the network has not seen what lies beyond. So windows
overlap, and each voxel is a mean of the windows over it, weighted by a Gaussian around their middles (nnU-Net, Isensee
et al. 2021, Methods). The input may be anything that is sliced like an array (a memory map), and sums are kept only for
the slab that windows still to come can reach, so that memory does not grow with the depth of a volume.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from typing import Protocol

import numpy as np

from fabrica.errors import UsageError
from fabrica.image import Float32
from fabrica.progress import Count

Net = Callable[[Float32], Float32]
"""net(windows (B, C, *W)) -> (B, C2, *W), the same window of the result."""

SIGMA = 1 / 8  # of the Gaussian, in windows (nnU-Net)
FAINTEST = 1e-3  # of the middle's weight: far corners still count where nothing else lies
AT_ONCE = 2**19  # voxels of windows that a network sees at a time: more take memory and are no faster
PLANES = 4  # that are given at once: of many classes, a whole slab would stand in memory twice


class Volume(Protocol):
    """What is read a window at a time: (C, *S)."""

    @property
    def shape(self) -> tuple[int, ...]: ...
    def __getitem__(self, where: tuple[slice, ...]) -> Float32: ...


def windowed(
    net: Net,
    image: Volume,
    window: Sequence[int],
    *,
    overlap: float = 0.5,
    batch: int = 0,
    fill: float = -1.0,
    progress: Count | None = None,
) -> Iterator[Float32]:
    """Yield the result a few planes at a time along the first spatial axis, (C2, d, *S[1:]), together (C2, *S).

    image    (C, *S), read a slab of window[0] at a time; where S is smaller than the window it is padded with `fill` on
             both sides, and the padding is cut off again.
    window   spatial size that the network sees; overlap is the least share, 0 to below 1, of neighbours in common.
    batch    windows a call of `net`; 0: as many as have AT_ONCE voxels together, at least one.

    A voxel is the same mean whatever the batch. An exact network (identity) gives the image back to rounding.
    Raises UsageError for windows of another dimension and overlaps out of range.
    """
    size = tuple(image.shape[1:])
    if len(window) != len(size) or min(window) < 1:
        raise UsageError(f"the window {list(window)} does not fit an image of {len(size)} dimensions {list(size)}")
    if not 0 <= overlap < 1:
        raise UsageError(f"overlap is {overlap}; expected 0 to below 1")
    padding = [_halves(max(w - n, 0)) for n, w in zip(size, window, strict=True)]
    padded = [n + before + after for n, (before, after) in zip(size, padding, strict=True)]
    firsts, *others = (_starts(n, w, overlap) for n, w in zip(padded, window, strict=True))
    lanes = list(itertools.product(*others))
    blend, batch = _Blend(tuple(window), padded[1:]), batch or max(1, AT_ONCE // math.prod(window))
    done = 0
    for first, following in itertools.pairwise([*firsts, padded[0]]):
        slab = _slab(image, first, window[0], padding, fill)
        for some in _batches(lanes, batch):
            places = [tuple(slice(k, k + w) for k, w in zip(lane, window[1:], strict=True)) for lane in some]
            blend.add(places, net(np.stack([slab[(slice(None), slice(None), *place)] for place in places])))
            done += len(some)
            if progress:
                progress(done, len(firsts) * len(lanes))
        start, stop = max(padding[0][0] - first, 0), min(padding[0][0] + size[0] - first, following - first)
        inner = tuple(slice(before, before + n) for n, (before, _) in zip(size[1:], padding[1:], strict=True))
        for k in range(start, stop, PLANES):
            yield blend.means((slice(k, min(k + PLANES, stop)), *inner))
        blend.forward(following - first)


def whole(net: Net, image: Volume, window: Sequence[int], **choices: object) -> Float32:
    """`windowed`, put together: float32 (C2, *S)."""
    if tuple(image.shape[1:]) == tuple(window):
        everything: Float32 = net(np.asarray(image[(slice(None),)], dtype=np.float32)[None])[0]
        return everything
    return np.concatenate(list(windowed(net, image, window, **choices)), axis=1)  # type: ignore[arg-type]


class _Blend:
    """Weighted sums of windows over one slab, window[0] planes of this size, and of their weights."""

    def __init__(self, window: tuple[int, ...], size: Sequence[int]) -> None:
        self.weight = _bell(window)
        self.weights: Float32 = np.zeros((window[0], *size), dtype=np.float32)
        self.sums: Float32 | None = None  # (C2, *) as soon as a result tells C2

    def add(self, places: Sequence[tuple[slice, ...]], results: Float32) -> None:
        """Windows (B, C2, *W), each at its place of the slab."""
        if self.sums is None:
            self.sums = np.zeros((results.shape[1], *self.weights.shape), dtype=np.float32)
        for place, result in zip(places, results, strict=True):
            here = (slice(None), *place)
            for total, channel in zip(self.sums, result, strict=True):  # all at once would be another copy of them
                total[here] += channel * self.weight
            self.weights[here] += self.weight

    def means(self, part: tuple[slice, ...]) -> Float32:
        """The means (C2, *) of a part of the slab that no later window reaches."""
        assert self.sums is not None  # a slab has at least one window
        means: Float32 = self.sums[(slice(None), *part)] / self.weights[part]
        return means

    def forward(self, planes: int) -> None:
        """What lies behind so many planes moves to the front."""
        assert self.sums is not None
        for kept in (*self.sums, self.weights):
            kept[: len(kept) - planes] = kept[planes:].copy()
            kept[len(kept) - planes :] = 0


def _halves(n: int) -> tuple[int, int]:
    return n // 2, n - n // 2


def _starts(size: int, window: int, overlap: float) -> list[int]:
    """Where windows begin along one axis: evenly spread, the first and the last flush with the borders."""
    stride = max(1, int(window * (1 - overlap)))
    count = -(-(size - window) // stride) + 1
    return [round(k * (size - window) / max(count - 1, 1)) for k in range(count)]


def _slab(image: Volume, first: int, depth: int, padding: list[tuple[int, int]], fill: float) -> Float32:
    """The planes first to first + depth of the padded image, (C, depth, *)."""
    start, stop = first - padding[0][0], first - padding[0][0] + depth
    values = np.asarray(image[(slice(None), slice(max(start, 0), min(stop, image.shape[1])))], dtype=np.float32)
    pads = [(0, 0), (max(-start, 0), max(stop - image.shape[1], 0)), *padding[1:]]
    return np.pad(values, pads, constant_values=np.float32(fill)) if np.any(pads) else values


def _batches(lanes: list[tuple[int, ...]], size: int) -> Iterator[list[tuple[int, ...]]]:
    for k in range(0, len(lanes), size):
        yield lanes[k : k + size]


@lru_cache(maxsize=4)
def _bell(window: tuple[int, ...]) -> Float32:
    bell = np.ones(())
    for side in window:
        x = (np.arange(side) - (side - 1) / 2) / (SIGMA * side)
        bell = bell[..., None] * np.exp(-0.5 * x**2)
    weight: Float32 = np.maximum(bell / bell.max(), FAINTEST).astype(np.float32)
    return weight
