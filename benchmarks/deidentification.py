"""python -m benchmarks.deidentification PYTHON: what Fabrica, dicom-anonymizer and deid leave of planted identity.

PYTHON is that of an environment with dicom-anonymizer 2.1 and deid. Into each real DICOM file of $FABRICA_DATA another
word is planted at each kind of place; each tool then de-identifies each file with its own defaults, and the bytes of
what it writes are searched. deid is for recipes of one's own, and stands here twice: as it is called without options,
and with its options for private elements and sequences. Neither it nor dicom-anonymizer promises all that is asked.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pydicom
from pydicom.datadict import dictionary_VR
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.tag import Tag

from fabrica.errors import ReadError
from fabrica.io.dicom.deidentification import Key
from fabrica.io.dicom.deidentification.objects import deidentify_object
from fabrica.io.dicom.deidentification.profile import table
from fabrica.io.dicom.mark import is_dicom

DATA = Path(os.environ.get("FABRICA_DATA", "shared/data"))
A_SERIES = 2  # files of each scanner's series
PLACES = {
    "attributes of Table E.1-1": b"QZTABLEQZ",
    "the same in items of sequences": b"QZITEMQZ",
    "private elements": b"QZPRIVATEQZ",
    "private elements in items": b"QZDEEPPRIVATEQZ",
    "overlays and curves": b"QZGRAPHICQZ",
    "names and free text beyond the table": b"QZFREEQZ",
    "the patient's name in another text": b"QZNAMEQZ",
    "dates": b"19770707",
    "UIDs": b"1.2.77.7777.77777",
    "file meta": b"QZMETAQZ",
    "preamble": b"QZPREAMBLEQZ",
    "bytes behind the pixels": b"QZBEHINDQZ",
}
_VALUES = {"DA": "19770707", "DT": "19770707070707", "UI": "1.2.77.7777.77777", "AS": "077Y"}
_TEXT = ("AE", "CS", "LO", "LT", "PN", "SH", "ST", "UC", "UR", "UT")
_BEYOND = ((0x0040A0B1, "PN"), (0x00189988, "LT"), (0x00080402, "LT"), (0x00440106, "UT"), (0x00081190, "UR"))

ANONYMIZER = """
from dicomanonymizer.simpledicomanonymizer import anonymize_dicom_file, initialize_actions
def work(source, target):
    anonymize_dicom_file(source, target, base_rules_gen=lambda: initialize_actions("dicomfields_{edition}"))
"""
DEID = """
import os, shutil, tempfile
from deid.logger import bot
from deid.dicom import replace_identifiers
bot.level = -5
def work(source, target):
    with tempfile.TemporaryDirectory() as folder:
        replace_identifiers([source], save=True, output_folder=folder, overwrite=True, {options})
        shutil.move(os.path.join(folder, os.listdir(folder)[0]), target)
"""
LOOP = """
import logging, os, sys, warnings
warnings.simplefilter("ignore"); logging.disable(logging.CRITICAL)
sys.stdout = open(os.devnull, "w")
folder, out = sys.argv[1:]
for name in sorted(os.listdir(folder)):
    try:
        work(os.path.join(folder, name), os.path.join(out, name))
    except Exception:
        pass
"""


def main(python: str) -> dict[str, dict[str, list[int]]]:
    """By tool, what it wrote and what is left in it: see `left`."""
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as work:
        source = Path(work, "in")
        source.mkdir()
        there = [target for k, path in enumerate(files()) if (target := planted(path, source / f"{k:04d}.dcm"))]
        tools: dict[str, Callable[[Path, Path], None]] = {
            "Fabrica": fabrica,
            "dicom-anonymizer 2.1.0": other(python, ANONYMIZER.format(edition="2023")),  # as it is called
            "dicom-anonymizer 2.1.0, table of 2026c": other(python, ANONYMIZER.format(edition="2026c")),
            "deid 0.4.13": other(python, DEID.format(options="")),
            "deid 0.4.13, strip_sequences, remove_private": other(
                python, DEID.format(options="strip_sequences=True, remove_private=True")
            ),
        }
        found = {"planted": left(source)}
        for name, tool in tools.items():
            out = Path(work, name)
            out.mkdir()
            tool(source, out)
            found[name] = left(out)
        assert found["planted"]["files"] == [len(there)]
        return found


def files() -> Iterator[Path]:
    """Real files: two of each scanner's series, and all test files of pydicom."""
    for folder in sorted((DATA / "dicom_scanners").glob("*/dicom")):
        yield from sorted(path for path in folder.rglob("*") if path.is_file())[:A_SERIES]
    yield from sorted(path for path in (DATA / "dicom_pydicom").rglob("*") if path.is_file() and is_dicom(path))


