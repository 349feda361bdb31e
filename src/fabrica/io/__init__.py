"""Files in and out: DICOM, NIfTI, pictures (PNG, JPEG, TIFF), npz and zip, by one `read` and one `write`.

A reader goes by the content of a file, and by its suffix only where the content says nothing.
"""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any

from fabrica.errors import ReadError, UsageError, did_you_mean
from fabrica.image import Image
from fabrica.io.budget import DEFAULT_BUDGET
from fabrica.io.display import to_display

__all__ = [
    "DEFAULT_BUDGET",
    "SUFFIXES",
    "format_of",
    "frames",
    "npz_labels",
    "read",
    "suffix_of",
    "to_display",
    "write",
]

SUFFIXES = {"png": ".png", "nifti": ".nii.gz", "dicom": ".dcm", "npz": ".npz", "tiff": ".tif"}  # of what is written

_EXPECTED = "expected DICOM, NIfTI, PNG, JPEG, TIFF, npz or zip"
_KNOWN_SUFFIXES = (".dcm", ".nii", ".nii.gz", ".png", ".jpg", ".jpeg", ".tif", ".tiff", ".npz", ".zip")
_FORMATS = {
    ".dcm": "dicom",
    ".nii": "nifti",
    ".nii.gz": "nifti",
    ".png": "png",
    ".tif": "tiff",
    ".tiff": "tiff",
    ".jpg": "jpeg",
    ".jpeg": "jpeg",
    ".npz": "npz",
}


def read(path: str | Path, frame: str = "", budget: int = DEFAULT_BUDGET) -> Image:
    """An image file, or a folder of the DICOM slices of one series -> Image (C, H, W) or (C, D, H, W).

    frame   which image of a container: "train_images/17" of an .npz, a member's name of a zip archive, a frame's
            number of a multi-frame DICOM, a SeriesInstanceUID of a folder. See `frames`.
    budget  bytes of memory the decoded image may need; checked before anything is decoded.
    What a caller may want to refuse stands in the image's origin: "missing", the number of slices that a volume of
    DICOM slices lacks, and "nan", the number of NIfTI voxels that were not finite and were set to the lowest value.
    Raises ReadError, in one line, for whatever cannot be read.
    """
    path = Path(path)
    if path.is_dir():
        return _read_folder(path, frame, budget)
    kind = format_of(path)
    if kind == "dicom":
        from fabrica.io.dicom import read_dicom

        return read_dicom(path, frame, budget)
    if kind in ("npz", "zip"):
        from fabrica.io.archive import read_npz, read_zip

        return read_npz(path, frame, budget) if kind == "npz" else read_zip(path, frame, budget)
    if frame:
        raise ReadError(f"{path}: holds one image, found frame {frame!r}; leave the frame out")
    if kind == "nifti":
        from fabrica.io.nifti import read_nifti

        return read_nifti(path, budget)
    from fabrica.io.raster import read_raster

    return read_raster(path, budget)


def frames(path: str | Path, budget: int = DEFAULT_BUDGET) -> list[str]:
    """What `read` takes as `frame`, one string an image: [""] for a file of one image.

    Reads directories and headers only. The frames of a multi-frame DICOM and the pages of a TIFF are one volume
    and so are not listed. Raises ReadError for what is not an image, or whose list alone exceeds `budget`.
    """
    path = Path(path)
    if path.is_dir():
        series = list(_series(path))
        return [""] if len(series) == 1 else series
    kind = format_of(path)
    if kind not in ("npz", "zip"):
        return [""]
    from fabrica.io.archive import npz_frames, zip_frames

    return npz_frames(path, budget) if kind == "npz" else zip_frames(path)


def npz_labels(path: str | Path, budget: int = DEFAULT_BUDGET) -> dict[str, Any]:
    """The label arrays of an .npz: {"train_labels": (N, 1) array, ...}. See `fabrica.io.archive.npz_labels`."""
    from fabrica.io import archive

    return archive.npz_labels(path, budget)


def write(
    image: Image,
    path: str | Path,
    *,
    synthetic: bool = False,
    translated: bool = False,
    as_: str = "",
    bits: int | None = None,
    clip: bool = False,
    **provenance: Any,
) -> list[Path]:
    """Write an image in the format of the suffix, each file whole or not at all; returns the files written.

    synthetic   mark it as synthetic (SyntheticData=YES), of nobody. What was read as synthetic stays so unasked.
    translated  made by a generative model out of a patient's image: marked in the same way, but kept with the
                patient, if there was one. With or without it, a DICOM object whose origin["modality"] differs from
                its source's becomes a new object of that modality in the source's study; else it is a copy with
                new pixels.
    as_         "dicom", "nifti", "png", "tiff", "jpeg" or "npz", instead of the suffix; a volume's path without a
                suffix is a folder of DICOM slices.
    bits, clip  for pictures: see `fabrica.io.raster.write_raster`.
    provenance  software, version, model, model_hash, seed, description, and for DICOM uid_seed.
    Raises UsageError where the format cannot hold the image, FabricaError where the disk refuses.
    """
    path = Path(path)
    kind = _output_format(image, path, as_)
    if kind not in ("png", "tiff", "jpeg") and (bits is not None or clip):
        raise UsageError(f"{path}: bits and clip are for PNG, TIFF and JPEG, found {kind}")
    from fabrica.io.marks import is_synthetic, marks

    if synthetic and translated:
        raise UsageError(f"{path}: synthetic is an image of nobody, translated one of a patient; expected one of them")
    of_a_patient = bool(image.origin.get("dicom") or image.origin.get("translated"))
    # What was derived from a synthetic DICOM object keeps its patient, study and mark unasked.
    synthetic = synthetic or (is_synthetic(image) and not of_a_patient)
    translated = not synthetic and (translated or bool(image.origin.get("translated")))
    found = marks(image, synthetic or translated or is_synthetic(image), provenance, translated)
    if kind == "dicom":
        from fabrica.io.dicom_write import write_dicom

        files: list[Path] = write_dicom(image, path, synthetic=synthetic, translated=translated, **provenance)
        return files
    if kind == "nifti":
        from fabrica.io.nifti import write_nifti

        write_nifti(image, path, found)
    elif kind == "npz":
        from fabrica.io.archive import write_npz

        write_npz(image, path, found)
    else:
        from fabrica.io.raster import write_raster

        write_raster(image, path, kind.upper(), found, bits=bits, clip=clip)
    return [path]


