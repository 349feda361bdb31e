"""NRRD: .nrrd, and .nhdr with its voxels in a file of its own (https://teem.sourceforge.net/nrrd/format.html).

Label maps have the names of their labels as 3D Slicer writes them (.seg.nrrd): Segment0_Name and so on.
"""

from __future__ import annotations

import gzip
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from fabrica.errors import ReadError
from fabrica.image import Float32, Float64, Image
from fabrica.io.atomic import atomic
from fabrica.io.budget import DEFAULT_BUDGET, check
from fabrica.io.guard import decoding
from fabrica.io.streams import Bytes, beside
from fabrica.io.volumes import LPS_TO_RAS, Described, as_volume, frames_of, in_its_plane, read_volume, usable
from fabrica.io.voxels import Grid, Storage, storage_of, write_voxels

_LARGEST_HEADER = 2**20
_MAGIC = re.compile(rb"NRRD000[1-6]\r?\n")
_C_TYPES = {"char": "1", "short": "2", "int": "4", "longlong": "8"}
_TYPES = {  # the names of C, with and without spaces, and those of stdint.h
    **{f"{sign}{name}": f"{kind}{size}" for name, size in _C_TYPES.items()
       for sign, kind in (("", "i"), ("signed", "i"), ("unsigned", "u"), ("u", "u"))},
    **{f"{sign}{name}int": f"{kind}{size}" for name, size in _C_TYPES.items() if name in ("short", "longlong")
       for sign, kind in (("", "i"), ("signed", "i"), ("unsigned", "u"))},
    **{f"{sign}int{8 * size}{end}": f"{kind}{size}" for size in (1, 2, 4, 8)
       for sign, kind in (("", "i"), ("u", "u")) for end in ("", "_t")},
    "float": "f4",
    "double": "f8",
}  # fmt: skip
_WRITTEN = {np.dtype(code): code for code in ("i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8")}
_ENCODINGS = {"raw": "plain", "gz": "gzip", "gzip": "gzip", "bz2": "bzip2", "bzip2": "bzip2", "txt": "text",
              "text": "text", "ascii": "text"}  # fmt: skip
_SPACES = {"right-anterior-superior": "ras", "left-anterior-superior": "las", "left-posterior-superior": "lps"}
_TO_RAS = {"ras": np.eye(4), "las": np.diag([-1.0, 1.0, 1.0, 1.0]), "lps": LPS_TO_RAS}
_TO_MM = {"um": 0.001, "µm": 0.001, "micron": 0.001, "microns": 0.001, "cm": 10.0, "m": 1000.0}
_SPATIAL = ("domain", "space")
_COMPONENTS = re.compile(
    r"vector|covariant-vector|normal|point|scalar|stub|\d-(vector|color|gradient|normal)|[A-Za-z]+-color|quaternion|"
    r"[23]D-.*matrix", re.IGNORECASE)  # fmt: skip
_SEGMENT = re.compile(r"Segment\d+_Name")
_ALIASES = {"datafile": "data file", "lineskip": "line skip", "byteskip": "byte skip", "centerings": "centers"}


def is_nrrd(head: bytes) -> bool:
    return bool(_MAGIC.match(head))


def read_nrrd(path: Path, frame: str = "", budget: int = DEFAULT_BUDGET) -> Image:
    """A .nrrd or .nhdr -> Image (C, D, H, W), or (C, H, W) of one slice or two dimensions.

    Axes of a vector or colour kind are channels, wherever they stand; those of a list, of time or without a direction
    in space are volumes, an image each, that `frame` names. What `fabrica.io.volumes.read_volume` says holds. Segments
    of 3D Slicer make a label map with names; of those that overlap each layer is a volume.
    Raises ReadError for damage, for voxels outside the header's folder or in several files, for complex ones, and for
    more than `budget` bytes.
    """
    with decoding(path, "NRRD"):
        found = _described(path)
        image = read_volume(found, frame, budget)
        layer = int(frame.rpartition("=")[2]) - 1 if found.grid.volumes > 1 else 0
        labels = _segments(found.text, layer)
        return image.with_data(image.data, origin={**image.origin, "labels": labels}) if labels else image


