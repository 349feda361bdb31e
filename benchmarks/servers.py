"""A server that a benchmark asks: started, and what its processes take of memory."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.request import urlopen

CORE = os.environ.get("SERVER_CORE", "")
"""The processor that the server and its processes have to themselves as far as the benchmark goes; "": any."""


@contextmanager
def served(*models: Path, places: int, batch: int = 16) -> Iterator[tuple[tuple[str, int], int]]:
    """A server of these models, ready: its address and the number of its process."""
    words = ["taskset", "-c", CORE] if CORE else []
    words += [sys.executable, "-m", "fabrica", "serve", *map(str, models), "--port", "0"]
    words += ["--queue", str(places), "--batch", str(batch)]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert process.stdout is not None
    url = process.stdout.readline().split()[-1]
    try:
        while True:
            try:
                with urlopen(f"{url}v2/health/ready") as answer:
                    if answer.status == 200:
                        break
            except OSError:
                time.sleep(0.1)
        host, port = url.removeprefix("http://").rstrip("/").split(":")
        yield (host, int(port)), process.pid
    finally:
        process.terminate()
        process.wait(60)


def family(process: int) -> list[int]:
    """The numbers of a process and of all that came of it."""
    found, left = [], [process]
    while left:
        pid = left.pop()
        try:
            for thread in Path(f"/proc/{pid}/task").iterdir():
                left += map(int, (thread / "children").read_text().split())
            found.append(pid)
        except OSError:
            continue
    return found


def resident(process: int) -> float:
    """MiB of a process and its children, what they share counted once."""
    return _mib(process, "smaps_rollup", "Pss:", sum)


def peak(process: int) -> float:
    """The most MiB that any of these processes has held at once since it began."""
    return _mib(process, "status", "VmHWM:", max)


def _mib(process: int, file: str, key: str, of: Callable[[list[int]], int]) -> float:
    found = []
    for pid in family(process):
        try:
            lines = Path(f"/proc/{pid}/{file}").read_text().splitlines()
        except OSError:
            continue
        found.append(sum(int(line.split()[1]) for line in lines if line.startswith(key)))
    return of(found) / 1024 if found else 0.0
