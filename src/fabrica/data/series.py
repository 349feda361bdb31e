"""DICOM files as images to be: each file is looked at once, and the series they belong to are arranged.

What was found of a file lies in a temporary database until its series is complete, so that memory does not grow with
the number of files.
"""

from __future__ import annotations

import hashlib
import os
import pickle
import sqlite3
import tempfile
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache, partial
from itertools import groupby, islice
from pathlib import Path
from typing import NamedTuple

from fabrica.data.helpers import shared
from fabrica.data.item import Item
from fabrica.data.metadata import about
from fabrica.io.dicom.geometry import stack
from fabrica.io.dicom.header import Header
from fabrica.io.dicom.kinds import KINDS, is_colour, kind_of, unit_of
from fabrica.io.dicom.look import Look, look
from fabrica.io.dicom.volumes import NAMELESS, Volume, arrange, series_name
from fabrica.io.packed import Packed

CHUNK = 32  # files that a process looks at before it answers
WITHOUT_PIXELS = ("structures",)  # kinds whose rows stay although there is no image to read


@dataclass
class Series:
    """The images in DICOM files, and what became of the files that are in none.

    items     the images.
    rejected  (file, reason).
    strangers files that are no DICOM.
    files     how many files each item of `items` was made of, in their order, none counted twice; -1 of one in an
              archive, which is a single file.
    apart     files without an image of their own (reports, presentation states), by kind.
    copies    files that are copies of others.
    """

    items: list[Item] = field(default_factory=list)
    rejected: list[tuple[Path, str]] = field(default_factory=list)
    strangers: list[Path] = field(default_factory=list)
    files: list[int] = field(default_factory=list)
    apart: Counter[str] = field(default_factory=Counter)
    copies: int = 0


def series(
    files: Iterable[Path],
    verify: bool = True,
    helpers: Executor | None = None,
    progress: Callable[[int], None] | None = None,
) -> Series:
    """The images that these files hold. `progress` is called with how many files have been looked at."""
    found = Series()
    files = iter(files)
    with _spool() as spool:
        done = 0
        for part, looks in shared(helpers, partial(_see, verify=verify), iter(lambda: list(islice(files, CHUNK)), [])):
            _add(found, part)
            spool.executemany("INSERT INTO looks VALUES (?, ?, ?)", looks)
            done += CHUNK
            if progress:
                progress(done)
        folders = sorted(spool.execute("SELECT DISTINCT folder, series FROM looks"))
        for part in shared(helpers, _arranged, _by_series(spool, folders)):
            _add(found, part)
    order = sorted(range(len(found.items)), key=lambda k: (found.items[k].path, k))
    found.items, found.files = [found.items[k] for k in order], [found.files[k] for k in order]
    return found


def _add(found: Series, part: Series) -> None:
    found.items += part.items
    found.files += part.files
    found.rejected += part.rejected
    found.strangers += part.strangers
    found.apart += part.apart
    found.copies += part.copies


def _see(files: list[Path], verify: bool) -> tuple[Series, list[tuple[str, str, bytes]]]:
    """What becomes of these files at the first look, and what was found of those that are kept: what their series goes
    by, where they lie, and their looks, pickled together since they say much alike."""
    found = Series()
    kept: dict[tuple[str, str], list[Look]] = defaultdict(list)
    for path in files:
        seen = look(path, verify)
        if seen.problem and not (seen.header and seen.header.frames):
            found.rejected.append((path, seen.problem))
        elif seen.header is None:
            found.strangers.append(path)
        elif seen.header.frames or (kind := kind_of(seen.header)) in WITHOUT_PIXELS:
            kept[_home(path, seen.header)].append(seen)
        elif kind and not isinstance(path, Packed):
            found.apart[kind] += 1
        else:
            what = kind or "modality " + (seen.header.get("Modality") or "unknown")
            found.rejected.append((path, f"holds no image ({what})"))
    return found, [(_text(uid), _text(folder), pickle.dumps(looks, -1)) for (uid, folder), looks in kept.items()]


