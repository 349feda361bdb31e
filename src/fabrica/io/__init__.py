"""Files in and out: DICOM, NIfTI, MetaImage, NRRD, MGH, pictures, npz and zip, by one `read` and one `write`.

A reader goes by the content of a file, and by its suffix only where the content says nothing.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fabrica.errors import ReadError, UsageError, did_you_mean
from fabrica.image import VOLUMES, Image
from fabrica.io.budget import DEFAULT_BUDGET
from fabrica.io.display import to_display
from fabrica.io.uneven import evenly

__all__ = [
    "DEFAULT_BUDGET",
    "SEGMENTATIONS",
    "SUFFIXES",
    "UNREAD",
    "VOLUME_SUFFIXES",
    "files_of",
    "format_of",
    "frames",
    "kind_of",
    "mask_labels",
    "npz_labels",
    "read",
    "read_mask",
    "suffix_of",
    "to_display",
    "write",
    "zip_pictures",
]

SUFFIXES = {  # of what is written
    "png": ".png",
    "nifti": ".nii.gz",
    "dicom": ".dcm",
    "npz": ".npz",
    "tiff": ".tif",
    "metaimage": ".mha",
    "nrrd": ".nrrd",
    "mgh": ".mgz",
}
SEGMENTATIONS = ("seg", "seg-labelmap")
"""What is written of label maps alone: DICOM SEG with a frame for each segment, or with one for each slice."""

VOLUME_SUFFIXES = (".nii", ".nii.gz", ".mha", ".mhd", ".nrrd", ".nhdr", ".mgh", ".mgz")
"""Of the volume formats beside DICOM."""

UNREAD = {
    ".par": ("Philips PAR/REC", "dcm2niix"),
    ".rec": ("Philips PAR/REC", "dcm2niix"),
    ".xmlrec": ("Philips PAR/REC", "dcm2niix"),
    ".mnc": ("MINC", "mnc2nii"),
    ".v": ("ECAT", "nib-convert"),
    ".hdr": ("Analyze or a NIfTI pair", "nib-convert, to .nii.gz"),
    ".img": ("Analyze or a NIfTI pair", "nib-convert, to .nii.gz"),
    ".head": ("AFNI", "3dAFNItoNIFTI"),
    ".brik": ("AFNI", "3dAFNItoNIFTI"),
    ".mif": ("MRtrix", "mrconvert"),
    ".mih": ("MRtrix", "mrconvert"),
    "2dseq": ("Bruker ParaVision", "brkraw"),
    ".2dseq": ("Bruker ParaVision", "brkraw"),
    ".fdf": ("Varian FDF", "ImageJ, to .tif"),
    ".b8": ("bare voxels of 8 bits", "a .mhd header beside it"),
    ".gipl": ("GIPL", "SimpleITK, to .mha"),
    ".mrc": ("MRC", "SimpleITK, to .mha"),
    ".vti": ("VTK", "ParaView, to .mha"),
    ".vtk": ("VTK", "ParaView, to .mha"),
    ".h5": ("HDF5", "h5py and nibabel, to .nii.gz"),
    ".hdf5": ("HDF5", "h5py and nibabel, to .nii.gz"),
    ".mat": ("MATLAB", "niftiwrite of MATLAB"),
    ".npy": ("a NumPy array", "numpy.savez, to .npz"),
    ".bmp": ("BMP", "magick mogrify -format png"),
    ".gif": ("GIF", "magick mogrify -format png"),
    ".webp": ("WebP", "magick mogrify -format png"),
    ".heic": ("HEIC", "magick mogrify -format png"),
    ".pgm": ("PNM", "magick mogrify -format png"),
    ".ppm": ("PNM", "magick mogrify -format png"),
    ".pnm": ("PNM", "magick mogrify -format png"),
    ".jp2": ("JPEG 2000", "magick mogrify -format png"),
    ".j2k": ("JPEG 2000", "magick mogrify -format png"),
    ".svs": ("a whole slide", "vips dzsave, to tiles"),
    ".ndpi": ("a whole slide", "vips dzsave, to tiles"),
    ".mrxs": ("a whole slide", "vips dzsave, to tiles"),
    ".scn": ("a whole slide", "vips dzsave, to tiles"),
    ".vms": ("a whole slide", "vips dzsave, to tiles"),
    ".bif": ("a whole slide", "vips dzsave, to tiles"),
    ".czi": ("microscopy", "bfconvert, to .tif"),
    ".nd2": ("microscopy", "bfconvert, to .tif"),
    ".lif": ("microscopy", "bfconvert, to .tif"),
    ".avi": ("a video", "ffmpeg, to frames as .png"),
    ".mp4": ("a video", "ffmpeg, to frames as .png"),
    ".mov": ("a video", "ffmpeg, to frames as .png"),
    ".mkv": ("a video", "ffmpeg, to frames as .png"),
}
"""Images that are not read: how the name ends, in lower case -> what it is, and what converts it to what is read."""

_EXPECTED = "expected DICOM, NIfTI, MetaImage, NRRD, MGH, PNG, JPEG, TIFF, npz or zip"
_KNOWN_SUFFIXES = (".dcm", *VOLUME_SUFFIXES, ".png", ".jpg", ".jpeg", ".tif", ".tiff", ".npz", ".zip")
_FORMATS = {
    ".dcm": "dicom",
    ".nii": "nifti",
    ".nii.gz": "nifti",
    ".mha": "metaimage",
    ".mhd": "metaimage",
    ".nrrd": "nrrd",
    ".nhdr": "nrrd",
    ".mgz": "mgh",
    ".mgh": "mgh",
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
    DICOM slices lacks, and "nan", the number of voxels that were not finite and were set to the lowest value.
    Raises ReadError, in one line, for whatever cannot be read.

    >>> import fabrica
    >>> from fabrica.phantoms.head.head import head
    >>> ct = head(seed=0, size=64, contrasts=["CT"]).images["CT"]
    >>> written = fabrica.write(ct, "head.dcm")
    >>> image = fabrica.read("head.dcm")
    >>> image.data.shape, image.unit, image.origin["modality"]
    ((1, 64, 64), 'HU', 'CT')
    """
    path = Path(path)
    if path.is_dir():
        from fabrica.io.dicom.read import read_folder

        return read_folder(path, frame, budget)
    kind = format_of(path)
    if kind == "dicom":
        from fabrica.io.dicom.read import read_dicom

        return read_dicom(path, frame, budget)
    if kind in ("npz", "zip"):
        from fabrica.io.archive import holds_picture, read_npz, read_zip
        from fabrica.io.packed import without_images

        if kind == "npz":
            return read_npz(path, frame, budget)
        if holds_picture(path, frame):
            return read_zip(path, frame, budget)
        if not _holds_dicom(path):
            if not holds_picture(path):
                raise ReadError(f"{path}: {without_images(path)}")
            return read_zip(path, frame, budget)
        from fabrica.io.dicom.read import read_folder

        return read_folder(path, frame, budget)
    if kind in VOLUMES:
        return _volume_reader(kind)[0](path, frame, budget)
    if frame:
        raise ReadError(f"{path}: holds one image, found frame {frame!r}; leave the frame out")
    from fabrica.io.raster import read_raster

    return read_raster(path, budget)


