"""Scan: a folder of images in any layout becomes a manifest, split by patient."""

from __future__ import annotations

import hashlib
import os
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from multiprocessing import get_context
from pathlib import Path, PurePosixPath

import numpy as np

from fabrica import io
from fabrica.data import layouts
from fabrica.data.manifest import Manifest, Row
from fabrica.data.split import Fractions, remove_leaks, split_rows
from fabrica.data.tables import SPLIT_NAMES, Table, find_table, read_table, stem
from fabrica.errors import FabricaError, ReadError, UsageError
from fabrica.io import dicom

Progress = Callable[[int, int], None]

IMAGES = (".nii", ".nii.gz", ".png", ".tif", ".tiff", ".jpg", ".jpeg")
CONTAINERS = (".npz", ".zip")
OTHER = (".csv", ".tsv", ".txt", ".md", ".json", ".yaml", ".yml", ".xml", ".html", ".pdf", ".py", ".parquet", ".gz",
         ".xlsx", ".log", ".tar", ".bvec", ".bval")  # fmt: skip
SERIES = ("CT", "MR", "PT")  # modalities whose single-frame files are slices of a volume


@dataclass
class Item:
    """One image to be: a file, one frame of a container, or a DICOM series in a folder (`members`)."""

    path: Path
    frame: str = ""
    members: tuple[Path, ...] = ()
    patient: str = ""
    study: str = ""  # stands for the patient where DICOM headers name none
    modality: str = ""
    label: str = ""
    split: str = ""
    sha256: str = ""
    notes: tuple[str, ...] = ()


@dataclass
class Found:
    """What a walk found before anything is decoded."""

    items: list[Item] = field(default_factory=list)
    rejected: list[tuple[Path, str]] = field(default_factory=list)
    ignored: Counter[str] = field(default_factory=Counter)


def scan(
    folder: str | Path,
    *,
    labels: Path | None = None,
    patient_regex: str | None = None,
    fractions: Fractions = (0.8, 0.1, 0.1),
    seed: int = 0,
    verify: bool = True,
    workers: int = 1,
    progress: Progress | None = None,
) -> Manifest:
    """Index DICOM, NIfTI, PNG, TIFF, JPEG, npz and zip under a folder (or one such file).

    A row is one image: a file; a frame of an npz or a member of a zip; or a DICOM series of CT, MR or PT whose
    slices lie in one folder and stack into a volume: its path is the folder, and where the folder holds more than
    that series, its frame is the SeriesInstanceUID. Slices that do not stack are a row each.
    Layouts: see `fabrica.data.layouts`. Order and result depend on the files alone.

    labels         a CSV that names the files; what it says comes before all else. Without it, a CSV in the folder
                   or its parent that knows at least half of the images is used. See `fabrica.data.tables`.
    patient_regex  searched in the relative path (and "/" + frame); its first group is the patient.
    fractions      of the patients in train, val and test. See `fabrica.data.split` for published splits.
    verify         decode every image, so that damaged files are left out and copies are found. Without it only
                   names and headers are read.
    workers        processes that decode.
    progress       called with (done, total).

    Patients come from `labels`, `patient_regex`, DICOM headers, the CSV found, folders named like sub-01, in this
    order; where none says, a DICOM study counts as a patient, and any other image as its own: a note says so.

    Raises UsageError for wrong arguments, FabricaError where nothing can be read. Damaged files are never fatal:
    they are listed in `rejected` with the reason.
    """
    folder = Path(folder)
    if not folder.exists():
        raise UsageError(f"no folder {folder} to scan")
    root, files = (folder, _walk(folder)) if folder.is_dir() else (folder.parent, [folder])
    layout = layouts.read_layout(_relative(path, root) for path in files)
    found = _find([path for path in files if _relative(path, root) not in layout.masks])
    items, damaged = _verified(found.items, workers, progress) if verify else (found.items, [])
    rejected = [(_relative(path, root), reason) for path, reason in [*found.rejected, *damaged]]
    if not items:
        raise FabricaError(_nothing(folder, found.ignored, rejected))
    manifest = Manifest([], root, [], sorted(rejected))
    _fill(manifest, items, layout, _table(labels, root, items), patient_regex)
    manifest.notes += split_rows(manifest.rows, fractions, seed)
    manifest.notes += remove_leaks(manifest.rows)
    if not verify:
        manifest.notes.append("not verified: damaged files and copies were not looked for")
    return manifest


