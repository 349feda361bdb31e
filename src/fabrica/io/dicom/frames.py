"""The planes that a DICOM file holds, each with its place: frames, and the tiles of montages.

Siemens' mosaics and UIH's VFRAME files put all slices of a volume side by side into one frame.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from fabrica.errors import ReadError
from fabrica.image import Array, Float64
from fabrica.io.dicom.geometry import Place, numbers, place_of
from fabrica.io.dicom.header import Header

GUESSED = "the mosaic does not say how many slices it holds: empty tiles at its end are not counted"
DIMENSION = "Dimension"  # before the number of a dimension that is counted by DimensionIndexValues, from 1
EMPTY = -1  # number of a plane that is not in its file, since all of it is zero
MOST_FRAMES = 100_000  # of one file: more is an attack on memory
_SPATIAL = {"00200032", "00209056", "00209057", "00201041"}  # dimensions that count places, not volumes
_SLICE_VECTOR = "00540080"  # FrameIncrementPointer of tomographic slices in nuclear medicine
VECTORS = {
    "EnergyWindowVector": "energy",
    "DetectorVector": "detector",
    "PhaseVector": "phase",
    "RotationVector": "rotation",
    "RRIntervalVector": "interval",
    "TimeSlotVector": "slot",
    "TimeSliceVector": "time",
    "AngularViewVector": "view",
}
"""What frames of nuclear medicine are counted by beside their slices (PS3.3 C.8.4.8): a value for each frame."""


@dataclass(frozen=True, slots=True)
class Tile:
    """The part of a frame that is one slice: pixel rows and columns from `row` and `column` on."""

    row: int
    column: int
    rows: int
    columns: int

    def of(self, frame: Array) -> Array:
        """This part of a frame (H, W, ...)."""
        return frame[self.row : self.row + self.rows, self.column : self.column + self.columns]


@dataclass(frozen=True, slots=True)
class Frame:
    """One plane: frame `number` (from 0, or EMPTY) of a file, or a tile of it.

    size    (rows, columns) of the plane.
    place   where it lies.
    values  what the headers say of it in text; see `fabrica.io.dicom.header`.
    notes   what had to be assumed of its place.
    """

    path: Path
    number: int
    tile: Tile | None
    size: tuple[int, int]
    place: Place
    values: Mapping[str, str]
    notes: tuple[str, ...] = ()

    def text(self, *keywords: str) -> str:
        """The text of the first of these keywords that is there, else ""."""
        for keyword in keywords:
            if found := self.values.get(keyword):
                return found
        return ""


def frames_of(header: Header) -> list[Frame]:
    """The planes of one file, in its order; [] of a file without pixels. Raises ReadError for a montage whose layout is
    not known."""
    if not header.frames:
        return []
    size = _count(header, "Rows"), _count(header, "Columns")
    if is_montage(header):
        if header.frames > 1:
            raise ReadError(f"{header.path}: a montage in {header.frames} frames, whose layout is not known")
        return _tiles(header, size)
    if header.of_frames and len(header.of_frames) < header.frames:
        raise ReadError(
            f"{header.path}: {header.frames} frames, and functional groups for only {len(header.of_frames)} of them; "
            "the file contradicts itself"
        )
    if header.frames > min(MOST_FRAMES, header.size):
        raise ReadError(
            f"{header.path}: declares {header.frames:,} frames in {header.size:,} bytes; damaged or not sound"
        )
    offsets = _offsets(header)
    vectors = {keyword: header.get(keyword).split("\\") for keyword in VECTORS if header.get(keyword)}
    vectors = {keyword: indices for keyword, indices in vectors.items() if len(indices) == header.frames > 1}
    found = []
    for number in range(header.frames):
        notes: list[str] = []
        values = header.frame(number)
        if vectors:
            values = {**values, **{keyword: indices[number] for keyword, indices in vectors.items()}}
        place = place_of(values, notes)
        if header.frames > 1 and not header.of_frames:
            # of frames without functional groups the one position in the header says where the first lies
            at = None if offsets is None or place.position is None else place.position + place.normal * offsets[number]
            place = replace(place, position=at)
        found.append(Frame(header.path, number, None, size, place, _dimensions(header, values), tuple(notes)))
    return found


def _dimensions(header: Header, values: Mapping[str, str]) -> Mapping[str, str]:
    """The values with each index of DimensionIndexValues that does not count places under a name of its own."""
    indices = values.get("DimensionIndexValues", "")
    if not indices:
        return values
    known = header.dimensions
    named = {
        f"{DIMENSION}{k}": index
        for k, index in enumerate(indices.split("\\"), start=1)
        if k > len(known) or known[k - 1] not in _SPATIAL
    }
    return {**values, **named}


def is_montage(header: Header) -> bool:
    """Whether the slices of a volume stand side by side in one frame. An enhanced object whose mosaics the scanner has
    taken apart (Siemens XA) keeps the word all the same."""
    if header.of_frames and not (_count(header, "SiemensMosaicImages") > 1 or header.csa):
        return False
    words = header.get("ImageType").upper().split("\\")
    return "MOSAIC" in words or "VFRAME" in words or _count(header, "SiemensMosaicImages") > 1


def _offsets(header: Header) -> Float64 | None:
    """mm along the normal from the position in the header, of frames that are slices but have no functional groups."""
    grid = numbers(header.get("GridFrameOffsetVector"))  # PS3.3 C.8.8.3.2; its first value may be a position, not 0
    if grid is not None and len(grid) == header.frames:
        return np.asarray(grid - grid[0], dtype=np.float64)
    if _SLICE_VECTOR not in header.get("FrameIncrementPointer").upper().split("\\"):
        return None
    slices = numbers(header.get("SliceVector"), header.frames)
    if slices is None:
        if header.get("FrameIncrementPointer").upper() != _SLICE_VECTOR:
            return None
        slices = np.arange(1.0, header.frames + 1)
    step = numbers(header.get("SpacingBetweenSlices"), 1)  # negative against the normal (PS3.3 C.8.4.15)
    if step is None or not step[0]:
        step = numbers(header.get("SliceThickness"), 1)
    return None if step is None or not step[0] else (slices - 1) * float(step[0])


def _tiles(header: Header, size: tuple[int, int]) -> list[Frame]:
    notes: list[str] = []
    count = _tile_count(header, size, notes)
    across = math.ceil(math.sqrt(count)) if count else 0
    down = math.ceil(count / across) if count and "VFRAME" in header.get("ImageType").upper() else across
    matrix = _matrix(header)
    smaller = bool(count and matrix) and size[0] // down * (size[1] // across) < matrix[0] * matrix[1]
    if not count or size[0] % down or size[1] % across or smaller:
        raise ReadError(
            f"{header.path}: a montage of {size[0]} x {size[1]} pixels "
            + (f"that {count} slices do not divide evenly" if count else "that does not say of how many slices")
            + "; its layout is not known, export the slices one by one (enhanced, or not as a mosaic)"
        )
    rows, columns = size[0] // down, size[1] // across
    places = _uih_places(header, count, notes) or _siemens_places(header, size, (rows, columns), count, notes)
    found = []
    for k, place in enumerate(places):
        tile = Tile(k // across * rows, k % across * columns, rows, columns)
        values = {**header.values, **header.tiles[k]} if header.tiles else header.values
        found.append(Frame(header.path, 0, tile, (rows, columns), place, values, tuple(notes)))
    return found


def _tile_count(header: Header, size: tuple[int, int], notes: list[str]) -> int:
    """How many slices a montage holds; 0 where it does not say."""
    if header.tiles:
        return len(header.tiles)
    count = (
        _count(header, "SiemensMosaicImages") or _count(header, "UIHImages") or _csa(header, "NumberOfImagesInMosaic")
    )
    if count:
        return int(count)
    matrix = _matrix(header)
    if matrix:  # the size of one tile: the montage is square, and may end in empty tiles
        down, across = size[0] // matrix[0], size[1] // matrix[1]
        if down == across and size == (down * matrix[0], across * matrix[1]):
            notes.append(GUESSED)
            return down * across
    return 0


def _matrix(header: Header) -> list[int]:
    """The acquired rows and columns of one tile, as Siemens writes them: "64p*64"; [] where they do not stand."""
    found = [int(n) for n in "".join(c if c.isdigit() else " " for c in header.get("SiemensMatrix")).split()[:2]]
    return found if len(found) == 2 and min(found) > 0 else []


def _siemens_places(
    header: Header, size: tuple[int, int], tile: tuple[int, int], count: int, notes: list[str]
) -> list[Place]:
    """Where the tiles lie. ImagePositionPatient is the corner that the whole montage would have if it were one slice
    with the volume's centre: the first slice's own lies half of what the montage is larger further in. Slices follow
    one another along SliceNormalVector, which may point against the normal of row and column."""
    whole = place_of(header.values, notes)
    step = _step(header)
    if whole.position is None or step is None:
        raise ReadError(f"{header.path}: a mosaic without position or slice distance; its slices cannot be placed")
    normal = whole.normal
    given = _csa_items(header, "SliceNormalVector")
    if len(given) == 3 and abs(float(np.dot(given, normal))) > 0.9:
        normal = normal * math.copysign(1.0, float(np.dot(given, normal)))
    else:
        notes.append("the mosaic does not say in which direction its slices follow: along row x column assumed")
    first = (
        whole.position
        + whole.along_w * whole.spacing[1] * (size[1] - tile[1]) / 2
        + whole.along_h * whole.spacing[0] * (size[0] - tile[0]) / 2
    )
    return [replace(whole, position=first + k * step * normal, thickness=step) for k in range(count)]


def _uih_places(header: Header, count: int, notes: list[str]) -> list[Place]:
    if not header.tiles:
        return []
    places = [place_of({**header.values, **tile}, notes) for tile in header.tiles]
    if any(place.position is None for place in places):
        raise ReadError(f"{header.path}: a montage whose slices have no positions; they cannot be placed")
    return places


def _step(header: Header) -> float | None:
    found = numbers(header.get("SpacingBetweenSlices"), 1)
    if found is None or not found[0]:
        found = numbers(header.get("SliceThickness"), 1)
    return None if found is None or not found[0] else float(abs(found[0]))


def _csa(header: Header, name: str) -> int:
    items = _csa_items(header, name)
    return int(items[0]) if items else 0


def _csa_items(header: Header, name: str) -> list[Any]:
    """The values of one tag of Siemens' own header; [] where it cannot be read."""
    tag = _csa_tags(header.csa).get(name) if header.csa else None
    return list(tag["items"]) if tag else []


@lru_cache(maxsize=4)
def _csa_tags(csa: bytes) -> dict[str, Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from nibabel.nicom import csareader
    try:
        return dict(csareader.read(csa)["tags"])
    except Exception:  # a private format, read by reverse engineering: whatever it holds is no reason to stop
        return {}


def _count(header: Header, keyword: str) -> int:
    found = numbers(header.get(keyword), 1)
    return 0 if found is None else int(found[0])
