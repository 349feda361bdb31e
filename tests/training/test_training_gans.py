"""The loop with two players: weights kept by FRD, exact resume, two processes, and what it refuses, on phantoms."""

import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch

import fabrica
from fabrica.errors import UsageError
from fabrica.phantoms import chest
from fabrica.recipe.folder import read_log
from fabrica.recipe.load import load_recipe
from fabrica.recipe.schema import Recipe
from fabrica.training.loop import train
from tests.command import TORCHRUN

TINY = [
    "data.source=phantom:chest",
    "data.size=32",
    "data.batch=8",
    "data.count=64",
    "train.minutes=0",
    "train.validate_every=10",
    "train.monitor_every=10",
    "train.log_every=5",
]


def tiny(name: str, *overrides: str) -> Recipe:
    return load_recipe(name, [*TINY, *([] if name.startswith("mlp") else ["method.width=8"]), *overrides])


def test_the_weights_with_the_lowest_frd_are_kept_not_the_last(tmp_path: Path) -> None:
    """From step 21 on the run falls apart: all its images become one, which is worse than any that have begun to
    look like chests."""

    def ruin(row: dict[str, float]) -> None:
        if row["step"] >= 20:
            object.__setattr__(recipe.train, "lr", 10.0)  # what nobody can ask for once a run began

    choices = ["train.ema=0", "train.lr=2e-4", "train.decay=constant"]
    recipe = tiny("mlp-xray", "train.steps=40", *choices)
    folder = train(recipe, tmp_path / "run", report=ruin, warn=lambda sentence: None)
    scores = {int(row["step"]): row["frd"] for row in read_log(folder / "log.csv") if "frd" in row}
    assert list(scores) == [10, 20, 30, 40]
    best = min(scores, key=lambda step: scores[step])
    assert best <= 20 and min(scores[30], scores[40]) > 1.5 * scores[best]
    assert f"average at step {best}, held-out FRD {scores[best]:.4g}" in (folder / "README.md").read_text()
    ended = train(tiny("mlp-xray", f"train.steps={best}", *choices), tmp_path / "ended")
    assert (folder / "weights.safetensors").read_bytes() == (ended / "weights.safetensors").read_bytes()


def test_kid_can_choose_and_a_loss_cannot(tmp_path: Path) -> None:
    folder = train(tiny("mlp-xray", "train.steps=10", "train.keep=kid"), tmp_path / "run")
    assert "held-out KID" in (folder / "README.md").read_text()
    with pytest.raises(UsageError, match=r"train\.keep is loss, but mlp-gan has no loss .* take frd or kid"):
        train(tiny("mlp-xray", "train.steps=1", "train.keep=loss"), tmp_path / "other")


@pytest.mark.parametrize("name", ["dcgan-xray", "modern-xray", "drifting-xray"])
def test_a_resumed_run_is_bit_exact_for_every_player(name: str, tmp_path: Path) -> None:
    straight, stopped = tmp_path / "straight", tmp_path / "stopped"
    train(tiny(name, "train.steps=12", "train.decay=constant"), straight)
    train(tiny(name, "train.steps=7", "train.decay=constant"), stopped)
    train(load_recipe(stopped / "recipe.yaml", ["train.steps=12"]), stopped, resume=True)
    one, two = (torch.load(folder / "training/checkpoint.pt") for folder in (straight, stopped))
    for part in ("networks", "averaged"):
        for network, weights in one[part].items():
            for key, value in weights.items():
                assert torch.equal(value, two[part][network][key]), (network, key)


def test_accumulating_halves_gives_every_player_its_turn(tmp_path: Path) -> None:
    folder = train(tiny("mlp-xray", "train.steps=5", "train.accumulate=2"), tmp_path / "run")
    row = read_log(folder / "log.csv")[-1]
    assert row["grad_norm_critic"] > 0 and row["grad_norm_generator"] > 0


@pytest.mark.slow
@pytest.mark.parametrize("name", ["dcgan-xray", "modern-xray"])
def test_two_processes_train_one_gan(name: str, tmp_path: Path) -> None:
    """Batch norm, frozen critics and gradient penalties under distributed training."""
    arguments = ["train", name, *TINY, "method.width=8", "train.steps=6", "train.devices=2", "train.log_every=1"]
    subprocess.run([*TORCHRUN, *arguments, "-o", str(tmp_path / "run")], check=True, timeout=250)
    rows = read_log(tmp_path / "run/log.csv")
    assert rows[-1]["step"] == 6 and all(np.isfinite(row["loss"]) for row in rows)
    assert fabrica.load(tmp_path / "run", device="cpu").sample_array(2).shape == (2, 1, 32, 32)


