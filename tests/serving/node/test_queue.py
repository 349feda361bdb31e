"""The queue, as a state machine over many orders of what can happen: nothing is lost, nothing is done twice."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("pynetdicom")

from fabrica.errors import FabricaError
from fabrica.serving.node.entries import (
    DEAD,
    LEASE,
    MOST_STARTS,
    OPEN,
    PARTIAL,
    SENT,
    Outgoing,
    Received,
    Series,
    Wanted,
)
from fabrica.serving.node.letters import retry
from fabrica.serving.node.queue import Queue
from fabrica.serving.node.store import Store, opened

MODEL = Wanted("m", "hash", "a2b")
STORE = Store(Path("nowhere"))  # none of its files is there


def series(uid: str, now: float = 0.0) -> Series:
    return Series(uid, "CT", "", "", "study", now, now, OPEN, 1, 0, 0.0, "")


def received(uid: str, of: str, image: int = 1) -> Received:
    return Received(uid, of, f"{uid}.dcm", "class", "syntax", image, 10)


def arrive(queue: Queue, of: str, *uids: str, now: float = 0.0, image: int = 1) -> set[str]:
    return queue.add([(received(uid, of, image), series(of, now)) for uid in uids], [], now)


def completed(queue: Queue, now: float, *wanted: Wanted, forward: bool = False) -> list[Series]:
    """All that is quiet is taken to be whole."""
    found = queue.quiet(now, now)
    assert all(queue.complete(each, wanted, forward, now, f"version {each.version}") for each in found)
    return found


@pytest.fixture
def queue(tmp_path: Path) -> Queue:
    return Queue(tmp_path / "queue.db")


def test_a_series_becomes_one_job_of_each_model(queue: Queue) -> None:
    arrive(queue, "s", "1", "2")
    arrive(queue, "s", "report", image=0)
    completed(queue, 5.0, MODEL, Wanted("n", "other", ""))
    assert completed(queue, 6.0, MODEL) == []
    first, second = queue.lease("me", 7.0), queue.lease("me", 7.0)
    assert first and second and queue.lease("me", 7.0) is None
    assert first[1] == second[1] == ["1.dcm", "2.dcm"]  # what is no image is no input
    assert [first[0].model, second[0].model] == ["m", "n"]
    assert first[0].created == "19700101000005"


def test_what_came_already_is_not_needed_again(queue: Queue) -> None:
    arrive(queue, "s", "1")
    again = Received("1", "s", "another.dcm", "class", "syntax", 1, 10)
    assert queue.add([(again, series("s"))], [], 1.0) == {"another.dcm"}
    completed(queue, 5.0, MODEL)
    assert queue.add([(again, series("s"))], [], 6.0) == {"another.dcm"}
    assert queue.quiet(10.0, 10.0) == []  # and opens nothing
    assert queue.known(["1.dcm", "another.dcm"]) == {"1.dcm"}


def test_what_comes_late_is_a_new_version(queue: Queue) -> None:
    arrive(queue, "s", "1", "2")
    completed(queue, 5.0, MODEL)
    arrive(queue, "s", "3", now=6.0)  # nobody has begun: the job is taken back
    assert queue.jobs() == []
    completed(queue, 7.0, MODEL)
    leased = queue.lease("me", 8.0)
    assert leased and leased[0].version == 1 and len(leased[1]) == 3
    arrive(queue, "s", "4", "5", now=9.0)
    (found,) = completed(queue, 10.0, MODEL)
    assert (found.version, found.late) == (2, 2)
    assert queue.made(leased[0].id, "me", ["made"], [])  # the first is not lost
    later = queue.lease("me", 11.0)
    assert later and (later[0].version, later[0].note, len(later[1])) == (2, "version 2", 5)


def test_what_the_node_has_made_is_never_taken_for_an_input(queue: Queue) -> None:
    arrive(queue, "s", "1")
    completed(queue, 5.0, MODEL)
    leased = queue.lease("me", 5.0)
    assert leased and queue.made(leased[0].id, "me", ["made"], [])
    assert arrive(queue, "made", "x", now=6.0) == {"x.dcm"}
    assert [each.uid for each in queue.series()] == ["s"]


def test_a_lease_is_its_owners_until_it_ends(queue: Queue) -> None:
    arrive(queue, "s", "1")
    completed(queue, 0.0, MODEL)
    leased = queue.lease("first", 0.0)
    assert leased
    job = leased[0].id
    assert queue.heartbeat(job, "first", LEASE - 1)
    assert queue.lease("second", LEASE + 1) is None
    assert queue.lease("second", 2 * LEASE)
    assert not queue.heartbeat(job, "first", 2 * LEASE)
    assert not queue.made(job, "first", [], [])
    assert queue.made(job, "second", [], [])


def test_a_job_that_never_ends_is_set_aside(queue: Queue) -> None:
    arrive(queue, "s", "1")
    completed(queue, 0.0, MODEL)
    for start in range(MOST_STARTS):
        assert queue.lease("me", start * 2 * LEASE)
    assert queue.lease("me", MOST_STARTS * 2 * LEASE) is None
    assert "never ended" in queue.jobs(DEAD)[0].reason
    assert retry(queue, STORE) == 1
    assert queue.lease("me", MOST_STARTS * 3 * LEASE)


def test_what_is_put_back_was_never_begun(queue: Queue) -> None:
    arrive(queue, "s", "1")
    completed(queue, 0.0, MODEL)
    for now in range(3 * MOST_STARTS):
        leased = queue.lease("me", float(now))
        assert leased and leased[0].starts == 0
        queue.put_back(leased[0].id, "other")  # who has no say in it
        assert queue.lease("me", float(now)) is None
        queue.put_back(leased[0].id, "me")


def test_dead_letters_are_taken_up_where_they_were_left(queue: Queue, tmp_path: Path) -> None:
    arrive(queue, "s", "1")
    arrive(queue, "t", "2")
    completed(queue, 0.0, MODEL)
    made, refused = queue.lease("me", 0.0), queue.lease("me", 0.0)
    assert made and refused
    queue.made(made[0].id, "me", ["r"], [Outgoing(made[0].id, "x", "results/1/x.dcm", "c", "t")])
    store = opened(tmp_path)
    (store.root / "results" / "1").mkdir()
    (store.root / "results" / "1" / "x.dcm").touch()
    for job in (made[0].id, refused[0].id):
        queue.refuse(job, "no")
    assert retry(queue, store, made[0].id) == 1
    assert retry(queue, store, made[0].id) == 0
    due = queue.due(1.0)
    assert due and [each.uid for each in due[1]] == ["x"]
    assert retry(queue, STORE) == 1
    again = queue.lease("me", 1.0)
    assert again and again[0].id == refused[0].id


def test_what_was_made_and_is_gone_is_made_again_and_only_the_rest_is_sent(queue: Queue) -> None:
    arrive(queue, "s", "1")
    completed(queue, 0.0, MODEL)
    for _ in range(2):
        leased = queue.lease("me", 0.0)
        assert leased
        job = leased[0].id
        queue.made(job, "me", ["r"], [Outgoing(job, name, f"results/{job}/{name}.dcm", "c", "t") for name in "xy"])
        due = queue.due(1.0)
        assert due
        queue.sent(job, ["x"])
        queue.refuse(job, "gone from the store")
        assert retry(queue, STORE) == 1
        assert queue.due(1.0) is None  # nothing that could be sent
    leased = queue.lease("me", 0.0)
    assert leased
    queue.made(job, "me", ["r"], [Outgoing(job, name, f"results/{job}/{name}.dcm", "c", "t") for name in "xy"])
    due = queue.due(1.0)
    assert due and [each.uid for each in due[1]] == ["y"]


def test_partial_series_wait_for_the_rest_or_for_people(queue: Queue) -> None:
    arrive(queue, "s", "1")
    (found,) = queue.quiet(1.0, 1.0)
    queue.set_partial(found, "1 of 2")
    assert queue.quiet(9.0, 9.0) == []
    assert [each.note for each in queue.series(PARTIAL)] == ["1 of 2"]
    arrive(queue, "s", "2", now=10.0)
    (found,) = completed(queue, 11.0, MODEL)
    assert found.version == 1


def test_what_changes_meanwhile_is_looked_at_again(queue: Queue) -> None:
    arrive(queue, "s", "1")
    (found,) = queue.quiet(1.0, 1.0)
    arrive(queue, "s", "2", now=2.0)
    assert not queue.complete(found, [MODEL], False, 3.0)
    assert queue.jobs() == []


def test_what_is_passed_on_goes_once(queue: Queue) -> None:
    arrive(queue, "s", "1", "2", image=0)
    completed(queue, 1.0, forward=True)
    job, objects = queue.due(1.0) or (None, [])
    assert job and [each.uid for each in objects] == ["1", "2"]
    queue.sent(job.id, ["1"])
    arrive(queue, "s", "3", image=0, now=2.0)
    completed(queue, 3.0, forward=True)
    sent = []
    while due := queue.due(4.0):
        sent += [each.uid for each in due[1]]
        queue.sent(due[0].id, [each.uid for each in due[1]])
    assert sorted(sent) == ["2", "3"]
    assert {each.state for each in queue.jobs()} == {SENT}


@settings(max_examples=20, deadline=None)
@given(st.lists(st.sampled_from(["arrive", "settle", "work", "die", "send", "resend"]), max_size=30))
def test_in_every_order_each_version_is_made_and_sent_once(
    tmp_path_factory: pytest.TempPathFactory, steps: list[str]
) -> None:
    """Of the steps, "die" is a node that is killed with a job in hand, "resend" one that was killed after it had sent,
    and before it said so."""
    path = tmp_path_factory.mktemp("queue") / "queue.db"
    queue, now, count, archive = Queue(path), 0.0, 0, dict[str, int]()
    for step in [*steps, "die", "settle", *["work", "send"] * 35]:
        now += 1
        if step == "arrive":
            count += 1
            arrive(queue, f"s{count % 3}", str(count), now=now)
        elif step == "settle":
            completed(queue, now, MODEL)
        elif step in ("work", "die"):
            leased = queue.lease("me", now)
            if leased and step == "work":
                job = leased[0]
                made = f"{job.series}/{job.version}"
                assert queue.made(job.id, "me", [made], [Outgoing(job.id, made, f"results/{job.id}", "c", "t")])
            if step == "die":
                queue.close()
                queue = Queue(path)
                queue.release()
        elif due := queue.due(now):
            for each in due[1]:
                archive[each.uid] = archive.get(each.uid, 0) + 1
            if step == "send":
                queue.sent(due[0].id, [each.uid for each in due[1]])
    wanted = {f"{each.uid}/{version}" for each in queue.series() for version in range(1, each.version + 1)}
    assert set(archive) == wanted
    assert {each.state for each in queue.jobs()} <= {SENT}
    queue.close()


def test_a_full_disk_costs_one_change_and_says_so(queue: Queue) -> None:
    arrive(queue, "s", "1")
    db = queue._db
    db.execute(f"PRAGMA max_page_count = {db.execute('PRAGMA page_count').fetchone()[0]}")
    with pytest.raises(sqlite3.OperationalError, match="full"):
        arrive(queue, "s", *(f"{number:060}" for number in range(2000)))
    db.execute("PRAGMA max_page_count = 1000000")
    arrive(queue, "s", "2")
    assert [each.uid for each in queue.objects("s")] == ["1", "2"]


def test_later_databases_and_other_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "queue.db"
    Queue(path).close()
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA user_version = 99")
    db.close()
    with pytest.raises(FabricaError, match="later Fabrica"):
        Queue(path)
    other = tmp_path / "other.db"
    other.write_bytes(b"no database " * 100)
    with pytest.raises(FabricaError, match="cannot be used"):
        Queue(other)


def test_the_database_is_flushed_at_each_change(queue: Queue) -> None:
    (mode,) = queue._db.execute("PRAGMA journal_mode").fetchone()
    (synchronous,) = queue._db.execute("PRAGMA synchronous").fetchone()
    assert (mode, synchronous) == ("wal", 2)
