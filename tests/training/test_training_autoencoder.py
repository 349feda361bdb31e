"""The autoencoder from recipe to report: every recipe trains, the folder holds the scale, runs resume bit for bit."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch

import fabrica
from fabrica.data.cache import build_cache
from fabrica.errors import UsageError
from fabrica.recipe.codecs import codec_of
from fabrica.recipe.folder import read_log
from fabrica.recipe.load import load_recipe
from fabrica.recipe.schema import Recipe
from fabrica.training.loop import train
from tests.command import TORCHRUN
from tests.shipped import shipped

pytestmark = pytest.mark.usefixtures("few_held_out")

TINY = [
    "method.channels=[8,16]",
    "method.norm_groups=8",
    "method.latent_channels=3",
    "method.critic_width=4",
    "method.pretrain=2",
    "data.size=32",
    "data.batch=4",
    "data.count=48",
    "train.minutes=0",
    "train.warmup=2",
    "train.log_every=1",
    "train.accumulate=1",
]
RECIPES = [name for name, recipe in shipped().items() if recipe.task == "compress"]


def tiny(name: str, *overrides: str) -> Recipe:
    """A shipped recipe with its smallest networks, on radiographs of phantoms where it has no data of its own."""
    recipe = load_recipe(name)
    volumes = len(recipe.data.size) == 3
    size = (
        ["data.size=[16,16,16]", "method.adversarial=0", "method.features=0"] if volumes else []
    )  # no room for a critic
    own = [] if recipe.data.source or volumes else ["data.source=phantom:chest"]
    return load_recipe(name, [*TINY, *size, *own, *overrides])


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "tiny"
    recipe = tiny("autoencoder-chest", "train.steps=40", "train.validate_every=20", "train.lr=5e-3", "train.ema=0.9")
    return train(recipe, folder)


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes", [["method.pretrain=2"], ["method.detail=true", "method.adversarial=0", "method.features=0"]]
)
def test_two_processes_train_one_autoencoder(changes: list[str], tmp_path: Path) -> None:
    """With a critic from the middle on, and with detail, whose turns are others."""
    arguments = ["train", "autoencoder-chest", *TINY, "data.source=phantom:chest", *changes]
    arguments += ["train.steps=4", "train.devices=2", "-o", str(tmp_path / "run")]
    subprocess.run([*TORCHRUN, *arguments], check=True, timeout=250)
    rows = read_log(tmp_path / "run/log.csv")
    assert rows[-1]["step"] == 4 and all(np.isfinite(row["loss"]) for row in rows)
    assert fabrica.load(tmp_path / "run", device="cpu").encode(np.zeros((2, 1, 32, 32), np.float32)).shape[0] == 2


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_of_compression_takes_two_steps(name: str, volumes: Path, tmp_path: Path) -> None:
    own = [f"data.source={volumes}"] if len(load_recipe(name).data.size) == 3 else []
    recipe = tiny(name, "train.steps=2", "data.count=8", *own)
    model = fabrica.load(train(recipe, tmp_path / "run"), device="cpu")
    images = np.zeros((2, 1, *recipe.data.size), np.float32)
    made = model.decode(model.encode(images))
    assert made.shape == images.shape and bool(np.isfinite(made).all())


def test_the_folder_holds_weights_and_scale(run: Path) -> None:
    rows = read_log(run / "log.csv")
    losses = [row["val_loss"] for row in rows if "val_loss" in row]
    assert losses[-1] < losses[0] and rows[-1]["kl"] > 0 and "real_accuracy" in rows[-1]
    assert (run / "samples.png").stat().st_size > 0
    card = (run / "README.md").read_text()
    assert "latents | 3 x 8 x 8" in card and "fabrica sample" not in card and "patient" in card
    model = fabrica.load(run, device="cpu")
    train_images = build_cache(model.recipe.data, codec_of(model.found.codec), "train")
    images = train_images.read(range(len(train_images)))
    latents = model.encode(images, batch=7)
    np.testing.assert_allclose(latents.mean((0, 2, 3)), 0, atol=0.02)  # bf16 where the processor has it
    np.testing.assert_allclose(latents.std((0, 2, 3)), 1, atol=0.02)
    again = fabrica.load(run, device="cpu")
    np.testing.assert_array_equal(latents, again.encode(images, batch=7))
    np.testing.assert_array_equal(model.decode(latents), again.decode(latents))
    odd = np.zeros((1, 1, 41, 30), np.float32)
    assert model.decode(model.encode(odd), (41, 30)).shape == odd.shape


def test_the_critic_begins_after_steps_however_many_parts_a_step_has(tmp_path: Path) -> None:
    train(tiny("autoencoder-chest", "data.count=8", "train.accumulate=2", "train.steps=3"), tmp_path / "run")
    rows = read_log(tmp_path / "run/log.csv")
    assert [row["step"] for row in rows if "real_accuracy" in row] == [3], "method.pretrain is 2"


def test_a_resumed_run_is_bit_exact(tmp_path: Path) -> None:
    straight, stopped = tmp_path / "straight", tmp_path / "stopped"
    overrides = ["train.decay=constant", "data.count=8", "train.validate_every=2"]
    train(tiny("autoencoder-chest", *overrides, "train.steps=5"), straight)
    train(tiny("autoencoder-chest", *overrides, "train.steps=3"), stopped)
    train(load_recipe(stopped / "recipe.yaml", ["train.steps=5"]), stopped, resume=True)
    one, two = (torch.load(folder / "training/checkpoint.pt") for folder in (straight, stopped))
    for part in ("networks", "averaged"):
        for network, weights in one[part].items():
            for key, value in weights.items():
                if key not in ("mean", "std"):  # measured whenever weights are kept, and kept with them
                    assert torch.equal(value, two[part][network][key]), (network, key)
    assert (straight / "weights.safetensors").read_bytes() == (stopped / "weights.safetensors").read_bytes()


def test_a_report_says_what_is_left(run: Path, tmp_path: Path) -> None:
    report = fabrica.evaluate(run, out=tmp_path, n=16)
    scores = json.loads((tmp_path / "scores.json").read_text())
    for key in ("ms_ssim", "psnr", "ssim", "power_kept", "frechet", "kid_x1000"):
        assert np.isfinite(scores[key]["value"]) and np.isfinite(scores[key]["real"]), key
    assert scores["n_images"] == 16 and scores["compression"] == pytest.approx(32 * 32 / (3 * 8 * 8))
    assert scores["ms_ssim"]["real"] < scores["ms_ssim"]["value"] <= 1
    assert 0 < scores["ms_ssim"]["baselines"]["shrunk"] < 1
    page = report.page.read_text()
    assert "rebuilt less source" in page and "Power kept" in page and "as many numbers" in page.lower()
    with pytest.raises(UsageError, match="compresses has no sampler steps"):
        fabrica.evaluate(run, out=tmp_path, steps_curve=[2])
    with pytest.raises(UsageError, match="two models that translate"):
        fabrica.evaluate(run, out=tmp_path, versus=run)


def test_what_an_autoencoder_is_not_for_is_one_line(run: Path, tmp_path: Path) -> None:
    model = fabrica.load(run, device="cpu")
    for wrong in (lambda: model.sample(1), lambda: model.way("a2b")):
        with pytest.raises(UsageError, match="is an autoencoder") as refused:
            wrong()
        assert f"fabrica evaluate {run}" in str(refused.value) and "\n" not in str(refused.value)
    with pytest.raises(UsageError, match=r"train\.keep is frd, which compares samples"):
        train(tiny("autoencoder-chest", "train.keep=frd", "train.steps=1"), tmp_path / "run")
    with pytest.raises(UsageError, match=r"data\.a and data\.b empty"):
        train(tiny("autoencoder-chest", "data.a=x", "data.b=y", "train.steps=1"), tmp_path / "run")


def test_a_network_file_that_is_not_there_is_missed_before_images_are_read(tmp_path: Path) -> None:
    recipe = tiny("autoencoder-chest", "train.steps=2", "method.network=/nowhere.pt")
    with pytest.raises(UsageError, match=r"method\.network: there is no file /nowhere\.pt; nothing is downloaded"):
        train(recipe, tmp_path / "run")
    assert not (tmp_path / "run").exists()
