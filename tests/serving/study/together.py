"""Readers who answer at once, one in a browser and others over HTTP, while the server is killed and started again."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event
from typing import Any

import httpx
import numpy as np

from fabrica.serving.study.folder import Study
from tests.serving.http.browser import browser
from tests.serving.study.served import Server, served, tokens_of

TIMED = """(() => {
    window.took = [];
    let began = null;
    performance.setResourceTimingBufferSize(20000);
    addEventListener("keydown", () => { began = performance.now(); }, true);
    new MutationObserver(() => {
        if (began === null || !["ready", "done"].includes(document.body.dataset.state)) return;
        const from = began;
        began = null;
        requestAnimationFrame(() => {
            const after = new MessageChannel();
            after.port1.onmessage = () => took.push(performance.now() - from);
            after.port2.postMessage(0);
        });
    }).observe(document.body, { attributes: true, attributeFilter: ["data-state"] });
})()"""
"""Milliseconds from a key to the frame that shows the next image, of each answer."""
FETCHED = "performance.getEntriesByType('resource').filter((e) => e.name.includes('/images/')).length"
AGAIN = 0.05  # seconds after which a client sends what was not acknowledged


@dataclass(frozen=True)
class Acknowledged:
    """An answer that the server said is stored: its trial, what was said, and the row's number and hash."""

    trial: str
    answer: dict[str, Any]
    receipt: tuple[int, str]


@dataclass
class Seen:
    """What readers saw.

    acknowledged   of each reader over HTTP.
    typed          scores of the reader in the browser, in order.
    showing        milliseconds from his key to the frame with the next image; interrupted: the same of answers during
                   which the server was killed.
    storing        milliseconds from sending an answer to its acknowledgement, of clients while the server lived.
    """

    acknowledged: dict[str, list[Acknowledged]] = field(default_factory=dict)
    typed: list[int] = field(default_factory=list)
    showing: list[float] = field(default_factory=list)
    interrupted: list[float] = field(default_factory=list)
    storing: list[float] = field(default_factory=list)
    kills: int = 0
    down: Event = field(default_factory=Event)  # from a kill until the server answers again
    over: Event = field(default_factory=Event)  # nobody goes on
    looking: Event = field(default_factory=Event)  # the page is in the browser

    @property
    def answers(self) -> int:
        return len(self.typed) + sum(map(len, self.acknowledged.values()))


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def read_together(
    made: Study, log: Path, *, in_browser: str = "", think: float = 0.0, kills: int = 0, scores: int = 5
) -> Seen:
    """Every reader answers all his trials; `kills` times, evenly over the answers, the server is ended by SIGKILL.

    in_browser  who reads in Chromium; "" nobody. think: mean seconds for which readers look at an image.
    """
    tokens, seen = tokens_of(made), Seen()
    url = f"http://127.0.0.1:{free_port()}/"
    total = len(made.trials)
    others = [name for name in tokens if name != in_browser]
    seen.acknowledged = {name: [] for name in others}
    with ThreadPoolExecutor(len(tokens)) as pool:
        working: list[Future[None]] = []
        try:
            for life in range(kills + 1):
                with served(made, log, url) as server:
                    seen.down.clear()
                    if in_browser and not working:  # a page that is there outlives the server, one that is not does not
                        working = [pool.submit(_looks, server, in_browser, made, seen, think, scores)]
                        while not seen.looking.wait(0.05):
                            _check(working)
                    if len(working) < len(tokens):
                        working += [pool.submit(_reads, url, tokens[n], seen, n, think, scores) for n in others]
                    until = total * (life + 1) // (kills + 1)
                    while seen.answers < until:
                        _check(working)
                        time.sleep(0.01)
                    if life < kills:
                        seen.down.set()
                        seen.kills += 1
                        server.process.kill()
                        server.process.wait()
                    else:
                        for each in working:
                            each.result()
        finally:
            seen.over.set()
    return seen


def _check(working: list[Future[None]]) -> None:
    for each in working:
        if each.done():
            each.result()  # raises what ended it