def nrrd_labels(path: Path) -> dict[int, str]:
    """What the header says that labels are called."""
    with decoding(path, "NRRD"), path.open("rb") as file:
        _, pairs, _ = _fields(file, path)
        return _segments(pairs)


def nrrd_frames(path: Path, budget: int = DEFAULT_BUDGET) -> list[str]:
    """The volumes of a NRRD by its header: "volume=1" and so on, [""] of one."""
    with decoding(path, "NRRD"):
        found = _described(path)
        check(100 * found.grid.volumes, budget, f"a list of {found.grid.volumes:,} volumes", path)
        return frames_of(found)


def nrrd_voxels(path: Path) -> Path:
    """The file that holds the voxels: this one, or the one that its header names."""
    with decoding(path, "NRRD"):
        return _described(path).where.path


def write_nrrd(image: Image, path: Path, marks: Mapping[str, str]) -> list[Path]:
    """Write .nrrd, or .nhdr with a .raw.gz beside it, gzipped, each whole or not at all; the files written.

    Number types are those of NIfTI's writer, without a scale, which the format lacks. Channels are the fastest axis,
    as ITK and Slicer have it; `marks` are key/value pairs.
    """
    storage = storage_of(image)
    data, affine = as_volume(image)
    if path.suffix.lower() != ".nhdr":
        with atomic(path) as temporary, temporary.open("wb") as file:
            file.write(_header(image, data, affine, storage, marks) + b"\n")
            _pack(file, data, storage)
        return [path]
    packed = path.with_suffix(".raw.gz")
    with atomic(packed) as temporary, temporary.open("wb") as file:
        _pack(file, data, storage)
    with atomic(path) as temporary:
        temporary.write_bytes(_header(image, data, affine, storage, marks) + f"data file: {packed.name}\n".encode())
    return [path, packed]


@dataclass(frozen=True)
class _Axes:
    """What the axes of the file are, the fastest first.

    letters     "w", "h", "d" of space, "c" channels, "v" volumes.
    directions  mm along each of the axes of space, in the file's own space: (3,) each.
    """

    letters: str
    directions: list[Float64]


def _described(path: Path) -> Described:
    with path.open("rb") as file:
        fields, pairs, begin = _fields(file, path)
    notes: list[str] = []
    sizes = [int(n) for n in _field(fields, "sizes", path).split()]
    if len(sizes) != int(_field(fields, "dimension", path)) or len(sizes) < 2:
        raise ReadError(f"{path}: dimension: {fields['dimension']} and sizes: {fields['sizes']}; expected two or more")
    dtype = _dtype(fields, path)
    axes = _axes(fields, len(sizes), path, notes)
    shape = tuple(sizes[::-1])
    grid = Grid(shape, axes.letters[::-1], dtype)
    if min(sizes) < 1:
        raise ReadError(f"{path}: sizes: {fields['sizes']}; expected each to be at least 1")
    where = _where(fields, path, begin, grid)
    affine = _affine(fields, axes, notes)
    unit = "label" if any(_SEGMENT.fullmatch(key) for key in pairs) else ""
    return Described(path, "nrrd", grid, where, affine, Storage(dtype), pairs, {}, tuple(dict.fromkeys(notes)), unit)


def _segments(pairs: Mapping[str, str], layer: int = 0) -> dict[int, str]:
    """Label -> name of the segments of 3D Slicer in one of their layers."""
    found = {}
    for key in pairs:
        number = _SEGMENT.fullmatch(key)
        value = pairs.get(f"{key.removesuffix('Name')}LabelValue", "")
        of = pairs.get(f"{key.removesuffix('Name')}Layer", "0")
        if number and value.isdecimal() and int(value) and of == str(layer):
            found[int(value)] = pairs[key]
    return dict(sorted(found.items()))


