"""python -m benchmarks.aarch64 [EXTRA ...]: whether everything that the extra `runtime` (or those named) brings can be
had as wheels for Linux on 64-bit ARM, with the versions of constraints.txt, and which.

Nothing is installed and no wheel is downloaded: pip resolves for another machine (`--dry-run --platform`) and says what
it would take. It asks the package index, so that this is no test. Ends with 1 where something has no wheel.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

HOME = Path(__file__).parents[1]
PLATFORMS = ("manylinux_2_28_aarch64", "manylinux_2_27_aarch64", "manylinux_2_17_aarch64", "manylinux2014_aarch64")
PYTHON = "3.12"


def wheels(extras: list[str]) -> list[tuple[str, str, str]]:
    """(name, version, file) of each wheel; SystemExit with pip's own words where one is missing."""
    project = tomllib.loads((HOME / "pyproject.toml").read_text("utf-8"))["project"]
    wanted = [*project["dependencies"], *(line for extra in extras for line in project["optional-dependencies"][extra])]
    platforms = [word for name in PLATFORMS for word in ("--platform", name)]
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
        machine = [*platforms, "--python-version", PYTHON, "--implementation", "cp"]
        fixed = ["-c", str(HOME / "constraints.txt")]
        command = [sys.executable, "-m", "pip", "install", *how, *machine, *fixed, *wanted]
        done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        sys.exit("\n".join(line for line in done.stderr.splitlines() if line.startswith("ERROR")))
    found = json.loads(done.stdout)["install"]
    return sorted(
        (each["metadata"]["name"], each["metadata"]["version"], each["download_info"]["url"].rsplit("/", 1)[-1])
        for each in found
    )


def main() -> None:
    for name, version, file in wheels(sys.argv[1:] or ["runtime"]):
        kind = "any machine" if file.endswith("-any.whl") else "aarch64"
        print(f"{name:24}{version:14}{kind}")


if __name__ == "__main__":
    main()
