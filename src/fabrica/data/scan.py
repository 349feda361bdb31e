"""Scan: a folder of images in any layout becomes a manifest, split by patient."""

from __future__ import annotations

import hashlib
import os
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from concurrent.futures import Executor
from pathlib import Path

import numpy as np

from fabrica import io
from fabrica.data import mimic
from fabrica.data.account import sentences, tally, unread_sentences
from fabrica.data.dataset_json import FOLDS, Described, read_described
from fabrica.data.dataset_json import NAME as DATASET
from fabrica.data.drawn import give_drawn
from fabrica.data.find import FolderContents, add, claim_voxels, find, reason, walk
from fabrica.data.helpers import shared
from fabrica.data.item import Item
from fabrica.data.label_names import is_called_so
from fabrica.data.manifest import Manifest
from fabrica.data.mask_account import masks_sentence, name_labels, tables_of_labels
from fabrica.data.mask_files import masks_of
from fabrica.data.mask_look import drop_unfit, look_at_masks, said_of
from fabrica.data.metadata import about
from fabrica.data.mixtures import mixtures
from fabrica.data.rows import fill
from fabrica.data.split import Fractions, remove_leaks, split_rows
from fabrica.errors import FabricaError, ReadError, UsageError, unknown
from fabrica.io.dicom.kinds import KINDS
from fabrica.io.packed import Packed
from fabrica.progress import Count

CHUNK = 16  # files that a process decodes before it answers
LAYOUTS = ("mimic-cxr",)  # those that are not told by folders alone


