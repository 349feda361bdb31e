"""MetaImage: .mha, and .mhd with its voxels in a file of its own (https://itk.org/Wiki/MetaIO/Documentation).

Places are in LPS, as in DICOM: TransformMatrix has the direction of one axis of the grid in each of its rows.
AnatomicalOrientation says the same in letters, is often wrong, and is ignored, as by ITK.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO

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
_DATA_FILE = "ElementDataFile"  # the last field of a header
_TYPES = {
    "MET_CHAR": "i1",
    "MET_UCHAR": "u1",
    "MET_SHORT": "i2",
    "MET_USHORT": "u2",
    "MET_INT": "i4",
    "MET_UINT": "u4",
    "MET_LONG": "i4",
    "MET_ULONG": "u4",
    "MET_LONG_LONG": "i8",
    "MET_ULONG_LONG": "u8",
    "MET_FLOAT": "f4",
    "MET_DOUBLE": "f8",
}
_WRITTEN = {np.dtype(code): name for name, code in _TYPES.items() if name not in ("MET_LONG", "MET_ULONG")}
_MODALITIES = {"MET_MOD_CT": "CT", "MET_MOD_MR": "MR", "MET_MOD_NM": "NM", "MET_MOD_US": "US"}
_TO_MM = {"um": 0.001, "cm": 10.0, "m": 1000.0}
_SEVERAL = re.compile(r"LIST\b|.*%\d*d")  # voxels in a file for each slice


def is_metaimage(head: bytes) -> bool:
    """Whether a file that begins so is a MetaImage header: its first fields name a kind of object or a number of
    dimensions."""
    lines = head[:2048].split(b"\n")
    for line in lines[:20]:
        if re.match(rb"\s*(ObjectType|NDims)\s*=", line):
            return True
        if not re.match(rb"\s*[A-Za-z]\w*\s*=[^\0]*$", line):
            return False
    return False


def read_metaimage(path: Path, frame: str = "", budget: int = DEFAULT_BUDGET) -> Image:
    """A .mha or .mhd -> Image (C, D, H, W), or (C, H, W) of one slice or two dimensions.

    ElementNumberOfChannels are channels; dimensions beyond the third are volumes, an image each, that `frame` names.
    What `fabrica.io.volumes.read_volume` says holds. Raises ReadError for damage, for voxels outside the header's
    folder or in several files, and for more than `budget` bytes.
    """
    with decoding(path, "MetaImage"):
        return read_volume(_described(path), frame, budget)


def metaimage_frames(path: Path, budget: int = DEFAULT_BUDGET) -> list[str]:
    """The volumes of a MetaImage by its header: "volume=1" and so on, [""] of one."""
    with decoding(path, "MetaImage"):
        found = _described(path)
        check(100 * found.grid.volumes, budget, f"a list of {found.grid.volumes:,} volumes", path)
        return frames_of(found)


def metaimage_voxels(path: Path) -> Path:
    """The file that holds the voxels: this one, or the one that its header names."""
    with decoding(path, "MetaImage"):
        return _described(path).where.path


def write_metaimage(image: Image, path: Path, marks: Mapping[str, str]) -> list[Path]:
    """Write .mha, or .mhd with a .zraw beside it, compressed, each whole or not at all; the files written.

    Number types are those of NIfTI's writer, without a scale, which the format has but no program reads. `marks` are
    fields of the header.
    """
    storage = storage_of(image)
    data, affine = as_volume(image)
    if path.suffix.lower() != ".mhd":
        with atomic(path) as temporary, temporary.open("wb") as file:
            file.write(_header(image, data, affine, storage, marks, "LOCAL"))
            size = _pack(file, data, storage)
            file.seek(0)  # ITK must be told; the header is as long as before
            file.write(_header(image, data, affine, storage, marks, "LOCAL", size))
        return [path]
    packed = path.with_suffix(".zraw")
    with atomic(packed) as temporary, temporary.open("wb") as file:
        size = _pack(file, data, storage)
    with atomic(path) as temporary:
        temporary.write_bytes(_header(image, data, affine, storage, marks, packed.name, size))
    return [path, packed]


def _described(path: Path) -> Described:
    with path.open("rb") as file:
        fields, begin = _fields(file, path)
    if fields.get("ObjectType", "Image") != "Image":
        raise ReadError(f"{path}: holds a {fields['ObjectType']}; expected an Image")
    notes: list[str] = []
    dims = [int(n) for n in fields.get("DimSize", "").split()]
    if len(dims) != int(fields.get("NDims", "0")) or len(dims) < 2:
        raise ReadError(f"{path}: NDims = {fields.get('NDims')} and DimSize = {dims}; expected two sizes or more")
    name = fields.get("ElementType", "").removesuffix("_ARRAY")
    if name not in _TYPES:
        raise ReadError(f"{path}: ElementType = {name or 'nothing'}; expected one of {', '.join(_TYPES)}")
    big = _true(fields, "BinaryDataByteOrderMSB", "ElementByteOrderMSB")
    dtype = np.dtype((">" if big else "<") + _TYPES[name])
    shape, axes = tuple(dims[::-1]), "v" * (len(dims) - 3) + "dhw"[-len(dims) :]
    channels = int(fields.get("ElementNumberOfChannels", "1"))
    grid = Grid((*shape, channels), axes + "c", dtype) if channels != 1 else Grid(shape, axes, dtype)
    storage = _storage(fields, dtype, notes)
    affine = _affine(fields, len(dims), notes)
    where = _where(fields, path, begin, grid)
    modality = _MODALITIES.get(fields.get("Modality", ""))
    more = {"modality": modality} if modality else {}
    return Described(path, "metaimage", grid, where, affine, storage, fields, more, tuple(notes))


def _fields(file: BinaryIO, path: Path) -> tuple[dict[str, str], int]:
    """The fields "Key = value" up to ElementDataFile, and how many bytes they are."""
    fields: dict[str, str] = {}
    while _DATA_FILE not in fields:
        line = file.readline(_LARGEST_HEADER)
        if not line or file.tell() > _LARGEST_HEADER:
            raise ReadError(f"{path}: a MetaImage header without {_DATA_FILE}: the file is cut short or damaged")
        key, _, value = line.decode("latin-1").partition("=")
        fields[key.strip()] = value.strip()
    return fields, file.tell()


def _true(fields: Mapping[str, str], *names: str) -> bool:
    return any(fields.get(name, "")[:1] in ("T", "t", "1") for name in names)


def _storage(fields: Mapping[str, str], dtype: np.dtype[np.generic], notes: list[str]) -> Storage:
    slope = float(fields.get("ElementToIntensityFunctionSlope", "1"))
    inter = float(fields.get("ElementToIntensityFunctionOffset", "0"))
    if (slope, inter) != (1.0, 0.0) and slope and np.isfinite([slope, inter]).all():
        notes.append(f"values are stored numbers times {slope:g} plus {inter:g}: ITK shows the stored numbers")
        return Storage(dtype, slope, inter)
    return Storage(dtype)


def _affine(fields: Mapping[str, str], dims: int, notes: list[str]) -> Float64:
    """Of the first three axes, in RAS; a third one is that of LPS where there are two."""
    spacing = np.ones(max(3, dims))
    given = _numbers(fields, ("ElementSpacing", "ElementSize"), dims)
    if given is not None:
        known = np.isfinite(given) & (given != 0)
        spacing[:dims] = np.where(known, given, 1.0)
        if not known[:3].all():
            notes.append(f"ElementSpacing {' '.join(f'{mm:g}' for mm in given)}: taken as 1 where it is 0 or no number")
    else:
        notes.append("no voxel sizes in the header: taken as 1 mm")
    affine, directions, offset = np.eye(4), np.eye(max(3, dims)), np.zeros(max(3, dims))
    matrix = _numbers(fields, ("TransformMatrix", "Rotation", "Orientation"), dims * dims)
    if matrix is not None:
        directions[:dims, :dims] = matrix.reshape(dims, dims)
    place = _numbers(fields, ("Offset", "Position", "Origin"), dims)
    if place is not None:
        offset[:dims] = place
    affine[:3, :3], affine[:3, 3] = (directions[:3, :3] * spacing[:3, None]).T, offset[:3]
    if not usable(affine):
        notes.append("TransformMatrix and Offset are no usable place: passed over, voxel sizes alone")
        affine = np.diag([*spacing[:3], 1.0])
    if (to_mm := _TO_MM.get(fields.get("DistanceUnits", "mm"), 1.0)) != 1.0:
        affine[:3] *= to_mm
        notes.append(f"positions converted to mm, times {to_mm:g}: ITK leaves them in {fields['DistanceUnits']}")
    return LPS_TO_RAS @ affine


def _numbers(fields: Mapping[str, str], names: tuple[str, ...], count: int) -> Float64 | None:
    """The numbers of the first of these fields that is there."""
    text = next((fields[name] for name in names if name in fields), None)
    if text is None:
        return None
    found = np.array([float(word) for word in text.split()])
    if len(found) != count:
        raise ValueError(f"{names[0]} has {len(found)} numbers, expected {count}")
    return found


def _where(fields: Mapping[str, str], path: Path, begin: int, grid: Grid) -> Bytes:
    name = fields[_DATA_FILE]
    if _SEVERAL.match(name):
        raise ReadError(f"{path}: {_DATA_FILE} = {name}: voxels in several files; expected one, convert it to .mha")
    own = name.upper() == "LOCAL"
    file, skipped = (path, begin) if own else (beside(path, name), 0)
    before = int(fields.get("HeaderSize", "0"))
    if _true(fields, "CompressedData"):
        return Bytes(file, skipped, "zlib")
    if fields.get("BinaryData", "True")[:1] in "Ff0":
        return Bytes(file, skipped, "text", 0, grid.dtype.str)
    if before == -1:  # the voxels are the end of the file
        return Bytes(file, -grid.nbytes)
    return Bytes(file, before if before > 0 else skipped)


def _header(
    image: Image,
    data: Float32,
    affine: Float64,
    storage: Storage,
    marks: Mapping[str, str],
    name: str,
    packed: int = 0,
) -> bytes:
    """data (C, D, H, W); packed: bytes of it compressed, which do not change how long the header is."""
    lps = LPS_TO_RAS @ affine
    dims = 2 if in_its_plane(image, affine) else 3
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    spacing[spacing == 0] = 1.0
    matrix = (lps[:3, :3] / spacing).T[:dims, :dims]
    fields: dict[str, object] = {
        "ObjectType": "Image",
        "NDims": dims,
        "BinaryData": True,
        "BinaryDataByteOrderMSB": False,
        "CompressedData": True,
        "CompressedDataSize": f"{packed:012d}",
        "TransformMatrix": _words(matrix.ravel()),
        "Offset": _words(lps[:dims, 3]),
        "CenterOfRotation": _words(np.zeros(dims)),
        "ElementSpacing": _words(spacing[:dims]),
        "DimSize": " ".join(str(n) for n in data.shape[:0:-1][:dims]),
        **({"ElementNumberOfChannels": data.shape[0]} if data.shape[0] > 1 else {}),
        **marks,
        "ElementType": _WRITTEN[storage.dtype],
        _DATA_FILE: name,
    }
    return "".join(f"{key} = {value}\n" for key, value in fields.items()).encode("ascii")


def _words(numbers: Float64) -> str:
    return " ".join(repr(float(number) + 0.0) for number in numbers)


def _pack(file: BinaryIO, data: Float32, storage: Storage) -> int:
    """Write the voxels compressed; how many bytes that took."""
    packer, begin = zlib.compressobj(1), file.tell()
    for piece in write_voxels(data, storage, fastest=True):
        file.write(packer.compress(piece))
    file.write(packer.flush())
    return file.tell() - begin
