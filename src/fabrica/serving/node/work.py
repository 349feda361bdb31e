"""Models at work, in a process of their own: what brings a decoder or a runtime down costs one series its result.

The process opens the models once and takes jobs one by one, as `fabrica apply` would.
"""

from __future__ import annotations

import errno
import multiprocessing
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from fabrica.errors import FabricaError
from fabrica.inference.translator import Translates
from fabrica.io.atomic import flush
from fabrica.serving.node.entries import Job, Outgoing
from fabrica.serving.node.store import Store

Open = Callable[[Path], Translates]
"""What opens a model; by name, so that another process can import it."""

NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES)
MOST_REASONS = 8  # of images that were left out of a result
BEAT = 10.0  # seconds between two signs of life


@dataclass(frozen=True)
class Opened:
    """A model that the process has: by the name that rules use, and the hash of its weights."""

    name: str
    hash: str


@dataclass(frozen=True)
class Outcome:
    """What became of a job: refused says why nothing was made, unless the store has no room for it now, which trouble
    says; else the objects, and the series that they are."""

    refused: str = ""
    trouble: str = ""
    objects: tuple[Outgoing, ...] = ()
    series: tuple[str, ...] = ()
    left_out: str = ""


class Worker:
    """The process, started when it is needed and again when it has ended; limit: seconds that a job may take."""

    def __init__(self, open_: Open, folders: Sequence[Path], limit: float, beat: float = BEAT) -> None:
        self._open, self._folders, self._limit, self._beat = open_, tuple(folders), limit, beat
        self._process: Any = None
        self._pipe: Connection | None = None
        self.models: tuple[Opened, ...] = ()

    def start(self) -> None:
        """Open the models; FabricaError, as the process says it, where that fails."""
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, self._open, self._folders), daemon=True)
        self._process.start()
        theirs.close()
        said = self._answer(lambda: True, 10 * self._limit)
        if isinstance(said, str):
            self.stop()
            raise FabricaError(said)
        self.models = said

    def apply(self, job: Job, files: Sequence[Path], store: Store, beat: Callable[[], bool]) -> Outcome | None:
        """Work on a job. beat: called now and then; where it says False the job is another's, and None returned."""
        if self._process is None or not self._process.is_alive():
            self.start()
        assert self._pipe is not None
        place = store.work / f"{job.id}-{os.getpid()}-{time.time_ns()}"
        try:
            (place / "in").mkdir(parents=True)
            for path in files:
                _link(path, place / "in" / path.name)
            self._pipe.send((job, place))
            said = self._answer(beat, self._limit)
            if said is None or isinstance(said, str):
                self.stop()
                return None if said is None else Outcome(refused=said)
            outcome: Outcome = said
            if outcome.objects:
                result = store.result(job.id)
                shutil.rmtree(result, ignore_errors=True)  # of a node that was killed before it could say so
                (place / "out").rename(result)
                flush(result.parent)
            return outcome
        except FileNotFoundError as error:
            return Outcome(refused=f"{error.filename} is gone from the store")
        except BaseException:
            self.stop()  # what it would say then is of a job that nobody waits for
            raise
        finally:
            shutil.rmtree(place, ignore_errors=True)

    def stop(self) -> None:
        """End the process, whatever it is at."""
        if self._process is not None:
            self._process.kill()
            self._process.join()
        if self._pipe is not None:
            self._pipe.close()
        self._process = self._pipe = None

    def _answer(self, beat: Callable[[], bool], limit: float) -> Any:
        """What the process says; a text of what became of it where it says nothing more; None where it was told to
        stop."""
        assert self._pipe is not None
        end = time.monotonic() + limit
        while True:
            try:
                if self._pipe.poll(min(self._beat, max(0.1, end - time.monotonic()))):
                    return self._pipe.recv()
            except (EOFError, OSError):
                self._process.join(5)
                code = self._process.exitcode
                how = f"signal {-code}" if code is not None and code < 0 else f"exit code {code}"
                return f"the process that worked on it ended with {how}"
            if time.monotonic() > end:
                return f"not done after {limit:g} s"
            if not beat():
                return None