def _named(image: Image) -> list[str]:
    """Label -> name as 3D Slicer reads it from a .seg.nrrd."""
    lines = []
    for k, (value, name) in enumerate(image.origin.get("labels", {}).items() if image.unit == "label" else ()):
        said = {"ID": f"Segment_{value}", "Name": name, "LabelValue": str(value), "Layer": "0"}
        lines += [f"Segment{k}_{key}:={_escaped(text)}" for key, text in said.items()]
    return lines


def _escaped(text: str) -> str:
    """A value after ":=", on its one line."""
    return text.replace("\\", "\\\\").replace("\n", "\\n")


def _fields(file: BinaryIO, path: Path) -> tuple[dict[str, str], dict[str, str], int]:
    """The fields "name: value" and pairs "key:=value" up to the first empty line, and how many bytes they are."""
    fields: dict[str, str] = {}
    pairs: dict[str, str] = {}
    file.readline(16)
    while (line := file.readline(_LARGEST_HEADER)) and line.strip():
        if file.tell() > _LARGEST_HEADER:
            raise ReadError(f"{path}: a NRRD header without an end; expected an empty line before the voxels")
        text = line.decode("utf-8", "replace").strip()
        key, sign, value = text.partition(":=")
        if text.startswith("#"):
            continue
        if sign and ": " not in key:
            pairs[key] = re.sub(r"\\(.)", lambda found: "\n" if found[1] == "n" else found[1], value)
            continue
        name, _, value = text.partition(":")
        name = name.strip().lower()
        fields[_ALIASES.get(name, name)] = value.strip()
    if not line and "data file" not in fields:
        raise ReadError(f"{path}: a NRRD header without voxels after it: the file is cut short or damaged")
    return fields, pairs, file.tell()


def _field(fields: Mapping[str, str], name: str, path: Path) -> str:
    if name not in fields:
        raise ReadError(f"{path}: a NRRD header without {name}: damaged; fetch or export it again")
    return fields[name]


def _dtype(fields: Mapping[str, str], path: Path) -> np.dtype[Any]:
    said = _field(fields, "type", path)
    code = _TYPES.get(said.lower().replace(" ", ""))
    if code is None:
        raise ReadError(f"{path}: type: {said}; expected whole or floating-point numbers, such as short or float")
    endian = fields.get("endian", "").lower()
    several = code[1] != "1" and _ENCODINGS.get(_field(fields, "encoding", path).lower()) != "text"
    if several and endian not in ("little", "big"):
        raise ReadError(f"{path}: endian: {endian or 'nothing'}; expected little or big, which {said} voxels need")
    return np.dtype((">" if several and endian == "big" else "<") + code)


def _axes(fields: Mapping[str, str], count: int, path: Path, notes: list[str]) -> _Axes:
    kinds = fields.get("kinds", "").split() or ["???"] * count
    vectors = _vectors(fields["space directions"]) if "space directions" in fields else None
    if len(kinds) != count or (vectors is not None and len(vectors) != count):
        raise ReadError(f"{path}: {len(kinds)} kinds and {count} axes, or as few directions; expected one for each")
    if complex_ := next((kind for kind in kinds if kind.lower() == "complex"), None):
        raise ReadError(f"{path}: kinds: {complex_}; expected real voxels, such as their magnitude")
    spatial = _spatial(kinds, vectors, notes)
    if not 2 <= len(spatial) <= 3:
        raise ReadError(f"{path}: {len(spatial)} of {count} axes are of space; expected two or three")
    letters = ["c" if _COMPONENTS.fullmatch(kind) else "v" for kind in kinds]
    if "".join(letters[k] for k in range(count) if k not in spatial).count("c") > 1:
        raise ReadError(f"{path}: kinds: {fields['kinds']}: components along several axes; expected one such axis")
    for k, letter in zip(spatial, "whd", strict=False):
        letters[k] = letter
    if vectors is not None:
        return _Axes("".join(letters), [vectors[k][:3] for k in spatial])  # type: ignore[index]
    return _Axes("".join(letters), [np.eye(3)[n] * mm for n, mm in enumerate(_spacings(fields, spatial, count, notes))])