def planted(path: Path, target: Path) -> Path | None:
    """A copy with a word at each kind of place; None of what pydicom cannot write again."""
    try:
        dataset = pydicom.dcmread(path, force=True)
        if 0x00041220 in dataset or "TransferSyntaxUID" not in dataset.file_meta:
            return None
        listed(dataset, PLACES["attributes of Table E.1-1"].decode())
        private(dataset, PLACES["private elements"].decode())
        item = Dataset()
        listed(item, PLACES["the same in items of sequences"].decode(), every=20)
        private(item, PLACES["private elements in items"].decode())
        dataset.AnatomicRegionSequence = Sequence([item])
        name = PLACES["the patient's name in another text"].decode()
        dataset.PatientName, dataset.PatientID, dataset.TransmitCoilName = f"{name}^A", "7", name
        for tag, vr in _BEYOND:
            dataset.add_new(tag, vr, PLACES["names and free text beyond the table"].decode())
        for tag in (0x60003000, 0x50003000):
            dataset.add_new(tag, "OW", PLACES["overlays and curves"] + b" ")
        dataset.add_new(0x60000022, "LO", PLACES["overlays and curves"].decode())
        dataset.file_meta.SourceApplicationEntityTitle = PLACES["file meta"].decode()
        dataset.preamble = (PLACES["preamble"] * 11)[:128]
        if "PixelData" in dataset and not dataset.file_meta.TransferSyntaxUID.is_compressed and dataset.get("Rows"):
            dataset.PixelData = dataset.PixelData + PLACES["bytes behind the pixels"] + b" "
        dataset.save_as(target)
    except Exception:  # files that are broken on purpose
        target.unlink(missing_ok=True)
        return None
    return target


def listed(dataset: Dataset, word: str, every: int = 1) -> None:
    """One attribute of the table in so many, of those that hold text, dates or UIDs."""
    for tag, row in [*table().items()][::every]:
        try:
            vr = dictionary_VR(tag)
        except KeyError:
            continue
        if tag >> 16 in (0x0000, 0x0002, 0x0004) or tag in (0x00080018, 0x00420011):
            continue
        if row.basic != "U" and (vr in _TEXT or vr in _VALUES):
            dataset[tag] = DataElement(Tag(tag), vr, _VALUES.get(vr, word))
    dataset.IrradiationEventUID = _VALUES["UI"]


def private(dataset: Dataset, word: str) -> None:
    block = dataset.private_block(0x0019, f"{word} BLOCK", create=True)
    for k, vr in enumerate(("LO", "UN", "OB", "UT", "PN")):
        block.add_new(0x40 + k, vr, word.encode() + b" " if vr in ("UN", "OB") else word)


def left(folder: Path) -> dict[str, list[int]]:
    """Of a folder: [its files]; by place, [in how many of them a word is left, how many words]."""
    files: Counter[str] = Counter()
    words: Counter[str] = Counter()
    there = list(folder.rglob("*.dcm"))
    for path in there:
        data = path.read_bytes()
        for place, word in PLACES.items():
            words[place] += (count := data.count(word))
            files[place] += count > 0
    return {"files": [len(there)], **{place: [files[place], words[place]] for place in PLACES}}


def fabrica(source: Path, out: Path) -> None:
    key = Key(bytes(range(32)))
    for path in sorted(source.iterdir()):
        try:
            deidentify_object(path, out / path.stem, key, frozenset({"structured-content"}), False, 2**30)
        except ReadError:
            continue


def other(python: str, work: str) -> Callable[[Path, Path], None]:
    """Another tool, in its own environment, file by file; what it cannot do is left out."""

    def tool(source: Path, out: Path) -> None:
        subprocess.run([python, "-c", work + LOOP, str(source), str(out)], check=True, stdout=subprocess.DEVNULL)

    return tool


if __name__ == "__main__":
    found = main(sys.argv[1])
    Path(__file__).with_name("real").joinpath("deidentification.json").write_text(json.dumps(found, indent=2) + "\n")
    for place in ("files", *PLACES):
        print(f"{place:<40}" + "".join(f"{' / '.join(map(str, each[place])):>14}" for each in found.values()))
