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
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import chain, groupby, islice
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple, TypeVar

from fabrica.about import about
from fabrica.data.item import Item
from fabrica.io.dicom import NAMELESS, is_colour, series_name
from fabrica.io.dicom_geometry import stack
from fabrica.io.dicom_header import Header
from fabrica.io.dicom_kinds import KINDS, kind_of
from fabrica.io.dicom_look import Look, look
from fabrica.io.dicom_values import unit_of
from fabrica.io.dicom_volumes import Volume, arrange
from fabrica.io.packed import Packed

T = TypeVar("T")
R = TypeVar("R")

CHUNK = 32  # files that a process looks at before it answers
AHEAD = 8  # chunks in hand: enough that no process waits, few enough that memory stays flat
WORTH = 400  # files below which starting other processes takes longer than they save
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
    workers: int = 1,
    progress: Callable[[int], None] | None = None,
) -> Series:
    """The images that these files hold. `progress` is called with how many files have been looked at."""
    found = Series()
    files = iter(files)
    first = list(islice(files, WORTH))
    rest = chain(first, files)
    with _spool() as spool, _helpers(workers - 1 if len(first) == WORTH else 0) as pool:
        done = 0
        for seen in _shared(pool, partial(_see, verify=verify), iter(lambda: list(islice(rest, CHUNK)), [])):
            for each in seen:
                _keep(spool, each, found)
            done += len(seen)
            if progress:
                progress(done)
        folders = sorted(spool.execute("SELECT DISTINCT folder, series FROM looks"))
        for part in _shared(pool, _arranged, _by_series(spool, folders)):
            found.items += part.items
            found.files += part.files
            found.rejected += part.rejected
            found.copies += part.copies
    order = sorted(range(len(found.items)), key=lambda k: (found.items[k].path, k))
    found.items, found.files = [found.items[k] for k in order], [found.files[k] for k in order]
    return found


@contextmanager
def _helpers(count: int) -> Iterator[ProcessPoolExecutor | None]:
    """Processes beside this one; None for none."""
    if count < 1:
        yield None
        return
    # spawned, not forked: the caller may hold threads
    pool = ProcessPoolExecutor(count, mp_context=get_context("spawn"))
    try:
        yield pool
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _shared(pool: ProcessPoolExecutor | None, task: Callable[[T], R], pieces: Iterator[T]) -> Iterator[R]:
    """`task` of each piece, in no order: by the helpers, and by this process while it would wait for them."""
    pending: deque[Future[R]] = deque()
    while True:
        while pool and len(pending) < AHEAD and (piece := next(pieces, None)) is not None:
            pending.append(pool.submit(task, piece))
        if pending and pending[0].done():
            yield pending.popleft().result()
        elif (piece := next(pieces, None)) is not None:
            yield task(piece)
        elif pending:
            yield pending.popleft().result()
        else:
            return


class Seen(NamedTuple):
    """What became of one file at the first look.

    fate     "kept", "rejected" with the reason, "apart" with the kind, or "stranger".
    uid, folder, look  of one that is kept: what its series goes by, where it lies, and what was found, pickled.
    """

    path: Path
    fate: str
    reason: str = ""
    uid: str = ""
    folder: str = ""
    look: bytes = b""


def _see(files: list[Path], verify: bool) -> list[Seen]:
    return [_one(path, verify) for path in files]


def _one(path: Path, verify: bool) -> Seen:
    found = look(path, verify)
    header = found.header
    if found.problem and not (header and header.frames):
        return Seen(path, "rejected", found.problem)
    if header is None:
        return Seen(path, "stranger")
    kind = kind_of(header)
    if not header.frames and kind not in WITHOUT_PIXELS:
        if kind and not isinstance(path, Packed):
            return Seen(path, "apart", kind)
        return Seen(path, "rejected", f"holds no image ({kind or 'modality ' + (header.get('Modality') or 'unknown')})")
    folder = str(path.parent)
    uid = header.get("SeriesInstanceUID") or f"{NAMELESS} {folder}"  # de-identification often blanks it
    if isinstance(path, Packed):  # what lies in an archive is found again in that archive alone
        folder = str(path.archive)
        uid = f"{uid} {folder}"
    return Seen(path, "kept", "", _text(uid), _text(folder), pickle.dumps(found, -1))


