"""One process that works, seen from the server: started, handed one batch while it does another, and ended.

Only threads wait for it, one that sends and one that reads, so that the event loop never does.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import count
from multiprocessing.connection import Connection
from typing import Any

from fabrica.errors import FabricaError
from fabrica.serving.http import worker
from fabrica.serving.http.line import Job
from fabrica.serving.http.tasks import Result, Served


class Died(Exception):
    """The process died at this batch."""


class Unbegun(Exception):
    """The process died, and had not begun with this batch."""


@dataclass(eq=False)
class Batch:
    """Jobs that are done together. answer: their results, and the seconds that the process worked on them."""

    number: int
    jobs: Sequence[Job]
    answer: asyncio.Future[tuple[list[Result], float]] = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )


class Member:
    """One process. given: what `fabrica.serving.http.worker.main` takes beside its connection; ended: called when it
    has ended."""

    def __init__(self, given: tuple[Any, ...], ended: Callable[[], None]) -> None:
        self.given, self.ended, self.up = given, ended, False
        self.batches: dict[int, Batch] = {}  # handed over and not done, in the order in which they will be
        self._numbers = count()
        self._sending = ThreadPoolExecutor(1)
        self._process: Any = None
        self._pipe: Connection
        self._reader = threading.Thread()

    async def start(self) -> list[Served]:
        """Open the models; FabricaError where that fails."""
        loop = asyncio.get_running_loop()
        served = await loop.run_in_executor(self._sending, self._start)
        self._reader = threading.Thread(target=self._read, args=(loop, self._pipe), daemon=True)
        self._reader.start()
        self.up = True
        return served

    def _start(self) -> list[Served]:
        context = multiprocessing.get_context("spawn")  # a server has threads, which a fork would cut off
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=worker.main, args=(theirs, *self.given), daemon=True)
        self._process.start()
        theirs.close()
        try:
            what, said = self._pipe.recv()
        except (EOFError, OSError) as error:
            raise FabricaError("the process that opens the models died; is there enough memory?") from error
        if what == "failed":
            self.down()
            raise FabricaError(said)
        return list(said)

    def hand(self, jobs: Sequence[Job]) -> Batch:
        """Hand a batch over; it is done after those that the process has already. Its answer raises Died or Unbegun."""
        batch = Batch(next(self._numbers), jobs)
        self.batches[batch.number] = batch
        self._begin()
        self._send(("do", batch.number, [job.task for job in jobs]))
        return batch

    def ask_to_stop(self, batch: Batch) -> None:
        """Ask the process to pass it over, or to end it where it is at it."""
        self._send(("stop", batch.number))

    def is_at(self, batch: Batch) -> bool:
        return next(iter(self.batches), None) == batch.number

    def _send(self, message: tuple[Any, ...]) -> None:
        sent = self._sending.submit(self._pipe.send, message)
        sent.add_done_callback(lambda done: done.exception())  # its end is read where the others are

    def _read(self, loop: asyncio.AbstractEventLoop, pipe: Connection) -> None:
        """The thread that reads what the process says until its end."""
        try:
            while True:
                loop.call_soon_threadsafe(self._heard, *pipe.recv())
        except Exception:  # its end, or what cannot be understood any more
            with suppress(RuntimeError):  # the loop has ended before
                loop.call_soon_threadsafe(self._ended, pipe)

    def _heard(self, what: str, number: int, *said: Any) -> None:
        if what == "progress":
            for job in self.batches[number].jobs:
                job.progress = said
            return
        batch = self.batches.pop(number)
        self._begin()
        if not batch.answer.done():
            batch.answer.set_result(said)

    def _begin(self) -> None:
        for job in next(iter(self.batches.values())).jobs if self.batches else ():
            job.begun = True

    def _ended(self, pipe: Connection) -> None:
        """Of the process that was read from `pipe`: what it was at failed, the rest it had not begun with."""
        if pipe is not self._pipe:
            return
        self.up = False
        ended, self.batches = list(self.batches.values()), {}
        for k, batch in enumerate(ended):
            if not batch.answer.done():
                batch.answer.set_exception(Unbegun() if k else Died())
                batch.answer.exception()  # else it is complained of where nobody is left to ask
        self.ended()

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()

    def down(self) -> None:
        """The process ended, whatever it is at. Waits for that."""
        self.up = False
        if self._process is not None:
            self.kill()
            self._process.join()
            if self._reader.is_alive():
                self._reader.join()
            self._pipe.close()

    def close(self) -> None:
        """For good."""
        self.down()
        self._sending.shutdown(wait=True, cancel_futures=True)