def frames(path: str | Path, budget: int = DEFAULT_BUDGET) -> list[str]:
    """What `read` takes as `frame`, one string an image: [""] for a file of one image.

    Reads directories and headers only. The frames of a multi-frame DICOM and the pages of a TIFF are one volume
    and so are not listed. Raises ReadError for what is not an image, or whose list alone exceeds `budget`.
    """
    path = Path(path)
    if path.is_dir():
        from fabrica.io.dicom.read import frames_below

        return frames_below(path)
    kind = format_of(path)
    if kind == "dicom":
        from fabrica.io.dicom.read import frames_in

        return frames_in(path, budget)
    if kind in VOLUMES:
        return _volume_reader(kind)[1](path, budget)
    if kind not in ("npz", "zip"):
        return [""]
    from fabrica.io.archive import npz_frames, zip_frames

    if kind == "npz":
        return npz_frames(path, budget)
    pictures = zip_frames(path)
    if pictures or not _holds_dicom(path):
        return pictures
    from fabrica.io.dicom.read import frames_below

    return frames_below(path)


def files_of(path: Path) -> list[Path]:
    """The files that an image file is made of: itself, and the one of voxels that a MetaImage or NRRD header names."""
    name = path.name.lower()
    if not name.endswith((".mhd", ".mha", ".nhdr", ".nrrd")):
        return [path]
    from fabrica.io.metaimage import metaimage_voxels
    from fabrica.io.nrrd import nrrd_voxels

    try:
        voxels = metaimage_voxels(path) if name.endswith((".mhd", ".mha")) else nrrd_voxels(path)
    except ReadError:
        return [path]
    return [path] if voxels == path else [path, voxels]


