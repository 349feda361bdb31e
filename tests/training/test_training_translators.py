"""The loop with two sides: every recipe trains, runs resume bit for bit, and what cannot run is one line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image as Picture

import fabrica
from fabrica.data.manifest import Manifest, Row
from fabrica.errors import UsageError
from fabrica.image import Image
from fabrica.recipe.folder import read_log
from fabrica.recipe.found import found_in
from fabrica.recipe.held_out import useless, worth
from fabrica.recipe.load import load_recipe
from fabrica.recipe.schema import FewConfig, Recipe
from fabrica.training.loop import train
from tests.shipped import shipped

pytestmark = pytest.mark.usefixtures("few_asked")

SIDE = 32
TINY = [
    "data.size=32",
    "data.batch=4",
    "train.steps=1",
    "train.minutes=0",
    "train.validate_every=1000",
    "train.log_every=1",
]
NETWORKS = {
    "cyclegan": ["method.width=8", "method.blocks=1", "method.critic_width=8", "method.history=8"],
    "cut": ["method.width=8", "method.blocks=1", "method.critic_width=8", "method.patches=16"],
    "pix2pix": ["method.width=8", "method.levels=3", "method.critic_width=8"],
}


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """40 patients to train and 32 held out, each a bright disc (a), its dark twin (b), and where it lies (mask)."""
    folder = tmp_path_factory.mktemp("sides")
    rng, rows = np.random.default_rng(0), []
    y, x = np.ogrid[:SIDE, :SIDE]
    for k in range(72):
        split, centre, radius = "train" if k < 40 else "val", rng.uniform(10, 22, 2), rng.uniform(4, 9)
        disc = (y - centre[0]) ** 2 + (x - centre[1]) ** 2 <= radius**2
        light = disc * rng.uniform(100, 200) + rng.uniform(0, 20, (SIDE, SIDE))
        for name, pixels in (("a", light), ("b", 255 - light), ("mask", disc * 255)):
            Picture.fromarray(pixels.astype(np.uint8)).save(folder / f"{k}-{name}.png")
        for name in "ab":
            mask = f"{k}-mask.png" if name == "b" else ""
            rows.append(Row(f"{k}{name}", f"p{k}", f"{k}-{name}.png", "", split, "CR", name, mask=mask))
    Manifest(rows, folder).save(folder / "set.csv")
    return folder / "set.csv"


@pytest.fixture(scope="module")
def few(table: Path) -> Path:
    """The same with little held out: one image of side a, two of b."""
    rows = [row for row in Manifest.load(table).rows if row.split == "train" or row.id in ("50a", "50b", "51b")]
    Manifest(rows, table.parent).save(table.parent / "few.csv")
    return table.parent / "few.csv"


def tiny(name: str, table: Path, *overrides: str) -> Recipe:
    """A shipped recipe with its smallest networks, on the table where it has no data of its own."""
    recipe = load_recipe(name, TINY)
    small = NETWORKS[recipe.method["name"]]
    data = [f"data.source={table}"]
    if recipe.data.source:
        data += ["data.a=a", "data.b=b"]
    return load_recipe(name, [*TINY, *small, *data, *overrides])


TRANSLATORS = [name for name, recipe in shipped().items() if recipe.task == "translate"]


@pytest.mark.parametrize("name", TRANSLATORS)
def test_every_recipe_of_translation_takes_two_steps(name: str, table: Path, tmp_path: Path) -> None:
    folder = train(tiny(name, table, "train.steps=2"), tmp_path / "run")
    rows = read_log(folder / "log.csv")
    assert rows[-1]["step"] == 2 and all(np.isfinite(row["loss"]) for row in rows)
    for kept in ("weights.safetensors", "recipe.yaml", "README.md", "samples.png", "training/checkpoint.pt"):
        assert (folder / kept).stat().st_size > 0, kept
    model = fabrica.load(folder, device="cpu")
    assert model.recipe.task == "translate" and np.isfinite(rows[-1]["val_loss" if model.recipe.data.paired else "frd"])
    disc = np.zeros((1, SIDE, SIDE), np.float32)
    disc[:, 10:20, 10:20] = 255
    made = model.apply(Image(disc)).result
    assert made.size == (SIDE, SIDE) and bool(np.isfinite(made.data).all())


@pytest.mark.parametrize("name", ["pix2pix-head", pytest.param("cyclegan-head", marks=pytest.mark.slow)])
def test_recipes_with_phantoms_find_both_sides(name: str, tmp_path: Path) -> None:
    small = NETWORKS[load_recipe(name).method["name"]]
    recipe = load_recipe(name, [*TINY, *small, "data.count=8", "train.steps=1"])
    model = fabrica.load(train(recipe, tmp_path / "run"), device="cpu")
    assert (model.codec_b.kind, model.codec_b.unit) == ("window", "HU")
    assert (model.found.fingerprint_a.modality, model.found.modality) == ("MR", "CT")


@pytest.mark.parametrize(
    ("name", "overrides"),
    [
        ("cyclegan-xray", ["data.flip=true", "data.jitter=2"]),
        pytest.param("cut-head", ["train.accumulate=2"], marks=pytest.mark.slow),
        pytest.param(
            "pix2pix-head",
            ["few.patients=0", "few.pairs=0", "data.jitter=2", "train.ema=0.9"],  # with dropout
            marks=pytest.mark.slow,
        ),
        pytest.param("strong-head", ["method.registration=1"], marks=pytest.mark.slow),
    ],
)
def test_a_resumed_run_is_bit_exact_for_both_sides(name: str, overrides: list[str], few: Path, tmp_path: Path) -> None:
    table, straight, stopped = few, tmp_path / "straight", tmp_path / "stopped"
    overrides = [*overrides, "train.decay=constant", "train.keep=last"]
    train(tiny(name, table, *overrides, "train.steps=5"), straight)
    train(tiny(name, table, *overrides, "train.steps=3"), stopped)
    train(load_recipe(stopped / "recipe.yaml", ["train.steps=5"]), stopped, resume=True)
    one, two = (torch.load(folder / "training/checkpoint.pt") for folder in (straight, stopped))
    for part in ("networks", "averaged"):
        assert set(one[part]) == set(two[part])
        for network, weights in one[part].items():
            for key, value in weights.items():
                assert torch.equal(value, two[part][network][key]), (network, key)
    if name.startswith("cyclegan"):
        past = one["networks"]["past_b"]  # full when the run was stopped
        assert int(past["count"]) == 8 and bool((past["past"] != 0).flatten(1).any(1).all())


def test_few_pairs_are_trained_as_was_best_for_them_and_the_run_says_so(table: Path, tmp_path: Path) -> None:
    said: list[str] = []
    few = load_recipe("pix2pix-head").few
    folder = train(tiny("pix2pix-head", table, "data.turn=3"), tmp_path / "run", say=said.append)
    (told,) = said
    assert told.startswith(f"40 pairs of 40 patients are few (fewer than {few.pairs} pairs)")
    assert "method.adversarial=0" in told and "data.turn" not in told  # which was named
    asked, found = found_in(folder)
    assert asked.few == FewConfig() and asked.data.turn == 3 and asked.data.flip and found.few == told
    assert found.method["adversarial"] == 0 and found.method["width"] == 8  # which was named, too
    assert told.replace("\n", "; ") in (folder / "README.md").read_text()
    again = train(load_recipe(folder / "recipe.yaml", ["train.steps=2"]), folder, resume=True, say=said.append)
    assert found_in(again)[1].few == told and len(said) == 1


@pytest.mark.parametrize("asked", [["few.patients=0", "few.pairs=0"], ["few.patients=40", "few.pairs=40"]])
def test_a_recipe_stands_where_pairs_are_not_few(asked: list[str], table: Path, tmp_path: Path) -> None:
    said: list[str] = []
    folder = train(tiny("pix2pix-head", table, *asked), tmp_path / "run", say=said.append)
    _, found = found_in(folder)
    assert said == [] and found.few == "" and found.method["adversarial"] == 1 and found.method["network"] == "unet"


def test_pix2pix_keeps_what_is_nearest_to_held_out_pairs(table: Path, tmp_path: Path) -> None:
    recipe = tiny("strong-head", table, "train.steps=60", "train.validate_every=20", "train.lr=5e-3", "train.ema=0.8")
    folder = train(recipe, tmp_path / "run")
    scores = [row["val_loss"] for row in read_log(folder / "log.csv") if "val_loss" in row]
    assert len(scores) == 3 and min(scores) < 0.7 * scores[0]
    assert f"held-out loss {min(scores):.4g}" in (folder / "README.md").read_text()


def test_what_has_no_pair_is_said_before_training(table: Path, tmp_path: Path) -> None:
    manifest = Manifest.load(table)
    gone = [row for row in manifest.rows if row.id not in ("3b", "4b")]
    Manifest(gone, table.parent).save(tmp_path / "less.csv")
    said: list[str] = []
    train(tiny("pix2pix-head", tmp_path / "less.csv", "train.steps=1"), tmp_path / "run", warn=said.append)
    assert said[0] == "2 of 40 images of 'a' have no pair in 'b': left out"
    assert [note for note in said[1:] if "no better than" not in note] == []  # after one step


@pytest.mark.parametrize(
    ("name", "override", "message"),
    [
        ("cyclegan-xray", "data.a=c", r"no image of 'c'; expected one of a, b; it has domains a, b and masks"),
        ("pix2pix-xray", "data.paired=false", r"pix2pix learns from pairs; set data\.paired=true"),
        ("cut-head", "train.keep=loss", r"train\.keep is loss, but cut has no loss that tells good weights"),
        (
            "cut-head",
            "data.where.patient=p0",
            r"split val of .* no image of 'a'; .*; scan more patients, or split anew",
        ),
        ("cyclegan-xray", "data.size=16", r"the critic of cyclegan takes 24 or more"),
        ("strong-head", "data.context=1", r"is one slice, and data\.context=1 needs its neighbours; give volumes"),
        ("strong-head", "train.lr_of.critik=1e-3", r"no player 'critik'; did you mean critic\?"),
    ],
)
def test_what_cannot_run_is_one_line_and_leaves_no_run(
    name: str, override: str, message: str, table: Path, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        train(tiny(name, table, "train.steps=1", override), tmp_path / "run")
    assert "\n" not in str(caught.value) and not (tmp_path / "run").exists()


def test_too_few_held_out_images_for_frd_are_counted(table: Path, tmp_path: Path) -> None:
    manifest = Manifest.load(table)
    few = [row for row in manifest.rows if row.split == "train" or row.id in ("50a", "50b")]
    Manifest(few, table.parent).save(tmp_path / "few.csv")
    with pytest.raises(UsageError, match="1 held-out images are too few to choose weights by frd; it takes 32"):
        train(tiny("cyclegan-xray", tmp_path / "few.csv", "train.steps=1"), tmp_path / "run")


def test_one_image_is_too_few_where_batch_norm_has_one_voxel(table: Path, tmp_path: Path) -> None:
    overrides = ["method.levels=6", "data.batch=1", "train.steps=1"]
    with pytest.raises(UsageError, match=r"pix2pix normalises over the batch and needs 2: take data\.batch=2 or more"):
        train(tiny("strong-head", table, *overrides), tmp_path / "run")


def test_few_images_without_pairs_are_translated_by_the_last_weights(few: Path, tmp_path: Path) -> None:
    folder = train(tiny("cyclegan-xray", few, "train.keep=last"), tmp_path / "run")
    known = fabrica.load(folder, device="cpu").found.held_out_b
    assert worth(known) == "1 images without pairs are too few to measure a held-out error" and not useless(known)
    assert worth(known) in (folder / "README.md").read_text()


def test_what_goes_both_ways_is_measured_both_ways(table: Path, tmp_path: Path) -> None:
    found = fabrica.load(train(tiny("cyclegan-xray", table), tmp_path / "run"), device="cpu").found
    for known in (found.held_out_a, found.held_out_b):
        assert known.measure == "frd" and known.images == 32 and known.nothing is not None and known.mean is None
    assert found.held_out_a.error != found.held_out_b.error
