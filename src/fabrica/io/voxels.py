"""The voxels of a volume file into one float32 array, a piece at a time, and back: whatever its axes and types."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fabrica.image import Array, Float32, Image
from fabrica.io.streams import Stream

_EXACT = 2**24  # beyond this float32 skips whole numbers
_PIECE = 2**18  # voxels in hand at a time
_SPACE = "cdhw"  # the axes of an image


@dataclass(frozen=True)
class Grid:
    """How voxels follow one another in a file.

    shape  of the file's array, the slowest axis first.
    axes   what each of its axes is: "w", "h" and "d" of space, "c" for channels, "v" for volumes, an image each.
           Those of space and channels that are not there have length 1; there may be several of volumes.
    dtype  of a stored number, with its byte order.
    """

    shape: tuple[int, ...]
    axes: str
    dtype: np.dtype[Any]

    @property
    def numbers(self) -> int:
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        return self.numbers * self.dtype.itemsize

    @property
    def volumes(self) -> int:
        return math.prod(n for n, axis in zip(self.shape, self.axes, strict=True) if axis == "v")

    @property
    def volume(self) -> tuple[int, ...]:
        """The size (C, D, H, W) of one volume."""
        sizes = dict(zip(self.axes, self.shape, strict=True))
        return tuple(sizes.get(axis, 1) for axis in _SPACE)

    def whole(self) -> Grid:
        """The same with every axis of an image, and one of volumes before all others."""
        lacking = [axis for axis in _SPACE if axis not in self.axes]
        return Grid((1,) * (len(lacking) + 1) + self.shape, "v" + "".join(lacking) + self.axes, self.dtype)


@dataclass(frozen=True)
class Storage:
    """The number type of a file's voxels: value = stored * slope + inter."""

    dtype: np.dtype[Any]
    slope: float = 1.0
    inter: float = 0.0


def first_byte(grid: Grid, volume: int) -> int:
    """Where the first number of volume k, from 0, is, in bytes after the first of all."""
    whole = grid.whole()
    return _begin(whole, _which(whole, volume)) * grid.dtype.itemsize


def read_voxels(stream: Stream, grid: Grid, storage: Storage, volume: int, notes: list[str]) -> Float32:
    """Volume k (from 0) of the file as (C, D, H, W), from a stream at its `first_byte`.

    Values are stored * slope + inter, computed in float64. What lies between is skipped, never kept.
    Raises ValueError where the stream ends too early.
    """
    data = np.empty(grid.volume, np.float32)
    grid = grid.whole()
    wanted = _which(grid, volume)
    view = data.transpose([_SPACE.index(axis) for axis in grid.axes if axis != "v"])
    start = _block(grid)
    length, itemsize, largest = math.prod(grid.shape[start:]), grid.dtype.itemsize, 0
    inner = tuple(wanted.get(axis, slice(None)) for axis in range(start, len(grid.shape)))
    at = _begin(grid, wanted)
    for place, step in _runs(grid, start, wanted):
        begin = int(np.ravel_multi_index(place, grid.shape[:start])) * length
        stream.skip((begin - at) * itemsize)
        raw = stream.read(step * length * itemsize)
        if len(raw) < step * length * itemsize:
            found, expected = begin * itemsize + len(raw), grid.nbytes
            raise ValueError(f"{found} bytes of voxels, expected {expected}: the file is cut short")
        at = begin + step * length
        piece = np.frombuffer(raw, grid.dtype).reshape(step, *grid.shape[start:])[(slice(None), *inner)]
        target = tuple(n for axis, n in enumerate(place[:-1]) if axis not in wanted)
        run = () if start - 1 in wanted else (slice(place[-1], place[-1] + step),)
        with np.errstate(over="ignore", invalid="ignore"):
            values = _scaled(piece, storage)
            view[(*target, *run)] = values if run else values[0]
        if grid.dtype.kind in "iu" and itemsize > 2:
            largest = max(largest, abs(int(piece.max())), abs(int(piece.min())))
    if largest > _EXACT:
        notes.append("integers beyond 16,777,216 are rounded by float32")
    return data


def write_voxels(data: Float32, storage: Storage, fastest: bool = False) -> Iterator[bytes]:
    """The bytes of an image (C, D, H, W) slice by slice, with channels as the slowest axis of all, or the fastest."""
    planes = data.swapaxes(0, 1) if fastest else data.reshape(-1, *data.shape[2:])
    for plane in planes:
        values: Array = np.moveaxis(plane, 0, -1) if fastest else plane
        if storage.dtype.kind != "f":
            values = np.rint((values.astype(np.float64) - storage.inter) / storage.slope)
        yield values.astype(storage.dtype).tobytes()


