"""The tables that lie beside images and say whose they are, and what they show."""

from __future__ import annotations

import codecs
import csv
import io
import os
import re
import unicodedata
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from fabrica.errors import UsageError

MANIFEST = {"patient", "path", "split", "sha256"}  # the columns that tell a manifest from other tables
FILES = ("file", "path", "filename", "file_name", "file_path", "image", "image_path", "image_name", "image_index",
         "image_id", "img", "name", "id")  # fmt: skip
FACTS = {  # what a manifest calls it -> how others call it, the best first
    "patient": ("patient", "patient_id", "patientid", "subject", "subject_id", "participant_id", "participant"),
    "label": ("label", "class", "findings", "finding", "finding_labels", "diagnosis", "category"),
    "split": ("patient_split", "split"),  # not repo_split and the like: published splits often share patients
    "text": ("text", "report", "caption", "templated_caption", "impression"),
    "modality": ("modality",),
    "domain": ("domain", "projection", "view", "view_position", "contrast"),
    "age": ("age", "patient_age"),
    "sex": ("sex", "gender", "patient_sex", "patient_gender"),
    "view": ("view", "view_position", "viewposition", "projection"),
}
SPLIT_NAMES = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}
KNOWN = {*FILES, *(word for words in FACTS.values() for word in words)}
NAMES = {",": "comma", ";": "semicolon", "\t": "tab", "|": "bar"}
SEPARATORS = ",;\t|"
ELSEWHERE = "/"  # a folder that is not within the scanned one
BESIDE = {"mask", "masks", "label", "labels", "labelstr", "segmentations"}  # hold files of the same names as images
SOME = 20  # names that are looked for in folders beside
AMBIGUOUS: dict[str, str] = {}  # stands for a name that several rows claim
SUFFIXES = (".nii.gz", ".nii", ".png", ".tif", ".tiff", ".jpg", ".jpeg", ".npz", ".zip", ".dcm", ".dicom", ".ima",
            ".seg.nrrd", ".nrrd", ".nhdr", ".mha", ".mhd", ".mgz", ".mgh", ".bmp", ".gif")  # fmt: skip

Named = tuple[str, str]
"""An image's relative path or member name, and the patient that its header names, or ""."""


@dataclass
class Table:
    """A label table: what it says of each image, in the words of `FACTS`.

    facts     relative path, file name or name without suffix -> what is said.
    patients  patient -> what is said of all images of one, where the table names patients and no files.
    asked     the user named this table, so what it says comes first.
    notes     what had to be left out.
    """

    path: Path
    facts: dict[str, dict[str, str]]
    columns: dict[str, str]  # fact -> the column it comes from
    asked: bool = False
    notes: list[str] = field(default_factory=list)
    patients: dict[str, dict[str, str]] = field(default_factory=dict)
    bad: list[str] = field(default_factory=list)  # rows that were not as long as the header
    placed: bool = False  # it names folders that are there
    named: set[str] = field(default_factory=set)  # the files that it names, but for those in other folders
    torn: set[str] = field(default_factory=set)  # of these, those of which its rows say different things

    def lookup(self, name: str, patient: str = "") -> dict[str, str]:
        """What is known of an image with this relative path or member name: first by the path as it stands, then
        by file name, then by file name without suffix; else by its patient, or by a folder that is called like one;
        {} where the table does not know it, or knows several."""
        name = composed(name)
        path = PurePosixPath(name)
        for key in (name, stem(name), path.name, stem(path.name)):
            if key in self.facts:
                return self.facts[key]
        for key in (composed(patient), *path.parts[:-1], stem(path.name)) if self.patients else ():
            if key in self.patients:
                return self.patients[key]
        return {}


def composed(name: str) -> str:
    """The name with composed letters, as macOS does not write it; bytes that are no UTF-8 are taken as Latin-1."""
    try:
        name.encode()
    except UnicodeEncodeError:
        name = os.fsencode(name).decode("latin-1")
    return unicodedata.normalize("NFC", name)


