"""A study over HTTP: who is let in, what is told, and that what was acknowledged is stored whatever happens then."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from fabrica.errors import FabricaError, UsageError
from fabrica.serving.http.access import Access, access
from fabrica.serving.study.folder import Study
from fabrica.serving.study.routes import AHEAD, LARGEST
from fabrica.serving.study.server import serve
from tests.command import call
from tests.serving.http.browser import CHROMIUM
from tests.serving.study.made import arms, config_of, study
from tests.serving.study.served import Server, answered, served
from tests.serving.study.together import lost, read_together

READERS = ["asking", "answering", "practising", "sending"]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Study:
    home: Path = tmp_path_factory.mktemp("serving")
    arms(home, 6)
    config = config_of("clarity", readers=READERS, title="Secret", training={"case00": [4, 5]}, repeats=2, adjust=False)
    return study(home, config)


@pytest.fixture(scope="module")
def server(made: Study, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with served(made, tmp_path_factory.mktemp("log") / "log") as found:
        yield found


def reader_called(made: Study, name: str) -> str:
    with made.answers() as answers:
        return next(r.reader for r in answers.readers.values() if r.name == name)


def test_nobody_is_let_in_without_a_token_and_the_page_tells_nothing(server: Server) -> None:
    with server.client() as client:
        page = client.get("")
        assert page.status_code == 200 and "Secret" not in page.text
        assert "script-src 'self'" in page.headers["content-security-policy"]
        for path in ("v1/session", "v1/trials/a/images/0"):
            assert client.get(path).status_code == 401
            assert client.get(path, headers={"Authorization": f"Bearer {'x' * 32}"}).status_code == 401
        for path in ("v1/answer", "v1/undo"):
            assert client.post(path, json={}).status_code == 401
        assert client.get("page/../key/secret").status_code == 404
        assert client.get("page/links.csv").status_code == 404
    with server.client("asking") as client:
        assert client.get("v1/session", headers={"Host": "elsewhere.example"}).status_code == 403
        assert client.post("v1/undo", json={}, headers={"Origin": "https://elsewhere.example"}).status_code == 403
        assert client.get("v1/undo").status_code == 405
    log = server.log.read_text()
    assert "asking" not in log and not any(token in log for token in server.tokens.values())


def test_what_a_browser_gets_tells_no_arm(made: Study, server: Server) -> None:
    with server.client("asking") as client:
        said = client.get("v1/session")
        assert said.json()["study"]["adjust"] is False
        hidden = {i.file for i in made.images} | {"degraded", "reference", *(t.case for t in made.trials)}
        assert not [each for each in hidden if each in said.text]
        headers = []
        for trial in [said.json()["trial"], *said.json()["ahead"]]:
            got = client.get(f"v1/trials/{trial['trial']}/images/0")
            assert got.content == made.image(reader_called(made, "asking"), trial["trial"], 0).read_bytes()
            headers.append({k: v for k, v in got.headers.items() if k != "date"})
        assert len(headers) == 1 + AHEAD and all(each == headers[0] for each in headers)
        assert headers[0]["cache-control"] == "no-store" and "etag" not in headers[0]
        own = made.told(reader_called(made, "asking"))
        assert client.get(f"v1/trials/{own[2 + AHEAD]['trial']}/images/0").status_code == 409
        assert client.get(f"v1/trials/{own[0]['trial']}/images/1").status_code == 404
        assert client.get(f"v1/trials/{own[0]['trial']}/images/-1").status_code == 404
        other = made.told(reader_called(made, "sending"))[0]["trial"]
        assert client.get(f"v1/trials/{other}/images/0").status_code == 404
        file = made.images[0].file
        assert client.get(f"v1/trials/{file}/images/0").status_code == 404


def test_of_two_tabs_one_answers_and_the_last_answer_can_be_taken_back_once(made: Study, server: Server) -> None:
    with server.client("answering") as client, server.client("answering") as tab:
        first = client.get("v1/session").json()
        assert (first["done"], first["may_undo"], first["reader"]) == (0, False, "answering")
        assert client.post("v1/undo", json={"request": "none"}).status_code == 409
        trial = first["trial"]["trial"]
        stored = answered(client, trial, "one", {"score": 2}).json()
        assert stored["done"] == 1 and stored["may_undo"] and stored["trial"] == first["ahead"][0]
        again = answered(client, trial, "one", {"score": 2})  # the acknowledgement was lost
        assert again.json() == stored
        assert answered(tab, trial, "two", {"score": 5}).status_code == 409
        undone = client.post("v1/undo", json={"request": "three", "device": "test"}).json()
        assert undone["trial"]["trial"] == trial and not undone["may_undo"]
        assert client.post("v1/undo", json={"request": "four"}).status_code == 409
        changed = answered(tab, trial, "five", {"score": 3}).json()
        assert tab.get("v1/session").json()["done"] == client.get("v1/session").json()["done"] == changed["done"] == 1
    with made.answers() as answers:
        own = [row for row in answers.rows() if row.reader == reader_called(made, "answering")]
        said = [(row.kind, row.answer.get("score")) for row in own]
        assert said == [("answer", 2), ("late", 5), ("undo", None), ("answer", 3)]
        assert own[0].seconds == 1.5 and own[0].device == "test" and answers.verify() == ""


def test_only_practice_is_told_what_is_right(made: Study, server: Server) -> None:
    with server.client("practising") as client:
        state = client.get("v1/session").json()
        told = []
        while state["trial"]:
            practice = state["trial"]["practice"]
            state = answered(client, state["trial"]["trial"], str(state["done"]), {"score": 1}).json()
            told.append((practice, state["feedback"]))
        assert state["done"] == state["total"] == len(told) and state["ahead"] == []
        right = {"right": [4, 5]}
        assert told == [(True, right)] + [(False, None)] * (len(told) - 1)
        last = made.told(reader_called(made, "practising"))[-1]["trial"]
        assert client.get(f"v1/trials/{last}/images/0").status_code == 200
        assert client.get("v1/session").json()["trial"] is None


@pytest.mark.parametrize(
    ("answer", "more", "status"),
    [
        ({"score": 6}, {}, 422),
        ({"score": "3"}, {}, 422),
        ({"score": 3, "choice": 1}, {}, 422),
        ({"score": 3}, {"seconds": -1}, 422),
        ({"score": 3}, {"seconds": "long"}, 422),
        ({"score": 3}, {"request": ""}, 422),
        ({"score": 3}, {"request": 7}, 422),
        ({"score": 3}, {"trial": "another"}, 404),
        ({"score": 3}, {"device": "x" * LARGEST}, 413),
    ],
)
def test_what_is_no_answer_is_refused_and_stores_nothing(
    made: Study, server: Server, answer: object, more: dict[str, object], status: int
) -> None:
    with server.client("sending") as client:
        trial = client.get("v1/session").json()["trial"]["trial"]
        got = answered(client, trial, "r", answer, **more)
        assert got.status_code == status and "\n" not in got.json()["error"]
        assert client.post("v1/answer", content=b'{"trial"').status_code == 422
        assert client.get("v1/session").json()["done"] == 0


def test_what_was_acknowledged_outlives_a_server_that_is_killed(tmp_path: Path) -> None:
    """Readers at once over HTTP, who send an answer until it is acknowledged, and a server that is killed twice."""
    arms(tmp_path, 3)
    of = study(tmp_path, config_of("clarity", readers=4))
    seen = read_together(of, tmp_path / "log", kills=2)
    assert seen.kills == 2 and seen.answers == len(of.trials) == 4 * 6 and lost(of, seen) == []
    with of.answers() as answers:
        assert len(answers.rows()) == seen.answers  # each once, however often it was sent


@pytest.mark.slow
@pytest.mark.skipif(not CHROMIUM, reason="needs Chromium")
def test_a_browser_among_the_readers_loses_nothing_either(tmp_path: Path) -> None:
    arms(tmp_path, 3)
    of = study(tmp_path, config_of("clarity", readers=4))
    seen = read_together(of, tmp_path / "log", in_browser="reader 2", think=0.5, kills=1)
    assert seen.answers == len(of.trials) and lost(of, seen) == []
    assert len(seen.typed) == len(seen.showing) + len(seen.interrupted) == 6


def test_changed_answers_are_not_served(made: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fabrica.serving.study.answers.Answers.verify", lambda self: "row 3 was changed")
    with pytest.raises(FabricaError, match="row 3 was changed; put a copy back"):
        serve(made, Access(), 0, listening=lambda where: pytest.fail("it listens"))


def test_readers_tokens_are_enough_beyond_this_machine() -> None:
    with pytest.raises(UsageError, match="token is needed"):
        access("0.0.0.0", None, {})
    assert access("0.0.0.0", None, {}, ["Study.example"], personal=True).names == {"study.example"}


def test_what_is_no_study_is_said(tmp_path: Path) -> None:
    done = call("study", "serve", tmp_path)
    assert done.returncode == 2 and "fabrica study new" in done.stderr
