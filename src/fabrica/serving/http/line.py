"""The line of work that waits: bounded, first come first served, and small equal calls of one graph taken together."""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from fabrica.serving.http.tasks import Refused, Result, Task

USUAL = 20  # batches over which the time that one takes is averaged
LONGEST_RETRY = 60  # seconds


@dataclass(eq=False)
class Job:
    """A task, the future of its result, how far it is, and when it came (`time.monotonic`)."""

    task: Task
    answer: asyncio.Future[Result]
    progress: tuple[str, int, int] = ("", 0, 0)
    begun: bool = False
    came: float = field(default_factory=time.monotonic)


class Line:
    """places   requests that may be there at once, uploads and running ones among them.
    memory   bytes that their bodies may have in memory together.
    largest  rows that calls of one graph may have together.
    delay    seconds that a call waits for others like it, where fewer came than left at once the last time.
    """

    def __init__(self, places: int, *, memory: int = 2**28, largest: int = 16, delay: float = 0.002) -> None:
        self.places, self.memory, self.largest, self.delay = places, memory, largest, delay
        self.taken, self.held = 0, 0
        self.waiting: deque[Job] = deque()
        self.seconds = 1.0  # that a batch usually takes
        self._come = asyncio.Condition()
        self._takers: list[Callable[[], int | None]] = []
        self._last = 1

    @contextmanager
    def place(self, size: int = 0) -> Iterator[None]:
        """A place in the line, for as long as a request is there; Refused (429) where none is free.

        size   bytes that its body may take in memory.
        """
        if self.taken >= self.places or self.held + size > self.memory:
            raise Refused(429, f"{self.taken} requests are waiting or under way; try again later", self.retry)
        self.taken, self.held = self.taken + 1, self.held + size
        try:
            yield
        finally:
            self.taken, self.held = self.taken - 1, self.held - size

    @property
    def retry(self) -> int:
        """Seconds after which there is probably a place."""
        return min(max(1, math.ceil(self.seconds * (len(self.waiting) + 1))), LONGEST_RETRY)

    async def add(self, task: Task) -> Job:
        """A job at the end of the line."""
        job = Job(task, asyncio.get_running_loop().create_future())
        async with self._come:
            self.waiting.append(job)
            self._come.notify_all()
        return job

    def leave(self, job: Job) -> None:
        """Nobody waits for it any more."""
        job.answer.cancel()
        if job in self.waiting:
            self.waiting.remove(job)

    def ahead(self, job: Job) -> int:
        """How many jobs are done before this one."""
        return self.waiting.index(job) if job in self.waiting else 0

    def back(self, jobs: Iterable[Job]) -> None:
        """Jobs that were taken and not begun, to the head of the line."""
        there = [job for job in jobs if not job.answer.done()]
        for job in there:
            job.begun = False
        self.waiting.extendleft(reversed(there))

    async def wake(self) -> None:
        """Let those who would take look again: one of them has less to do."""
        async with self._come:
            self._come.notify_all()

    async def take(self, busy: Callable[[], int | None] = lambda: 0, most: int = 1) -> list[Job]:
        """The first job, once there is one, with those that may be done with it.

        busy   how many batches who takes has already, `most` at most. While that is not 0, only what nobody else is
               free for, and what would not be a larger batch a little later. None: he takes nothing more, [] then.
        """
        async with self._come:
            self._takers.append(busy)
            try:
                await self._come.wait_for(lambda: self._due(busy, most))
            finally:
                self._takers.remove(busy)
            if busy() is None:
                return []
            key = self.waiting[0].task.key
        if busy():
            return self._first()
        if key is not None and self._alike(key) < min(self._last, self.largest):
            await asyncio.sleep(self.delay)
        taken = self._first()
        if taken and key is not None:
            self._last = len(taken)
        return taken

    def _due(self, busy: Callable[[], int | None], most: int) -> bool:
        """Whether who waits is to take now."""
        has = busy()
        if has is None:
            return True
        if not self.waiting or has >= most:
            return False
        if not has:
            return True
        if any(taker() == 0 for taker in self._takers):
            return False
        key = self.waiting[0].task.key
        return key is None or self.taken >= self.places or self._alike(key) >= self.largest

    def _alike(self, key: object) -> int:
        return sum(job.task.key == key for job in self.waiting)

    def _first(self) -> list[Job]:
        """Out of the line: the first, and of others like it as many as go with it; [] where it left meanwhile."""
        if not self.waiting:
            return []
        first = self.waiting.popleft()
        taken, rows = [first], first.task.rows
        if first.task.key is not None:
            for job in [job for job in self.waiting if job.task.key == first.task.key]:
                if rows + job.task.rows > self.largest:
                    break
                taken.append(job)
                rows += job.task.rows
            if len(taken) > 1:
                left = set(taken)
                self.waiting = deque(job for job in self.waiting if job not in left)
        return taken

    def took(self, seconds: float) -> None:
        """A batch was done in so many seconds."""
        self.seconds += (seconds - self.seconds) / USUAL
