"""python -m benchmarks large: memory and images/s of training at 256 and 512 pixels, of autoencoder and diffusion.

The recipes as they are, but on phantoms and for some steps, each by `fabrica train` in a process of its own.
"""

from __future__ import annotations

import csv
import sys
import tempfile
from pathlib import Path
from statistics import median

from benchmarks.inference import measured

STEPS = 24
SIZES = (256, 512)
PHANTOMS = ["data.source=phantom:chest", "data.count=96", "train.minutes=0", f"train.steps={STEPS}"]


def trained(folder: Path, recipe: str, *changes: str) -> tuple[float, float]:
    """GiB at most, and images/s of the second half."""
    words = [sys.executable, "-m", "fabrica", "train", recipe, *PHANTOMS, "train.log_every=1", *changes]
    gib = measured([*words, "-o", str(folder)])["gib"]
    with (folder / "log.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    seconds = [float(row["seconds"]) for row in rows]
    images = [float(row["images"]) for row in rows]
    rates = [(images[k] - images[k - 1]) / (seconds[k] - seconds[k - 1]) for k in range(len(rows) // 2 + 1, len(rows))]
    return gib, median(rates)


def main() -> dict[str, str]:
    scores = {}
    for size in SIZES:
        autoencoder, diffusion = f"autoencoder-xray-{size}", f"latent-xray-{size}"
        with tempfile.TemporaryDirectory() as temporary:
            place = Path(temporary)
            found = {autoencoder: trained(place / "autoencoder", autoencoder)}
            uses = f"uses.autoencoder={place / 'autoencoder'}"
            found[diffusion] = trained(place / "diffusion", diffusion, uses, "data.condition=")
        for name, (memory, rate) in found.items():
            scores[name] = f"{rate:.3g} images/s, {memory:.2f} GiB"
    return scores
