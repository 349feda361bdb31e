"""A student of a model that restores, translates or segments: what its teacher knows reaches it, and it is a model like
any other, that needs nothing but its own folder."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

import fabrica
from fabrica import io
from fabrica.errors import UsageError
from fabrica.inference.files import apply
from fabrica.methods import Turn
from fabrica.methods.knowledge import Lesson, coarsest, hinted, softened
from fabrica.methods.restore import Restore
from fabrica.nets.nafnet import NAFNet
from fabrica.nets.redcnn import REDCNN
from fabrica.nets.segmenters import SegmenterUNet
from fabrica.nets.translators import ResidualUNet, UNetGenerator
from fabrica.nets.unetpp import UNetPlusPlus
from fabrica.phantoms.chest.chest import chest
from fabrica.recipe.folder import read_log
from fabrica.recipe.load import load_recipe
from fabrica.recipe.schema import DistillConfig, Recipe
from fabrica.training.loop import train
from tests.training.test_training_segment import volumes

pytestmark = pytest.mark.usefixtures("few_held_out", "few_asked")

SMALL = ["data.size=32", "data.crop=32", "data.batch=4", "data.count=12", "train.minutes=0", "train.log_every=1"]
QUICK = [*SMALL, "train.steps=3", "train.warmup=1", "train.validate_every=3", "train.checkpoint_every=1"]
OF_NAFNET = ("size", "unshuffle", "network")


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    recipe = load_recipe("nafnet-xray", [*QUICK, "method.size=small", "train.lr=3e-3", "train.steps=20"])
    return train(recipe, tmp_path_factory.mktemp("teacher") / "teacher")


def taught(teacher: Path, *overrides: str) -> Recipe:
    return load_recipe("distill-xray", [*QUICK, f"uses.teacher={teacher}", *overrides])


def weights(folder: Path) -> dict[str, Tensor]:
    found: dict[str, Tensor] = load_file(folder / "weights.safetensors")
    return found


def test_a_student_is_a_model_like_any_other(teacher: Path, tmp_path: Path) -> None:
    gone = shutil.copytree(teacher, tmp_path / "gone")
    folder = train(taught(gone, "distill.features=0.1"), tmp_path / "run")
    shutil.rmtree(gone)
    rows = read_log(folder / "log.csv")
    assert all(np.isfinite(row[key]) and row[key] > 0 for row in rows for key in ("answers", "features"))
    student, own = fabrica.load(folder, device="cpu"), fabrica.load(teacher, device="cpu")
    assert student.found.method["name"] == "restore" and student.found.method["size"] == "tiny"
    assert not any("hint" in name for name in weights(folder)) and student.found.codec == own.found.codec
    assert "distilled from" in (folder / "README.md").read_text()
    io.write(chest(1, 32).image, tmp_path / "given.png")
    (outcome,) = apply(student, tmp_path / "given.png", tmp_path / "out", force=True)  # type: ignore[arg-type]
    assert (tmp_path / "out" / outcome.output).is_file()


def test_what_the_teacher_knows_reaches_a_student_that_sees_no_truth() -> None:
    """By its answers and features alone, with no loss of its own, it learns what its teacher does: a blur, turned."""
    torch.manual_seed(0)
    teacher = Restore(Restore.Config(network="redcnn", width=1), (1, 16, 16), (1, 16, 16)).eval()
    teacher.network = nn.Sequential(nn.AvgPool2d(3, 1, 1), nn.Conv2d(1, 1, 1))
    nn.init.constant_(teacher.network[1].weight, -0.5)
    student = Restore(Restore.Config(network="redcnn", width=8), (1, 16, 16), (1, 16, 16))
    lesson = Lesson(DistillConfig(own=0.0, features=0.01), student, teacher, (1, 16, 16), "fp32")
    optimiser = torch.optim.AdamW(student.parameters(), 3e-3)
    rng = torch.Generator().manual_seed(0)
    off = []
    for step in range(161):
        a = torch.rand(4, 1, 16, 16, generator=rng) * 2 - 1
        if step % 160 == 0:
            with torch.no_grad():
                off.append(float((student.translate(a, "a2b") - teacher.translate(a, "a2b")).abs().mean()))
        for turn in lesson.turns(student, {"a": a, "b": torch.full_like(a, 9.0), "index": torch.arange(4)}, rng):
            optimiser.zero_grad()
            turn.loss.backward()
            optimiser.step()
    assert off[1] < 0.3 * off[0], off


def test_the_teacher_counts_for_less_and_less(teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is added to the student's own loss falls evenly to nothing over the training, as the loop tells it."""
    torch.manual_seed(0)
    known, student = (Restore(Restore.Config(network="redcnn", width=2), (1, 16, 16), (1, 16, 16)) for _ in range(2))
    lesson = Lesson(DistillConfig(features=0.5), student, known, (1, 16, 16), "fp32")
    batch = {"a": torch.rand(2, 1, 16, 16), "b": torch.rand(2, 1, 16, 16), "index": torch.arange(2)}

    def loss(turns: Iterable[Turn]) -> float:
        return sum(float(turn.loss.detach()) for turn in turns)

    own, added = loss(student.turns(batch, torch.Generator().manual_seed(0))), []
    for lesson.done in (0.0, 0.25, 0.5, 1.0):
        added.append(loss(lesson.turns(student, batch, torch.Generator().manual_seed(0))) - own)
    assert added[0] > 0.01
    np.testing.assert_allclose(added, added[0] * np.array([1, 0.75, 0.5, 0]), atol=1e-6)

    seen, turns = [], Lesson.turns
    monkeypatch.setattr(Lesson, "turns", lambda self, *given: (seen.append(self.done), turns(self, *given))[1])
    train(taught(teacher, "train.steps=4"), tmp_path / "run")
    assert seen == [0, 0.25, 0.5, 0.75]


