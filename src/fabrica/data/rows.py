"""Rows: what tables, headers, folders and patterns say of the images found, brought together in a manifest."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath

from fabrica.data import layouts
from fabrica.data.dataset_json import Described, nearest
from fabrica.data.item import Item
from fabrica.data.label_names import column
from fabrica.data.manifest import Manifest, Row, printable
from fabrica.data.mask_files import called_mask
from fabrica.data.metadata import ABOUT, about
from fabrica.data.tables import Table, find_table, read_table, stem
from fabrica.errors import UsageError
from fabrica.io import VOLUME_SUFFIXES

PRINTED = ("id", "patient", "domain", "label")  # may come from names of files, which need not be UTF-8
TABLE = "a table with columns file and patient (--labels)"
WAY_OUT = f"--patient REGEX, or {TABLE}"
SPLITTABLE = 3  # studies of which one patient's name makes a split impossible
STAND_IN = re.compile(
    r"(anon\w*|unknown|none|n/?a|null|patient|test|phantom|deident\w*|redacted|removed|x+|0+|1|-+|\?+|\.+)( ?\d{0,2})",
    re.IGNORECASE,
)


def _table(
    labels: Path | None, root: Path, items: list[Item], passed: Collection[str]
) -> tuple[Table | None, list[str]]:
    """The table that was named, or the one found near the images, and notes on those that were passed over."""
    named = [(_name(item, root), item.patient) for item in items]
    return (read_table(labels, root, named), []) if labels else find_table(root, named, passed)


def _name(item: Item, root: Path) -> str:
    """What a label table may call this image."""
    return item.frame if item.path.suffix.lower() == ".zip" else item.path.relative_to(root).as_posix()


def fill(
    manifest: Manifest,
    items: list[Item],
    masks: Mapping[str, Sequence[str]],
    labels: Path | None,
    regex: str | None,
    described: Sequence[Described] = (),
    passed: Collection[str] = (),
) -> None:
    """Make the rows; whatever several sources could say is taken from the most deliberate one.

    masks      mask -> its images, see `fabrica.data.mask_files`.
    labels     the table that the user named.
    described  what the dataset.json among the files say.
    passed     relative paths of tables that say what labels are called, and nothing of images.
    """
    root = manifest.root
    table, passed_over = _table(labels, root, items, passed)
    paths = [_placed(item, root) for item in items]
    series = {path for path, item in zip(paths, items, strict=True) if item.is_series}
    layout = layouts.read_layout(paths, masks, series, described)
    classes = _classes(items, paths, layout.places)
    patient_of = _patient_finder(regex)
    nameless = known = studies = told_by_place = 0
    used_files: set[str] = set()
    used: Counter[str] = Counter()
    for item, where in zip(items, paths, strict=True):
        place = layout.places[where]
        path = item.path.relative_to(root).as_posix()
        said = table.lookup(_name(item, root), item.patient) if table else {}
        known += bool(said)
        used_files.add(said.get("file", ""))
        told = about(said)
        asked = said if table and table.asked else {}
        channel, kind = _channel(nearest(described, where), item, place.domain)
        row = Row(
            id="/".join(filter(None, (stem(path), item.frame))),
            path=path,
            frame=item.frame,
            split=said.get("split") or item.split or place.split,
            modality=item.modality or said.get("modality", "") or kind,
            domain=said.get("domain") or channel or place.domain or _zip_domain(item),
            label=said.get("label") or item.label or classes.get(where, ""),
            text=said.get("text", ""),
            **{name: told[name] or item.about.get(name, "") for name in ABOUT},
            mask=place.mask or (path if item.mask_frame else ""),
            mask_frame=place.mask_frame if place.mask else item.mask_frame,
            mask_labels=column({(k,): name for k, name in enumerate(place.classes, start=1)}),
            pair=place.pair,
            sha256=item.sha256,
            kind=item.kind,
            series=item.series,
            series_number=item.series_number,
            description=item.description,
            image_type=item.image_type,
            refers=item.refers,
            notes="; ".join(item.notes),
            unit=item.unit,
            channels=item.channels,
            dims=item.dims,
        )
        whose = (asked.get("patient"), patient_of(path, item.frame), item.patient, said.get("patient"))
        row.patient = next(filter(None, whose), "")
        if not row.patient and item.study and not place.patient:
            row.patient = item.study
            studies += 1
        elif not row.patient:
            alone = item.frame and not path.lower().endswith(VOLUME_SUFFIXES)  # volumes of one file show one patient
            row.patient = place.patient or (row.id if alone else place.case)
            nameless += not place.patient
            told_by_place += 1
        for name in PRINTED:
            setattr(row, name, printable(getattr(row, name)))
        used[row.id] += 1
        manifest.rows.append(row)
    for row in manifest.rows:  # a.png beside a.jpg
        row.id = printable("/".join(filter(None, (row.path, row.frame)))) if used[row.id] > 1 else row.id
    manifest.notes += _table_notes(table, known, len(items), used_files) + passed_over
    manifest.notes += _label_notes(set(classes.values()))
    manifest.notes += _mask_notes(item.path.relative_to(root).as_posix() for item in items)
    manifest.notes += layout.notes + (layout.patients if told_by_place else [])
    manifest.notes += _patient_notes(len(items), nameless, studies) + _stand_ins(items, manifest.rows)


def _classes(items: Sequence[Item], paths: Sequence[str], places: Mapping[str, layouts.Place]) -> dict[str, str]:
    """Path -> class, by folders; none where each folder holds another patient, as the headers say."""
    whose: dict[str, set[str]] = defaultdict(set)
    for item, path in zip(items, paths, strict=True):
        if places[path].label:
            whose[places[path].label].add(item.patient)
    own = [next(iter(patients)) for patients in whose.values() if len(patients) == 1]
    if len(own) == len(whose) > 2 and len(set(own) - {""}) == len(own):
        return {}
    return {path: place.label for path, place in places.items() if place.label}


def _placed(item: Item, root: Path) -> str:
    """The path that tells what an image is; for a member of a zip, the folders within it count too."""
    path = item.path.relative_to(root)
    if item.path.suffix.lower() == ".zip":
        return (PurePosixPath(path.as_posix()).parent / item.frame).as_posix()
    return path.as_posix()


def _channel(described: Described | None, item: Item, domain: str) -> tuple[str, str]:
    """The name of the channel that an image is, where its dataset.json says so of the volumes of one file, and DICOM's
    letters for what that channel, or the one that is its domain, shows."""
    if described is None:
        return "", ""
    volume = re.fullmatch(r"volume=(\d+)", item.frame)
    if volume and len(described.channels) > 1:
        number = int(volume[1]) - 1
        return described.channels.get(number, ""), described.modality(number)
    number = next((number for number, name in described.channels.items() if name == domain), -1)
    return "", described.modality(number)


def _zip_domain(item: Item) -> str:
    if item.path.suffix.lower() != ".zip" or item.study:  # DICOM says what it is
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


def _table_notes(table: Table | None, known: int, count: int, used: Collection[str]) -> list[str]:
    """What was taken from the table and what was not: rows without an image, and rows that contradict one another."""
    if table is None:
        return []
    what = ", ".join(f"{fact} ({column})" for fact, column in table.columns.items()) or "nothing of use"
    notes = [f"{table.path.name} knows {known} of {count} images: {what}", *table.notes]
    if table.torn:
        notes.append(
            f"{table.path.name} says different things of {len(table.torn)} of its files, {min(table.torn)} for one: "
            "nothing of these was taken"
        )
    if known and (missing := table.named - table.torn - set(used)):
        notes.append(
            f"{len(missing)} of {len(table.named)} files that {table.path.name} names are not among the images, "
            f"{min(missing)} for one"
        )
    return notes


def _label_notes(classes: set[str]) -> list[str]:
    if not classes:
        return []
    shown = sorted(classes)
    more = f" and {len(shown) - 8} more" if len(shown) > 8 else ""
    return [f"labels are the names of folders: {', '.join(shown[:8])}{more}"]


def _mask_notes(paths: Iterable[str]) -> list[str]:
    """Images are trained on, and nobody wants to train on masks unawares."""
    called = sorted({path for path in paths if called_mask(path)})
    if not called:
        return []
    return [
        f"{len(called)} images are called masks, {called[0]} for one, but after none of the images here: taken as "
        "images; call a mask x_mask beside x, or put it as masks/x beside images/x"
    ]


def _patient_notes(count: int, nameless: int, studies: int) -> list[str]:
    notes = []
    way = f"if several are of one, name it: {WAY_OUT}"
    if nameless == count:
        notes.append(f"no patient ids: a patient-wise split is impossible, each image counts as its own patient; {way}")
    elif nameless:
        notes.append(f"{nameless} of {count} images have no patient id: each of them counts as its own patient; {way}")
    if studies:
        notes.append(f"{studies} DICOM images name no patient: each study counts as one; {way}")
    return notes


def _stand_ins(items: Sequence[Item], rows: Sequence[Row]) -> list[str]:
    """One PatientID for many studies is no patient, but nobody can say whose they are."""
    studies: dict[str, set[str]] = defaultdict(set)
    for item, row in zip(items, rows, strict=True):
        if item.patient and row.patient == item.patient:
            studies[item.patient].add(item.study)
    notes = []
    for patient, own in studies.items():
        alone = len(studies) == 1 and len(own) >= SPLITTABLE
        if alone or (STAND_IN.fullmatch(patient.strip()) and len(own) > 1):
            count = sum(row.patient == patient for row in rows)
            notes.append(
                f"{count} images of {len(own)} studies name one patient, {patient!r}: they stay in one split; if that "
                f"stands in for several patients, name them: --patient '^([^/]+)/' where each has a folder, or {TABLE}"
            )
    return notes
