"""python -m benchmarks.utility NAME ... [--work FOLDER] [--steps S]: what synthetic images are worth to a network that
learns from them beside real patients, by `fabrica evaluate --utility`.

    lesions       260 CT patches of 26 patients with lung tumours (MSD Task06, CC BY-SA): diffusion told masks paints
                  tumours of 11 patients into their other images; tested on 13 others.
    hippocampi    ten labelled MRI (MSD Task04, CC BY-SA): diffusion told masks draws whole volumes of their masks;
                  tested on the test split.
    lungs         radiographs with lung masks (CC BY), split by patient: diffusion told masks draws radiographs.

--steps: of the model that draws. Data lie in ../shared/data or $FABRICA_DATA. Trained and judged is what a user types,
in processes of their own; what is done already in FOLDER is not done again. Results go to real/utility.json.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.kept import keep
from benchmarks.segmentation import fabrica, labelled_few, scanned
from fabrica.data.manifest import Manifest

KEPT = Path(__file__).parent / "real" / "utility.json"
EACH = 10  # patches of a patient, one after the other
TRAIN = 11  # of the 13 patients of the first file; the others choose the weights


@dataclass(frozen=True)
class Asked:
    """What draws, and how it is judged."""

    manifest: Path
    recipe: str
    changes: tuple[str, ...]
    steps: int
    evaluate: tuple[str, ...] = ()


def lesions(work: Path) -> Asked:
    manifest = Manifest.load(scanned("ct_lung_msd_patches", work))
    rows = []
    for row in manifest.rows:
        side, number = row.frame.split("/")
        patient = int(number) // EACH
        split = "test" if side.startswith("test") else "train" if patient < TRAIN else "val"
        rows.append(replace(row, split=split, patient=f"{side}-{patient}"))
    path = work / "lesions.csv"
    Manifest(rows, manifest.root).save(path)
    return Asked(path, "ddpm-xray", ("data.size=48",), 3000, ("--paint",))


def hippocampi(work: Path) -> Asked:
    return Asked(labelled_few(work), "ddpm-hippocampus", (), 1500)


def lungs(work: Path) -> Asked:
    return Asked(scanned("cxr_hannover_lung_masks", work), "ddpm-xray", (), 3000)


def judged(name: str, asked: Asked, work: Path, steps: int) -> dict[str, Any]:
    """Scores of each mix, after training what draws and the networks that learn, where that is not done."""
    run = work / f"draws-{name}"
    if not (run / "README.md").exists():
        changes: list[str] = [
            "data.condition=mask",
            f"train.steps={steps or asked.steps}",
            "train.minutes=0",
            *asked.changes,
        ]
        again = ["--resume"] if (run / "training").exists() else [asked.recipe, "--data", str(asked.manifest), *changes]
        fabrica("train", *again, "-o", run)
    report = run / "utility"
    if not (report / "scores.json").exists():
        fabrica("evaluate", run, "--utility", *asked.evaluate, "-o", report)
    scores: dict[str, Any] = json.loads((report / "scores.json").read_text())
    told = {key: scores[key] for key in ("n_real", "n_test", "n_patients", "repeats", "steps")}
    return {**told, **{measure: [_short(arm) for arm in arms] for measure, arms in scores["arms"].items()}}


def _short(arm: dict[str, Any]) -> dict[str, Any]:
    """Name, score and gain over real images with classic augmentation, [mean, low, high], and the score by seed."""
    told: dict[str, Any] = {"learned from": arm["name"], "by seed": [round(each, 4) for each in arm["seeds"]]}
    for key in ("score", "gain"):
        told[key] = arm[key] and [round(arm[key][end], 4) for end in ("mean", "low", "high")]
    return told


BENCHMARKS: dict[str, Callable[[Path], Asked]] = {"lesions": lesions, "hippocampi": hippocampi, "lungs": lungs}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="+", choices=BENCHMARKS)
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "fabrica-utility")
    parser.add_argument("--steps", type=int, default=0)
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    for name in options.names:
        scores = judged(name, BENCHMARKS[name](options.work), options.work, options.steps)
        keep(KEPT, name, scores)
        print(name, json.dumps(scores, indent=2))


if __name__ == "__main__":
    main()