def stem(name: str) -> str:
    """The name without its suffixes for images: "a.b.nii.gz" -> "a.b", "CT.1.2.3" stays."""
    lower = name.lower()
    return next((name[: -len(suffix)] for suffix in SUFFIXES if lower.endswith(suffix)), name)


def tables_near(folder: Path) -> list[Path]:
    """The tables that may speak of a folder's images: those in it and in its parent."""
    return [
        path
        for home in (folder, Path(os.path.normpath(folder.absolute())).parent)
        for path in sorted(home.iterdir() if home.is_dir() else ())
        if path.suffix.lower() in (".csv", ".tsv") and not path.name.startswith(".")
    ]


def find_table(folder: Path, names: Sequence[Named], passed: Collection[str] = ()) -> tuple[Table | None, list[str]]:
    """The table in `folder` or its parent that knows most of these images (at least half), if there is one, and notes
    on those that were passed over though they name the same files, or lie in the folder and look like labels.

    Manifests are passed over: they are what a scan makes, not what it starts from. So is a table of the parent that
    names no folder, where another folder holds files of the same names.

    passed  file names of tables in the folder that speak of other things.
    """
    best: tuple[int, Table] | None = None
    notes: list[str] = []
    own: list[tuple[Path, Sheet, int]] = []
    for path in tables_near(folder):
        if path.parent == folder and path.name in passed:
            continue
        try:
            sheet = read_sheet(path)
        except (UsageError, OSError):
            continue  # some other kind of table; nobody asked for it
        if set(sheet.header) >= MANIFEST:
            continue
        found = _best_table(path, sheet, folder, names)
        known = found[0] if found and found[1].columns else 0
        above = path.absolute().parent != folder.absolute()
        if not above and sheet.labels:
            own.append((path, sheet, known))
        if not found or not known or known * 2 < len(names):
            continue
        if above and (other := _other(folder, found[1], names)):
            notes.append(
                f"{path.name} in the folder above names no folder, and {other.name} there holds files of the same "
                f"names: not used; if it belongs to this folder: --labels {path}"
            )
        elif best is None or found[0] > best[0]:
            best = found
    if best and best[1].bad:
        count, first = len(best[1].bad), best[1].bad[0]
        best[1].notes.append(f"{count} rows of {best[1].path.name} were passed over; the first, {first}")
    for path, sheet, known in own:
        if not best or path != best[1].path:
            why = _why_not(path, sheet, known, len(names), best[1].path.name if best else "")
            notes.append(f"{path.name} is not used: {why}")
    return (best[1] if best else None), notes


def read_table(path: Path, folder: Path, names: Sequence[Named]) -> Table:
    """The table that the user named. Raises UsageError where it names none of the images, says nothing of use, or has a
    row with more or fewer fields than the header."""
    if not path.is_file():
        raise UsageError(f"no table of labels at {path}")
    sheet = read_sheet(path)
    if sheet.bad:
        raise UsageError(f"{path} {sheet.bad[0]}; put quotes around values that hold a {sheet.separator}")
    found = _best_table(path, sheet, folder, names)
    columns = ", ".join(name for name in sheet.header if name)
    if found is None:
        raise UsageError(
            f"{path} names none of the {len(names)} images; expected a column like "
            f"{', '.join(FILES[:4])} with their file names, found columns {columns}"
        )
    if not found[1].columns:
        raise UsageError(
            f"{path} says nothing of the images that it names; expected a column like "
            f"{', '.join(words[0] for words in FACTS.values())}; found columns {columns}"
        )
    found[1].asked = True
    return found[1]


def _why_not(path: Path, sheet: Sheet, known: int, count: int, better: str) -> str:
    """Why a table that lies beside the images is passed over, and what to do."""
    if not known and sheet.bad:
        rows = len(sheet.bad) + len(sheet.records)
        return f"{len(sheet.bad)} of {rows} rows are of another length than its header; the first, {sheet.bad[0]}"
    if not known:
        return f"it names none of the images; expected their file names in a column like {', '.join(FILES[:4])}"
    less = f"and {better} more: join the two" if better else "fewer than half; to use it nevertheless"
    return f"it knows {known} of {count} images, {less}: --labels {path}"


