"""python -m benchmarks medmnist, or python -m benchmarks.medmnist [--minutes N] [--sets NAME ...] [--methods NAME ...]
[-n N] [--pictures FOLDER]: every method of synthesis on the sets of small images at hand, in the same minutes.

Sets: the five of MedNIST that are here (64 x 64, told nothing) and PneumoniaMNIST (28 x 28, told the class by the
methods that can be), in ../shared/data or $FABRICA_DATA. A row a method, as `fabrica evaluate` finds them on held-out
images, and one of as many real training images in the place of the synthetic ones, the floor. FID by Inception's
features stands beside them where $FABRICA_INCEPTION names the weights of torch-fidelity.

Every row is kept in benchmarks/real/medmnist.json as it is found; a later run adds to it.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path

import fabrica
from benchmarks.kept import keep, machine
from fabrica.data.scan import scan
from fabrica.io.contact_sheet import image_grid, save_picture
from fabrica.recipe.load import load_recipe
from fabrica.report.scores import Report
from fabrica.training.loop import train

HERE = Path(__file__).parent
DATA = Path(os.environ.get("FABRICA_DATA", HERE.parents[1] / "shared" / "data"))
KEPT = HERE / "real" / "medmnist.json"
MINUTES, IMAGES = 5.0, 500
PNEUMONIA = "PneumoniaMNIST"
SETS = {name: DATA / "mednist_64" / f"{name}.zip" for name in ("CXR", "HeadCT", "AbdomenCT", "BreastMRI", "Hand")}
SETS |= {PNEUMONIA: DATA / "pneumoniamnist_28" / "pneumoniamnist_reconstructed.npz"}
PADDED = ["data.size=32", "data.fit=exact", "data.condition="]
METHODS = {  # method -> recipe; recipe and changes on PneumoniaMNIST
    "MLP-GAN": ("mlp-xray", ("mlp-xray", PADDED)),
    "DCGAN": ("dcgan-xray", ("dcgan-xray", [*PADDED, "data.batch=64"])),
    "WGAN-GP": ("wgan-xray", ("wgan-xray", PADDED)),
    "modern GAN": ("modern-xray", ("modern-pneumonia", [])),
    "drifting": ("drifting-xray", ("drifting-xray", [*PADDED, "data.condition=label"])),
    "diffusion, 8 steps": ("ddpm-xray", ("ddpm-pneumonia", [])),
}
STUDENT = "student, 4 steps"  # of that diffusion: half of the minutes each
METHODS |= {STUDENT: METHODS["diffusion, 8 steps"]}
COLUMNS = {
    "frechet": "FRD",
    "kid_x1000": "KID x 1000",
    "precision": "precision",
    "recall": "recall",
    "coverage": "coverage",
    "copy_rate": "copies",
    "milliseconds_per_image": "ms an image",
}
FLOOR = "real images"


def judged(
    name: str, data: Path, method: str, minutes: float, n: int, pictures: Path | None
) -> dict[str, dict[str, float]]:
    """The rows of a method and of the floor."""
    recipe, (otherwise, changes) = METHODS[method]
    padded = name == PNEUMONIA
    with tempfile.TemporaryDirectory() as temporary:
        place = Path(temporary)
        scan(data).save(place / "data.csv")
        steps = ["sample.steps=8"] if recipe == "ddpm-xray" else []
        changes = [*(changes if padded else []), *steps]
        share = minutes / 2 if method == STUDENT else minutes
        asked = [f"data.source={place / 'data.csv'}", "train.steps=0", f"train.minutes={share:g}"]
        run = train(load_recipe(otherwise if padded else recipe, [*changes, *asked]), place / "run")
        if method == STUDENT:
            fitting = [] if padded else ["data.size=64", "data.fit=pad", "data.condition="]
            taught = load_recipe("distill-pneumonia", [*fitting, *asked, f"uses.teacher={run}"])
            run = train(taught, place / "student")
        model = fabrica.load(run)
        curve: list[int] | None = [] if "steps" in model.choices else None
        own, floor = rows_of(fabrica.evaluate(model, n=n, out=place / "report", steps_curve=curve))
        if os.environ.get("FABRICA_INCEPTION"):
            again = fabrica.evaluate(model, n=n, out=place / "fid", extractor="inception", steps_curve=curve)
            for row, found in zip((own, floor), rows_of(again), strict=True):
                row["FID"] = found["FRD"]
        if pictures:
            pictures.mkdir(parents=True, exist_ok=True)
            sheet = image_grid(model.sample_array(16))
            save_picture(sheet, pictures / f"{name}-{method}.png".replace(" ", "-"))
    return {method: {**own, "minutes": minutes}, FLOOR: floor}


def rows_of(report: Report) -> tuple[dict[str, float], dict[str, float]]:
    """What synthetic images score, and what as many real ones do, by column."""
    found = {row.key: row for row in report.rows}
    own = {title: found[key].value for key, title in COLUMNS.items() if key in found}
    floor = {title: found[key].real for key, title in COLUMNS.items() if key in found}
    own |= {"FRD, 95 %": f"[{found['frechet'].low:.1f}, {found['frechet'].high:.1f}]"}
    return own, {title: value for title, value in floor.items() if value is not None}


def main(
    sets: list[str] | None = None,
    methods: list[str] | None = None,
    minutes: float = MINUTES,
    n: int = IMAGES,
    pictures: Path | None = None,
) -> dict[str, str]:
    """Rows as words, by set and method."""
    said: dict[str, str] = {"machine": machine()}
    for name in sets or SETS:
        if not SETS[name].is_file():
            said[name] = f"skipped: {SETS[name]} is not there; set FABRICA_DATA to where it lies"
            continue
        for method in methods or METHODS:
            for row, found in judged(name, SETS[name], method, minutes, n, pictures).items():
                keep(KEPT, f"{name}, {row}", found)
                said[f"{name}, {row}"] = ", ".join(
                    f"{title} {value:.3g}" if isinstance(value, float) else f"{title} {value}"
                    for title, value in found.items()
                )
                print(f"   {name}, {row}: {said[f'{name}, {row}']}", flush=True)
    return said


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--sets", nargs="+", choices=list(SETS), metavar="NAME", help=", ".join(SETS))
    parser.add_argument("--methods", nargs="+", choices=list(METHODS), metavar="NAME", help=", ".join(METHODS))
    parser.add_argument("--minutes", type=float, default=MINUTES)
    parser.add_argument("-n", type=int, default=IMAGES)
    parser.add_argument("--pictures", type=Path)
    asked = parser.parse_args()
    main(asked.sets, asked.methods, asked.minutes, asked.n, asked.pictures)
