"""A DICOM segmentation (SEG) as one label map: all of its segments, by their numbers, on one grid.

The number of a label is that of its segment, whatever numbers a file skips, so that the same organ has the same number
in files of which some lack another. Frames that a file leaves out are empty; what overlaps is no label map.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset

from fabrica.errors import ReadError, did_you_mean
from fabrica.image import MOST_LABELS, Array, Image
from fabrica.io import budget as memory
from fabrica.io.dicom.file import OpenDicom, opened
from fabrica.io.dicom.frames import EMPTY, Frame
from fabrica.io.dicom.header import Header
from fabrica.io.dicom.kinds import LABEL_MAP
from fabrica.io.dicom.laid import laid_on
from fabrica.io.dicom.pixels import check_budget, decode_frames
from fabrica.io.dicom.read import check_image
from fabrica.io.dicom.references import check_drawn_on
from fabrica.io.dicom.segments import label_of, left_out, names_of, segment_of
from fabrica.io.dicom.volumes import Volume, arrange

_NEXT = re.compile(r",(?=(?:segment|roi|plane|time)=)")  # a comma may belong to a name


def read_label_map(header: Header, frame: str, budget: int, grid: Image | None = None) -> Image:
    """The segments of a SEG as Image (1, D, H, W), or (1, H, W) of one plane, unit "label".

    frame  "segment=2,segment=5": these alone; "plane=1" where frames lie in several planes. "": all.
    grid   the image that it is to be laid on, which must be the one that the file says it was drawn on. Where its
           planes are slices of that, the result has all of these, and is empty on those that the file leaves out; else
           it lies on its own grid, as it does without one.

    A voxel belongs to a FRACTIONAL segment from half of its whole (MaximumFractionalValue) on.
    Raises ReadError for segments that overlap, naming both, and for files that contradict themselves; UsageError for
    uneven planes that are no slices of the grid, since nothing tells then which planes are left out.
    """
    path = header.path
    found = arrange([header])
    if found.refused:
        raise ReadError(f"{path}: {found.refused[0][1]}")
    wanted = asked(frame)
    volumes = _chosen(header, found.volumes, wanted, frame)
    planes = _planes(volumes)
    lies = laid_on(planes, grid, path)
    size = (len(lies.seats) if lies.depth is None else lies.depth, *planes[0].size)
    memory.check(4 * int(np.prod(size)), budget, " x ".join(map(str, size)) + " voxels", path)
    notes = [note for plane in planes for note in plane.notes]
    with opened(path, budget, notes) as file:
        check_image(file)
        check_budget(file, 1, budget)
        if grid is not None:
            check_drawn_on(file.dataset, grid, path)
        labels, numbers = _filled(file, header, volumes, lies.seats, size, budget)
        dataset = file.dataset
        patient = str(dataset.get("PatientID") or "").strip()
    names = names_of(header)
    if chosen := {int(number) for number in wanted.get("segment", ()) if number.isdecimal()}:
        names = {number: name for number, name in names.items() if number in chosen}
        labels[~np.isin(labels, list(chosen))] = 0
    notes += [*(left_out(planes) if lies.depth is None else ()), *lies.notes, *_undrawn(names, numbers)]
    origin: dict[str, Any] = {"path": str(path), "format": "dicom", "modality": "SEG", "patient": patient, "step": 1.0}
    origin |= {"range": (0.0, float(labels.max(initial=0))), "labels": names, "notes": tuple(dict.fromkeys(notes))}
    origin |= {"dicom": (dataset,), "grid": lies.affine, "shape": size}
    if lies.positions is not None:
        origin["positions"] = lies.positions
    data = labels[None].astype(np.float32)
    return Image(data if size[0] > 1 else data[:, 0], lies.affine, "label", origin)


def asked(frame: str) -> dict[str, list[str]]:
    """A frame's parts: "segment=1,segment=3" -> {"segment": ["1", "3"]}."""
    found: dict[str, list[str]] = defaultdict(list)
    for part in filter(None, _NEXT.split(frame)):
        key, _, value = part.partition("=")
        found[key].append(value)
    return dict(found)


def _chosen(header: Header, volumes: Sequence[Volume], wanted: Mapping[str, Sequence[str]], frame: str) -> list[Volume]:
    """The segments that are wanted, of one group of parallel planes."""
    is_map = header.get("SOPClassUID") == LABEL_MAP
    groups: dict[str, list[Volume]] = defaultdict(list)
    for volume in volumes:
        told = {"plane": "1", **dict(part.split("=", 1) for part in volume.tells.split(",") if "=" in part)}
        told["segment"] = _shown(header, volume)
        if all(told.get(key) in values or (is_map and key == "segment") for key, values in wanted.items()):
            groups[",".join(f"{key}={value}" for key, value in told.items() if key != "segment")].append(volume)
    listed = [segment.get("SegmentNumber", "") for segment in header.segments]
    known = dict.fromkeys(listed or (_shown(header, volume) for volume in volumes))
    if not groups or any(number not in known for number in wanted.get("segment", ())):
        raise ReadError(f"{header.path}: no {frame!r}{did_you_mean(frame, (f'segment={n}' for n in known))}")
    if len(groups) > 1:
        raise ReadError(
            f"{header.path}: its segments lie in {len(groups)} stacks of planes, which are no one label map; name one "
            f"as the frame: {'; '.join(list(groups)[:8])}"
        )
    return next(iter(groups.values()))


