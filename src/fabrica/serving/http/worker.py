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
from collections.abc import Mapping, Sequence
from importlib import import_module
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from fabrica.errors import FabricaError
from fabrica.serving.http.models import Open, Ready, ready
from fabrica.serving.http.tasks import Apply, Infer, Refused, Result, Sample, Task
from fabrica.serving.http.work import applied, inferred, sampled

EVERY = 0.1  # seconds between two reports of how far work is
STOP = "stop"
USUAL = ("io.dicom.read", "io.dicom.write", "io.nifti", "io.raster", "data.find", "inference.files")
"""Rooms that the first request would wait for."""


class Stopped(Exception):
    """Nobody waits for the result any more."""


def main(connection: Connection, folders: Sequence[tuple[str, Path]], opening: Open, precision: str) -> None:
    """Open models and work for them, until the other end of the connection is closed.

    Sends ("opened", [Served, ...]) or ("failed", line), then for each list of tasks any number of ("progress", what,
    done, total) and ("done", [Result, ...]).
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
    try:
        while True:
            asked = connection.recv()
            if asked != STOP:  # of work that ended meanwhile
                connection.send(("done", done(models, asked, _Watch(connection))))
    except (EOFError, ConnectionError, KeyboardInterrupt):
        return


def _silent() -> None:
    """What decoders print themselves may quote the headers of patients."""
    with Path(os.devnull).open("w") as nowhere:
        for stream in (sys.stdout, sys.stderr):
            os.dup2(nowhere.fileno(), stream.fileno())


class _Watch:
    """Progress told on, now and then; Stopped where the server asks for it."""

    def __init__(self, connection: Connection) -> None:
        self.connection, self.last = connection, 0.0

    def __call__(self, what: str, done: int, total: int) -> None:
        while self.connection.poll():
            if self.connection.recv() == STOP:
                raise Stopped
        if time.monotonic() - self.last >= EVERY:
            self.last = time.monotonic()
            self.connection.send(("progress", what, done, total))


def done(models: Mapping[str, Ready], tasks: Sequence[Task], progress: Any) -> list[Result]:
    """What becomes of tasks, one for one: calls of one graph together, any other alone."""
    try:
        first = tasks[0]
        model = models[first.model]
        if isinstance(first, Infer):
            return [*inferred(model, [each for each in tasks if isinstance(each, Infer)])]
        assert isinstance(first, Apply | Sample)
        return [applied(model, first, progress) if isinstance(first, Apply) else sampled(model, first, progress)]
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
