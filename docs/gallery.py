"""Draw the pictures in docs/pictures: phantoms always, samples of the model folders given.

python docs/gallery.py [MODEL_FOLDER ...]
python docs/gallery.py --rows NAME MODEL_FOLDER ...   one picture, NAME.png: real held-out images, then a row a model
python docs/gallery.py --translated NAME MODEL_FOLDER ...   held-out sources, the truth of pairs, then a row a model
python docs/gallery.py --segmented NAME MODEL_FOLDER ...    the first held-out images with contours, a row a model
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image as Pillow

import fabrica
from fabrica.data.cache import build_cache
from fabrica.data.sources import open_source
from fabrica.data.standardise import fitted_to
from fabrica.evaluation.segmentation.panels import overlays
from fabrica.io.contact_sheet import image_grid, save_picture
from fabrica.phantoms import chest, head
from fabrica.report.pictures import SOFT, WIDE

COLUMNS = 10
OUTLINED, WIDTH = 5, 240  # images in a row, and their width in pixels
PICTURES = Path(__file__).parent / "pictures"
CONTRASTS = ("T1", "T2", "FLAIR", "PD", "CT", "PET")
FINDINGS = ((), ("cardiomegaly",), ("left_effusion",), ("right_effusion",), ("nodule",), ("pacemaker",))


def in_range(image: fabrica.Image, low: float, high: float) -> np.ndarray:
    return np.clip((image.data - low) / (high - low), 0, 1) * 2 - 1


def phantoms() -> None:
    chests = [chest(11 + k, 192, findings).image for k, findings in enumerate(FINDINGS)]
    rows = [in_range(image, 0, 4095) for image in chests]
    for seed in (3, 5):
        images = head(seed, 192, tumour=seed == 5).images
        for name in CONTRASTS:
            low, high = (-100, 300) if name == "CT" else np.percentile(images[name].data, [1, 99.7])
            rows.append(in_range(images[name], low, high))
    save_picture(image_grid(np.stack(rows), columns=6), PICTURES / "phantoms.png")


def samples(folder: str) -> None:
    model = fabrica.load(folder)
    save_picture(image_grid(model.sample_array(24), columns=8), PICTURES / f"{model.name}.png")


def rows(name: str, folders: list[str]) -> None:
    models = [fabrica.load(folder) for folder in folders]
    config = replace(models[0].recipe.data, size=list(models[0].size))
    heldout = build_cache(config, models[0].codec, "test")
    pictures = [heldout.read(range(COLUMNS)), *(model.sample_array(COLUMNS) for model in models)]
    save_picture(image_grid(np.concatenate(pictures), columns=COLUMNS), PICTURES / f"{name}.png")


def translated(name: str, folders: list[str]) -> None:
    """Images of the largest model's size, in the other models' hands, too; models of one task."""
    models = [fabrica.load(folder) for folder in folders]
    first = max(models, key=lambda model: model.size)
    paired = first.recipe.data.paired
    sides = [open_source(first.recipe.data, "test", side) for side in ("a", "b")[: 2 if paired else 1]]
    columns = min(COLUMNS, sides[0].count)
    sources, *truth = [[sample.image for sample in side.samples(list(range(columns)))] for side in sides]
    results = [[model.apply(image).result for image in sources] for model in models]
    wide = SOFT if first.recipe.data.restores else WIDE  # noise does not show beside bone
    limits = wide if first.codec_b.unit == "HU" else first.codec_b.span
    alike = [sources] if first.recipe.data.restores else []  # one scale
    shown = [] if alike else [[first.codec.encode(image) for image in sources]]
    shown += [[in_range(image, *limits) for image in row] for row in (*alike, *truth, *results)]
    tiles = [fitted_to(tile, first.size, "pad")[0] for row in shown for tile in row]
    save_picture(image_grid(np.stack(tiles), columns=columns), PICTURES / f"{name}.png")


def segmented(name: str, folders: list[str]) -> None:
    """Contours, the truth dashed; of volumes the sagittal plane through the largest error."""
    made = []
    for model in map(fabrica.load, folders):
        a, b = (open_source(model.recipe.data, "test", side) for side in ("a", "b"))
        tiles = []
        for image, truth in zip(a.samples(list(range(OUTLINED))), b.samples(list(range(OUTLINED))), strict=True):
            drawn = overlays(image.image, truth.image, model.apply(image.image).result, list(model.label_names))[-1][1]
            tiles.append(np.asarray(Pillow.fromarray(drawn).resize((WIDTH, WIDTH * len(drawn) // len(drawn[0])))))
        tall = max(len(tile) for tile in tiles)
        made.append(np.hstack([np.pad(tile, ((0, tall - len(tile)), (0, 0), (0, 0))) for tile in tiles]))
    save_picture(np.vstack(made), PICTURES / f"{name}.png")


if __name__ == "__main__":
    PICTURES.mkdir(exist_ok=True)
    if sys.argv[1:2] == ["--rows"]:
        sys.exit(rows(sys.argv[2], sys.argv[3:]))
    if sys.argv[1:2] == ["--translated"]:
        sys.exit(translated(sys.argv[2], sys.argv[3:]))
    if sys.argv[1:2] == ["--segmented"]:
        sys.exit(segmented(sys.argv[2], sys.argv[3:]))
    phantoms()
    for model_folder in sys.argv[1:]:
        samples(model_folder)
