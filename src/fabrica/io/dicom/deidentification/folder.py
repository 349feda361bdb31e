"""A folder of DICOM objects de-identified into another, one after another."""

from __future__ import annotations

import csv
import os
import zipfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

from fabrica.errors import FabricaError, ReadError, UsageError
from fabrica.io.budget import DEFAULT_BUDGET
from fabrica.io.dicom.deidentification.key import Key
from fabrica.io.dicom.deidentification.objects import Written, deidentify_object
from fabrica.io.dicom.deidentification.profile import checked
from fabrica.io.dicom.mark import is_dicom
from fabrica.io.packed import Packed, members
from fabrica.progress import Count

AUDIT = "audit.csv"
COLUMNS = ("file", "tag", "keyword", "action", "count")
ZIP = ".zip"
_UNWANTED = (".DS_Store", "Thumbs.db")


@dataclass
class Account:
    """What became of a folder.

    written   objects that were written.
    again     objects that the target already had, byte for byte.
    patients  how many of those.
    left_out  DICOM files that were not copied: (file, why).
    others    files that are no DICOM, and were not copied.
    risks     new file -> why its pixels may show identity.
    montages  objects that cannot be laid out as volumes any more: mosaics without their private elements.
    audit     the table of what was done.
    """

    written: int = 0
    again: int = 0
    patients: set[str] = field(default_factory=set)
    left_out: list[tuple[Path, str]] = field(default_factory=list)
    others: list[Path] = field(default_factory=list)
    risks: dict[str, list[str]] = field(default_factory=dict)
    montages: int = 0
    audit: Path | None = None


def deidentify(
    source: Path | str,
    out: Path | str,
    key: Key,
    *,
    options: Iterable[str] = (),
    blank_outside_regions: bool = False,
    budget: int = DEFAULT_BUDGET,
    progress: Count | None = None,
) -> Account:
    """De-identify the DICOM files of a folder, in it and below, or one file, by PS3.15 Annex E.

    source   folder, file or zip archive, or a folder with such; nothing in it is changed.
    out      folder for patient/study/series/object.dcm, each named by the key, and for `audit.csv`: what was done to
             which attribute of which new file, and how often. Nothing in it is overwritten.
    key      what new UIDs, pseudonyms and names come from: the same for the same key.
    options  of the profile (`profile.OPTIONS`): what to retain, and what to clean rather than remove.
    blank_outside_regions  make pixels outside the ultrasound regions that a header names black; such objects are
             decoded and written without compression.
    budget   bytes of memory that one decoded image may need.

    A file that cannot be read, or that no profile can clean, is accounted for and does not stop the rest. Raises
    UsageError for options or folders that do not go together, FabricaError where the target cannot be written.
    """
    source, out, chosen = Path(source), Path(out), checked(options)
    _check_folders(source, out)
    account = Account()
    files = list(files_below(source))
    with _audit(out) as (table, place):
        account.audit = place
        rows = csv.writer(table, lineterminator="\n")
        rows.writerow(COLUMNS)
        for k, path in enumerate(files):
            if not is_dicom(path):
                if why := closed(path):
                    account.left_out.append((path, why))
                else:
                    account.others.append(path)
            else:
                try:
                    written = deidentify_object(path, out, key, chosen, blank_outside_regions, budget)
                except ReadError as error:
                    account.left_out.append((path, str(error).removeprefix(f"{path}: ")))
                else:
                    _enter(account, written, rows)
                    _flushed(table, place)
            if progress:
                progress(k + 1, len(files))
    return account


def files_below(source: Path) -> Iterator[Path]:
    """A file itself, or all files of a folder and below it, in the order of their names; links are not followed out. Of
    a zip archive its members, but of one that cannot be opened itself."""
    if source.is_file():
        yield from _within(source)
        return
    for folder, folders, names in os.walk(source):
        folders.sort()
        for name in sorted(names):
            if name not in _UNWANTED:
                yield from _within(Path(folder, name))


def _within(path: Path) -> Iterator[Path]:
    if path.suffix.lower() == ZIP:
        with suppress(OSError, zipfile.BadZipFile, NotImplementedError, ValueError):
            found = members(path)
            yield from found
            return
    yield path


def closed(path: Path) -> str:
    """Why a file that is no DICOM may still hold some, "" where it holds none."""
    if isinstance(path, Packed) and (why := path.damage()):
        return why
    return (
        "a zip archive that is damaged, or lies in another one; unpack it first" if path.suffix.lower() == ZIP else ""
    )


def _check_folders(source: Path, out: Path) -> None:
    if not source.exists():
        raise UsageError(f"{source}: no such file or folder; expected DICOM files")
    if out.exists() and not out.is_dir():
        raise UsageError(f"{out}: a file; expected a folder for the results, or none")
    here, there = source.resolve(), out.resolve()
    if here == there or here in there.parents or there in here.parents:
        raise UsageError(f"{out}: lies in {source}, or that in it; give a folder apart, so that nothing is mixed up")


@contextmanager
def _audit(out: Path) -> Iterator[tuple[TextIO, Path]]:
    """The table of what is done, open for writing, under a name that is free: audit.csv, audit-2.csv, ..."""
    place, count = out / AUDIT, 1
    try:
        out.mkdir(parents=True, exist_ok=True)
        while place.exists():
            count += 1
            place = out / f"audit-{count}.csv"
        table = place.open("x", newline="", encoding="utf-8")
    except OSError as error:
        raise FabricaError(f"{place}: cannot be written ({error.strerror}); nothing was changed") from error
    try:
        yield table, place
    finally:
        with suppress(OSError):  # of a full disk: said when a row was written
            table.close()


def _enter(account: Account, written: Written, rows: Any) -> None:
    account.again += written.again
    account.written += not written.again
    account.montages += written.montage
    account.patients.add(written.name.partition(os.sep)[0])
    if written.risks:
        account.risks[written.name] = written.risks
    if written.again:
        return
    for (tag, keyword, what), count in sorted(written.done.items()):
        rows.writerow((written.name, tag, keyword, what, count))
    for risk in written.risks:
        rows.writerow((written.name, "(7FE0,0010)", "PixelData", f"may show identity: {risk}", 1))


def _flushed(table: TextIO, place: Path) -> None:
    try:
        table.flush()
    except OSError as error:
        raise FabricaError(
            f"{place}: cannot be written ({error.strerror}); what was written before is whole"
        ) from error
