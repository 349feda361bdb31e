"""The loop on phantoms: it learns, resumes bit for bit after kill -9, stops at NaN, and loses nothing."""

import os
import shutil
import signal
import subprocess
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import fabrica
from fabrica.errors import FabricaError, UsageError
from fabrica.phantoms import chest
from fabrica.recipe.folder import read_log
from fabrica.recipe.load import load_recipe
from fabrica.recipe.schema import Recipe
from fabrica.training.loop import train
from tests.command import CLI, TORCHRUN, call, full_disk
from tests.shipped import shipped

TINY = [
    "method.channels=[16,32]",
    "method.attention=[false,true]",
    "method.head_channels=16",
    "method.norm_groups=8",
    "data.size=16",
    "data.batch=16",
    "data.count=64",
    "train.warmup=5",
    "train.log_every=5",
    "train.minutes=0",
    "sample.steps=3",
]


def tiny(*overrides: str, name: str = "ddpm-chest") -> Recipe:
    return load_recipe(name, [*TINY, *overrides])


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A short but real training on chest phantoms of 16 x 16."""
    folder = tmp_path_factory.mktemp("runs") / "tiny"
    return train(tiny("train.steps=60", "train.validate_every=20", "train.lr=2e-3", "train.ema=0.9"), folder)


def test_training_learns_and_leaves_a_whole_model_folder(run: Path) -> None:
    rows = read_log(run / "log.csv")
    losses = [row["val_loss"] for row in rows if "val_loss" in row]
    assert len(losses) == 3 and losses[-1] < 0.8 * losses[0]
    assert rows[-1]["step"] == 60 and rows[-1]["images"] == 60 * 16
    for name in ("weights.safetensors", "recipe.yaml", "README.md", "samples.png", "training/checkpoint.pt"):
        assert (run / name).stat().st_size > 0, name
    assert "held-out loss" in (run / "README.md").read_text()


def test_a_seed_is_an_image_whatever_the_batch(run: Path) -> None:
    model = fabrica.load(run, device="cpu")
    together = model.sample_array(5, seed=3)
    apart = np.concatenate([model.sample_array(1, seed=3 + k) for k in range(5)])
    np.testing.assert_allclose(together, apart, atol=0.05)  # bf16 kernels differ slightly with the batch size
    np.testing.assert_array_equal(together, fabrica.load(run, device="cpu").sample_array(5, seed=3))
    assert np.abs(together[0] - together[1]).mean() > 0.01


def test_samples_are_images_in_physical_units(run: Path) -> None:
    image = fabrica.load(run, device="cpu").sample(1)[0]
    assert image.data.shape == (1, 16, 16) and image.origin["modality"] == "DX"
    assert image.data.min() >= 0 and image.data.max() <= 4095 and image.data.max() > 500
    assert image.spacing[0] == pytest.approx(360 / 16, rel=0.3)  # a chest is about 36 cm wide


def test_whoever_may_read_the_recipe_may_read_the_weights(run: Path) -> None:
    assert (run / "weights.safetensors").stat().st_mode == (run / "recipe.yaml").stat().st_mode


def test_a_second_run_in_the_same_folder_is_refused(run: Path) -> None:
    before = (run / "weights.safetensors").read_bytes()
    with pytest.raises(UsageError, match="already holds a run"):
        train(tiny("train.steps=1"), run)
    assert (run / "weights.safetensors").read_bytes() == before


def test_nan_stops_names_the_images_and_keeps_the_best(tmp_path: Path) -> None:
    recipe = tiny("train.steps=40", "train.validate_every=5", "train.lr=1e-3", "train.clip=0")
    with pytest.raises(FabricaError, match=r"training stopped at step .* on images .*kept") as caught:
        train(recipe, tmp_path / "run", report=_poison_after(recipe, step=10))
    assert "lower train.lr" in str(caught.value)
    assert fabrica.load(tmp_path / "run", device="cpu").sample_array(2).shape == (2, 1, 16, 16)


def _poison_after(recipe: Recipe, step: int):
    def report(row: dict[str, float]) -> None:
        if row["step"] >= step:
            object.__setattr__(recipe.train, "lr", 1e38)  # what a diverging run does, at a step we choose

    return report


def test_a_set_without_held_out_images_is_refused_before_any_is_decoded(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_text("not an image: reading it would fail with another message")
    (tmp_path / "m.csv").write_text("id,patient,path,split\na,p,a.png,train\n")
    recipe = tiny(f"data.source={tmp_path / 'm.csv'}", "codec.kind=window", "codec.low=0", "codec.high=255")
    with pytest.raises(UsageError, match="no image in split val; it has train 1, val 0"):
        train(recipe, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_wrong_choices_of_sampling_are_named(run: Path) -> None:
    model = fabrica.load(run, device="cpu")
    with pytest.raises(UsageError, match="guidance nan; expected a finite number"):
        model.sample(1, guidance=float("nan"))
    with pytest.raises(UsageError, match="0 steps"):
        model.sample(1, steps=0)


def test_a_network_that_cannot_take_the_size_says_so(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"multiples of 4, e\.g\. data\.size=\[16, 16\]"):
        train(tiny("data.size=17", "train.steps=1"), tmp_path / "run")


def test_padding_that_the_network_needs_is_cut_off_again(tmp_path: Path) -> None:
    seeds = range(40)
    pictures = np.stack([chest(seed, 28).image.data[0] / 16 for seed in seeds]).astype(np.uint8)
    np.savez(
        tmp_path / "set.npz", train_images=pictures, val_images=pictures[:20] // 2, test_images=255 - pictures[:20]
    )
    fabrica.scan(tmp_path / "set.npz").save(tmp_path / "set.csv")
    recipe = tiny("train.steps=2", f"data.source={tmp_path / 'set.csv'}", "data.size=32", "data.fit=exact")
    model = fabrica.load(train(recipe, tmp_path / "run"), device="cpu")
    assert model.sample_array(3).shape == (3, 1, 28, 28)
    assert model.sample(1)[0].size == (28, 28)
    report = fabrica.evaluate(model, out=tmp_path / "report", n=16, steps_curve=())
    assert report.page.exists()


def test_a_run_stopped_before_it_kept_anything_resumes_from_the_start(tmp_path: Path) -> None:
    tiny("train.steps=2").save(tmp_path / "recipe.yaml")
    train(None, tmp_path, resume=True)
    assert read_log(tmp_path / "log.csv")[-1]["step"] == 2
    (tmp_path / "training/checkpoint.pt").unlink()
    with pytest.raises(FabricaError, match="no usable checkpoint"):
        train(None, tmp_path, resume=True)


LONG = [
    *("train.steps=14", "train.checkpoint_every=4", "train.validate_every=7", "train.log_every=1"),
    *("codec.kind=window", "codec.low=0", "codec.high=4095"),  # so that no phantom is drawn to decide it
]


def test_minutes_that_ended_before_anything_was_learned_are_said(tmp_path: Path) -> None:
    said: list[str] = []
    limits = ["train.steps=0", "train.minutes=0.0001"]
    train(tiny(*limits), tmp_path / "run", warn=said.append)
    assert len(said) == 1 and said[0].startswith("1 steps were made in 0.0001 minutes")
    assert f"fabrica train --resume -o {tmp_path / 'run'} train.minutes=MORE" in said[0]


def test_kill_dash_nine_then_resume_is_bit_exact(tmp_path: Path) -> None:
    straight, killed = tmp_path / "straight", tmp_path / "killed"
    train(tiny(*LONG), straight)
    threads = {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())}  # sums depend on how they are shared
    process = subprocess.Popen([*CLI, "train", "ddpm-chest", *TINY, *LONG, "-o", str(killed)], env=threads)
    deadline = time.monotonic() + 120
    while not [r for r in read_log(killed / "log.csv") if r["step"] >= 5] and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, "the run ended before it could be killed"
    train(None, killed, resume=True)
    one, two = (torch.load(f / "training/checkpoint.pt") for f in (straight, killed))
    for part in ("networks", "averaged"):
        for name, weights in one[part]["denoiser"].items():
            assert torch.equal(weights, two[part]["denoiser"][name]), name
    for index, moments in one["optimisers"]["denoiser"]["state"].items():
        for key, value in moments.items():
            assert torch.equal(value, two["optimisers"]["denoiser"]["state"][index][key])
    assert [r["step"] for r in read_log(killed / "log.csv")] == list(range(1, 15))
    ours, theirs = (load_file(f / "weights.safetensors") for f in (straight, killed))
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)


def test_a_full_disk_is_one_line_and_loses_nothing(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "500")
    folder = shutil.copytree(run, tmp_path / "run")
    before = (folder / "weights.safetensors").read_bytes()
    with full_disk(60_000):
        done = call("train", "--resume", "-o", folder, "train.steps=80")
    assert done.returncode == 1
    assert "not written" in done.stderr.splitlines()[-1] and "Traceback" not in done.stderr
    assert (folder / "weights.safetensors").read_bytes() == before
    assert fabrica.load(folder, device="cpu")


def two_steps(name: str, volumes: Path) -> Recipe:
    """A shipped recipe at the smallest size its method takes, for two steps, on phantoms where it has no data of its
    own."""
    recipe = load_recipe(name)
    if recipe.method["name"] == "diffusion":
        size = ["data.size=[8,16,16]", "data.batch=4"] if len(recipe.data.size) == 3 else ["data.size=16"]
        small = tiny("train.steps=2", *size, "method.patch=1", name=name)
    else:
        limits = ["train.steps=2", "train.minutes=0", "train.validate_every=2", "data.count=64"]
        small = load_recipe(name, [*limits, "data.size=32", "data.batch=20"])
    if not small.data.source:
        source = "phantom:chest" if len(small.data.size) == 2 else str(volumes)
        return replace(small, data=replace(small.data, source=source))
    return small


SYNTHESIS = [name for name, recipe in shipped().items() if recipe.task == "synthesise" and not recipe.uses]


@pytest.mark.parametrize("name", SYNTHESIS)
def test_every_recipe_of_synthesis_takes_two_steps(name: str, volumes: Path, tmp_path: Path) -> None:
    recipe = two_steps(name, volumes)
    folder = train(recipe, tmp_path / name)
    model = fabrica.load(folder, device="cpu")
    assert model.sample_array(1, warn=lambda note: None).shape == (1, 1, *recipe.data.size)


@pytest.mark.slow
def test_two_processes_train_one_model(tmp_path: Path) -> None:
    arguments = ["train", "ddpm-chest", *TINY, "train.steps=6", "train.devices=2", "-o", str(tmp_path / "run")]
    subprocess.run([*TORCHRUN, *arguments], check=True, timeout=200)
    assert read_log(tmp_path / "run/log.csv")[-1]["step"] == 6
    assert fabrica.load(tmp_path / "run", device="cpu").sample_array(1).shape == (1, 1, 16, 16)
