"""What people see of a node and may do about it: how much there is of what, what failed, and once more."""

from __future__ import annotations

from fabrica.serving.node.entries import APPLY, DEAD, MADE, OPEN, PARTIAL, WAITING
from fabrica.serving.node.queue import Queue
from fabrica.serving.node.store import Store


def counts(queue: Queue) -> dict[str, int]:
    """How many there are of what: objects, series by state, jobs by state."""
    found = {"objects": queue.rows("SELECT count(*) FROM objects")[0][0]}
    for table, what in (("series", "series"), ("jobs", "jobs")):
        rows = queue.rows(f"SELECT state, count(*) FROM {table} GROUP BY state ORDER BY state")
        found |= {f"{what} {state}": count for state, count in rows}
    return {what: count for what, count in found.items() if count}


def refused(queue: Queue) -> list[tuple[str, str]]:
    """Files that could not be used, and why."""
    return [(name, reason) for name, reason in queue.rows("SELECT name, reason FROM refused ORDER BY at")]


def retry(queue: Queue, store: Store, job: int = 0) -> int:
    """Dead jobs, or one of them, once more: what was made is sent again, the rest done again, also where a file of what
    was made is gone; and, of all, partial series are looked at again. Returns how many."""
    with queue.change() as db:
        which, given = ("AND id = ?", (job,)) if job else ("", ())
        unsent = (
            f"SELECT job, name FROM outbox JOIN jobs ON jobs.id = job WHERE state = ? AND kind = ? AND sent = 0 {which}"
        )
        gone = {number for number, name in db.execute(unsent, (DEAD, APPLY, *given)) if not store.file(name).is_file()}
        db.executemany("DELETE FROM outbox WHERE job = ? AND sent = 0", [(number,) for number in gone])
        begun = "starts = 0, tries = 0, next = 0, lease = 0, reason = ''"
        made = "kind <> ? OR EXISTS (SELECT 1 FROM outbox WHERE job = id AND sent = 0)"
        again = db.execute(
            f"UPDATE jobs SET state = CASE WHEN {made} THEN ? ELSE ? END, {begun} WHERE state = ? {which}",
            (APPLY, MADE, WAITING, DEAD, *given),
        ).rowcount
        if not job:
            again += db.execute(
                "UPDATE series SET state = ?, asked = 0, note = '' WHERE state = ?", (OPEN, PARTIAL)
            ).rowcount
    return again
