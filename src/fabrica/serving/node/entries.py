"""What the database of a node holds: series, objects, jobs, and the states that they go through."""

from __future__ import annotations

from dataclasses import dataclass

OPEN, DONE, KEPT, PARTIAL = "open", "done", "kept", "partial"  # states of a series
WAITING, LEASED, MADE, SENT, DEAD = "waiting", "leased", "made", "sent", "dead"  # states of a job
APPLY, FORWARD = "apply", "forward"  # kinds of a job
LEASE = 60.0  # seconds without a heartbeat after which a job is anybody's
MOST_STARTS = 20  # of one job that never comes to an end, before it is set aside

SCHEMA = """
CREATE TABLE IF NOT EXISTS series (
    uid TEXT PRIMARY KEY, modality TEXT, body_part TEXT, description TEXT, study TEXT,
    first REAL, last REAL, state TEXT, version INTEGER,
    late INTEGER DEFAULT 0, asked REAL DEFAULT 0, note TEXT DEFAULT '', cleared INTEGER DEFAULT 0
);
CREATE TABLE IF NOT EXISTS objects (
    uid TEXT PRIMARY KEY, series TEXT, name TEXT UNIQUE, class TEXT, syntax TEXT, image INTEGER, size INTEGER
);
CREATE INDEX IF NOT EXISTS objects_series ON objects (series);
CREATE TABLE IF NOT EXISTS own (series TEXT PRIMARY KEY);
CREATE TABLE IF NOT EXISTS rubbish (name TEXT PRIMARY KEY);
CREATE TABLE IF NOT EXISTS refused (name TEXT PRIMARY KEY, reason TEXT, at REAL);
CREATE TABLE IF NOT EXISTS jobs (
    id INTEGER PRIMARY KEY, series TEXT, model TEXT, hash TEXT, direction TEXT, version INTEGER, kind TEXT, state TEXT,
    created TEXT, note TEXT, owner TEXT, lease REAL DEFAULT 0, starts INTEGER DEFAULT 0, tries INTEGER DEFAULT 0,
    next REAL DEFAULT 0, reason TEXT DEFAULT '',
    UNIQUE (series, hash, direction, version)
);
CREATE INDEX IF NOT EXISTS jobs_state ON jobs (state, next);
CREATE TABLE IF NOT EXISTS inputs (job INTEGER, object TEXT, PRIMARY KEY (job, object));
CREATE TABLE IF NOT EXISTS outbox (
    job INTEGER, uid TEXT, name TEXT, class TEXT, syntax TEXT, sent INTEGER DEFAULT 0, PRIMARY KEY (job, uid)
);
PRAGMA user_version = 1;
"""
VERSION = 1


@dataclass(frozen=True)
class Received:
    """An object as the database knows it: name is that of its file, image how many frames a model may work on."""

    uid: str
    series: str
    name: str
    class_uid: str
    syntax: str
    image: int
    size: int


@dataclass(frozen=True)
class Series:
    """What rules go by, and when objects of it came (seconds since 1970). version: from 1; late: objects of it that
    came after the version before; asked: when the archive is to be asked again; cleared: objects that were removed."""

    uid: str
    modality: str
    body_part: str
    description: str
    study: str
    first: float
    last: float
    state: str
    version: int
    late: int
    asked: float = 0.0
    note: str = ""
    cleared: int = 0


@dataclass(frozen=True)
class Job:
    """A model's work on a series, or objects to be passed on.

    created  when the series was complete, "YYYYMMDDHHMMSS", UTC: all times in what is made. note: what its
             description says beside the model. reason: why it was put off or set aside, or what was left out of it.
    """

    id: int
    series: str
    model: str
    hash: str
    direction: str
    version: int
    kind: str
    state: str
    created: str
    note: str
    starts: int
    tries: int
    next: float
    reason: str


@dataclass(frozen=True)
class Outgoing:
    """An object to be sent; name is relative to the store."""

    job: int
    uid: str
    name: str
    class_uid: str
    syntax: str


@dataclass(frozen=True)
class Wanted:
    """A model that is to work on a series."""

    model: str
    hash: str
    direction: str
