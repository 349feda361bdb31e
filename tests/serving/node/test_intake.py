"""Files that came in, and when their series are complete."""

from __future__ import annotations

import random
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("pynetdicom")

from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset

from fabrica.serving.node.archive import AWAY, Answer
from fabrica.serving.node.clearing import clear, rubbish
from fabrica.serving.node.entries import KEPT, PARTIAL, Outgoing
from fabrica.serving.node.intake import Patience, settle, take_in
from fabrica.serving.node.letters import refused, retry
from fabrica.serving.node.queue import Queue
from fabrica.serving.node.rules import Rule, Rules
from fabrica.serving.node.store import Store, opened
from tests.dicom_network import ct, filed, saved, uid

RULES = Rules((Rule(("m",), modality=("CT",), least=2),))
HASHES = {"m": "hash"}
PATIENCE = Patience(quiet=10, wait=100)


class Place:
    """A store, its queue, and what would be said."""

    def __init__(self, root: Path) -> None:
        self.store: Store = opened(root)
        self.queue = Queue(self.store.database)
        self.said: list[str] = []

    def receive(self, *datasets: Dataset, now: float = 0.0) -> None:
        """As `receive` leaves them."""
        for dataset in datasets:
            count = len(list(self.store.incoming.iterdir()))
            saved(dataset, self.store.incoming / f"{now:09.0f}-{count}-{uid(*map(str, dataset.values()))[-9:]}.dcm")
        take_in(self.queue, self.store, now)

    def settle(self, now: float, expected: Callable[[str, str], Answer] | None = None, rules: Rules = RULES) -> int:
        return settle(self.queue, rules, HASHES, expected, PATIENCE, self.said.append, now)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path / "store")


def report() -> Dataset:
    dataset = ct("report", 1, SOPClassUID="1.2.840.10008.5.1.4.1.1.88.11", Modality="SR")
    for keyword in ("PixelData", "Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit"):
        delattr(dataset, keyword)
    return filed(dataset)


def test_a_series_is_complete_once_it_is_quiet(place: Place) -> None:
    place.receive(ct("a", 1), now=0)
    place.receive(ct("a", 2), now=9)
    assert place.settle(18.9) == 0
    assert place.settle(19) == 1
    assert list(place.store.incoming.iterdir()) == []
    leased = place.queue.lease("me", 20)
    assert leased
    assert all(place.store.object(name).is_file() for name in leased[1])
    assert (leased[0].series, leased[0].hash) == (uid("a"), "hash")


def test_the_archive_knows_how_many_there_are(place: Place) -> None:
    asked = []

    def expected(study: str, series: str) -> Answer:
        asked.append((study, series))
        return Answer(3)

    place.receive(ct("a", 1), ct("a", 2), now=0)
    assert place.settle(10, expected) == 0
    assert place.settle(11, expected) == 0  # not asked at once again
    assert asked == [(uid("a", "study"), uid("a"))]
    place.receive(ct("a", 3), now=30)
    assert place.settle(40, expected) == 1


def test_a_partial_series_is_never_worked_on(place: Place) -> None:
    place.receive(ct("a", 1), ct("a", 2), now=0)
    for now in range(10, 200, 5):
        assert place.settle(now, lambda study, series: Answer(3)) == 0
    assert [each.note for each in place.queue.series(PARTIAL)] == ["2 of 3 objects came within 100 s; send the others"]
    assert place.said == [f"series {uid('a')} is not complete: 2 of 3 objects came within 100 s; send the others"]
    assert place.queue.jobs() == []
    assert retry(place.queue, place.store) == 1  # people may ask again
    place.receive(ct("a", 3), now=300)
    assert place.settle(310, lambda study, series: Answer(3)) == 1


def test_an_archive_that_cannot_be_reached_is_waited_for(place: Place) -> None:
    place.receive(ct("a", 1), ct("a", 2), now=0)
    assert place.settle(50, lambda study, series: Answer(silent=True)) == 0
    assert place.settle(100, lambda study, series: Answer(silent=True)) == 1
    assert "the archive could not be asked" in place.said[-1]