def _home(path: Path, header: Header) -> tuple[str, str]:
    """What the series of a file goes by, and where it lies."""
    folder = str(path.parent)
    uid = header.get("SeriesInstanceUID") or f"{NAMELESS} {folder}"  # de-identification often blanks it
    if isinstance(path, Packed):  # what lies in an archive is found again in that archive alone
        folder = str(path.archive)
        uid = f"{uid} {folder}"
    return uid, folder


@contextmanager
def _spool() -> Iterator[sqlite3.Connection]:
    with tempfile.TemporaryDirectory(prefix="fabrica-scan-") as home:
        spool = sqlite3.connect(os.path.join(home, "looks.sqlite"), isolation_level=None)  # noqa: PTH118
        try:
            spool.execute("PRAGMA journal_mode=OFF")
            spool.execute("PRAGMA synchronous=OFF")
            spool.execute("PRAGMA cache_size=-256")  # KiB
            spool.execute("CREATE TABLE looks (series TEXT, folder TEXT, look BLOB)")
            spool.execute("BEGIN")
            yield spool
        finally:
            spool.close()


def _text(path: str) -> str:
    """A text that SQLite can hold, whatever bytes a name has."""
    return path.encode("utf-8", "surrogateescape").decode("latin-1")


class Group(NamedTuple):
    """What was found of the files of one series: pickled lists. alone: no other series lies where its files lie."""

    looks: list[bytes]
    alone: bool


def _by_series(spool: sqlite3.Connection, folders: list[tuple[str, str]]) -> Iterator[Group]:
    spool.execute("CREATE INDEX by_series ON looks (series)")
    rows = spool.execute("SELECT series, folder, look FROM looks ORDER BY series, rowid")
    for _, several in groupby(rows, key=lambda row: row[0]):
        homes, looks = set[str](), list[bytes]()
        for _, folder, blob in several:
            homes.add(folder)
            looks.append(blob)
        yield Group(looks, _alone(os.path.commonpath(homes), folders))


def _alone(home: str, folders: list[tuple[str, str]]) -> bool:
    """Whether a folder, with all below it, holds one series."""
    own = folders[bisect_left(folders, (home, "")) : bisect_left(folders, (home + "\0", ""))]
    after = home + "0"  # "0" is what follows "/"
    inner = folders[bisect_left(folders, (home + "/", "")) : bisect_left(folders, (after, ""))]
    return len({uid for _, uid in (*own, *inner)}) < 2


def _arranged(group: Group) -> Series:
    """The images of one series."""
    found = Series()
    looks: list[Look] = [seen for blob in group.looks for seen in pickle.loads(blob)]  # written by this very run
    of_file = {seen.path: seen for seen in looks}
    for seen in looks:
        if seen.header is not None and not seen.header.frames:  # contours: a row, but no image
            found.items.append(_item(seen.header, seen.path, "", kind_of(seen.header), [seen], ""))
            found.files.append(1)
    # files whose pixels cannot be read are arranged with the others: who reads the folder does not know of them yet
    headers = {seen.path: seen.header for seen in looks if seen.header is not None and seen.header.frames}
    arranged = arrange(headers.values())
    found.rejected += [(seen.path, seen.problem) for seen in looks if seen.problem]
    broken = {path for path, _ in found.rejected}
    found.rejected += [(path, reason) for path, reason in arranged.refused if path not in broken]
    counted = {path for path, _ in found.rejected}
    places = _Places(headers, group.alone)
    several = Counter(file for volume in arranged.volumes for file in volume.files)
    for volume in sorted(arranged.volumes, key=lambda volume: bool(volume.kind)):
        sound = [plane for plane in volume.frames if plane.path not in broken]
        if not sound:
            continue
        files = list(dict.fromkeys(plane.path for plane in sound))
        path, frame = places.of(volume)
        looked = [of_file[file] for file in files]
        shared = volume.tells if any(several[file] > 1 for file in files) else ""
        item = _item(volume.header, path, frame, volume.kind, looked, shared)
        item.is_series = path != files[0]
        lies = stack([plane.place for plane in sound])
        item.notes = tuple(dict.fromkeys((*volume.notes, *lies.notes, *item.notes)))
        item.description = "; ".join(filter(None, (item.description, volume.label)))
        item.dims = "3" if len(sound) > 1 else "2"
        found.items.append(item)
        found.files.append(-1 if isinstance(files[0], Packed) else len(set(files) - counted))
        counted.update(files)
    found.copies = sum(
        bool(seen.header and seen.header.frames) and seen.path not in counted and not isinstance(seen.path, Packed)
        for seen in looks
    )
    return found


