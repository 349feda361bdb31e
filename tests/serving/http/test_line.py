"""The line of work that waits: bounded, in order, and equal calls together."""

from __future__ import annotations

import asyncio
import random
from collections import deque
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest

from fabrica.serving.http.line import Job, Line, Place
from fabrica.serving.http.tasks import Apply, Infer, Refused, Task


def call(rows: int = 1, side: int = 8, model: str = "m", graph: str = "a2b") -> Infer:
    return Infer(model, graph, (np.zeros((rows, 1, side, side), np.float32),))


def image() -> Apply:
    return Apply("m", (), Path())


async def taken(line: Line, *tasks: Task) -> list[list[int]]:
    """Which tasks, by number, are taken together until none are left."""
    jobs = [await line.add(task) for task in tasks]
    found = []
    while line.waiting:
        found.append([jobs.index(job) for job in await line.take()])
    return found


def test_equal_calls_are_taken_together_and_the_rest_in_order() -> None:
    tasks = [call(), image(), call(side=9), call(), call(graph="b2a"), call(side=9), image(), call(model="n")]
    assert asyncio.run(taken(Line(9), *tasks)) == [[0, 3], [1], [2, 5], [4], [6], [7]]


def test_batches_stay_within_their_largest() -> None:
    assert asyncio.run(taken(Line(9, largest=4), *[call() for _ in range(9)])) == [[0, 1, 2, 3], [4, 5, 6, 7], [8]]
    assert asyncio.run(taken(Line(9, largest=4), call(3), call(3), call(9), call(1))) == [[0], [1], [2], [3]]


@pytest.mark.parametrize("seed", range(20))
def test_each_job_is_taken_once_and_none_overtakes_its_like(seed: int) -> None:
    chance = random.Random(seed)
    tasks: list[Task] = [
        image() if chance.random() < 0.3 else call(chance.randint(1, 4), chance.choice([8, 9])) for _ in range(40)
    ]
    line = Line(99, largest=chance.randint(1, 8), delay=0)
    batches = asyncio.run(taken(line, *tasks))
    flat = [k for batch in batches for k in batch]
    assert sorted(flat) == list(range(40))
    for batch in batches:
        assert len({tasks[k].key for k in batch}) == 1 and (len(batch) == 1 or tasks[batch[0]].key is not None)
        assert len(batch) == 1 or sum(tasks[k].rows for k in batch) <= line.largest
    for key in {task.key for task in tasks}:
        own = [k for k in flat if tasks[k].key == key]
        assert own == sorted(own)
    firsts = [batch[0] for batch in batches]
    assert firsts == sorted(firsts)  # the first that waits is always the next


@pytest.mark.parametrize("seed", range(5))
def test_who_came_first_is_first_however_long_its_upload_took(seed: int) -> None:
    async def uploaded() -> list[int]:
        line, order = Line(18), list(range(9))
        random.Random(seed).shuffle(order)
        with ExitStack() as stack:
            places = [stack.enter_context(line.place()) for _ in order]
            for which in order:
                await line.add(image(), places[which])
            numbers = [place.number for place in places]
            return [numbers.index((await line.take())[0].number) for _ in order]

    assert asyncio.run(uploaded()) == list(range(9))


def waited(line: Line, now: list[float], times: list[float], chance: random.Random) -> list[float]:
    """For how long each was there, in virtual time, while as many as are let in come at once. Each tenth is kept
    waiting by something else for as long again as it takes."""
    there, waits, free = deque[tuple[float, Place, ExitStack]](), [], 0.0
    for seconds in times:
        while line.taken >= line.admitted:
            now[0], place, leaving = there.popleft()
            waits.append(now[0] - place.came)
            line.answered(place)
            leaving.close()
        leaving = ExitStack()
        place = leaving.enter_context(line.place())
        line.took(seconds, 1)
        free = max(now[0], free) + seconds * (2 if chance.random() < 0.1 else 1)
        there.append((free, place, leaving))
    return waits


