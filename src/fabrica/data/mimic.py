"""MIMIC-CXR-JPG as it is published: radiographs, the reports of their studies, the split, and the CheXpert labels.

Johnson et al. 2019 (Scientific Data 6, 317; physionet.org/content/mimic-cxr-jpg). The folder holds
files/p10/p10000032/s50414267/IMAGE.jpg, mimic-cxr-2.0.0-metadata.csv and -split.csv, and -chexpert.csv if there is one
(each plain or .gz). The reports, files/p10/p10000032/s50414267.txt, are published apart (MIMIC-CXR,
mimic-cxr-reports.zip) and may lie in the same folder or in one of their own.
"""

from __future__ import annotations

import csv
import gzip
import re
from collections import Counter
from collections.abc import Collection, Iterator
from pathlib import Path

from fabrica.data.manifest import Manifest, Row
from fabrica.data.metadata import age, sex
from fabrica.data.tables import SPLIT_NAMES
from fabrica.errors import UsageError, unknown
from fabrica.progress import Count

TABLES = "mimic-cxr-2.*-{}.csv"
VIEWS = ("PA",)
HEADING = re.compile(r"^[ \t]*([A-Z][A-Z \t/&,()-]{2,}|Findings|Impression):", re.MULTILINE)
SECTIONS = ("FINDINGS", "IMPRESSION")
SPLITS = {**SPLIT_NAMES, "validate": "val"}
KEYS = {"subject_id", "study_id", "dicom_id"}
AGES, SEXES = ("PatientAge", "anchor_age", "age"), ("PatientSex", "gender", "sex")  # columns that a table may have


def is_mimic(folder: Path) -> bool:
    """Whether this folder is laid out as MIMIC-CXR-JPG."""
    return (folder / "files").is_dir() and _find(folder, "metadata") is not None


def mimic(
    folder: str | Path,
    reports: str | Path | None = None,
    views: Collection[str] = VIEWS,
    progress: Count | None = None,
) -> Manifest:
    """A row each for the images of these views (PA, AP, LATERAL, ...; () for all): the view as domain too, the findings
    that are sure as label ("Edema|Pneumonia"), the sections FINDINGS and IMPRESSION of the study's report as text, and
    the split as published, which is by patient. Age and sex are empty, since the published tables do not say them,
    unless the metadata have a column of MIMIC-IV's (anchor_age, gender) or of DICOM's beside them.

    reports  the folder that holds the reports' own `files`; None: `folder`.

    Images that the tables name and the folder lacks are left out with a note, since hardly anybody has them all.
    Nothing is decoded. Raises UsageError without the tables, without the split, for views that no image has, and where
    no image is left.
    """
    folder = Path(folder)
    if reports is not None and not Path(reports).is_dir():
        raise UsageError(f"no folder {reports} of reports; expected files/p10/p10000032/s50414267.txt in it")
    split = {record["dicom_id"]: record.get("split", "") for record in _records(folder, "split")}
    labels = {record["study_id"]: _positive(record) for record in _records(folder, "chexpert", required=False)}
    wanted = _wanted(folder, views)
    manifest = Manifest([], folder)
    texts: dict[str, str | None] = {}
    unread = silent = 0
    for done, record in enumerate(wanted, start=1):
        row = _row(record, split, labels)
        if progress and (done % 1000 == 0 or done == len(wanted)):
            progress(done, len(wanted))
        if not (folder / row.path).is_file():
            continue
        study = Path(row.path).parent
        if study.name not in texts:
            texts[study.name] = _text(Path(reports or folder) / study.with_suffix(".txt"))
        text = texts[study.name]
        unread += text is None
        silent += text == ""
        row.text = text or ""
        manifest.rows.append(row)
    if not manifest.rows:
        raise UsageError(
            f"none of the {len(wanted)} images that {folder} should have of view {', '.join(views) or 'any'} is there; "
            "expected them as files/p10/p10000032/s50414267/IMAGE.jpg: unpack them, or choose other views"
        )
    seen = Counter(row.domain for row in manifest.rows)
    missing = len(wanted) - len(manifest.rows)
    counts = ", ".join(f"{view or 'unnamed'} {count}" for view, count in seen.most_common())
    manifest.notes = [f"MIMIC-CXR-JPG: images by view: {counts}; split as published; not verified"]
    for count, what in ((missing, "are not in the folder: left out"), (unread, "have no report"), (silent, _SILENT)):
        if count:
            manifest.notes.append(f"{count} of {len(wanted)} images {what}")
    return manifest


