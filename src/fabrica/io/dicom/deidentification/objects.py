"""One DICOM object de-identified: header treated, marked and written, pixels carried over."""

from __future__ import annotations

import filecmp
import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import BinaryIO, cast

from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.filebase import DicomFileLike
from pydicom.filewriter import write_dataset, write_file_meta_info
from pydicom.sequence import Sequence
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian, RawDataStorage
from pydicom.uid import SecondaryCaptureImageStorage as SecondaryCapture

from fabrica.errors import FabricaError, ReadError
from fabrica.image import Array
from fabrica.io.atomic import atomic
from fabrica.io.dicom.deidentification import burned_in, regions, words
from fabrica.io.dicom.deidentification.elements import PATIENT, Treatment, clean, settle
from fabrica.io.dicom.deidentification.key import Key
from fabrica.io.dicom.deidentification.pixel_data import copy_pixels, describe, embedded_overlay, write_frames
from fabrica.io.dicom.deidentification.profile import CODES, EDITION
from fabrica.io.dicom.file import OpenDicom, as_text, opened
from fabrica.io.dicom.pixels import transfer_syntax

_REPORTS, _DOCUMENTS = "1.2.840.10008.5.1.4.1.1.88.", "1.2.840.10008.5.1.4.1.1.104."
_DIRECTORY = "1.2.840.10008.1.3.10"
_RANK = ("UNMODIFIED", "MODIFIED", "REMOVED")
METHOD = f"Fabrica: DICOM {EDITION} Annex E"


@dataclass(frozen=True)
class Written:
    """What became of one file.

    name     of the new file below the target folder; the same as an earlier one's where the object was there already.
    again    whether it was.
    done     (tag path, keyword, what was done) -> how often.
    risks    why its pixels may show identity.
    montage  whether its slices are tiles of one picture that only private elements place, and these are gone.
    """

    name: str
    again: bool
    done: dict[tuple[str, str, str], int]
    risks: list[str]
    montage: bool


class LeftOutError(ReadError):
    """An object that is not to be copied, and why."""


def deidentify_object(path: Path, out: Path, key: Key, options: frozenset[str], blank: bool, budget: int) -> Written:
    """De-identify one file into a folder. LeftOutError for an object that is never copied, ReadError for one that
    cannot be read, FabricaError where the target cannot be written."""
    with opened(path, budget, complete=False) as file:
        dataset = file.dataset
        check_kind(dataset, options, path)
        _complete_names(file)
        patient = _patient(dataset)
        found = burned_in.risks(dataset) + burned_in.looks(file, budget)
        named = words.of_identity(dataset), words.of_people(dataset)
        how = Treatment(options, key, key.pseudonym(patient), key.days(patient), *named)
        study, series = (as_text(dataset.get(k)) for k in ("StudyInstanceUID", "SeriesInstanceUID"))
        names = key.name("study", study), key.name("series", series), key.name("object", str(dataset.SOPInstanceUID))
        mask = regions.outside(dataset) if blank else None
        frames = None
        if mask is not None and file.pixels is not None:
            frames = regions.blanked(file, mask, budget)
            how.done["(7FE0,0010)", "PixelData", "blanked outside the regions"] += 1
        embedded = embedded_overlay(dataset)
        tiles = any(word in as_text(dataset.get("ImageType")).upper().split("\\") for word in ("MOSAIC", "VFRAME"))
        clean(dataset, how)
        mark(dataset, options, how.pseudonym)
        target = out / how.pseudonym / names[0] / names[1] / f"{names[2]}.dcm"
        name, again = _write(file, dataset, target, frames, embedded, how)
    return Written(str(name.relative_to(out)), again, dict(how.done), found, tiles and "private" not in options)


def check_kind(dataset: Dataset, options: frozenset[str], path: Path) -> None:
    """Raise LeftOutError for what is a directory, or holds words that nothing here cleans."""
    kind = as_text(dataset.get("SOPClassUID") or dataset.file_meta.get("MediaStorageSOPClassUID"))
    called = UID(kind).name
    if kind == _DIRECTORY or 0x00041220 in dataset:
        raise LeftOutError(f"{path}: a DICOMDIR, which lists names; make a new one for what was written")
    if kind.startswith(_DOCUMENTS) or "EncapsulatedDocument" in dataset:
        raise LeftOutError(f"{path}: {called or 'an encapsulated document'}: no profile cleans a document within")
    report = kind.startswith(_REPORTS) or as_text(dataset.get("Modality")).upper() in ("SR", "KO")
    if report and "structured-content" not in options:
        raise LeftOutError(f"{path}: {called or 'a structured report'}: left out without --clean structured-content")


