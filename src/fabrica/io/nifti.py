"""NIfTI-1 and NIfTI-2, plain or gzipped (https://nifti.nimh.nih.gov): volumes with their affine.

nibabel interprets the header; the bytes are read here, because a 62-byte file can ask for gigabytes of voxels or of
header extensions.
"""

from __future__ import annotations

import gzip
import math
from pathlib import Path
from typing import Any

import numpy as np

from fabrica.errors import ReadError
from fabrica.image import Float64, Image
from fabrica.io.atomic import atomic
from fabrica.io.budget import DEFAULT_BUDGET, check
from fabrica.io.guard import decoding
from fabrica.io.marks import from_text, place_from, to_text
from fabrica.io.streams import Bytes, Stream, opened
from fabrica.io.volumes import Described, as_volume, corners, frames_of, read_volume, usable
from fabrica.io.voxels import Grid, Storage, storage_of, write_voxels

_LABEL_INTENT = 1002
_VECTOR_INTENTS = (*range(1004, 1011), 2003, 2004)  # whose fifth axis holds the components of each voxel
_SCANNER = 1  # a form's code: the scanner's own coordinates
_COMMENT = 6  # extension code
_LARGEST_EXTENSION = 16 * 2**20
_MILLIMETRES = {1: 1000.0, 2: 1.0, 3: 0.001}  # by the space part of xyzt_units: metre, mm, micron
_APART = 0.1  # mm between what sform and qform say of a place


def is_nifti(head: bytes) -> bool:
    """Whether the first 352 bytes of a file, already gunzipped, are a NIfTI header's."""
    return _version(head) != 0


def read_nifti(path: str | Path, frame: str = "", budget: int = DEFAULT_BUDGET) -> Image:
    """A .nii or .nii.gz -> Image (C, D, H, W), or (C, H, W) where the file has one slice along some axis.

    The array is transposed, (X, Y, Z) -> (Z, Y, X), and the affine kept as it stands: sform, else qform. The scale
    factor is applied. Further axes (T and beyond) are volumes, one image each, that `frame` names: "volume=1" is the
    first. Channels are what Fabrica wrote as such, the fifth axis of a vector or colour intent, and RGB voxels.
    The format does not say what values mean: see `fabrica.io.volumes.read_volume`; "label" for label intent.
    Raises ReadError for damage, complex voxels, several volumes without a frame, and more than `budget` bytes.
    """
    path = Path(path)
    with decoding(path, "NIfTI"):
        return read_volume(_described(path), frame, budget)


def nifti_frames(path: Path, budget: int = DEFAULT_BUDGET) -> list[str]:
    """The volumes of a NIfTI file by its header: "volume=1" and so on, [""] of one."""
    with decoding(path, "NIfTI"):
        found = _described(path)
        check(100 * found.grid.volumes, budget, f"a list of {found.grid.volumes:,} volumes", path)
        return frames_of(found)


def write_nifti(image: Image, path: str | Path, marks: dict[str, str]) -> None:
    """Write .nii, or .nii.gz where the name ends so, whole or not at all.

    An image that came from a volume format is stored in the same number type and scale where its values fit, so that
    they stay within half a stored step; labels as integers; everything else as float32. `marks` become a comment
    extension, and `descrip` names a synthetic image as such. Affines are float32 on disk, as the format has it.
    """
    path = Path(path)
    storage = storage_of(image, scaled=True)
    extension = _extension(to_text(marks))
    data, affine = as_volume(image)
    header = _header(image, data.shape, affine, storage, marks)
    header["vox_offset"] = 348 + len(extension)
    with atomic(path) as temporary, temporary.open("wb") as file:
        zipped = gzip.GzipFile("", "wb", compresslevel=1, fileobj=file, mtime=0) if path.suffix == ".gz" else file
        with zipped as stream:
            stream.write(header.binaryblock + extension)
            for piece in write_voxels(data, storage):
                stream.write(piece)


def _version(head: bytes) -> int:
    """1, 2, or 0 for another file."""
    for order in ("little", "big"):
        size = int.from_bytes(head[:4], order)
        if size == 348 and head[344:348] in (b"n+1\0", b"ni1\0"):
            return 1
        if size == 540 and head[4:8] in (b"n+2\0", b"ni2\0"):
            return 2
    return 0