def test_an_archive_that_is_away_is_asked_once_for_all_series(place: Place) -> None:
    """Each question of an archive that does not answer costs seconds."""
    asked = []

    def expected(study: str, series: str) -> Answer:
        asked.append(series)
        return AWAY if away else Answer(2)

    away = True
    for name in "abc":
        place.receive(ct(name, 1), ct(name, 2), now=0)
    assert place.settle(50, expected) == 0 and len(asked) == 1
    assert place.settle(51, expected) == 0 and len(asked) == 1
    away = False
    assert place.settle(70, expected) == 3 and len(asked) == 4
    for name in "def":
        place.receive(ct(name, 1), ct(name, 2), now=100)
    away = True
    assert place.settle(200, expected) == 3 and len(asked) == 5  # none is held up for longer than Patience says


def test_one_series_that_the_archive_cannot_be_asked_about_holds_up_itself_alone(place: Place) -> None:
    for name in "abc":
        place.receive(ct(name, 1), ct(name, 2), now=0)
    assert place.settle(50, lambda study, series: Answer(2, silent=series == uid("a"))) == 2


def test_an_archive_that_does_not_know_the_series_holds_nothing_up(place: Place) -> None:
    place.receive(ct("a", 1), ct("a", 2), now=0)
    assert place.settle(10, lambda study, series: Answer(0)) == 1


def test_late_slices_make_a_new_version_that_says_so(place: Place) -> None:
    place.receive(ct("a", 1), ct("a", 2), now=0)
    place.settle(10)
    place.queue.lease("me", 10)
    place.receive(ct("a", 3), now=20)
    place.receive(ct("a", 4), now=21)
    place.settle(40)
    assert [(job.version, job.note) for job in place.queue.jobs()] == [(1, ""), (2, "version 2, 2 came late")]
    place.receive(ct("a", 5), now=50)  # before anybody has begun
    place.settle(60)
    assert [(job.version, job.note) for job in place.queue.jobs()] == [(1, ""), (2, "version 2, 3 came late")]


def test_what_no_rule_wants_is_kept_or_passed_on(place: Place, tmp_path: Path) -> None:
    place.receive(ct("few", 1), report(), now=0)
    assert place.settle(10) == 2
    assert {each.state for each in place.queue.series()} == {KEPT}
    assert place.queue.jobs() == []
    other = Place(tmp_path / "other")
    other.receive(ct("few", 1), report(), now=0)
    other.settle(10, rules=Rules(RULES.rules, "forward"))
    assert [job.kind for job in other.queue.jobs()] == ["forward", "forward"]


def test_what_is_done_with_is_cleared_and_not_forgotten(place: Place) -> None:
    series = [ct("a", number) for number in (1, 2)]
    place.receive(*series, ct("few", 1), now=0)
    place.settle(10)
    leased = place.queue.lease("me", 10)
    assert leased
    result = place.store.result(leased[0].id)
    result.mkdir()
    (result / "x.dcm").write_bytes(b"")
    place.queue.made(
        leased[0].id, "me", ["r"], [Outgoing(leased[0].id, "x", f"results/{leased[0].id}/x.dcm", "c", "t")]
    )
    assert clear(place.queue, place.store, 100) == 0  # not sent yet
    place.queue.sent(leased[0].id, ["x"])
    assert clear(place.queue, place.store, 100) == 1
    assert clear(place.queue, place.store, 100) == 0
    left = [path.name for path in (place.store.root / "objects").rglob("*.dcm")]
    assert left == [each.name for each in place.queue.objects(uid("few"))]  # which no rule wanted
    assert not result.exists() and rubbish(place.queue) == []
    place.receive(ct("a", 3), now=200)
    place.settle(210)
    assert "2 objects of it were cleared, and 1 came since" in place.queue.series(PARTIAL)[0].note
    place.receive(*series, now=220)
    assert place.settle(230) == 1
    assert place.queue.jobs()[-1].version == 2


