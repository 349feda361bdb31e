"""python -m benchmarks [NAME ...]: training, sampling, loading, memory, synthesis, latent, translation, restoration,
runtime, precision; without a name all. By name alone, since they take long: few, large, medmnist.

Ratios are medians of interleaved measurements in one run, so that the machine's mood cancels out. Nothing here
needs files from outside: the images are phantoms.
"""

from __future__ import annotations

import importlib
import json
import platform
import sys
from pathlib import Path

import torch

ALL = (
    *("loading", "training", "memory", "sampling", "synthesis", "latent"),
    *("translation", "restoration", "runtime", "precision"),
)
BY_NAME = ("few", "large", "medmnist")


def main() -> None:
    results = Path(__file__).parent / "results.json"
    kept = json.loads(results.read_text()) if results.exists() else {}
    for name in sys.argv[1:] or ALL:
        if name not in (*ALL, *BY_NAME):
            sys.exit(f"no benchmark {name!r}; expected {', '.join((*ALL, *BY_NAME))}")
        print(f"== {name}", flush=True)
        scores = importlib.import_module(f"benchmarks.{name}").main()
        for key, value in scores.items():
            print(f"   {key:<46}{value}")
        kept[name] = scores
        kept["machine"] = f"{platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}"
        results.write_text(json.dumps(kept, indent=2) + "\n")


main()
