"""Draw the pictures in docs/pictures: phantoms always, samples of the model folders given.

python docs/gallery.py [MODEL_FOLDER ...]
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

import fabrica
from fabrica.phantoms import chest, head
from fabrica.pictures import image_grid, save_picture

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


if __name__ == "__main__":
    PICTURES.mkdir(exist_ok=True)
    phantoms()
    for model_folder in sys.argv[1:]:
        samples(model_folder)
