"""Servers as tests ask them: each in a process of its own, on a free port of this machine."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

import tests
from tests.command import CLI

ROOT = Path(next(iter(tests.__path__))).parent
BY_HAND = f"""
import sys
sys.path.insert(0, {str(ROOT)!r})
from pathlib import Path
from fabrica.serving.http.access import Access
from fabrica.serving.http.service import Limits
from fabrica.serving.http.server import Settings, named, serve
from tests.serving.http.opening import opened
settings = Settings(Access(token=TOKEN), port=0, places=PLACES, limits=Limits(**LIMITS), scratch=Path(sys.argv[1]))
serve(named(sys.argv[2:]), opened, settings, listening=lambda where: print(where, flush=True))
"""


@dataclass
class Server:
    """A server that runs: where it is, and where its lines of JSON go."""

    url: str
    process: subprocess.Popen[str]
    log: Path
    token: str = ""

    @property
    def host(self) -> tuple[str, int]:
        found = httpx.URL(self.url)
        return found.host, found.port or 80

    def client(self, **choices: Any) -> httpx.Client:
        headers = {"Authorization": f"Bearer {self.token}"} if self.token else {}
        return httpx.Client(base_url=self.url, headers=headers, timeout=60, trust_env=False, **choices)


def by_cli(*words: object) -> list[str]:
    return [*CLI, "serve", "--port", "0", *map(str, words)]


def by_hand(scratch: Path, *models: Path, token: str = "", places: int = 64, **limits: float) -> list[str]:
    """The models of `tests.serving.http.opening`."""
    code = BY_HAND.replace("TOKEN", repr(token)).replace("PLACES", str(places)).replace("LIMITS", repr(limits))
    return [sys.executable, "-c", code, str(scratch), *map(str, models)]


@contextmanager
def started(command: list[str], token: str = "", verify: Any = True) -> Iterator[Server]:
    """A server, ready to answer, and ended afterwards."""
    with tempfile.TemporaryDirectory() as place, (Path(place) / "log").open("w") as log:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)
        try:
            assert process.stdout is not None
            said = process.stdout.readline()
            assert said, (Path(place) / "log").read_text()
            server = Server(said.split()[-1], process, Path(place) / "log", token)
            with server.client(verify=verify) as client:
                while client.get("v2/health/ready").status_code != 200:
                    assert process.poll() is None, server.log.read_text()
                    time.sleep(0.1)
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


def family(server: Server) -> list[int]:
    """The numbers of a server's process and of those that it started."""
    tasks = Path(f"/proc/{server.process.pid}/task")
    threads = list(tasks.iterdir()) if tasks.exists() else []
    started_by = [int(child) for thread in threads for child in (thread / "children").read_text().split()]
    return [server.process.pid, *started_by]


def memory(server: Server) -> float:
    """MiB of these, what they share counted once; 0 where the system does not say."""
    total = 0
    for pid in family(server):
        rolled = Path(f"/proc/{pid}/smaps_rollup")
        lines = rolled.read_text().splitlines() if rolled.exists() else []
        total += sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return total / 1024
