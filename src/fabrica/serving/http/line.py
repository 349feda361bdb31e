"""The line of work that waits: bounded by how long it takes, first come first served, and small equal calls of one
graph taken together."""

from __future__ import annotations

import asyncio
import math
import time
from bisect import insort
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count

from fabrica.serving.http.tasks import Refused, Result, Task

LATE, WITHIN = 0.005, 0.9
"""Of those who came last into a full line, the share that may wait for longer than this part of what as many as there
are places take one by one: as far as that, fewer are let in (see `Line.answered`). Half of what is promised, 1 of 100
for longer than the whole; the rest is what a client waits before the server knows of it, and after."""
AT_FIRST, AT_LEAST = 0.75, 0.5  # of the places that are given, before anything is known and whatever happens
PACE = 0.5  # places by which fewer are let in after one who was late; in LATE / (1 - LATE) of that they come back
LINES = 4  # full lines over which the time that a job takes is averaged: other work may come, and take another
LONGEST_RETRY = 60  # seconds


@dataclass(frozen=True)
class Place:
    """Which of all requests it is, when it came, and whether there was no place left behind it."""

    number: int
    came: float
    last: bool


@dataclass(eq=False)
class Job:
    """A task, the future of its result, which of all requests it came as, and how far it is."""

    task: Task
    answer: asyncio.Future[Result]
    number: int
    progress: tuple[str, int, int] = ("", 0, 0)
    begun: bool = False


class Line:
    """places   requests that may be there at once, uploads and running ones among them, as far as nearly all
             of them are answered within the time that so many take one by one: see `admitted`.
    memory   bytes that their bodies may have in memory together.
    largest  rows that calls of one graph may have together.
    delay    seconds that a call waits for others like it, where fewer came than left at once the last time.
    clock    seconds that pass.
    """

    def __init__(
        self,
        places: int,
        *,
        memory: int = 2**28,
        largest: int = 16,
        delay: float = 0.002,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.places, self.memory, self.largest, self.delay = places, memory, largest, delay
        self.clock = clock
        self.taken, self.held = 0, 0
        self.waiting: list[Job] = []  # in the order in which they came
        self._most = AT_FIRST * places
        self._seconds, self._jobs = 0.0, 0.0  # of the last jobs, older ones counting less
        self._come = asyncio.Condition()
        self._takers: list[Callable[[], int | None]] = []
        self._last = 1
        self._numbers = count()

    @contextmanager
    def place(self, size: int = 0) -> Iterator[Place]:
        """A place in the line, for as long as a request is there; Refused (429) where none is free.

        size   bytes that its body may take in memory.
        """
        if self.taken >= self.admitted or self.held + size > self.memory:
            raise Refused(429, f"{self.taken} requests are waiting or under way; try again later", self.retry)
        self.taken, self.held = self.taken + 1, self.held + size
        try:
            yield Place(next(self._numbers), self.clock(), self.taken >= self.admitted)
        finally:
            self.taken, self.held = self.taken - 1, self.held - size

    @property
    def admitted(self) -> int:
        """How many of the places are given. All of them would be too many: work does not always take the same time, and
        uploads and refusals come between, so that of those who stand at the end of a full line half would wait for
        longer than it takes on average. As many as keep that to LATE of them are found while the line is full."""
        return math.ceil(self._most)

    def answered(self, place: Place) -> None:
        """Who had this place has a result. Where many take longer than the full line should, fewer are let in: the
        number follows the quantile (Robbins and Monro, A stochastic approximation method, 1951)."""
        if place.last:
            late = self.clock() - place.came > WITHIN * self.places * self.one
            most = self._most - PACE if late else self._most + PACE * LATE / (1 - LATE)
            self._most = min(max(most, self.places * AT_LEAST), self.places)

    @property
    def one(self) -> float:
        """Seconds of work that a job usually takes, its share of its batch; 1 before any was done."""
        return self._seconds / self._jobs if self._jobs else 1.0

    @property
    def retry(self) -> int:
        """Seconds after which there is probably a place."""
        return min(max(1, math.ceil(self.one * (len(self.waiting) + 1))), LONGEST_RETRY)

    async def add(self, task: Task, place: Place | None = None) -> Job:
        """A job in the line, before all who came after its place was given, however long its upload took; without a
        place at the end."""
        number = place.number if place else next(self._numbers)
        job = Job(task, asyncio.get_running_loop().create_future(), number)
        async with self._come:
            self._queue(job)
            self._come.notify_all()
        return job

    def _queue(self, job: Job) -> None:
        insort(self.waiting, job, key=lambda each: each.number)

    def leave(self, job: Job) -> None:
        """Nobody waits for it any more."""
        job.answer.cancel()
        if job in self.waiting:
            self.waiting.remove(job)

    def ahead(self, job: Job) -> int:
        """How many jobs are done before this one."""
        return self.waiting.index(job) if job in self.waiting else 0

    def back(self, jobs: Iterable[Job]) -> None:
        """Jobs that were taken and not begun, to where they were in the line."""
        for job in jobs:
            if not job.answer.done():
                job.begun = False
                self._queue(job)

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
        return key is None or self.taken >= self.admitted or self._alike(key) >= self.largest

    def _alike(self, key: object) -> int:
        return sum(job.task.key == key for job in self.waiting)

    def _first(self) -> list[Job]:
        """Out of the line: the first, and of others like it as many as go with it; [] where it left meanwhile."""
        if not self.waiting:
            return []
        first = self.waiting.pop(0)
        taken, rows = [first], first.task.rows
        if first.task.key is not None:
            for job in [job for job in self.waiting if job.task.key == first.task.key]:
                if rows + job.task.rows > self.largest:
                    break
                taken.append(job)
                rows += job.task.rows
            if len(taken) > 1:
                left = set(taken)
                self.waiting = [job for job in self.waiting if job not in left]
        return taken

    def took(self, seconds: float, jobs: int) -> None:
        """A batch of so many was done in so many seconds."""
        kept = max(0.0, 1 - jobs / (LINES * self.places))
        self._seconds = kept * self._seconds + seconds
        self._jobs = kept * self._jobs + jobs
