"""Debian's Orthanc as an archive: in a network namespace of its own where that is possible, since it listens at all
addresses, else on free ports. `python -m tests.orthanc` (`make archive`) starts one until it is interrupted."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pydicom

PROGRAM = shutil.which("Orthanc")
DICOMWEB = next(
    (each for each in Path("/usr").glob("*/orthanc/plugins/libOrthancDicomWeb.so*") if each.is_file()), None
)
OWN = Path(sys.executable).parent  # where pynetdicom has programs of the names of DCMTK's, which say other things
OTHERS = os.pathsep.join(each for each in os.environ["PATH"].split(os.pathsep) if Path(each) != OWN)
MISSING = [name for name in ("Orthanc", "dcmsend", "findscu") if shutil.which(name, path=OTHERS) is None]


@dataclass
class Orthanc:
    """prefix: of each command that is to reach it. stored: its folder. port: of DICOM; http: of its REST interface."""

    prefix: list[str]
    folder: Path
    port: int
    http: int
    aet: str = "ORTHANC"
    process: subprocess.Popen[bytes] | None = None

    def run(self, *command: object) -> subprocess.CompletedProcess[str]:
        found = os.environ | {"PATH": OTHERS}
        return subprocess.run(
            [*self.prefix, *map(str, command)], capture_output=True, text=True, timeout=120, env=found
        )

    def objects(self) -> list[pydicom.Dataset]:
        """All that it has stored, as it has it."""
        files = (
            path for path in (self.folder / "stored").rglob("*") if path.is_file() and path.parent.name != "stored"
        )
        return [pydicom.dcmread(path) for path in files if _is_dicom(path)]

    def start(self) -> None:
        log = (self.folder / "log").open("ab")
        command = [*self.prefix, str(PROGRAM), str(self.folder / "orthanc.json")]
        self.process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
        log.close()
        end = time.monotonic() + 30
        while self.run("echoscu", "-aec", self.aet, "127.0.0.1", self.port).returncode:
            if time.monotonic() > end:
                raise RuntimeError(f"Orthanc did not start: {(self.folder / 'log').read_text()[-2000:]}")
            time.sleep(0.1)

    def kill(self) -> None:
        """At once, as a power cut would."""
        assert self.process is not None
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


def _is_dicom(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(132)[128:] == b"DICM"


@contextmanager
def orthanc(folder: Path, nodes: dict[str, int], plugins: Sequence[Path] = ()) -> Iterator[Orthanc]:
    """An archive that knows these nodes, AE title -> port. `folder` is its own."""
    with namespace() as prefix:
        port, http = (4242, 8042) if prefix else (free_port(), free_port())
        settings = {
            "Name": "tests",
            "DicomAet": "ORTHANC",
            "DicomPort": port,
            "HttpPort": http,
            "RemoteAccessAllowed": False,
            "AuthenticationEnabled": False,
            "StorageDirectory": str(folder / "stored"),
            "IndexDirectory": str(folder / "index"),
            "DicomModalities": {aet: [aet, "127.0.0.1", other] for aet, other in nodes.items()},
            "DicomCheckCalledAet": True,
            "OverwriteInstances": True,
            "Plugins": [str(plugin) for plugin in plugins],
        }
        (folder / "orthanc.json").write_text(json.dumps(settings))
        found = Orthanc(prefix, folder, port, http)
        found.start()
        try:
            yield found
        finally:
            found.kill()


@contextmanager
def namespace() -> Iterator[list[str]]:
    """What runs a command in a network of its own, with loopback alone; [] where that is not possible."""
    name = f"fabrica-{os.getpid()}"
    ip = shutil.which("ip")
    made = ip and subprocess.run([ip, "netns", "add", name], capture_output=True).returncode == 0
    if not (ip and made):
        yield []
        return
    prefix = [ip, "netns", "exec", name]
    try:
        up = subprocess.run([*prefix, ip, "link", "set", "lo", "up"], capture_output=True).returncode == 0
        yield prefix if up else []
    finally:
        subprocess.run([ip, "netns", "delete", name], capture_output=True)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Running:
    """`fabrica node` as a user starts it. web: where results go by STOW-RS."""

    def __init__(self, archive: Orthanc, home: Path, port: int, *options: object, web: str = "") -> None:
        self.command = [
            *archive.prefix,
            sys.executable,
            "-m",
            "fabrica",
            "node",
            home / "model",
            "--store",
            home / "store",
        ]
        self.command += ["--send-to", web or f"ORTHANC@127.0.0.1:{archive.port}", "--port", port, "--spare", 0]
        self.command += ["--receivers", 1, *options]
        self.home = home

    def start(self) -> None:
        self.log = (self.home / "node.log").open("ab")
        before = self.said().count("listens at")
        self.process = subprocess.Popen([str(word) for word in self.command], stderr=self.log, start_new_session=True)
        until(lambda: self.said().count("listens at") > before or self.process.poll() is not None)
        assert self.process.poll() is None, self.said()

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(60)
        self.log.close()

    def __enter__(self) -> Running:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def said(self) -> str:
        return (self.home / "node.log").read_text()

    def kill(self) -> None:
        """The node alone: its processes are to see to themselves."""
        os.kill(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self.log.close()


def sent(archive: Orthanc, aet: str, port: int, paths: Sequence[Path], tries: int = 50) -> int:
    """Send files with dcmsend until each was answered with success, as senders do; returns how often it took."""
    with tempfile.TemporaryDirectory() as folder:
        for turn in range(1, tries + 1):
            report = Path(folder) / f"{turn}.txt"
            archive.run("dcmsend", "-aec", aet, "--create-report-file", report, "127.0.0.1", port, *paths)
            said = report.read_text() if report.is_file() else ""
            if f"status SUCCESS : {len(paths)}" in " ".join(said.split()):
                return turn
            time.sleep(0.2)
    raise AssertionError(f"not sent after {tries} tries: {said}")


def until(true: Callable[[], object], seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it never came to that"
        time.sleep(0.1)


def main() -> None:
    if PROGRAM is None:
        sys.exit("Orthanc is not installed: apt-get install orthanc")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with tempfile.TemporaryDirectory() as folder, orthanc(Path(folder), {"FABRICA": 11112}) as found:
        print(f"{found.aet}@127.0.0.1:{found.port}, REST at http://127.0.0.1:{found.http}")
        print(f"in a network of its own; commands reach it by: {' '.join(found.prefix)} ..." if found.prefix else "")
        with suppress(KeyboardInterrupt):
            signal.pause()


if __name__ == "__main__":
    main()
