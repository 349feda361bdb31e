"""What a node has to do, in SQLite: durable, and the same after a kill at any moment.

Every change is one transaction, flushed to the disk (WAL, synchronous=FULL). A series and the hash of a model name one
job a version; its lease says that a worker is at it, and until when.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fabrica.errors import FabricaError
from fabrica.serving.node.entries import (
    APPLY,
    DEAD,
    DONE,
    FORWARD,
    KEPT,
    LEASE,
    LEASED,
    MADE,
    MOST_STARTS,
    OPEN,
    PARTIAL,
    SCHEMA,
    SENT,
    VERSION,
    WAITING,
    Job,
    Outgoing,
    Received,
    Series,
    Wanted,
)

_JOB = "id, series, model, hash, direction, version, kind, state, created, note, starts, tries, next, reason"
_SERIES = "uid, modality, body_part, description, study, first, last, state, version, late, asked, note, cleared"


class Queue:
    """One connection; of one thread. Seconds are given where they matter, so that clocks are the caller's."""

    def __init__(self, path: Path) -> None:
        try:
            self._db = sqlite3.connect(path, timeout=30, isolation_level=None)
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = FULL")
            found = self._db.execute("PRAGMA user_version").fetchone()[0]
            if found > VERSION:
                raise FabricaError(f"{path} was written by a later Fabrica; update, or choose another --store")
            if not found:
                self._db.executescript(SCHEMA)
        except sqlite3.Error as error:
            raise FabricaError(f"{path} cannot be used ({error}); choose another --store") from error

    def close(self) -> None:
        self._db.close()

    def rows(self, query: str, given: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        return self._db.execute(query, given).fetchall()

    @contextmanager
    def change(self) -> Iterator[sqlite3.Connection]:
        """One transaction: all of it, flushed, or nothing."""
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield self._db
            self._db.execute("COMMIT")
        except BaseException:
            if self._db.in_transaction:  # of a full disk SQLite has rolled back by itself
                self._db.execute("ROLLBACK")
            raise

    # objects and series

    def known(self, names: Iterable[str]) -> set[str]:
        """Those of these files that the database has already, as objects or as refused."""
        asked = list(names)
        marks = ",".join("?" * len(asked))
        found = self._db.execute(
            f"SELECT name FROM objects WHERE name IN ({marks}) UNION SELECT name FROM refused WHERE name IN ({marks})",
            asked * 2,
        )
        return {name for (name,) in found}

    def files(self, uids: Iterable[str]) -> dict[str, str]:
        """SOP Instance UID -> the name of the file, of those of these objects that are there."""
        asked = list(uids)
        marks = ",".join("?" * len(asked))
        return dict(self._db.execute(f"SELECT uid, name FROM objects WHERE uid IN ({marks})", asked))

    def add(self, found: Sequence[tuple[Received, Series]], refused: Sequence[tuple[str, str]], now: float) -> set[str]:
        """Objects that were received, with what each says of its series, and files that cannot be read; all or none.

        What comes after its series was worked on opens it again, as a new version. Returns the files that are not
        needed: objects that were there already, and what the node itself has made.
        """
        dropped = set()
        with self.change() as db:
            for each, series in found:
                ours = db.execute("SELECT 1 FROM own WHERE series = ?", (each.series,)).fetchone()
                row = (each.uid, each.series, each.name, each.class_uid, each.syntax, each.image, each.size)
                if ours or not db.execute("INSERT OR IGNORE INTO objects VALUES (?,?,?,?,?,?,?)", row).rowcount:
                    dropped.add(each.name)
                    continue
                self._reopen(db, each.series, now)
                db.execute(
                    f"INSERT INTO series ({_SERIES}) VALUES (?,?,?,?,?,?,?,'{OPEN}',1,0,0,'',0) "
                    f"ON CONFLICT (uid) DO UPDATE SET last = excluded.last, state = '{OPEN}', asked = 0",
                    (series.uid, series.modality, series.body_part, series.description, series.study, now, now),
                )
            db.executemany("INSERT OR IGNORE INTO refused VALUES (?,?,?)", [(*each, now) for each in refused])
        return dropped

    @staticmethod
    def _reopen(db: sqlite3.Connection, uid: str, now: float) -> None:
        """A job that nobody has begun is taken back; else what is complete next is a new version."""
        found = db.execute("SELECT state, version FROM series WHERE uid = ?", (uid,)).fetchone()
        if found is None:
            return
        state, version = found
        if state in (OPEN, PARTIAL):
            db.execute("UPDATE series SET late = late + 1 WHERE uid = ? AND version > 1", (uid,))
            return
        begun = db.execute(
            "SELECT count(*) FROM jobs WHERE series = ? AND version = ? AND NOT (state = ? AND starts = 0)",
            (uid, version, WAITING),
        ).fetchone()[0]
        if not begun:
            jobs = "SELECT id FROM jobs WHERE series = ? AND version = ?"
            for table in ("inputs", "outbox"):
                db.execute(f"DELETE FROM {table} WHERE job IN ({jobs})", (uid, version))
            db.execute("DELETE FROM jobs WHERE series = ? AND version = ?", (uid, version))
            db.execute("UPDATE series SET late = late + 1 WHERE uid = ? AND version > 1", (uid,))
        else:
            db.execute("UPDATE series SET version = version + 1, late = 1, first = ? WHERE uid = ?", (now, uid))

    def quiet(self, before: float, now: float) -> list[Series]:
        """Open series of which nothing came since `before`, and that the archive need not be asked about again yet."""
        where = "state = ? AND last <= ? AND asked <= ? ORDER BY last LIMIT 100"
        return [
            Series(*row) for row in self._db.execute(f"SELECT {_SERIES} FROM series WHERE {where}", (OPEN, before, now))
        ]

    def objects(self, series: str) -> list[Received]:
        rows = self._db.execute("SELECT * FROM objects WHERE series = ? ORDER BY name", (series,))
        return [Received(*row) for row in rows]

    def ask_again(self, series: str, at: float) -> None:
        with self.change() as db:
            db.execute("UPDATE series SET asked = ? WHERE uid = ?", (at, series))

    def set_partial(self, series: Series, note: str) -> None:
        """A series of which objects are missing: for the dead-letter list, unless something comes meanwhile."""
        with self.change() as db:
            same = "uid = ? AND state = ? AND last = ?"
            db.execute(
                f"UPDATE series SET state = ?, note = ? WHERE {same}", (PARTIAL, note, series.uid, OPEN, series.last)
            )

    def complete(
        self, series: Series, wanted: Sequence[Wanted], forward: bool, now: float, said: str = "", note: str = ""
    ) -> bool:
        """A series is whole: a job for each model, or one to pass it on, or it is kept. False where something came
        meanwhile. said: what results say of themselves; note: what people should know of the series."""
        created = datetime.fromtimestamp(now, UTC).strftime("%Y%m%d%H%M%S")
        kinds = [(each, APPLY) for each in wanted] or ([(Wanted("", "", ""), FORWARD)] if forward else [])
        with self.change() as db:
            same = "uid = ? AND state = ? AND last = ?"
            state = DONE if kinds else KEPT
            set_ = "state = ?, note = ?"
            changed = db.execute(f"UPDATE series SET {set_} WHERE {same}", (state, note, series.uid, OPEN, series.last))
            if not changed.rowcount:
                return False
            for each, kind in kinds:
                job = db.execute(
                    "INSERT OR IGNORE INTO jobs (series, model, hash, direction, version, kind, state, created, note) "
                    "VALUES (?,?,?,?,?,?,?,?,?)",
                    (series.uid, each.model, each.hash, each.direction, series.version, kind,
                     WAITING if kind == APPLY else MADE, created, said),
                )  # fmt: skip
                if not job.rowcount:
                    continue
                if kind == APPLY:
                    inputs = [(job.lastrowid, each.uid) for each in self.objects(series.uid) if each.image]
                    db.executemany("INSERT INTO inputs VALUES (?,?)", inputs)
                else:  # what an earlier version has passed on need not go again
                    db.execute(
                        "INSERT INTO outbox (job, uid, name, class, syntax) "
                        "SELECT ?, uid, name, class, syntax FROM objects WHERE series = ? AND uid NOT IN "
                        "(SELECT outbox.uid FROM outbox JOIN jobs ON jobs.id = job WHERE series = ? AND kind = ?)",
                        (job.lastrowid, series.uid, series.uid, FORWARD),
                    )
        return True

    # jobs

    def lease(self, owner: str, now: float) -> tuple[Job, list[str]] | None:
        """The job that has waited longest, and the files it is of; for `owner` until LEASE from now."""
        with self.change() as db:
            db.execute(
                "UPDATE jobs SET state = ?, reason = ? WHERE state IN (?, ?) AND lease < ? AND starts >= ?",
                (DEAD, f"begun {MOST_STARTS} times and never ended", WAITING, LEASED, now, MOST_STARTS),
            )
            where = "(state = ? OR state = ? AND lease < ?) AND next <= ? ORDER BY id LIMIT 1"
            row = db.execute(f"SELECT {_JOB} FROM jobs WHERE {where}", (WAITING, LEASED, now, now)).fetchone()
            if row is None:
                return None
            job = Job(*row)
            db.execute(
                "UPDATE jobs SET state = ?, owner = ?, lease = ?, starts = starts + 1 WHERE id = ?",
                (LEASED, owner, now + LEASE, job.id),
            )
            files = db.execute(
                "SELECT name FROM inputs JOIN objects ON objects.uid = inputs.object WHERE job = ? ORDER BY name",
                (job.id,),
            )
            return job, [name for (name,) in files]

    def heartbeat(self, job: int, owner: str, now: float) -> bool:
        """Go on with it; False where it is another's by now."""
        with self.change() as db:
            where = "id = ? AND owner = ? AND state = ?"
            return bool(
                db.execute(f"UPDATE jobs SET lease = ? WHERE {where}", (now + LEASE, job, owner, LEASED)).rowcount
            )

    def put_back(self, job: int, owner: str) -> None:
        """It could not be done now, through no fault of its own: as if it had not been begun."""
        with self.change() as db:
            where = "id = ? AND owner = ? AND state = ?"
            set_ = "state = ?, owner = '', lease = 0, starts = starts - 1"
            db.execute(f"UPDATE jobs SET {set_} WHERE {where}", (WAITING, job, owner, LEASED))

    def release(self) -> None:
        """Nobody is at any job: for a node that has just locked its store."""
        with self.change() as db:
            db.execute("UPDATE jobs SET state = ?, owner = '', lease = 0 WHERE state = ?", (WAITING, LEASED))

    def made(
        self, job: int, owner: str, series: Iterable[str], objects: Sequence[Outgoing], left_out: str = ""
    ) -> bool:
        """What a job has made, objects of these series, is to be sent; left_out: what it could not make. False where
        the job is another's by now."""
        with self.change() as db:
            where = "id = ? AND owner = ? AND state = ?"
            set_ = "state = ?, reason = ?, tries = 0, next = 0"
            if not db.execute(f"UPDATE jobs SET {set_} WHERE {where}", (MADE, left_out, job, owner, LEASED)).rowcount:
                return False
            db.executemany("INSERT OR IGNORE INTO own VALUES (?)", [(each,) for each in series])
            rows = [(job, each.uid, each.name, each.class_uid, each.syntax) for each in objects]
            # what was sent before its file was lost is there already, and the same
            db.executemany("INSERT OR IGNORE INTO outbox (job, uid, name, class, syntax) VALUES (?,?,?,?,?)", rows)
        return True

    def refuse(self, job: int, reason: str) -> None:
        """Into the dead-letter list."""
        with self.change() as db:
            db.execute("UPDATE jobs SET state = ?, reason = ?, owner = '' WHERE id = ?", (DEAD, reason, job))

    # sending

    def due(self, now: float) -> tuple[Job, list[Outgoing]] | None:
        """The next job of which something is to be sent, and what."""
        where = "state = ? AND next <= ? ORDER BY next, id LIMIT 1"
        row = self._db.execute(f"SELECT {_JOB} FROM jobs WHERE {where}", (MADE, now)).fetchone()
        if row is None:
            return None
        found = "SELECT job, uid, name, class, syntax FROM outbox WHERE job = ? AND sent = 0 ORDER BY name"
        return Job(*row), [Outgoing(*each) for each in self._db.execute(found, (row[0],))]

    def sent(self, job: int, uids: Sequence[str]) -> None:
        """These objects are in the archive; and with the last of them, the job is done."""
        with self.change() as db:
            db.executemany("UPDATE outbox SET sent = 1 WHERE job = ? AND uid = ?", [(job, uid) for uid in uids])
            left = db.execute("SELECT count(*) FROM outbox WHERE job = ? AND sent = 0", (job,)).fetchone()[0]
            if not left:
                db.execute("UPDATE jobs SET state = ?, tries = 0 WHERE id = ?", (SENT, job))

    def postpone(self, job: int, reason: str, at: float) -> None:
        with self.change() as db:
            db.execute("UPDATE jobs SET tries = tries + 1, reason = ?, next = ? WHERE id = ?", (reason, at, job))

    # what people see

    def jobs(self, state: str = "") -> list[Job]:
        where, given = ("WHERE state = ?", (state,)) if state else ("", ())
        return [Job(*row) for row in self._db.execute(f"SELECT {_JOB} FROM jobs {where} ORDER BY id", given)]

    def series(self, state: str = "") -> list[Series]:
        where, given = ("WHERE state = ?", (state,)) if state else ("", ())
        return [Series(*row) for row in self._db.execute(f"SELECT {_SERIES} FROM series {where} ORDER BY first", given)]
