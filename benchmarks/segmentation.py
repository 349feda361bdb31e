"""python -m benchmarks.segmentation NAME ... [--work FOLDER] [--minutes M | --steps S]: how well segmenters do on real
patients.

    hippocampus   200 MRI (MSD Task04, CC BY-SA 4.0), split by patient by `fabrica scan`: Dice after 30 minutes.
    lungs         77 radiographs of 43 patients (CC BY 3.0): five folds by patient, 8 minutes each, and how far
                  the first fold's model falls on chest phantoms.
    critic        hippocampus, 10 minutes, with and without each adversarial term, three seeds.
    few           ten labelled hippocampi, 10 minutes, three seeds: classic augmentation alone, with a critic that also
                  learns from the others without labels, and with masks that the first of these drew for the others.
    augmentation  the share of a training step's processor time that augmentation takes: of the hippocampi, in 3-D, and
                  of the radiographs.

--steps: so many for each run, and no minutes: fair where others use the machine, and where a critic costs time. Data
lie in ../shared/data or $FABRICA_DATA. Trained and judged is what a user types, in processes of their own; what is
done already in FOLDER is not done again, so that a run that was stopped goes on. Results go to real/segmentation.json.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.kept import keep, machine
from benchmarks.steps import stepping
from fabrica import io
from fabrica.data.manifest import Manifest
from fabrica.data.scan import scan
from fabrica.image import Image
from fabrica.model.loading import load as open_model
from fabrica.phantoms.chest.chest import ORGANS, chest
from fabrica.recipe.load import load_recipe
from fabrica.training.run import open_run

HERE = Path(__file__).parent
DATA = Path(os.environ.get("FABRICA_DATA", HERE.parents[1] / "shared" / "data"))
KEPT = HERE / "real" / "segmentation.json"
FOLDS, SEEDS, FEW, PHANTOMS, ROUNDS = 5, (0, 1, 2), 10, 40, 15
LUNGS = [ORGANS.index(name) for name in ORGANS if "lung" in name]
CRITICS = {
    "no critic": [],
    "segan": ["method.adversarial=0.1"],
    "patch": ["method.adversarial=0.01", "method.critic=patch"],
}
Scores = dict[str, Any]


def fabrica(*words: str | Path) -> None:
    subprocess.run([sys.executable, "-m", "fabrica", *map(str, words)], check=True)


@dataclass(frozen=True)
class Budget:
    """Of each training; 0: no limit, and the minutes that a benchmark has by itself."""

    minutes: float = 0.0
    steps: int = 0

    def words(self, minutes: float) -> list[str]:
        return [f"train.steps={self.steps}", f"train.minutes={0 if self.steps else self.minutes or minutes:g}"]


def trained(
    manifest: Path, run: Path, budget: Sequence[str], changes: Sequence[str] = (), against: Path | None = None
) -> Scores:
    """Train if it is not yet, evaluate on the test split if that is not yet, and give the main scores."""
    if not (run / "README.md").exists():
        words = ["--resume"] if (run / "training").exists() else []
        told = [] if words else ["segment", "--data", manifest, *budget, *changes]
        fabrica("train", *told, *words, "-o", run)
    report = run / ("report" if against is None else f"report-{against.stem}")
    if not (report / "scores.json").exists():
        fabrica("evaluate", run, *(["--against", against] if against else []), "-o", report)
    scores = json.loads((report / "scores.json").read_text())
    overall = {key: value["mean"] for key, value in scores["overall"].items()}
    log = (run / "log.csv").read_text().splitlines()
    last = dict(zip(log[0].split(","), log[-1].split(","), strict=True))
    return {
        "minutes": round(float(last["seconds"]) / 60, 1),
        "steps": int(float(last["step"])),
        "patients": scores["n_patients"],
        "dice": round(overall["dice"], 4),
        "dice_interval": [round(scores["overall"]["dice"][end], 4) for end in ("low", "high")],
        "surface_dice_1mm": round(overall["surface_dice"], 4),
        "hd95_mm": round(overall["hd95"], 3),
        "by_class": {one["name"]: round(one["scores"]["dice"]["mean"], 4) for one in scores["classes"]},
    }


def scanned(name: str, work: Path) -> Path:
    path = work / f"{name}.csv"
    if not path.exists():
        scan(DATA / name).save(path)
    return path


def hippocampus(work: Path, budget: Budget) -> Scores:
    return trained(scanned("mri_hippocampus_msd", work), work / "hippocampus", budget.words(30))


def lungs(work: Path, budget: Budget) -> Scores:
    manifest = Manifest.load(scanned("cxr_hannover_lung_masks", work))
    patients = np.random.default_rng(0).permutation(sorted({row.patient for row in manifest.rows}))
    folds = [set(part) for part in np.array_split(patients, FOLDS)]
    found: Scores = {}
    for k, test in enumerate(folds):
        others = [name for name in patients if name not in test]
        val = set(others[: len(others) // 8])
        splits = {name: "test" if name in test else "val" if name in val else "train" for name in patients}
        path = work / f"lungs-{k}.csv"
        Manifest([replace(row, split=splits[row.patient]) for row in manifest.rows], manifest.root).save(path)
        found[f"fold {k + 1}"] = trained(path, work / f"lungs-{k}", budget.words(8))
    weights = [one["patients"] for one in found.values()]
    mean = float(np.average([one["dice"] for one in found.values()], weights=weights))
    fallen = trained(work / "lungs-0.csv", work / "lungs-0", budget.words(8), against=_phantoms(work / "phantoms"))
    return {**found, "mean dice over all patients": round(mean, 4), "on chest phantoms": fallen}


def _phantoms(folder: Path) -> Path:
    """Chest phantoms with masks of both lungs as radiographs usually have them."""
    path = folder / "phantoms.csv"
    if not path.exists():
        for k in range(PHANTOMS):
            drawn = chest(7_000_000 + k, 512)
            mask = Image(np.isin(drawn.organs.data, LUNGS).astype(np.float32), drawn.organs.affine, "label")
            for side, image in (("images", drawn.image), ("masks", mask)):
                (folder / side).mkdir(parents=True, exist_ok=True)
                io.write(image, folder / side / f"phantom{k}.nii.gz")
        manifest = scan(folder)
        Manifest([replace(row, split="test") for row in manifest.rows], manifest.root).save(path)
    return path


def critic(work: Path, budget: Budget) -> Scores:
    manifest = scanned("mri_hippocampus_msd", work)
    return _arms(lambda seed: manifest, work / "critic", budget.words(10), CRITICS)


def labelled_few(work: Path) -> Path:
    """The manifest with FEW of the training patients, chosen once."""
    manifest = Manifest.load(scanned("mri_hippocampus_msd", work))
    train = sorted(row.patient for row in manifest.rows if row.split == "train")
    labelled = set(np.random.default_rng(0).permutation(train)[:FEW])
    path = work / "few-labelled.csv"
    rows = [row for row in manifest.rows if row.split != "train" or row.patient in labelled]
    Manifest(rows, manifest.root).save(path)
    return path


def few(work: Path, budget: Budget) -> Scores:
    """Ten labelled training patients; the others of the training split have an image and no mask."""
    alone, beside = labelled_few(work), work / "few-unlabelled.csv"
    manifest = Manifest.load(scanned("mri_hippocampus_msd", work))
    labelled = {row.patient for row in Manifest.load(alone).rows}
    bare = [
        row if row.split != "train" or row.patient in labelled else replace(row, mask="", mask_labels="")
        for row in manifest.rows
    ]
    Manifest(bare, manifest.root).save(beside)
    words, semi = budget.words(10), [*CRITICS["patch"], "method.unlabelled=0.1"]
    augmented = {"classic augmentation": [], "not augmented": ["data.augment=false"]}
    return {
        **_arms(lambda seed: alone, work / "few", words, augmented),
        **_arms(lambda seed: beside, work / "few", words, {"semi-supervised": semi}),
        **_arms(lambda seed: _drawn(beside, work / "few", seed), work / "few", words, {"pseudo-labels": []}),
    }


def _drawn(manifest: Path, work: Path, seed: int) -> Path:
    """The manifest with a mask for every image, of those without one as the model that learned with classic
    augmentation from this seed outlines it (Lee 2013, "Pseudo-label")."""
    path = work / f"pseudo-labels-{seed}.csv"
    if not path.exists():
        teacher, drawn = open_model(work / f"classic-augmentation-{seed}"), Manifest.load(manifest)
        masks = work / f"pseudo-labels-{seed}-masks"
        masks.mkdir(exist_ok=True)
        for k, row in enumerate(drawn.rows):
            if not row.mask:
                home = masks / f"{row.patient}.nii.gz"
                io.write(teacher.apply(io.read(drawn.file(row))).result, home)
                drawn.rows[k] = replace(row, mask=str(home))
        drawn.save(path)
    return path


def _arms(manifest: Callable[[int], Path], work: Path, budget: Sequence[str], arms: dict[str, list[str]]) -> Scores:
    """manifest: of a seed."""
    found: Scores = {}
    for name, changes in arms.items():
        runs = [
            trained(manifest(seed), work / f"{name.replace(' ', '-')}-{seed}", budget, [*changes, f"seed={seed}"])
            for seed in SEEDS
        ]
        each = [run["dice"] for run in runs]
        found[name] = {"dice": round(float(np.mean(each)), 4), "by_seed": each, "steps": [run["steps"] for run in runs]}
    return found


def augmentation(work: Path, budget: Budget) -> Scores:
    """Medians of steps with and without it, in turn. The thread that prepares batches counts, and fills its queue."""
    return {name: _augmented(scanned(name, work)) for name in ("mri_hippocampus_msd", "cxr_hannover_lung_masks")}


def _augmented(manifest: Path) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder:
        steps = {}
        for name in ("true", "false"):
            values = [f"data.source={manifest}", f"data.augment={name}", "train.minutes=0", "train.steps=10000"]
            steps[name] = stepping(open_run(load_recipe("segment", values), Path(folder) / name, None, print))
        spent: dict[str, list[float]] = {name: [] for name in steps}
        for _ in range(ROUNDS):
            for name, step in steps.items():
                began = time.process_time()
                step()
                time.sleep(0.5)
                spent[name].append(time.process_time() - began)
    whole, bare = (float(np.median(spent[name][3:])) for name in steps)
    return {"seconds": round(whole, 4), "without": round(bare, 4), "share": round((whole - bare) / whole, 3)}


BENCHMARKS: dict[str, Callable[[Path, Budget], Scores]] = {
    "hippocampus": hippocampus,
    "lungs": lungs,
    "critic": critic,
    "few": few,
    "augmentation": augmentation,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="+", choices=BENCHMARKS)
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "fabrica-segmentation")
    parser.add_argument("--minutes", type=float, default=0.0)
    parser.add_argument("--steps", type=int, default=0)
    asked = parser.parse_args()
    asked.work.mkdir(parents=True, exist_ok=True)
    for name in asked.names:
        scores = BENCHMARKS[name](asked.work, Budget(asked.minutes, asked.steps))
        keep(KEPT, name, {**scores, "machine": machine()})
        print(name, json.dumps(scores, indent=2))


if __name__ == "__main__":
    main()
