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
from itertools import chain, islice
from multiprocessing import get_context
from pathlib import Path

from fabrica.about import about
from fabrica.data.item import Item
from fabrica.io.dicom import NAMELESS, is_colour
from fabrica.io.dicom_geometry import stack
from fabrica.io.dicom_header import Header
from fabrica.io.dicom_kinds import KINDS, kind_of
from fabrica.io.dicom_look import Look, look
from fabrica.io.dicom_values import unit_of
from fabrica.io.dicom_volumes import Volume, arrange

CHUNK = 32  # files that a process looks at before it answers
AHEAD = 4  # chunks in hand for each process: enough that none waits, few enough that memory stays flat
WORTH = 400  # files below which starting other processes takes longer than they save
WITHOUT_PIXELS = ("structures",)  # kinds whose rows stay although there is no image to read


@dataclass
class Series:
    """The images in DICOM files, and what became of the files that are in none.

    items     the images.
    rejected  (file, reason).
    strangers files that are no DICOM.
    files     how many files each item of `items` was made of, in their order, none counted twice.
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
    with _spool() as spool:
        for done, seen in enumerate(_looks(files, verify, workers), start=1):
            _keep(spool, seen, found)
            if progress and done % CHUNK == 0:
                progress(done)
        folders = sorted(spool.execute("SELECT DISTINCT folder, series FROM looks"))
        for _, looks in _by_series(spool):
            _arrange(looks, folders, found)
    order = sorted(range(len(found.items)), key=lambda k: (found.items[k].path, k))
    found.items, found.files = [found.items[k] for k in order], [found.files[k] for k in order]
    return found


def _looks(files: Iterable[Path], verify: bool, workers: int) -> Iterator[Look]:
    each = partial(look, verify=verify)
    files = iter(files)
    first = list(islice(files, WORTH))
    if workers < 2 or len(first) < WORTH:
        yield from map(each, chain(first, files))
        return
    # spawned, not forked: the caller may hold threads
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        pending: deque[Future[list[Look]]] = deque()
        rest = chain(first, files)
        while chunk := list(islice(rest, CHUNK)):
            pending.append(pool.submit(_look_at, chunk, verify))
            if len(pending) >= AHEAD * workers:
                yield from pending.popleft().result()
        while pending:
            yield from pending.popleft().result()


def _look_at(files: list[Path], verify: bool) -> list[Look]:
    return [look(path, verify) for path in files]


@contextmanager
def _spool() -> Iterator[sqlite3.Connection]:
    with tempfile.TemporaryDirectory(prefix="fabrica-scan-") as home:
        spool = sqlite3.connect(os.path.join(home, "looks.sqlite"), isolation_level=None)  # noqa: PTH118
        try:
            spool.execute("PRAGMA journal_mode=OFF")
            spool.execute("PRAGMA synchronous=OFF")
            spool.execute("CREATE TABLE looks (series TEXT, folder TEXT, look BLOB)")
            yield spool
        finally:
            spool.close()


def _keep(spool: sqlite3.Connection, seen: Look, found: Series) -> None:
    header = seen.header
    if header is None:
        if seen.problem:
            found.rejected.append((seen.path, seen.problem))
        else:
            found.strangers.append(seen.path)
        return
    if seen.problem:
        found.rejected.append((seen.path, seen.problem))
        return
    kind = kind_of(header)
    if not header.frames and kind not in WITHOUT_PIXELS:
        if kind:
            found.apart[kind] += 1
        else:
            found.rejected.append((seen.path, f"holds no image (modality {header.get('Modality') or 'unknown'})"))
        return
    folder = str(seen.path.parent)
    uid = header.get("SeriesInstanceUID") or f"{NAMELESS} {folder}"  # de-identification often blanks it
    spool.execute("INSERT INTO looks VALUES (?, ?, ?)", (_text(uid), _text(folder), pickle.dumps(seen, -1)))


def _text(path: str) -> str:
    """A text that SQLite can hold, whatever bytes a name has."""
    return path.encode("utf-8", "surrogateescape").decode("latin-1")


def _by_series(spool: sqlite3.Connection) -> Iterator[tuple[str, list[Look]]]:
    spool.execute("CREATE INDEX by_series ON looks (series)")
    current, looks = "", list[Look]()
    for uid, blob in spool.execute("SELECT series, look FROM looks ORDER BY series, rowid"):
        if uid != current and looks:
            yield current, looks
            looks = []
        current = uid
        looks.append(pickle.loads(blob))  # written by this process a moment ago
    if looks:
        yield current, looks


def _arrange(looks: list[Look], folders: list[tuple[str, str]], found: Series) -> None:
    of_file = {seen.path: seen for seen in looks}
    for seen in looks:
        if seen.header is not None and not seen.header.frames:  # contours: a row, but no image
            found.items.append(_item(seen.header, seen.path, "", kind_of(seen.header), [seen], ""))
            found.files.append(1)
    arranged = arrange(seen.header for seen in looks if seen.header is not None and seen.header.frames)
    found.rejected += arranged.refused
    counted = {path for path, _ in arranged.refused}
    several = Counter(file for volume in arranged.volumes for file in volume.files)
    for volume in sorted(arranged.volumes, key=lambda volume: bool(volume.kind)):
        files = volume.files
        path, frame = _place(volume, files, folders)
        looked = [of_file[file] for file in files]
        shared = volume.tells if any(several[file] > 1 for file in files) else ""
        item = _item(volume.header, path, frame, volume.kind, looked, shared)
        item.is_series = path != files[0]
        lies = stack([plane.place for plane in volume.frames])
        item.notes = tuple(dict.fromkeys((*volume.notes, *lies.notes, *item.notes)))
        item.dims = "3" if len(volume.frames) > 1 else "2"
        found.items.append(item)
        found.files.append(len(set(files) - counted))
        counted.update(files)
    found.copies += sum(bool(seen.header and seen.header.frames) and seen.path not in counted for seen in looks)


def _place(volume: Volume, files: list[Path], folders: list[tuple[str, str]]) -> tuple[Path, str]:
    """Path and frame by which `io.read` finds the image again."""
    if len(files) == 1:
        return files[0], _within(volume) if volume.header.frames > 1 else ""
    home = Path(os.path.commonpath([str(file.parent) for file in files]))
    below = _text(str(home))
    own = folders[bisect_left(folders, (below, "")) : bisect_left(folders, (below + "\0", ""))]
    after = below + "0"  # "0" is what follows "/"
    inner = folders[bisect_left(folders, (below + "/", "")) : bisect_left(folders, (after, ""))]
    if len({uid for _, uid in (*own, *inner)}) < 2:
        return home, volume.tells
    uid = volume.header.get("SeriesInstanceUID") or NAMELESS
    return home, ":".join(filter(None, (uid, volume.tells)))


def _within(volume: Volume) -> str:
    """What tells an image of one file from the file's others."""
    mine = {(plane.number, plane.tile) for plane in volume.frames}
    of_file = arrange([volume.header]).volumes
    return next(v.tells for v in of_file if {(plane.number, plane.tile) for plane in v.frames} == mine)


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
