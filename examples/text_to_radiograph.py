"""Report text to a radiograph: learn from images with reports, then draw what a sentence says.

    python examples/text_to_radiograph.py MANIFEST --prompt "There is a large left pleural effusion." -o from-text

MANIFEST is what `fabrica scan FOLDER --labels REPORTS.csv -o MANIFEST` writes, with a column `text`. Without it, chest
phantoms and their reports are drawn to try it on. Two models are trained: an autoencoder, then diffusion on its
latents, which is told the text. 6,900 steps take 80 minutes on one processor core. Then there are, in from-text:

    autoencoder/, model/    both models; model/ holds all that is needed
    samples/*.png           eight images of the prompt
    samples.png             the same on one sheet
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np

import fabrica
from fabrica.io.contact_sheet import image_grid, save_picture
from fabrica.recipe.load import load_recipe

SIZE = 64  # pixels a side
PHANTOMS = 12_000


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Train a model that draws radiographs from report text.")
    parser.add_argument("manifest", nargs="?", default="phantom:chest", help="images with reports; none: phantoms")
    parser.add_argument("--prompt", default="There is a large left pleural effusion.")
    parser.add_argument("--steps", type=int, default=6900, help="of training, of diffusion")
    parser.add_argument("-o", "--out", type=Path, default=Path("from-text"))
    options = parser.parse_args(arguments)
    out: Path = options.out

    data = [f"data.source={options.manifest}", f"data.count={PHANTOMS}", f"data.size={SIZE}", "train.minutes=0"]
    steps = f"train.steps={options.steps * 6 // 10}"  # of few images each
    fabrica.train(load_recipe("autoencoder-chest", [*data, steps]), out / "autoencoder")
    told = [f"uses.autoencoder={out / 'autoencoder'}", f"train.steps={options.steps}"]
    fabrica.train(load_recipe("latent-text-chest", [*data, *told]), out / "model")

    model = fabrica.load(out / "model")
    images = model.sample(8, seed=0, conditions={"text": options.prompt})
    (out / "samples").mkdir()
    for k, image in enumerate(images):
        fabrica.write(image, out / "samples" / f"{k}.png", synthetic=True, model=model.name, seed=k)
    sheet = np.stack([model.codec.encode(image) for image in images])  # in [-1, 1]
    save_picture(image_grid(sheet, columns=4), out / "samples.png")
    print(f"see {out / 'samples.png'}: {options.prompt}")


if __name__ == "__main__":
    main()
