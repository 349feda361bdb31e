"""Which attribute is treated how: Table E.1-1 of PS3.15 as data, and what stands where the table is silent.

`attributes.csv` is the table: 655 rows of edition 2026c with their actions in the Basic Profile; their options are
those of 2025b, which has all of them but DisplayURI. The action codes are the standard's: X remove, Z empty, D a dummy,
U a new UID, K keep, C clean; where it leaves a choice (X/Z/D), what every class allows is taken. `safe_private.csv` is
Table E.3.10-1.
"""

from __future__ import annotations

import csv
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from fabrica.errors import UsageError, unknown
from fabrica.io.dicom.deidentification.dates import DATES

EDITION = "PS3.15 2026c"

RETAINABLE = ("uids", "dates", "shifted-dates", "patient", "device", "institution", "private")
CLEANABLE = ("descriptors", "structured-content", "graphics")
OPTIONS = (*RETAINABLE, *CLEANABLE)

CODES: Mapping[str, tuple[str, str]] = {
    "basic": ("113100", "Basic Application Confidentiality Profile"),
    "graphics": ("113103", "Clean Graphics Option"),
    "structured-content": ("113104", "Clean Structured Content Option"),
    "descriptors": ("113105", "Clean Descriptors Option"),
    "dates": ("113106", "Retain Longitudinal Temporal Information Full Dates Option"),
    "shifted-dates": ("113107", "Retain Longitudinal Temporal Information Modified Dates Option"),
    "patient": ("113108", "Retain Patient Characteristics Option"),
    "device": ("113109", "Retain Device Identity Option"),
    "uids": ("113110", "Retain UIDs Option"),
    "private": ("113111", "Retain Safe Private Option"),
    "institution": ("113112", "Retain Institution Identity Option"),
}
"""Code value and meaning of each option, CID 7050 of PS3.16."""

_CHOICES = {"X/Z": "Z", "X/D": "D", "Z/D": "D", "X/Z/D": "D", "X/Z/U": "U"}
"""What is valid whatever the class demands: a value where one may be demanded, nothing where an empty one will do."""

TEXT = ("LT", "ST", "UT", "UC", "LO", "SH")
_FREE = ("LT", "ST", "UT", "UC", "UR", "AE")
_TECHNICAL = {
    0x00080119,  # LongCodeValue
    0x00080120,  # URNCodeValue
    0x00187008,  # DetectorMode
    0x00187040,  # GridAbsorbingMaterial
    0x00187041,  # GridSpacingMaterial
    0x300A007B,  # FractionPattern
    0x20100010,  # ImageDisplayFormat
}
"""Long texts that are codes or say how a device works."""
_TEXT_VALUE = 0x0040A160  # what a structured report says in words
_NEVER_EMPTY = ("ReferencedStudySequence",)  # sequences that no class must have, and that have items where they are
_CLASSES = {
    0x00080016, 0x0008001A, 0x0008001B, 0x00080062, 0x0008010C, 0x00080117, 0x00080118, 0x0008040E, 0x00081150,
    0x0008115A, 0x00083002, 0x00340003, 0x04000010, 0x04000510, 0x30100052, 0x30100053,
}  # fmt: skip
"""UIDs of classes, transfer syntaxes and coding schemes, not of things that were made for a patient."""
_BINARY = {*range(0x00281101, 0x0028140F), 0x00282000, 0x00283006, *range(0x00660023, 0x0066002A),
           *range(0x7FE00001, 0x7FE00011)}  # fmt: skip
"""Tables of colours, and lists of vertices."""
_WAVEFORMS = range(0x5400, 0x5500)
_NUMBERS = ("US", "SS", "UL", "SL", "FL", "FD", "SV", "UV", "OF", "OD", "OL", "OV", "AT", "IS", "DS", "AS", "CS")


@dataclass(frozen=True)
class Row:
    """A row of the table: the basic action, and that of each option that has one."""

    keyword: str
    basic: str
    options: Mapping[str, str]


@lru_cache(maxsize=1)
def table() -> Mapping[int, Row]:
    """Table E.1-1 by tag; curves and overlays (50xx, 60xx) stand at their first group."""
    with (Path(__file__).parent / "attributes.csv").open(newline="") as file:
        reader = csv.DictReader(file)
        return {int(row.pop("tag").replace("x", "0"), 16): _row(row) for row in reader}


def _row(row: dict[str, str]) -> Row:
    keyword, basic = row.pop("keyword"), row.pop("basic")
    return Row(keyword, basic, {option.replace("_", "-"): action for option, action in row.items() if action})


def checked(options: Iterable[str]) -> frozenset[str]:
    """The options, each known and dates either as they are or shifted, else UsageError."""
    found = frozenset(options)
    for option in found:
        if option not in OPTIONS:
            raise unknown("option", option, OPTIONS)
    if {"dates", "shifted-dates"} <= found:
        raise UsageError("dates cannot be retained both as they are and shifted; name one of dates and shifted-dates")
    return found


def action(tag: int, vr: str, options: Collection[str]) -> str:
    """X, Z, D, U, K or C for an attribute that is not private; "" for one that is kept as it is, or walked through."""
    group = tag >> 16
    if not tag & 0xFFFF or group in (0x0000, 0x0002, 0x0004, 0xFFFA, 0xFFFC):
        return "X"  # lengths of groups, commands, file meta, DICOMDIR, signatures that no longer hold, padding
    if 0x5000 <= group <= 0x50FF or 0x6000 <= group <= 0x60FF:
        return "X"  # curves and overlays: bitmaps may show a name, and no option of ours looks into them
    row = table().get(tag)
    return _listed(row, vr, options) if row else _unlisted(tag, vr, options)


def _listed(row: Row, vr: str, options: Collection[str]) -> str:
    asked = {row.options[option] for option in options if option in row.options}
    if vr in DATES and "shifted-dates" in options and "C" in asked:
        return "C"
    if asked:
        return "K" if "K" in asked else "C"
    if vr == "SQ" and (row.basic in ("X/D", "X/Z/D") or row.keyword in _NEVER_EMPTY):
        return "X"
    if vr == "UI" and row.basic == "D":
        return "U"
    return _CHOICES.get(row.basic, row.basic)


def _unlisted(tag: int, vr: str, options: Collection[str]) -> str:
    """What the table says nothing of: dates and UIDs by their kind (its first note); names, addresses and long free
    text go, which it leaves to the reader's care."""
    if vr == "SQ":
        return ""
    if vr in DATES:
        return "K" if "dates" in options else "C" if "shifted-dates" in options else "Z"
    if vr == "UI":
        return "" if tag in _CLASSES else "K" if "uids" in options else "U"
    if vr == "PN":
        return "Z"
    if tag == _TEXT_VALUE:
        return "C" if "descriptors" in options else "D"
    if vr in _FREE and tag not in _TECHNICAL:
        return "C" if "descriptors" in options and vr in TEXT else "X"
    if vr.startswith("US or") or vr in ("LO", "SH", *_NUMBERS, *TEXT) or tag in _BINARY or tag >> 16 in _WAVEFORMS:
        return ""
    return "X"  # binary that may hold anything, and what no dictionary knows
