"""Manifest: the table of a data set, one row an image, split by patient."""

from __future__ import annotations

import csv
import os
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass, field, fields, replace
from difflib import get_close_matches
from pathlib import Path, PurePosixPath

from fabrica.errors import UsageError, did_you_mean
from fabrica.io.atomic import atomic

SPLITS = ("train", "val", "test")
PATHS = ("path", "mask", "pair")  # the columns that hold paths
REQUIRED = ("patient", "path", "split")


@dataclass(slots=True)
class Row:
    """One image. Every field is text, "" when absent.

    id        unique within the manifest; names the image in reports.
    patient   images of one patient never lie in two splits.
    path      the file, or the folder of a DICOM series; relative to the manifest's root.
    frame     which image of a container: "train_images/17" (npz), the member's name (zip), the SeriesInstanceUID
              (a folder of several series); "" elsewhere.
    split     "train", "val" or "test"; "" for rows that are listed but not used (copies across splits).
    modality  DICOM's letters: CT, MR, PT, DX, CR, ...
    domain    what distinguishes unpaired sets: "a" and "b", "T1", "PA", ...
    label     the class; several findings are joined by "|".
    text      a report or caption.
    age       of the patient, in years.
    sex       M, F or O, as in DICOM.
    view      how the patient stood to the detector: PA, AP, LATERAL, ...
    mask      a label map on the same grid: a file, a SEG or RTSTRUCT, or a folder of one mask a class.
    mask_frame  which image of a container the mask is, as `frame`; of files that are one mask together, as those of
              the left and the right, their names within the folder `mask`, joined by "|".
    mask_labels  what its numbers are called, "1=anterior|2=posterior" (see `fabrica.data.label_names`); "" when not
              known.
    pair      another image of the same patient on the same grid.
    sha256    of the file; of the decoded pixels where one file holds many images.
    kind      "" for an image of the patient as it was taken; else what it is instead: "localizer", "derived", "screen",
              "dose", "segmentation" ... (see `fabrica.io.dicom.kinds.KINDS`), "mask". Such rows have no split, unless
              they were asked for.
    series    DICOM's SeriesInstanceUID; series_number, description (SeriesDescription; of a segment with what it
              is called) and image_type ("ORIGINAL\\PRIMARY\\M") as the header has them.
    refers    the SeriesInstanceUID of the images that a segmentation or structure set was drawn on.
    unit      of the values: HU, SUV, Gy, or "arbitrary"; channels: 1 (grey), 3 (colour) ...; dims: 2 (a picture) or 3
              (a volume). "" where the image was not decoded.
    notes     what the reader had to repair, assume or leave out, joined by "; ".
    """

    id: str = ""
    patient: str = ""
    path: str = ""
    frame: str = ""
    split: str = ""
    modality: str = ""
    domain: str = ""
    label: str = ""
    text: str = ""
    age: str = ""
    sex: str = ""
    view: str = ""
    mask: str = ""
    mask_frame: str = ""
    mask_labels: str = ""
    pair: str = ""
    sha256: str = ""
    kind: str = ""
    series: str = ""
    series_number: str = ""
    description: str = ""
    image_type: str = ""
    refers: str = ""
    unit: str = ""
    channels: str = ""
    dims: str = ""
    notes: str = ""

    @property
    def mask_files(self) -> list[str]:
        """The paths that the mask is read from, like `mask`."""
        if "|" not in self.mask_frame:
            return [self.mask] if self.mask else []
        return [(PurePosixPath(self.mask) / name).as_posix() for name in self.mask_frame.split("|")]


COLUMNS = tuple(f.name for f in fields(Row))


