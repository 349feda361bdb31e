"""Answers: an append-only table in SQLite whose rows are chained, so that later changes show.

Each row holds the HMAC-SHA-256, with a key that lies in the study's key folder, of its own content and of the row
before it (Haber and Stornetta 1991, Journal of Cryptology 3:99). The first row follows from who the readers are, what
they are shown and what the study was asked. A row is stored for good (write-ahead log, flushed) before it is
acknowledged. Nothing is overwritten: taking an answer back is a further row, and so is an answer that comes too late.
"""

from __future__ import annotations

import hashlib
import hmac
import sqlite3
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

from fabrica.errors import FabricaError, UsageError
from fabrica.serving.study.database import (
    ANSWER,
    COLUMNS,
    LATE,
    UNDO,
    Reader,
    Receipt,
    Row,
    clearly,
    connected,
    hashed,
    plain,
    row_of,
)

ANSWERED = """
SELECT count(*) FILTER (WHERE kind = 'answer') - count(*) FILTER (WHERE kind = 'undo') FROM answers
WHERE reader = ? AND kind <> 'late'
"""
"""How many of a reader's trials hold an answer: always his first ones, since only the next one can be answered and only
the last answer be taken back. (What is said of kind lets SQLite take the index `once`.)"""


def _identity(path: Path) -> tuple[int, int] | None:
    """Of a file, whatever its name: None where there is none."""
    with suppress(OSError):
        found = path.stat()
        return (found.st_dev, found.st_ino) if path.is_file() else None
    return None


class Conflict(FabricaError):
    """An answer that comes too late: the trial was answered, in another tab or on another device, or taken back."""


