"""Read DICOM: one file, one frame, or the images that a folder's series hold."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from pydicom.dataset import Dataset
from pydicom.uid import UID

from fabrica.errors import ReadError, UsageError, did_you_mean
from fabrica.image import Array, Float32, Image
from fabrica.io import budget as memory
from fabrica.io.budget import DEFAULT_BUDGET
from fabrica.io.dicom.file import OpenDicom, guarded, opened
from fabrica.io.dicom.frames import EMPTY, GUESSED, Frame, frames_of
from fabrica.io.dicom.geometry import stack
from fabrica.io.dicom.header import Header, read_header
from fabrica.io.dicom.kinds import LABEL_MAP, is_colour, unit_of
from fabrica.io.dicom.mark import is_dicom
from fabrica.io.dicom.pixels import check_budget, decode_frames
from fabrica.io.dicom.segments import names_of
from fabrica.io.dicom.values import Physical, physical, unit_and_factor
from fabrica.io.dicom.volumes import Arranged, Volume, arrange, series_name
from fabrica.io.packed import Packed, as_path, members

__all__ = ["frames_below", "frames_in", "is_dicom", "read_dicom", "read_folder", "read_series", "read_volume"]

_ABOUT = {"age": "PatientAge", "sex": "PatientSex", "view": "ViewPosition"}  # what a model may be told of an image
_NEEDED = ("Rows", "Columns", "BitsAllocated")
_NO_PIXELS = np.empty((0, 0, 0), dtype=np.float32)  # a view of a frame, however small, would keep all of it
YOUNG = 10**9  # nanoseconds: what was written just now may be written again within one tick of the clock
_SHOWN = 8  # images that a message lists


def read_dicom(path: Path | str, frame: str = "", budget: int = DEFAULT_BUDGET) -> Image:
    """One DICOM file as an Image in physical units: (C, H, W), or (C, D, H, W) of several slices; C is 3 for colour.

    frame   what tells one image of the file from its others ("echo=2"; see `frames_in`), or a DICOM frame's number
            (from 1): that frame alone is decoded.
    budget  bytes of memory that the decoded image may need.
    Raises ReadError, in one line, for everything that is not a readable image, and for a file of several of which none
    is named.
    """
    path = as_path(path)
    header, arranged = _file(path, budget)
    if frame.isascii() and frame.isdigit():
        return read_volume(_single(header, frame), budget)
    return read_volume(_chosen(arranged, frame, path), budget)


def read_series(paths: Sequence[Path | str], budget: int = DEFAULT_BUDGET, frame: str = "") -> Image:
    """The image that these files of one series hold, its slices sorted by where they lie; of several, the one that
    `frame` names. Names of files play no part."""
    if not paths:
        raise UsageError("read_series needs at least one file")
    headers = [read_header(path, budget) for path in paths]
    for header in headers:
        _check_image(header)
    return read_volume(_chosen(arrange(headers), frame, Path(paths[0]).parent), budget)


def read_folder(folder: Path, frame: str = "", budget: int = DEFAULT_BUDGET) -> Image:
    """The image of a folder (or zip archive) of DICOM files, in it and below; of several, the one that `frame` names: a
    SeriesInstanceUID, what tells images of one series apart ("echo=2"), or both joined by a colon."""
    series = series_below(folder)
    uid, tells = _parted(frame, series)
    if not uid and len(series) > 1:
        ordinary = {name: found for name, found in series.items() if _ordinary(found)}
        if len(ordinary) != 1:
            listed = "; ".join(f"{name} ({_count(found)})" for name, found in list(series.items())[:_SHOWN])
            more = "; ..." if len(series) > _SHOWN else ""
            raise ReadError(
                f"{folder}: {len(series)} DICOM series, expected one; name one as the frame: {listed}{more}"
            )
        series = ordinary
    if uid and uid not in series:
        raise ReadError(f"{folder}: no series {uid!r}; found {', '.join(list(series)[:_SHOWN])}")
    return read_volume(_chosen(series[uid] if uid else next(iter(series.values())), tells, folder), budget)


def frames_in(path: Path, budget: int = DEFAULT_BUDGET) -> list[str]:
    """What `read_dicom` takes as `frame`: [""] of a file that holds one image."""
    return [volume.tells for volume in _offered(_read(_file(path, budget)[1]))]


def frames_below(folder: Path) -> list[str]:
    """What `read_folder` takes as `frame`."""
    series = series_below(folder)
    found = []
    for uid, arranged in series.items():
        for volume in _offered(_read(arranged)):
            found.append(":".join(filter(None, (uid, volume.tells))) if len(series) > 1 else volume.tells)
    return found


def read_volume(volume: Volume, budget: int = DEFAULT_BUDGET) -> Image:
    """Decode the planes of one image, a file at a time, into an Image in physical units."""
    frames, notes = volume.frames, list(volume.notes)
    first = frames[0]
    channels = 3 if is_colour(volume.header) else 1
    rows, columns = first.size
    what = f"{len(frames)} x {rows} x {columns} pixels of {channels} samples"
    memory.check(4 * channels * len(frames) * rows * columns, budget, what, first.path)
    data = _NO_PIXELS
    decoded: dict[int, Physical] = {}
    datasets: dict[Path, Dataset] = {}
    seats: dict[Path, dict[int, list[int]]] = {}
    for k, frame in enumerate(frames):
        if frame.number != EMPTY:
            seats.setdefault(frame.path, {}).setdefault(frame.number, []).append(k)
    unit, broken = "arbitrary", dict[Path, ReadError]()
    for path, numbers in seats.items():
        try:
            with opened(path, budget, notes) as file:
                check_image(file)
                check_budget(file, 1, budget)
                unit, factor = unit_and_factor(file.dataset, path, volume.earliest)
                wanted = sorted(numbers)
                for number, (raw, space) in zip(wanted, decode_frames(file, wanted, budget), strict=True):
                    found = physical(raw, space, file.dataset, number, notes, factor)
                    for k in numbers[number]:
                        plane = found.data if (tile := frames[k].tile) is None else _cut(found.data, tile.of)
                        if data is _NO_PIXELS:  # not before: a header may promise gigabytes that its file does not hold
                            data = np.zeros((len(plane), len(frames), rows, columns), dtype=np.float32)
                        if plane.shape != (len(data), rows, columns):
                            raise ReadError(f"{path}: pixels of {plane.shape}, expected {(len(data), rows, columns)}")
                        data[:, k] = plane
                        decoded[k] = replace(found, data=_NO_PIXELS)
                datasets[path] = file.dataset
        except ReadError as error:
            broken[path] = error
    planes, data, values = _whole(frames, data, decoded, broken, notes)
    _fill_padding(data, values, notes)
    lies = stack([plane.place for plane in planes])
    with guarded(first.path):  # elements are parsed when they are asked for, and may be damaged
        origin = _origin(volume, values, datasets, planes, [*notes, *lies.notes])
    origin |= {"grid": lies.affine, "shape": (len(planes), rows, columns)}
    if lies.missing:
        origin["missing"] = lies.missing
    if lies.positions is not None:
        origin["positions"] = lies.positions
    if len(planes) == 1 and data.ndim == 4:
        data = data[:, 0]
    return Image(np.ascontiguousarray(data), lies.affine, unit, origin)


def check_image(file: OpenDicom) -> None:
    """Raise ReadError for a file that holds no image, or cannot be decoded for what its header lacks."""
    if file.pixels is None and file.source.cut_short:
        raise ReadError(f"{file.path}: ends within its header; the file is cut short or damaged")
    if file.pixels is None:
        meta, dataset = file.dataset.file_meta, file.dataset
        kind = UID(_text(dataset.get("SOPClassUID") or meta.get("MediaStorageSOPClassUID"))).name or "unknown class"
        raise ReadError(f"{file.path}: holds no image ({kind}); expected a DICOM file with pixel data")
    for keyword in _NEEDED:
        if file.dataset.get(keyword) is None:
            raise ReadError(f"{file.path}: has pixel data but no {keyword}; it cannot be decoded")


def _check_image(header: Header) -> None:
    if not header.frames or any(not header.get(keyword) for keyword in _NEEDED):
        with opened(header.path, DEFAULT_BUDGET, header_only=True) as file:
            check_image(file)


def _single(header: Header, frame: str) -> Volume:
    """One DICOM frame, by its number."""
    if not 1 <= int(frame) <= header.frames:
        raise ReadError(f"{header.path}: has no frame {frame!r}; expected a number from 1 to {header.frames}")
    found = [plane for plane in frames_of(header) if plane.number == int(frame) - 1 and plane.tile is None]
    if not found:
        raise ReadError(f"{header.path}: a montage of slices, not frames; leave the frame out")
    return Volume((found[0],), header, "", "", found[0].notes)


def _chosen(found: Arranged, tells: str, where: Path) -> Volume:
    """The image that is named; without a name the only one there is, or the only one of the patient as taken."""
    offered = _offered(found)
    named = [volume for volume in found.volumes if volume.tells == tells] if tells else offered
    if len(named) == 1:
        return named[0]
    _read(found)
    names = [volume.tells for volume in (found.volumes if tells else offered)]
    if tells:
        raise ReadError(f"{where}: no image {tells!r}{did_you_mean(tells, names)}")
    listed = "; ".join(
        f"{volume.tells} ({', '.join(filter(None, (volume.label, _size(volume))))})" for volume in offered[:_SHOWN]
    )
    more = f"; and {len(offered) - _SHOWN} more" if len(offered) > _SHOWN else ""
    raise ReadError(f"{where}: holds {len(offered)} images, expected one; name one as the frame: {listed}{more}")


def _read(found: Arranged) -> Arranged:
    """The same. Raises ReadError, with the first reason, where there is no image."""
    if not found.volumes:
        path, reason = found.refused[0]
        raise ReadError(f"{path}: {reason}")
    return found


def _offered(found: Arranged) -> list[Volume]:
    """The images of the patient as taken; where there are none, all."""
    return _ordinary(found) or found.volumes


def _ordinary(found: Arranged) -> list[Volume]:
    return [volume for volume in found.volumes if not volume.kind]


def _size(volume: Volume) -> str:
    n = len(volume.frames)
    return " x ".join(str(side) for side in ((n, *volume.frames[0].size) if n > 1 else volume.frames[0].size))


def _count(found: Arranged) -> str:
    files = {path for volume in found.volumes for path in volume.files} | {path for path, _ in found.refused}
    images = len(_offered(found))
    return f"{len(files)} files" + (f", {images} images" if images > 1 else "")


def _parted(frame: str, series: Iterable[str]) -> tuple[str, str]:
    """A frame as (series, what tells the image of it)."""
    for uid in sorted(series, key=len, reverse=True):  # a name given at de-identification may hold a colon itself
        if frame == uid or frame.startswith(f"{uid}:"):
            return uid, frame[len(uid) + 1 :]
    uid, colon, tells = frame.partition(":")
    if colon:
        return uid, tells
    return ("", frame) if "=" in frame else (frame, "")


def series_below(folder: Path) -> dict[str, Arranged]:
    """The series of the DICOM files in a folder and below it, by SeriesInstanceUID; those without one in a folder, as
    de-identification leaves them, are taken as one."""
    stamps = []
    if folder.is_file():  # a zip archive
        stamps = [(str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in members(folder)]
    for home, folders, names in os.walk(folder, followlinks=False):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            if not name.startswith(".") and name.upper() != "DICOMDIR":
                path = Path(home, name)
                try:
                    stat = path.stat()
                except OSError:
                    continue
                stamps.append((str(path), stat.st_size, stat.st_mtime_ns))
    found = _series_of(folder, tuple(stamps))
    if not found:
        raise ReadError(
            f"{folder}: no DICOM slice among {len(stamps)} files; expected a folder of one series, or a file"
        )
    return found


def _file(path: Path, budget: int) -> tuple[Header, Arranged]:
    """The header of a file, and what images its frames make; ReadError for one without any."""
    try:
        stat = path.stat()
    except OSError as error:
        raise ReadError(f"{path}: {error.strerror or error}") from error
    if abs(time.time_ns() - stat.st_mtime_ns) < YOUNG:
        return _file_of.__wrapped__(path, budget, 0, 0)
    return _file_of(path, budget, stat.st_size, stat.st_mtime_ns)


@lru_cache(maxsize=4)
def _file_of(path: Path, budget: int, size: int, changed: int) -> tuple[Header, Arranged]:
    """Of a file that has not changed: each of its images, of which there may be thousands, is read by itself."""
    header = read_header(path, budget)
    _check_image(header)
    return header, arrange([header])


@lru_cache(maxsize=4)
def _series_of(folder: Path, stamps: tuple[tuple[str, int, int], ...]) -> dict[str, Arranged]:
    """By series, of files that have not changed: every row of a manifest may come from one large folder. Files whose
    header cannot be read belong to none; where there are no others, the first says why."""
    headers: dict[str, list[Header]] = {}
    unreadable: list[ReadError] = []
    for name, _, _ in stamps:
        path = Packed(name) if folder.is_file() else Path(name)
        if path.name.upper() != "DICOMDIR" and is_dicom(path):
            try:
                header = read_header(path)
            except ReadError as error:
                unreadable.append(error)
                continue
            headers.setdefault(series_name(header, folder), []).append(header)
    if unreadable and not headers:
        raise unreadable[0]
    arranged = {uid: arrange(several) for uid, several in headers.items()}
    return {uid: found for uid, found in arranged.items() if found.volumes} or arranged


def _cut(data: Float32, of: Any) -> Float32:
    part: Float32 = np.moveaxis(of(np.moveaxis(data, 0, -1)), -1, 0)
    return part


def _whole(
    frames: Sequence[Frame],
    data: Float32,
    values: dict[int, Physical],
    broken: dict[Path, ReadError],
    notes: list[str],
) -> tuple[list[Frame], Float32, list[Physical]]:
    """The planes that are there: without those of files that cannot be read, which are counted, as long as there are
    others; of a mosaic that does not say how many, without the empty tiles at its end."""
    kept = [k for k in range(len(frames)) if frames[k].path not in broken]
    if not kept:
        raise next(iter(broken.values()))
    if broken:
        path, error = next(iter(broken.items()))
        why = str(error).removeprefix(f"{path}: ")
        of = len({frame.path for frame in frames})
        notes.append(f"{len(broken)} of {of} files cannot be read and were left out, {path.name} for one: {why}")
    if GUESSED in frames[0].notes:
        while len(kept) > 1 and not data[:, kept[-1]].any():
            kept.pop()
    if len(kept) < len(frames):
        data = data[:, kept]
    return [frames[k] for k in kept], data, [values[k] for k in kept if k in values]


def _fill_padding(data: Array, frames: Sequence[Physical], notes: list[str]) -> None:
    """Padding becomes the lowest of the values that are there, in place, and is counted. A zero below all of them stays
    what it was: the usual background, of which there is nothing to say."""
    padded = sum(frame.padded for frame in frames)
    if not padded:
        return
    lowest = float(np.min(data, where=~np.isnan(data), initial=np.inf))
    zeros = [frame.padding for frame in frames if frame.padded and frame.padding is not None]
    if zeros and min(zeros) <= lowest:
        data[np.isnan(data)] = min(zeros)
        return
    data[np.isnan(data)] = lowest if np.isfinite(lowest) else 0.0
    share = padded / (data.size // len(data))
    notes.append(f"{padded} pixels ({share:.0%}) are padding (PixelPaddingValue): set to the lowest value")


def _origin(
    volume: Volume, values: Sequence[Physical], datasets: dict[Path, Dataset], frames: Sequence[Frame], notes: list[str]
) -> dict[str, Any]:
    first = datasets[frames[0].path]
    own = [datasets[frame.path] for frame in frames]
    single = all(dataset is not own[0] for dataset in own[1:]) or len(own) == 1
    origin: dict[str, Any] = {
        "path": str(frames[0].path),
        "format": "dicom",
        "modality": _text(first.get("Modality")),
        "patient": _text(first.get("PatientID")),
        "about": {name: _text(first.get(keyword)) for name, keyword in _ABOUT.items()},
        "range": (min(value.low for value in values), max(value.high for value in values)),
        "dicom": tuple(own) if single else tuple(datasets.values()),
        "notes": tuple(dict.fromkeys(notes)),
    }
    if volume.tells:
        origin["tells"] = volume.tells
    if volume.label:
        origin["segment"] = volume.label
    if labels := _labels(volume):
        origin["labels"] = labels
    if volume.header.frames > 1 and all(f.path == frames[0].path and f.number != EMPTY and not f.tile for f in frames):
        origin["frames"] = tuple(frame.number + 1 for frame in frames)
    step = min(value.step for value in values)
    if step > 0:
        origin["step"] = step
    window = values[len(values) // 2].window
    if window is not None:
        origin["window"] = window
    return origin


def _labels(volume: Volume) -> dict[int, str]:
    """What the values of a segmentation are called; a segment alone has the value 1."""
    if volume.kind != "segmentation" or unit_of(volume.header) != "label":
        return {}
    if volume.header.get("SOPClassUID") == LABEL_MAP:
        return names_of(volume.header)
    return {1: volume.label} if volume.label else {}


def _text(value: Any) -> str:
    return "" if value is None else str(value).strip()
