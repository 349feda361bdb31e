"""The processes that work, seen from the server: started, fed from the line, stopped, and started again where one dies.

Only threads wait for them, one each, so that the event loop never does.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from fabrica.errors import FabricaError
from fabrica.serving.http import worker
from fabrica.serving.http.line import Job, Line
from fabrica.serving.http.models import Open
from fabrica.serving.http.tasks import Refused, Served

GRACE = 2.0  # seconds in which work that nobody waits for ends by itself
PAUSE = 0.5  # seconds before a process that died is started again, doubled each time that it does not come up
DIED = Refused(500, "the process that worked on it died, and another was started; the file may be damaged")


class Crew:
    """Processes that work through a line.

    folders   the models: their names, and where they are. opening: see `fabrica.serving.http.models.Open`.
    told      called with what happens: "started", "died", "batch" and numbers that belong to it.
    """

    def __init__(
        self,
        line: Line,
        folders: Sequence[tuple[str, Path]],
        opening: Open,
        *,
        count: int = 1,
        precision: str = "",
        told: Callable[..., None] = lambda what, **numbers: None,
    ) -> None:
        self.line, self.told = line, told
        self.served: dict[str, Served] = {}
        self._members = [_Member((folders, opening, precision)) for _ in range(count)]
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def ready(self) -> bool:
        """Whether at least one works, its models warm."""
        return any(member.up for member in self._members)

    async def start(self) -> None:
        """All at work; FabricaError where the models cannot be opened."""
        for served in await asyncio.gather(*(member.start() for member in self._members)):
            self.served = {each.name: each for each in served}
        self._tasks = [asyncio.create_task(self._work(member)) for member in self._members]

    async def stop(self) -> None:
        """None at work any more, at once."""
        for task in self._tasks:
            task.cancel()
        for member in self._members:
            member.kill()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for member in self._members:
            member.close()

    async def _work(self, member: _Member) -> None:
        while True:
            if not member.up:
                await self._again(member)
            jobs = await self.line.take()
            if not jobs:
                continue
            began = time.monotonic()
            results = await self._done(member, jobs)
            self.line.took(time.monotonic() - began)
            self.told("batch", jobs=len(jobs), seconds=time.monotonic() - began)
            for job, result in zip(jobs, results, strict=True):
                if not job.answer.done():
                    job.answer.set_result(result)

    async def _done(self, member: _Member, jobs: Sequence[Job]) -> Sequence[Any]:
        """What becomes of the jobs. Where nobody waits for any of them any more, the work is stopped: asked to, then
        by force."""

        def progress(*far: Any) -> None:
            for job in jobs:
                job.progress = far

        work = asyncio.ensure_future(member.do([job.task for job in jobs], progress))
        gone = asyncio.ensure_future(asyncio.wait([job.answer for job in jobs]))
        try:
            await asyncio.wait({work, gone}, return_when=asyncio.FIRST_COMPLETED)
            if not work.done():
                member.ask_to_stop()
                await asyncio.wait({work}, timeout=GRACE)
                if not work.done():
                    member.kill()
            return await work
        except Exception:  # its pipe is closed, or cannot be understood any more
            self.told("died")
            member.down()
            return [DIED] * len(jobs)
        finally:
            gone.cancel()

    async def _again(self, member: _Member) -> None:
        pause = PAUSE
        while not member.up:
            with suppress(Exception):  # whatever it was, the next try may do better
                await member.start()
                self.told("started")
                return
            await asyncio.sleep(pause)
            pause = min(pause * 2, 60)


class _Member:
    """One process, and the thread that waits for it."""

    def __init__(self, given: tuple[Any, ...]) -> None:
        self.given, self.up = given, False
        self._thread = ThreadPoolExecutor(1)
        self._process: Any = None
        self._pipe: Connection

    async def start(self) -> list[Served]:
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._start)

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
        self.up = True
        return list(said)

    async def do(self, tasks: Sequence[Any], progress: Callable[..., None]) -> list[Any]:
        loop = asyncio.get_running_loop()

        def exchange() -> list[Any]:
            self._pipe.send(list(tasks))
            while True:
                what, *said = self._pipe.recv()
                if what == "done":
                    return list(said[0])
                loop.call_soon_threadsafe(progress, *said)

        return await loop.run_in_executor(self._thread, exchange)

    def ask_to_stop(self) -> None:
        with suppress(OSError):
            self._pipe.send(worker.STOP)

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()

    def down(self) -> None:
        """After its end."""
        self.up = False
        self.kill()
        self._process.join()
        self._pipe.close()

    def close(self) -> None:
        self._thread.shutdown(wait=True, cancel_futures=True)
        if self.up:
            self.down()
