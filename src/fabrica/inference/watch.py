"""A folder that fills up: each image that is complete goes through a model once.

What was done is known by what lies there: the results of an image stand in a folder under its name and the digest of
its files, and appear at once, by one renaming; what was left out has a note with the reason, under the same name, among
LEFT_OUT. So a stop or a kill at any point loses nothing and repeats nothing, with no database: work that was not
finished is begun again, and an image that has brought the process down MOST times is left out.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from fabrica import io
from fabrica.data.find import CONTAINERS, DICOM, IMAGES, walk
from fabrica.data.tables import stem
from fabrica.errors import FabricaError, ReadError, UsageError
from fabrica.inference.files import RESULT, apply
from fabrica.inference.results import Outcome
from fabrica.inference.translator import Translates
from fabrica.io.atomic import atomic, flush
from fabrica.io.dicom.header import read_header
from fabrica.io.dicom.mark import is_dicom

LEFT_OUT = "left-out"  # in the folder of results: a note on each image of which nothing was made
WORKING, LOCK, TRIES = ".working", ".watching", "tries"
MOST = 3  # times that an image may bring the process down
UNFINISHED = (".part", ".partial", ".tmp", ".temp", ".filepart", ".crdownload")
LONGEST = 100  # characters of a name
DIGITS = 12  # of a digest, in names
State = tuple[int, int]
"""Size and modification time in ns of a file."""


@dataclass
class _Seen:
    """What is known of a file: its state, since when it has had it, and the series that it belongs to, "" for one that
    is an image by itself, None for one that is none. done: whether an image was dealt with that it is part of."""

    state: State
    since: float
    series: str | None = None
    done: bool = False


@dataclass(frozen=True)
class Done:
    """What became of an image. name: of its folder or note among the results; refused: why nothing was made."""

    source: str
    name: str
    outcomes: list[Outcome] = field(default_factory=list)
    refused: str = ""


class Watch:
    """The images of a folder, and their results.

    quiet     seconds that an image's files must not have changed for: a series, since we saw the last of them come; any
              other file, by its own time as well, so that one that is renamed in is taken at once.
    choices   of `fabrica.inference.files.apply`, such as `force`.
    """

    def __init__(self, model: Translates, source: Path, out: Path, quiet: float, choices: Mapping[str, Any]) -> None:
        """UsageError for folders that are not there or lie within one another."""
        if not source.is_dir():
            raise UsageError(f"{source} is no folder; --watch waits for what comes into one")
        one, other = (os.path.realpath(each) for each in (source, out))
        if f"{one}/".startswith(f"{other}/") or f"{other}/".startswith(f"{one}/"):
            raise UsageError(f"{out} and {source} lie within one another; results would be taken for images: choose -o")
        self.model, self.source, self.out, self.quiet, self.choices = model, source, out, quiet, dict(choices)
        self._seen: dict[Path, _Seen] = {}

    @contextmanager
    def alone(self) -> Iterator[None]:
        """While nobody else writes to these results; UsageError where somebody does."""
        self.out.mkdir(parents=True, exist_ok=True)
        with (self.out / LOCK).open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise UsageError(f"another process watches for {self.out}; end it, or choose another -o") from error
            for working in self._left():
                shutil.rmtree(working)
            yield

    def look(self, now: float) -> Iterator[Done]:
        """What is complete by now and was not dealt with, one after the other; now: seconds, as of `time.time`."""
        self._note(now)
        for files in self._complete(now):
            try:
                done = self._deal(files)
            except _Changed:  # some of it came or went meanwhile: wait until it is quiet again
                for path in files:
                    self._seen[path].since = now
                continue
            for path in files:
                self._seen[path].done = True
            if done:
                yield done

    def _note(self, now: float) -> None:
        """Look which files there are, and which have changed."""
        before, self._seen = self._seen, {}
        for path in walk(self.source):
            state = _state(path)
            if state is None or path.name.lower().endswith(UNFINISHED):
                continue
            known = before.get(path)
            if known is None or known.state != state:
                known = _Seen(state, now)
                known.series = _series(path)
            self._seen[path] = known

    def _complete(self, now: float) -> list[list[Path]]:
        """The files of each image that is complete and not done."""
        together: dict[tuple[Path, str], list[Path]] = defaultdict(list)
        for path, seen in self._seen.items():
            if seen.series is not None:
                together[(path.parent, seen.series) if seen.series else (path, "")].append(path)
        found = []
        for (_, series), files in together.items():
            known = [self._seen[path] for path in files]
            since = max(each.since if series else min(each.since, each.state[1] / 1e9) for each in known)
            if now - since >= self.quiet and not all(each.done for each in known):
                found.append(files)
        return found

    def _deal(self, files: list[Path]) -> Done | None:
        """Make the results of one image, or a note why not; None for what was dealt with before. Raises _Changed."""
        parts = sorted({part for path in files for part in _parts(path)})
        states = [_state(part) for part in parts]
        try:
            digest = _digest(parts)
        except OSError as error:
            return Done(str(files[0]), "", refused=f"{error.filename} cannot be read ({error.strerror})")
        label, said = self._named(files)
        name = f"{label}-{digest[:DIGITS]}"
        note = self.out / LEFT_OUT / f"{name}.json"
        if (self.out / name).exists() or note.exists():
            return None
        working = self.out / WORKING / name
        tries = _begun(working)
        try:
            if tries > MOST:
                outcomes, refused = list[Outcome](), f"{said}: it has brought the process down {MOST} times"
            else:
                outcomes, refused = self._apply(parts, working, label, said)
            if states != [_state(part) for part in parts]:
                raise _Changed
            if refused:
                about = {"input": said, "refused": refused, "model_hash": self.model.hash, "sha256": digest}
                note.parent.mkdir(exist_ok=True)
                _write(note, about)
            else:
                _keep(working / "out", self.out / name, outcomes, said, digest)
        finally:  # of a stop as well, which is not the image's fault; a kill leaves it there
            shutil.rmtree(working)
        return Done(said, name, outcomes, refused)

    def _left(self) -> Iterator[Path]:
        """What a process has left that was killed after all was done."""
        for working in (self.out / WORKING).glob("*"):
            if (self.out / working.name).exists() or (self.out / LEFT_OUT / f"{working.name}.json").exists():
                yield working

    def _apply(self, parts: list[Path], working: Path, label: str, said: str) -> tuple[list[Outcome], str]:
        """Outcomes of one image, made in the folder where work goes on; and why nothing was made."""
        inside = working / "in" / label
        inside.mkdir(parents=True)
        for part in parts:
            (inside / part.name).symlink_to(part.absolute())

        def told(text: str) -> str:
            return text.replace(f"{inside}/", f"{parts[0].parent}/").replace(str(inside), said)

        try:
            outcomes = apply(self.model, inside, working / "out", **self.choices)
        except (ReadError, UsageError) as error:
            return [], told(str(error))
        except FabricaError:  # a full disk: not the image's fault
            raise
        except Exception as error:  # any: one image must not stop those behind it
            return [], f"{said}: unexpected {type(error).__name__}: {error}"
        for outcome in outcomes:
            outcome.input, outcome.refused = told(outcome.input), told(outcome.refused)
        if not any(outcome.output for outcome in outcomes):
            return [], "; ".join(outcome.refused for outcome in outcomes)
        return outcomes, ""

    def _named(self, files: list[Path]) -> tuple[str, str]:
        """What an image is called among results, and what messages call it."""
        first = files[0]
        series = self._seen[first].series
        where = (first.parent if series else first).relative_to(self.source).as_posix()
        bare = "series" if where == "." else where if series else stem(where)
        said = f"{first.parent} (series {series})" if series else str(first)
        return bare.replace("/", "_")[-LONGEST:].lstrip("."), said


class _Changed(Exception):
    """An image was not complete after all."""


def _begun(working: Path) -> int:
    """How often this image has been begun, this time included; what an earlier try has left is removed."""
    count = working / TRIES
    tries = 1 + (int(count.read_text()) if count.is_file() else 0)
    for left in (working / "in", working / "out"):
        shutil.rmtree(left, ignore_errors=True)
    working.mkdir(parents=True, exist_ok=True)
    with atomic(count) as temporary:
        temporary.write_text(str(tries))
    return tries


def _keep(made: Path, place: Path, outcomes: list[Outcome], said: str, digest: str) -> None:
    """Results, which are there at once and on the disk, with what image they are of: it was read through a link."""
    about = json.loads((made / RESULT).read_text("utf-8"))
    _write(made / RESULT, {**about, "sha256": digest, "source": said, "results": [asdict(each) for each in outcomes]})
    for path in made.rglob("*"):
        flush(path)
    made.rename(place)
    flush(place.parent)


def _write(path: Path, values: Mapping[str, object]) -> None:
    with atomic(path) as temporary:
        temporary.write_text(json.dumps(values, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _series(path: Path) -> str | None:
    """The series that a file belongs to; "" for one that is an image by itself; None for what is no image (yet)."""
    name = path.name.lower()
    if name.endswith((*IMAGES, *CONTAINERS)):
        return ""
    if name == "dicomdir" or not is_dicom(path):
        return "" if name.endswith(DICOM) else None  # damaged, as its name promises more
    try:
        return read_header(path).get("SeriesInstanceUID").strip() or ""
    except (FabricaError, RecursionError):
        return ""


def _parts(path: Path) -> list[Path]:
    """The files that an image file is made of and that are there."""
    found = [*io.files_of(path), *([path.with_suffix(".img")] if path.suffix.lower() == ".hdr" else [])]
    return [part for part in found if part.is_file()]


def _state(path: Path) -> State | None:
    try:
        status = path.stat()
    except OSError:  # it has gone meanwhile
        return None
    return status.st_size, status.st_mtime_ns


def _digest(files: list[Path]) -> str:
    """SHA-256 of the names and contents of files, read in pieces."""
    whole = hashlib.sha256()
    for path in files:
        with path.open("rb") as file:
            own = hashlib.file_digest(file, "sha256").digest()
        whole.update(os.fsencode(path.name) + b"\0" + own)
    return whole.hexdigest()
