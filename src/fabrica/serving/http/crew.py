"""The processes that work through the line: fed, stopped where nobody waits any more, started again where one dies."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from fabrica.serving.http.line import Line
from fabrica.serving.http.member import Batch, Died, Member, Unbegun
from fabrica.serving.http.models import Open
from fabrica.serving.http.tasks import Refused, Served

GRACE = 2.0  # seconds in which work that nobody waits for ends by itself
PAUSE = 0.5  # seconds before a process that died is started again, doubled each time that it does not come up
AHEAD = 2  # batches that a process has: one that it is at, and one, so that it need not wait for the next
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
        self._members = [Member((folders, opening, precision), self._look) for _ in range(count)]
        self._tasks: list[asyncio.Task[None]] = []
        self._at_work: set[asyncio.Task[None]] = set()

    @property
    def ready(self) -> bool:
        """Whether at least one works, its models warm."""
        return any(member.up for member in self._members)

    async def start(self) -> None:
        """All at work; FabricaError where the models cannot be opened."""
        for served in await asyncio.gather(*(member.start() for member in self._members)):
            self.served = {each.name: each for each in served}
        self._tasks = [asyncio.create_task(self._feed(member)) for member in self._members]

    async def stop(self) -> None:
        """None at work any more, at once."""
        for task in (*self._tasks, *self._at_work):
            task.cancel()
        for member in self._members:
            member.kill()
        await asyncio.gather(*self._tasks, *self._at_work, return_exceptions=True)
        for member in self._members:
            await asyncio.to_thread(member.close)

    async def _feed(self, member: Member) -> None:
        while True:
            if not member.up:
                await self._again(member)
            jobs = await self.line.take(lambda: len(member.batches) if member.up else None, AHEAD)
            if not member.up:
                self.line.back(jobs)
                self._look()
            if not (jobs and member.up):
                continue
            self._begin(self._done(member, member.hand(jobs)))

    async def _done(self, member: Member, batch: Batch) -> None:
        """See a batch to its end. Where nobody waits for any of it any more, the work is stopped: asked to, then by
        force."""
        gone = asyncio.ensure_future(asyncio.wait([job.answer for job in batch.jobs]))
        try:
            either: set[asyncio.Future[Any]] = {batch.answer, gone}
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            if not batch.answer.done():
                member.ask_to_stop(batch)
            while not batch.answer.done():
                began = member.is_at(batch)
                await asyncio.wait({batch.answer}, timeout=GRACE)
                if began and not batch.answer.done():
                    member.kill()
            results, seconds = await batch.answer
            self.line.took(seconds, len(batch.jobs))
            self.told("batch", jobs=len(batch.jobs), seconds=seconds)
            for job, result in zip(batch.jobs, results, strict=True):
                if not job.answer.done():
                    job.answer.set_result(result)
        except Unbegun:
            self.line.back(batch.jobs)
        except Died:
            self.told("died")
            for job in batch.jobs:
                if not job.answer.done():
                    job.answer.set_result(DIED)
        finally:
            gone.cancel()
            self._look()

    def _look(self) -> None:
        """Something has changed for those who take from the line."""
        self._begin(self.line.wake())

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        """Do it beside the rest; `stop` ends it."""
        task = asyncio.create_task(work)
        self._at_work.add(task)
        task.add_done_callback(self._at_work.discard)

    async def _again(self, member: Member) -> None:
        await asyncio.to_thread(member.down)
        pause = PAUSE
        while not member.up:
            with suppress(Exception):  # whatever it was, the next try may do better
                await member.start()
                self.told("started")
                return
            await asyncio.sleep(pause)
            pause = min(pause * 2, 60)
