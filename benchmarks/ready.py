"""python -m benchmarks.ready NAME FOLDER [--apply IN] [--source SRC] [--rounds N]: seconds from the command to the
picture of a model that ships, beside the same model as a folder that PyTorch runs.

Each round starts both commands anew, one after the other, start-up counted: `fabrica sample MODEL -n 16`, or with an
image `fabrica apply MODEL IN`. FOLDER is what the model was exported from (`python -m models` leaves it in its work
folder). SRC: the `src` of another commit, whose command runs the folder. Medians of the wall's clock and of the
processor's time, which other work on the machine changes least.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median

ROUNDS = 5
COUNT = 16


def took(model: str, words: Sequence[str], place: Path, source: str = "") -> tuple[float, float]:
    """Seconds of the wall's clock and of the processor, of one command in a process of its own."""
    environment = {**os.environ, **({"PYTHONPATH": source} if source else {})}
    asked = ["apply", model, *words] if words else ["sample", model, "-n", str(COUNT)]
    with tempfile.TemporaryDirectory(dir=place) as out:
        before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        command = [sys.executable, "-m", "fabrica", *asked, "-o", f"{out}/made"]
        subprocess.run(command, check=True, capture_output=True, cwd=place, env=environment)
        wall, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser("python -m benchmarks.ready")
    parser.add_argument("name")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--apply", type=Path)
    parser.add_argument("--source", default="")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    asked = parser.parse_args()
    words = [str(asked.apply.resolve())] if asked.apply else []
    with tempfile.TemporaryDirectory() as place:
        pairs = [
            (
                took(asked.name, words, Path(place)),
                took(
                    str(asked.folder.resolve()), words, Path(place), asked.source and str(Path(asked.source).resolve())
                ),
            )
            for _ in range(asked.rounds)
        ]
    for k, kind in enumerate(("seconds", "processor seconds")):
        ours, theirs = (median(pair[side][k] for pair in pairs) for side in (0, 1))
        ratio = median(one[k] / other[k] for one, other in pairs)
        print(f"{kind}: {asked.name} {ours:.2f}, {asked.folder} {theirs:.2f}, ratio {ratio:.3f}")


if __name__ == "__main__":
    main()
