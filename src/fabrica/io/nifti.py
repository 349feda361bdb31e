"""NIfTI-1 and NIfTI-2, plain or gzipped (https://nifti.nimh.nih.gov): volumes with their affine.

nibabel interprets the header; the bytes are read here, because a 62-byte file can ask for gigabytes of voxels or of
header extensions.
"""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from fabrica.errors import ReadError
from fabrica.image import Array, Float32, Float64, Image
from fabrica.io.atomic import atomic
from fabrica.io.budget import DEFAULT_BUDGET, check
from fabrica.io.guard import decoding
from fabrica.io.marks import from_text, origin_from, place_from, to_text
from fabrica.io.nifti_voxels import make_finite, read_voxels

_LABEL_INTENT = 1002
_COMMENT = 6  # extension code
_LARGEST_EXTENSION = 16 * 2**20
_LARGEST_TAIL = 2**24  # bytes after the voxels, where some programs pad
_MILLIMETRES = {1: 1000.0, 2: 1.0, 3: 0.001}  # by the space part of xyzt_units: metre, mm, micron


def is_nifti(head: bytes) -> bool:
    """Whether the first 352 bytes of a file, already gunzipped, are a NIfTI header's."""
    return _version(head) != 0


def read_nifti(path: str | Path, budget: int = DEFAULT_BUDGET) -> Image:
    """A .nii or .nii.gz -> Image (C, D, H, W), or (C, H, W) where the file has one slice.

    The array is transposed, (X, Y, Z, T) -> (T, Z, Y, X), and the affine kept as it stands: sform, else qform. The
    scale factor is applied. The format does not say what values mean: unit is "arbitrary", or "label" for label
    intent, or what Fabrica's own mark says. No "range" is declared, since the number type says nothing of values.
    NaN and infinite voxels are set to the lowest value and counted in origin["nan"].
    Raises ReadError for damage, complex or too many dimensions, and more than `budget` bytes.
    """
    path = Path(path)
    with decoding(path, "NIfTI"), path.open("rb") as file:
        zipped = file.read(2) == b"\x1f\x8b"
        file.seek(0)
        if zipped:
            with gzip.GzipFile(fileobj=file) as stream:
                return _read(stream, path, budget)  # type: ignore[arg-type]
        return _read(file, path, budget)


def write_nifti(image: Image, path: str | Path, marks: dict[str, str]) -> None:
    """Write .nii, or .nii.gz where the name ends so, whole or not at all.

    An image that came from NIfTI is stored in the same number type and scale where its values fit, so that they
    stay within half a stored step; labels as integers; everything else as float32. `marks` become a comment
    extension, and `descrip` names a synthetic image as such. Affines are float32 on disk, as the format has it.
    """
    path = Path(path)
    dtype, slope, inter = _storage(image)
    extension = _extension(to_text(marks))
    header = _header(image, dtype, slope, inter, marks)
    header["vox_offset"] = 348 + len(extension)
    with atomic(path) as temporary, temporary.open("wb") as file:
        if path.suffix == ".gz":
            with gzip.GzipFile("", "wb", compresslevel=1, fileobj=file, mtime=0) as stream:
                _write_body(stream, header, extension, image.data, dtype, slope, inter)  # type: ignore[arg-type]
        else:
            _write_body(file, header, extension, image.data, dtype, slope, inter)


def _version(head: bytes) -> int:
    """1, 2, or 0 for another file."""
    for order in ("little", "big"):
        size = int.from_bytes(head[:4], order)
        if size == 348 and head[344:348] in (b"n+1\0", b"ni1\0"):
            return 1
        if size == 540 and head[4:8] in (b"n+2\0", b"ni2\0"):
            return 2
    return 0


