"""python -m benchmarks.wheels [--on aarch64 | x86_64] [EXTRA ...]: the wheels that the extra `runtime` (or those named)
brings on Linux, with the versions of constraints.txt, and how large they are unpacked.

On aarch64 (the default) it says whether everything can be had for 64-bit ARM. On x86_64 torch is what the package index
gives who asks for nothing else, with CUDA: `python -m benchmarks.wheels --on x86_64 runtime` beside `train`.

Nothing is installed and no wheel is downloaded: pip resolves for another machine (`--dry-run --platform`), and of each
file the table of contents at its end is read. It asks the package index, so that this is no test. Ends with 1 where
something has no wheel. Folders and indices of pip's configuration are asked, too; PIP_CONFIG_FILE=/dev/null leaves them
out.
"""

from __future__ import annotations

import argparse
import io
import json
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path
from typing import NamedTuple
from urllib.request import Request, urlopen
from zipfile import ZipFile

HOME = Path(__file__).parents[1]
GLIBC = range(28, 16, -1)  # 2.28 to 2.17: pip takes the wheels of just the platforms that are named
PYTHON = "3.12"


class Wheel(NamedTuple):
    name: str
    version: str
    url: str


def wheels(machine: str, extras: list[str]) -> list[Wheel]:
    """What pip takes; SystemExit with pip's own words where one is missing."""
    project = tomllib.loads((HOME / "pyproject.toml").read_text("utf-8"))["project"]
    wanted = [*project["dependencies"], *(line for extra in extras for line in project["optional-dependencies"][extra])]
    names = [*(f"manylinux_2_{glibc}" for glibc in GLIBC), "manylinux2014"]
    platforms = [word for name in names for word in ("--platform", f"{name}_{machine}")]
    with tempfile.TemporaryDirectory() as nowhere:
        how = [
            "--dry-run",
            "--ignore-installed",
            "--quiet",
            "--report",
            "-",
            "--only-binary=:all:",
            "--target",
            nowhere,
        ]
        other = [*platforms, "--python-version", PYTHON, "--implementation", "cp"]
        fixed = ["-c", str(HOME / "constraints.txt")]
        command = [sys.executable, "-m", "pip", "install", *how, *other, *fixed, *wanted]
        done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        sys.exit("\n".join(line for line in done.stderr.splitlines() if line.startswith("ERROR")))
    found = json.loads(done.stdout)["install"]
    return sorted(
        Wheel(each["metadata"]["name"], each["metadata"]["version"], each["download_info"]["url"]) for each in found
    )


class Remote(io.RawIOBase):
    """A file of the package index, of which only what is read is fetched."""

    def __init__(self, url: str) -> None:
        self.url, self.place = url, 0
        with urlopen(Request(url, method="HEAD")) as answer:
            self.size = int(answer.headers["Content-Length"])

    def seekable(self) -> bool:
        return True

    def readable(self) -> bool:
        return True

    def tell(self) -> int:
        return self.place

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self.place = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self.place, io.SEEK_END: self.size}[whence]
        return self.place

    def read(self, size: int = -1) -> bytes:
        end = self.size if size < 0 else min(self.place + size, self.size)
        if end <= self.place:
            return b""
        with urlopen(Request(self.url, headers={"Range": f"bytes={self.place}-{end - 1}"})) as answer:
            found: bytes = answer.read()
        self.place = end
        return found


def unpacked(wheel: Wheel) -> int:
    """Bytes of its files once installed."""
    with ZipFile(Remote(wheel.url)) as archive:  # type: ignore[arg-type]
        return sum(each.file_size for each in archive.infolist())


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.wheels", description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("extras", nargs="*", default=["runtime"])
    parser.add_argument("--on", choices=("aarch64", "x86_64"), default="aarch64")
    given = parser.parse_args()
    total = 0.0
    for wheel in wheels(given.on, given.extras):
        size = unpacked(wheel) / 1e6
        total += size
        kind = "any machine" if wheel.url.endswith("-any.whl") else given.on
        print(f"{wheel.name:32}{wheel.version:16}{kind:14}{size:10.1f} MB")
    print(f"{'together':62}{total:10.1f} MB")


if __name__ == "__main__":
    main()
