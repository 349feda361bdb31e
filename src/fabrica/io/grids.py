"""Images brought onto the voxels of another of the same patient, by where both lie in millimetres."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from fabrica.errors import UsageError
from fabrica.geometry import places
from fabrica.image import Float64, Image, name
from fabrica.io.uneven import evenly

SAME = 1e-3  # mm, or voxels: what differs less is the same place
AIR = -1024.0  # HU, where an image does not reach


def on_grid(image: Image, grid: Image, labels: bool = False) -> Image:
    """The image on the voxels of another of the same patient: as it is where they agree, else resampled in mm
    (linear, `labels` to the nearest), which origin["resampled"] tells; beyond its borders it is air, or its lowest
    value, of labels 0.

    Labels go to and from volumes of uneven slices, too, and between slices and volumes.
    Raises UsageError for grids that cannot be compared, and for images that lie apart.
    """
    if _agree(image, grid):
        return _facing(image, grid)
    if labels and image.measured and grid.measured:
        return _nearest(image, grid)
    if "positions" in grid.origin:
        raise UsageError(
            f"{name(grid)} has uneven slices, and its pair {name(image)} lies otherwise: they cannot be brought "
            "together; lay it evenly first, by writing it as NIfTI"
        )
    image = evenly(image)
    both_placed = image.measured and grid.measured
    if image.size == grid.size and not both_placed:
        steps = np.linalg.norm(image.affine[:3, :3], axis=0)  # stored alike, so they must be turned alike
        affine = grid.affine if grid.measured else np.diag([*steps, 1.0])
        return _facing(image.with_data(image.data, affine=affine), grid)
    if not both_placed or len(image.size) != 3 or len(grid.size) != 3:
        raise UsageError(
            f"{name(image)} is {_shape(image)} and its pair {name(grid)} is {_shape(grid)}: without positions in mm "
            "they cannot be brought together; give pairs of the same size, or volumes with their geometry"
        )
    return _linear(image, grid)


def _agree(image: Image, grid: Image) -> bool:
    """Whether voxels of both lie at the same places; how thick a single slice is plays no part."""
    columns = [0, 1, 3] if len(image.size) == 2 else [0, 1, 2, 3]
    if image.size != grid.size or not np.allclose(image.affine[:, columns], grid.affine[:, columns], atol=SAME):
        return False
    uneven = "positions" in image.origin or "positions" in grid.origin
    return not uneven or bool(np.allclose(places(image), places(grid), atol=SAME))


def _linear(image: Image, grid: Image) -> Image:
    from scipy.ndimage import affine_transform

    index = np.linalg.inv(image.affine) @ grid.affine  # voxel of the grid -> voxel of the image, (w, h, d)
    flip = np.eye(4)[[2, 1, 0, 3]]
    matrix = flip @ index @ flip  # in array order
    corners = np.array(np.meshgrid(*[[0, n - 1] for n in grid.size], indexing="ij")).reshape(3, -1)
    reached = matrix[:3, :3] @ corners + matrix[:3, 3:]
    if (reached.max(1) < 0).any() or (reached.min(1) > np.array(image.size) - 1).any():
        raise _apart(image, grid)
    outside = AIR if image.unit == "HU" else float(image.data.min())
    inside = _inside(matrix, image.size, grid.size)
    moved = [affine_transform(c, matrix[:3], output_shape=grid.size, order=1, mode="nearest") for c in image.data]
    values, origin = np.where(inside, np.stack(moved), np.float32(outside)), {**image.origin, "resampled": True}
    return image.with_data(values, affine=grid.affine, origin=origin)


def _nearest(image: Image, grid: Image) -> Image:
    """Each voxel of the grid takes the value of the nearest voxel of the image: in its nearest slice, by the distance
    along the normal, the nearest pixel. Slice by slice, so that nothing but the result needs memory."""
    values = image.data if image.data.ndim == 4 else image.data[:, None]
    height, width = grid.size[-2:]
    found = np.zeros((image.channels, len(places(grid)), height, width), np.float32)
    seats = _Seats(image)
    w, h = np.arange(width, dtype=np.float64)[None], np.arange(height, dtype=np.float64)[:, None]
    touched = False
    for g, start in enumerate(places(grid)):
        (k, y, x), inside = seats.of(start, grid.affine[:3, 0], grid.affine[:3, 1], w, h)
        if inside.any():
            touched = True
            found[:, g] = np.where(inside, values[:, k, y, x], np.float32(0))
    if not touched:
        raise _apart(image, grid)
    uneven = {"positions": grid.origin["positions"]} if "positions" in grid.origin else {}
    origin = {key: value for key, value in image.origin.items() if key != "positions"}
    data = found if len(grid.size) == 3 else found[:, 0]
    return image.with_data(data, affine=grid.affine, origin={**origin, **uneven, "resampled": True})


class _Seats:
    """Which voxels of an image places in mm fall into."""

    def __init__(self, image: Image) -> None:
        self.size = image.size[-2:]
        columns, rows = image.affine[:3, 0], image.affine[:3, 1]
        self.plane = np.linalg.pinv(np.stack([columns, rows], axis=1))  # (2, 3): mm in the plane -> pixels
        normal = np.cross(columns, rows)
        self.normal = normal / np.linalg.norm(normal)
        self.first = places(image)
        depths = self.first @ self.normal
        self.order = np.argsort(depths, kind="stable")
        depths = depths[self.order]
        thick = abs(float(image.affine[:3, 2] @ self.normal)) or 1.0
        steps = np.diff(depths) if len(depths) > 1 else np.array([thick])
        self.between = (depths[1:] + depths[:-1]) / 2
        self.ends = depths[0] - steps[0] / 2, depths[-1] + steps[-1] / 2
        self.slack = SAME * float(steps.min())

    def of(
        self, start: Float64, along_w: Float64, along_h: Float64, w: Float64, h: Float64
    ) -> tuple[tuple[npt.NDArray[np.int64], ...], npt.NDArray[np.bool_]]:
        """(slices, rows, columns) of the voxels at start + w * along_w + h * along_h, and which lie within the image,
        each to be broadcast to (H, W): planes that are parallel have one slice, and those turned alike one column for
        all their rows."""
        depth = _along(self.normal, start, along_w, along_h, w, h)
        low, high = self.ends
        inside = (depth > low - self.slack) & (depth < high + self.slack)
        k = self.order[np.searchsorted(self.between, depth, side="right")]
        seats: list[npt.NDArray[np.int64]] = []
        for row, n in zip(self.plane, self.size[::-1], strict=True):
            at = _along(row, start, along_w, along_h, w, h) - (self.first @ row)[k]
            inside = inside & (at > -0.5 - SAME) & (at < n - 0.5 + SAME)
            # a hair up, so that places half-way between two voxels go one way, whatever their rounding
            seats.append(np.clip(np.floor(at + (0.5 + 1e-6)).astype(np.int64), 0, n - 1))
        return (k, seats[1], seats[0]), inside


def _along(axis: Float64, start: Float64, along_w: Float64, along_h: Float64, w: Float64, h: Float64) -> Float64:
    """axis @ (start + w * along_w + h * along_h), without the axes along which it does not change."""
    found = np.array([[axis @ start]])
    for step, index in ((float(axis @ along_w), w), (float(axis @ along_h), h)):
        if abs(step) * index.size > 1e-9:
            found = found + step * index
    return found


def _facing(image: Image, grid: Image) -> Image:
    """A picture on its grid, turned like that when a network is shown both, whatever formats they are of."""
    if len(image.size) == 3 or image.placed == grid.placed:
        return image
    origin = {**image.origin, "format": grid.origin.get("format", "")}
    return image.with_data(image.data, affine=grid.affine, origin=origin)


def _inside(matrix: Float64, size: Sequence[int], out: Sequence[int]) -> npt.NDArray[np.bool_]:
    """Which voxels of a grid (*out) the matrix maps into an image (*size), whose voxels reach half a voxel around their
    centres."""
    found = np.ones(out, dtype=np.bool_)
    index = np.ogrid[tuple(slice(n) for n in out)]
    for row, n in zip(matrix.astype(np.float32), size, strict=False):
        at = sum((step * place.astype(np.float32) for step, place in zip(row, index, strict=False)), row[3])
        found &= (at > -0.5 - SAME) & (at < n - 0.5 + SAME)
    return found


def _apart(image: Image, grid: Image) -> UsageError:
    return UsageError(f"{name(image)} and its pair {name(grid)} lie apart in the patient; they are no pair")


def _shape(image: Image) -> str:
    return " x ".join(str(n) for n in image.size)
