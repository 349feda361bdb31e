"""Lesions are painted where there is room, into what looks alike, and nothing else is changed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.ndimage import binary_dilation

import fabrica
from fabrica.evaluation.utility.downstream import false_alarms, found_lesions
from fabrica.evaluation.utility.examples import lesson
from fabrica.evaluation.utility.lesions import AROUND, laid
from fabrica.recipe.load import load_recipe


def quiet(what: str, done: int, total: int) -> None:
    """Progress that nobody sees."""


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("shape", [(24, 24), (12, 20, 16)])
def test_a_lesion_lies_where_the_image_looks_as_it_did_around_it(shape: tuple[int, ...], seed: int) -> None:
    rng = np.random.default_rng(seed)
    half = shape[-1] // 2
    image, ground = (np.full((1, *shape), -0.8, dtype=np.float32) for _ in range(2))
    image[..., half:] = 0.5  # as bright as where the lesion is not
    ground[..., :half] = 0.5
    labels, there = np.zeros(shape, dtype=np.uint8), np.zeros(shape, dtype=np.uint8)
    labels[(*(slice(5, 8) for _ in shape[:-1]), slice(3, 5))] = 2  # in the dark half
    there[(*(slice(1, 4) for _ in shape[:-1]), slice(half + 3, half + 5))] = 1
    moved = laid(image, labels, ground, there, rng)
    assert moved is not None and (moved > 0).sum() == (labels > 0).sum() and set(np.unique(moved)) == {0, 2}
    assert not (there[binary_dilation(moved > 0, iterations=AROUND)] > 0).any()
    assert (ground[0][moved > 0] < 0).mean() > 0.5


def test_an_image_full_of_lesions_has_no_room() -> None:
    labels = np.zeros((8, 8), dtype=np.uint8)
    labels[2:4, 2:4] = 1
    image = np.zeros((1, 8, 8), dtype=np.float32)
    assert laid(image, labels, image, np.ones((8, 8), dtype=np.uint8), np.random.default_rng(0)) is None


def test_only_the_lesion_is_drawn_anew(tmp_path: Path, few_held_out: None) -> None:
    changes = "data.size=32 data.count=16 data.batch=4 train.steps=2 train.minutes=0 train.warmup=0 sample.steps=2 "
    changes += "method.channels=[8,16] method.attention=[false,false] method.norm_groups=8 method.head_channels=8 "
    changes += "method.mask_width=8 data.condition=mask"
    model = fabrica.load(fabrica.train(load_recipe("ddpm-chest", changes.split()), tmp_path / "m"))
    told = lesson(model, None, "test", 0, quiet)
    # all organs of a phantom are labelled, and leave no room: of each only the trachea counts as a lesion
    told.train.answers[:] = np.where(told.train.answers == 6, 6, 0)
    kept = told.train.images.copy()
    from fabrica.evaluation.utility.lesions import painted

    asked = []

    def as_told(labels: np.ndarray) -> fabrica.Image:
        asked.append(labels)
        return fabrica.Image(labels[None].astype(np.float32), unit="label")

    images, labels = painted(model, told.train.images, told.train.answers, as_told, 4, 0, quiet)
    assert images.shape == (4, 1, 32, 32) and labels.shape == (4, 32, 32)
    assert len(asked) >= 3
    for image, each in zip(images, labels, strict=True):
        grown = binary_dilation(each > 0, iterations=AROUND)
        same = [np.abs(image - other)[:, ~grown].max() < 1e-4 for other in kept]
        assert any(same)


def test_found_and_false_alarms_are_counted_apart() -> None:
    truth = np.zeros((4, 4, 4), dtype=np.uint8)
    truth[:2, 1:3, 1:3] = 1
    made = np.zeros_like(truth)
    made[0, 2, 2] = made[2, 0, 0] = 1
    assert found_lesions(made, truth)[:2].tolist() == [1, 0] and np.isnan(found_lesions(made, truth)[2:]).all()
    assert false_alarms(made, truth)[2:].tolist() == [1, 0] and np.isnan(false_alarms(made, truth)[:2]).all()
