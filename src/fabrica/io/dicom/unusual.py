"""What a quick look at a file leaves to pydicom: unusual headers (deflated, big endian, without the DICM mark), pixels
that have to be decoded, what other objects refer to."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

from pydicom.dataset import Dataset

from fabrica.io.budget import DEFAULT_BUDGET
from fabrica.io.dicom.file import as_text, opened
from fabrica.io.dicom.header import GUESSED, KEYWORD_OF, MACROS, PRIVATE, UIH_TILES, Header, Values, completed
from fabrica.io.dicom.pixels import check_budget, decode_frames
from fabrica.io.dicom.read import check_image
from fabrica.io.dicom.values import physical, unit_and_factor


def by_pydicom(path: Path, budget: int = DEFAULT_BUDGET) -> Header:
    """The same, by pydicom: slower, and for all that it can open."""
    with opened(path, budget, header_only=True) as file:
        dataset = file.dataset
        found = Header(path, _of_dataset(dataset), size=path.stat().st_size)
        found.syntax = str(dataset.file_meta.get("TransferSyntaxUID") or "")
        if file.pixels is not None:
            found.pixels, found.length = file.pixels.keyword, file.pixels.length
        shared = dataset.get("SharedFunctionalGroupsSequence") or []
        found.shared = _flat(shared[0]) if len(shared) else {}
        found.of_frames = tuple(_flat(item) for item in dataset.get("PerFrameFunctionalGroupsSequence") or [])
        if UIH_TILES in dataset and dataset[UIH_TILES].VR == "SQ":
            found.tiles = tuple(_flat(item) for item in dataset[UIH_TILES].value)
        found.segments = tuple(_flat(item) for item in dataset.get("SegmentSequence") or [])
        for detector in dataset.get("DetectorInformationSequence") or []:
            found.values = {**_flat(detector), **found.values}
        pointers = [item.get("DimensionIndexPointer") for item in dataset.get("DimensionIndexSequence") or []]
        found.dimensions = tuple(f"{pointer:08X}" for pointer in pointers if pointer is not None)
        return completed(found)


def _flat(item: Dataset) -> Values:
    """An item of functional groups, flat, as `_of_items`."""
    values: Values = {}
    pending = [item]
    while pending:
        dataset = pending.pop(0)
        values = {**_of_dataset(dataset), **values}
        for keyword in MACROS:
            inner = dataset.get(keyword)
            if inner:
                pending.append(inner[0])
    return values


def _of_dataset(dataset: Dataset) -> Values:
    values: Values = {}
    for tag, keyword in KEYWORD_OF.items():
        if tag in dataset:
            _add(values, keyword, dataset, tag)
    for (creator, group, element), name in PRIVATE.items():
        if any(tag.group == group for tag in dataset.keys()):  # noqa: SIM118
            try:
                tag = dataset.private_block(group, creator).get_tag(element)
            except KeyError:
                continue
            if tag in dataset:
                _add(values, name, dataset, tag)
    return values


def _add(values: Values, name: str, dataset: Dataset, tag: Any) -> None:
    try:
        item = dataset[tag]
        text = as_text(item.value, "AT" if item.VR == "AT" else GUESSED.get(name, "") if item.VR == "UN" else "")
    except Exception:  # one element that cannot be read must not cost the others
        return
    if text:
        values[name] = text


def decoded(path: Path, frames: int) -> tuple[int, tuple[str, ...]]:
    """How many pixels of a file are padding, and what reading them notes. Raises ReadError where they cannot be
    read."""
    padded, notes = 0, list[str]()
    with opened(path, DEFAULT_BUDGET, notes) as file:
        check_image(file)
        check_budget(file, 1, DEFAULT_BUDGET)
        _, factor = unit_and_factor(file.dataset, path)
        wanted = list(range(frames))
        for number, (raw, space) in zip(wanted, decode_frames(file, wanted, DEFAULT_BUDGET), strict=True):
            values = physical(raw, space, file.dataset, number, notes, factor)
            padded += values.padded if values.padding is None else 0
    return padded, tuple(notes)


def check_unit(path: Path) -> None:
    """Raise ReadError where the values of PET cannot be had in SUV."""
    with opened(path, DEFAULT_BUDGET, header_only=True) as file:
        unit_and_factor(file.dataset, path)


def drawn_on(path: Path) -> tuple[str, tuple[tuple[int, str], ...]]:
    """The series that a SEG or RTSTRUCT was drawn on, and the numbers and names of its segments or regions."""
    with opened(path, DEFAULT_BUDGET, header_only=True) as file:
        return _refers(file.dataset), _named(file.dataset)


def _refers(dataset: Dataset) -> str:
    pending = [dataset]
    while pending:
        holder = pending.pop(0)
        for keyword in ("ReferencedSeriesSequence", "RTReferencedSeriesSequence"):
            for item in holder.get(keyword) or []:
                if item.get("SeriesInstanceUID"):
                    return str(item.SeriesInstanceUID)
        for keyword in ("ReferencedFrameOfReferenceSequence", "RTReferencedStudySequence"):
            pending += holder.get(keyword) or []
    return ""


def _named(dataset: Dataset) -> tuple[tuple[int, str], ...]:
    """In the order of their numbers; those with a number that is none are left out."""
    found = []
    for sequence, number, name in (
        ("SegmentSequence", "SegmentNumber", "SegmentLabel"),
        ("StructureSetROISequence", "ROINumber", "ROIName"),
    ):
        for item in dataset.get(sequence) or []:
            with suppress(TypeError, ValueError):
                found.append((int(item.get(number)), str(item.get(name) or "").strip()))
    return tuple(sorted(found, key=lambda each: each[0]))