def _other(folder: Path, table: Table, names: Sequence[Named]) -> Path | None:
    """A folder beside this one that holds files of the same names, which a table without folders may mean instead."""
    if table.placed:
        return None
    some = [name for name, patient in names if table.lookup(name, patient)][:SOME]
    home = folder.absolute()
    for beside in sorted(home.parent.iterdir()):
        if not beside.is_dir() or beside == home or beside.name.startswith(".") or beside.name.lower() in BESIDE:
            continue
        if any((beside / part).exists() for name in some for part in {name, PurePosixPath(name).name}):
            return beside
    return None


def _best_table(path: Path, sheet: Sheet, folder: Path, names: Sequence[Named]) -> tuple[int, Table] | None:
    """(images known, table) by the file column that knows most of them, else by patient; None where none knows any."""
    columns = {
        fact: next(word for word in words if word in sheet.header)
        for fact, words in FACTS.items()
        if set(words) & set(sheet.header)
    }
    best: tuple[int, Table] | None = None
    tables = [_by_file(path, sheet, column, columns, folder) for column in FILES if column in sheet.header]
    tables += [_by_patient(path, sheet, columns)] if "patient" in columns else []
    for table in tables:
        known = sum(bool(table.lookup(*name)) for name in names)
        if known and (best is None or known > best[0]):
            best = known, table
    return best


def _by_file(path: Path, sheet: Sheet, column: str, columns: dict[str, str], folder: Path) -> Table:
    """What the table says by file name. A name with folders that are there speaks of the files in them alone."""
    table = Table(path, {}, columns, bad=sheet.bad)
    homes: dict[str, str | None] = {}
    place, wanted = sheet.header.index(column), {fact: sheet.header.index(name) for fact, name in columns.items()}
    for record in sheet.records:
        if not record[place].strip():
            continue
        name = PurePosixPath(composed(record[place].strip()).replace("\\", "/"))
        if name.parent.as_posix() not in homes:
            homes[name.parent.as_posix()] = _home(name.parent, path, folder)
        home = homes[name.parent.as_posix()]
        keys = {name.as_posix(), name.name, stem(name.name)}
        if home is not None:
            table.placed = True
            within = (PurePosixPath(home) / name.name).as_posix()
            keys = {within, stem(within)} if home != ELSEWHERE else set()
        table.named |= {record[place].strip()} if keys else set()
        values = {**_said(record, wanted), "file": record[place].strip()}
        whole = within if home is not None else name.as_posix()
        for key in keys:
            doubtful = key in table.facts and table.facts[key] != values
            table.facts[key] = AMBIGUOUS if doubtful else values
            table.torn |= {record[place].strip()} if doubtful and key == whole else set()
    return table


def _home(named: PurePosixPath, path: Path, folder: Path) -> str | None:
    """Where a folder that a table names lies within the scanned one; ELSEWHERE for one beside it; None where there is
    no such folder, so that file names alone must do."""
    if named == PurePosixPath("."):
        return None
    root = Path(os.path.normpath(folder.absolute()))  # "data/../set" is "set"
    for start in (path.absolute().parent, root):
        try:
            found = Path(os.path.normpath(start / named))
            if found.is_dir():
                return found.relative_to(root).as_posix() if found.is_relative_to(root) else ELSEWHERE
        except (OSError, ValueError):
            return None
    return None


def _by_patient(path: Path, sheet: Sheet, columns: dict[str, str]) -> Table:
    """What the table says of patients, such as participants.tsv of BIDS."""
    table = Table(path, {}, dict(columns), bad=sheet.bad)
    wanted = {fact: sheet.header.index(name) for fact, name in columns.items()}
    place = wanted["patient"]
    for record in sheet.records:
        values = _said(record, wanted)
        values.pop("split", None)
        key = composed(record[place].strip())
        known = table.patients.get(key)
        if key:
            table.patients[key] = AMBIGUOUS if known is not None and known != values else values
    if len(columns) == 1:
        table.patients.clear()  # it says no more than the folders do
    return table


