"""Rows: what tables, headers, folders and patterns say of the images found, brought together in a manifest."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path, PurePosixPath

from fabrica.about import ABOUT, about
from fabrica.data import layouts
from fabrica.data.find import Item
from fabrica.data.manifest import Manifest, Row
from fabrica.data.tables import Table, find_table, read_table, stem
from fabrica.errors import UsageError


def table_of(labels: Path | None, root: Path, items: list[Item]) -> Table | None:
    names = [_name(item, root) for item in items]
    return read_table(labels, names) if labels else find_table(root, names)


def _name(item: Item, root: Path) -> str:
    """What a label table may call this image."""
    return item.frame if item.path.suffix.lower() == ".zip" else item.path.relative_to(root).as_posix()


def fill(manifest: Manifest, items: list[Item], layout: layouts.Layout, table: Table | None, regex: str | None) -> None:
    """Make the rows; whatever several sources could say is taken from the most deliberate one."""
    root = manifest.root
    places = [_place(item, root, layout) for item in items]
    classes = layouts.classes({str(k): place for k, place in enumerate(places)})
    patient_of = _patient_finder(regex)
    nameless = known = studies = 0
    used: Counter[str] = Counter()
    for k, (item, place) in enumerate(zip(items, places, strict=True)):
        path = item.path.relative_to(root).as_posix()
        said = table.lookup(_name(item, root)) if table else {}
        known += bool(said)
        told = about(said)
        asked = said if table and table.asked else {}
        row = Row(
            id="/".join(filter(None, (stem(path), item.frame))),
            path=path,
            frame=item.frame,
            split=said.get("split") or item.split or place.split,
            modality=item.modality or said.get("modality", ""),
            domain=said.get("domain") or place.domain or _zip_domain(item),
            label=said.get("label") or item.label or classes.get(str(k), ""),
            text=said.get("text", ""),
            **{name: told[name] or item.about.get(name, "") for name in ABOUT},
            mask=place.mask,
            pair=place.pair,
            sha256=item.sha256,
        )
        whose = (asked.get("patient"), patient_of(path, item.frame), item.patient, said.get("patient"), place.patient)
        row.patient = next(filter(None, whose), "")
        if not row.patient and item.study:
            row.patient = item.study
            studies += 1
        elif not row.patient:
            row.patient = row.id if item.frame else place.case
            nameless += 1
        used[row.id] += 1
        manifest.rows.append(row)
    for row in manifest.rows:  # a.png beside a.jpg
        row.id = "/".join(filter(None, (row.path, row.frame))) if used[row.id] > 1 else row.id
    manifest.notes += _notes(manifest.rows, nameless, known, table, set(classes.values()))
    if studies:
        manifest.notes.append(f"{studies} DICOM images name no patient: each study counts as one")


def _place(item: Item, root: Path, layout: layouts.Layout) -> layouts.Place:
    """The place of a file; for a member of a zip, the folders within it count too."""
    path = item.path.relative_to(root).as_posix()
    if item.path.suffix.lower() == ".zip":
        inside = PurePosixPath(path).parent / item.frame
        return layouts.read_layout([inside.as_posix()]).places[inside.as_posix()]
    if path in layout.places:
        return layout.places[path]
    return layouts.read_layout([path]).places[path]


def _zip_domain(item: Item) -> str:
    if item.path.suffix.lower() != ".zip":
        return ""
    return PurePosixPath(item.frame).parent.name or item.path.stem


def _patient_finder(regex: str | None) -> Callable[[str, str], str]:
    if regex is None:
        return lambda path, frame: ""
    try:
        pattern = re.compile(regex)
    except re.error as error:
        raise UsageError(f"patient pattern {regex!r} is not a regular expression: {error}") from error
    if pattern.groups < 1:
        raise UsageError(f"patient pattern {regex!r} has no group; put the patient's part in brackets: ([^_]+)_")

    def find(path: str, frame: str) -> str:
        match = pattern.search("/".join(filter(None, (path, frame))))
        return (match[1] or "") if match else ""

    return find


def _notes(rows: list[Row], nameless: int, known: int, table: Table | None, classes: set[str]) -> list[str]:
    notes = []
    if table:
        what = ", ".join(f"{fact} ({column})" for fact, column in table.columns.items()) or "nothing of use"
        notes.append(f"{table.path.name} knows {known} of {len(rows)} images: {what}")
    if classes:
        shown = sorted(classes)
        more = f" and {len(shown) - 8} more" if len(shown) > 8 else ""
        notes.append(f"labels are the names of folders: {', '.join(shown[:8])}{more}")
    if nameless == len(rows):
        notes.append("no patient ids: a patient-wise split is impossible, each image counts as its own patient")
    elif nameless:
        notes.append(f"{nameless} of {len(rows)} images have no patient id: each of them counts as its own patient")
    return notes
