"""A study served by the command line, in a process of its own on a free port of this machine."""

from __future__ import annotations

import csv
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from fabrica.serving.study.folder import KEY, Study
from tests.command import CLI


class Server:
    """Where it is, its process, and a client for each reader by the token of his link."""

    def __init__(self, url: str, process: subprocess.Popen[str], study: Study, log: Path) -> None:
        self.url, self.process, self.log, self.tokens = url, process, log, tokens_of(study)

    def client(self, reader: str = "", **headers: str) -> httpx.Client:
        own = {"Authorization": f"Bearer {self.tokens[reader]}"} if reader else {}
        return httpx.Client(base_url=self.url, headers={**own, **headers}, timeout=60, trust_env=False)

    def link(self, reader: str) -> str:
        return f"{self.url}#{self.tokens[reader]}"


def tokens_of(study: Study) -> dict[str, str]:
    """The secret of each reader's link."""
    with (study.folder / KEY / "links.csv").open(newline="", encoding="utf-8") as file:
        return {row["reader"]: row["token"] for row in csv.DictReader(file)}


@contextmanager
def served(study: Study, log: Path, url: str = "") -> Iterator[Server]:
    """Ready to answer, and ended afterwards. url: where; "": any free port of this machine."""
    port = url.rstrip("/").rpartition(":")[2] or "0"
    with log.open("a") as errors:
        command = [*CLI, "study", "serve", str(study.folder), "--port", port]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True)
    try:
        assert process.stdout is not None
        said = process.stdout.readline()
        assert said, log.read_text()
        server = Server(said.split()[-1], process, study, log)
        end = time.monotonic() + 60
        with server.client() as client:
            while client.get("health").status_code != 200:
                assert process.poll() is None and time.monotonic() < end, log.read_text()
                time.sleep(0.05)
        yield server
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if process.stdout:
            process.stdout.close()


def answered(client: httpx.Client, trial: str, request: str, answer: Any, /, **more: Any) -> httpx.Response:
    """An answer sent, as the page sends it."""
    return client.post(
        "v1/answer",
        json={"trial": trial, "answer": answer, "seconds": 1.5, "request": request, "device": "test", **more},
    )