def _walk(folder: Path) -> list[Path]:
    """All files, sorted; hidden files and folders are skipped."""
    files: list[Path] = []
    for home, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith((".", "__MACOSX")))
        files += [Path(home, name) for name in sorted(names) if not name.startswith(".")]
    return sorted(files)


def _relative(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix()


def _find(files: list[Path]) -> Found:
    """Sort files by kind; list the frames of containers; group DICOM files into series."""
    found = Found()
    dicoms: list[Path] = []
    for path in files:
        name = path.name.lower()
        if name.endswith(IMAGES):
            found.items.append(Item(path))
        elif name.endswith(CONTAINERS):
            try:
                found.items += _frames(path)
            except ReadError as error:
                found.rejected.append((path, _reason(error, path)))
        elif name == "dicomdir":
            continue  # an index of other files
        elif not name.endswith(OTHER) and dicom.is_dicom(path):
            dicoms.append(path)
        elif name.endswith((".dcm", ".dicom")):
            found.rejected.append((path, "not a DICOM file, whatever its name says"))
        else:
            found.ignored[path.suffix.lower() or "no suffix"] += 1
    _group(dicoms, found)
    found.items.sort(key=lambda item: item.path)  # stable: frames keep their order
    return found


def _frames(path: Path) -> Iterator[Item]:
    """The images of an npz or zip; keys of an npz like val_images and val_labels say split and label."""
    labels = io.npz_labels(path) if path.suffix.lower() == ".npz" else {}
    for frame in io.frames(path):
        key, _, number = frame.rpartition("/")
        prefix = key.removesuffix("_images") if key.endswith("_images") else ""
        item = Item(path, frame, split=SPLIT_NAMES.get(prefix, ""))
        numbers = labels.get(f"{prefix}_labels" if prefix else "labels")
        if numbers is not None and key and path.suffix.lower() == ".npz":
            item.label = _label(numbers, int(number))
        yield item


def _label(numbers: np.ndarray[tuple[int, ...], np.dtype[np.generic]], k: int) -> str:
    """(N,) or (N, 1): the class number. (N, M): the numbers of the findings present. More axes are masks."""
    if numbers.ndim > 2 or k >= len(numbers):
        return ""
    values = np.atleast_1d(numbers[k])
    return str(values[0]) if values.size == 1 else "|".join(str(j) for j in np.flatnonzero(values))


def _group(paths: list[Path], found: Found) -> None:
    """DICOM files become items: the slices of one series in a folder as one volume, all others file by file."""
    folders: dict[Path, dict[str, list[Item]]] = defaultdict(lambda: defaultdict(list))
    single: Counter[tuple[Path, str]] = Counter()
    for path in paths:
        try:
            header = dicom.header(path)
        except ReadError as error:
            found.rejected.append((path, _reason(error, path)))
            continue
        series = folders[path.parent][header["series"] or path.name]
        if header["frames"] == "0":
            found.rejected.append((path, f"holds no image (modality {header['modality'] or 'unknown'})"))
            continue
        series.append(Item(path, "", (), header["patient"], _study(header, path), header["modality"]))
        single[path.parent, header["series"]] += header["modality"] in SERIES and header["frames"] == "1"
    for folder, all_series in folders.items():
        for uid, items in all_series.items():
            if len(items) > 1 and single[folder, uid] == len(items):
                frame = uid if len(all_series) > 1 else ""
                members = tuple(item.path for item in items)
                found.items.append(replace(items[0], path=folder, frame=frame, members=members))
            else:
                found.items += items


def _study(header: dict[str, str], path: Path) -> str:
    """What images of one patient share even if nobody is named: the study, the series, for slices the folder."""
    return header["study"] or header["series"] or (path.parent.name if header["modality"] in SERIES else "")


def _verified(items: list[Item], workers: int, progress: Progress | None) -> tuple[list[Item], list[tuple[Path, str]]]:
    """Decode every item: those that can be read, with hash and modality, and (path, reason) of the others."""
    kept: list[Item] = []
    rejected: list[tuple[Path, str]] = []
    step = max(1, len(items) // 200)
    for done, checked in enumerate(_inspected(items, workers), start=1):
        for item, reason in checked:
            if reason:
                where = item.path / item.frame if item.frame else item.path
                rejected.append((where, reason))
            else:
                kept.append(item)
        if progress and (done % step == 0 or done == len(items)):
            progress(done, len(items))
    return kept, rejected


def _inspected(items: list[Item], workers: int) -> Iterator[list[tuple[Item, str]]]:
    if workers < 2:
        yield from map(_inspect, items)
        return
    # spawned, not forked: the caller may hold threads
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        yield from pool.map(_inspect, items, chunksize=max(1, min(64, len(items) // (4 * workers))))


def _inspect(item: Item) -> list[tuple[Item, str]]:
    """Decode one item: (item, "") when it is an image, (item, reason) when not. A series that does not stack
    comes back file by file."""
    try:
        image = io.read(item.path, item.frame)
    except ReadError as error:
        if item.members:
            slices = (replace(item, path=path, frame="", members=()) for path in item.members)
            return [checked for part in slices for checked in _inspect(part)]
        return [(item, _reason(error, item.path))]
    item.modality = item.modality or str(image.origin.get("modality", ""))
    if item.frame and not item.members:
        digest = hashlib.sha256(repr(image.data.shape).encode())
        digest.update(np.ascontiguousarray(image.data).tobytes())
    else:
        digest = hashlib.sha256()
        for path in item.members or (item.path,):
            digest.update(path.read_bytes())
    item.sha256 = digest.hexdigest()
    return [(item, "")]


def _reason(error: Exception, path: Path) -> str:
    """The message without the path in front, which stands in its own column."""
    return str(error).removeprefix(str(path)).lstrip(": ") or type(error).__name__


def _table(labels: Path | None, root: Path, items: list[Item]) -> Table | None:
    names = [_name(item, root) for item in items]
    return read_table(labels, names) if labels else find_table(root, names)


def _name(item: Item, root: Path) -> str:
    """What a label table may call this image."""
    return item.frame if item.path.suffix.lower() == ".zip" else _relative(item.path, root)


def _fill(
    manifest: Manifest, items: list[Item], layout: layouts.Layout, table: Table | None, regex: str | None
) -> None:
    """Make the rows; whatever several sources could say is taken from the most deliberate one."""
    root = manifest.root
    places = [_place(item, root, layout) for item in items]
    classes = layouts.classes({str(k): place for k, place in enumerate(places)})
    patient_of = _patient_finder(regex)
    nameless = known = studies = 0
    used: Counter[str] = Counter()
    for k, (item, place) in enumerate(zip(items, places, strict=True)):
        path = _relative(item.path, root)
        said = table.lookup(_name(item, root)) if table else {}
        known += bool(said)
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
    path = _relative(item.path, root)
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
    import re

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


def _nothing(folder: Path, ignored: Counter[str], rejected: list[tuple[str, str]]) -> str:
    if rejected:
        path, reason = rejected[0]
        return f"no image in {folder}: none of {len(rejected)} files could be read; the first, {path}: {reason}"
    kinds = ", ".join(f"{suffix} {count}" for suffix, count in ignored.most_common(6))
    found = f"found {ignored.total()} files ({kinds})" if ignored else "the folder is empty"
    return f"no image in {folder}: {found}; expected DICOM, NIfTI, PNG/TIFF/JPEG, npz or zip"