def _said(record: Sequence[str], wanted: dict[str, int]) -> dict[str, str]:
    values = {fact: record[k].strip() for fact, k in wanted.items()}
    values = {fact: "" if value.lower() in ("n/a", "nan") else value for fact, value in values.items()}
    if "split" in values:
        values["split"] = SPLIT_NAMES.get(values["split"].lower(), "")
    return values


@dataclass
class Sheet:
    """A table as it was read: the header in lower case with underscores, the rows that are as long as it, and what was
    wrong with the others."""

    header: list[str]
    records: list[list[str]]
    separator: str
    bad: list[str] = field(default_factory=list)

    @property
    def labels(self) -> bool:
        """Whether it has a column of files and one that says something of them."""
        facts = {word for words in FACTS.values() for word in words}
        return bool(set(FILES) & set(self.header)) and bool(facts & set(self.header))


def read_sheet(path: Path) -> Sheet:
    """A CSV by the separator that makes its header known: comma, semicolon, tab or bar. Raises UsageError."""
    text = decoded(path)
    if declared := re.match(r"sep=(.)\r?\n", text):  # how Excel is told the separator
        text = text[declared.end() :]
    best: tuple[tuple[int, int], Sheet] | None = None
    problem: UsageError | None = None
    for separator in declared[1] if declared else SEPARATORS:
        try:
            sheet = _sheet(path, text, separator)
        except UsageError as error:
            problem = problem or error
            continue
        known = sum(name in KNOWN for name in sheet.header)
        score = known, len(sheet.header)
        if best is None or score > best[0]:
            best = score, sheet
    if best is None:
        raise problem or UsageError(f"{path} is empty; expected a header and one row an image")
    if not best[1].records and not best[1].bad:
        raise UsageError(f"{path} is empty; expected a header and one row an image")
    return best[1]


def _sheet(path: Path, text: str, separator: str) -> Sheet:
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator)
    lines: list[tuple[int, list[str]]] = []
    try:
        lines += [(reader.line_num, row) for row in reader if any(field.strip() for field in row)]
    except csv.Error as error:
        raise UsageError(f"{path} line {reader.line_num} is not CSV: {error}") from error
    if not lines:
        raise UsageError(f"{path} is empty; expected a header and one row an image")
    header = [composed(n).strip().lower().replace(" ", "_").replace("-", "_") for n in lines[0][1]]
    while header and not header[-1]:
        header.pop()  # a separator too many
    rows = [row for _, row in lines[1:]]
    numbered = [row[0].strip() for row in rows] == [str(k) for k in range(1, len(rows) + 1)]
    if rows and numbered and all(len(row) == len(header) + 1 for row in rows):
        header = ["", *header]  # R names rows, and not their column
    sheet = Sheet(header, [], NAMES.get(separator, separator))
    for line, row in lines[1:]:
        extra = row[len(header) :]
        if len(row) < len(header) or any(field.strip() for field in extra):
            sheet.bad.append(f"line {line} has {len(row)} fields; expected {len(header)}, as the header has")
        else:
            sheet.records.append(row[: len(header)])
    return sheet


def decoded(path: Path) -> str:
    """The text of a table: UTF-8 or UTF-16 with or without a mark, else Windows' Western letters."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from error
    for mark, encoding in (
        (codecs.BOM_UTF8, "utf-8-sig"),
        (codecs.BOM_UTF16_LE, "utf-16"),
        (codecs.BOM_UTF16_BE, "utf-16"),
    ):
        if data.startswith(mark):
            return data.decode(encoding, errors="replace")
    if data[:64].count(0) * 4 > len(data[:64]):  # every second byte of Western letters
        wide = "utf-16-be" if data[:1] == b"\0" else "utf-16-le"
        try:
            return data.decode(wide)
        except UnicodeDecodeError as error:
            raise UsageError(f"{path} is not a table of text: it holds zero bytes") from error
    if b"\0" in data:
        raise UsageError(f"{path} is not a table of text: it holds zero bytes")
    for encoding in ("utf-8-sig", "cp1252"):
        try:
            return data.decode(encoding)
        except UnicodeDecodeError:
            continue
    return data.decode("latin-1")