def make_finite(data: Float32, notes: list[str]) -> int:
    """Set NaN and infinity to the lowest of the other values, in place; how many there were."""
    flat = data.reshape(-1)
    pieces = [flat[start : start + _PIECE] for start in range(0, flat.size, _PIECE)]
    found = sum(int(piece.size - np.isfinite(piece).sum()) for piece in pieces)
    if not found:
        return 0
    if found == flat.size:
        raise ValueError("not one voxel is a finite number")
    lowest = min(float(piece.min(where=np.isfinite(piece), initial=np.inf)) for piece in pieces)
    for piece in pieces:
        piece[~np.isfinite(piece)] = lowest
    notes.append(f"{found} voxels were NaN, infinite or beyond float32: set to the lowest value")
    return found


def storage_of(image: Image, scaled: bool = False, integers: Sequence[str] = ()) -> Storage:
    """How to store the image: labels as the smallest integers that hold them, unsigned where none is below 0, and never
    rescaled; others as their source was where their values fit, so that they stay within half a stored step; everything
    else as float32.

    scaled    the format has a slope and an intercept.
    integers  number types that it has, the smaller first; (): any of numpy's.
    """
    low, high = float(image.data.min()), float(image.data.max())
    whole = image.unit == "label" and low.is_integer() and low >= -(2**31) and high < 2**31
    if whole and _on_steps(image.data, 1.0, 0.0):
        smallest = np.result_type(np.min_scalar_type(int(high)), np.min_scalar_type(int(low)))
        if dtype := _least(smallest, integers):
            return Storage(dtype)
    source = image.origin.get("stored")
    if source is not None and np.dtype(source["dtype"]).kind in "iu":
        slope, inter = source["slope"], source["inter"]
        dtype = _least(np.dtype(source["dtype"]), integers)
        if dtype is not None and (scaled or (slope, inter) == (1.0, 0.0)):
            ends = sorted(((low - inter) / slope, (high - inter) / slope))
            limits = np.iinfo(dtype)
            fits = limits.min - 0.5 <= ends[0] and ends[1] <= limits.max + 0.5
            # A copy rescaled to [0, 1], say, must not be rounded to the source's whole numbers.
            if fits and (ends[1] - ends[0] >= 255 or _on_steps(image.data, slope, inter)):
                return Storage(dtype, slope, inter)
    return Storage(np.dtype(np.float32))


def _least(dtype: np.dtype[Any], integers: Sequence[str]) -> np.dtype[Any] | None:
    """The first of these types that holds all of this one's numbers; the type itself where any will do."""
    if not integers:
        return dtype
    return next((np.dtype(name) for name in integers if np.can_cast(dtype, np.dtype(name), "safe")), None)


def _on_steps(data: Float32, slope: float, inter: float) -> bool:
    """Whether every value is a stored integer's, to float32's precision."""
    largest = max(abs(float(data.min())), abs(float(data.max())))
    tolerance = 1e-3 + 2.0**-23 * largest / abs(slope)
    for index in np.ndindex(data.shape[: data.ndim - 2]):
        stored = (data[index].astype(np.float64) - inter) / slope
        if np.abs(stored - np.rint(stored)).max(initial=0.0) > tolerance:
            return False
    return True


def _which(grid: Grid, volume: int) -> dict[int, int]:
    """Axis of volumes -> the index of volume k, which counts in the file's own order."""
    axes = [k for k, axis in enumerate(grid.axes) if axis == "v"]
    index = np.unravel_index(volume, [grid.shape[k] for k in axes]) if axes else ()
    return {k: int(n) for k, n in zip(axes, index, strict=True)}


def _block(grid: Grid) -> int:
    """The first of the axes that are read together, in one piece: never the very first of all."""
    start, length = len(grid.shape), 1
    while start > 1 and length * grid.shape[start - 1] <= _PIECE:
        start -= 1
        length *= grid.shape[start]
    return start


def _begin(grid: Grid, wanted: dict[int, int]) -> int:
    """The number of voxels before the first block that holds some of the wanted volume."""
    start = _block(grid)
    place = [wanted.get(axis, 0) for axis in range(start)]
    return int(np.ravel_multi_index(place, grid.shape[:start])) * math.prod(grid.shape[start:])


def _runs(grid: Grid, start: int, wanted: dict[int, int]) -> Iterator[tuple[tuple[int, ...], int]]:
    """The places, along the axes before `start`, of what is read at once, and how many blocks that is."""
    length, last = math.prod(grid.shape[start:]), start - 1
    most = max(1, _PIECE // max(1, length))
    ranges = [[wanted[axis]] if axis in wanted else range(grid.shape[axis]) for axis in range(last)]
    ends = [wanted[last]] if last in wanted else range(0, grid.shape[last], most)
    for place in itertools.product(*ranges, ends):
        step = 1 if last in wanted else min(most, grid.shape[last] - place[-1])
        yield place, step


def _scaled(stored: Array, storage: Storage) -> Array:
    if (storage.slope, storage.inter) == (1.0, 0.0):
        return stored
    return stored.astype(np.float64) * storage.slope + storage.inter
