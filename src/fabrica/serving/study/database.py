"""The database of a study's answers: its tables, its records, and how it is opened."""

from __future__ import annotations

import hashlib
import json
import secrets
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fabrica.errors import FabricaError

ANSWER, UNDO = "answer", "undo"
LATE = "late"
"""What was answered when the trial was no longer, or not yet, the reader's next one: kept, counts for nothing."""
COLUMNS = ("seq", "at", "reader", "trial", "attempt", "kind", "answer", "seconds", "device", "request")
SCHEMA = """
CREATE TABLE about (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE readers (reader TEXT PRIMARY KEY, name TEXT NOT NULL UNIQUE, token TEXT NOT NULL UNIQUE) WITHOUT ROWID;
CREATE TABLE trials (trial TEXT PRIMARY KEY, reader TEXT NOT NULL REFERENCES readers, place INTEGER NOT NULL,
    UNIQUE (reader, place)) WITHOUT ROWID;
CREATE TABLE answers (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, at TEXT NOT NULL, reader TEXT NOT NULL REFERENCES readers,
    trial TEXT NOT NULL REFERENCES trials, attempt INTEGER NOT NULL,
    kind TEXT NOT NULL CHECK (kind IN ('answer', 'undo', 'late')), answer TEXT NOT NULL, seconds REAL NOT NULL,
    device TEXT NOT NULL, request TEXT NOT NULL, hash TEXT NOT NULL, UNIQUE (reader, request));
CREATE UNIQUE INDEX once ON answers (reader, trial, attempt, kind) WHERE kind <> 'late';
CREATE TRIGGER answers_stay BEFORE UPDATE ON answers BEGIN SELECT RAISE(ABORT, 'answers are never changed'); END;
CREATE TRIGGER answers_last BEFORE DELETE ON answers BEGIN SELECT RAISE(ABORT, 'answers are never deleted'); END;
"""


@dataclass(frozen=True)
class Reader:
    """Opaque id, the name that stands for a person, and the SHA-256 of the token that opens the study."""

    reader: str
    name: str
    token: str


@dataclass(frozen=True)
class Row:
    """One line of the table. attempt: how often the trial had been taken back before; seconds: of looking; device: what
    the reader's browser calls itself; request: what the sender calls this message, by which one that is sent again is
    known."""

    seq: int
    at: str
    reader: str
    trial: str
    attempt: int
    kind: str
    answer: dict[str, Any]
    seconds: float
    device: str
    request: str
    hash: str


@dataclass(frozen=True)
class Receipt:
    """That a row is stored: its number and hash."""

    seq: int
    hash: str


def new_token() -> str:
    """What opens the study to one reader: 192 bits that nobody guesses."""
    return secrets.token_urlsafe(24)


def hashed(token: str) -> str:
    """What is kept of a token: 192 random bits need no salt and no slow hash."""
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()


def create(
    path: Path,
    readers: Sequence[Reader],
    trials: Mapping[str, Sequence[str]],
    about: Mapping[str, str],
) -> None:
    """Make the database. trials: reader -> the names of his trials in order; about: what the first row follows from."""
    with opened(path) as db:
        db.executescript(SCHEMA)
        db.execute("BEGIN")
        db.executemany("INSERT INTO about VALUES (?, ?)", sorted(about.items()))
        db.executemany("INSERT INTO readers VALUES (?, ?, ?)", [(r.reader, r.name, r.token) for r in readers])
        db.executemany(
            "INSERT INTO trials VALUES (?, ?, ?)",
            [(trial, reader, place) for reader, names in trials.items() for place, trial in enumerate(names)],
        )
        db.execute("COMMIT")


def plain(value: Any) -> str:
    """The one JSON text of a value."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def row_of(values: tuple[Any, ...]) -> Row:
    fields = list(values)
    place = COLUMNS.index("answer")
    try:
        fields[place] = json.loads(fields[place])
    except (TypeError, ValueError) as error:
        raise FabricaError(f"row {fields[0]} of the answers was changed after it was stored: no JSON") from error
    return Row(*fields)


@contextmanager
def opened(path: Path) -> Iterator[sqlite3.Connection]:
    db = connected(path)
    try:
        yield db
    finally:
        db.close()


def connected(path: Path) -> sqlite3.Connection:
    db = sqlite3.connect(path, timeout=20, isolation_level=None, check_same_thread=False)
    for pragma in ("journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON"):
        db.execute(f"PRAGMA {pragma}")
    return db


@contextmanager
def clearly(path: Path) -> Iterator[None]:
    """What SQLite raises, as one line."""
    try:
        yield
    except sqlite3.DatabaseError as error:
        raise FabricaError(
            f"{path} cannot be used as a database of answers ({error}); if it was cut or damaged, put a copy back"
        ) from error