def _read(stream: BinaryIO, path: Path, budget: int) -> Image:
    header, offset = _read_header(stream, path)
    shape = _channels_first(header.get_data_shape(), path)
    dtype = header.get_data_dtype()
    colours = len(dtype.names) if dtype.names else 1  # RGB24 and RGBA32 are structured
    if dtype.kind == "c":
        raise ReadError(f"{path}: complex voxels; expected real ones, such as their magnitude")
    voxels = int(np.prod(shape, dtype=object))
    check(voxels * max(4 * colours, dtype.itemsize), budget, f"{' x '.join(map(str, shape))} voxels", path)
    text = _read_extension(stream, offset - stream.tell(), header.endianness)
    if dtype.names and shape[0] != 1:
        raise ReadError(f"{path}: colour voxels in {shape[0]} channels; expected one or the other")
    notes: list[str] = []
    slope, inter = header.get_slope_inter()
    slope, inter = (1.0, 0.0) if slope is None or dtype.names else (float(slope), float(inter or 0.0))
    data = np.empty((colours if dtype.names else shape[0], *shape[1:]), np.float32)
    read_voxels(stream, dtype, slope, inter, data, notes)
    for _ in range(_LARGEST_TAIL >> 16):  # gzip verifies its checksum at the very end
        if not stream.read(1 << 16):
            break
    replaced = make_finite(data, notes)
    origin = _origin(header, path, text, dtype[0] if dtype.names else dtype, slope, inter)
    if replaced:
        origin["nan"] = replaced
    affine = _affine(header, notes)
    if notes:
        origin["notes"] = tuple(notes)
    unit = "label" if int(header["intent_code"]) == _LABEL_INTENT else place_from(text).get("unit", "arbitrary")
    return Image(data, affine, unit, origin)


def _read_header(stream: BinaryIO, path: Path) -> tuple[Any, int]:
    """nibabel's header, and where the voxels begin."""
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
    return header, int(offset) or least


def _channels_first(dims: tuple[int, ...], path: Path) -> tuple[int, ...]:
    """NIfTI's (X, Y, Z, T, ...) -> (C, D, H, W), or (C, H, W) for one slice. One axis of T and beyond may be > 1."""
    if len(dims) < 2 or any(n < 1 for n in dims):
        raise ReadError(f"{path}: dimensions {dims}; expected two to four, each at least 1")
    channels = [n for n in dims[3:] if n > 1]
    if len(channels) > 1:
        raise ReadError(f"{path}: dimensions {dims}; expected at most one beyond the three of space")
    depth = dims[2] if len(dims) > 2 else 1
    space = (dims[1], dims[0]) if depth == 1 else (depth, dims[1], dims[0])
    return (channels[0] if channels else 1, *(int(n) for n in space))


def _origin(
    header: Any, path: Path, text: dict[str, str], dtype: np.dtype[Any], slope: float, inter: float
) -> dict[str, Any]:
    origin: dict[str, Any] = {"path": str(path), "format": "nifti"}
    low, high = float(header["cal_min"]), float(header["cal_max"])
    if np.isfinite([low, high]).all() and low < high:
        origin["window"] = ((low + high) / 2, high - low)
    if dtype.kind in "iub":
        origin["step"] = abs(slope)
    origin["nifti"] = {
        "dtype": dtype.newbyteorder("=").str,
        "slope": slope,
        "inter": inter,
        "sform_code": int(header["sform_code"]),
        "qform_code": int(header["qform_code"]),
        "xyzt_units": int(header["xyzt_units"]),
        "pixdim": [float(v) for v in header["pixdim"]],
    }
    return origin | origin_from(text)


def _affine(header: Any, notes: list[str]) -> Float64:
    """sform, else qform, else the voxel sizes alone; in mm."""
    affine: Float64 | None = None
    for form in ("sform", "qform"):
        if affine is None and int(header[f"{form}_code"]) > 0:
            candidate = np.asarray(getattr(header, f"get_{form}")(), np.float64)
            if np.isfinite(candidate).all() and abs(np.linalg.det(candidate[:3, :3])) > 0:
                affine = candidate
            else:
                notes.append(f"{form} is not a usable affine: passed over")
    if affine is None:
        sizes = np.abs(np.asarray(header["pixdim"][1:4], np.float64))
        affine = np.diag([*np.where(np.isfinite(sizes) & (sizes > 0), sizes, 1.0), 1.0])
        notes.append("no orientation in the header: voxel sizes alone")
    to_mm = _MILLIMETRES.get(int(header["xyzt_units"]) & 7, 1.0)
    if to_mm != 1.0:
        affine[:3] *= to_mm
        notes.append(f"positions converted to mm, times {to_mm:g}")
    return affine