def _spatial(kinds: Sequence[str], vectors: Sequence[Float64 | None] | None, notes: list[str]) -> list[int]:
    """Which axes are of space: those with a direction, else those whose kind says so, else the first three."""
    if vectors is not None:
        there = [k for k, vector in enumerate(vectors) if vector is not None and vector[:3].any()]
        return [k for k in there if kinds[k].lower() not in ("time", "list")]  # time has a direction in 4-D spaces
    told = [k for k, kind in enumerate(kinds) if kind.lower() in _SPATIAL]
    if told:
        return told[:3]
    untold = [k for k, kind in enumerate(kinds) if kind in ("???", "none")]
    if len(untold) > 3:
        notes.append(
            f"{len(untold)} axes whose kinds are not said: the first three taken as space, the others as volumes"
        )
    return untold[:3]


def _vectors(text: str) -> list[Float64 | None]:
    """ "none (1,0,0) (0,1,0)" -> one vector an axis."""
    found: list[Float64 | None] = []
    for word in re.findall(r"none|\([^()]*\)", text):
        found.append(None if word == "none" else _vector(word))
    return found


def _vector(word: str) -> Float64:
    """ "(1,0,0)" -> 2 to 4 numbers, the third 0 where there are two."""
    numbers = [float(part) for part in word.strip("() ").split(",")]
    if not 2 <= len(numbers) <= 4:
        raise ValueError(f"the direction {word} has {len(numbers)} numbers, expected three")
    return np.array([*numbers, 0.0] if len(numbers) == 2 else numbers)


def _spacings(fields: Mapping[str, str], spatial: Sequence[int], count: int, notes: list[str]) -> list[float]:
    words = fields.get("spacings", "").split()
    given = [float(word) for word in words] if len(words) == count else [math.nan] * count
    units = re.findall(r'"([^"]*)"', fields.get("units", ""))
    found = []
    for k in spatial:
        known = math.isfinite(given[k]) and given[k] != 0
        to_mm = _TO_MM.get(units[k], 1.0) if len(units) == count else 1.0
        if to_mm != 1.0:
            notes.append(f"spacing converted from {units[k]} to mm")
        found.append(given[k] * to_mm if known else 1.0)
        if not known:
            notes.append("no voxel sizes in the header: taken as 1 mm")
    return found


def _affine(fields: Mapping[str, str], axes: _Axes, notes: list[str]) -> Float64:
    """Of the axes w, h, d, in RAS."""
    affine, directions = np.eye(4), axes.directions
    if len(directions) == 2:  # a slice in space; how thick it is is seldom said
        normal = np.cross(directions[0], directions[1])
        length = float(np.linalg.norm(normal))
        directions = [*directions, normal / length if length else np.array([0.0, 0.0, 1.0])]
    affine[:3, :3] = np.stack(directions, axis=1)
    if "space origin" in fields:
        affine[:3, 3] = _vector(fields["space origin"])[:3]
    if not usable(affine):
        notes.append("space directions and origin are no usable place: passed over, voxel sizes alone")
        sizes = np.linalg.norm(np.nan_to_num(affine[:3, :3], posinf=0.0, neginf=0.0), axis=0)
        affine = np.diag([*np.where(sizes > 0, sizes, 1.0), 1.0])
    units = re.findall(r'"([^"]*)"', fields.get("space units", ""))
    if units and (to_mm := _TO_MM.get(units[0], 1.0)) != 1.0:
        affine[:3] *= to_mm
        notes.append(f"positions converted from {units[0]} to mm: ITK leaves them as they are")
    said = fields.get("space", "").lower().removesuffix("-time")
    space = _SPACES.get(said, said[:3] if said in ("rast", "last", "lpst") else said)
    if space not in _TO_RAS:
        what = f"space {said} says nothing of the patient" if said else "no space in the header"
        notes.append(f"{what}: taken as left-posterior-superior, as by ITK")
        space = "lps"
    return _TO_RAS[space] @ affine


