"""One look at a DICOM file: what its header says, whether its pixels are there, and its digest.

What a scan of a folder does for each file, once. Pixels are decoded only where they are compressed or otherwise
unusual: of plain ones the length tells whether they are whole.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fabrica.errors import ReadError
from fabrica.io.budget import DEFAULT_BUDGET
from fabrica.io.dicom import check_image
from fabrica.io.dicom_file import is_dicom, opened
from fabrica.io.dicom_header import Header, by_pydicom, parsed
from fabrica.io.dicom_kinds import kind_of
from fabrica.io.dicom_pixels import check_budget, decode_frames
from fabrica.io.dicom_suv import PET
from fabrica.io.dicom_values import padding, physical, unit_and_factor

_PLAIN = {"1.2.840.10008.1.2", "1.2.840.10008.1.2.1"}  # implicit and explicit VR little endian
_GREY = ("MONOCHROME1", "MONOCHROME2")
_AT_ONCE = 2**26  # bytes of a file that are looked at in one piece


@dataclass(slots=True)
class Look:
    """What one look at a file found.

    header   None of a file that is no DICOM.
    problem  why it cannot be read, "" where it can.
    digest   SHA-256 of the file.
    padded   pixels that are padding.
    notes    what else reading it will note.
    refers   SeriesInstanceUID of the images that a segmentation or structure set was drawn on.
    """

    path: Path
    header: Header | None = None
    problem: str = ""
    digest: str = ""
    padded: int = 0
    notes: tuple[str, ...] = ()
    refers: str = ""


def look(path: Path, verify: bool = True) -> Look:
    """Look at a file; `verify` its pixels, too."""
    found = Look(path)
    try:
        with path.open("rb") as file:
            size = path.stat().st_size
            data = file.read(min(size, _AT_ONCE) if verify else 2**17)  # no more: what is asked for is allocated
            header = parsed(path, data, size)
            if header is None:
                if not is_dicom(path):
                    return found
                header = by_pydicom(path)
            found.header = header
            if verify:
                digest = hashlib.sha256(data)
                while len(data) < size and (piece := file.read(_AT_ONCE)):
                    digest.update(piece)
                found.digest = digest.hexdigest()
        kind = kind_of(header)
        if kind in ("segmentation", "structures"):
            found.refers = _refers(path)
        if verify and header.frames:
            _verify(found, header, data if len(data) == size else b"")
    except ReadError as error:
        found.problem = str(error).removeprefix(f"{path}: ")
    except OSError as error:
        found.problem = f"cannot be opened: {error.strerror or error}"
    return found


def _verify(found: Look, header: Header, data: bytes) -> None:
    """Raise ReadError where the pixels cannot be read; note what reading will."""
    plain = (
        data
        and header.syntax in _PLAIN
        and header.pixels == "PixelData"
        and header.get("PhotometricInterpretation") in _GREY
        and header.get("SamplesPerPixel") == "1"
        and header.get("BitsAllocated") in ("8", "16")
        and header.get("BitsStored")
        and header.get("PixelRepresentation")
        and header.begin >= 0
    )
    if plain:
        rows, columns = int(header.get("Rows") or 0), int(header.get("Columns") or 0)
        item = int(header.get("BitsAllocated")) // 8
        needed = rows * columns * header.frames * item
        if needed < 1:
            raise ReadError(f"{found.path}: has pixel data but no Rows or Columns; it cannot be decoded")
        if min(header.length, len(data) - header.begin) < needed:
            there = min(header.length, len(data) - header.begin)
            raise ReadError(f"{found.path}: {there:,} bytes of pixels, expected {needed:,}; the file is cut short")
        if header.get("PixelPaddingValue"):
            _look_for_padding(found, header, data, needed // item)
        if header.get("PhotometricInterpretation") == "MONOCHROME1":
            found.notes = ("MONOCHROME1 was inverted: bigger values are brighter",)
        if header.get("SOPClassUID") in PET:
            with opened(found.path, DEFAULT_BUDGET, header_only=True) as file:
                unit_and_factor(file.dataset, found.path)
        return
    notes: list[str] = []
    with opened(found.path, DEFAULT_BUDGET, notes) as file:
        check_image(file)
        check_budget(file, 1, DEFAULT_BUDGET)
        _, factor = unit_and_factor(file.dataset, found.path)
        wanted = list(range(header.frames))
        for number, (raw, space) in zip(wanted, decode_frames(file, wanted, DEFAULT_BUDGET), strict=True):
            values = physical(raw, space, file.dataset, number, notes, factor)
            found.padded += values.padded if values.padding is None else 0
    found.notes = tuple(notes)


def _look_for_padding(found: Look, header: Header, data: bytes, count: int) -> None:
    with opened(found.path, DEFAULT_BUDGET, header_only=True) as file:
        ends = padding(file.dataset)
    if ends is None:
        return
    signed = header.get("PixelRepresentation") == "1"
    kind = f"<{'i' if signed else 'u'}{int(header.get('BitsAllocated')) // 8}"
    stored = np.frombuffer(data, kind, count, header.begin)
    if (
        ends == (0, 0)
        and header.get("PhotometricInterpretation") != "MONOCHROME1"
        and not (signed and (stored < 0).any())
    ):
        return  # a zero below all others is the usual background
    found.padded = int(((stored >= ends[0]) & (stored <= ends[1])).sum())


def _refers(path: Path) -> str:
    """The series that a SEG or RTSTRUCT was drawn on."""
    with opened(path, DEFAULT_BUDGET, header_only=True) as file:
        pending = [file.dataset]
        while pending:
            holder = pending.pop(0)
            for keyword in ("ReferencedSeriesSequence", "RTReferencedSeriesSequence"):
                for item in holder.get(keyword) or []:
                    if item.get("SeriesInstanceUID"):
                        return str(item.SeriesInstanceUID)
            for keyword in ("ReferencedFrameOfReferenceSequence", "RTReferencedStudySequence"):
                pending += holder.get(keyword) or []
    return ""
