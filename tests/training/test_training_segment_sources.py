"""A segmenter learns from label maps wherever they lie: arrays beside images, masks of the left and of the right."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image as Picture

from fabrica import io
from fabrica.evaluation import evaluate
from fabrica.model.loading import load
from fabrica.recipe.found import found_in
from fabrica.recipe.load import load_recipe
from fabrica.training.loop import train
from tests.training.test_training_segment import TINY

SIZE = ["data.size=[16,16]", "data.batch=4", "train.steps=2"]


def drawn(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Radiographs of a bright square on either side, uint8 (N, 20, 20), and their label maps: 1 left, 2 right."""
    rng = np.random.default_rng(0)
    labels = np.zeros((count, 20, 20), dtype=np.uint8)
    for each in labels:
        row = int(rng.integers(2, 8))
        each[row : row + 8, 2:8], each[row : row + 8, 12:18] = 1, 2
    return (40 + 120 * (labels > 0) + rng.integers(0, 40, labels.shape)).astype(np.uint8), labels


def test_arrays_of_labels_beside_arrays_of_images(tmp_path: Path) -> None:
    images, labels = drawn(24)
    (tmp_path / "data").mkdir()
    np.savez_compressed(tmp_path / "data/set.npz", images=images, labels=labels)
    run = train(load_recipe("segment", [*TINY, *SIZE, f"data.source={tmp_path / 'data'}"]), tmp_path / "run")
    assert found_in(run)[1].plan.numbers == [0, 1, 2]
    report = evaluate(run, out=tmp_path / "report")
    assert report.scores["n_images"] >= 1


def test_masks_of_left_and_right_are_two_labels_and_never_mirrored(tmp_path: Path) -> None:
    images, labels = drawn(12)
    for k, (image, truth) in enumerate(zip(images, labels, strict=True)):
        for folder, values in (
            ("images", image),
            ("left_mask", 255 * (truth == 1)),
            ("right_mask", 255 * (truth == 2)),
        ):
            (tmp_path / "data" / folder).mkdir(parents=True, exist_ok=True)
            Picture.fromarray(values.astype(np.uint8)).save(tmp_path / "data" / folder / f"MCU{k:03d}x.png")
    run = train(load_recipe("segment", [*TINY, *SIZE, f"data.source={tmp_path / 'data'}"]), tmp_path / "run")
    plan = found_in(run)[1].plan
    assert plan.numbers == [0, 1, 2] and plan.names == ["", "left", "right"] and plan.mirror == []
    made = load(run).apply(io.read(tmp_path / "data/images/MCU000x.png")).result
    assert made.origin["labels"] == {1: "left", 2: "right"}