def format_of(path: str | Path) -> str:
    """ "dicom", "nifti", "png", "jpeg", "tiff", "npz" or "zip", by content, of a file; ReadError for others."""
    from fabrica.io.dicom import is_dicom
    from fabrica.io.nifti import is_nifti
    from fabrica.io.raster import raster_kind

    path = Path(path)
    try:
        with path.open("rb") as file:
            head = file.read(4096)
    except OSError as error:
        raise ReadError(f"{path}: cannot be opened ({error.strerror}); {_EXPECTED}") from error
    if not head:
        raise ReadError(f"{path}: the file is empty; {_EXPECTED}")
    if head[128:132] == b"DICM":  # first, since a DICOM preamble may imitate a TIFF
        return "dicom"
    if picture := raster_kind(head):
        return picture.lower()
    if head.startswith((b"PK\3\4", b"PK\5\6")):
        from fabrica.io.archive import is_npz

        return "npz" if path.suffix.lower() == ".npz" or is_npz(path) else "zip"
    if is_nifti(_gunzip(head) if head.startswith(b"\x1f\x8b") else head):
        return "nifti"
    if is_dicom(path):
        return "dicom"
    raise ReadError(f"{path}: {_complaint(path, head)}; {_EXPECTED}")


def suffix_of(as_: str, dims: int = 2) -> str:
    """The ending of files of this kind, "" for volumes as DICOM: folders of slices. UsageError for an unknown kind."""
    if as_ not in SUFFIXES:
        raise UsageError(f"--as {as_}{did_you_mean(as_, SUFFIXES)}")
    return "" if as_ == "dicom" and dims == 3 else SUFFIXES[as_]


def _complaint(path: Path, head: bytes) -> str:
    suffix = _suffix(path)
    if suffix in _KNOWN_SUFFIXES:
        return f"damaged, or not what its suffix {suffix} says (it begins with {head[:8]!r})"
    return f"not an image: {'no suffix' if not suffix else f'a {suffix} file'}"


def _gunzip(head: bytes) -> bytes:
    """The beginning of a gzipped file, as far as it goes."""
    try:
        return zlib.decompressobj(16 + zlib.MAX_WBITS).decompress(head, 352)
    except zlib.error:
        return b""


def _suffix(path: Path) -> str:
    name = path.name.lower()
    return ".nii.gz" if name.endswith(".nii.gz") else path.suffix.lower()


def _output_format(image: Image, path: Path, as_: str) -> str:
    if as_:
        if as_ not in _FORMATS.values():
            raise UsageError(f"as_={as_!r}; expected one of {', '.join(dict.fromkeys(_FORMATS.values()))}")
        return as_
    suffix = _suffix(path)
    if suffix == "" and len(image.size) == 3:
        return "dicom"
    if suffix not in _FORMATS:
        raise UsageError(f"{path}: cannot write {suffix or 'without a suffix'}; expected one of {', '.join(_FORMATS)}")
    return _FORMATS[suffix]


def _read_folder(path: Path, frame: str, budget: int) -> Image:
    from fabrica.io.dicom import read_dicom, read_series

    series = _series(path)
    if frame and frame not in series:
        raise ReadError(f"{path}: no series {frame!r}; found {', '.join(series)}")
    if not frame and len(series) > 1:
        listed = "; ".join(f"{uid} ({len(files)} files)" for uid, files in list(series.items())[:5])
        raise ReadError(f"{path}: {len(series)} DICOM series, expected one; name one as the frame: {listed}")
    files = series[frame] if frame else next(iter(series.values()))
    return read_dicom(files[0], "", budget) if len(files) == 1 else read_series(files, budget)


def _series(folder: Path) -> dict[str, list[Path]]:
    """The DICOM files directly in a folder, by series.

    De-identification often blanks the SeriesInstanceUID. Where no file has one, all are taken as one series under
    the folder's name; `read_series` then insists that their sizes, spacings and orientations agree.
    """
    from fabrica.io.dicom import group_series, is_dicom

    files = sorted(p for p in folder.iterdir() if p.is_file() and not p.name.startswith("."))
    slices = [p for p in files if p.name != "DICOMDIR" and is_dicom(p)]
    if not slices:
        raise ReadError(
            f"{folder}: no DICOM slice among {len(files)} files; expected a folder of one series, or a file"
        )
    series = group_series(slices)
    if all(uid == str(members[0]) for uid, members in series.items()):  # group_series' way to say "none"
        return {str(folder): slices}
    return series
