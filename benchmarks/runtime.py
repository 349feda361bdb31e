"""python -m benchmarks.runtime: an exported model where PyTorch is not installed, beside the model that it was made of.

An environment of `pip install '.[runtime]'` and nothing else is made, its size on disk is compared with that of
`.[train]` (of the packages here that this requires), and `fabrica apply` of one radiograph, from the start of the
process to its end, is run in each in turn: NAFNet small, exported to ONNX and as it was trained. The network alone is
timed in one process, calls of the two in turn. Images of noise: see `benchmarks.drawing`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from statistics import median

import numpy as np
from packaging.requirements import Requirement

from benchmarks import drawing
from fabrica import io, runtime
from fabrica.export import export
from fabrica.export.gate import REST
from fabrica.model.loading import load
from fabrica.phantoms import chest
from fabrica.recipe.load import load_recipe
from fabrica.training.loop import train

HOME = Path(__file__).parents[1]
ROUNDS = 5
SIDE = 1024
OF_EVERY = ("pip", "setuptools")  # packages that an environment begins with


def required(name: str, extras: frozenset[str], found: set[str]) -> set[str]:
    """The distribution and all that it requires here, by name."""
    try:
        lines = distribution(name).requires or []
    except PackageNotFoundError:  # for another system or Python
        return found
    found.add(name)
    for each in map(Requirement, lines):
        wanted = any(each.marker.evaluate({"extra": extra}) for extra in extras or {""}) if each.marker else True
        if wanted and (each.name not in found or each.extras):
            required(each.name, frozenset(each.extras), found)
    return found


def installed(extra: str) -> float:
    """MB of the packages here that an extra requires."""
    files = (
        Path(str(distribution(name).locate_file(file)))
        for name in required("fabrica-imaging", frozenset([extra]), set())
        for file in distribution(name).files or []
    )
    return sum(path.stat().st_size for path in set(files) if path.is_file()) / 1e6


def environment(folder: Path, extra: str) -> tuple[Path, float]:
    """The interpreter of a new environment with this extra alone, and MB of its packages."""
    venv.create(folder, with_pip=True)
    python = folder / "bin" / "python"
    command = [python, "-m", "pip", "install", "-q", "-c", HOME / "constraints.txt", f"{HOME}[{extra}]"]
    subprocess.run(list(map(str, command)), check=True)
    (packages,) = (folder / "lib").glob("python*/site-packages")
    own = (path for path in packages.rglob("*") if path.relative_to(packages).parts[0].split("-")[0] not in OF_EVERY)
    size = sum(path.stat().st_size for path in own if path.is_file() and path.suffix != ".pyc") / 1e6
    return python, size


def cold(python: str | Path, model: Path, source: Path) -> float:
    """Seconds of a process that applies the model."""
    with tempfile.TemporaryDirectory() as out:
        command = [python, "-m", "fabrica", "apply", model, source, "--force", "-o", Path(out) / "made.dcm"]
        leading = () if python == sys.executable else ("PYTHONPATH",)  # from one environment into another
        surroundings = {name: value for name, value in os.environ.items() if name not in leading}
        began = time.perf_counter()
        subprocess.run(list(map(str, command)), check=True, stdout=subprocess.DEVNULL, cwd=out, env=surroundings)
        return time.perf_counter() - began


def alternating(one: Callable[[], float], other: Callable[[], float], rounds: int) -> list[tuple[float, float]]:
    one(), other()  # files are read for the first time
    return [(one(), other()) for _ in range(rounds)]


def main(rounds: int = ROUNDS) -> dict[str, str]:
    """Score by name, as `python -m benchmarks` keeps them."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        few = ["data.count=8", "data.size=64", "data.crop=64", "train.minutes=0", "train.steps=1"]
        train(load_recipe("nafnet-xray", [*few, "method.unshuffle=4"]), folder / "run")
        model = load(folder / "run", device="cpu")
        export(model, "onnx", folder / "exported")
        io.write(chest(0, SIDE).image, folder / "given.dcm", synthetic=True)
        python, small = environment(folder / "slim", "runtime")
        large = installed("train")
        starts = alternating(
            lambda: cold(python, folder / "exported", folder / "given.dcm"),
            lambda: cold(sys.executable, folder / "run", folder / "given.dcm"),
            rounds,
        )
        images = np.random.default_rng(0).uniform(-1, 1, (1, 1, SIDE, SIDE)).astype(np.float32)
        nets = [runtime.opened(folder / "exported").way().net, model.way().net]

        def timed(k: int) -> Callable[[], float]:
            def run() -> float:
                time.sleep(REST)
                began = time.perf_counter()
                nets[k](images)
                return time.perf_counter() - began

            return run

        alone = alternating(timed(0), timed(1), 3 * rounds)
    return drawing.main(rounds) | {
        "installed, [runtime] / [train]": f"{small / large:.3f} ({small:.0f} / {large:.0f} MB)",
        "cold start, a radiograph, exported / trained": _ratio(starts, 1, "s"),
        f"NAFNet small, {SIDE} x {SIDE}, exported / trained": _ratio(alone, 1000, "ms"),
    }


def _ratio(pairs: list[tuple[float, float]], scale: float, unit: str) -> str:
    ratio = median(a / b for a, b in pairs)
    ours, theirs = (scale * median(each) for each in zip(*pairs, strict=True))
    return f"{ratio:.3f} ({ours:.3g} / {theirs:.3g} {unit})"


if __name__ == "__main__":
    print(json.dumps(main(), indent=2))
