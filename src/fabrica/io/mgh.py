"""MGH: .mgh, and .mgz gzipped, of FreeSurfer (https://surfer.nmr.mgh.harvard.edu/fswiki/FsTutorial/MghFormat).

The format is big-endian throughout. Its header gives the direction of each axis and where the centre lies; where it
says that these are not good, voxels are 1 mm and the volume coronal, as FreeSurfer itself takes it (`MRI_CORONAL`;
nibabel 5.4 shows such a volume upside down and back to front).
"""

from __future__ import annotations

import gzip
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from fabrica.errors import ReadError
from fabrica.image import Float64, Image
from fabrica.io.atomic import atomic
from fabrica.io.budget import DEFAULT_BUDGET, check
from fabrica.io.guard import decoding
from fabrica.io.marks import from_text, place_from, to_text
from fabrica.io.members import Stamp, stamp_of
from fabrica.io.streams import Bytes, opened
from fabrica.io.volumes import Described, as_volume, frames_of, read_volume, usable
from fabrica.io.voxels import Grid, Storage, storage_of, write_voxels

_BEGIN = 284  # bytes before the voxels
_USED = 90  # bytes of them that mean something
_CORONAL = np.array([[-1.0, 0.0, 0.0], [0.0, 0.0, -1.0], [0.0, 1.0, 0.0]])
"""The directions in RAS of the axes: right to left, head to neck, back to front."""
_TYPES = {0: ">u1", 1: ">i4", 3: ">f4", 4: ">i2", 10: ">u2"}
_INTEGERS = ("u1", "i2", "i4")  # what programs have always read, of these
_FOOTER = 20  # bytes after the voxels, before the tags
_COMMAND = 3  # a tag: how the file was made, as text
_NO_LENGTH = (1, 2, 20, 30)  # tags that do not say in the usual way how long they are
_LARGEST_TAIL = 2**24


def is_mgh(head: bytes) -> bool:
    """Whether the first 90 bytes of a file, already gunzipped, are an MGH header's."""
    if len(head) < _USED or head[:4] != b"\0\0\0\1":
        return False
    *sizes, kind, _ = np.frombuffer(head[4:28], ">i4").tolist()
    good = int.from_bytes(head[28:30], "big")
    place = np.frombuffer(head[30:90], ">f4")
    sound = good == 0 or (bool(np.isfinite(place).all()) and bool((place[:3] != 0).all()))
    return min(sizes) > 0 and kind in _TYPES and good in (0, 1) and sound


def read_mgh(path: Path, frame: str = "", budget: int = DEFAULT_BUDGET) -> Image:
    """A .mgh or .mgz -> Image (C, D, H, W), or (C, H, W) where the file has one slice along some axis.

    Frames are volumes, an image each, that `frame` names ("volume=1"), unless Fabrica wrote them as channels.
    What `fabrica.io.volumes.read_volume` says holds. Raises ReadError for damage and more than `budget` bytes.
    """
    with decoding(path, "MGH"):
        return read_volume(_described(path), frame, budget)


def mgh_frames(path: Path, budget: int = DEFAULT_BUDGET) -> list[str]:
    """The volumes of an MGH file: "volume=1" and so on, [""] of one."""
    with decoding(path, "MGH"):
        found = _described(path)
        check(100 * found.grid.volumes, budget, f"a list of {found.grid.volumes:,} volumes", path)
        return frames_of(found)


def write_mgh(image: Image, path: Path, marks: Mapping[str, str]) -> None:
    """Write .mgz, or .mgh plain where the name ends so, whole or not at all.

    Number types are those of NIfTI's writer as far as the format has them, without a scale. `marks` become a tag after
    the voxels, where FreeSurfer keeps how a file was made. Places are float32 on disk, as the format has it.
    """
    storage = storage_of(image, integers=_INTEGERS)
    storage = Storage(storage.dtype.newbyteorder(">"))
    data, affine = as_volume(image)
    text = to_text(marks).encode("ascii", "replace") + b"\0"
    tag = _COMMAND.to_bytes(4, "big") + len(text).to_bytes(8, "big") + text
    with atomic(path) as temporary, temporary.open("wb") as file:
        zipped = file
        if path.suffix.lower() != ".mgh":
            zipped = gzip.GzipFile("", "wb", compresslevel=1, fileobj=file, mtime=0)  # type: ignore[assignment]
        with zipped as stream:
            stream.write(_header(data.shape, affine, storage.dtype))
            for piece in write_voxels(data, storage):
                stream.write(piece)
            stream.write(bytes(_FOOTER) + tag)