class _Places:
    """Where `io.read` finds the images of a series again, by path and frame.

    headers  of its files.
    alone    no other series lies where its files lie.
    """

    def __init__(self, headers: dict[Path, Header], alone: bool) -> None:
        self.alone = alone
        self.whole = _common(headers)
        self.images_of = cache(lambda path: arrange([headers[path]]).volumes)
        self.images_below = cache(
            lambda home: arrange(h for path, h in headers.items() if home in path.parents).volumes
        )

    def of(self, volume: Volume) -> tuple[Path, str]:
        """Path and frame of one of its images."""
        files, tells = volume.files, volume.tells
        if isinstance(files[0], Packed):
            home = files[0].archive
        elif len(files) == 1 and volume.header.frames == 1 and volume.frames[0].tile is None:
            return files[0], ""  # the usual picture: nothing else is in its file
        elif len(files) == 1:
            return files[0], _within(volume, self.images_of(files[0])) or ""
        else:
            home = _common(files)
            if home != self.whole:  # the series lies in several folders
                found = _within(volume, self.images_below(home))
                home, tells = (self.whole, tells) if found is None else (home, found)
        if self.alone:
            return home, tells
        return home, ":".join(filter(None, (series_name(volume.header, home), tells)))


def _common(files: Iterable[Path]) -> Path:
    """The deepest folder that all files lie in or below."""
    return Path(os.path.commonpath({str(file.parent) for file in files} or "."))


def _within(volume: Volume, others: list[Volume]) -> str | None:
    """What tells an image from the others that some of its series' files make; None where they make other images."""
    mine = {(plane.path, plane.number, plane.tile) for plane in volume.frames}
    for other in others:
        if {(plane.path, plane.number, plane.tile) for plane in other.frames} == mine:
            return other.tells
    return None


def _item(header: Header, path: Path, frame: str, kind: str, looks: list[Look], shared: str) -> Item:
    item = Item(path, frame)
    item.kind = kind
    item.patient = header.get("PatientID")
    item.study = header.get("StudyInstanceUID") or header.get("SeriesInstanceUID") or path.parent.name
    item.modality = header.get("Modality")
    said = {"age": "PatientAge", "sex": "PatientSex", "view": "ViewPosition"}
    item.about = about({name: header.get(keyword) for name, keyword in said.items()})
    item.series, item.series_number = header.get("SeriesInstanceUID"), header.get("SeriesNumber")
    item.description, item.image_type = header.get("SeriesDescription"), header.get("ImageType")
    item.refers = next((seen.refers for seen in looks if seen.refers), "")
    item.segments = next((seen.segments for seen in looks if seen.segments), ())
    item.channels = "3" if is_colour(header) else "1"
    item.unit = unit_of(header)
    notes = [note for seen in looks for note in seen.notes]
    if padded := sum(seen.padded for seen in looks):
        notes.append(f"{padded} pixels are padding (PixelPaddingValue): set to the lowest value")
    if kind:
        notes.append(f"set apart: {KINDS[kind]}")
    item.notes = tuple(dict.fromkeys(notes))
    item.sha256 = _digest([seen.digest for seen in looks], shared)
    return item


def _digest(digests: list[str], shared: str) -> str:
    """SHA-256 of the file that an image is made of, or of the digests of several; `shared` tells images of the same
    files apart."""
    if not all(digests):
        return ""
    if len(digests) == 1 and not shared:
        return digests[0]
    return hashlib.sha256(" ".join([*sorted(digests), shared]).encode()).hexdigest()
