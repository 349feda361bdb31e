"""A process that works: it opens the models, and does one batch of tasks after another until its pipe is closed.

Decoders of images and runtimes of networks are code of many hands that meets files of anybody. Where one of them brings
its process down, the server stands, says so to who asked, and starts another.
"""

from __future__ import annotations

import gc
import logging
import os
import signal
import sys
import time
import warnings
from collections import deque
from collections.abc import Mapping, Sequence
from importlib import import_module
from multiprocessing.connection import Connection
from pathlib import Path

from fabrica.errors import FabricaError
from fabrica.serving.http.models import Open, Ready, ready
from fabrica.serving.http.tasks import Apply, Infer, Refused, Result, Sample, Task
from fabrica.serving.http.work import applied, inferred, sampled

EVERY = 0.1  # seconds between two reports of how far work is
USUAL = ("io.dicom.read", "io.dicom.write", "io.nifti", "io.raster", "data.find", "inference.files")
"""Rooms that the first request would wait for."""


class Stopped(Exception):
    """Nobody waits for the result any more."""


def main(connection: Connection, folders: Sequence[tuple[str, Path]], opening: Open, precision: str) -> None:
    """Open models and work for them, until the other end of the connection is closed.

    Sends ("opened", [Served, ...]) or ("failed", line), then for each ("do", number, [Task, ...]), in their order, any
    number of ("progress", number, what, done, total) and ("done", number, [Result, ...], seconds at work). On ("stop",
    number) nobody waits for that batch any more.
    """
    for each in (signal.SIGINT, signal.SIGTERM):  # sent to all at once by terminals and service managers
        signal.signal(each, signal.SIG_IGN)
    warnings.simplefilter("ignore")  # of libraries, which may quote headers
    logging.disable(logging.CRITICAL)
    try:
        models = {name: ready(name, opening(folder, precision)) for name, folder in folders}
        for name in USUAL:
            import_module(f"fabrica.{name}")
        connection.send(("opened", [each.served for each in models.values()]))
    except (FabricaError, ModuleNotFoundError, OSError) as error:
        connection.send(("failed", str(error)))
        return
    _silent()
    gc.freeze()
    inbox = _Inbox(connection)
    try:
        while True:
            number, tasks = inbox.next()
            began = time.monotonic()
            results = done(models, tasks, _Watch(connection, inbox, number))
            connection.send(("done", number, results, time.monotonic() - began))
    except (EOFError, ConnectionError, KeyboardInterrupt):
        return


def _silent() -> None:
    """What decoders print themselves may quote the headers of patients."""
    with Path(os.devnull).open("w") as nowhere:
        for stream in (sys.stdout, sys.stderr):
            os.dup2(nowhere.fileno(), stream.fileno())


class _Inbox:
    """What the server asks, read also while there is work. stopped: numbers of batches that nobody waits for."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.waiting: deque[tuple[int, Sequence[Task]]] = deque()
        self.stopped: set[int] = set()

    def next(self) -> tuple[int, Sequence[Task]]:
        """The next batch; waits for it."""
        while not self.waiting:
            self.read()
        self.stopped = {number for number in self.stopped if number >= self.waiting[0][0]}
        return self.waiting.popleft()

    def look(self) -> None:
        """Read what is there."""
        while self.connection.poll():
            self.read()

    def read(self) -> None:
        what, number, *tasks = self.connection.recv()
        if what == "stop":
            self.stopped.add(number)
        else:
            self.waiting.append((number, *tasks))


class _Watch:
    """Progress told on, now and then; Stopped where the server asks for it."""

    def __init__(self, connection: Connection, inbox: _Inbox, number: int) -> None:
        self.connection, self.inbox, self.number, self.last = connection, inbox, number, 0.0

    def check(self) -> None:
        self.inbox.look()
        if self.number in self.inbox.stopped:
            raise Stopped

    def __call__(self, what: str, done: int, total: int) -> None:
        self.check()
        if time.monotonic() - self.last >= EVERY:
            self.last = time.monotonic()
            self.connection.send(("progress", self.number, what, done, total))


def done(models: Mapping[str, Ready], tasks: Sequence[Task], watch: _Watch) -> list[Result]:
    """What becomes of tasks, one for one: calls of one graph together, any other alone."""
    try:
        watch.check()
        first = tasks[0]
        model = models[first.model]
        if isinstance(first, Infer):
            return [*inferred(model, [each for each in tasks if isinstance(each, Infer)])]
        assert isinstance(first, Apply | Sample)
        return [applied(model, first, watch) if isinstance(first, Apply) else sampled(model, first, watch)]
    except Refused as refused:
        return [refused] * len(tasks)
    except Stopped:
        return [Refused(499, "nobody waits any more")] * len(tasks)
    except MemoryError:
        return [Refused(507, "the server has not enough memory for it; send a smaller image")] * len(tasks)
    except FabricaError:
        return [Refused(500, "the work failed on the server")] * len(tasks)
    except (EOFError, ConnectionError):
        raise
    except Exception as error:  # the process stays: what failed is one request
        return [Refused(500, f"unexpected {type(error).__name__}: please report it with an image of nobody")] * len(
            tasks
        )
