"""Identity planted in a DICOM object wherever its format has room for it, to be looked for afterwards in every byte.

Whoever wrote the profile knows nothing of this, and this knows nothing of the profile but its table.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import pydicom
from pydicom.datadict import dictionary_VR
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.tag import Tag

from fabrica.io.dicom.deidentification.profile import table

NAME = "QZWANDERER"  # of the patient: also in texts that no table lists
WORD = "XKJPLANTED"  # elsewhere
VALUES: dict[str, Any] = {
    "PN": f"{WORD}^{WORD}", "DA": "19770707", "TM": "070707.770707", "DT": "19770707070707.770707+0777",
    "UI": "1.2.77.7777.77777", "AS": "077Y", "DS": "77.7777707", "IS": "77777707", "AE": WORD, "UR": f"http://{WORD}",
    "FD": 7777.7770707, "FL": 77.25390625, "SV": 0x7AB77CD77EF77AB7, "UV": 0x7AB77CD77EF77AB7, "SL": 0x7AB77CD7,
    "UL": 0x7AB77CD7, "US": 77, "SS": 77, "AT": 0x7AB77CD7, "OF": struct.pack("<f", 77.25390625) * 2,
    "OD": struct.pack("<d", 7777.7770707), "OL": struct.pack("<L", 0x7AB77CD7),
    "OV": struct.pack("<Q", 0x7AB77CD77EF77AB7),
}  # fmt: skip
BYTES = ("OB", "OW", "UN")
EVERY = [*VALUES, *BYTES, "LO", "SH", "LT", "ST", "UT", "UC", "CS", "SQ"]
TRACES = [
    NAME.encode(), WORD.encode(), NAME.lower().encode(), b"19770707", b"070707.77", b"1.2.77.7777.77777",
    b"77.7777707", b"77777707", struct.pack("<d", 7777.7770707), struct.pack("<Q", 0x7AB77CD77EF77AB7),
]  # fmt: skip
"""What none of the new files may hold: of short numbers there is no telling whether they were planted."""


def value(vr: str) -> Any:
    if vr == "SQ":
        return Sequence([_item()])
    return WORD.encode() if vr in BYTES else VALUES.get(vr, WORD)


def plant(source: Path, folder: Path, part: int = 0, parts: int = 1) -> Path:
    """A copy of a DICOM file below a folder with identity in its name, preamble, file meta, in what follows its
    pixels, in one of so many parts of Table E.1-1, private blocks, nested items, overlays and curves."""
    dataset = pydicom.dcmread(source, force=True)
    _plant_listed(dataset, part, parts)
    _plant_around(dataset)
    plant_private(dataset)
    for k, item in enumerate(_items(dataset)):
        item.PatientName, item.PatientComments = f"{WORD}^Nested", WORD
        if k % 5 == 0:
            plant_private(item)
    target = folder / f"{NAME}^{WORD}" / f"{source.stem}_{WORD}_19770707.dcm"
    target.parent.mkdir(parents=True, exist_ok=True)
    dataset.preamble = (WORD.encode() * 13)[:128]
    if "TransferSyntaxUID" in dataset.file_meta:
        _plant_meta(dataset.file_meta)
    dataset.save_as(target)
    return target


def plant_private(dataset: Dataset) -> None:
    """A private block with an element of each VR, under a name that is identity itself, and one under a known name."""
    for creator in (f"{WORD} BLOCK", "SIEMENS MR HEADER"):
        block = dataset.private_block(0x0019, creator, create=True)
        for k, vr in enumerate(EVERY):
            block.add_new(0x40 + k, vr, value(vr))


def _plant_listed(dataset: Dataset, part: int, parts: int) -> None:
    dataset.PatientName, dataset.PatientID = f"{NAME}^Anna", NAME
    for tag, row in [*table().items()][part::parts]:
        group = tag >> 16
        if group in (0x0000, 0x0002, 0x0004, 0xFFFA, 0xFFFC) or row.keyword in ("PatientName", "PatientID"):
            continue
        if 0x5000 <= group <= 0x60FF or row.keyword == "EncapsulatedDocument":
            continue
        try:
            vr = dictionary_VR(tag)
        except KeyError:
            vr = "LO"
        if row.basic.startswith("U") or row.keyword in ("ContentSequence", "SOPInstanceUID"):
            continue  # references are to stay references
        if vr == "SQ" and tag in dataset and dataset[tag].value:
            continue
        dataset[tag] = DataElement(Tag(tag), vr, value(vr))


def _plant_around(dataset: Dataset) -> None:
    """What the table does not list, or lists by group."""
    dataset.TransmitCoilName = f"of {NAME.lower()}"
    dataset.ContentSequence = Sequence([*(dataset.get("ContentSequence") or ()), _said()])
    for tag, vr in ((0x001021C5, "LO"), (0x00189988, "LT"), (0x0040A0B1, "PN"), (0x00080402, "LT"), (0x00440106, "UT")):
        dataset.add_new(tag, vr, value(vr))
    for tag, vr in ((0x60000022, "LO"), (0x60003000, "OW"), (0x60021500, "LO"), (0x50003000, "OW"), (0x50000022, "LO")):
        dataset.add_new(tag, vr, value(vr) if vr == "LO" else value(vr) + b"  ")
    dataset.add_new(0xFFFCFFFC, "OB", WORD.encode())
    known = dataset.get_item(0x7FE00010)
    native = known is not None and known.length != 0xFFFFFFFF and known.VR in ("OB", "OW", None)
    if native and not dataset.file_meta.get("TransferSyntaxUID", pydicom.uid.ImplicitVRLittleEndian).is_compressed:
        dataset[0x7FE00010].value = dataset[0x7FE00010].value + WORD.encode()


def _plant_meta(meta: Dataset) -> None:
    for tag, vr in (
        (0x00020013, "SH"), (0x00020016, "AE"), (0x00020017, "AE"), (0x00020018, "AE"), (0x00020026, "UR"),
        (0x00020027, "UR"), (0x00020028, "UR"), (0x00020100, "UI"), (0x00020102, "OB"),
    ):  # fmt: skip
        meta.add_new(tag, vr, value(vr))


def _item() -> Dataset:
    made = Dataset()
    made.PatientName, made.CodeMeaning = f"{WORD}^Deep", f"of {NAME}"
    inner = Dataset()
    inner.PatientID, inner.InstitutionName, inner.StudyDate = WORD, WORD, VALUES["DA"]
    inner.add_new(0x00081190, "UR", VALUES["UR"])
    made.AnatomicRegionSequence = Sequence([inner])
    return made


def _said() -> Dataset:
    """An item of a structured report."""
    made = Dataset()
    made.RelationshipType, made.ValueType, made.TextValue = "CONTAINS", "TEXT", f"seen by {WORD}"
    made.PersonName, made.DateTime, made.Date, made.Time = f"{WORD}^X", VALUES["DT"], VALUES["DA"], VALUES["TM"]
    made.UID = VALUES["UI"]
    return made


def _items(dataset: Dataset) -> list[Dataset]:
    """Items of sequences that real files hold and no profile removes as a whole, three levels deep, at most twenty."""
    found: list[Dataset] = []
    pending = [(dataset, 0)]
    while pending and len(found) < 20:
        holder, depth = pending.pop(0)
        for element in list(holder):
            if element.VR == "SQ" and not element.tag.is_private and depth < 3:
                pending += [(item, depth + 1) for item in list(element.value)[:2]]
                found += list(element.value)[:2]
    return found


def traces(folder: Path) -> list[str]:
    """Where in a folder something planted is found: in names and bytes of files."""
    found = []
    for path in sorted(folder.rglob("*")):
        name, data = str(path.relative_to(folder)).encode(), path.read_bytes() if path.is_file() else b""
        found += [f"{path.name}: {t!r}" for t in TRACES if t in name or t in data]
    return found