def _read_extension(stream: BinaryIO, room: int, endianness: str) -> dict[str, str]:
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


def _storage(image: Image) -> tuple[np.dtype[Any], float, float]:
    """Number type, slope and intercept to store the image with."""
    low, high = float(image.data.min()), float(image.data.max())
    source = image.origin.get("nifti")
    if source is not None and np.dtype(source["dtype"]).kind in "iu":
        dtype, slope, inter = np.dtype(source["dtype"]), source["slope"], source["inter"]
        ends = sorted(((low - inter) / slope, (high - inter) / slope))
        limits = np.iinfo(dtype)
        fits = limits.min - 0.5 <= ends[0] and ends[1] <= limits.max + 0.5
        # A copy rescaled to [0, 1], say, must not be rounded to the source's whole numbers.
        if fits and (ends[1] - ends[0] >= 255 or _on_steps(image.data, slope, inter)):
            return dtype, slope, inter
    if (
        image.unit == "label"
        and low.is_integer()
        and _on_steps(image.data, 1.0, 0.0)
        and low >= -(2**31)
        and high < 2**31
    ):
        smallest = np.result_type(np.min_scalar_type(int(high)), np.min_scalar_type(int(low)))
        return np.dtype(smallest), 1.0, 0.0
    return np.dtype(np.float32), 1.0, 0.0


def _on_steps(data: Float32, slope: float, inter: float) -> bool:
    """Whether every value is a stored integer's, to float32's precision."""
    largest = max(abs(float(data.min())), abs(float(data.max())))
    tolerance = 1e-3 + 2.0**-23 * largest / abs(slope)
    for index in np.ndindex(data.shape[: data.ndim - 2]):
        stored = (data[index].astype(np.float64) - inter) / slope
        if np.abs(stored - np.rint(stored)).max(initial=0.0) > tolerance:
            return False
    return True


def _header(image: Image, dtype: np.dtype[Any], slope: float, inter: float, marks: dict[str, str]) -> Any:
    from nibabel.nifti1 import Nifti1Header

    source = image.origin.get("nifti", {})
    header = Nifti1Header(endianness="<")
    space = image.size[::-1] if len(image.size) == 3 else (*image.size[::-1], 1)
    header.set_data_shape((*space, image.channels) if image.channels > 1 else space)
    header.set_data_dtype(dtype)
    header["magic"] = b"n+1"
    header["scl_slope"], header["scl_inter"] = slope, inter
    header["pixdim"][1:4] = np.linalg.norm(image.affine[:3, :3], axis=0)
    header["pixdim"][4:] = source.get("pixdim", [1.0] * 8)[4:]
    header["xyzt_units"] = (int(source.get("xyzt_units", 0)) & ~7) | 2  # mm; the time part as it was
    code = source.get("sform_code") or source.get("qform_code") or 1
    header.set_sform(image.affine, code=code)
    columns = image.affine[:3, :3] / np.linalg.norm(image.affine[:3, :3], axis=0)
    if np.abs(columns.T @ columns - np.eye(3)).max() < 1e-5:  # a quaternion cannot hold a sheared grid
        header.set_qform(image.affine, code=source.get("qform_code") or code)
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


def _write_body(
    stream: BinaryIO,
    header: Any,
    extension: bytes,
    data: Float32,
    dtype: np.dtype[Any],
    slope: float,
    inter: float,
) -> None:
    stream.write(header.binaryblock)
    stream.write(extension)
    for index in np.ndindex(data.shape[: data.ndim - 2]):
        values: Array = data[index]
        if dtype.kind != "f":
            values = np.rint((values.astype(np.float64) - inter) / slope)
        stream.write(values.astype(dtype).tobytes())
