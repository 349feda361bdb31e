"""The voxels of a NIfTI file into one float32 array, a piece at a time."""

from __future__ import annotations

from typing import Any, BinaryIO

import numpy as np

from fabrica.image import Float32

_EXACT = 2**24  # beyond this float32 skips whole numbers
_PIECE = 2**18  # voxels in hand at a time


def read_voxels(
    stream: BinaryIO, dtype: np.dtype[Any], slope: float, inter: float, data: Float32, notes: list[str]
) -> None:
    """Fill `data` with stored * slope + inter, computed in float64, a piece at a time: never the whole file at once."""
    names = dtype.names or ("",)
    flat = data.reshape(len(names), -1)
    scaled, largest, voxels = (slope, inter) != (1.0, 0.0), 0, flat.shape[1]
    for start in range(0, voxels, _PIECE):
        wanted = min(_PIECE, voxels - start)
        raw = stream.read(wanted * dtype.itemsize)
        if len(raw) < wanted * dtype.itemsize:
            found = start * dtype.itemsize + len(raw)
            raise ValueError(f"{found} bytes of voxels, expected {voxels * dtype.itemsize}: the file is cut short")
        piece = np.frombuffer(raw, dtype)
        for channel, name in enumerate(names):
            stored = piece[name] if name else piece
            with np.errstate(over="ignore", invalid="ignore"):
                values = stored.astype(np.float64) * slope + inter if scaled else stored
                flat[channel, start : start + wanted] = values
            if stored.dtype.kind in "iu" and stored.dtype.itemsize > 2:
                largest = max(largest, abs(int(stored.max())), abs(int(stored.min())))
    if largest > _EXACT:
        notes.append("integers beyond 16,777,216 are rounded by float32")


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