@pytest.mark.parametrize(
    "changes",
    [
        {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.66.4", "Modality": "SEG"},
        {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.481.2", "Modality": "RTDOSE"},
        {"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]},
    ],
)
def test_what_is_no_image_of_the_patient_is_never_applied(place: Place, changes: dict[str, object]) -> None:
    place.receive(*(ct("a", number, **changes) for number in (1, 2, 3)), now=0)
    place.settle(10)
    assert place.queue.jobs() == []


def test_objects_that_cannot_be_used_are_kept_and_listed(place: Place) -> None:
    anonymous = ct("a", 1)
    del anonymous.SeriesInstanceUID
    (place.store.incoming / "1.dcm").write_bytes(b"no DICOM at all" * 100)
    place.receive(anonymous, ct("a", 2), now=0)
    listed = dict(refused(place.queue))
    assert len(listed) == 2
    assert any("no usable Series Instance UID" in reason for reason in listed.values())
    assert all(place.store.object(name).is_file() for name in listed)
    assert [each.uid for each in place.queue.series()] == [uid("a")]


@pytest.mark.parametrize("together", [True, False])
def test_another_object_under_the_same_uid_is_kept_and_listed(place: Place, together: bool) -> None:
    again, other = ct("a", 1), ct("b", 1, SOPInstanceUID=ct("a", 1).SOPInstanceUID)
    if together:
        place.receive(ct("a", 1), again, other, now=0)
    else:
        for dataset in (ct("a", 1), again, other):
            place.receive(dataset, now=0)
    ((name, reason),) = refused(place.queue)
    assert "which holds something else" in reason and place.store.object(name).is_file()
    assert len(place.queue.objects(uid("a"))) == 1 and not place.queue.objects(uid("b"))
    assert len(list((place.store.root / "objects").rglob("*.dcm"))) == 2  # the same once more is dropped
    assert list(place.store.incoming.iterdir()) == []


def test_uids_are_never_names_of_files(place: Place, tmp_path: Path) -> None:
    odd = ct("a", 1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        odd.SeriesInstanceUID = "../../../x/*?"
        place.receive(odd, now=0)
    place.settle(10)
    assert [each.uid for each in place.queue.series()] == ["../../../x/*?"]
    found = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert all("x" not in path.parts and path.is_relative_to(tmp_path / "store") for path in found)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 3), st.booleans())
def test_killed_at_any_point_it_goes_on_where_it_was(
    tmp_path_factory: pytest.TempPathFactory, moved: int, again: bool
) -> None:
    """Objects are in the database, and some of their files not yet in their places."""
    place = Place(tmp_path_factory.mktemp("take") / "store")
    place.receive(*(ct("a", number) for number in range(3)), now=0)
    objects = place.queue.objects(uid("a"))
    for each in objects[moved:]:
        place.store.object(each.name).rename(place.store.incoming / each.name)
    if again:  # and the sender, who was not answered, sends one once more
        saved(ct("a", 0), place.store.incoming / "9-again.dcm")
    take_in(place.queue, place.store, 1)
    assert list(place.store.incoming.iterdir()) == []
    assert all(place.store.object(each.name).is_file() for each in objects)
    assert len(place.queue.objects(uid("a"))) == 3
    place.queue.close()


def test_damaged_objects_are_series_or_refused_and_nothing_else(place: Place) -> None:
    """Bytes of headers changed, lengths that lie, files cut short: each is in the database or on the list."""
    chance = random.Random(0)
    whole = ct("a", 1)
    path = saved(whole, place.store.root / "whole.dcm")
    clean = path.read_bytes()
    for number in range(300):
        data = bytearray(clean)
        for _ in range(chance.randrange(1, 6)):
            data[chance.randrange(132, 1100)] = chance.randrange(256)
        cut = chance.choice([len(data), chance.randrange(200, 1500)])
        (place.store.incoming / f"{number:05d}.dcm").write_bytes(data[:cut])
    while take_in(place.queue, place.store, 0.0):
        pass
    known = {each.name for series in place.queue.series() for each in place.queue.objects(series.uid)}
    listed = {name for name, _ in refused(place.queue)}
    kept = {path.name for path in (place.store.root / "objects").rglob("*.dcm")}
    assert kept == known | listed and not known & listed
    assert len(kept) == 300  # none vanishes: another object under the same UID is none that came twice
    assert listed and len(known) > 20
    assert all(reason and "\n" not in reason for _, reason in refused(place.queue))
    place.settle(100)
