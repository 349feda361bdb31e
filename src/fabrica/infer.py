"""A network over an image larger than what it was trained on: overlapping windows, blended, in flat memory.

A window's prediction is best in its middle: near its border the network has not seen what lies beyond. So windows overlap,
and each voxel is a mean of the windows over it, weighted by a Gaussian around their middles (nnU-Net, Isensee et al. 2021,
Methods). The input may be anything that is sliced like an array (a memory map), and the sums are kept for no more slabs
than the windows in work reach over, so that memory does not grow with the depth of a volume.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from typing import Protocol

import numpy as np

from fabrica.errors import UsageError
from fabrica.image import Float32

Net = Callable[[Float32], Float32]
"""net(windows (B, C, *W)) -> (B, C2, *W), the same window of the result."""
Progress = Callable[[int, int], None]

SIGMA = 1 / 8  # of the Gaussian, in windows (nnU-Net)
FAINTEST = 1e-3  # of the middle's weight: far corners still count where nothing else lies


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
    batch: int = 1,
    fill: float = -1.0,
    progress: Progress | None = None,
) -> Iterator[Float32]:
    """Yield the result slab by slab along the first spatial axis, (C2, d, *S[1:]), together (C2, *S).

    image    (C, *S), read a slab of window[0] at a time; where S is smaller than the window it is padded with `fill` on
             both sides, and the padding is cut off again.
    window   spatial size that the network sees; overlap is the least share, 0 to below 1, of neighbours in common.
    batch    windows a call of `net`.

    A voxel is the same mean whatever the batch. An exact network (identity) gives the image back to rounding.
    Raises UsageError for windows of another dimension and overlaps out of range.
    """
    size = image.shape[1:]
    if len(window) != len(size) or min(window) < 1:
        raise UsageError(f"the window {list(window)} does not fit an image of {len(size)} dimensions {list(size)}")
    if not 0 <= overlap < 1:
        raise UsageError(f"overlap is {overlap}; expected 0 to below 1")
    starts = [_starts(n, w, overlap) for n, w in zip(size, window, strict=True)]
    weight = _bell(tuple(window))
    lanes = list(itertools.product(*starts[1:]))
    total, count = len(starts[0]) * len(lanes), 0
    sums: Float32 = np.empty(0, dtype=np.float32)
    weights: Float32 = np.empty(0, dtype=np.float32)
    for k, start in enumerate(starts[0]):
        slab, origin = _slab(image, start, window, fill)
        for some in _batched(lanes, batch):
            places = [tuple(slice(s - o, s - o + w) for s, o, w in zip(lane, origin, window[1:], strict=True)) for lane in some]
            results = net(np.stack([slab[(slice(None), slice(None), *place)] for place in places]))
            if not sums.size:
                sums = np.zeros((results.shape[1], window[0], *slab.shape[2:]), dtype=np.float32)
                weights = np.zeros((window[0], *slab.shape[2:]), dtype=np.float32)
            for place, result in zip(places, results, strict=True):
                sums[(slice(None), slice(None), *place)] += result * weight
                weights[(slice(None), *place)] += weight
            count += len(some)
            if progress:
                progress(count, total)
        following = starts[0][k + 1] if k + 1 < len(starts[0]) else start + window[0]
        ready = following - start
        inner = _inside(size[1:], origin, start, ready, size[0])
        yield np.ascontiguousarray((sums[:, :ready] / weights[:ready])[(slice(None), *inner)])
        sums, weights = _moved(sums, ready, 1), _moved(weights, ready, 0)


def whole(net: Net, image: Volume, window: Sequence[int], **choices: object) -> Float32:
    """`windowed`, put together: float32 (C2, *S)."""
    return np.concatenate(list(windowed(net, image, window, **choices)), axis=1)  # type: ignore[arg-type]


def _starts(size: int, window: int, overlap: float) -> list[int]:
    """Where windows begin along one axis: evenly spread, the first and last flush with the borders.

    Negative where the window is the larger: half of what is missing is padded before the image."""
    if size <= window:
        return [-((window - size) // 2)]
    stride = max(1, int(window * (1 - overlap)))
    count = -(-(size - window) // stride) + 1
    return [round(k * (size - window) / (count - 1)) for k in range(count)]


def _slab(image: Volume, start: int, window: Sequence[int], fill: float) -> tuple[Float32, list[int]]:
    """What windows at this start see, (C, window[0], *...), padded where the image is smaller; and the index of its first
    voxel along the other axes."""
    size = image.shape[1:]
    first, last = max(start, 0), min(start + window[0], size[0])
    values = np.asarray(image[(slice(None), slice(first, last))], dtype=np.float32)
    before = [first - start, *((w - n) // 2 if n < w else 0 for n, w in zip(size[1:], window[1:], strict=True))]
    whole_ = [window[0], *(max(n, w) for n, w in zip(size[1:], window[1:], strict=True))]
    pads = [(b, w - n - b) for b, w, n in zip(before, whole_, values.shape[1:], strict=True)]
    if any(pad != (0, 0) for pad in pads):
        values = np.pad(values, [(0, 0), *pads], constant_values=np.float32(fill))
    return values, [-b for b in before[1:]]


def _inside(sides: Sequence[int], origin: list[int], start: int, ready: int, depth: int) -> tuple[slice, ...]:
    """The part of a slab of `ready` planes that is image and no padding."""
    along = slice(max(-start, 0), min(ready, depth - start))
    return (along, *(slice(-o, -o + n) for o, n in zip(origin, sides, strict=True)))


def _moved(values: Float32, by: int, axis: int) -> Float32:
    """The planes from `by` on, moved to the front, and zeros behind them; in place."""
    values = np.moveaxis(values, axis, 0)
    rest = len(values) - by
    values[:rest] = values[by:].copy()
    values[rest:] = 0
    return np.moveaxis(values, 0, axis)


def _batched(lanes: list[tuple[int, ...]], size: int) -> Iterator[list[tuple[int, ...]]]:
    for k in range(0, len(lanes), size):
        yield lanes[k : k + size]


@lru_cache(maxsize=4)
def _bell(window: tuple[int, ...]) -> Float32:
    bell = np.ones(())
    for side in window:
        x = (np.arange(side) - (side - 1) / 2) / (SIGMA * side)
        bell = bell[..., None] * np.exp(-0.5 * x**2)
    return np.maximum(bell / bell.max(), FAINTEST).astype(np.float32)
