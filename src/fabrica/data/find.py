"""Find: which files of a folder hold images, and how many, before anything is decoded."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from fabrica import io
from fabrica.data.tables import SPLIT_NAMES
from fabrica.errors import ReadError
from fabrica.io import dicom

IMAGES = (*io.VOLUME_SUFFIXES, ".png", ".tif", ".tiff", ".jpg", ".jpeg")
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
    about: dict[str, str] = field(default_factory=dict)
    split: str = ""
    sha256: str = ""
    notes: tuple[str, ...] = ()


@dataclass
class Found:
    """What a walk found before anything is decoded."""

    items: list[Item] = field(default_factory=list)
    rejected: list[tuple[Path, str]] = field(default_factory=list)
    ignored: Counter[str] = field(default_factory=Counter)


def walk(folder: Path) -> list[Path]:
    """All files, sorted; hidden files and folders are skipped."""
    files: list[Path] = []
    for home, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith((".", "__MACOSX")))
        files += [Path(home, name) for name in sorted(names) if not name.startswith(".")]
    return sorted(files)


def find(files: list[Path]) -> Found:
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
                found.rejected.append((path, reason(error, path)))
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
            found.rejected.append((path, reason(error, path)))
            continue
        # de-identification often blanks the series: slices without one are taken as one, as `io.read` does
        uid = header["series"] or ("" if header["modality"] in SERIES else path.name)
        series = folders[path.parent][uid]
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


def reason(error: Exception, path: Path) -> str:
    """The message without the path in front, which stands in its own column."""
    return str(error).removeprefix(str(path)).lstrip(": ") or type(error).__name__
