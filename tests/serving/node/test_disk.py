"""A store whose disk is full, or that turns read-only, while the node runs: said in a line, and nothing is lost."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

pytest.importorskip("pynetdicom")
pytest.importorskip("onnxruntime")
pytest.importorskip("onnx")

from fabrica import runtime
from fabrica.serving.node import node as parts
from fabrica.serving.node import rules
from fabrica.serving.node.intake import Patience
from fabrica.serving.node.node import Node, Settings
from fabrica.serving.node.terms import Terms
from tests.dicom_network import archive, ct, send, uid
from tests.handmade import handmade
from tests.orthanc import free_port

pytestmark = pytest.mark.slow

NO_ROOM = 0xA700
MEGABYTE = 2**20


def until(true: Callable[[], object], seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it never came to that"
        time.sleep(0.05)


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A file system of 24 MB."""
    place = tmp_path / "small"
    place.mkdir()
    mount = shutil.which("mount")
    if (
        not mount
        or subprocess.run([mount, "-t", "tmpfs", "-o", "size=24m", "tmpfs", place], capture_output=True).returncode
    ):
        pytest.skip("a file system of its own cannot be mounted here")
    yield place
    subprocess.run(["umount", "--lazy", place], check=True)


def test_a_full_disk_loses_nothing(small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was accepted has its result once there is room again; the rest was told that there is none."""
    monkeypatch.setattr(parts, "TROUBLE", 0.5)
    said: list[str] = []
    store = small / "store"
    terms = Terms("FABRICA", store / "incoming", spare=0, timeout=20)
    with archive() as found:
        settings = Settings(store, "FABRICA", "127.0.0.1", 0, found.peer, terms, None, Patience(0.3, 1), receivers=1)
        node = Node(settings, said.append)
        node.start(runtime.opened, [handmade(tmp_path / "model")], rules.every)
        try:
            ballast = small / "ballast"
            left = shutil.disk_usage(small).free
            with ballast.open("wb") as file:
                file.write(bytes(left - 3 * MEGABYTE))
            statuses = {name: send([ct(name, 1, size=512)], node.port)[0] for name in map(str, range(12))}
            assert set(statuses.values()) == {0, NO_ROOM}
            until(lambda: any("the store refuses" in line for line in said))
            time.sleep(3 * parts.TROUBLE)
            assert sum("the store refuses results" in line for line in said) <= 1  # once, however long it lasts
            ballast.unlink()
            accepted = {uid(name, "study") for name, status in statuses.items() if status == 0}
            until(lambda: len(found.stored) >= len(accepted))
            assert send([ct("later", 1)], node.port) == [0]
            until(lambda: len(found.stored) == len(accepted) + 1)
            assert all(len(sent) == 1 for sent in found.stored.values())
            assert not any("dead letter" in line for line in said)
            assert node.failed is None
        finally:
            node.stop()


def bound() -> list[str]:
    """What runs a command to which rules of access apply, as they do to all but root."""
    if os.geteuid():
        return []
    if not (setpriv := shutil.which("setpriv")):
        pytest.skip("nothing is read-only to root, and setpriv is not installed")
    return [setpriv, "--bounding-set", "-dac_override,-dac_read_search"]


def test_a_store_that_turns_read_only(tmp_path: Path) -> None:
    model, store, port = handmade(tmp_path / "model"), tmp_path / "store", free_port()
    with archive() as found, (tmp_path / "log").open("w") as log:
        words = [*bound(), sys.executable, "-m", "fabrica", "node", model, "--store", store, "--send-to", found.peer]
        words += ["--archive", "none", "--port", port, "--spare", 0, "--receivers", 1, "--quiet", 0.3]
        process = subprocess.Popen(list(map(str, words)), stderr=log)

        def said() -> str:
            return (tmp_path / "log").read_text()

        try:
            until(lambda: "listens at" in said())
            assert send([ct("before", 1)], port) == [0]
            until(lambda: len(found.stored) == 1)
            folders = [store, *(path for path in store.rglob("*") if path.is_dir())]
            for each in folders:
                each.chmod(0o555)
            assert send([ct("meanwhile", 1)], port) == [NO_ROOM]
            assert said().count("refused an object of SCANNER: Permission denied") == 1
            for each in folders:
                each.chmod(0o755)
            assert send([ct("meanwhile", 1)], port) == [0]
            until(lambda: len(found.stored) == 2)
        finally:
            process.terminate()
            process.wait(30)
