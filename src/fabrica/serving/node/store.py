"""The folder of a node: what has come in, what is kept, what was made, and the database that knows of it all.

incoming/   objects as they arrive, a file each, not yet looked at
objects/    objects that belong to a series in the database
results/    what models made, a folder a job
work/       what a job is at; of no worth after it
queue.db    series, jobs and what is to be sent (`queue`)
lock        held while a node runs
No name in it is taken from an object: UIDs may hold anything.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from fabrica.errors import FabricaError
from fabrica.serving.node.arriving import recovered

FOLDERS = ("incoming", "objects", "results", "work")


@dataclass(frozen=True)
class Store:
    """Where things lie."""

    root: Path

    @property
    def incoming(self) -> Path:
        return self.root / "incoming"

    @property
    def database(self) -> Path:
        return self.root / "queue.db"

    @property
    def work(self) -> Path:
        return self.root / "work"

    def object(self, name: str) -> Path:
        """The file of an object: 256 folders, since some file systems grow slow with files in one."""
        return self.root / "objects" / f"{sum(name.encode()) % 256:02x}" / name

    def file(self, name: str) -> Path:
        """What is to be sent: an object's file, or results/JOB/... of what a job made."""
        return self.root / name if name.startswith("results/") else self.object(name)

    def result(self, job: int) -> Path:
        return self.root / "results" / str(job)


def opened(root: Path) -> Store:
    """The store in a folder, made where there is none; FabricaError, one line, where it cannot be written."""
    store = Store(root)
    try:
        for name in FOLDERS:
            (root / name).mkdir(parents=True, exist_ok=True)
        probe = root / f".{os.getpid()}"
        probe.write_bytes(b"")
        probe.unlink()
    except OSError as error:
        raise FabricaError(
            f"the store {root} cannot be written ({error.strerror}); choose another --store, or make it writable"
        ) from error
    return store


def locked(store: Store) -> TextIO:
    """The lock of a store, until the file is closed or the process ends, however it ends. FabricaError where another
    node holds it. Nothing is recovered before."""
    path = store.root / "lock"
    file = path.open("a+", encoding="ascii")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        file.seek(0)
        holder = file.read(20).strip()
        file.close()
        raise FabricaError(
            f"a node (process {holder or 'unknown'}) runs on the store {store.root}; stop it, or choose another --store"
        ) from error
    file.truncate(0)
    file.write(str(os.getpid()))
    file.flush()
    return file


def recover(store: Store) -> None:
    """Finish what was being received, and remove what jobs had begun; under the lock."""
    recovered(store.incoming)
    for left in store.work.iterdir():
        shutil.rmtree(left, ignore_errors=True)
