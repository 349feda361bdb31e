"""What is not needed any more: series that were done with, let go of in the database, then removed from the disk."""

from __future__ import annotations

import shutil

from fabrica.serving.node.entries import DONE, SENT
from fabrica.serving.node.queue import Queue
from fabrica.serving.node.store import Store

_DONE_WITH = (
    "SELECT uid FROM series AS s WHERE state = ? AND last < ? "
    "AND EXISTS (SELECT 1 FROM objects WHERE objects.series = s.uid) "
    "AND NOT EXISTS (SELECT 1 FROM jobs WHERE jobs.series = s.uid AND jobs.state <> ?)"
)


def clear(queue: Queue, store: Store, before: float) -> int:
    """Remove what was done with before then; killed at any point, the next call ends it. Returns how many series."""
    count = let_go(queue, before)
    names = rubbish(queue)
    for name in names:
        path = store.file(name)
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    if names:
        with queue.change() as db:
            db.executemany("DELETE FROM rubbish WHERE name = ?", [(name,) for name in names])
    return count


def let_go(queue: Queue, before: float) -> int:
    """Let go of the objects and results of series that were done with, and sent, before then; the series itself is
    remembered. Their files are `rubbish` from then on. Returns how many series."""
    with queue.change() as db:
        found = [uid for (uid,) in db.execute(_DONE_WITH, (DONE, before, SENT))]
        for uid in found:
            db.execute("INSERT OR IGNORE INTO rubbish SELECT name FROM objects WHERE series = ?", (uid,))
            db.execute("INSERT OR IGNORE INTO rubbish SELECT 'results/' || id FROM jobs WHERE series = ?", (uid,))
            count = "(SELECT count(*) FROM objects WHERE series = ?)"
            db.execute(f"UPDATE series SET cleared = max(cleared, {count}) WHERE uid = ?", (uid, uid))
            db.execute("DELETE FROM inputs WHERE object IN (SELECT uid FROM objects WHERE series = ?)", (uid,))
            db.execute("DELETE FROM objects WHERE series = ?", (uid,))
    return len(found)


def rubbish(queue: Queue) -> list[str]:
    """Files and folders of the store that nothing refers to, as `Store.file` takes them."""
    return [name for (name,) in queue.rows("SELECT name FROM rubbish")]
