"""python -m benchmarks.detection [--minutes M | --steps S] [--patients N] [--keep FOLDER] [--quick]: whether tumours
of head phantoms are found, by which contrasts, and what restoration does for finding them.

N patients, half of them with a tumour, one slice each of T1 (after contrast agent), T2, FLAIR, CT and PET; half of
them are for training, a tenth chooses the weights, the others are judged. MR is noisy (Rician, NOISE of the brightest
values) unless it is called clean. A detector is the recipe `segment`, trained M minutes.

The rule. A detector gives each pixel a probability of lesion, 1 less that of the background, and its grey opening by
PIECE x PIECE pixels leaves no specks. At a threshold t the answer is where that is above t, in pieces. A tumour is
found where a piece of the answer overlaps it: core, rim or oedema. A healthy patient with any piece is a false alarm.
A piece elsewhere in a patient with a tumour finds nothing, so that guessing has an AUC below 0.5. Sensitivity and
specificity are those of t = 0.5, and sensitivity also at the same specificity for all: by the threshold that
SPECIFICITY of the healthy ones that are judged stay below. Intervals are Wilson's, 95 %, over patients.

Part one: all contrasts; without each one, trained so; with each one missing at work. Part two: a detector trained on
clean T1 on reference, degraded and restored T1; restored by the recipe `nafnet-multi`, trained M minutes on the same
patients, from T1 alone and with T2 and FLAIR beside it; and, what restoration must be compared with, a detector that
was trained on degraded images. Differences are of the same patients, by McNemar's exact test.

--keep: models and phantoms stay there, and what is trained already is not trained again. --steps: so many for each,
and no minutes, which is fairer where others use the machine. --quick: a look at whether it runs, with a few steps
each; its figures mean nothing, and are not kept. Results go to real/detection.json.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.ndimage import grey_opening
from scipy.stats import binomtest

from fabrica import io
from fabrica.codec import Codec
from fabrica.data.degrade import degraded
from fabrica.data.embedded import write_phantoms
from fabrica.data.manifest import Manifest
from fabrica.image import Float32, Float64, Image
from fabrica.inference.translator import apply
from fabrica.metrics.memorisation import wilson
from fabrica.metrics.roc import area_under_curve
from fabrica.model.loading import load
from fabrica.model.segmentation import SegmentationModel
from fabrica.model.translation import TranslationModel
from fabrica.recipe.load import load_recipe
from fabrica.training.loop import train

KEPT = Path(__file__).parent / "real" / "detection.json"
CONTRASTS = ("T1", "T2", "FLAIR", "CT", "PET")
MAGNETIC = ("T1", "T2", "FLAIR")
NOISE = 0.2  # of the recipe nafnet-multi
SIZE = 96
PIECE = 3
SPECIFICITY = 0.95
CLEAN = " clean"  # after the name of a contrast


@dataclass(frozen=True)
class Patient:
    """One that is judged: images by contrast, and where its lesion lies (H, W), nowhere of the healthy."""

    images: Mapping[str, Image]
    lesion: Float32


def phantoms(folder: Path, patients: int, size: int) -> Path:
    """The manifest of all patients, each contrast of MR with noise and without."""
    if (folder / "set.csv").is_file():
        return folder / "set.csv"
    manifest = write_phantoms("head", patients, folder, size=size, masks="lesions")
    rows = []
    for row in manifest.rows:
        number = int(row.patient.removeprefix("head-"))
        row.split = "train" if number < patients * 0.5 else "val" if number < patients * 0.6 else "test"
        row.pair = ""
        if row.domain in MAGNETIC:
            steps = [{"name": "rician", "sigma": NOISE}]
            image = io.read(manifest.file(row))
            image = replace(image, origin={**image.origin, "modality": "MR"})
            path = row.path.replace(row.domain, f"{row.domain}-noisy")
            seed = 3 * number + MAGNETIC.index(row.domain)
            io.write(degraded(image, steps, seed), folder / path)
            rows.append(replace(row, id=f"{row.id}-noisy", path=path))
            rows.append(replace(row, domain=row.domain + CLEAN))
        elif row.domain in CONTRASTS:
            rows.append(row)
    Manifest(rows, folder).save(folder / "set.csv")
    return folder / "set.csv"


def judged(manifest: Path, names: Sequence[str]) -> list[Patient]:
    """The test patients, with these contrasts."""
    whole = Manifest.load(manifest)
    rows = whole.select(split="test").rows
    found = []
    for patient in dict.fromkeys(row.patient for row in rows):
        own = {row.domain: row for row in rows if row.patient == patient}
        images = {name: io.read(whole.file(own[name])) for name in names}
        found.append(Patient(images, io.read(whole.root / own[names[0]].mask).data[0]))
    return found


@dataclass(frozen=True)
class Run:
    """What is trained: where, from which images, for how long."""

    home: Path
    manifest: Path
    budget: Sequence[str]

    def trained(self, recipe: str, name: str, overrides: Sequence[str]) -> Path:
        folder = self.home / name.replace(" ", "-")
        if not (folder / "weights.safetensors").is_file():
            print(f"   training {name}", flush=True)
            train(load_recipe(recipe, [f"data.source={self.manifest}", *self.budget, *overrides]), folder)
        return folder

    def detector(self, names: Sequence[str], called: str = "") -> SegmentationModel:
        first, *others = names
        shown = ",".join(f"'{name}'" for name in others)
        overrides = [f"data.a={first}", f"data.auxiliary=[{shown}]"]
        model = load(self.trained("segment", f"detector {called or ' '.join(names)}", overrides))
        assert isinstance(model, SegmentationModel)
        return model

    def restorer(self, others: Sequence[str]) -> TranslationModel:
        shown = ",".join(f"'{name}'" for name in others)
        overrides = [f"data.b='T1{CLEAN}'", f"data.auxiliary=[{shown}]", f"data.size={SIZE}", f"data.crop={SIZE}"]
        model = load(self.trained("nafnet-multi", f"restorer {len(others)} beside", overrides))
        assert isinstance(model, TranslationModel)
        return model


def suspected(model: SegmentationModel, images: Mapping[str, Image]) -> Float32:
    """The probability of a lesion (H, W) without specks, by these contrasts of the model's."""
    way = model.way()

    def net(windows: Float32) -> Float32:
        return -way.net(windows)[:, :1]  # network values of 1 less the background's probability

    (name, image), *others = images.items()
    asked = replace(way, net=net, target=Codec("window", 0.0, 1.0), largest=[])
    found = apply(image, asked, contrast=name, auxiliary=dict(others)).result.data[0]
    opened: Float32 = grey_opening(found, (PIECE, PIECE))
    return opened


