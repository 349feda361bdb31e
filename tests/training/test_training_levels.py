"""Grey levels that are usual are found in training, and what the model draws keeps to them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import fabrica
from fabrica.data.levels import LANDMARKS, landmarks
from fabrica.recipe.found import load_found
from fabrica.recipe.load import load_recipe
from fabrica.training.loop import train

pytestmark = pytest.mark.usefixtures("few_held_out")

TINY = [
    *("data.source=phantom:chest", "data.size=32", "train.steps=2", "train.minutes=0", "train.keep=last"),
    *("train.validate_every=2", "data.batch=8"),
]


@pytest.mark.parametrize(("count", "asked"), [(160, True), (160, False), (40, True)])
def test_what_is_drawn_keeps_to_the_grey_levels_of_training(count: int, asked: bool, tmp_path: Path) -> None:
    changes = [*TINY, f"data.count={count}", f"sample.levels={str(asked).lower()}"]
    run = train(load_recipe("mlp-xray", changes), tmp_path / "run")
    levels = load_found(run / "found.yaml").levels
    model = fabrica.load(run)
    made = model.sample_array(12)
    if count == 40:
        assert levels == []
        return
    low, high = np.array(levels)
    assert low.shape == (len(LANDMARKS),) and (low <= high).all() and low[-1] > 0 > high[0]
    own = landmarks(made)
    inside = ((own >= low - 0.05) & (own <= high + 0.05)).mean()
    assert (inside > 0.95) == asked  # of two steps nothing is usual by itself


def test_what_is_drawn_from_an_image_keeps_to_its_own(tmp_path: Path) -> None:
    changes = [*TINY, "data.count=160", "method.channels=[8,8]", "method.attention=[false,false]", "sample.steps=2"]
    narrow = ["method.norm_groups=4", "method.head_channels=8"]
    run = train(load_recipe("ddpm-chest", [*changes, *narrow]), tmp_path / "run")
    found = load_found(run / "found.yaml")
    model = fabrica.load(run)
    (image,) = model.sample(1)
    dark = fabrica.Image(image.data * 0.1, image.affine, image.unit, image.origin)
    redrawn = model.sample_array(1, start=dark, strength=0.05)
    assert found.levels and landmarks(redrawn)[0, -1] < found.levels[0][-1] - 0.3