def zip_pictures(path: Path) -> list[str]:
    """The members of a zip archive that are pictures, by name."""
    from fabrica.io.archive import zip_frames

    return zip_frames(path)


def read_mask(path: str | Path, frame: str = "", grid: Image | None = None, budget: int = DEFAULT_BUDGET) -> Image:
    """Any file of masks, or a folder of one file an organ, as one label map. See `fabrica.io.masks.read_mask`.

    >>> import fabrica
    >>> from fabrica.phantoms.head.head import head
    >>> written = fabrica.write(head(seed=0, size=64, slices=4).tissue, "tissue.nii.gz")
    >>> mask = fabrica.io.read_mask("tissue.nii.gz")
    >>> mask.data.shape, mask.unit
    ((1, 4, 64, 64), 'label')
    """
    from fabrica.io import masks

    return masks.read_mask(path, frame, grid, budget)


def mask_labels(path: str | Path) -> dict[int, str]:
    """What the labels of a mask are called, without its voxels. See `fabrica.io.masks.mask_labels`."""
    from fabrica.io import masks

    return masks.mask_labels(path)


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
    as_         "dicom", "nifti", "metaimage", "nrrd", "mgh", "png", "tiff", "jpeg" or "npz", instead of the suffix; a
                volume's path without a suffix is a folder of DICOM slices. A label map as DICOM is one segmentation
                (SEG): "seg", a frame for each segment, which is what "dicom" means then, or "seg-labelmap", a frame
                for each slice, which fewer programs read.
    bits, clip  for pictures: see `fabrica.io.raster.write_raster`.
    provenance  software, version, model, model_hash, seed, description, and for DICOM uid_seed, uid_content, created.
    Raises UsageError where the format cannot hold the image, FabricaError where the disk refuses.

    >>> import fabrica
    >>> from fabrica.phantoms.head.head import head
    >>> volume = head(seed=0, size=64, slices=4, contrasts=["T1"]).images["T1"]  # (1, 4, 64, 64)
    >>> [path.name for path in fabrica.write(volume, "t1.nii.gz")]
    ['t1.nii.gz']
    >>> [path.name for path in fabrica.write(volume, "series", as_="dicom")]
    ['0001.dcm', '0002.dcm', '0003.dcm', '0004.dcm']
    """
    path = Path(path)
    kind = _output_format(image, path, as_)
    if kind not in ("dicom", *SEGMENTATIONS):  # which alone can say where each slice lies
        image = evenly(image)
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
    if kind in ("dicom", *SEGMENTATIONS):
        from fabrica.io.dicom.write import write_dicom

        provenance["kind"] = "" if kind == "dicom" else kind
        files: list[Path] = write_dicom(image, path, synthetic=synthetic, translated=translated, **provenance)
        return files
    if kind in VOLUMES:
        return _write_volume(kind, image, path, found)
    if kind == "npz":
        from fabrica.io.archive import write_npz

        write_npz(image, path, found)
    else:
        from fabrica.io.raster import write_raster

        write_raster(image, path, kind.upper(), found, bits=bits, clip=clip)
    return [path]


def format_of(path: str | Path) -> str:
    """ "dicom", "nifti", "metaimage", "nrrd", "mgh", "png", "jpeg", "tiff", "npz" or "zip", by content, of a file.

    Raises ReadError for others.
    """
    from fabrica.io.dicom.mark import is_dicom
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
    if volume := _volume_kind(head):
        return volume
    if is_dicom(path):
        return "dicom"
    raise ReadError(f"{path}: {_complaint(path, head)}; {_EXPECTED}")


def _volume_kind(head: bytes) -> str:
    """Which of VOLUMES a file that begins so is, "" for none."""
    from fabrica.io.metaimage import is_metaimage
    from fabrica.io.mgh import is_mgh
    from fabrica.io.nifti import is_nifti
    from fabrica.io.nrrd import is_nrrd

    if head.startswith(b"\x1f\x8b"):
        head = _gunzip(head)
    known = {"nifti": is_nifti, "nrrd": is_nrrd, "mgh": is_mgh, "metaimage": is_metaimage}
    return next((kind for kind, looks_so in known.items() if looks_so(head)), "")


def _volume_reader(kind: str) -> tuple[Callable[[Path, str, int], Image], Callable[[Path, int], list[str]]]:
    """What reads a file of this kind, and what lists its volumes."""
    if kind == "metaimage":
        from fabrica.io.metaimage import metaimage_frames, read_metaimage

        return read_metaimage, metaimage_frames
    if kind == "nrrd":
        from fabrica.io.nrrd import nrrd_frames, read_nrrd

        return read_nrrd, nrrd_frames
    if kind == "mgh":
        from fabrica.io.mgh import mgh_frames, read_mgh

        return read_mgh, mgh_frames
    from fabrica.io.nifti import nifti_frames, read_nifti

    return read_nifti, nifti_frames


def _write_volume(kind: str, image: Image, path: Path, marks: dict[str, str]) -> list[Path]:
    """Write one of VOLUMES: the file, and the file beside it that some headers have for the voxels."""
    if kind == "metaimage":
        from fabrica.io.metaimage import write_metaimage

        return write_metaimage(image, path, marks)
    if kind == "nrrd":
        from fabrica.io.nrrd import write_nrrd

        return write_nrrd(image, path, marks)
    if kind == "mgh":
        from fabrica.io.mgh import write_mgh

        write_mgh(image, path, marks)
    else:
        from fabrica.io.nifti import write_nifti

        write_nifti(image, path, marks)
    return [path]


def kind_of(path: Path) -> str:
    """The format that a file of this name is written in, by its suffix; "" for a suffix of none."""
    return _FORMATS.get(_suffix(path), "")


def suffix_of(as_: str, dims: int = 2, labels: bool = False) -> str:
    """The ending of files of this kind, "" for volumes as DICOM: folders of slices; `labels`: of label maps, which are
    one file. UsageError for an unknown kind."""
    known = {**SUFFIXES, **dict.fromkeys(SEGMENTATIONS, ".dcm")} if labels else SUFFIXES
    if as_ not in known:
        more = "; seg is for label maps" if as_ in SEGMENTATIONS else ""
        raise UsageError(f"--as {as_}{did_you_mean(as_, known)}{more}")
    return "" if as_ == "dicom" and dims == 3 and not labels else known[as_]


def _complaint(path: Path, head: bytes) -> str:
    suffix = _suffix(path)
    if suffix in _KNOWN_SUFFIXES:
        return f"damaged, or not what its suffix {suffix} says (it begins with {head[:8]!r})"
    return f"not an image: {'no suffix' if not suffix else f'a {suffix} file'}"


def _holds_dicom(archive: Path) -> bool:
    from fabrica.io.dicom.mark import is_dicom
    from fabrica.io.packed import members

    return any(is_dicom(member) for member in members(archive))


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
        known = dict.fromkeys((*_FORMATS.values(), *SEGMENTATIONS))
        if as_ not in known:
            raise UsageError(f"as_={as_!r}; expected one of {', '.join(known)}")
        return as_
    suffix = _suffix(path)
    if suffix == "" and len(image.size) == 3:
        return "dicom"
    if suffix not in _FORMATS:
        raise UsageError(f"{path}: cannot write {suffix or 'without a suffix'}; expected one of {', '.join(_FORMATS)}")
    return _FORMATS[suffix]
