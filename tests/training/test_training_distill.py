"""A student of a trained diffusion model: it starts from its teacher, comes near what that draws, in a few steps, and
needs nothing but its own folder."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import fabrica
from fabrica.errors import UsageError
from fabrica.phantoms.chest.chest import chest
from fabrica.recipe.folder import read_log
from fabrica.recipe.load import load_recipe
from fabrica.recipe.schema import Recipe
from fabrica.training.loop import train
from tests.shipped import shipped

pytestmark = pytest.mark.usefixtures("few_held_out")

SMALL = ["data.source=phantom:chest", "data.size=16", "data.count=64", "data.batch=16", "train.minutes=0"]
NET = ["method.channels=[16,32]", "method.attention=[false,false]", "method.head_channels=16", "method.norm_groups=8"]
LOOP = ["train.warmup=2", "train.log_every=1", "train.lr=2e-3", "train.ema=0.9"]
LEARNERS = [name for name, recipe in shipped().items() if "teacher" in recipe.uses]
STUDENTS = [name for name in LEARNERS if shipped()[name].method["name"] == "distill"]


def taught(teacher: Path, *overrides: str, name: str = "distill-pneumonia") -> Recipe:
    plain = ["data.fit=pad", "data.condition=", "method.steps=[1,2,4]"]
    return load_recipe(name, [*SMALL, *LOOP, *plain, f"uses.teacher={teacher}", "train.steps=2", *overrides])


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("teacher") / "teacher"
    return train(load_recipe("ddpm-chest", [*SMALL, *NET, *LOOP, "data.fit=pad", "train.steps=60"]), folder)


@pytest.fixture(scope="module")
def run(teacher: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A student whose teacher is gone."""
    folder = tmp_path_factory.mktemp("student")
    gone = shutil.copytree(teacher, folder / "gone")
    train(taught(gone, "train.steps=9", "train.validate_every=3"), folder / "run")
    shutil.rmtree(gone)
    return folder / "run"


def test_every_student_names_a_teacher_that_ships() -> None:
    assert STUDENTS
    for name in LEARNERS:
        recipe = load_recipe(name)
        own = load_recipe(Path(recipe.uses["teacher"]).name)
        for key in ("size", "fit", "channels", "condition", "source"):
            assert getattr(own.data, key) == getattr(recipe.data, key), (name, key)


@pytest.mark.slow
def test_the_student_draws_in_a_few_steps_what_its_teacher_draws_in_eight(teacher: Path, run: Path) -> None:
    losses = [row["val_loss"] for row in read_log(run / "log.csv") if "val_loss" in row]
    assert losses[-1] < 0.95 * losses[0]
    student, model = fabrica.load(run, device="cpu"), fabrica.load(teacher, device="cpu")
    wanted = model.sample_array(24, steps=8)
    apart = float(np.abs(wanted - np.roll(wanted, 1, axis=0)).mean())
    far = [float(np.abs(student.sample_array(24, steps=steps) - wanted).mean()) for steps in (4, 2, 1)]
    assert far[0] < far[1] < far[2] < apart and far[0] < 0.3 * apart, (far, apart)
    assert far[2] < float(np.abs(model.sample_array(24, steps=1) - wanted).mean())


def test_the_folder_is_all_it_takes(run: Path) -> None:
    model = fabrica.load(run, device="cpu")
    one = model.sample_array(3, seed=3)
    assert one.shape == (3, 1, 16, 16)
    np.testing.assert_array_equal(one, model.sample_array(3, seed=3, steps=4))  # its default
    with pytest.raises(UsageError, match="asked for 3 steps; this model takes 1, 2 or 4"):
        model.sample(1, steps=3)
    with pytest.raises(UsageError, match="has no guidance; it has steps"):
        model.sample(1, guidance=2.0)
    assert "distilled from" in (run / "README.md").read_text()
    fabrica.evaluate(model, out=run.parent / "report", n=16)
    scores = json.loads((run.parent / "report/scores.json").read_text())
    assert [point["steps"] for point in scores["steps_curve"]] == [1, 2, 4]


@pytest.mark.parametrize("name", STUDENTS)
def test_every_recipe_of_a_student_takes_two_steps(name: str, teacher: Path, tmp_path: Path) -> None:
    folder = train(taught(teacher, name=name), tmp_path / name)
    assert fabrica.load(folder, device="cpu").sample_array(1).shape == (1, 1, 16, 16)


@pytest.mark.slow
def test_a_student_of_latents_and_text_has_its_teachers_autoencoder_and_words(tmp_path: Path) -> None:
    small = [*SMALL[:1], "data.size=32", "data.count=12", "data.batch=2", "train.minutes=0", "train.steps=1"]
    coder = ["method.channels=[8,16]", "method.norm_groups=8", "method.adversarial=0", "method.features=0"]
    train(load_recipe("autoencoder-chest", [*small, *coder]), tmp_path / "coder")
    told = ["data.condition=text", "text.layers=1", "text.context=32", f"uses.autoencoder={tmp_path / 'coder'}"]
    guided = ["sample.guidance=2", "method.context_width=48"]
    train(load_recipe("latent-chest", [*small, *NET, *told, *guided]), tmp_path / "teacher")
    shutil.rmtree(tmp_path / "coder")
    recipe = taught(tmp_path / "teacher", *small, "data.fit=pad", "data.condition=text")
    student = fabrica.load(train(recipe, tmp_path / "student"), device="cpu")
    shutil.rmtree(tmp_path / "teacher")
    assert student.found.method["guidance"] == 2 and student.found.text.context == 32
    made = [student.sample_array(1, conditions={"text": said}) for said in ("Normal chest.", "Effusion.")]
    assert made[0].shape == (1, 1, 32, 32) and not np.array_equal(*made)


