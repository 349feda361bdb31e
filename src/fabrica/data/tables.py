"""The CSV files that lie beside images and say whose they are, and what they show."""

from __future__ import annotations

import csv
from collections.abc import Sequence
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
AMBIGUOUS: dict[str, str] = {}  # stands for a name that several rows claim
SUFFIXES = (".nii.gz", ".nii", ".png", ".tif", ".tiff", ".jpg", ".jpeg", ".npz", ".zip", ".dcm", ".dicom", ".ima",
            ".seg.nrrd", ".nrrd", ".nhdr", ".mha", ".mhd", ".mgz", ".mgh", ".bmp", ".gif")  # fmt: skip


@dataclass
class Table:
    """A label table: file name -> what the table says of it, in the words of `FACTS`.

    asked   the user named this table, so what it says comes first.
    """

    path: Path
    facts: dict[str, dict[str, str]]
    columns: dict[str, str]  # fact -> the column it comes from
    asked: bool = False
    notes: list[str] = field(default_factory=list)

    def lookup(self, name: str) -> dict[str, str]:
        """What is known of an image with this relative path or member name: first by the path as it stands, then
        by file name, then by file name without suffix; {} where the table does not know it, or knows several."""
        path = PurePosixPath(name)
        for key in (name, path.name, stem(path.name)):
            if key in self.facts:
                return self.facts[key]
        return {}


def stem(name: str) -> str:
    """The name without its suffixes for images: "a.b.nii.gz" -> "a.b", "CT.1.2.3" stays."""
    lower = name.lower()
    return next((name[: -len(suffix)] for suffix in SUFFIXES if lower.endswith(suffix)), name)


def find_table(folder: Path, names: Sequence[str]) -> Table | None:
    """The CSV in `folder` or its parent that knows most of these images (at least half), if there is one.

    Manifests are passed over: they are what a scan makes, not what it starts from.
    """
    best: tuple[int, Table] | None = None
    for path in [*sorted(folder.glob("*.csv")), *sorted(folder.absolute().parent.glob("*.csv"))]:
        try:
            header, records = _read(path)
        except UsageError:
            continue  # some other kind of CSV; nobody asked for it
        if set(header) >= MANIFEST:
            continue
        found = _best_table(path, header, records, names)
        if found and found[0] * 2 >= len(names) and (best is None or found[0] > best[0]):
            best = found
    return best[1] if best else None


def read_table(path: Path, names: Sequence[str]) -> Table:
    """The table that the user named. Raises UsageError where it names none of the images."""
    if not path.is_file():
        raise UsageError(f"no table of labels at {path}")
    header, records = _read(path)
    found = _best_table(path, header, records, names)
    if found is None:
        raise UsageError(
            f"{path} names none of the {len(names)} images; expected a column like "
            f"{', '.join(FILES[:4])} with their file names, found columns {', '.join(header)}"
        )
    found[1].asked = True
    return found[1]


def _best_table(
    path: Path, header: list[str], records: list[list[str]], names: Sequence[str]
) -> tuple[int, Table] | None:
    """(images known, table) by the file column that knows most of them; None where none knows any."""
    columns = {
        fact: next(word for word in words if word in header)
        for fact, words in FACTS.items()
        if set(words) & set(header)
    }
    best: tuple[int, Table] | None = None
    for column in (word for word in FILES if word in header):
        table = Table(path, _index(header, records, column, columns), columns)
        known = sum(bool(table.lookup(name)) for name in names)
        if known and (best is None or known > best[0]):
            best = known, table
    return best


def _index(
    header: list[str], records: list[list[str]], column: str, columns: dict[str, str]
) -> dict[str, dict[str, str]]:
    place = header.index(column)
    wanted = {fact: header.index(name) for fact, name in columns.items()}
    facts: dict[str, dict[str, str]] = {}
    for record in records:
        values = {fact: record[k].strip() for fact, k in wanted.items()}
        values["file"] = record[place].strip()
        if "split" in values:
            values["split"] = SPLIT_NAMES.get(values["split"].lower(), "")
        name = PurePosixPath(values["file"].replace("\\", "/"))
        for key in {name.as_posix(), name.name, stem(name.name)}:
            facts[key] = AMBIGUOUS if key in facts and facts[key] != values else values
    return facts


def _read(path: Path) -> tuple[list[str], list[list[str]]]:
    """Header in lower case with underscores, and the rows that are as long as it."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = [row for row in csv.reader(file) if row]
    except (UnicodeDecodeError, csv.Error, OSError) as error:
        raise UsageError(f"{path} is not a CSV file in UTF-8: {error}") from error
    if len(rows) < 2:
        raise UsageError(f"{path} is empty; expected a header and one row an image")
    header = [name.strip().lower().replace(" ", "_").replace("-", "_") for name in rows[0]]
    return header, [row for row in rows[1:] if len(row) == len(header)]
