"""A noisy CT series made clear: learn from good CTs, then denoise a DICOM series into a new one.

    python examples/denoise_dicom.py SERIES --good FOLDER -o denoised

FOLDER holds CTs of good quality: the physics of a quarter of the dose makes their noisy partners. SERIES is a folder
with the slices to denoise. Without them, heads of phantoms are drawn to try it on. 800 steps take 10 minutes on one
processor core. Then there are, in denoised:

    model/              weights, recipe, model card, samples.png (noisy, result, good)
    result/             the series without noise: derived DICOM in HU, in the study of the source
    before-after.png    a slice of it, before and after
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np

import fabrica
from fabrica.data.degrade import degraded
from fabrica.io.contact_sheet import image_grid, save_picture
from fabrica.phantoms.head.head import head
from fabrica.recipe.load import load_recipe

SIZE, CROP = 256, 96  # pixels a side: of training images, and of the parts of them that the network learns from
PHANTOMS = 400
SLICES = 8  # of the phantom that is denoised


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Train on good CTs, and denoise a DICOM series.")
    parser.add_argument("series", type=Path, nargs="?", help="folder of a noisy CT series; none: a phantom")
    parser.add_argument("--good", type=Path, help="folder of CTs of good quality; none: phantoms")
    parser.add_argument("--steps", type=int, default=800, help="of training")
    parser.add_argument("-o", "--out", type=Path, default=Path("denoised"))
    options = parser.parse_args(arguments)
    out: Path = options.out

    changes = [f"data.size={SIZE}", f"data.crop={CROP}", f"train.steps={options.steps}", "train.minutes=0"]
    if options.good:
        fabrica.scan(options.good).save(out / "manifest.csv")
        changes += [f"data.source={out / 'manifest.csv'}", "data.b=image", "data.slices=all"]  # b: as it should be
    else:
        changes += [f"data.count={PHANTOMS}"]
    recipe = load_recipe("nafnet-lowdose", changes)
    fabrica.train(recipe, out / "model")

    model = fabrica.load(out / "model")
    series = options.series or draw_series(out / "phantom", recipe.data.degrade)
    image = fabrica.read(series)
    print(*model.out_of_distribution(image), sep="\n")  # why it should not be denoised, if anything speaks against it
    made = model.apply(image).result
    fabrica.write(made, out / "result", as_="dicom", translated=True, model=model.name, model_hash=model.hash)

    middle = image.data.shape[1] // 2
    pair = np.stack([volume.data[:, middle] for volume in (image, made)])
    save_picture(image_grid(np.clip(pair / 200 - 0.2, -1, 1), columns=2), out / "before-after.png")  # -160 to 240 HU
    print(f"see {out / 'before-after.png'}; the series is in {out / 'result'}")


def draw_series(folder: Path, steps: Sequence[dict[str, object]]) -> Path:
    """A phantom of a head at a quarter of the dose, as a DICOM series."""
    good = head(10**6, SIZE, SLICES, contrasts=["CT"]).images["CT"]
    fabrica.write(degraded(good, steps, seed=0), folder, as_="dicom")
    return folder


if __name__ == "__main__":
    main()