def test_a_student_is_told_masks_as_its_teacher_is(tmp_path: Path) -> None:
    masked = ["data.condition=mask", "method.mask_width=8", "train.steps=1"]
    teacher = train(load_recipe("ddpm-chest", [*SMALL, *NET, *LOOP, *masked]), tmp_path / "teacher")
    assert fabrica.load(teacher, device="cpu").found.codec_mask.classes == 7
    student = fabrica.load(train(taught(teacher, "data.condition=mask"), tmp_path / "student"), device="cpu")
    masks = [chest(seed, 16).organs for seed in (1, 2)]
    made = [student.sample_array(1, conditions={"mask": mask}) for mask in masks]
    assert made[0].shape == (1, 1, 16, 16) and not np.array_equal(*made)
    assert student.found.method["student"]["align"] == 0


def test_a_student_of_latents_is_kept_by_distances_between_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fabrica.data.sources.HELD_OUT", 32)  # the fewest for a score
    small = [*SMALL[:1], "data.size=32", "data.count=12", "data.batch=2", "train.minutes=0", "train.steps=1"]
    coder = ["method.channels=[8,16]", "method.norm_groups=8", "method.adversarial=0", "method.features=0"]
    train(load_recipe("autoencoder-chest", [*small, *coder]), tmp_path / "coder")
    latent = [*small, *NET, f"uses.autoencoder={tmp_path / 'coder'}"]
    teacher = train(load_recipe("latent-chest", latent), tmp_path / "teacher")
    run = train(taught(teacher, *small, "data.fit=pad", "train.keep=frd", "train.validate_every=1"), tmp_path / "run")
    assert float((run / "log.csv").read_text().splitlines()[-1].split(",")[-1]) > 0
    assert "frd" in (run / "log.csv").read_text().splitlines()[0]


def test_a_resumed_run_is_bit_exact(teacher: Path, tmp_path: Path) -> None:
    often = ["train.checkpoint_every=1", "train.validate_every=1"]
    train(taught(teacher, *often), tmp_path / "straight")
    train(taught(teacher, *often, "train.decay=constant", "train.steps=1"), tmp_path / "stopped")
    recipe = load_recipe(tmp_path / "stopped/recipe.yaml", ["train.steps=2", "train.decay=cosine"])
    train(recipe, tmp_path / "stopped", resume=True)
    ours, theirs = (load_file(tmp_path / name / "weights.safetensors") for name in ("straight", "stopped"))
    assert all(torch.equal(ours[key], theirs[key]) for key in ours) and set(ours) == set(theirs)


def test_what_no_student_can_learn_from_is_refused(teacher: Path, run: Path, tmp_path: Path) -> None:
    coder = ["method.channels=[8,16]", "method.norm_groups=8", "method.adversarial=0", "method.features=0"]
    other = train(load_recipe("autoencoder-chest", [*SMALL, *coder, "train.steps=1"]), tmp_path / "other")
    noisy = ["method.objective=epsilon", "method.schedule=linear", "train.steps=1"]
    epsilon = train(load_recipe("ddpm-chest", [*SMALL, *NET, "data.fit=pad", *noisy]), tmp_path / "epsilon")
    alone = replace(taught(teacher), uses={})
    for wrong, message in (
        (taught(other), r"holds autoencoder-chest \(autoencoder\), no diffusion model"),
        (taught(run), r"holds distill-pneumonia \(distill\), no diffusion model"),
        (taught(epsilon), "predicts noise"),
        (taught(tmp_path / "none"), "none is not a model folder"),
        (alone, r"set uses\.teacher to its folder"),
        (taught(teacher, "data.size=32"), r"data\.size is \[32, 32\], and the teacher in .* with \[16, 16\]"),
        (taught(teacher, "data.condition=label"), r"data\.condition is \['label'\], and the teacher .* with none"),
        (taught(teacher, "sample.steps=10"), "sample.steps is 10; this model takes 1, 2 or 4"),
        (taught(teacher, "codec.kind=window", "codec.low=0", "codec.high=9"), "codec is not that of the teacher"),
        (
            load_recipe("dcgan-chest", [*SMALL, "data.fit=pad", "train.steps=1", f"uses.teacher={teacher}"]),
            "dcgan learns from no teacher",
        ),
    ):
        with pytest.raises(UsageError, match=message) as refused:
            train(wrong, tmp_path / "run")
        assert "\n" not in str(refused.value)
    with pytest.raises(UsageError, match=r"data\.flip changes images, and with uses\.teacher none is looked at"):
        taught(teacher, "data.flip=true")