@pytest.mark.parametrize(
    ("name", "override", "message"),
    [
        ("dcgan-xray", "data.size=48", r"data\.size \[48, 48\] does not fit; .* squares of 32, 64, 128, 256 pixels"),
        ("mlp-xray", "data.size=[32,64]", r"data\.size \[32, 64\] does not fit"),
        ("drifting-xray", "method.windows=[1,4]", r"expected windows of at least 2 pixels"),
        ("drifting-xray", "method.temperatures=[0.1,0]", r"temperatures above 0"),
        ("modern-xray", "data.size=512", r"e\.g\. data\.size=256"),
        ("dcgan-xray", "data.batch=1", r"leaves 1 a process and turn; dcgan normalises .* take data\.batch=2 or more"),
        ("modern-xray", "data.batch=1", r"take data\.batch=2 or more"),
        ("wgan-xray", "data.batch=5", r"wgan-gp normalises over the batch and needs 10: take data\.batch=10 or more"),
        ("dcgan-xray", "data.condition=label", r"dcgan takes no labels; set data\.condition='' or take .*modern-gan"),
        ("dcgan-xray", "train.lr_of.critik=1e-3", r"no player 'critik'; did you mean critic\?"),
        ("dcgan-xray", "train.lr_of.critic=2", r"train\.lr_of\.critic is 2\.0; expected 0 to below 1"),
        ("dcgan-xray", "train.keep=fid", r"train\.keep is 'fid'; expected one of auto, loss, frd, kid"),
        ("dcgan-xray", "method.norm=layer", r"method\.norm is 'layer'; expected batch or spectral"),
        ("modern-xray", "method.augment=[translatoin]", r"no augmentation 'translatoin'; did you mean translation\?"),
        ("modern-xray", "sample.truncation=-1", r"sample\.truncation is -1\.0"),
    ],
)
def test_what_cannot_run_is_one_line_and_leaves_no_run(name: str, override: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        train(tiny(name, "train.steps=1", override), tmp_path / "run")
    assert "\n" not in str(caught.value) and not (tmp_path / "run").exists()


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """80 small chests, half of them "a", half of them "b", except that val has only "a" and test only "b"."""
    folder = tmp_path_factory.mktemp("labelled")
    pixels = np.stack([chest(seed, 32).image.data[0] / 16 for seed in range(80)]).astype(np.uint8)
    labels = np.array(["a", "b"])
    named = {"train": labels[np.arange(40) % 2], "val": labels[np.zeros(32, int)], "test": labels[np.ones(8, int)]}
    np.savez(folder / "set.npz", train_images=pixels[:40], val_images=pixels[40:72], test_images=pixels[72:])
    fabrica.scan(folder / "set.npz").save(folder / "set.csv")
    lines = (folder / "set.csv").read_text().splitlines()
    head = lines[0].split(",")
    for k, line in enumerate(lines[1:], start=1):
        cells = line.split(",")
        at = int(cells[head.index("id")].rsplit("/", 1)[1])
        cells[head.index("label")] = str(named[cells[head.index("split")]][at])
        lines[k] = ",".join(cells)
    (folder / "set.csv").write_text("\n".join(lines) + "\n")
    return folder


def conditional(folder: Path, *overrides: str) -> Recipe:
    source = [f"data.source={folder / 'set.csv'}", "data.condition=label", "train.steps=2", "train.validate_every=2"]
    source += ["train.precision=fp32"]  # after two steps images differ by less than bfloat16 can tell
    return tiny("modern-xray", *source, *overrides)


def test_a_class_that_is_not_held_out_is_said_and_one_not_in_train_refused(labelled: Path, tmp_path: Path) -> None:
    said: list[str] = []
    folder = train(conditional(labelled), tmp_path / "run", warn=said.append)
    assert said == ["no held-out image shows b: the weights are chosen without it; label or split anew"]
    with pytest.raises(UsageError, match=r"class 'c' has no training image in .*leave it out of data.classes"):
        train(conditional(labelled, "data.classes=[a,b,c]"), tmp_path / "other")
    model = fabrica.load(folder, device="cpu")
    assert [one["label"] for one in model.known(3)] == ["a", "b", "a"]
    with pytest.raises(UsageError, match="no label 'c'; expected one of a, b"):
        model.sample(1, conditions={"label": "c"})
    with pytest.raises(UsageError, match=r"has no steps; it has truncation"):
        model.sample(1, steps=5)
    assert np.array_equal(model.sample_array(2, seed=4), model.sample_array(2, seed=4, truncation=0))
    assert not np.array_equal(model.sample_array(2, seed=4), model.sample_array(2, seed=4, truncation=0.5))


@pytest.mark.parametrize("held", [1, 6])
def test_few_held_out_images_need_no_judge_where_the_last_weights_are_kept(
    held: int, labelled: Path, tmp_path: Path
) -> None:
    lines = (labelled / "set.csv").read_text().splitlines()
    split = lines[0].split(",").index("split")
    val = [line for line in lines[1:] if line.split(",")[split] == "val"]
    rest = [line for line in lines[1:] if line.split(",")[split] == "train"]
    (labelled / f"few-{held}.csv").write_text("\n".join([lines[0], *rest, *val[:held]]) + "\n")
    source = [f"data.source={labelled / f'few-{held}.csv'}", "train.steps=2", "train.validate_every=1"]
    expected = (
        rf"{held} held-out images are too few .* keep the weights at the end, whatever they are: train\.keep=last"
    )
    with pytest.raises(UsageError, match=expected):
        train(tiny("dcgan-xray", *source), tmp_path / "judged")
    folder = train(tiny("dcgan-xray", *source, "train.keep=last"), tmp_path / "run")
    assert "average at step 2, not judged" in (folder / "README.md").read_text()
    assert not {"frd", "kid", ""} & set(read_log(folder / "log.csv")[-1])
    train(load_recipe(folder / "recipe.yaml", ["train.steps=3"]), folder, resume=True)
    assert "average at step 3, not judged" in (folder / "README.md").read_text()
