"""Whether a file is DICOM, by its first bytes, and what its elements are made of (PS3.5 section 7)."""

from __future__ import annotations

import os
from pathlib import Path
from struct import Struct

from fabrica.io.packed import as_path

PIXEL_KEYWORDS = {
    0x7FE00008: "FloatPixelData",
    0x7FE00009: "DoubleFloatPixelData",
    0x7FE00010: "PixelData",
}
UNDEFINED_LENGTH = 0xFFFFFFFF
LONG_VR = {b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV", b"SQ"}
SHORT_VR = {b"AE", b"AS", b"AT", b"CS", b"DA", b"DS", b"DT", b"FL", b"FD", b"IS", b"LO", b"LT", b"PN", b"SH", b"SL",
          b"SS", b"ST", b"TM", b"UI", b"UL", b"US"}  # fmt: skip
KNOWN_VR = LONG_VR | SHORT_VR


def is_marked(path: Path) -> bool:
    """True for a file with the DICM mark, whatever its name says."""
    try:
        with path.open("rb") as file:
            return file.read(132)[128:] == b"DICM"
    except OSError:
        return False


def is_dicom(path: Path | str) -> bool:
    """True for a file with the DICM mark, or one that starts like a data set without it (group 2 or 8).

    Only the first kilobyte is read. Text never passes: a data set starts with bytes below 9.
    """
    try:
        with as_path(path).open("rb") as file:
            head = file.read(1024)
            size = file.seek(0, os.SEEK_END)
    except OSError:
        return False
    if head[128:132] == b"DICM":
        return True
    return any(_starts_a_dataset(head, size, order) for order in "<>")


def _starts_a_dataset(head: bytes, size: int, order: str) -> bool:
    """Two elements with rising tags and lengths that fit the file, or one that fills it exactly."""
    position, last_tag, elements = 0, 0, 0
    while position + 8 <= len(head):
        group, element, vr, short = Struct(order + "HH2sH").unpack_from(head, position)
        tag = group << 16 | element
        if tag <= last_tag or (elements == 0 and group not in (0x0002, 0x0008)):
            return False
        if vr in LONG_VR:
            if position + 12 > len(head):
                break
            start, length = position + 12, Struct(order + "L").unpack_from(head, position + 8)[0]
        elif vr in KNOWN_VR:
            start, length = position + 8, short
        else:
            start, length = position + 8, Struct(order + "L").unpack_from(head, position + 4)[0]
        if length == UNDEFINED_LENGTH and element:
            return elements > 0 or head[start : start + 4] in (b"\xfe\xff\x00\xe0", b"\xff\xfe\xe0\x00")
        if start + length > size:
            return False
        position, last_tag, elements = start + length, tag, elements + 1
        if elements == 2:
            return True
    return elements == 1 and position >= min(size, len(head))