@contextmanager
def _spool() -> Iterator[sqlite3.Connection]:
    with tempfile.TemporaryDirectory(prefix="fabrica-scan-") as home:
        spool = sqlite3.connect(os.path.join(home, "looks.sqlite"), isolation_level=None)  # noqa: PTH118
        try:
            spool.execute("PRAGMA journal_mode=OFF")
            spool.execute("PRAGMA synchronous=OFF")
            spool.execute("CREATE TABLE looks (series TEXT, folder TEXT, look BLOB)")
            spool.execute("BEGIN")
            yield spool
        finally:
            spool.close()


def _keep(spool: sqlite3.Connection, seen: Seen, found: Series) -> None:
    if seen.fate == "kept":
        spool.execute("INSERT INTO looks VALUES (?, ?, ?)", (seen.uid, seen.folder, seen.look))
    elif seen.fate == "rejected":
        found.rejected.append((seen.path, seen.reason))
    elif seen.fate == "apart":
        found.apart[seen.reason] += 1
    else:
        found.strangers.append(seen.path)


def _text(path: str) -> str:
    """A text that SQLite can hold, whatever bytes a name has."""
    return path.encode("utf-8", "surrogateescape").decode("latin-1")


class Group(NamedTuple):
    """What was found of the files of one series, pickled. alone: no other series lies where its files lie."""

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
    looks: list[Look] = [pickle.loads(blob) for blob in group.looks]  # written by this very run
    of_file = {seen.path: seen for seen in looks}
    for seen in looks:
        if seen.header is not None and not seen.header.frames:  # contours: a row, but no image
            found.items.append(_item(seen.header, seen.path, "", kind_of(seen.header), [seen], ""))
            found.files.append(1)
    # files whose pixels cannot be read are arranged with the others: who reads the folder does not know of them yet
    headers = [seen.header for seen in looks if seen.header is not None and seen.header.frames]
    arranged = arrange(headers)
    found.rejected += [(seen.path, seen.problem) for seen in looks if seen.problem]
    broken = {path for path, _ in found.rejected}
    found.rejected += [(path, reason) for path, reason in arranged.refused if path not in broken]
    counted = {path for path, _ in found.rejected}
    whole = _common([header.path for header in headers])
    several = Counter(file for volume in arranged.volumes for file in volume.files)
    for volume in sorted(arranged.volumes, key=lambda volume: bool(volume.kind)):
        sound = [plane for plane in volume.frames if plane.path not in broken]
        if not sound:
            continue
        files = list(dict.fromkeys(plane.path for plane in sound))
        path, frame = _place(volume, headers, whole, group.alone)
        looked = [of_file[file] for file in files]
        shared = volume.tells if any(several[file] > 1 for file in files) else ""
        item = _item(volume.header, path, frame, volume.kind, looked, shared)
        item.is_series = path != files[0]
        lies = stack([plane.place for plane in sound])
        item.notes = tuple(dict.fromkeys((*volume.notes, *lies.notes, *item.notes)))
        item.dims = "3" if len(sound) > 1 else "2"
        found.items.append(item)
        found.files.append(-1 if isinstance(files[0], Packed) else len(set(files) - counted))
        counted.update(files)
    found.copies = sum(
        bool(seen.header and seen.header.frames) and seen.path not in counted and not isinstance(seen.path, Packed)
        for seen in looks
    )
    return found


def _place(volume: Volume, headers: list[Header], whole: Path, alone: bool) -> tuple[Path, str]:
    """Path and frame by which `io.read` finds an image again, of a series with these headers in and below `whole`."""
    files, tells = volume.files, volume.tells
    if isinstance(files[0], Packed):
        home = files[0].archive
    elif len(files) == 1:
        return files[0], _within(volume, [volume.header]) or ""
    else:
        home = _common(files)
        if home != whole:  # the series lies in several folders
            start = f"{str(home).rstrip('/')}/"
            found = _within(volume, [header for header in headers if str(header.path).startswith(start)])
            home, tells = (whole, tells) if found is None else (home, found)
    if alone:
        return home, tells
    return home, ":".join(filter(None, (series_name(volume.header, home), tells)))


def _common(files: list[Path]) -> Path:
    """The deepest folder that all files lie in or below."""
    return Path(os.path.commonpath({str(file.parent) for file in files} or "."))


def _within(volume: Volume, headers: list[Header]) -> str | None:
    """What tells an image from the others of some of its series' files; None where these make other images."""
    mine = {(plane.path, plane.number, plane.tile) for plane in volume.frames}
    for other in arrange(headers).volumes:
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
