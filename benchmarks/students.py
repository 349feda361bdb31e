"""python -m benchmarks.students NAME ... [--work FOLDER] [--steps N] [--student-steps N]: what small models gain from a
trained large one, and how much faster they are.

    xray    radiographs of children (Kermany et al., CC BY 4.0) without the noise of few photons: NAFNet base, then
            small, alone and taught.
    lungs   radiographs of adults and their lung masks (CC BY 3.0): U-Net++, then a small U-Net, alone and taught.

Split by patient by `fabrica scan`, a quarter to test: PSNR over the whole image, mean Dice of each image. A student's
speed is that of its network beside its teacher's, calls of all in turn, in PyTorch as it is shipped (norms folded, in
the training's precision). Data lie in ../shared/data or $FABRICA_DATA; what is trained already in FOLDER is
not trained again. Results go to real/students.json.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from statistics import mean, median
from typing import Any

import numpy as np

from benchmarks.kept import keep, machine
from fabrica.data.scan import scan
from fabrica.data.sources import open_source
from fabrica.io.masks import labelled
from fabrica.metrics.segmentation import dice
from fabrica.model.loading import load

HERE = Path(__file__).parent
DATA = Path(os.environ.get("FABRICA_DATA", HERE.parents[1] / "shared" / "data"))
KEPT = HERE / "real" / "students.json"
ROUNDS = 9
SPLIT = (0.6, 0.15, 0.25)
Scores = dict[str, Any]

XRAY = ["data.size=256", "data.crop=96", "data.fit=crop", "train.minutes=0"]
RUNS = {  # of each benchmark: data, recipe, changes for all, for the teacher, for students; side of what is timed
    "xray": ("cxr_kermany_960/images", "nafnet-xray", XRAY, ["method.size=base"], ["method.size=small"], 1024),
    "lungs": (
        "cxr_hannover_lung_masks",
        "segment",
        ["data.size=[128,128]", "data.batch=8", "train.minutes=0"],
        ["method.network=unet++", "method.width=16"],
        ["method.width=4"],
        512,
    ),
}


def trained(recipe: str, manifest: Path, run: Path, changes: Sequence[str]) -> Path:
    if not (run / "README.md").exists():
        words = [sys.executable, "-m", "fabrica", "train", recipe, *changes, "--data", manifest, "-o", run]
        subprocess.run(list(map(str, words)), check=True)
    return run


def psnr(run: Path) -> list[float]:
    """dB of each test image over its whole range."""
    model, found = load(run, device="cpu"), []
    sides = (open_source(model.data, "test", side).samples() for side in ("a", "b"))
    low, high = model.codec_b.span
    for given, truth in zip(*sides, strict=True):
        off = model.apply(given.image).result.data - truth.image.data
        found.append(float(20 * np.log10((high - low) / np.sqrt(np.mean(off.astype(np.float64) ** 2)))))
    return found


def mean_dice(run: Path) -> list[float]:
    """Of each test image, over the labels."""
    model, found = load(run, device="cpu"), []
    sides = (open_source(model.data, "test", side).samples() for side in ("a", "b"))
    for given, truth in zip(*sides, strict=True):
        made = np.rint(model.apply(given.image).result.data).astype(int)
        wanted = np.rint(labelled(truth.image).data).astype(int)
        found.append(mean(dice(made == k, wanted == k) for k in model.label_names))
    return found


def speeds(runs: Sequence[Path], side: int) -> dict[str, float]:
    """Median seconds of each run's network on one image, calls of all in turn."""
    nets = {run.name: load(run, device="cpu").way().net for run in runs}
    image = np.random.default_rng(0).uniform(-1, 1, (1, 1, side, side)).astype(np.float32)
    seconds: dict[str, list[float]] = defaultdict(list)
    for _ in range(ROUNDS + 1):
        for name, net in nets.items():
            began = time.perf_counter()
            net(image)
            seconds[name].append(time.perf_counter() - began)
    return {name: median(each[1:]) for name, each in seconds.items()}


def measured(name: str, work: Path, steps: int, student_steps: int) -> Scores:
    data, recipe, common, large, small, side = RUNS[name]
    manifest = work / f"{name}.csv"
    if not manifest.exists():
        scan(DATA / data, fractions=SPLIT).save(manifest)
    teacher = trained(recipe, manifest, work / f"{name}-teacher", [*common, *large, f"train.steps={steps}"])
    small = [*common, *small, f"train.steps={student_steps}"]
    alone = trained(recipe, manifest, work / f"{name}-alone", small)
    taught = trained(recipe, manifest, work / f"{name}-taught", [*small, f"uses.teacher={teacher}"])
    score, unit = (psnr, "psnr_db") if name == "xray" else (mean_dice, "dice")
    runs = {"teacher": teacher, "alone": alone, "taught": taught}
    each, took = {key: score(run) for key, run in runs.items()}, speeds(list(runs.values()), side)
    lost = [a - b for a, b in zip(each["teacher"], each["taught"], strict=True)]
    gained = [a - b for a, b in zip(each["taught"], each["alone"], strict=True)]
    return {
        "test_images": len(lost),
        "steps": steps,
        "steps_of_students": student_steps,
        **{f"{unit}_{key}": round(mean(values), 4) for key, values in each.items()},
        "lost_to_the_teacher": round(mean(lost), 4),
        "gained_by_being_taught": round(mean(gained), 4),
        "times_as_fast_as_the_teacher": round(took[teacher.name] / took[taught.name], 2),
        "ms": {key: round(1000 * took[run.name], 1) for key, run in runs.items()},
        "side": side,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="+", choices=RUNS)
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "fabrica-students")
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--student-steps", type=int, default=0, help="0: as many; a step of a student is cheaper")
    asked = parser.parse_args()
    asked.work.mkdir(parents=True, exist_ok=True)
    for name in asked.names:
        scores = measured(name, asked.work, asked.steps, asked.student_steps or asked.steps)
        keep(KEPT, name, {**scores, "machine": machine()})
        print(name, json.dumps(scores, indent=2))


if __name__ == "__main__":
    main()
