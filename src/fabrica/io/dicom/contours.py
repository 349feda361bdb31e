"""Closed contours as masks of pixels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from fabrica.image import Float64

_ROUNDED = 6  # decimals of a pixel: below this, places that differ by rounding alone are one


def filled(contours: Sequence[Float64], size: tuple[int, int]) -> npt.NDArray[np.bool_]:
    """Which pixels (H, W) have their centre inside an odd number of these polygons: corners (N, 2) as (w, h) in pixels,
    of which the first has its centre at (0, 0). One inside another is a hole, and one that crosses itself has its parts
    counted in the same way (the even-odd rule).

    A centre exactly on an edge belongs where the inside lies towards greater w, or greater h along an edge of constant
    h: of polygons that share an edge, one has its pixels. The last corner is joined to the first.
    """
    found = np.zeros(size, np.bool_)
    rounded = [np.round(np.asarray(corners, np.float64), _ROUNDED) for corners in contours if len(corners)]
    if not rounded:
        return found
    low = np.clip(np.ceil(np.min([at.min(0) for at in rounded], axis=0)), 0, None)
    high = np.clip(np.ceil(np.max([at.max(0) for at in rounded], axis=0)), 0, size[::-1])
    if (high <= low).any():
        return found
    left, top = low.astype(int)
    right, bottom = high.astype(int)
    found[top:bottom, left:right] = _odd([at - low for at in rounded], (bottom - top, right - left))
    return found


def _odd(contours: Sequence[Float64], size: tuple[int, int]) -> npt.NDArray[np.bool_]:
    """The same, of an image that holds all that the contours enclose."""
    height, width = size
    crossings = np.zeros(height * (width + 1), np.int64)  # along each row, before which columns an edge is crossed
    for begin in contours:
        end = np.roll(begin, -1, axis=0)
        upper, lower = np.minimum(begin[:, 1], end[:, 1]), np.maximum(begin[:, 1], end[:, 1])
        # rows h with upper <= h < lower
        first = np.clip(np.ceil(upper), 0, height).astype(np.int64)
        count = np.maximum(np.clip(np.ceil(lower), 0, height).astype(np.int64) - first, 0)
        edge = np.repeat(np.arange(len(begin)), count)
        row = np.arange(len(edge)) - np.repeat(np.cumsum(count) - count, count) + first[edge]
        a, b = begin[edge], end[edge]
        w = a[:, 0] + (row - a[:, 1]) * (b[:, 0] - a[:, 0]) / (b[:, 1] - a[:, 1])
        column = np.clip(np.ceil(np.round(w, _ROUNDED)), 0, width).astype(np.int64)
        crossings += np.bincount(row * (width + 1) + column, minlength=crossings.size)
    return (np.cumsum(crossings.reshape(height, width + 1)[:, :width], axis=1) & 1).astype(np.bool_)