def _where(fields: Mapping[str, str], path: Path, begin: int, grid: Grid) -> Bytes:
    encoding = _ENCODINGS.get(_field(fields, "encoding", path).lower())
    if encoding is None:
        raise ReadError(f"{path}: encoding: {fields['encoding']}; expected raw, gzip, bzip2 or ascii")
    file, offset = path, begin
    if "data file" in fields:
        name = fields["data file"]
        if re.match(r"LIST\b|.*%\d*d", name):
            raise ReadError(f"{path}: data file: {name}: voxels in several files; expected one, convert it to .nrrd")
        file, offset = beside(path, name), 0
    lines, skipped = int(fields.get("line skip", "0")), int(fields.get("byte skip", "0"))
    if lines < 0 or skipped < -1 or (skipped == -1 and encoding != "plain"):
        raise ReadError(f"{path}: line skip {lines}, byte skip {skipped}; expected 0 or more, or -1 of raw voxels")
    if skipped == -1:  # the voxels are the end of the file
        return Bytes(file, -grid.nbytes)
    if lines:
        with file.open("rb") as opened:
            opened.seek(offset)
            for _ in range(lines):
                if not opened.readline():
                    raise ValueError(f"{lines} lines to be skipped are not there: the file is cut short")
            offset = opened.tell()
    if encoding == "text":
        return Bytes(file, offset + skipped, encoding, 0, grid.dtype.str)
    return Bytes(file, offset, encoding, skipped)  # of packed voxels, bytes are skipped once they are unpacked


def _header(image: Image, data: Float32, affine: Float64, storage: Storage, marks: Mapping[str, str]) -> bytes:
    """data (C, D, H, W) -> the lines before the voxels, without the empty one."""
    lps = LPS_TO_RAS @ affine
    flat = image.origin.get("format") == "nrrd" and in_its_plane(image, affine)  # two dimensions know no patient
    dims = 2 if flat else 3
    vectors = [_words(lps[:dims, k]) for k in range(dims)]
    kinds, sizes = ["domain"] * dims, [str(n) for n in data.shape[:0:-1][:dims]]
    if data.shape[0] > 1:
        vectors, kinds, sizes = ["none", *vectors], ["vector", *kinds], [str(data.shape[0]), *sizes]
    lines = [
        "NRRD0005",
        f"type: {'float' if storage.dtype.kind == 'f' else storage.dtype.name}",
        f"dimension: {len(sizes)}",
        "space dimension: 2" if dims == 2 else "space: left-posterior-superior",
        f"sizes: {' '.join(sizes)}",
        f"space directions: {' '.join(vectors)}",
        f"kinds: {' '.join(kinds)}",
        "endian: little",
        "encoding: gzip",
        f"space origin: {_words(lps[:dims, 3])}",
        *(f"{key}:={_escaped(value)}" for key, value in marks.items()),
        *_named(image),
    ]
    return "".join(f"{line}\n" for line in lines).encode()


def _words(numbers: Float64) -> str:
    return f"({','.join(repr(float(number) + 0.0) for number in numbers)})"


def _pack(file: BinaryIO, data: Float32, storage: Storage) -> None:
    with gzip.GzipFile("", "wb", compresslevel=1, fileobj=file, mtime=0) as stream:
        for piece in write_voxels(data, storage, fastest=True):
            stream.write(piece)
