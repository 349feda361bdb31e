"""What identity a folder still holds: what the profile would change, and what lies around the data sets.

A dry run of the treatment itself, with something in the place of the key that takes UIDs and pseudonyms of our making
for what they are. Options that an object says to have been treated with (DeidentificationMethodCodeSequence) count.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pydicom.datadict import keyword_for_tag
from pydicom.dataset import Dataset

from fabrica.errors import ReadError, UsageError
from fabrica.io.budget import DEFAULT_BUDGET
from fabrica.io.dicom.deidentification import burned_in, words
from fabrica.io.dicom.deidentification.elements import Treatment, clean
from fabrica.io.dicom.deidentification.folder import closed, files_below
from fabrica.io.dicom.deidentification.key import is_made, is_of_standard, is_pseudonym
from fabrica.io.dicom.deidentification.objects import LeftOutError, check_kind
from fabrica.io.dicom.deidentification.profile import CODES
from fabrica.io.dicom.file import OpenDicom, as_text, opened
from fabrica.io.dicom.mark import is_dicom
from fabrica.progress import Count

_META = {0x00020000, 0x00020001, 0x00020002, 0x00020003, 0x00020010, 0x00020012, 0x00020013}
"""Of the file meta, what says nothing of where the file was."""
_DATE = re.compile(r"(?<!\d)(19|20)\d\d[-_.]?(0[1-9]|1[0-2])[-_.]?(0[1-9]|[12]\d|3[01])(?!\d)")


@dataclass(frozen=True)
class Finding:
    """Something in a file that may say who it is of.

    tag, keyword  where, "" of what is no element.
    problem  what it is, without the value.
    """

    file: Path
    tag: str
    keyword: str
    problem: str


class _Recognising:
    """In the place of a key: takes UIDs that were made for what they are, and has another for each that was not."""

    def uid(self, uid: str) -> str:
        return uid if is_made(uid) or is_of_standard(uid) else "2.25.0"


def check(folder: Path | str, budget: int = DEFAULT_BUDGET, progress: Count | None = None) -> Iterator[Finding]:
    """What identity the DICOM files of a folder, in it and below, or one file, still hold: attributes that the profile
    would change, private elements, dates, file meta, preamble, names in the file's name, and pixels that may show it.

    What an object says that it retains by an option is no finding. Raises UsageError where nothing is there.
    """
    folder = Path(folder)
    if not folder.exists():
        raise UsageError(f"{folder}: no such file or folder")
    files = list(files_below(folder))
    for k, path in enumerate(files):
        if is_dicom(path):
            try:
                with opened(path, budget, complete=False) as file:
                    found = list(_of_file(file, folder, budget))
            except LeftOutError as error:
                found = [Finding(path, "", "", str(error).removeprefix(f"{path}: ").partition(": left out")[0])]
            except ReadError as error:
                found = [Finding(path, "", "", f"cannot be read: {str(error).removeprefix(f'{path}: ')}")]
            yield from found
        elif why := closed(path):
            yield Finding(path, "", "", f"cannot be looked into: {why}")
        if progress:
            progress(k + 1, len(files))


def _of_file(file: OpenDicom, folder: Path, budget: int) -> Iterator[Finding]:
    dataset, path = file.dataset, file.path
    options = declared(dataset)
    check_kind(dataset, options, path)
    named = _words(dataset)
    yield from (Finding(path, "", "", found) for found in _around(file, folder, named))
    for tag in file.dataset.file_meta.keys() - _META:
        keyword = keyword_for_tag(tag)
        yield Finding(path, f"({tag.group:04X},{tag.element:04X})", keyword, "file meta of an earlier place")
    if dataset.get("PatientIdentityRemoved") != "YES":
        yield Finding(path, "(0012,0062)", "PatientIdentityRemoved", "does not say that identity was removed")
    for risk in burned_in.risks(dataset) + burned_in.looks(file, budget):
        yield Finding(path, "(7FE0,0010)", "PixelData", f"may show identity: {risk}")
    name = as_text(dataset.get("PatientID"))
    how = Treatment(options, _Recognising(), name if is_pseudonym(name) else "", 0, named)
    clean(dataset, how)
    for (tag_path, keyword, what), _ in sorted(how.done.items()):
        if what != "kept":
            yield Finding(path, tag_path, keyword, f"would be {what}")


def _words(dataset: Dataset) -> frozenset[bytes]:
    return frozenset(w for w in words.of_identity(dataset) if not is_pseudonym(w.decode("latin-1").upper()))


def declared(dataset: Dataset) -> frozenset[str]:
    """The options that an object says to have been treated with."""
    names = {code: name for name, (code, _) in CODES.items() if name != "basic"}
    items = dataset.get("DeidentificationMethodCodeSequence") or ()
    found = {names[value] for item in items if (value := as_text(item.get("CodeValue"))) in names}
    return frozenset(found - {"dates"} if {"dates", "shifted-dates"} <= found else found)


def _around(file: OpenDicom, folder: Path, named: frozenset[bytes]) -> Iterator[str]:
    """What the preamble and the path say, of these words of identity, too."""
    with file.path.open("rb") as stream:
        head = stream.read(132)
    if head[128:] == b"DICM" and any(head[:128]):
        yield "a preamble that is not empty"
    name = str(file.path.relative_to(folder)) if file.path != folder else file.path.name
    if words.holds(name.encode("utf-8", "surrogateescape"), named):
        yield "a name or number of the patient or staff in the file's name"
    if _DATE.search(name):
        yield "a date in the file's name"