def _described(path: Path) -> Described:
    with path.open("rb") as file:
        zipped = file.read(2) == b"\x1f\x8b"
    encoding = "gzip" if zipped else "plain"
    with opened(Bytes(path, 0, encoding)) as stream:
        header, offset, read = _read_header(stream, path)
        text = _read_extension(stream, offset - read, header.endianness)
    notes: list[str] = []
    grid = _grid(header, text, path)
    slope, inter = header.get_slope_inter()
    scaled = slope is not None and header.get_data_dtype().names is None
    storage = Storage(grid.dtype, float(slope), float(inter or 0.0)) if scaled else Storage(grid.dtype)
    where = Bytes(path, 0, "gzip", offset) if zipped else Bytes(path, offset)
    unit = "label" if int(header["intent_code"]) == _LABEL_INTENT else ""
    affine = _affine(header, grid.volume[:0:-1], notes)
    return Described(path, "nifti", grid, where, affine, storage, text, _more(header), tuple(notes), unit)


def _read_header(stream: Stream, path: Path) -> tuple[Any, int, int]:
    """nibabel's header, where the voxels begin, and how many bytes were read."""
    from nibabel.nifti1 import Nifti1Header
    from nibabel.nifti2 import Nifti2Header

    head = stream.read(348)
    version = _version(head)
    if version == 2:
        head += stream.read(192)
    if version == 0 or len(head) != (348, 540)[version - 1]:
        raise ReadError(f"{path}: not NIfTI, or cut short; expected a header of 348 or 540 bytes")
    if head[344:346] == b"ni" or head[4:6] == b"ni":
        raise ReadError(f"{path}: the header of a .hdr/.img pair; expected one file, convert it to .nii.gz")
    order = "<" if head[0] else ">"  # neither 348 nor 540 has a zero low byte
    header = (Nifti1Header, Nifti2Header)[version - 1](head, order, check=False)
    offset = float(header["vox_offset"])
    least = len(head) + 4
    if not (offset == 0 or least <= offset <= least + _LARGEST_EXTENSION):
        raise ReadError(f"{path}: voxels said to begin at byte {offset:g}; expected {least} or a little more")
    return header, int(offset) or least, len(head)


def _grid(header: Any, text: dict[str, str], path: Path) -> Grid:
    """NIfTI's (X, Y, Z, T, ...), fastest first. T and beyond are volumes, unless a mark or an intent says channels."""
    dims = tuple(int(n) for n in header.get_data_shape())
    if not 2 <= int(header["dim"][0]) <= 7 or any(n < 1 for n in dims):
        raise ReadError(f"{path}: dimensions {dims}; expected two to seven, each at least 1")
    dtype: np.dtype[Any] = header.get_data_dtype()
    space, beyond, axes = dims[:3][::-1], dims[3:][::-1], "v" * len(dims[3:]) + "dhw"[-len(dims[:3]) :]
    vector = int(header["intent_code"]) in _VECTOR_INTENTS and len(dims) > 4
    if dtype.names:  # RGB24 and RGBA32
        return Grid((*beyond, *space, len(dtype.names)), axes + "c", dtype[0])
    if vector:
        return Grid((*beyond, *space), axes[: len(beyond) - 2] + "c" + axes[len(beyond) - 1 :], dtype)
    if beyond and place_from(text).get("channels") == math.prod(beyond):
        return Grid((math.prod(beyond), *space), "c" + axes[len(beyond) :], dtype)
    return Grid((*beyond, *space), axes, dtype)


def _more(header: Any) -> dict[str, Any]:
    """What of Image.origin NIfTI alone says."""
    more: dict[str, Any] = {}
    low, high = float(header["cal_min"]), float(header["cal_max"])
    if np.isfinite([low, high]).all() and low < high:
        more["window"] = ((low + high) / 2, high - low)
    more["nifti"] = {
        "sform_code": int(header["sform_code"]),
        "qform_code": int(header["qform_code"]),
        "xyzt_units": int(header["xyzt_units"]),
        "pixdim": [float(v) for v in header["pixdim"]],
    }
    return more