def test_a_student_may_be_another_network_by_another_method(teacher: Path, tmp_path: Path) -> None:
    """A residual U-Net in a GAN learns from a NAFNet: turns of the generator hear the teacher, none of the critic."""
    recipe = taught(teacher)
    for name in OF_NAFNET:
        del recipe.method[name]
    recipe.method.update(name="pix2pix", network="residual", width=4, levels=2, adversarial=0.1, critic_width=8)
    folder = train(recipe, tmp_path / "run")
    assert fabrica.load(folder, device="cpu").method_name == "pix2pix"
    assert read_log(folder / "log.csv")[-1]["answers"] > 0


def test_a_segmenter_learns_soft_labels(tmp_path: Path) -> None:
    data = volumes(tmp_path / "data")
    tiny = ["train.minutes=0", "train.steps=2", "train.precision=fp32", "data.size=[16,16,16]", "data.batch=2"]
    own = [f"data.source={data}", *tiny]
    teacher = train(load_recipe("segment", [*own, "method.network=unet++", "method.width=4"]), tmp_path / "teacher")
    student = [*own, "method.width=2", f"uses.teacher={teacher}", "train.log_every=1"]
    folder = train(load_recipe("segment", student), tmp_path / "run")
    found, theirs = fabrica.load(folder, device="cpu").found, fabrica.load(teacher, device="cpu").found
    assert found.plan.numbers == theirs.plan.numbers and found.codec == theirs.codec and found.method["width"] == 2
    assert read_log(folder / "log.csv")[-1]["answers"] > 0


def test_a_resumed_student_is_bit_exact(teacher: Path, tmp_path: Path) -> None:
    last = "train.keep=last"
    train(taught(teacher, last, "train.steps=2"), tmp_path / "straight")
    train(taught(teacher, last, "train.decay=constant", "train.steps=1"), tmp_path / "stopped")
    recipe = load_recipe(tmp_path / "stopped/recipe.yaml", ["train.steps=2", "train.decay=cosine"])
    train(recipe, tmp_path / "stopped", resume=True)
    ours, theirs = weights(tmp_path / "straight"), weights(tmp_path / "stopped")
    assert all(torch.equal(ours[key], theirs[key]) for key in ours) and set(ours) == set(theirs)