def _link(path: Path, link: Path) -> None:
    """The same file under another name; a copy where the file system has no such thing."""
    try:
        os.link(path, link)
    except FileNotFoundError:
        raise
    except OSError:
        shutil.copyfile(path, link)


def _serve(pipe: Connection, open_: Open, folders: Sequence[Path]) -> None:
    """The main function of the process."""
    parent = multiprocessing.parent_process()
    if parent is not None:  # never outlive the node, which alone hears of Ctrl-C
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    try:
        models = {model.name: model for model in map(open_, folders)}
        if len(models) < len(folders):
            raise FabricaError(f"{len(folders)} models with {len(models)} names; give each once")
        if same := _twins(models.values()):
            raise FabricaError(f"models {' and '.join(same)} are one, with the same weights; give it once")
        for model in models.values():
            model.way()  # what translates nothing is told so now
    except FabricaError as error:
        pipe.send(str(error))
        return
    pipe.send(tuple(Opened(name, model.hash) for name, model in models.items()))
    while True:
        try:
            job, place = pipe.recv()
        except EOFError:
            return
        pipe.send(applied(models[job.model], job, place))


def _twins(models: Iterable[Translates]) -> tuple[str, str] | None:
    """Two models of the same weights: a series and a hash name one job, so that one of them would never work."""
    names: dict[str, str] = {}
    for model in models:
        if names.setdefault(model.hash, model.name) != model.name:
            return names[model.hash], model.name
    return None


def _end_with(parent: Any) -> None:
    parent.join()
    os._exit(1)


def applied(model: Translates, job: Job, place: Path) -> Outcome:
    """The model applied to the series in `place`/in, into `place`/out."""
    from fabrica.inference.files import RESULT, apply

    record = {
        "uid_content": f"{job.series}/{job.version}/{job.direction}",
        "created": job.created,
        "note": job.note,
    }
    try:
        direction = job.direction or "a2b"
        outcomes = apply(model, place / "in", place / "out", direction=direction, as_="dicom", record=record)
    except FabricaError as error:
        if isinstance(error.__cause__, OSError) and error.__cause__.errno in NO_ROOM:
            return Outcome(trouble=str(error.__cause__.strerror))
        return Outcome(refused=_local(str(error), place))
    except MemoryError:
        return Outcome(refused="more memory than there is")
    except Exception as error:  # a decoder's or a runtime's own
        return Outcome(refused=f"unexpected {type(error).__name__}: {' '.join(str(error).split())[:200]}")
    refused = [_local(each.refused, place) for each in outcomes if each.refused]
    more = f"; and {len(refused) - MOST_REASONS} more" if len(refused) > MOST_REASONS else ""
    left_out = "; ".join(refused[:MOST_REASONS]) + more
    files = sorted(path for path in (place / "out").rglob("*.dcm"))
    if not files:
        return Outcome(refused=left_out or f"no image; see {RESULT}")
    objects = [_outgoing(job, path, path.relative_to(place / "out")) for path in files]
    series = tuple({series for _, series in objects})
    return Outcome(objects=tuple(each for each, _ in objects), series=series, left_out=left_out)


def _outgoing(job: Job, path: Path, name: Path) -> tuple[Outgoing, str]:
    """What a file holds that was just written, and its series."""
    from pydicom import dcmread

    said = dcmread(path, stop_before_pixels=True, specific_tags=["SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID"])
    syntax = str(said.file_meta.TransferSyntaxUID)
    where = f"results/{job.id}/{name.as_posix()}"
    return Outgoing(job.id, str(said.SOPInstanceUID), where, str(said.SOPClassUID), syntax), str(said.SeriesInstanceUID)


def _local(reason: str, place: Path) -> str:
    """A reason without the folder that the job worked in."""
    return reason.replace(f"{place / 'in'}", "the series").removesuffix("; --force translates it anyway")
