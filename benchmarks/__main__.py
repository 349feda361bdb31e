"""python -m benchmarks [NAME ...]: training, sampling, loading, memory, synthesis, latent, translation, restoration,
runtime, precision; without a name all. By name alone, since they take long: few, large, medmnist.

Ratios are medians of interleaved measurements in one run, so that the machine's mood cancels out. Nothing here
needs files from outside: the images are phantoms.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

from benchmarks.kept import keep, machine

ALL = (
    *("loading", "training", "memory", "sampling", "synthesis", "latent"),
    *("translation", "restoration", "runtime", "precision"),
)
BY_NAME = ("few", "large", "medmnist")


def main() -> None:
    results = Path(__file__).parent / "results.json"
    for name in sys.argv[1:] or ALL:
        if name not in (*ALL, *BY_NAME):
            sys.exit(f"no benchmark {name!r}; expected {', '.join((*ALL, *BY_NAME))}")
        print(f"== {name}", flush=True)
        scores = importlib.import_module(f"benchmarks.{name}").main()
        for key, value in scores.items():
            print(f"   {key:<46}{value}")
        keep(results, name, {**scores, "machine": machine()})


main()