@pytest.mark.parametrize("shape", [4, 25])
@pytest.mark.parametrize("places", [16, 64])
def test_who_is_let_in_waits_for_no_longer_than_a_full_line(
    places: int, shape: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In 99 of 100 cases, of work whose time varies (gamma, a deviation of 0.5 or 0.2 of the mean); were all places
    given, 1 of 10 would wait for longer."""
    chance, now = random.Random(places), [0.0]
    times = [chance.gammavariate(shape, 1 / shape) for _ in range(2500)]
    full = places * float(np.mean(times))
    line = Line(places, clock=lambda: now[0])
    assert np.quantile(waited(line, now, times, chance), 0.99) <= 1.03 * full
    assert places / 2 <= line.admitted < places
    for name in ("AT_FIRST", "AT_LEAST"):
        monkeypatch.setattr(f"fabrica.serving.http.line.{name}", 1.0)
    assert np.quantile(waited(Line(places, clock=lambda: now[0]), now, times, chance), 0.9) > 1.1 * full


@pytest.mark.parametrize("places", [4, 16, 64])
def test_nine_tenths_of_the_places_are_given_where_work_always_takes_the_same_time(places: int) -> None:
    now = [0.0]
    line = Line(places, clock=lambda: now[0])
    assert line.admitted == 0.75 * places
    for _ in range(5000):
        with ExitStack() as stack:
            given = [stack.enter_context(line.place()) for _ in range(line.admitted)]
            now[0] += len(given)
            line.took(len(given), len(given))
            line.answered(given[-1])
    assert abs(line.admitted - 0.9 * places) <= 1
    with ExitStack() as stack:
        last = [stack.enter_context(line.place()) for _ in range(line.admitted)][-1]
    now[0] += 100 * places
    for _ in range(10 * places):
        line.answered(last)
    assert line.admitted == places / 2  # never less than half of them


def test_who_leaves_is_not_worked_for() -> None:
    async def leaving() -> list[Job]:
        line = Line(4)
        first, second = await line.add(image()), await line.add(image())
        assert (line.ahead(first), line.ahead(second)) == (0, 1)
        line.leave(first)
        line.leave(first)
        assert line.ahead(second) == 0 and first.answer.cancelled()
        return await line.take() + [second]

    one, other = asyncio.run(leaving())
    assert one is other


def test_there_are_so_many_places_and_so_much_memory() -> None:
    line = Line(4, memory=100)
    with ExitStack() as stack:
        stack.enter_context(line.place(60))
        with pytest.raises(Refused) as refused:
            stack.enter_context(line.place(60))
        assert refused.value.status == 429 and refused.value.retry >= 1
        stack.enter_context(line.place(40))
        stack.enter_context(line.place())
        with pytest.raises(Refused, match="3 requests"):
            stack.enter_context(line.place())
    assert (line.taken, line.held) == (0, 0)


def test_who_is_refused_comes_again_when_the_line_was_worked_through() -> None:
    async def full() -> Line:
        line = Line(50)
        for _ in range(9):
            await line.add(image())
        for _ in range(400):
            line.took(3.0, 1)
        return line

    line = asyncio.run(full())
    assert line.one == pytest.approx(3, rel=1e-3) and line.retry == 30


@pytest.mark.parametrize(
    ("before", "after", "batch"), [(0.065, 0.02, 1), (0.065, 0.02, 8), (0.01, 2.0, 1), (2.0, 0.01, 16)]
)
def test_how_long_a_job_takes_is_known_soon_after_other_work_comes(before: float, after: float, batch: int) -> None:
    """Within some full lines, whether they are worked through one by one or in batches: until then who is late is told
    by the wrong time."""
    line = Line(16)
    for _ in range(1000):
        line.took(before, 1)
    for _ in range(10 * 16 // batch):
        line.took(after * batch, batch)
    assert line.one == pytest.approx(after, rel=0.1, abs=0.1 * before)


def test_who_is_at_work_takes_ahead_what_nobody_else_is_free_for() -> None:
    """One image ahead, so that a process need not wait for the next; calls of a graph only once no more can come to go
    with them."""

    async def taking() -> None:
        line, at_work, free = Line(2, largest=4), [1], [0]
        await line.add(image())
        assert len(await asyncio.wait_for(line.take(lambda: at_work[0], 2), 1)) == 1
        busy = asyncio.create_task(line.take(lambda: at_work[0], 2))
        idle = asyncio.create_task(line.take(lambda: free[0], 2))
        await asyncio.sleep(0)
        first, second = await line.add(image()), None
        assert await asyncio.wait_for(idle, 1) == [first] and not busy.done()
        at_work[0] = 2  # as many as it may have
        second = await line.add(image())
        await asyncio.sleep(0.02)
        assert not busy.done()
        at_work[0] = 1
        await line.wake()
        assert await asyncio.wait_for(busy, 1) == [second]
        busy = asyncio.create_task(line.take(lambda: at_work[0], 2))
        with line.place():
            await line.add(call())
            await asyncio.sleep(0.02)
            assert not busy.done()
            with line.place():
                await line.add(call())
                assert len(await asyncio.wait_for(busy, 1)) == 2

    asyncio.run(taking())


def test_what_was_not_begun_goes_back_to_its_place() -> None:
    async def returned() -> list[Job]:
        line = Line(4)
        jobs = [await line.add(image()) for _ in range(3)]
        taken = await line.take() + await line.take()
        taken[1].answer.cancel()  # nobody waits for it any more
        line.back(taken)
        return [*(await line.take()), *(await line.take()), *jobs]

    first, second, *jobs = asyncio.run(returned())
    assert [first, second] == [jobs[0], jobs[2]]