@dataclass
class Manifest:
    """Rows, the folder their paths start from, and what `scan` had to say: notes, and (path, reason) of each
    file it left out."""

    rows: list[Row] = field(default_factory=list)
    root: Path = field(default_factory=Path)
    notes: list[str] = field(default_factory=list)
    rejected: list[tuple[str, str]] = field(default_factory=list)
    files: dict[str, int] = field(default_factory=dict)  # of a scan: how many were used, set apart, left out, unread

    @classmethod
    def load(cls, path: str | Path) -> Manifest:
        """The manifest in a .csv or .parquet file; paths in it are relative to its folder, or absolute.

        Columns patient, path and split must be there; absent ones of the others are empty, unknown ones are
        ignored with a note. Raises UsageError for missing files and columns, and for unknown splits.
        """
        path = Path(path)
        if not path.is_file():
            raise UsageError(f"no manifest at {path}; make one with: fabrica scan FOLDER -o {path.name}")
        header, records = _read_parquet(path) if path.suffix == ".parquet" else _read_csv(path)
        if lacking := [name for name in REQUIRED if name not in header]:
            if near := get_close_matches(lacking[0], header, n=1):
                raise UsageError(f"{path} has no column {lacking[0]!r}; did you mean {near[0]}?")
            raise UsageError(
                f"{path} is no manifest: it has no column {', '.join(lacking)}, found {', '.join(header)[:100]}; "
                "make one with: fabrica scan FOLDER -o manifest.csv, and name a table of labels with --labels"
            )
        extra = sorted(set(header) - set(COLUMNS))
        notes = [f"columns not used: {', '.join(extra)}"] if extra else []
        known = [name for name in header if name in COLUMNS]
        places = [header.index(name) for name in known]
        manifest = cls([], path.parent, notes)
        for number, record in enumerate(records, start=1):
            if len(record) != len(header):
                raise UsageError(f"{path} row {number} has {len(record)} values; expected {len(header)}")
            row = Row(**{name: record[place] for name, place in zip(known, places, strict=True)})
            if not row.path or row.split not in (*SPLITS, ""):
                found = f"split {row.split!r}" if row.path else "no path"
                raise UsageError(f"{path} row {number} has {found}; expected a path and train, val or test")
            row.id = row.id or f"{row.path}/{row.frame}".rstrip("/")
            manifest.rows.append(row)
        return manifest

    def save(self, path: str | Path) -> None:
        """Write .csv or .parquet, whole or not at all. Paths inside the manifest's folder become relative to it, so
        that the folder can be moved; others become absolute. Names of files that are not UTF-8 keep their bytes in
        .csv; UsageError for them in .parquet.
        """
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        home = _absolute(path.parent)
        rows = [replace(row, **{k: self._place(getattr(row, k), home) for k in PATHS}) for row in self.rows]
        with atomic(path) as temporary:
            if path.suffix == ".parquet":
                _write_parquet(rows, temporary)
                return
            with temporary.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file:
                writer = csv.writer(file)
                writer.writerow(COLUMNS)
                writer.writerows(astuple(row) for row in rows)

    def select(self, split: str | None = None, **columns: str) -> Manifest:
        """The rows of this split (None: of any) whose columns have these values."""
        wanted = {**({} if split is None else {"split": split}), **columns}
        for name in wanted:
            if name not in COLUMNS:
                raise UsageError(f"a manifest has no column {name!r}{did_you_mean(name, COLUMNS)}")
        rows = [row for row in self.rows if all(getattr(row, k) == v for k, v in wanted.items())]
        return Manifest(rows, self.root, self.notes, self.rejected, self.files)

    def patients(self, split: str) -> set[str]:
        """Who is in this split."""
        return {row.patient for row in self.rows if row.split == split}

    def file(self, row: Row) -> Path:
        """Where the image of this row lies."""
        return self.root / row.path

    def check(self) -> None:
        """Raise UsageError when a patient is in two splits, or a file is missing."""
        splits: dict[str, set[str]] = defaultdict(set)
        for row in self.rows:
            if row.split and row.patient:
                splits[row.patient].add(row.split)
        torn = sorted(patient for patient, found in splits.items() if len(found) > 1)
        if torn:
            raise UsageError(
                f"{_some(torn)} in more than one split: results would be too good to be true; "
                "split by patient, e.g. with: fabrica scan"
            )
        missing = sorted({row.path for row in self.rows if row.split and not self.file(row).exists()})
        if missing:
            raise UsageError(
                f"{len(missing)} files of the manifest are missing, the first is {self.root / missing[0]}; "
                "mount or copy them, or scan again"
            )

    def _place(self, path: str, home: Path) -> str:
        if not path:
            return ""
        absolute = _absolute(self.root / path)
        return (absolute.relative_to(home) if absolute.is_relative_to(home) else absolute).as_posix()


def printable(name: str) -> str:
    """The name with bytes that are no UTF-8 spelled out: r\\xf6ntgen."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _absolute(path: Path) -> Path:
    """Without '..', and without following links: data sets are often linked into place."""
    return Path(os.path.abspath(path))  # noqa: PTH100


def _some(patients: Sequence[str]) -> str:
    shown = ", ".join(patients[:3]) + (", ..." if len(patients) > 3 else "")
    return f"{len(patients)} patients ({shown}) are" if len(patients) > 1 else f"patient {shown} is"


def _read_csv(path: Path) -> tuple[list[str], list[list[str]]]:
    try:
        with path.open(newline="", encoding="utf-8-sig", errors="surrogateescape") as file:
            table = [record for record in csv.reader(file) if record]
    except csv.Error as error:
        raise UsageError(f"{path} is not a CSV file: {error}") from error
    if not table:
        raise UsageError(f"{path} is empty; expected a header and one row an image")
    return table[0], table[1:]


def _read_parquet(path: Path) -> tuple[list[str], list[list[str]]]:
    try:
        from pyarrow import ArrowException, parquet
    except ImportError as error:
        raise UsageError(f"{path}: reading Parquet needs pyarrow: pip install 'fabrica-imaging[parquet]'") from error
    try:
        table = parquet.read_table(path)
    except (ArrowException, OSError) as error:
        raise UsageError(f"{path} is not a Parquet file: {str(error).splitlines()[0]}") from error
    columns = [["" if v is None else str(v) for v in table[name].to_pylist()] for name in table.column_names]
    return list(table.column_names), [list(record) for record in zip(*columns, strict=True)]


def _write_parquet(rows: Iterable[Row], path: Path) -> None:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise UsageError(f"{path}: writing Parquet needs pyarrow: pip install 'fabrica-imaging[parquet]'") from error
    table = list(rows)
    columns = {name: [getattr(row, name) for row in table] for name in COLUMNS}
    for name in (name for column in columns.values() for name in column):
        if not name.isprintable() and printable(name) != name:
            raise UsageError(
                f"{printable(name)} is not UTF-8, and Parquet holds nothing else; write a .csv, or rename it"
            )
    parquet.write_table(pyarrow.table(columns, schema=pyarrow.schema([(n, "string") for n in COLUMNS])), path)