def _affine(header: Any, size: tuple[int, ...], notes: list[str]) -> Float64:
    """sform, else qform, else the voxel sizes alone; in mm. `size` is (W, H, D)."""
    forms: dict[str, Float64] = {}
    for form in ("sform", "qform"):
        if int(header[f"{form}_code"]) > 0:
            candidate = np.asarray(getattr(header, f"get_{form}")(), np.float64)
            if usable(candidate):
                forms[form] = candidate
            elif not forms:
                notes.append(f"{form} is not a usable affine: passed over")
    to_mm = _MILLIMETRES.get(int(header["xyzt_units"]) & 7, 1.0)
    if len(forms) == 2:
        apart = np.linalg.norm(corners(forms["sform"], size) - corners(forms["qform"], size), axis=0).max() * to_mm
        if apart > _APART:
            others = "programs that take the qform"
            if int(header["sform_code"]) != _SCANNER:
                others = "ITK, Slicer and ANTs, which take the qform,"
            notes.append(f"sform and qform differ by up to {apart:.3g} mm: sform is kept; {others} show it elsewhere")
    affine = forms.get("sform", forms.get("qform"))
    if affine is None:
        sizes = np.abs(np.asarray(header["pixdim"][1:4], np.float64))
        affine = np.diag([*np.where(np.isfinite(sizes) & (sizes > 0), sizes, 1.0), 1.0])
        notes.append(
            "no orientation in the header: voxel sizes alone; other programs mirror it (nibabel runs x to the left, "
            "about the centre; ITK x to the left and y to the back)"
        )
    if to_mm != 1.0:
        affine[:3] *= to_mm
        notes.append(f"positions converted to mm, times {to_mm:g}")
    return affine


def _read_extension(stream: Stream, room: int, endianness: str) -> dict[str, str]:
    """Our own marks among the header extensions; leaves the stream where the voxels begin."""
    block = stream.read(room)
    if len(block) < room:
        raise ValueError("the file is cut short")
    order = "little" if endianness == "<" else "big"
    found: dict[str, str] = {}
    position = 4
    while block[:1] == b"\1" and position + 8 <= room:
        size = int.from_bytes(block[position : position + 4], order)  # type: ignore[arg-type]
        code = int.from_bytes(block[position + 4 : position + 8], order)  # type: ignore[arg-type]
        if size < 8 or position + size > room:
            break
        if code == _COMMENT:
            body = block[position + 8 : position + size].rstrip(b"\0")
            found |= from_text(body.decode("ascii", "replace"))
        position += size
    return found


def _header(image: Image, shape: tuple[int, ...], affine: Float64, storage: Storage, marks: dict[str, str]) -> Any:
    """shape: (C, D, H, W) as stored; affine: of its axes."""
    from nibabel.nifti1 import Nifti1Header

    source = image.origin.get("nifti", {})
    header = Nifti1Header(endianness="<")
    header.set_data_shape((*shape[:0:-1], shape[0]) if shape[0] > 1 else shape[:0:-1])
    header.set_data_dtype(storage.dtype)
    header["magic"] = b"n+1"
    header["scl_slope"], header["scl_inter"] = storage.slope, storage.inter
    header["pixdim"][1:4] = np.linalg.norm(affine[:3, :3], axis=0)
    header["pixdim"][4:] = source.get("pixdim", [1.0] * 8)[4:]
    header["xyzt_units"] = (int(source.get("xyzt_units", 0)) & ~7) | 2  # mm; the time part as it was
    code = source.get("sform_code") or source.get("qform_code") or 1
    header.set_sform(affine, code=code)
    columns = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    if np.abs(columns.T @ columns - np.eye(3)).max() < 1e-5:  # a quaternion cannot hold a sheared grid
        header.set_qform(affine, code=source.get("qform_code") or code)
    if image.unit == "label":
        header["intent_code"] = _LABEL_INTENT
    if "window" in image.origin:
        centre, width = image.origin["window"]
        header["cal_min"], header["cal_max"] = centre - width / 2, centre + width / 2
    description = [f"{key}={marks[key]}" for key in ("SyntheticData", "Software", "Seed", "Model") if key in marks]
    header["descrip"] = " ".join(description)[:79].encode("ascii")
    return header


def _extension(text: str) -> bytes:
    """The four bytes that announce extensions, and one comment padded to a multiple of 16."""
    body = text.encode("ascii", "replace")
    size = -(-(8 + len(body)) // 16) * 16
    return b"\1\0\0\0" + size.to_bytes(4, "little") + _COMMENT.to_bytes(4, "little") + body.ljust(size - 8, b"\0")
