"""One look at a DICOM file: what its header says, whether its pixels are there, and its digest.

What a scan of a folder does for each file, once. Pixels are decoded only where they are compressed or otherwise
unusual: of plain ones the length tells whether they are whole. pydicom is imported where it is needed, and a folder of
usual files is looked at before it would be.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fabrica.errors import ReadError
from fabrica.io.dicom.geometry import number
from fabrica.io.dicom.header import MOST, Header, begun
from fabrica.io.dicom.kinds import PET, SEGMENTATIONS, kind_of
from fabrica.io.dicom.mark import is_dicom
from fabrica.io.dicom.padding import padding
from fabrica.io.dicom.promised import check_frames

_PLAIN = {"1.2.840.10008.1.2", "1.2.840.10008.1.2.1"}  # implicit and explicit VR little endian
_GREY = ("MONOCHROME1", "MONOCHROME2")


@dataclass(slots=True)
class Look:
    """What one look at a file found.

    header   None of a file that is no DICOM.
    problem  why it cannot be read, "" where it can.
    digest   SHA-256 of the file.
    padded   pixels that are padding.
    notes    what else reading it will note.
    refers   SeriesInstanceUID of the images that a segmentation or structure set was drawn on.
    segments number and name of each segment or region of such an object, in the order of their numbers.
    """

    path: Path
    header: Header | None = None
    problem: str = ""
    digest: str = ""
    padded: int = 0
    notes: tuple[str, ...] = ()
    refers: str = ""
    segments: tuple[tuple[int, str], ...] = ()


def look(path: Path, verify: bool = True) -> Look:
    """Look at a file; `verify` its pixels, too."""
    found = Look(path)
    try:
        with path.open("rb") as file:
            size = path.stat().st_size
            data, header = begun(path, file, size, MOST) if verify else begun(path, file, size)
            if header is None:
                if not is_dicom(path):
                    return found
                from fabrica.io.dicom.unusual import by_pydicom

                header = by_pydicom(path)
            check_frames(header)
            found.header = header
            if verify:
                digest = hashlib.sha256(data)
                while len(data) < size and (piece := file.read(MOST)):
                    digest.update(piece)
                found.digest = digest.hexdigest()
        kind = kind_of(header)
        if kind in ("segmentation", "structures"):
            from fabrica.io.dicom.unusual import drawn_on

            found.refers, found.segments = drawn_on(path)
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
        and 1 <= (number(header.get("BitsStored")) or 0) <= int(header.get("BitsAllocated"))
        and header.get("PixelRepresentation") in ("0", "1")
        and header.begin >= 0
        and header.get("SOPClassUID") not in SEGMENTATIONS
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
            from fabrica.io.dicom.unusual import check_unit

            check_unit(found.path)
        return
    from fabrica.io.dicom.unusual import decoded

    found.padded, found.notes = decoded(found.path, header.frames)


def _look_for_padding(found: Look, header: Header, data: bytes, count: int) -> None:
    first, last = (_whole(header.get(name)) for name in ("PixelPaddingValue", "PixelPaddingRangeLimit"))
    bits, signed = int(header.get("BitsAllocated")), header.get("PixelRepresentation") == "1"
    inverted = header.get("PhotometricInterpretation") == "MONOCHROME1"
    ends = padding(first, last, bits, signed, inverted)
    if ends is None:
        return
    kind = f"<{'i' if signed else 'u'}{bits // 8}"
    stored = np.frombuffer(data, kind, count, header.begin)
    if ends == (0, 0) and not inverted and not (signed and (stored < 0).any()):
        return  # a zero below all others is the usual background
    found.padded = int(((stored >= ends[0]) & (stored <= ends[1])).sum())


def _whole(text: str) -> int | None:
    """The whole number that an attribute says, None where it says another thing."""
    return int(text) if text.removeprefix("-").isdigit() else None
