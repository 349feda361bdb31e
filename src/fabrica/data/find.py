"""Find: which files of a folder hold images, and how many, before anything is decoded."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Executor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from fabrica import io
from fabrica.data.item import Item
from fabrica.data.mask_files import MASKS, PICTURES
from fabrica.data.names import words
from fabrica.data.series import series
from fabrica.data.tables import SPLIT_NAMES
from fabrica.errors import ReadError
from fabrica.io.contact_sheet import is_preview
from fabrica.io.dicom.mark import is_dicom, is_marked
from fabrica.io.members import is_hidden
from fabrica.io.packed import members, without_images

IMAGES = (".png", ".tif", ".tiff", ".jpg", ".jpeg")
CONTAINERS = (".npz", ".zip", *io.VOLUME_SUFFIXES)  # a volume file may hold several images
TEXTS = (".csv", ".tsv", ".txt", ".md", ".json", ".yaml", ".yml", ".xml", ".html", ".pdf", ".py", ".parquet", ".xlsx",
         ".log", ".ctbl", ".label", ".lut", ".bvec", ".bval", ".ini", ".rtf", ".doc", ".docx", ".ds_store",
         "dicomdir")  # fmt: skip
ARCHIVES = (".tar", ".tgz", ".gz", ".bz2", ".xz", ".7z", ".rar")
DICOM = (".dcm", ".dicom", ".ima")
ARRAYS = {*MASKS, "target", "targets", "class", "classes"}  # words for what belongs to images in an npz
HIDDEN = "hidden"  # what `FolderContents.unread` counts files under whose name begins with a dot
PREVIEWS = "preview"  # pictures of what lies beside them
LINKS = "links to what is in the folder anyway"
SPECIAL = "neither files nor folders"  # pipes, sockets, devices: to open one may wait for ever


@dataclass
class FolderContents:
    """What a folder holds, before anything but DICOM is decoded.

    items     the images.
    files     path -> how many files an item's image is made of, none counted twice; an item that is not there is one.
    rejected  (file, reason).
    apart     files without an image of their own, by kind: reports, presentation states.
    copies    DICOM files that are copies of others.
    unread    files that are not looked into, by suffix, HIDDEN, PREVIEWS, LINKS or SPECIAL.
    inside    members of zip archives that are neither read nor texts, by suffix.
    """

    items: list[Item] = field(default_factory=list)
    files: dict[tuple[Path, str], int] = field(default_factory=dict)
    rejected: list[tuple[Path, str]] = field(default_factory=list)
    apart: Counter[str] = field(default_factory=Counter)
    copies: int = 0
    unread: Counter[str] = field(default_factory=Counter)
    inside: Counter[str] = field(default_factory=Counter)


def walk(folder: Path, unread: Counter[str] | None = None) -> Iterator[Path]:
    """All files of a folder and below it, sorted folder by folder; hidden ones and previews are counted in `unread`.
    Links are followed once, and not where they lead back to what is in the folder anyway."""
    unread = Counter() if unread is None else unread
    tops = [Path(os.path.realpath(folder))]  # and the folders that links have led to
    seen: set[str] = set()
    pending = [folder]
    while pending:
        home = pending.pop()
        try:
            entries = sorted(os.scandir(home), key=lambda entry: entry.name)
        except OSError:
            unread["folders that cannot be opened"] += 1
            continue
        below = []
        for entry in entries:
            hidden = is_hidden(entry.name)
            if entry.is_symlink():
                real = os.path.realpath(entry.path)
                if not os.path.exists(real):  # noqa: PTH110
                    unread["links to nothing"] += 1
                    continue
                if real in seen or any(_inside(real, top) or _inside(str(top), Path(real)) for top in tops):
                    unread[LINKS] += 1
                    continue
                if entry.is_dir():
                    tops.append(Path(real))
                seen.add(real)
            if entry.is_dir():
                if hidden:
                    unread[HIDDEN] += sum(len(names) for _, _, names in os.walk(entry.path))
                else:
                    below.append(Path(entry.path))
            elif hidden:
                unread[HIDDEN] += 1
            elif is_preview(entry.name):
                unread[PREVIEWS] += 1
            elif not entry.is_file():
                unread[SPECIAL] += 1
            else:
                yield Path(entry.path)
        pending += reversed(below)


def _inside(path: str, folder: Path) -> bool:
    return path == str(folder) or path.startswith(str(folder).rstrip("/") + "/")


def find(
    files: Iterable[Path],
    verify: bool = False,
    helpers: Executor | None = None,
    progress: Callable[[int], None] | None = None,
) -> tuple[FolderContents, list[Path]]:
    """What these files hold, DICOM files arranged into the images of their series, and the files that are none.

    verify   the pixels of DICOM files, too; of other files, see `fabrica.data.scan`.
    helpers  processes that share the work.
    """
    found = FolderContents()
    others: list[Path] = []
    dicom = series(_candidates(files, others, found), verify, helpers, progress)
    found.items, found.apart, found.copies = dicom.items, dicom.apart, dicom.copies
    found.rejected += dicom.rejected  # to the archives that could not be opened
    for item, count in zip(dicom.items, dicom.files, strict=True):
        if count >= 0:
            found.files[item.path, item.frame] = count
    for path in dicom.strangers:
        if path.name.lower().endswith(DICOM):
            empty = not path.stat().st_size
            found.rejected.append((path, "the file is empty" if empty else "not a DICOM file, whatever its name says"))
        else:
            found.unread[_what(path)] += 1
    return found, others


def _candidates(files: Iterable[Path], others: list[Path], found: FolderContents) -> Iterator[Path]:
    """The files that may be DICOM; those of other formats go to `others`, and what is not looked into is counted. DICOM
    under the suffix of something else (.img, .rec, .txt) is DICOM."""
    for path in files:
        name = path.name.lower()
        if name.endswith(".zip"):
            yield from _zipped(path, others, found)
        elif name.endswith((*IMAGES, *CONTAINERS)):
            others.append(path)
        elif name == "dicomdir" or (_is_other(name) and not is_marked(path)):
            found.unread[_what(path)] += 1
        else:
            yield path


def _zipped(path: Path, others: list[Path], found: FolderContents) -> Iterator[Path]:
    """The members of an archive that are DICOM; with pictures in it, it goes to `others` as well. Of the other members
    those are named that cannot be read, and those counted that are not."""
    try:
        pictures = set(io.zip_pictures(path))
        inside = [member for member in members(path) if member.relative_to(path).as_posix() not in pictures]
    except ReadError as error:
        found.rejected.append((path, reason(error, path)))
        return
    dicom, damaged, unread = [], False, Counter[str]()
    for member in inside:
        if is_dicom(member):
            dicom.append(member)
        elif why := member.damage():
            damaged = True
            found.rejected.append((member, why))
        elif not member.name.lower().endswith(TEXTS):
            unread[member.suffix.lower() or "no suffix"] += 1
    if pictures or dicom:
        found.inside.update(unread)
    if pictures or not (dicom or damaged):
        others.append(path)
    yield from dicom


def _is_other(name: str) -> bool:
    """Whether a name ends as those of formats that are not read, of tables and the like; else it may be DICOM."""
    return name.endswith((*TEXTS, *ARCHIVES)) or bool(_unread_suffix(name))


def _unread_suffix(name: str) -> str:
    """The ending of a known format that is not read, "" for others."""
    return next((suffix for suffix in io.UNREAD if name == suffix or (suffix[0] == "." and name.endswith(suffix))), "")


def _what(path: Path) -> str:
    """What a file that is not looked into is counted as."""
    name = path.name.lower()
    return _unread_suffix(name) or path.suffix.lower() or (name if name in TEXTS else "no suffix")


def claim_voxels(found: FolderContents) -> None:
    """Count the files of voxels that headers name as parts of their images, and no longer as unread."""
    claimed: set[Path] = set()
    for item in found.items:
        voxels = [file for file in io.files_of(item.path)[1:] if file not in claimed and found.unread[_what(file)] > 0]
        for file in voxels:
            found.unread[_what(file)] -= 1
            found.files[item.path, item.frame] = 2
        claimed.update(voxels)
    found.unread += Counter()  # drops what is down to none


def contents(path: Path) -> FolderContents:
    """What a folder or a file holds: the images of a patient as taken, or whatever there is where there are none."""
    found, others = find(walk(path) if path.is_dir() else [path])
    add(found, others)
    found.items = [item for item in found.items if not item.kind] or found.items
    return found


def add(found: FolderContents, files: Iterable[Path]) -> None:
    """Add what files of other formats than DICOM hold."""
    for path in files:
        if path.name.lower().endswith(IMAGES):
            found.items.append(Item(path))
            continue
        try:
            found.items += _frames(path)
        except ReadError as error:
            found.rejected.append((path, reason(error, path)))
    found.items.sort(key=lambda item: item.path)  # stable: frames keep their order


def _frames(path: Path) -> Iterator[Item]:
    """The images of an npz, a zip or a volume file; keys of an npz like val_images and val_labels say split and
    label."""
    labels = io.npz_labels(path) if path.suffix.lower() == ".npz" else {}
    archive = path.suffix.lower() == ".zip"
    frames = io.zip_pictures(path) if archive else io.frames(path)
    if not frames:
        raise ReadError(f"{path}: {without_images(path) if archive else 'holds no image'}")
    for frame in frames:
        key, _, number = frame.rpartition("/")
        prefix = key.removesuffix("_images") if key.endswith("_images") else ""
        item = Item(path, frame, split=SPLIT_NAMES.get(prefix, ""))
        numbers = labels.get(f"{prefix}_labels" if prefix else "labels")
        if numbers is not None and key and path.suffix.lower() == ".npz":
            item.label = _label(numbers, int(number))
        item.mask_frame = _mask_frame(key or frame, number if key else "", labels)
        yield item


def _mask_frame(key: str, number: str, labels: Mapping[str, np.ndarray[tuple[int, ...], np.dtype[np.generic]]]) -> str:
    """The frame of the label array that belongs to an image of this array by its name: val_labels of val_images, mask
    of image."""
    own = [word for word in words(key) if word not in PICTURES]
    for name, values in labels.items():
        left = [word for word in words(name) if word not in ARRAYS]
        if left == own and values.ndim == 2 + bool(number) + (values.ndim > 3) and values.dtype.kind in "buif":
            if not number:
                return name
            return f"{name}/{number}" if int(number) < len(values) else ""
    return ""


def _label(numbers: np.ndarray[tuple[int, ...], np.dtype[np.generic]], k: int) -> str:
    """(N,) or (N, 1): the class number. (N, M): the numbers of the findings present. More axes are masks."""
    if numbers.ndim > 2 or k >= len(numbers):
        return ""
    values = np.atleast_1d(numbers[k])
    return str(values[0]) if values.size == 1 else "|".join(str(j) for j in np.flatnonzero(values))


def reason(error: Exception, path: Path) -> str:
    """The message without the path in front, which stands in its own column."""
    return str(error).removeprefix(str(path)).lstrip(": ") or type(error).__name__
