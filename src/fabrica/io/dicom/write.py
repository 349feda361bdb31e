"""Write DICOM: objects derived from a source, and new objects (synthetic ones marked as such)."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.filewriter import correct_ambiguous_vr
from pydicom.uid import ExplicitVRLittleEndian

from fabrica.errors import FabricaError, UsageError
from fabrica.image import Float32, Image
from fabrica.io.atomic import atomic
from fabrica.io.dicom.file import one_line
from fabrica.io.dicom.new import new
from fabrica.io.dicom.objects import copyable, derived, series
from fabrica.io.dicom.provenance import Maker
from fabrica.io.dicom.stored import Grid, fitting, fitting_colour, grids, source_grid, store


def write_dicom(
    image: Image,
    path: Path | str,
    *,
    synthetic: bool,
    translated: bool = False,
    software: str = "Fabrica",
    version: str = "",
    model: str = "",
    model_hash: str = "",
    seed: int | None = None,
    description: str = "",
    uid_seed: str = "",
    uid_content: str = "",
    created: str = "",
    kind: str = "",
) -> list[Path]:
    """Write an image (C, H, W) as one file, or a volume (1, D, H, W) as a folder of 0001.dcm, 0002.dcm ...

    An image read from DICOM and not `synthetic` becomes a derived object: patient, study and place kept, new
    series and instances, derivation, sources and equipment on record. Of the same modality it is a copy of its
    source; of another (origin["modality"]) a new object of that one's class: CT as CT, MR as MR, radiographs as
    CR, others as secondary capture. `translated` marks it SyntheticData = YES. `synthetic` gives a new patient,
    study and series with that mark. UIDs are the same for the same pixels (and if `translated`, sources) whenever
    `uid_seed`, `model_hash` or `seed` is given; the same `uid_seed` puts several images into one synthetic
    patient and study. `uid_content` stands for the pixels: UIDs then follow from it, the model's hash and the sources'
    instances alone, so that whoever makes the result anew makes the same objects. `created` ("YYYYMMDDHHMMSS") is when
    they say that they were made; without it they do not say.

    A label map becomes one segmentation (see `fabrica.io.dicom.seg`), of the `kind` "seg" or "seg-labelmap": the file
    `path`, or 0001.dcm in it where it has no suffix.

    Values are kept to half a step of the source's rescale where they fit it, else of a 16-bit one.
    Returns the files written, in order. Raises UsageError for what DICOM cannot hold, before anything is written,
    FabricaError where the disk refuses; each file is whole or not there. One slice is in memory at a time.
    """
    path = Path(path)
    maker = Maker(software, version, model, model_hash, seed, description, uid_seed, uid_content, created)
    sources = () if synthetic else tuple(image.origin.get("dicom", ()))
    if kind or image.unit == "label":
        with _making(path, sources):
            return [_write_segmentation(image, path, kind or "seg", maker, sources, synthetic, translated)]
    slices = _slices(image)
    with _making(path, sources):
        copied = copyable(image, sources)
        chosen = _chosen_grids(image, slices, sources if copied else ())
        shared = series(image, maker, sources, synthetic, translated)
        make = derived if copied else new
        datasets = (make(shared, k, store(data, chosen[k])) for k, data in enumerate(slices))
        first = next(datasets)  # what is wrong with the geometry is wrong with all: known before a file is written
        if image.data.ndim == 3:
            return [_save(first, path)]
        _make_folder(path)
        return [_save(dataset, path / f"{k + 1:04d}.dcm") for k, dataset in enumerate(chain([first], datasets))]


def _write_segmentation(
    image: Image,
    path: Path,
    kind: str,
    maker: Maker,
    sources: tuple[Dataset, ...],
    synthetic: bool,
    translated: bool,
) -> Path:
    from fabrica.io.dicom.seg import segmentation

    dataset = segmentation(image, kind, maker, sources, synthetic, translated)
    if not path.suffix:
        _make_folder(path)
        path = path / "0001.dcm"
    return _save(dataset, path)


@contextmanager
def _making(path: Path, sources: Sequence[Dataset]) -> Iterator[None]:
    """Around all that takes elements from sources: those that reading did not need are parsed only now, and pydicom
    raises some twenty types for what it cannot parse or write, which become one FabricaError; its warnings of irregular
    values are dropped. Without sources, all values are ours, and so are errors."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except (FabricaError, OSError, MemoryError):
        raise
    except Exception as error:
        if not sources:
            raise
        raise FabricaError(
            f"{path}: cannot be written as DICOM, since its source's header is damaged: {one_line(error)}"
        ) from error


def _slices(image: Image) -> list[Float32]:
    """The image as slices (C, H, W), once it is certain that DICOM can hold them."""
    if image.channels not in (1, 3) or (image.channels == 3 and image.data.ndim == 4):
        raise UsageError(
            f"cannot write data of shape {image.data.shape} as DICOM; expected (1 or 3, H, W) or (1, D, H, W)"
        )
    if max(image.data.shape[-2:]) > 65535 or min(image.data.shape) < 1:
        raise UsageError(f"cannot write data of shape {image.data.shape} as DICOM; a side is 1 to 65535 pixels")
    return [image.data] if image.data.ndim == 3 else [image.data[:, k] for k in range(image.data.shape[1])]


def _chosen_grids(image: Image, slices: Sequence[Float32], sources: Sequence[Dataset]) -> list[Grid]:
    """The grid of each slice: its source's if that holds its values. Refuses values that DICOM cannot hold.

    Rounding keeps order, so the lowest and highest value of a slice tell whether all fit.
    """
    ends = [(float(data.min()), float(data.max())) for data in slices]
    if not np.isfinite(ends).all():
        raise UsageError("cannot write NaN or infinite values as DICOM; replace them first")
    if image.channels == 3:
        return [fitting_colour(*pair) for pair in ends]
    others = grids(image, min(low for low, _ in ends), max(high for _, high in ends))
    own = [source_grid(source) for source in sources] or [None] * len(slices)
    return [fitting(*pair, [kept, *others] if kept else others) for pair, kept in zip(ends, own, strict=True)]


def _make_folder(path: Path) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FabricaError(f"{path}: cannot be made ({error.strerror}); a volume needs a folder") from error


def _save(dataset: Dataset, path: Path) -> Path:
    """Explicit VR Little Endian with a valid meta group and a zeroed preamble, in one piece."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    file = FileDataset(str(path), dataset, b"\0" * 128, meta, False, True)
    with atomic(path) as temporary:
        correct_ambiguous_vr(file, True)
        file.save_as(temporary, enforce_file_format=True)
    return path
