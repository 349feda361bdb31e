"""The database of answers: appended, chained, one answer a trial, and whatever was changed is named."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from fabrica.errors import FabricaError, UsageError
from fabrica.serving.study.answers import Answers, Conflict
from fabrica.serving.study.database import Reader, create, hashed, new_token
from tests.serving.study.made import KEY, Clock

TRIALS = {"r1": ("a1", "a2", "a3", "a4"), "r2": ("b1", "b2", "b3", "b4")}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    readers = [Reader("r1", "Anna", hashed("one")), Reader("r2", "Ben", hashed("two"))]
    create(tmp_path / "answers.sqlite", readers, TRIALS, {"config": "c", "key": "k"})
    return tmp_path / "answers.sqlite"


def opened(path: Path) -> Answers:
    return Answers(path, KEY, Clock())


def filled(path: Path) -> None:
    """Six rows."""
    with opened(path) as answers:
        for i, trial in enumerate(("a1", "a2")):
            answers.answer("r1", trial, {"score": i + 1}, seconds=2.5, request=trial)
            answers.answer("r2", TRIALS["r2"][i], {"score": 5 - i}, seconds=1.5, request=trial)
        answers.undo("r1", request="u")
        answers.answer("r1", "a2", {"score": 4}, seconds=1.0, request="again")


def test_an_answer_under_the_name_of_another_message_is_never_acknowledged(path: Path) -> None:
    """As two devices would send that both count from 1."""
    with opened(path) as answers:
        first = answers.answer("r1", "a1", {"score": 1}, seconds=1, request="1")
        assert answers.answer("r1", "a1", {"score": 1}, seconds=2, request="1") == first
        for trial, score in (("a2", 1), ("a1", 2)):
            with pytest.raises(Conflict, match="was another message"):
                answers.answer("r1", trial, {"score": score}, seconds=1, request="1")
        with pytest.raises(Conflict, match="was another message"):
            answers.undo("r1", request="1")
        assert len(answers.rows()) == 1 and answers.verify() == ""


def test_what_no_file_can_hold_is_no_name_of_a_request_and_no_device(path: Path) -> None:
    with opened(path) as answers:
        for request in ("", "x" * 101, "\ud800", "a\0"):
            with pytest.raises(UsageError, match="new ones each time"):
                answers.answer("r1", "a1", {"score": 1}, seconds=1, request=request)
        answers.answer("r1", "a1", {"score": 1}, seconds=1, request="1", device="\ud800 phone\n")
        assert answers.rows()[0].device == "? phone?" and answers.verify() == ""


def test_what_would_be_stored_in_a_file_that_is_gone_is_refused(path: Path) -> None:
    with opened(path) as answers:
        answers.answer("r1", "a1", {"score": 1}, seconds=1, request="x")
        path.rename(path.with_name("before"))
        with pytest.raises(FabricaError, match="another file by now"):
            answers.answer("r1", "a2", {"score": 1}, seconds=1, request="y")
        path.with_name("before").rename(path)
        answers.answer("r1", "a2", {"score": 1}, seconds=1, request="y")


def test_answers_come_in_order_once_and_last_ones_can_be_taken_back(path: Path) -> None:
    with opened(path) as answers:
        assert answers.reader_of("one") == "r1" and answers.reader_of("three") is answers.reader_of("") is None
        assert answers.next_trial("r1") == "a1" and answers.last().seq == 0
        with pytest.raises(UsageError, match=r"no trial 'b1' of this reader"):
            answers.answer("r1", "b1", {"score": 1}, seconds=1, request="x")
        with pytest.raises(UsageError, match=r"seconds"):
            answers.answer("r1", "a1", {"score": 1}, seconds=float("nan"), request="x")
        with pytest.raises(Conflict, match=r"no answer to take back"):
            answers.undo("r1", request="x")
        first = answers.answer("r1", "a1", {"score": 1}, seconds=1, request="x")
        assert answers.answer("r1", "a1", {"score": 1}, seconds=1, request="x") == first  # sent again, stored once
        with pytest.raises(Conflict, match=r"has an answer already"):
            answers.answer("r1", "a1", {"score": 2}, seconds=1, request="y")
        answers.undo("r1", request="z")
        assert answers.next_trial("r1") == "a1" and answers.answered("r1") == ()
        with pytest.raises(Conflict):
            answers.undo("r1", request="zz")
        answers.answer("r1", "a1", {"score": 3}, seconds=1, request="w")
        kept = [(row.kind, row.attempt) for row in answers.rows()]
        assert kept == [("answer", 0), ("late", 0), ("undo", 0), ("answer", 1)]
        for trial in TRIALS["r1"][1:]:
            answers.answer("r1", trial, {"score": 3}, seconds=1, request=trial)
        assert answers.next_trial("r1") is None and answers.next_trial("r2") == "b1"
        assert answers.verify() == ""


def test_what_comes_too_late_is_kept_and_counts_for_nothing(path: Path) -> None:
    with opened(path) as answers:
        answers.answer("r1", "a1", {"score": 1}, seconds=1, request="one", device="A")
        for trial, said in (
            ("a1", "has an answer already"),
            ("a1", "was not the next one"),
            ("a3", "not the next one"),
        ):
            with pytest.raises(Conflict, match=said):  # the second time it is the same message, sent again
                answers.answer("r1", trial, {"score": 5}, seconds=2, request=f"late {trial}", device="B")
        with pytest.raises(Conflict, match="has an answer already"):
            answers.answer("r1", "a1", {"score": 4}, seconds=2, request="another", device="B")
        kept = [(row.kind, row.trial, row.answer["score"], row.device) for row in answers.rows()]
        assert kept == [
            ("answer", "a1", 1, "A"),
            ("late", "a1", 5, "B"),
            ("late", "a3", 5, "B"),
            ("late", "a1", 4, "B"),
        ]
        assert answers.answered("r1") == ("a1",) and answers.next_trial("r1") == "a2" and answers.verify() == ""
        assert answers.may_undo("r1") == "a1"
        answers.undo("r1", request="back", device="A")
        assert answers.next_trial("r1") == "a1" and answers.answered("r1") == () and answers.may_undo("r1") is None


def test_what_waits_while_a_study_is_taken_away_is_refused(path: Path) -> None:
    with opened(path) as one, opened(path) as two, ThreadPoolExecutor(1) as pool:
        with one.held():
            waiting = pool.submit(two.answer, "r1", "a1", {"score": 1}, seconds=1, request="x")
            time.sleep(0.1)
            assert not waiting.done()
            path.rename(path.with_name("before"))
        with pytest.raises(FabricaError, match="another file by now"):
            waiting.result()


def test_tokens_are_kept_hashed(path: Path) -> None:
    assert b"one" not in path.read_bytes() and hashed("one").encode() in path.read_bytes()
    assert len({new_token() for _ in range(100)}) == 100 and len(new_token()) >= 32


def test_two_tabs_cannot_answer_twice(path: Path) -> None:
    """Sixteen senders of one reader, on connections of their own: one is stored, and the others are told."""
    with opened(path) as one, opened(path) as two:

        def send(number: int) -> bool:
            try:
                (one, two)[number % 2].answer("r1", "a1", {"score": number % 5 + 1}, seconds=1, request=f"n{number}")
            except Conflict:
                return False
            return True

        with ThreadPoolExecutor(8) as pool:
            assert sum(pool.map(send, range(16))) == 1
        kinds = [row.kind for row in one.rows()]
        assert kinds.count("answer") == 1 and kinds.count("late") == 15 and one.verify() == ""


def test_an_acknowledged_answer_outlives_a_killed_process(path: Path) -> None:
    code = (
        "import os, sys; from pathlib import Path; from fabrica.serving.study.answers import Answers\n"
        "answers = Answers(Path(sys.argv[1]), bytes(range(32)))\n"
        "answers.answer('r1', 'a1', {'score': 3}, seconds=1, request='q'); os.kill(os.getpid(), 9)"
    )
    assert subprocess.run([sys.executable, "-c", code, str(path)]).returncode == -9
    with opened(path) as answers:
        assert [row.answer for row in answers.rows()] == [{"score": 3}] and answers.verify() == ""


def test_nothing_is_overwritten(path: Path) -> None:
    filled(path)
    with sqlite3.connect(path) as db:
        for order in ("UPDATE answers SET seconds = 0", "DELETE FROM answers"):
            with pytest.raises(sqlite3.IntegrityError, match=r"never"):
                db.execute(order)
    db.close()


CHANGES = {  # what somebody does to the file -> how it is reported
    "UPDATE answers SET answer = '{\"score\":5}' WHERE seq = 3": "row 3 of the answers (reader Anna, trial a2",
    "UPDATE answers SET answer = 'none' WHERE seq = 3": "row 3 of the answers was changed",
    "UPDATE answers SET seconds = 9 WHERE seq = 6": "row 6 of the answers (reader Anna, trial a2",
    "UPDATE answers SET at = '2025-01-01' WHERE seq = 2": "row 2 of the answers (reader Ben, trial b1, 2025",
    "UPDATE answers SET hash = 'x' WHERE seq = 2": "row 2 of the answers",
    "UPDATE answers SET kind = 'undo' WHERE seq = 4": "row 4 of the answers",
    "DELETE FROM answers WHERE seq = 2": "rows 2 to 2 of the answers are missing",
    "DELETE FROM answers WHERE seq >= 5": "rows 5 to 6 of the answers, the last ones, are missing",
    "DELETE FROM answers": "rows 1 to 6 of the answers, the last ones, are missing",
    "UPDATE trials SET place = 9 WHERE trial = 'a1'": "or readers, trials or config of the study were",
    "UPDATE about SET value = 'd' WHERE name = 'config'": "or readers, trials or config of the study were",
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_is_named(change: str, path: Path) -> None:
    filled(path)
    with opened(path) as answers:
        assert answers.verify() == "" and len(answers.rows()) == 6
    with sqlite3.connect(path) as db:
        db.execute("DROP TRIGGER answers_stay")
        db.execute("DROP TRIGGER answers_last")
        db.execute(change)
    db.close()
    with opened(path) as answers:
        assert CHANGES[change] in answers.verify() and "\n" not in answers.verify()


def test_rows_of_another_key_do_not_pass(path: Path) -> None:
    filled(path)
    with Answers(path, bytes(32)) as answers:
        assert answers.verify().startswith("row 1 of the answers")


@pytest.mark.parametrize("kept", [0, 60, 5000])
def test_a_file_that_was_cut_is_one_line(kept: int, path: Path) -> None:
    filled(path)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(FabricaError, match=r"answers") as raised, opened(path) as answers:
        if said := answers.verify():
            raise FabricaError(said)
    assert "\n" not in str(raised.value)
