"""What the volume formats (NIfTI, MetaImage, NRRD, MGH) share: from what a header says to an Image, and back.

A file of several volumes is several images, "volume=1" to "volume=N" in the file's order, and each is read without
the others. A volume of one slice, along whichever axis, is a 2-D image of that plane.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from fabrica.errors import ReadError
from fabrica.image import Float32, Float64, Image
from fabrica.io.budget import check
from fabrica.io.marks import origin_from, place_from
from fabrica.io.streams import Bytes, finish, leave, opened, sound
from fabrica.io.voxels import Grid, Storage, first_byte, make_finite, read_voxels

LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
_PLANES = {2: (0, 1, 2), 1: (0, 2, 1), 0: (1, 2, 0)}
"""Axis (0 is w) of one voxel -> the axes (w, h, d) of the volume that become columns, rows and depth of the picture."""


@dataclass(frozen=True)
class Described:
    """What the header of a volume file says.

    affine  of the axes w, h, d of the grid, to mm in RAS+.
    text    the marks in it, see `fabrica.io.marks`.
    more    keys of Image.origin that are the format's own.
    unit    what the format itself says of the values; "" for nothing.
    """

    path: Path
    format: str
    grid: Grid
    where: Bytes
    affine: Float64
    storage: Storage
    text: Mapping[str, str] = field(default_factory=dict)
    more: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    unit: str = ""

    def __post_init__(self) -> None:
        if min(self.grid.shape) < 1:
            raise ReadError(f"{self.path}: sizes {self.grid.shape[::-1]}; expected each to be at least 1")
        if self.grid.dtype.kind not in "iuf":
            raise ReadError(f"{self.path}: {self.grid.dtype} voxels; expected real numbers, such as their magnitude")


def frames_of(found: Described) -> list[str]:
    """ "volume=1" to "volume=N", or [""] of one. Raises ReadError where the file cannot hold them."""
    if found.grid.volumes == 1:
        return [""]
    found.where.check(found.grid.nbytes, found.grid.numbers)
    return [f"volume={k}" for k in range(1, found.grid.volumes + 1)]


def read_volume(found: Described, frame: str, budget: int) -> Image:
    """The image that `frame` names, (C, D, H, W), or (C, H, W) where it has one slice.

    Values as the file scales them. What they mean is said by the format or by Fabrica's own mark, else "arbitrary".
    No "range" is declared, since the number type says nothing of values. NaN and infinite voxels are set to the lowest
    value and counted in origin["nan"].
    Raises ReadError for more than `budget` bytes, for a file cut short, and for several volumes where none is named.
    """
    grid, where, notes = found.grid, found.where, list(found.notes)
    if grid.volumes > 1:
        where.check(grid.nbytes, grid.numbers)  # a header may promise any number of volumes
    volume = _chosen(found, frame)
    channels, *size = grid.volume
    shape = (*([channels] if channels > 1 else []), *(size if size[0] > 1 else size[1:]))
    check(channels * int(np.prod(size, dtype=object)) * 4, budget, f"{' x '.join(map(str, shape))} voxels", found.path)
    where.check(grid.nbytes, grid.numbers)
    if grid.volumes > 1:
        sound(where, grid.nbytes)
    with opened(where, first_byte(grid, volume)) as stream:
        data = read_voxels(stream, grid, found.storage, volume, notes)
        leave(stream, where) if grid.volumes > 1 else finish(stream, where)
    replaced = make_finite(data, notes)
    data, affine, axis = _as_plane(data, found.affine)
    origin: dict[str, Any] = {"path": str(found.path), "format": found.format, **found.more}
    origin["stored"] = {
        "dtype": grid.dtype.newbyteorder("=").str,
        "slope": found.storage.slope,
        "inter": found.storage.inter,
        **({} if axis is None else {"axis": axis, "flat": "d" not in grid.axes}),
    }
    if grid.dtype.kind in "iu":
        origin["step"] = abs(found.storage.slope)
    if grid.volumes > 1:
        origin["tells"] = frame
    if replaced:
        origin["nan"] = replaced
    if notes:
        origin["notes"] = tuple(notes)
    unit = found.unit or place_from(found.text).get("unit", "arbitrary")
    return Image(data, affine, unit, origin | origin_from(found.text))


def as_volume(image: Image) -> tuple[Float32, Float64]:
    """The voxels (C, D, H, W) and affine to be stored: a picture of a plane gets the axis back that it had in its
    file, else a third one."""
    if len(image.size) == 3:
        return image.data, image.affine
    axis = int(image.origin.get("stored", {}).get("axis", 2))
    affine = image.affine.copy()
    affine[:, list(_PLANES[axis])] = image.affine[:, :3]
    return np.expand_dims(image.data, 3 - axis), affine


def usable(affine: Float64) -> bool:
    """Whether an affine maps voxels to places at all."""
    return bool(np.isfinite(affine).all() and abs(np.linalg.det(affine[:3, :3])) > 0)


def corners(affine: Float64, size: tuple[int, ...]) -> Float64:
    """The places (3, 8) in mm of the outermost voxels of a volume of this size (W, H, D)."""
    index = np.array(np.meshgrid(*[[0, n - 1] for n in size], [1], indexing="ij"), np.float64).reshape(4, -1)
    return np.asarray((affine @ index)[:3], np.float64)


def _chosen(found: Described, frame: str) -> int:
    """The number, from 0, of the volume that a frame names."""
    count = found.grid.volumes
    if count == 1:
        if frame:
            raise ReadError(f"{found.path}: holds one image, found frame {frame!r}; leave the frame out")
        return 0
    name, _, number = frame.partition("=")
    if name == "volume" and number.isdecimal() and 1 <= int(number) <= count:
        return int(number) - 1
    asked = f"no frame {frame!r}" if frame else f"holds {count} volumes, expected one"
    raise ReadError(f"{found.path}: {asked}; name one as the frame, from volume=1 to volume={count}")


def _as_plane(data: Float32, affine: Float64) -> tuple[Float32, Float64, int | None]:
    """A volume (C, D, H, W) of one slice as a picture (C, H, W) whose affine keeps its place: the in-plane axes first;
    and the axis, 0 for w, that had the one voxel. Other volumes as they are, with None."""
    axis = next((axis for axis in (2, 1, 0) if data.shape[3 - axis] == 1), None)
    if axis is None:
        return data, affine, None
    return data.squeeze(3 - axis), affine[:, [*_PLANES[axis], 3]], axis


def in_its_plane(image: Image, affine: Float64) -> bool:
    """Whether a picture came from a file of two dimensions, and still lies where such a file can say that it does."""
    stored = image.origin.get("stored", {})
    flat = len(image.size) == 2 and bool(stored.get("flat"))
    return flat and not affine[2, [0, 1, 3]].any() and np.array_equal(affine[:, 2], [0, 0, affine[2, 2], 0])
