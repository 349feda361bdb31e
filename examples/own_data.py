"""Images of your own to a diffusion model: index a folder, train, draw new images, judge them.

    python examples/own_data.py FOLDER -o own-data

FOLDER holds DICOM, NIfTI, PNG ... in any layout. Without one, chest phantoms are drawn to try it on. 2,500 steps take
16 minutes on two processor cores. Then there are, in own-data:

    manifest.csv          what was found in FOLDER, and which patients are for training, validation and test
    model/                weights, recipe, model card, samples.png
    samples/*.dcm         16 synthetic images, marked as such
    report/report.html    how far they are from real ones, and whether any is a copy
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import fabrica
from fabrica.data.embedded import write_phantoms
from fabrica.recipe.load import load_recipe

SIZE = 64  # pixels a side that the model sees
PHANTOMS = 500


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Train a diffusion model on a folder of images.")
    parser.add_argument("folder", type=Path, nargs="?", help="images; none: phantoms")
    parser.add_argument("--steps", type=int, default=2500, help="of training")
    parser.add_argument("-o", "--out", type=Path, default=Path("own-data"))
    options = parser.parse_args(arguments)
    out: Path = options.out
    if not options.folder:
        write_phantoms("chest", PHANTOMS, out / "phantoms", size=SIZE)

    manifest = fabrica.scan(options.folder or out / "phantoms")
    manifest.save(out / "manifest.csv")
    print(*manifest.notes, sep="\n")  # what had to be assumed: read it

    recipe = load_recipe(
        "ddpm-xray", [f"data.source={out / 'manifest.csv'}", f"data.size={SIZE}", f"train.steps={options.steps}"]
    )
    fabrica.train(recipe, out / "model")

    model = fabrica.load(out / "model")
    (out / "samples").mkdir()
    for k, image in enumerate(model.sample(16, seed=0)):  # image k is that of seed k, however many are drawn
        fabrica.write(image, out / "samples" / f"{k:02d}.dcm", synthetic=True, model=model.name, seed=k)

    report = fabrica.evaluate(model, out=out / "report")  # against the test patients, whom the model has not seen
    print(f"see {out / 'model' / 'samples.png'} and {report.page}")


if __name__ == "__main__":
    main()