def scan(
    folder: str | Path,
    *,
    labels: Path | None = None,
    layout: str = "",
    views: Collection[str] | None = None,
    reports: Path | None = None,
    patient_regex: str | None = None,
    fractions: Fractions = (0.8, 0.1, 0.1),
    include: Collection[str] = (),
    seed: int = 0,
    verify: bool = True,
    helpers: Executor | None = None,
    progress: Count | None = None,
) -> Manifest:
    """Index DICOM, volume files, pictures, npz and zip under a folder (or one such file).

    A row is one image: a file; one of several images in a file (frames of an npz, members of a zip, volumes of a 4-D
    NIfTI); or an image of a DICOM series, whose path is the folder that holds its files, and whose frame tells it from
    what else lies there. What is no image of a patient as it was taken (localisers, segmentations, dose, derived maps,
    screen captures ...) is set apart: a row without a split, whose kind says what it is.
    Layouts: see `fabrica.data.layouts`, and `fabrica.data.mimic` for MIMIC-CXR-JPG.
    Order and result depend on the files alone.

    labels         a CSV that names the files; what it says comes before all else. Without it, a CSV in the folder
                   or its parent that knows at least half of the images is used. See `fabrica.data.tables`.
    layout         "mimic-cxr": MIMIC-CXR-JPG, with its own tables and split. "": what the folder shows.
    views, reports of MIMIC-CXR-JPG: which views, None for PA alone, () for all; and where its reports are, None for the
                   same folder.
    patient_regex  searched in the relative path (and "/" + frame); its first group is the patient.
    fractions      of the patients in train, val and test. See `fabrica.data.split` for published splits.
    include        kinds that are taken as images all the same; see `fabrica.io.dicom.kinds.KINDS`.
    verify         look at every image, so that damaged files are left out and copies are found. Without it only
                   names and headers are read.
    helpers        processes that share the work, see `fabrica.data.helpers`; None: this one does it alone.
    progress       called with (done, total).

    Patients come from `labels`, `patient_regex`, DICOM headers, the CSV found, folders named like sub-01, in this
    order; where none says, a DICOM study counts as a patient, and any other image as its own: a note says so.

    Raises UsageError for wrong arguments, FabricaError where nothing can be read. Damaged files are never fatal:
    they are listed in `rejected` with the reason.

    >>> import fabrica
    >>> from fabrica.phantoms.head.head import head
    >>> for seed in range(4):
    ...     image = head(seed, size=32, contrasts=["CT"]).images["CT"]
    ...     written = fabrica.write(image, f"head-{seed}.dcm")
    >>> manifest = fabrica.scan(".")
    >>> [(row.path, row.patient, row.modality) for row in manifest.rows][:2]
    [('head-0.dcm', 'head-0', 'CT'), ('head-1.dcm', 'head-1', 'CT')]
    >>> sorted(row.split for row in manifest.rows)
    ['test', 'train', 'train', 'val']
    >>> manifest.save("manifest.csv")
    """
    folder = Path(folder)
    if not (folder.is_dir() or folder.is_file()):
        raise UsageError(f"no folder {folder} to scan")
    if _is_mimic(folder, layout, views, reports, labels or patient_regex):
        return mimic.mimic(folder, reports, mimic.VIEWS if views is None else views, progress)
    for kind in include:
        if kind not in KINDS:
            raise unknown("kind", kind, KINDS)
    root = folder if folder.is_dir() else folder.parent
    unread: Counter[str] = Counter()
    total = sum(len(names) for _, _, names in os.walk(folder)) if progress else 0
    tell = (lambda done: progress(min(done, total), total)) if progress else None
    files = walk(folder, unread) if folder.is_dir() else [folder]
    texts: list[str] = []
    found, others = find(_keeping_texts(files, root, texts), verify, helpers, tell)
    found.unread.update(unread)
    described = read_described(root, [path for path in texts if path.endswith((DATASET, FOLDS))])
    dicom = [_relative(item.path, root) for item in found.items if not item.kind and not item.frame]
    masks = masks_of((_relative(path, root) for path in others), dicom) | _listed_masks(described, others, root)
    add(found, [path for path in others if _relative(path, root) not in masks])
    if verify:
        found.items, damaged = _verified(found.items, helpers, progress)
        found.rejected += damaged
    if not found.items:
        raise FabricaError(_nothing(folder, found, root))
    claim_voxels(found)
    manifest = Manifest([], root)
    tables = (
        tables_of_labels(root, described, texts)
        if masks or any(item.refers or item.mask_frame for item in found.items)
        else {}
    )
    fill(manifest, found.items, masks, labels, patient_regex, described, tables)
    manifest.notes += [note for each in described for note in each.notes]
    manifest.notes += give_drawn(manifest.rows, found.items, ("", *include))
    name_labels(manifest.rows, tables)
    if verify:
        manifest.notes += _look_at_masks(manifest, found, masks, helpers, progress)
    ordinary = [row for row in manifest.rows if not row.kind or row.kind in include]
    for row in manifest.rows:
        row.split = row.split if not row.kind or row.kind in include else ""
    manifest.rejected = sorted((_relative(path, root), reason) for path, reason in found.rejected)
    manifest.notes += split_rows(ordinary, fractions, seed)
    manifest.notes += remove_leaks(ordinary)
    manifest.notes += masks_sentence(ordinary)
    manifest.notes += mixtures(manifest.rows)
    manifest.notes += sentences(manifest.rows, found, include)
    manifest.files = tally(manifest.rows, found, masks)
    if not verify:
        manifest.notes.append("not verified: damaged files and copies were not looked for")
    return manifest


def _keeping_texts(files: Iterable[Path], root: Path, texts: list[str]) -> Iterator[Path]:
    """These files; the relative paths of those that may say what channels and labels are called go to `texts`, too."""
    for path in files:
        if path.name in (DATASET, FOLDS) or is_called_so(path.name):
            texts.append(_relative(path, root))
        yield path


def _listed_masks(described: Sequence[Described], files: Sequence[Path], root: Path) -> dict[str, list[str]]:
    """Mask -> its images, of the pairs that a dataset.json lists, where both are there."""
    pairs = [pair for each in described for pair in each.masks.items()]
    here = {_relative(path, root) for path in files} if pairs else set()
    found: dict[str, list[str]] = defaultdict(list)
    for image, mask in pairs:
        if {image, mask} <= here:
            found[mask].append(image)
    return found


def _look_at_masks(
    manifest: Manifest,
    found: FolderContents,
    masks: dict[str, list[str]],
    helpers: Executor | None,
    progress: Count | None,
) -> list[str]:
    """Take masks away that cannot be used, in place, and say what is odd about the others."""
    total, rows = len({row.mask for row in manifest.rows if row.mask}), manifest.rows
    tell = (lambda done: progress(done, total)) if progress and total else None
    looks = look_at_masks(manifest.root, rows, helpers, tell)
    sizes = [item.size for item in found.items]
    for mask, why in drop_unfit(rows, sizes, looks):
        found.rejected.append((manifest.root / mask, why))
        masks.pop(mask, None)
    return said_of(rows, sizes, looks)