def test_what_a_student_cannot_learn_from_is_refused(teacher: Path, heads: Path, tmp_path: Path) -> None:
    small = ["data.size=32", "data.batch=2", "train.minutes=0", "train.steps=1", "train.keep=last"]
    cyclegan = ["method.width=4", "method.blocks=1", "method.critic_width=8"]
    both = train(load_recipe("cyclegan-head", [*small, f"data.source={heads}", *cyclegan]), tmp_path / "both")
    for recipe, message in (
        (taught(both), "the teacher is CycleGAN, which goes both ways"),
        (taught(teacher, "data.channels=3"), r"data\.channels is 3, and the teacher in .* was trained with 1"),
        (load_recipe("cyclegan-head", [*small, f"data.source={heads}", *cyclegan, f"uses.teacher={both}"]),
         "the student is CycleGAN, which goes both ways"),
        (taught(teacher, "codec.kind=window", "codec.low=0", "codec.high=9"), "codec is not that of the teacher"),
        (load_recipe("segment", [*small, f"data.source={heads}", f"uses.teacher={teacher}"]),
         r"holds nafnet-xray \(restore\), and segment segments"),
        (load_recipe("distill-pneumonia", [f"data.source={heads}", "data.condition=", f"uses.teacher={teacher}"]),
         r"holds nafnet-xray \(restore\), no diffusion model"),
    ):  # fmt: skip
        with pytest.raises(UsageError, match=message) as refused:
            train(recipe, tmp_path / "run")
        assert "\n" not in str(refused.value)
    with pytest.raises(UsageError, match="expected weights of 0 or more"):
        taught(teacher, "distill.answers=0", "distill.features=0")
    with pytest.raises(UsageError, match="temperature is 0"):
        taught(teacher, "distill.temperature=0")


@pytest.mark.parametrize("temperature", [1.0, 2.0, 8.0])
def test_soft_labels_are_kullback_leiblers_divergence(temperature: float) -> None:
    """Beside the definition of Hinton et al., and 0 for a student that answers as its teacher."""
    rng = torch.Generator().manual_seed(0)
    student, teacher = (3 * torch.randn(2, 4, 3, 5, generator=rng, dtype=torch.float64) for _ in range(2))
    p, q = ((each / temperature).softmax(1) for each in (teacher, student))
    expected = temperature**2 * (p * (p / q).log()).sum(1).mean()
    torch.testing.assert_close(softened(student, teacher, temperature), expected)
    p, q = ((each / temperature).sigmoid() for each in (teacher, student))
    each = p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log()
    torch.testing.assert_close(softened(student, teacher, temperature, regions=True), temperature**2 * each.mean())
    for regions in (False, True):
        assert abs(float(softened(teacher, teacher, temperature, regions))) < 1e-12


def test_gradients_of_soft_labels_are_as_large_at_any_temperature() -> None:
    """For logits that are small beside the temperature (Hinton et al., eq. 4): (z - v) / K, whatever it is."""
    student = torch.tensor([[0.01], [-0.02], [0.01]], dtype=torch.float64).T[..., None].requires_grad_()
    teacher = torch.tensor([[0.03], [0.0], [-0.03]], dtype=torch.float64).T[..., None]
    for temperature in (10.0, 50.0):
        (found,) = torch.autograd.grad(softened(student, teacher, temperature), student)
        torch.testing.assert_close(found, (student - teacher).detach() / 3, rtol=5e-3, atol=0)


def test_features_are_compared_in_the_teachers_own_spread() -> None:
    hint = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    assert float(hinted(hint, hint)) == 0
    for scale in (1e-2, 1.0, 100.0):
        assert float(hinted(torch.full_like(hint, scale * float(hint.mean())), scale * hint)) == pytest.approx(1, 0.01)
    assert float(hinted(torch.zeros(2, 3, 4, 4), torch.zeros(2, 3, 8, 8))) == 0  # another size, nothing in it


STEPS = [[1, 1], [2, 2], [2, 2]]
THREES = [[3, 3]] * 3


@pytest.mark.parametrize(
    ("network", "layer"),
    [
        (NAFNet(1, 1, "tiny"), "down.2"),
        (UNetPlusPlus(1, 1, 4), "encode.4"),
        (ResidualUNet(1, 1, 4, 3), "bottom"),
        (UNetGenerator(1, 1, 4, 4), "down.3"),
        (SegmenterUNet(1, 2, [4, 8, 8], STEPS, THREES, [0, 0, 0]), "encode.2"),
        (REDCNN(1, 1, 4), "decode.0"),
    ],
)
def test_features_are_those_of_the_coarsest_resolution(network: nn.Module, layer: str) -> None:
    found, feature, answer = coarsest(network, torch.zeros(1, 1, 64, 64))
    assert found is network.get_submodule(layer) and answer.shape[2:] == (64, 64) and feature.ndim == 4
    assert network.training and not any(module._forward_hooks for module in network.modules())  # as it was