def _planes(volumes: Sequence[Volume]) -> list[Frame]:
    """The places of all, each with a frame of some segment, or EMPTY."""
    several = zip(*(volume.frames for volume in volumes), strict=True)
    return [next((plane for plane in planes if plane.number != EMPTY), planes[0]) for planes in several]


def _shown(header: Header, volume: Volume) -> str:
    """The number of the segment that a volume shows."""
    return next(segment_of(header, plane) for plane in volume.frames if plane.number != EMPTY)


def _number(header: Header, volume: Volume) -> int:
    shown = _shown(header, volume)
    if not shown.isdecimal() or not 1 <= int(shown) <= MOST_LABELS:
        raise ReadError(f"{header.path}: a segment is numbered {shown or '(not said)'}; expected 1 to {MOST_LABELS}")
    return int(shown)


def _filled(
    file: OpenDicom, header: Header, volumes: Sequence[Volume], seats: Sequence[int], size: Sequence[int], budget: int
) -> tuple[npt.NDArray[Any], list[int]]:
    """Labels (D, H, W), the planes of the volumes at their seats, and the numbers of the segments that were drawn."""
    if header.get("SOPClassUID") == LABEL_MAP:
        return _of_map(file, dict(_frames(volumes[0], seats)), np.zeros(size, np.uint8), budget), []
    numbers = [_number(header, volume) for volume in volumes]
    labels = np.zeros(size, np.uint8 if max(numbers) < 256 else np.uint16)
    seat_of = {
        frame: (k, number)
        for number, volume in zip(numbers, volumes, strict=True)
        for frame, k in _frames(volume, seats)
    }
    whole = _whole(file.dataset)
    wanted = sorted(seat_of)
    for frame, (raw, _) in zip(wanted, decode_frames(file, wanted, budget), strict=True):
        k, number = seat_of[frame]
        _check_shape(file, raw, labels)
        inside = raw > 0 if whole == 1 else 2 * raw.astype(np.int32) >= whole
        taken = labels[k][inside]
        if taken.any():
            names = {n: label_of(header, str(n)) for n in (int(taken.max()), number)}
            said = " and ".join(f"{n} ({name})" if name else str(n) for n, name in names.items())
            raise ReadError(
                f"{file.path}: segments {said} overlap, and a voxel of a label map has one label; name those that are "
                f"wanted as the frame, such as segment={number}"
            )
        labels[k][inside] = number
    return labels, numbers


def _frames(volume: Volume, seats: Sequence[int]) -> Iterator[tuple[int, int]]:
    """(frame, seat) of the planes that are in the file."""
    for plane, seat in zip(volume.frames, seats, strict=True):
        if plane.number != EMPTY:
            yield plane.number, seat


def _of_map(file: OpenDicom, seats: Mapping[int, int], labels: npt.NDArray[Any], budget: int) -> npt.NDArray[Any]:
    """labels (D, H, W), wider where it must be, filled with the frames of a label map: 0 for the background, whatever
    that is stored as."""
    background = file.dataset.get("PixelPaddingValue")
    wanted = sorted(seats)
    for frame, (raw, _) in zip(wanted, decode_frames(file, wanted, budget), strict=True):
        _check_shape(file, raw, labels)
        if isinstance(background, int) and background:
            raw = np.where(raw == background, 0, raw)
        if raw.min(initial=0) < 0 or raw.max(initial=0) > MOST_LABELS:
            raise ReadError(f"{file.path}: labels {raw.min()} to {raw.max()}; expected 0 to {MOST_LABELS}")
        if raw.max(initial=0) > np.iinfo(labels.dtype).max:
            labels = labels.astype(np.uint16)
        labels[seats[frame]] = raw
    return labels


def _check_shape(file: OpenDicom, raw: Array, labels: Array) -> None:
    if raw.shape != labels.shape[1:]:
        raise ReadError(f"{file.path}: pixels of {raw.shape}, expected {labels.shape[1:]}")


def _whole(dataset: Dataset) -> int:
    """The stored number that means all of a voxel."""
    if str(dataset.get("SegmentationType")) != "FRACTIONAL":
        return 1
    return int(dataset.get("MaximumFractionalValue") or 255)


def _undrawn(names: Mapping[int, str], numbers: Iterable[int]) -> list[str]:
    """A note on the segments that are listed and nowhere drawn; of a label map nothing is known without its voxels."""
    drawn = set(numbers)
    empty = [f"{number} ({name})" for number, name in names.items() if drawn and number not in drawn]
    shown = ", ".join(empty[:4]) + (", ..." if len(empty) > 4 else "")
    return [f"{len(empty)} segments that its file lists have no voxel: {shown}"] if empty else []
