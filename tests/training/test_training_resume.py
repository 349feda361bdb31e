"""A run is resumed with the data it began with, or stops and says what differs."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Picture

from fabrica.data.manifest import Manifest, Row
from fabrica.errors import UsageError
from fabrica.recipe.load import load_recipe
from fabrica.recipe.schema import Recipe
from fabrica.training.loop import train

TINY = [
    "method.channels=[8,16]",
    "method.attention=[false,false]",
    "method.norm_groups=4",
    "method.head_channels=8",
    "data.size=16",
]
TINY += ["data.batch=4", "train.minutes=0", "train.decay=constant", "sample.steps=2"]
COUNT = 8


def discs(folder: Path, seed: int = 0) -> Path:
    """Eight pictures and their manifest, as a table written by hand: no hashes."""
    folder.mkdir(exist_ok=True)
    rng, (y, x) = np.random.default_rng(seed), np.ogrid[:16, :16]
    rows = []
    for k in range(COUNT):
        disc = 200 * ((y - rng.uniform(5, 11)) ** 2 + (x - rng.uniform(5, 11)) ** 2 < 16) + 20
        Picture.fromarray(disc.astype(np.uint8)).save(folder / f"{k}.png")
        rows.append(Row(f"{k}", f"p{k}", f"{k}.png", "", "train" if k < 6 else "val"))
    Manifest(rows, folder).save(folder / "set.csv")
    return folder / "set.csv"


def recipe(table: Path, steps: int) -> Recipe:
    return load_recipe("ddpm-xray", [*TINY, f"data.source={table}", f"train.steps={steps}"])


def resumed(folder: Path) -> list[str]:
    """What is said of two steps more."""
    said: list[str] = []
    train(load_recipe(folder / "recipe.yaml", ["train.steps=4"]), folder, resume=True, warn=said.append)
    return said


@pytest.fixture
def begun(tmp_path: Path) -> tuple[Path, Path]:
    """The table and the run of two steps."""
    table = discs(tmp_path / "d")
    return table, train(recipe(table, 2), tmp_path / "run")


def test_moved_and_copied_data_are_the_same(begun: tuple[Path, Path]) -> None:
    table, folder = begun
    for path in table.parent.glob("*.png"):
        os.utime(path, (1e9, 1e9))
    table.parent.rename(table.parent.with_name("elsewhere"))
    source = f"data.source={table.parent.with_name('elsewhere') / table.name}"
    said: list[str] = []
    train(load_recipe(folder / "recipe.yaml", ["train.steps=4", source]), folder, resume=True, warn=said.append)
    assert said == []


def test_other_images_stop_it_with_what_differs_and_the_way_on(begun: tuple[Path, Path]) -> None:
    table, folder = begun
    before = (folder / "recipe.yaml").read_text()
    discs(table.parent, seed=1)
    with pytest.raises(UsageError, match=r"are not those it began with: of the training images 6 changed") as caught:
        resumed(folder)
    message = str(caught.value)
    assert "of the held-out images 2 changed (the first 6)" in message and "\n" not in message
    assert (folder / "recipe.yaml").read_text() == before
    (folder / "training" / "data.npz").unlink()  # the way on that the message names
    assert "does not say what data it began with" in resumed(folder)[0]


def test_a_patient_that_moved_to_another_split_stops_it(begun: tuple[Path, Path]) -> None:
    table, folder = begun
    manifest = Manifest.load(table)
    manifest.rows[5].split = "val"
    manifest.save(table)
    expected = r"of the training images 1 gone \(the first 5\); of the held-out images 1 new \(the first 5\)"
    with pytest.raises(UsageError, match=expected):
        resumed(folder)


def test_phantoms_are_told_by_what_they_show(tmp_path: Path) -> None:
    few = load_recipe("ddpm-chest", [*TINY, "data.count=8", "train.steps=2"])
    folder = train(few, tmp_path / "run")
    assert resumed(folder) == []
    with pytest.raises(UsageError, match=r"of the training images 4 new"):
        train(load_recipe(folder / "recipe.yaml", ["data.count=12"]), folder, resume=True)


def test_a_run_of_a_version_that_kept_no_fingerprint_goes_on_with_a_note(begun: tuple[Path, Path]) -> None:
    (begun[1] / "training" / "data.npz").unlink()
    said = resumed(begun[1])
    assert len(said) == 1 and "whether these are the same is not known" in said[0]
    assert resumed(begun[1]) == []  # now it does
