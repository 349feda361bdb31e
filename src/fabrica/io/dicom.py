"""Read DICOM: one file, one frame, or a series of slices as one volume."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from pydicom.dataset import Dataset
from pydicom.uid import UID

from fabrica.errors import ReadError, UsageError
from fabrica.image import Float32, Float64, Image
from fabrica.io import budget as memory
from fabrica.io.budget import DEFAULT_BUDGET
from fabrica.io.dicom_file import OpenDicom, is_dicom, opened
from fabrica.io.dicom_geometry import SAME_POSITION, Place, affine, frame_geometry, gaps, place, same_plane, stack_step
from fabrica.io.dicom_pixels import check_budget, decode_frames, frame_count
from fabrica.io.dicom_values import Physical, is_hounsfield, physical

__all__ = ["group_series", "header", "is_dicom", "read_dicom", "read_series"]

_HEADER = {
    "modality": "Modality",
    "patient": "PatientID",
    "study": "StudyInstanceUID",
    "series": "SeriesInstanceUID",
    "sop": "SOPInstanceUID",
    "sop_class": "SOPClassUID",
    "rows": "Rows",
    "columns": "Columns",
    "instance": "InstanceNumber",
    "photometric": "PhotometricInterpretation",
    "body_part": "BodyPartExamined",
    "description": "SeriesDescription",
    "sex": "PatientSex",
    "age": "PatientAge",
}


_ABOUT = {"age": "PatientAge", "sex": "PatientSex", "view": "ViewPosition"}  # what a model may be told of an image
_NO_PIXELS = np.empty((0, 0, 0), dtype=np.float32)  # a view of a frame, however small, would keep all of it


@dataclass(frozen=True)
class _Slice:
    """One file of a series before its pixels are decoded."""

    path: Path
    place: Place
    shape: tuple[int, int, int]
    series: str
    instance: int


def read_dicom(path: Path | str, frame: str = "", budget: int = DEFAULT_BUDGET) -> Image:
    """One DICOM file as an Image in physical units.

    A single frame gives (C, H, W), several give (C, D, H, W); C is 3 for colour, else 1. `frame` is a DICOM
    frame number (from 1): only that frame is decoded. Frames that lie along one line in the patient are put
    in spatial order if they are not; others keep their order in the file (noted). Raises ReadError for
    everything that is not a readable image, and where decoding would take more than `budget` bytes.
    """
    path, notes = Path(path), list[str]()
    with opened(path, budget, notes) as file:
        count = _frames_of_image(file)
        wanted = [_frame_index(frame, count, path)] if frame else list(range(count))
        channels, rows, columns = check_budget(file, len(wanted), budget)
        order, matrix, missing = frame_geometry(file.dataset, wanted, notes)
        data, frames = _NO_PIXELS, list[Physical]()
        decoded = zip(wanted, np.argsort(order), decode_frames(file, wanted, budget), strict=True)
        for index, k, (raw, space) in decoded:
            if not frames:  # not before: a header may promise gigabytes that its file does not hold
                data = np.empty((channels, len(wanted), rows, columns), dtype=np.float32)
            values = physical(raw, space, file.dataset, index, notes)
            data[:, k] = values.data
            frames.append(replace(values, data=_NO_PIXELS))
        if len(wanted) == 1:
            data = data[:, 0]
        return _image(data, matrix, frames, (file.dataset,), path, notes, missing)


def header(path: Path | str) -> dict[str, str]:
    """What a file says about itself, its pixels untouched. Every value is a string, "" where absent.

    Keys: modality, patient, study, series, sop, sop_class, rows, columns, frames ("0" without pixels),
    instance, photometric, body_part, description, sex, age, syntax.
    """
    path = Path(path)
    with opened(path, DEFAULT_BUDGET, header_only=True) as file:
        values = {key: _text(file.dataset.get(keyword)) for key, keyword in _HEADER.items()}
        values["frames"] = "0" if file.pixels is None else _text(file.dataset.get("NumberOfFrames")) or "1"
        values["syntax"] = _text(file.dataset.file_meta.get("TransferSyntaxUID"))
        return values


def group_series(paths: Iterable[Path | str]) -> dict[str, list[Path]]:
    """Files by SeriesInstanceUID, in the order given; a file without one stands alone under its own path."""
    groups: dict[str, list[Path]] = {}
    for path in map(Path, paths):
        groups.setdefault(header(path)["series"] or str(path), []).append(path)
    return groups


def read_series(paths: Sequence[Path | str], budget: int = DEFAULT_BUDGET, strict: bool = False) -> Image:
    """The slices of one series as one volume (C, D, H, W), sorted by position along the slice normal.

    Names and instance numbers play no part in the order. A second file at a position already filled is left
    out, and missing or uneven slices are reported in origin["notes"], the missing ones counted in
    origin["missing"]; with `strict` each of these is a ReadError. Mixed series, sizes, spacings or orientations
    are always a ReadError.
    """
    if not paths:
        raise UsageError("read_series needs at least one file")
    notes: list[str] = []
    slices = _in_place([_inspect(Path(p), budget, notes) for p in paths])
    slices, found = _without_duplicates(slices)
    gap_notes, missing = gaps([s.place for s in slices])
    found += gap_notes
    if strict and found:
        raise ReadError(f"{slices[0].path.parent}: {found[0]}; expected one file at every position")
    channels, rows, columns = slices[0].shape
    what = f"a series of {len(slices)} slices of {rows} x {columns}"
    memory.check(4 * channels * rows * columns * len(slices), budget, what, slices[0].path)
    data = np.empty((channels, len(slices), rows, columns), dtype=np.float32)
    frames: list[Physical] = []
    datasets: list[Dataset] = []
    for k, item in enumerate(slices):
        with opened(item.path, budget, notes) as file:
            raw, space = next(iter(decode_frames(file, [0], budget)))
            frame = physical(raw, space, file.dataset, 0, notes)
            data[:, k] = frame.data
            frames.append(replace(frame, data=_NO_PIXELS))
            datasets.append(file.dataset)
    matrix = affine(slices[0].place, stack_step([s.place for s in slices], missing))
    return _image(data, matrix, frames, tuple(datasets), slices[0].path, notes + found, missing)


def _frames_of_image(file: OpenDicom) -> int:
    if file.pixels is None and file.source.cut_short:
        raise ReadError(f"{file.path}: ends within its header; the file is cut short or damaged")
    if file.pixels is None:
        meta, dataset = file.dataset.file_meta, file.dataset
        kind = UID(_text(dataset.get("SOPClassUID") or meta.get("MediaStorageSOPClassUID"))).name or "unknown class"
        raise ReadError(f"{file.path}: holds no image ({kind}); expected a DICOM file with pixel data")
    for keyword in ("Rows", "Columns", "SamplesPerPixel", "PhotometricInterpretation", "BitsAllocated"):
        if file.dataset.get(keyword) is None:
            raise ReadError(f"{file.path}: has pixel data but no {keyword}; it cannot be decoded")
    return frame_count(file)


def _frame_index(frame: str, count: int, path: Path) -> int:
    if not frame.isascii() or not frame.isdigit() or not 1 <= int(frame) <= count:
        raise ReadError(f"{path}: has no frame {frame!r}; expected a number from 1 to {count}")
    return int(frame) - 1


def _inspect(path: Path, budget: int, notes: list[str]) -> _Slice:
    with opened(path, budget, header_only=True) as file:
        frames = _frames_of_image(file)
        if frames != 1:
            raise ReadError(f"{path}: holds {frames} frames; expected one slice a file (use read_dicom for it)")
        shape = check_budget(file, 1, budget)
        found = list[str]()
        where = place(file.dataset, 0, found)
        notes.extend(note for note in found if note not in notes)
        series = _text(file.dataset.get("SeriesInstanceUID"))
        number = _text(file.dataset.get("InstanceNumber"))
        return _Slice(path, where, shape, series, int(number) if number.lstrip("-").isdigit() else 0)


def _in_place(slices: list[_Slice]) -> list[_Slice]:
    """The slices sorted along their common normal, once it is certain that they have one."""
    first = slices[0]
    for other in slices[1:]:
        if other.series != first.series:
            raise ReadError(f"{other.path}: is of another series than {first.path.name}; read each on its own")
        if other.shape != first.shape:
            raise ReadError(
                f"{other.path}: is {other.shape[1]} x {other.shape[2]}, {first.path.name} is "
                f"{first.shape[1]} x {first.shape[2]}; slices of one volume must have one size"
            )
        if other.place.position is None or first.place.position is None:
            raise ReadError(f"{other.path}: the series has no positions in the patient; read its files one by one")
        if not same_plane(first.place, other.place):
            raise ReadError(
                f"{other.path}: differs from {first.path.name} in orientation or pixel spacing; "
                "slices of one volume must be parallel (a localizer in the series?)"
            )
    return sorted(slices, key=lambda s: (s.place.depth, s.instance, str(s.path)))


def _without_duplicates(slices: list[_Slice]) -> tuple[list[_Slice], list[str]]:
    """One slice a position: of several, the one with the lowest instance number."""
    groups: list[list[_Slice]] = []
    for item in slices:
        if groups and item.place.depth - groups[-1][0].place.depth < SAME_POSITION:
            groups[-1].append(item)
        else:
            groups.append([item])
    kept = [min(group, key=lambda s: (s.instance, str(s.path))) for group in groups]
    left_out = len(slices) - len(kept)
    if not left_out:
        return kept, []
    return kept, [f"{left_out} of {len(slices)} files lie at a position already filled and were left out"]


def _image(
    data: Float32,
    matrix: Float64,
    frames: Sequence[Physical],
    datasets: tuple[Dataset, ...],
    path: Path,
    notes: list[str],
    missing: int,
) -> Image:
    origin: dict[str, Any] = {
        "path": str(path),
        "format": "dicom",
        "modality": _text(datasets[0].get("Modality")),
        "patient": _text(datasets[0].get("PatientID")),
        "about": {name: _text(datasets[0].get(keyword)) for name, keyword in _ABOUT.items()},
        "range": (min(f.low for f in frames), max(f.high for f in frames)),
        "dicom": datasets,
        "notes": tuple(dict.fromkeys(notes)),
    }
    if missing:
        origin["missing"] = missing
    step = min(f.step for f in frames)
    if step > 0:
        origin["step"] = step
    window = frames[len(frames) // 2].window
    if window is not None:
        origin["window"] = window
    unit = "HU" if is_hounsfield(datasets[0]) else "arbitrary"
    return Image(np.ascontiguousarray(data), matrix, unit, origin)


def _text(value: Any) -> str:
    return "" if value is None else str(value).strip()
