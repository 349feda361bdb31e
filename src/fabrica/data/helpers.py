"""Processes that share the reading of a folder.

Imports nothing heavy: the helpers start while this process still imports what it needs itself.
"""

from __future__ import annotations

import atexit
import os
import signal
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from contextlib import contextmanager
from importlib import import_module
from itertools import chain
from multiprocessing import get_context
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")

AHEAD = 3  # pieces of work in hand for each helper: enough that none waits, few enough that they end together
FILES, BYTES = 400, 2**27  # below both, starting other processes takes longer than they save


@contextmanager
def helpers(folder: Path) -> Iterator[Executor | None]:
    """Processes for the cores that this one leaves free; None where there are none, or little to read."""
    count = _cores() - 1
    if not count or not _is_much(folder):
        yield None
        return
    # spawned, not forked: the caller may hold threads
    pool = ProcessPoolExecutor(count, mp_context=get_context("spawn"), initializer=_begin)
    for _ in range(count):
        pool.submit(int)  # each starts one
    try:
        yield pool
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def shared(pool: Executor | None, task: Callable[[T], R], pieces: Iterator[T]) -> Iterator[R]:
    """`task` of each piece, in no order: by the helpers, and by this process while it would wait for them."""
    pending: deque[Future[R]] = deque()
    ahead = AHEAD * (_cores() - 1)
    while True:
        while pool and len(pending) < ahead and (piece := next(pieces, None)) is not None:
            pending.append(pool.submit(task, piece))
        if pending and pending[0].done():
            yield pending.popleft().result()
        elif (piece := next(pieces, None)) is not None:
            yield task(piece)
        elif pending:
            yield pending.popleft().result()
        else:
            return


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _begin() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that a person sees; it ends its helpers
    atexit.register(os._exit, 0)  # at once: what a helper did was sent, and taking its modules down takes time
    import_module("fabrica.data.series")


def _is_much(folder: Path) -> bool:
    homes = os.walk(folder) if folder.is_dir() else [(str(folder.parent), [], [folder.name])]
    files = chain.from_iterable(((home, name) for name in names) for home, _, names in homes)
    size = 0
    for count, (home, name) in enumerate(files, start=1):
        try:
            size += Path(home, name).stat().st_size
        except OSError:
            continue
        if count >= FILES or size >= BYTES:
            return True
    return False