def lost(made: Study, seen: Seen) -> list[str]:
    """What is not as it was acknowledged, in words; and whatever is wrong with the chain."""
    with made.answers() as answers:
        found = [broken] if (broken := answers.verify()) else []
        rows, names = {row.seq: row for row in answers.rows()}, {r.name: r.reader for r in answers.readers.values()}
    for name, acknowledged in seen.acknowledged.items():
        for each in acknowledged:
            row = rows.get(each.receipt[0])
            if row is None or (row.hash, row.reader, row.trial, row.answer) != (
                each.receipt[1],
                names[name],
                each.trial,
                each.answer,
            ):
                found.append(f"{name}, trial {each.trial}: acknowledged as row {each.receipt[0]}, which is {row}")
    (looking,) = set(names) - set(seen.acknowledged) or {""}
    if looking:
        stored = [row.answer["score"] for row in rows.values() if row.reader == names[looking]]
        if stored != seen.typed:
            found.append(f"{looking} typed {seen.typed}; stored are {stored}")
    if len({(row.reader, row.trial) for row in rows.values()}) != len(rows):
        found.append("a trial was answered twice")
    return found


def _reads(url: str, token: str, seen: Seen, name: str, think: float, scores: int) -> None:
    """As the page does: the images of the trials that follow are fetched, an answer is sent until it is acknowledged,
    under one name."""
    rng, own = np.random.default_rng([*name.encode()]), seen.acknowledged[name]
    fetched: set[str] = set()
    with httpx.Client(
        base_url=url, headers={"Authorization": f"Bearer {token}"}, timeout=60, trust_env=False
    ) as client:
        state = _until_answered(seen, lambda: client.get("v1/session"))
        while state["trial"]:
            for trial in [state["trial"], *state["ahead"]]:
                if trial["trial"] not in fetched:
                    path = f"v1/trials/{trial['trial']}/images/0"
                    _until_answered(seen, lambda path=path: client.get(path), json=False)
                    fetched.add(trial["trial"])
            if think:
                time.sleep(think * rng.uniform(0.5, 1.5))
            said = {"score": int(rng.integers(1, scores + 1))}
            message = {"trial": state["trial"]["trial"], "answer": said, "seconds": think, "device": "client"}
            message["request"] = f"{name} {len(own)}".replace(" ", "-")
            began, kills, lived = time.perf_counter(), seen.kills, not seen.down.is_set()
            state = _until_answered(seen, lambda message=message: client.post("v1/answer", json=message))
            if lived and kills == seen.kills and not seen.down.is_set():
                seen.storing.append(1e3 * (time.perf_counter() - began))
            own.append(Acknowledged(str(message["trial"]), said, tuple(state["receipt"])))


def _until_answered(seen: Seen, ask: Callable[[], httpx.Response], json: bool = True) -> Any:
    while not seen.over.is_set():
        try:
            answer = ask()
        except httpx.TransportError:
            time.sleep(AGAIN)
            continue
        assert answer.status_code == 200, answer.text
        return answer.json() if json else None
    raise AssertionError("another reader could not go on")


def _looks(server: Server, name: str, made: Study, seen: Seen, think: float, scores: int) -> None:
    """Types a score once the images of the trials that follow are there, and waits for the next image."""
    rng = np.random.default_rng(0)
    total = len(made.told(_reader(made, name)))
    with browser() as page:
        page.open(server.link(name))
        page.until("document.body.dataset.state === 'ready'")
        page.evaluate(TIMED)
        seen.looking.set()
        for number in range(total):
            page.until(f"{FETCHED} >= {min(number + 3, total)}")
            if think:
                time.sleep(think * rng.uniform(0.5, 1.5))
            score, kills, lived = int(rng.integers(1, scores + 1)), seen.kills, not seen.down.is_set()
            page.key(str(score))
            page.until(f"window.took.length > {number} && document.getElementById('bar').value > {number}")
            took = float(page.evaluate(f"window.took[{number}]"))
            lived = lived and kills == seen.kills and not seen.down.is_set()
            (seen.showing if lived else seen.interrupted).append(took)
            seen.typed.append(score)
        page.until("document.body.dataset.state === 'done'")
        assert all("Failed to load resource" in line for line in page.complaints), page.complaints


def _reader(made: Study, name: str) -> str:
    with made.answers() as answers:
        return next(r.reader for r in answers.readers.values() if r.name == name)