@dataclass(frozen=True)
class Scores:
    """Up to which threshold the tumour is found (sick), and from which on there is no alarm (healthy)."""

    sick: Float64
    healthy: Float64

    def told(self) -> dict[str, Any]:
        at = float(np.quantile(self.healthy, SPECIFICITY, method="higher"))
        return {
            "sensitivity": _share(self.sick > 0.5),
            "specificity": _share(self.healthy <= 0.5),
            f"sensitivity at {100 * SPECIFICITY:.0f} % specificity": _share(self.sick > at),
            "auc": round(area_under_curve(self.sick, self.healthy), 4),
        }

    def found(self) -> Any:
        """Which tumours are found at SPECIFICITY."""
        return self.sick > float(np.quantile(self.healthy, SPECIFICITY, method="higher"))


def scores(model: SegmentationModel, patients: Sequence[Patient], names: Mapping[str, str]) -> Scores:
    """names: of the model's contrasts which of a patient's images each is shown."""
    sick, healthy = [], []
    for patient in patients:
        map_ = suspected(model, {name: patient.images[shown] for name, shown in names.items()})
        lesion = patient.lesion > 0
        (sick if lesion.any() else healthy).append(float(map_[lesion].max() if lesion.any() else map_.max()))
    return Scores(np.array(sick), np.array(healthy))


def _share(hits: Any) -> list[float]:
    """The share and its interval."""
    return [round(float(value), 4) for value in (hits.mean(), *wilson(int(hits.sum()), len(hits)))]


