"""Private elements that are known to be safe: Table E.3.10-1 of PS3.15, and beyond it what places the slices of a
scanner's own kinds of file (mosaics, montages) and says how diffusion was measured, as numbers."""

from __future__ import annotations

import csv
import re
import warnings
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from struct import pack

from pydicom.dataset import Dataset
from pydicom.tag import BaseTag, Tag

_PLACES = {
    (0x0019, "SIEMENS MR HEADER", 0x0A): "US",  # tiles of a mosaic
    (0x0051, "SIEMENS MR HEADER", 0x0B): "SH",  # their size
    (0x0065, "Image Private Header", 0x09): "FD",  # b-value
    (0x0065, "Image Private Header", 0x37): "FD",  # gradient direction
    (0x0065, "Image Private Header", 0x50): "DS",  # tiles of a montage
    (0x0065, "Image Private Header", 0x51): "SQ",  # their places
    (0x2005, "Philips MR Imaging DD 001", 0x11): "CS",  # magnitude, phase, real, imaginary
    (0x2005, "Philips MR Imaging DD 001", 0xB0): "FL",  # gradient direction
    (0x2005, "Philips MR Imaging DD 001", 0xB1): "FL",
    (0x2005, "Philips MR Imaging DD 001", 0xB2): "FL",
    (0x0043, "GEMS_PARM_01", 0x2F): "SS",  # magnitude, phase, real, imaginary
    (0x0019, "GEMS_ACQU_01", 0xBB): "DS",  # gradient direction
    (0x0019, "GEMS_ACQU_01", 0xBC): "DS",
    (0x0019, "GEMS_ACQU_01", 0xBD): "DS",
    (0x0029, "SIEMENS CSA HEADER", 0x10): "OB",  # written anew: see `numbers_of_csa`
}
CSA = (0x0029, "SIEMENS CSA HEADER", 0x10)
_SIZE = re.compile(rb"\d+p?\*\d+s? *\0?")
_IN_CSA = {
    "NumberOfImagesInMosaic", "SliceNormalVector", "ProtocolSliceNumber", "MosaicRefAcqTimes", "B_value", "B_matrix",
    "DiffusionGradientDirection", "PhaseEncodingDirectionPositive", "BandwidthPerPixelPhaseEncode", "RealDwellTime",
    "SliceMeasurementDuration", "TimeAfterStart", "Actual3DImaPartNumber", "ImaRelTablePosition",
}  # fmt: skip
_ITEMS = re.compile(r"[0-9+\-.eE ]*")

Place = tuple[int, str, int]


@lru_cache(maxsize=1)
def safe() -> Mapping[Place, str]:
    """(group, private creator, element in its block) -> VR of what is safe."""
    with (Path(__file__).parent / "safe_private.csv").open(newline="") as file:
        rows = csv.DictReader(file)
        listed = {(int(r["group"], 16), r["creator"], int(r["element"], 16)): r["vr"] for r in rows}
    return listed | _PLACES


def kept(dataset: Dataset) -> dict[BaseTag, Place]:
    """The private elements of a data set (not of its items) that are safe by name, and the elements that reserve their
    blocks (whose place has the element 0)."""
    blocks: dict[tuple[int, int], str] = {}
    private = [tag for tag in dataset.keys() if tag.is_private]  # noqa: SIM118
    for tag in private:
        if 0x10 <= tag.element <= 0xFF:
            value = dataset.get_item(tag).value
            text = value.decode("latin-1") if isinstance(value, bytes) else str(value or "")
            blocks[tag.group, tag.element] = text.strip(" \0")
    found: dict[BaseTag, Place] = {}
    for tag in private:
        block = tag.element >> 8
        creator = blocks.get((tag.group, block), "")
        place = (tag.group, creator, tag.element & 0xFF)
        if block and place in safe():
            found[tag] = place
            found[Tag(tag.group, block)] = (tag.group, creator, 0)
    return found


def is_size(value: bytes) -> bool:
    """Whether a text is the size of a tile: 64*64, 64p*64s."""
    return _SIZE.fullmatch(value) is not None


def numbers_of_csa(value: bytes) -> bytes:
    """Siemens' own header with nothing but those of its entries that are numbers and that say where slices lie and how
    diffusion was measured; b"" where it cannot be read."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from nibabel.nicom import csareader
    try:
        entries = csareader.read(value)["tags"]
        chosen = [_entry(name, entries[name]) for name in sorted(_IN_CSA & set(entries))]
    except Exception:  # a private format, read by reverse engineering
        return b""
    return b"SV10\4\3\2\1" + pack("<2I", len(chosen), 77) + b"".join(chosen) if chosen else b""


def _entry(name: str, entry: Mapping[str, object]) -> bytes:
    values = [str(v) for v in entry["items"]] if isinstance(entry["items"], list) else []
    texts = [v.encode("ascii") + b"\0" for v in values if v and _ITEMS.fullmatch(v)]
    vr = str(entry["vr"]).encode("ascii")[:3]
    head = pack("<64si4s3i", name.encode("ascii"), entry["vm"], vr, entry["syngodt"], max(len(texts), 1), 77)
    items = [pack("<4i", len(t), len(t), 77, len(t)) + t + b"\0" * (-len(t) % 4) for t in texts]
    return head + b"".join(items or [pack("<4i", 0, 0, 77, 0)])
