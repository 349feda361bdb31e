"""Clients that ask and then do not read: the connection ends, its place is free, and the log says why."""

from __future__ import annotations

import asyncio
import io
import json
import socket
import time
from contextlib import AsyncExitStack, suppress
from pathlib import Path

import pytest
from starlette.types import Message

from fabrica.serving.http import uploads
from fabrica.serving.http.access import Access
from fabrica.serving.http.crew import Crew
from fabrica.serving.http.line import Line
from fabrica.serving.http.routes import ResultFile
from fabrica.serving.http.service import Limits, Service
from fabrica.serving.http.tasks import Made, Served
from fabrica.serving.http.telemetry import Log, Metrics
from tests.serving.http.started import by_hand, started


@pytest.mark.parametrize("begun", [False, True], ids=["before the first byte", "after it"])
def test_who_reads_nothing_is_cut_off_and_told_nothing_more(tmp_path: Path, begun: bool) -> None:
    (tmp_path / "made.png").write_bytes(bytes(1000))
    patience = 2.0 if begun else 0.1
    told, sent, ended = io.StringIO(), list[Message](), list[str]()
    line = Line(1)
    crew = Crew(line, [], lambda folder, precision: None)
    service = Service(line, crew, Access(), Limits(patience=patience), Metrics(line), Log(told), tmp_path)

    async def read_by_nobody() -> None:
        gone = asyncio.Event()

        async def send(message: Message) -> None:
            sent.append(message)
            if not begun or message["type"] == "http.response.body":
                await gone.wait()

        async def receive() -> Message:
            await gone.wait()
            return {"type": "http.disconnect"}

        def cut() -> None:
            ended.append("cut")
            gone.set()

        stack = AsyncExitStack()
        stack.enter_context(line.place())
        stack.callback(ended.append, "removed")
        scope = {"type": "http", "method": "POST", "headers": [], "served": "m", "state": {"cut": cut}}
        answer = ResultFile(Made(tmp_path / "made.png", "image/png"), Served("m", "m", "0"), stack, service)
        await answer(scope, receive, send)

    asyncio.run(asyncio.wait_for(read_by_nobody(), 10))
    assert ended == ["cut", "removed"] and line.taken == 0
    said = json.loads(told.getvalue())
    assert said["event"] == "read too slowly" and said["model"] == "m"
    assert said["seconds"] == pytest.approx(patience + 1000 / uploads.SLOWEST, abs=1e-3)
    assert {message["type"] for message in sent} == {"http.response.start", *["http.response.body"] * begun}


@pytest.mark.slow
def test_the_connection_ends(tmp_path: Path) -> None:
    """More than the kernel takes for a client, who asks for it and reads nothing."""
    for name in ("large", "scratch"):
        (tmp_path / name).mkdir()
    command = by_hand(tmp_path / "scratch", tmp_path / "large", patience=0.5)
    command[2] = f"from fabrica.serving.http import uploads; uploads.SLOWEST = 2**24\n{command[2]}"
    body = json.dumps({"n": 12, "label": "effusion"}).encode()  # 12 MB
    with started(command) as server, socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.connect(server.host)
        asked = f"POST /v1/sample HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n"
        client.sendall(asked.encode() + body)
        end = time.monotonic() + 60
        lines: list[str] = []
        while time.monotonic() < end and len(lines) < 2:
            time.sleep(0.1)
            said = [json.loads(each) for each in server.log.read_text().splitlines()]
            lines = [each["event"] for each in said if each.get("model") == "large"]
        assert lines == ["read too slowly", "request"]
        client.settimeout(20)
        came = 0
        with suppress(ConnectionResetError):
            while some := client.recv(2**20):  # what the kernel had taken before
                came += len(some)
        assert came < 9_000_000
        with server.client() as other:
            assert "fabrica_places_taken 0.0" in other.get("metrics").text
        (place,) = (tmp_path / "scratch").iterdir()
        assert not list(place.iterdir())
