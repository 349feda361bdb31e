"""Which slices of an image the planes of a segmentation are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fabrica.errors import UsageError
from fabrica.geometry import places
from fabrica.image import Float64, Image, name
from fabrica.io.dicom.frames import EMPTY, Frame
from fabrica.io.dicom.geometry import LPS_TO_RAS, affine, stack

OFF = 0.1  # of the distance between slices: how far a plane may be off the slice that it is
SAME = 0.05  # of a pixel: how far from the slice's own pixels those of a plane may lie, as where places were rounded
TURNED = 1e-3  # between unit vectors


@dataclass(frozen=True)
class Laid:
    """How planes lie.

    seats      the slice of the result that each of them is.
    depth      how many slices the grid has, whose slices they are; None of planes that lie by themselves.
    affine, positions  as of `fabrica.image.Image`, of the result.
    """

    seats: tuple[int, ...]
    affine: Float64
    positions: Float64 | None = None
    depth: int | None = None
    notes: tuple[str, ...] = ()


def laid_on(planes: Sequence[Frame], grid: Image | None, path: Path) -> Laid:
    """The places of parallel planes, some of which may be EMPTY: as slices of the grid, where all of them are; else
    their own.

    A plane without a place is taken as the grid's where its pixels are as many. Raises UsageError where it is not, and
    for uneven planes that are no slices of the grid.
    """
    alone = stack([plane.place for plane in planes])
    if grid is None:
        return Laid(tuple(range(len(planes))), alone.affine, alone.positions, None, alone.notes)
    if planes[0].place.position is None:
        if len(grid.size) == 2 and planes[0].size == grid.size:
            return Laid((0,), grid.affine)
        size = " x ".join(map(str, grid.size))
        raise UsageError(
            f"{path}: a mask of {planes[0].size[0]} x {planes[0].size[1]} pixels that does not say where it lies, and "
            f"{name(grid)} is {size}; expected a picture of the same size"
        )
    if (found := _slices(planes, grid)) is not None:
        return found
    if alone.positions is not None:
        raise UsageError(
            f"{path}: its planes are uneven, and are not the slices of {name(grid)}: which of them are left out as "
            "empty cannot be told; give the image that it was drawn on"
        )
    return Laid(tuple(range(len(planes))), alone.affine, None, None, alone.notes)


def _slices(planes: Sequence[Frame], grid: Image) -> Laid | None:
    """The planes as slices of the grid, None where some are none."""
    place = planes[0].place
    normal = LPS_TO_RAS @ place.normal
    across = np.cross(grid.affine[:3, 0], grid.affine[:3, 1])
    if 1 - abs(float(normal @ across)) / np.linalg.norm(across) > TURNED**2:
        return None
    first = places(grid)
    depths = first @ normal
    steps = np.abs(np.diff(depths))
    step = float(steps.min()) if len(steps) else abs(float(grid.affine[:3, 2] @ normal)) or 1.0
    own = np.array([plane.place.position for plane in planes]) @ LPS_TO_RAS
    there = [k for k, plane in enumerate(planes) if plane.number != EMPTY]
    off = np.abs((own @ normal)[:, None] - depths)
    seats = off.argmin(axis=1)
    taken = seats[there]
    if off[there, taken].max() > OFF * step or len(set(taken.tolist())) < len(there):
        return None
    pixels = affine(place)
    away = own[there] - first[taken]
    aside = np.linalg.norm(away - (away @ normal)[:, None] * normal, axis=1).max()
    alike = planes[0].size == grid.size[-2:] and np.allclose(pixels[:3, :2], grid.affine[:3, :2], atol=TURNED, rtol=0)
    if alike and aside < SAME * min(place.spacing):
        return Laid(tuple(map(int, seats)), grid.affine, grid.origin.get("positions"), len(first))
    # other pixels in the plane: the planes that are there, and empty ones in the other slices
    positions = own[there[0]] + (depths - own[there[0]] @ normal)[:, None] * normal
    positions[taken] = own[there]
    if len(positions) > 1:
        pixels[:3, 2] = (positions[-1] - positions[0]) / (len(positions) - 1)
    pixels[:3, 3] = positions[0]
    return Laid(tuple(map(int, seats)), pixels, positions, len(first))