def mark(dataset: Dataset, options: frozenset[str], pseudonym: str) -> None:
    """Say that identity was removed and how (PS3.15 E.1.1, PS3.3 C.7.1.1 and C.12.1), and who the patient now is."""
    earlier = [(as_text(i.get("CodeValue")), as_text(i.get("CodingSchemeDesignator"))) for i in _earlier(dataset)]
    meanings = dict(CODES.values())
    values = [value for value, scheme in earlier if scheme == "DCM" and value in meanings]
    values += [CODES[name][0] for name in ("basic", *sorted(options))]
    for tag in PATIENT:
        dataset.add_new(tag, "LO" if tag == PATIENT[1] else "PN", pseudonym)
    dataset.PatientIdentityRemoved = "YES"
    dataset.DeidentificationMethod = METHOD
    dataset.DeidentificationMethodCodeSequence = Sequence(_code(v, meanings[v]) for v in dict.fromkeys(values))
    now = "UNMODIFIED" if "dates" in options else "MODIFIED" if "shifted-dates" in options else "REMOVED"
    before = as_text(dataset.get("LongitudinalTemporalInformationModified")).upper()
    dataset.LongitudinalTemporalInformationModified = max(now, before if before in _RANK else now, key=_RANK.index)


def _earlier(dataset: Dataset) -> list[Dataset]:
    return list(dataset.get("DeidentificationMethodCodeSequence") or ())


def _code(value: str, meaning: str) -> Dataset:
    made = Dataset()
    made.CodeValue, made.CodingSchemeDesignator, made.CodeMeaning = value, "DCM", meaning
    return made


def _patient(dataset: Dataset) -> str:
    """What tells the patient from others: the ID, else name and birth date, else the study."""
    for keywords in (("PatientID",), ("PatientName", "PatientBirthDate"), ("StudyInstanceUID",), ("SOPInstanceUID",)):
        text = "\0".join(as_text(dataset.get(keyword)) for keyword in keywords)
        if text.strip("\0 "):
            return f"{keywords[0]}\0{text}" if keywords != ("PatientID",) else text
    return ""


def _complete_names(file: OpenDicom) -> None:
    """Class and instance, which some old files name in their file meta alone, or not at all."""
    dataset, meta = file.dataset, file.dataset.file_meta
    if not dataset.get("SOPInstanceUID"):
        digest = hashlib.sha256(file.path.read_bytes()[132:]).hexdigest()
        dataset.SOPInstanceUID = meta.get("MediaStorageSOPInstanceUID") or f"2.25.{int(digest[:32], 16)}"
    if not dataset.get("SOPClassUID"):
        usual = SecondaryCapture if file.pixels else RawDataStorage
        dataset.SOPClassUID = meta.get("MediaStorageSOPClassUID") or usual


def _write(
    file: OpenDicom,
    dataset: Dataset,
    target: Path,
    frames: Iterator[tuple[Array, str]] | None,
    embedded: bool,
    how: Treatment,
) -> tuple[Path, bool]:
    """Write the object; the path that it now has, and whether it had been there."""
    implicit, little = cast(FileDataset, dataset).original_encoding
    syntax = transfer_syntax(file)
    if syntax == DeflatedExplicitVRLittleEndian:
        syntax = ExplicitVRLittleEndian
    first: list[tuple[Array, str]] = []
    if frames is not None:
        first = [next(frames)]
        implicit, little, syntax = False, True, ExplicitVRLittleEndian
        describe(dataset, *first[0])

    def write(temporary: Path) -> None:
        with temporary.open("wb") as out:
            _write_header(out, dataset, bool(implicit), bool(little), syntax)
            if frames is not None:
                write_frames(out, dataset, chain(first, frames))
            elif file.pixels is not None:
                copy_pixels(file, out, "<" if little else ">", bool(implicit), embedded, how)

    return _placed(target, write)


class _ThereAlreadyError(Exception):
    """The same object lies at this path."""


def _placed(target: Path, write: Callable[[Path], None]) -> tuple[Path, bool]:
    """Write a file under a name that is free: its own, or that with a number where another file has it. Where one of
    those is the same byte for byte, nothing is written: its path, and True."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FabricaError(f"{target.parent}: cannot be made ({error.strerror}); nothing was changed") from error
    others, free = [], target
    while free.exists():
        others.append(free)
        free = target.with_stem(f"{target.stem}-{len(others) + 1}")
    try:
        with atomic(free) as temporary:
            write(temporary)
            for other in others:
                if filecmp.cmp(temporary, other, shallow=False):
                    raise _ThereAlreadyError(other)
    except _ThereAlreadyError as found:
        return Path(found.args[0]), True
    return free, False


def _write_header(out: BinaryIO, dataset: Dataset, implicit: bool, little: bool, syntax: UID) -> None:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    meta.TransferSyntaxUID = syntax
    out.write(b"\0" * 128 + b"DICM")
    write_file_meta_info(DicomFileLike(out), meta, enforce_standard=True)
    if not implicit:
        settle(dataset)
    stream = DicomFileLike(out)
    stream.is_implicit_VR, stream.is_little_endian = implicit, little
    write_dataset(stream, dataset)
