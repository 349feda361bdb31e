"""A node: processes that receive, threads that take in, apply and send, over one store."""

from __future__ import annotations

import multiprocessing
import os
import secrets
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, TextIO

from fabrica.errors import FabricaError, UsageError
from fabrica.serving.node import store as stores
from fabrica.serving.node.archive import expected
from fabrica.serving.node.clearing import clear
from fabrica.serving.node.intake import Patience, settle, take_in
from fabrica.serving.node.peers import Peer, is_loopback
from fabrica.serving.node.queue import Queue
from fabrica.serving.node.receive import listening, serve, tls
from fabrica.serving.node.rules import Rules
from fabrica.serving.node.send import Web, send_next
from fabrica.serving.node.store import Store
from fabrica.serving.node.terms import Terms
from fabrica.serving.node.work import Open, Worker

PAUSE = 0.2  # seconds between two looks that find nothing
TROUBLE = 5.0  # seconds after which what the disk or the database refused is tried again
RECEIVERS = 2
WHAT = {
    "_take_in": "objects that came in",
    "_settle": "series",
    "_work": "results",
    "_send": "what was sent",
}
"""What each part of a node puts into the store."""
CLEARING = 600.0  # seconds between two clearings


@dataclass(frozen=True)
class Settings:
    """What a node is asked.

    send_to    where results go. archive: who is asked how many objects a series has; None for nobody.
    receivers  processes, no more than associations. tries: of sending one job.
    limit      seconds that a model may take for a series.
    keep_days  after which what is done with is removed; 0: never.
    """

    store: Path
    aet: str
    host: str
    port: int
    send_to: Peer | Web
    terms: Terms
    archive: Peer | None = None
    patience: Patience = field(default_factory=Patience)
    receivers: int = RECEIVERS
    tries: int = 300
    limit: float = 3600.0
    keep_days: float = 0.0