def _described(path: Path) -> Described:
    with path.open("rb") as file:
        zipped = file.read(2) == b"\x1f\x8b"
    encoding = "gzip" if zipped else "plain"
    with opened(Bytes(path, 0, encoding)) as stream:
        head = stream.read(_BEGIN)
    if len(head) < _BEGIN or not is_mgh(head):
        raise ReadError(f"{path}: not MGH, or cut short; expected a header of {_BEGIN} bytes")
    *size, count, kind = (int(n) for n in np.frombuffer(head[4:24], ">i4"))
    grid = Grid((count, *size[::-1]), "vdhw", np.dtype(_TYPES[kind]))
    where = Bytes(path, 0, encoding, _BEGIN) if zipped else Bytes(path, _BEGIN)
    where.check(grid.nbytes, grid.numbers)  # before it is run through for what stands after the voxels
    text = _tags(stamp_of(path), where, grid.nbytes)
    if count > 1 and place_from(text).get("channels") == count:
        grid = Grid(grid.shape, "cdhw", grid.dtype)
    notes: list[str] = []
    affine = _affine(head, size, notes)
    return Described(path, "mgh", grid, where, affine, Storage(grid.dtype), text, {}, tuple(notes))


def _affine(head: bytes, size: Sequence[int], notes: list[str]) -> Float64:
    """size: (W, H, D). The header's place is that of index size / 2, beyond the middle of the central voxel."""
    good = int.from_bytes(head[28:30], "big")
    numbers = np.frombuffer(head[30:_USED], ">f4").astype(np.float64)
    spacing, directions, centre = numbers[:3], numbers[3:12].reshape(3, 3), numbers[12:]
    if not good:
        spacing, directions, centre = np.ones(3), _CORONAL, np.zeros(3)
        notes.append("no good place in the header: 1 mm voxels, coronal, by FreeSurfer's convention")
    affine = np.eye(4)
    affine[:3, :3] = directions.T * spacing
    affine[:3, 3] = centre - affine[:3, :3] @ (np.array(size) / 2)
    if not usable(affine):
        notes.append("directions in the header are no usable place: passed over, voxel sizes alone")
        affine = np.diag([*np.abs(spacing), 1.0])
    return affine


@lru_cache(maxsize=64)
def _tags(stamp: Stamp, where: Bytes, begin: int) -> Mapping[str, str]:
    """Our own marks among the tags after the voxels."""
    with opened(where, begin + _FOOTER) as stream:
        tail = stream.read(_LARGEST_TAIL)
    found: dict[str, str] = {}
    position = 0
    while position + 12 <= len(tail):
        tag = int.from_bytes(tail[position : position + 4], "big")
        size = int.from_bytes(tail[position + 4 : position + 12], "big")
        if tag in _NO_LENGTH or tag == 0:
            break
        if tag == _COMMAND:
            text = tail[position + 12 : position + 12 + size].rstrip(b"\0")
            found |= from_text(text.decode("ascii", "replace"))
        position += 12 + size
    return found


def _header(shape: tuple[int, ...], affine: Float64, dtype: np.dtype[Any]) -> bytes:
    """shape (C, D, H, W) as stored; the affine of its axes."""
    size = np.array(shape[:0:-1])
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    spacing[spacing == 0] = 1.0
    kind = next(code for code, name in _TYPES.items() if np.dtype(name) == dtype)
    centre = affine[:3, :3] @ (size / 2) + affine[:3, 3]
    numbers = np.array([1, *size, shape[0], kind, 0], ">i4").tobytes()
    place = np.concatenate([spacing, (affine[:3, :3] / spacing).T.ravel(), centre]).astype(">f4").tobytes()
    return (numbers + b"\0\1" + place).ljust(_BEGIN, b"\0")