def _wanted(folder: Path, views: Collection[str]) -> list[dict[str, str]]:
    """The metadata of the images of these views; UsageError for a view that none has."""
    wanted: list[dict[str, str]] = []
    there: set[str] = set()
    for record in _records(folder, "metadata"):
        view = record.get("ViewPosition", "")
        there.add(view)
        if not views or view in views:
            wanted.append(record)
    for view in views:
        if view not in there:
            raise unknown("view", view, there - {""})
    return wanted


_SILENT = "have a report with neither FINDINGS nor IMPRESSION: their text is empty"


def sections(report: str) -> dict[str, str]:
    """Heading -> what stands below it, on one line, of a report whose headings are capitals and a colon at the start of
    a line; what stands before the first is under ""."""
    parts = HEADING.split(report)
    found = {"": " ".join(parts[0].split())}
    for heading, said in zip(parts[1::2], parts[2::2], strict=True):
        name = " ".join(heading.upper().split())
        found[name] = " ".join([found.get(name, ""), *said.split()]).strip()
    return found


def _row(record: dict[str, str], split: dict[str, str], labels: dict[str, str]) -> Row:
    """The row of one line of the metadata, without its text."""
    patient, study, image = f"p{record['subject_id']}", f"s{record['study_id']}", record["dicom_id"]
    return Row(
        id=image,
        patient=patient,
        path=f"files/{patient[:3]}/{patient}/{study}/{image}.jpg",
        split=SPLITS.get(split.get(image, ""), ""),
        domain=record.get("ViewPosition", ""),
        view=record.get("ViewPosition", ""),
        age=age(_first(record, AGES)),
        sex=sex(_first(record, SEXES)),
        label=labels.get(record["study_id"], ""),
    )


def _first(record: dict[str, str], names: Collection[str]) -> str:
    return next((record[name] for name in names if record.get(name)), "")


def _text(path: Path) -> str | None:
    """The findings and the impression of the report in this file; None without the file."""
    if not path.is_file():
        return None
    found = sections(path.read_text(encoding="utf-8", errors="replace"))
    told = {name: said for name, said in found.items() if said and any(part in name for part in SECTIONS)}
    return " ".join(f"{name}: {said}" for name, said in told.items())


def _positive(record: dict[str, str]) -> str:
    """The labels that are 1; 0 is absent, -1 uncertain, and empty not mentioned."""
    return "|".join(name for name, value in record.items() if name not in KEYS and value in ("1", "1.0"))


def _find(folder: Path, which: str) -> Path | None:
    found = [*folder.glob(TABLES.format(which)), *folder.glob(TABLES.format(which) + ".gz")]
    return min(found, default=None)


def _records(folder: Path, which: str, required: bool = True) -> Iterator[dict[str, str]]:
    path = _find(folder, which)
    if path is None:
        if required:
            raise UsageError(f"{folder} has no {TABLES.format(which)} (or .gz); take it from MIMIC-CXR-JPG")
        return
    keys = {"study_id"} if which == "chexpert" else {"dicom_id"} if which == "split" else KEYS
    try:
        with gzip.open(path, "rt", newline="") if path.suffix == ".gz" else path.open(newline="") as file:
            reader = csv.DictReader(file)
            if lacking := keys - set(reader.fieldnames or ()):
                raise UsageError(f"{path} has no column {', '.join(sorted(lacking))}; take it from MIMIC-CXR-JPG again")
            for record in reader:
                yield {name: value or "" for name, value in record.items() if name is not None}
    except (OSError, EOFError, UnicodeDecodeError, csv.Error) as error:
        raise UsageError(f"{path} cannot be read as a table ({error}); take it from MIMIC-CXR-JPG again") from error