class Node:
    """A node that runs from `start` to `stop`. Where one of its parts fails for good, `failed` says why."""

    def __init__(self, settings: Settings, say: Callable[[str], None]) -> None:
        if not is_loopback(settings.host) and not settings.terms.allow:
            raise UsageError(f"--host {settings.host} is open to others; say with --allow AET@HOST who may send")
        tls(settings.terms.certificate, settings.terms.authority)  # said now, not in a process
        self.settings, self.say = settings, say
        self.failed: BaseException | None = None
        self.port = settings.port
        self._stopped = threading.Event()
        self._threads: list[threading.Thread] = []
        self._receivers: list[tuple[Any, Any]] = []
        self._rules, self._hashes = Rules(), dict[str, str]()
        self._worker: Worker | None = None
        self._lock: TextIO | None = None
        self._store = Store(settings.store)
        self._next_clearing = 0.0

    def start(self, open_: Open, folders: Sequence[Path], rules: Callable[[Sequence[str]], Rules]) -> None:
        """Lock the store, open the models, then listen. rules: of the names that the models turn out to have."""
        settings = self.settings
        self._store = stores.opened(settings.store)
        self._lock = stores.locked(self._store)
        with closing(Queue(self._store.database)) as queue:
            queue.release()
        stores.recover(self._store)
        self._worker = Worker(open_, folders, settings.limit)
        self._worker.start()
        self._hashes = {model.name: model.hash for model in self._worker.models}
        self._rules = rules(list(self._hashes))
        listener = listening(settings.host, settings.port)
        self.port = listener.getsockname()[1]
        context = multiprocessing.get_context("spawn")
        for number in range(settings.receivers):
            ours, theirs = context.Pipe()
            share = (settings.terms.associations + number) // settings.receivers  # all of them together: as many
            terms = replace(settings.terms, associations=share)
            process = context.Process(target=serve, args=(listener, terms, theirs), daemon=True)
            process.start()
            theirs.close()
            self._receivers.append((process, ours))
        listener.close()
        for step in (self._take_in, self._settle, self._work, self._send):
            thread = threading.Thread(target=self._run, args=(step,), name=step.__name__, daemon=True)
            thread.start()
            self._threads.append(thread)

    @property
    def models(self) -> list[str]:
        return list(self._hashes)

    def wait(self) -> None:
        """Until it is stopped, or something fails: FabricaError then."""
        while not self._stopped.wait(0.5):
            for process, _ in self._receivers:
                if not process.is_alive():
                    self.failed = FabricaError(f"a receiving process ended with code {process.exitcode}")
            if self.failed:
                raise self.failed

    def stop(self) -> None:
        """Take nothing more, let what is being received end, and leave the rest in the queue."""
        self._stopped.set()
        for _, pipe in self._receivers:
            pipe.close()
        for process, _ in self._receivers:
            process.join(10)
            process.kill()
        for thread in self._threads:
            thread.join(15)
        if self._worker:
            self._worker.stop()
        if self._lock:
            self._lock.close()

    def _run(self, step: Callable[[Queue], bool]) -> None:
        """One part of the work, again and again, on a connection of its own. What the disk refuses is tried again."""
        refused = ""
        try:
            with closing(Queue(self._store.database)) as queue:
                while not self._stopped.is_set():
                    try:
                        if not step(queue):
                            self._stopped.wait(PAUSE)
                        refused = ""
                    except (OSError, sqlite3.OperationalError) as error:
                        why = getattr(error, "strerror", None) or str(error)
                        if why != refused:  # once, however long it lasts
                            task = WHAT[step.__name__]
                            self.say(f"the store refuses {task} ({why}); tried every {TROUBLE:g} s, nothing is lost")
                        refused = why
                        self._stopped.wait(TROUBLE)
        except BaseException as error:
            self.failed = error

    def _take_in(self, queue: Queue) -> bool:
        return bool(take_in(queue, self._store, time.time()))

    def _settle(self, queue: Queue) -> bool:
        settings = self.settings
        if settings.keep_days and time.monotonic() > self._next_clearing:
            self._next_clearing = time.monotonic() + CLEARING
            if count := clear(queue, self._store, time.time() - settings.keep_days * 86400):
                self.say(f"{count} series cleared, done with more than {settings.keep_days:g} days ago")
        ask = partial(expected, settings.archive, settings.aet) if settings.archive else None
        return bool(settle(queue, self._rules, self._hashes, ask, settings.patience, self.say))

    def _work(self, queue: Queue) -> bool:
        owner = f"{os.getpid()}-{secrets.token_hex(4)}"
        leased = queue.lease(owner, time.time())
        if leased is None:
            return False
        job, names = leased
        if self._hashes.get(job.model) != job.hash:
            queue.refuse(job.id, f"model {job.model} with hash {job.hash} is not among those that this node runs")
            return True

        def beat() -> bool:
            return not self._stopped.is_set() and queue.heartbeat(job.id, owner, time.time())

        assert self._worker is not None
        try:
            outcome = self._worker.apply(job, [self._store.object(name) for name in names], self._store, beat)
            if outcome and outcome.trouble:
                raise OSError(outcome.trouble)
        except OSError:
            queue.put_back(job.id, owner)
            raise
        if outcome is None or (outcome.refused and self._stopped.is_set()):
            return True  # it is begun again, by whom the queue says
        if outcome.refused:
            queue.refuse(job.id, outcome.refused)
            self.say(f"job {job.id} is a dead letter: {outcome.refused}")
        elif queue.made(job.id, owner, outcome.series, outcome.objects, outcome.left_out):
            left_out = f"; left out {outcome.left_out}" if outcome.left_out else ""
            self.say(f"job {job.id}: {len(outcome.objects)} objects by {job.model}{left_out}")
        return True

    def _send(self, queue: Queue) -> bool:
        settings = self.settings
        return send_next(queue, self._store, settings.send_to, settings.aet, settings.tries, self.say, time.time())
