"""`fabrica apply --watch` in processes of its own: stopped, killed and started again, on one core, in little memory."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from fabrica import io
from fabrica.phantoms.head.head import head
from tests.command import CLI
from tests.handmade import handmade

pytestmark = pytest.mark.slow
LIMIT = 240.0  # seconds, of a test that waits


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return handmade(tmp_path_factory.mktemp("exported") / "model")


def started(model: Path, inbox: Path, out: Path, *more: str) -> subprocess.Popen[str]:
    words = [*CLI, "apply", model, inbox, "-o", out, "--watch", "--quiet", "0.2", "--force", "--json", *more]
    pinned = {min(os.sched_getaffinity(0))}  # one core, as taskset does
    return subprocess.Popen(
        list(map(str, words)),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: os.sched_setaffinity(0, pinned),
    )


def until(what: Callable[[], bool]) -> None:
    end = time.monotonic() + LIMIT
    while not what():
        assert time.monotonic() < end, "it took too long"
        time.sleep(0.05)


def results(out: Path) -> list[str]:
    return sorted(path.parent.name for path in out.glob("[!.]*/result.json"))


def test_kills_and_stops_lose_and_repeat_nothing(model: Path, tmp_path: Path) -> None:
    """Twenty images come in while the process is killed and stopped at random and started again."""
    inbox, out, count, rng = tmp_path / "in", tmp_path / "out", 20, random.Random(0)
    inbox.mkdir()
    ct, said = head(3, 32, 4, contrasts=["CT"]).images["CT"], list[str]()
    process = started(model, inbox, out)
    for k in range(count):
        io.write(ct.with_data(ct.data + k), inbox / f"{k}.nii.gz")
        if k % 5 == 4:
            until(lambda k=k: len(results(out)) > k - 4)  # type: ignore[misc]
            time.sleep(rng.uniform(0, 0.5))
            process.send_signal(signal.SIGKILL if k % 2 else signal.SIGTERM)
            printed, _ = process.communicate(timeout=LIMIT)
            said += printed.splitlines()
            process = started(model, inbox, out)
    (inbox / "damaged.nii.gz").write_bytes(b"\x1f\x8b nothing")
    until(lambda: len(results(out)) == count and len(list((out / "left-out").glob("*"))) == 1)
    time.sleep(1.5)  # another look, which finds nothing to do
    process.send_signal(signal.SIGINT)
    printed, warned = process.communicate(timeout=LIMIT)
    said += printed.splitlines()
    assert process.returncode == 0 and "20 images" not in warned and "left out" in warned
    names = [json.loads(line)["name"] for line in said]
    assert max(Counter(names).values()) == 1  # a kill may come between a result and its line, none is made again
    assert {name.rpartition("-")[0] for name in results(out)} == {str(k) for k in range(count)}
    for name in results(out):
        made = io.read(out / name / f"{name.rpartition('-')[0]}.nii.gz")
        assert made.size == ct.size and np.isfinite(made.data).all()
    assert not any((out / ".working").iterdir())


def test_memory_is_flat_and_below_two_gib(model: Path, tmp_path: Path) -> None:
    """The peak after many images is that after a few, on one core."""
    inbox, out = tmp_path / "in", tmp_path / "out"
    inbox.mkdir()
    image = head(3, 256, 24, contrasts=["CT"]).images["CT"]
    io.write(image, tmp_path / "one.nii.gz")
    process = started(model, inbox, out)
    peaks, status = [], Path(f"/proc/{process.pid}/status")
    for count in (3, 15):
        for k in range(len(results(out)), count):
            shutil.copyfile(tmp_path / "one.nii.gz", inbox / f"{k}.nii.gz")
        until(lambda count=count: len(results(out)) == count)  # type: ignore[misc]
        peaks.append(int(status.read_text().split("VmHWM:")[1].split()[0]) / 1024)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=LIMIT)
    assert process.returncode == 0
    assert peaks[1] < 1.1 * peaks[0] and peaks[1] < 2048, peaks
