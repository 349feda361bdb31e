"""The two sides of a translation: which rows of a manifest are a and b, and which belong together.

A side is a domain of the manifest, or "mask" (the label map beside each image), or "image" (every row as it is).
"degraded" is no side of its own: it is side b made worse.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import replace
from pathlib import PurePosixPath

import numpy as np
import numpy.typing as npt
from scipy.ndimage import affine_transform

from fabrica.data.channels import CHANNEL
from fabrica.data.manifest import Manifest, Row
from fabrica.data.tables import stem
from fabrica.errors import UsageError, did_you_mean
from fabrica.image import Float64, Image, name
from fabrica.io.uneven import evenly

SAME = 1e-3  # mm, or voxels: what differs less is the same place
AIR = -1024.0  # HU, where an image does not reach


def side(manifest: Manifest, which: str, source: str) -> list[Row]:
    """The rows of this side, those that have a split; a mask's pair is its own image. Raises UsageError for a side
    without rows."""
    rows = [row for row in manifest.rows if row.split]
    if which == "mask":
        found = [replace(row, path=row.mask, frame="", pair=row.path, modality="SEG") for row in rows if row.mask]
    else:
        found = rows if which == "image" else [row for row in rows if row.domain == which]
        # MR, as the folder is called, for mr
        found = found or [row for row in rows if row.domain.casefold() == which.casefold()]
    if found:
        return found
    domains = sorted({row.domain for row in rows if row.domain})
    there = f"domains {', '.join(domains)}" if domains else "no domains"
    near = did_you_mean(which, domains) if domains and which != "mask" else ""
    raise UsageError(
        f"{source} has no image of {which!r}{near}; it has {there}"
        f"{' and masks' if any(row.mask for row in rows) else ' and no masks'}"
    )


def matched(a: Sequence[Row], b: Sequence[Row]) -> list[tuple[Row, Row]]:
    """Each row of a with its own of b, in the order of a; rows that have none are left out.

    They belong together when one names the other in its `pair` column, else when ids are the same, else when patient
    and file name are (but for the number of a channel, as nnU-Net has it at the end), else when they are the only ones
    of their patient in one folder, or at all.
    """
    by_path, pointing = _unique(b, lambda row: row.path), _unique(b, lambda row: row.pair or None)
    keys: tuple[Callable[[Row], Hashable], ...] = (
        lambda row: row.id,
        lambda row: (row.patient, stem(PurePosixPath(row.path).name), row.frame) if row.patient else None,
        lambda row: (row.patient, CHANNEL.sub("", stem(PurePosixPath(row.path).name))) if row.patient else None,
        lambda row: (row.patient, PurePosixPath(row.path).parent) if row.patient else None,
        lambda row: row.patient or None,
    )
    tables = [(key, _unique(a, key), _unique(b, key)) for key in keys]
    pairs = []
    for row in a:
        other = by_path.get(row.pair) or pointing.get(row.path)
        for key, of_a, of_b in tables:
            if other is None and key(row) in of_a:
                other = of_b.get(key(row))
        if other is not None:
            pairs.append((row, other))
    return pairs


def _unique(rows: Sequence[Row], key: Callable[[Row], Hashable]) -> dict[Hashable, Row]:
    """The rows that alone have their key."""
    found: dict[Hashable, list[Row]] = {}
    for row in rows:
        if key(row) is not None:
            found.setdefault(key(row), []).append(row)
    return {k: rows[0] for k, rows in found.items() if len(rows) == 1}


def on_grid(image: Image, grid: Image, labels: bool = False) -> Image:
    """The image on the voxels of another of the same patient: as it is where they agree, else resampled in mm
    (linear, `labels` to the nearest), which origin["resampled"] tells; beyond its borders it is air, or its lowest
    value.

    Raises UsageError for grids that cannot be compared, and for images that lie apart.
    """
    if image.size == grid.size and np.allclose(image.affine, grid.affine, atol=SAME):
        return _facing(image, grid)
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
    index = np.linalg.inv(image.affine) @ grid.affine  # voxel of the grid -> voxel of the image, (w, h, d)
    flip = np.eye(4)[[2, 1, 0, 3]]
    matrix = flip @ index @ flip  # in array order
    corners = np.array(np.meshgrid(*[[0, n - 1] for n in grid.size], indexing="ij")).reshape(3, -1)
    reached = matrix[:3, :3] @ corners + matrix[:3, 3:]
    if (reached.max(1) < 0).any() or (reached.min(1) > np.array(image.size) - 1).any():
        raise UsageError(f"{name(image)} and its pair {name(grid)} lie apart in the patient; they are no pair")
    outside = AIR if image.unit == "HU" else 0.0 if labels else float(image.data.min())
    order, inside = 0 if labels else 1, _inside(matrix, image.size, grid.size)
    moved = [affine_transform(c, matrix[:3], output_shape=grid.size, order=order, mode="nearest") for c in image.data]
    values, origin = np.where(inside, np.stack(moved), np.float32(outside)), {**image.origin, "resampled": True}
    return image.with_data(values, affine=grid.affine, origin=origin)


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
    places = np.ogrid[tuple(slice(n) for n in out)]
    for row, n in zip(matrix.astype(np.float32), size, strict=False):
        at = sum((step * place.astype(np.float32) for step, place in zip(row, places, strict=False)), row[3])
        found &= (at > -0.5 - SAME) & (at < n - 0.5 + SAME)
    return found


def _shape(image: Image) -> str:
    return " x ".join(str(n) for n in image.size)