class Answers:
    """The database of a study; may be used from several threads, and several processes.

    key    of the chain: see `fabrica.serving.study.folder`.
    now    the time, in UTC.
    Close it, or use it as a context manager. Raises FabricaError for what is no such database.
    """

    def __init__(self, path: Path, key: bytes, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._file = _identity(path)
        if self._file is None:
            raise FabricaError(f"no answers at {path}; fabrica study new CONFIG -o STUDY makes a study")
        self.path, self._key, self._now, self._lock = path, key, now, threading.RLock()
        with clearly(path):
            self._db = connected(path)
            self.about: dict[str, str] = dict(self._db.execute("SELECT name, value FROM about"))
            self.readers = {r: Reader(r, n, t) for r, n, t in self._db.execute("SELECT * FROM readers ORDER BY name")}
            self.trials: dict[str, tuple[str, ...]] = {
                reader: tuple(
                    t
                    for (t,) in self._db.execute("SELECT trial FROM trials WHERE reader = ? ORDER BY place", (reader,))
                )
                for reader in self.readers
            }

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._db.close()

    def reader_of(self, token: str) -> str | None:
        """Who has this token; None for nobody."""
        given = hashed(token)
        return next((r.reader for r in self.readers.values() if hmac.compare_digest(r.token, given)), None)

    def answered(self, reader: str) -> tuple[str, ...]:
        """The reader's trials that hold an answer, in the order in which they were given."""
        live: dict[str, None] = {}
        with self._lock:
            rows = self._db.execute(
                "SELECT trial, kind FROM answers WHERE reader = ? ORDER BY seq", (reader,)
            ).fetchall()
        for trial, kind in rows:
            if kind == ANSWER:
                live[trial] = None
            elif kind == UNDO:
                live.pop(trial, None)
        return tuple(live)

    def next_trial(self, reader: str) -> str | None:
        """The first of the reader's trials without an answer; None at the end."""
        with self._lock:
            (done,) = self._db.execute(ANSWERED, (reader,)).fetchone()
        return next(iter(self.trials.get(reader, ())[done:]), None)

    def may_undo(self, reader: str) -> str | None:
        """The trial whose answer the reader may take back: that of his last row, unless it took one back."""
        with self._lock:
            last = self._db.execute(
                "SELECT trial, kind FROM answers WHERE reader = ? AND kind <> 'late' ORDER BY seq DESC LIMIT 1",
                (reader,),
            ).fetchone()
        return str(last[0]) if last and last[1] == ANSWER else None

    def answer(
        self, reader: str, trial: str, answer: Mapping[str, Any], *, seconds: float, request: str, device: str = ""
    ) -> Receipt:
        """Store what the reader answers to the trial that is his next one (`forms.checked` before).

        A message that was stored already is acknowledged again. Raises Conflict where the trial is not the next one, so
        that of two tabs one wins: what the other said is stored as late, and counts for nothing. UsageError for a trial
        of somebody else and seconds that are none.
        """
        if not 0 <= seconds < 1e6:
            raise UsageError(f"seconds are {seconds}; expected 0 or more")
        said = dict(answer)
        with self._writing():
            if (known := self._known(reader, request, ANSWER, trial, said)) is not None:
                return known
            self._check_owner(reader, trial)
            due = self.next_trial(reader)
            if trial == due:
                return self._append(reader, trial, ANSWER, said, float(seconds), device, request)
            self._append(reader, trial, LATE, said, float(seconds), device, request)
        raise Conflict(
            f"trial {trial} has an answer already; the page is behind: load it again"
            if self.trials[reader].index(trial) < self._place(due, reader)
            else f"trial {trial} is not the next one; the page is behind: load it again"
        )

    def undo(self, reader: str, *, request: str, device: str = "") -> Receipt:
        """Take the reader's last answer back, as a further row; it is asked again. Conflict where the last row is no
        answer: only the last one can be taken back, once."""
        with self._writing():
            if (known := self._known(reader, request, UNDO)) is not None:
                return known
            if reader not in self.readers:
                raise UsageError(f"no reader {reader}")
            if (last := self.may_undo(reader)) is None:
                raise Conflict("there is no answer to take back; only the last one can be, once")
            return self._append(reader, last, UNDO, {}, 0.0, device, request)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Nothing is stored meanwhile, by any process; what waits is refused if the database is moved away."""
        with self._writing():
            yield

    def rows(self) -> list[Row]:
        """All rows as they are stored, in order."""
        with self._lock, clearly(self.path):
            found = self._db.execute(f"SELECT {', '.join(COLUMNS)}, hash FROM answers ORDER BY seq").fetchall()
        return [row_of(each) for each in found]

    def last(self) -> Receipt:
        """The end of the chain, by which a report says what it is of; number 0 before the first answer."""
        with self._lock:
            found = self._db.execute("SELECT seq, hash FROM answers ORDER BY seq DESC LIMIT 1").fetchone()
        return Receipt(*found) if found else Receipt(0, self._beginning())

    def verify(self) -> str:
        """What is wrong with the chain, in one line that names the row; "" where nothing is."""
        with self._lock, clearly(self.path):
            if (broken := self._db.execute("PRAGMA quick_check").fetchone()[0]) != "ok":
                return f"the database is damaged: {str(broken).splitlines()[0]}"
            ever = self._db.execute("SELECT seq FROM sqlite_sequence WHERE name = 'answers'").fetchone()
        try:
            rows = self.rows()
        except FabricaError as error:
            return str(error)
        before, number = self._beginning(), 0
        for row in rows:
            if row.seq != number + 1:
                return f"rows {number + 1} to {row.seq - 1} of the answers are missing; {self._from(row)} follows"
            number = row.seq
            if not hmac.compare_digest(self._link(before, row), row.hash):
                if number == 1 and len(rows) > 1 and self._link(row.hash, rows[1]) == rows[1].hash:
                    return (
                        f"{self._from(row)} was changed after it was stored, or readers, trials or config of the study "
                        "were"
                    )
                return f"{self._from(row)} was changed after it was stored"
            before = row.hash
        if ever and ever[0] > number:
            return f"rows {number + 1} to {ever[0]} of the answers, the last ones, are missing"
        return ""

    def _from(self, row: Row) -> str:
        name = self.readers[row.reader].name if row.reader in self.readers else row.reader
        return f"row {row.seq} of the answers (reader {name}, trial {row.trial}, {row.at})"

    def _place(self, trial: str | None, reader: str) -> int:
        """In the reader's order; after the last, of none."""
        return len(self.trials[reader]) if trial is None else self.trials[reader].index(trial)

    def _append(
        self, reader: str, trial: str, kind: str, answer: dict[str, Any], seconds: float, device: str, request: str
    ) -> Receipt:
        last = self.last()
        (attempt,) = self._db.execute(
            "SELECT count(*) FROM answers WHERE reader = ? AND trial = ? AND kind = 'undo' AND kind <> 'late'",
            (reader, trial),
        ).fetchone()
        at = self._now().astimezone(UTC).isoformat(timespec="milliseconds")
        device = "".join(c if c.isprintable() else "?" for c in device[:100])  # whatever a browser calls itself
        row = Row(last.seq + 1, at, reader, trial, attempt, kind, answer, seconds, device, request, "")
        link = self._link(last.hash, row)
        values = [getattr(row, name) for name in COLUMNS]
        values[COLUMNS.index("answer")] = plain(row.answer)
        self._db.execute(f"INSERT INTO answers VALUES ({', '.join('?' * (len(COLUMNS) + 1))})", [*values, link])
        return Receipt(row.seq, link)

    def _known(
        self, reader: str, request: str, kind: str, trial: str = "", answer: dict[str, Any] | None = None
    ) -> Receipt | None:
        """The receipt of a message that was stored before; Conflict for another message of the same name."""
        if not 0 < len(request) <= 100 or not (request.isascii() and request.isprintable()):
            raise UsageError(f"the request is called {request[:20]!r}; expected 1 to 100 letters, new ones each time")
        found = self._db.execute(
            "SELECT seq, hash, kind, trial, answer FROM answers WHERE reader = ? AND request = ?", (reader, request)
        ).fetchone()
        if found is None:
            return None
        if found[2] == LATE and found[3:] == (trial, plain(answer)):
            raise Conflict(f"trial {trial} was not the next one when this came; the page is behind: load it again")
        if found[2] != kind or (answer is not None and found[3:] != (trial, plain(answer))):
            raise Conflict(f"the request {request} was another message, which is stored; load the page again")
        return Receipt(*found[:2])

    def _check_owner(self, reader: str, trial: str) -> None:
        if trial not in self.trials.get(reader, ()):
            raise UsageError(f"no trial {trial[:40]!r} of this reader; load the page again")

    def _beginning(self) -> str:
        """What the first row follows from."""
        everything = [
            sorted(self.about.items()),
            sorted((r.reader, r.name, r.token) for r in self.readers.values()),
            sorted(self.trials.items()),
        ]
        return hmac.new(self._key, plain(everything).encode(), hashlib.sha256).hexdigest()

    def _link(self, before: str, row: Row) -> str:
        content = plain([before, *(getattr(row, name) for name in COLUMNS)])
        return hmac.new(self._key, content.encode(), hashlib.sha256).hexdigest()

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """One writer at a time, of all threads and processes; what is inside is stored whole or not at all."""
        with self._lock, clearly(self.path):
            self._db.execute("BEGIN IMMEDIATE")
            try:
                if _identity(self.path) != self._file:  # what is stored in a file that is gone is lost
                    raise FabricaError(f"{self.path} is another file by now: the study was made anew; open it again")
                yield
                self._db.execute("COMMIT")
            except BaseException:
                with suppress(sqlite3.Error):
                    self._db.execute("ROLLBACK")
                raise