def _is_mimic(
    folder: Path, layout: str, views: Collection[str] | None, reports: Path | None, own: Path | str | None
) -> bool:
    """Whether to read the folder by the tables of MIMIC-CXR-JPG. Raises UsageError for an unknown layout, and for what
    cannot stand together."""
    if layout and layout not in LAYOUTS:
        raise unknown("layout", layout, LAYOUTS)
    if layout and own:
        raise UsageError(f"layout {layout} says labels and patients by its own tables; leave {own} out, or the layout")
    found = bool(layout) or (not own and mimic.is_mimic(folder))
    if not found and (views is not None or reports is not None):
        raise UsageError(f"{folder} is not laid out as MIMIC-CXR-JPG, which views and reports are for; leave them out")
    return found


def _relative(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix()


def _verified(
    items: list[Item], helpers: Executor | None, progress: Count | None
) -> tuple[list[Item], list[tuple[Path, str]]]:
    """Decode every item: those that can be read, with hash and modality, and (path, reason) of the others. DICOM files
    were looked at when they were found."""
    pending = [k for k, item in enumerate(items) if not (item.sha256 or item.series)]
    checked = {k: (item, "") for k, item in enumerate(items)}
    parts = (pending[k : k + CHUNK] for k in range(0, len(pending), CHUNK))
    done = len(items) - len(pending)
    for part in shared(helpers, _inspect_part, ({k: items[k] for k in numbers} for numbers in parts)):
        checked |= part
        done += len(part)
        if progress:
            progress(done, len(items))
    kept = [item for item, problem in checked.values() if not problem]
    rejected = [(_image_path(item), why) for item, why in checked.values() if why]
    return kept, rejected


def _image_path(item: Item) -> Path:
    """Path of an image in a file of several, which still counts as that one file."""
    return Packed(item.path / item.frame) if item.frame else item.path


def _inspect_part(items: dict[int, Item]) -> dict[int, tuple[Item, str]]:
    return {k: _inspect(item) for k, item in items.items()}


def _inspect(item: Item) -> tuple[Item, str]:
    """Decode one item: (item, "") when it is an image, (item, reason) when not."""
    try:
        image = io.read(item.path, item.frame)
    except ReadError as error:
        return item, reason(error, item.path)
    item.modality = item.modality or str(image.origin.get("modality", ""))
    item.about = about(image.origin.get("about", {}))
    item.unit, item.channels, item.dims = image.unit, str(image.channels), str(len(image.size))
    item.size = image.size
    item.notes = tuple(image.origin.get("notes", ()))
    if item.frame or len(io.files_of(item.path)) > 1:  # headers of voxels that lie elsewhere are often all the same
        digest = hashlib.sha256(repr(image.data.shape).encode())
        digest.update(np.ascontiguousarray(image.data).tobytes())
    else:
        digest = hashlib.sha256(item.path.read_bytes())
    item.sha256 = digest.hexdigest()
    return item, ""


def _nothing(folder: Path, found: FolderContents, root: Path) -> str:
    if found.rejected:
        path, why = found.rejected[0]
        count = len(found.rejected)
        if count == 1:
            return f"no image in {folder}: {_relative(path, root)} cannot be read: {why}"
        return f"no image in {folder}: none of {count} files could be read; the first, {_relative(path, root)}: {why}"
    kinds = ", ".join(f"{suffix} {count}" for suffix, count in (found.unread + found.apart).most_common(6))
    total = found.unread.total() + found.apart.total()
    what = f"found {total} file{'s' * (total != 1)} ({kinds})" if total else "the folder is empty"
    expected = "expected DICOM, NIfTI, MetaImage, NRRD, MGH, PNG/TIFF/JPEG, npz or zip"
    return "; ".join([f"no image in {folder}: {what}", *unread_sentences(found.unread)[:1], expected])
