"""Peak memory of training must not grow with the number of images: 1,000 against many phantoms.

FABRICA_BENCH_IMAGES says how many (20,000); drawing takes about 6 ms each.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile

MANY = int(os.environ.get("FABRICA_BENCH_IMAGES", "20000"))

SCRIPT = """
import json, resource, sys, tempfile
from pathlib import Path
from fabrica.recipe.load import load_recipe
from fabrica.training.loop import train
recipe = load_recipe("ddpm-head", ["data.size=16", "data.batch=64", "method.channels=[32,32]", "train.minutes=0",
    "method.attention=[false,false]", "method.head_channels=32",
    f"data.count={sys.argv[1]}", f"train.steps={sys.argv[2]}"])
with tempfile.TemporaryDirectory() as folder:
    train(recipe, Path(folder) / "run")
print(json.dumps({"peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}))
"""


def peak_mib(count: int, steps: int) -> float:
    """Peak resident memory of drawing, caching and training, in a process and a cache of its own."""
    with tempfile.TemporaryDirectory() as cache:
        command = [sys.executable, "-c", SCRIPT, str(count), str(steps)]
        environment = {**os.environ, "FABRICA_CACHE": cache}
        out = subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout
    return float(json.loads(out.splitlines()[-1])["peak"])


def main() -> dict[str, str]:
    steps = MANY // 64  # a whole epoch of the larger set: every image is touched
    few, many = peak_mib(1000, steps), peak_mib(MANY, steps)
    return {f"peak memory, {MANY} / 1000 images": f"{many / few:.3f} x ({many:.0f} / {few:.0f} MiB)"}