def _compared(one: Scores, other: Scores) -> dict[str, Any]:
    """Tumours that one finds and the other does not, at SPECIFICITY, and the other way round."""
    a, b = one.found(), other.found()
    gained, lost = int((a & ~b).sum()), int((b & ~a).sum())
    p = binomtest(gained, gained + lost).pvalue if gained + lost else 1.0
    return {"gained": gained, "lost": lost, "p": float(f"{p:.3g}")}


def of_contrasts(run: Run, patients: Sequence[Patient]) -> dict[str, Any]:
    """Part one."""
    every = run.detector(CONTRASTS, "all")
    found = {"all": scores(every, patients, {name: name for name in CONTRASTS})}
    for name in CONTRASTS:
        kept = [other for other in CONTRASTS if other != name]
        found[f"without {name}"] = scores(run.detector(kept), patients, {other: other for other in kept})
        found[f"{name} missing at work"] = scores(every, patients, {other: other for other in kept})
    told = {name: each.told() for name, each in found.items()}
    return {name: {**said, "against all": _compared(found[name], found["all"])} for name, said in told.items()}


def of_restoration(run: Run, patients: Sequence[Patient]) -> dict[str, Any]:
    """Part two."""
    clean = f"T1{CLEAN}"
    restored = {
        "restored": run.restorer([]),
        "restored with T2 and FLAIR": run.restorer([f"T2{CLEAN}", f"FLAIR{CLEAN}"]),
    }
    shown = []
    for patient in patients:
        images = dict(patient.images)
        for what, model in restored.items():
            beside = {name: images[name] for name in model.data.auxiliary}
            images[what] = model.apply(images["T1"], auxiliary=beside).result
        shown.append(replace(patient, images=images))
    detector, hardened = run.detector([clean], "T1 clean"), run.detector(["T1"], "T1 degraded")
    found = {
        "reference": scores(detector, shown, {clean: clean}),
        "degraded": scores(detector, shown, {clean: "T1"}),
        **{what: scores(detector, shown, {clean: what}) for what in restored},
        "degraded, by a detector trained on degraded images": scores(hardened, shown, {"T1": "T1"}),
    }
    told = {name: each.told() for name, each in found.items()}
    told = {
        name: {**said, "against degraded": _compared(found[name], found["degraded"])} for name, said in told.items()
    }
    errors = {what: _psnr(shown, what) for what in ("T1", *restored)}
    return {**told, "psnr": errors}


def _psnr(patients: Sequence[Patient], what: str) -> float:
    """Mean over patients in dB, the range being that of the clean image."""
    found = []
    for patient in patients:
        truth, made = patient.images[f"T1{CLEAN}"].data, patient.images[what].data
        found.append(20 * np.log10(float(np.ptp(truth)) / max(float(np.sqrt(np.mean((truth - made) ** 2))), 1e-6)))
    return round(float(np.mean(found)), 2)


def main(minutes: float, steps: int, patients: int, home: Path) -> dict[str, Any]:
    budget = [f"train.minutes={0 if steps else minutes}", f"train.steps={steps}"]
    run = Run(home, phantoms(home / "phantoms", patients, SIZE), budget)
    test = judged(run.manifest, [*CONTRASTS, *(f"{name}{CLEAN}" for name in MAGNETIC)])
    setup = {
        "patients": patients,
        "judged": len(test),
        "with a tumour": sum(bool((patient.lesion > 0).any()) for patient in test),
        "pixels": SIZE,
        **({"steps": steps} if steps else {"minutes": minutes}),
        "noise": NOISE,
        "threads": torch.get_num_threads(),
    }
    return {"setup": setup, "contrasts": of_contrasts(run, test), "restoration": of_restoration(run, test)}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(usage=__doc__)
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--steps", type=int, default=0)
    parser.add_argument("--patients", type=int, default=1000)
    parser.add_argument("--keep", type=Path)
    parser.add_argument("--quick", action="store_true")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        count, steps = (60, 12) if asked.quick else (asked.patients, asked.steps)
        results = main(asked.minutes, steps, count, asked.keep or Path(temporary))
    print(json.dumps(results, indent=1))
    if not asked.quick:
        KEPT.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
