from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from monai.networks.nets import DiffusionModelUNet
from torch import nn

from fabrica.errors import UsageError
from fabrica.methods import build
from fabrica.recipe.found import Found
from fabrica.recipe.load import load_recipe, recipe_names
from fabrica.recipe.plan import Plan
from fabrica.recipe.schema import CodecConfig

MINIMAL = "name: x\nmethod: {name: diffusion}\ndata: {source: here, size: 32}\n"


@pytest.fixture
def minimal(tmp_path: Path) -> Path:
    path = tmp_path / "r.yaml"
    path.write_text(MINIMAL)
    return path


def test_overrides_win_and_one_number_is_a_square(minimal: Path) -> None:
    recipe = load_recipe(minimal, ["train.lr=1e-4", "data.where.domain=CXR", "data.size=48"])
    assert recipe.train.lr == 1e-4 and recipe.data.where == {"domain": "CXR"}
    assert recipe.data.size == [48, 48]


def test_a_text_can_be_emptied_as_a_shell_hands_it_over(minimal: Path) -> None:
    recipe = load_recipe(minimal, ["data.source=", "data.condition=", "track="])
    assert recipe.data.source == recipe.track == "" and recipe.data.condition == [] and recipe.codec.low is None


def test_saved_recipe_is_the_same_recipe(minimal: Path, tmp_path: Path) -> None:
    recipe = load_recipe(minimal)
    recipe.save(tmp_path / "saved.yaml")
    assert load_recipe(tmp_path / "saved.yaml") == recipe


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.stps=5", "unknown recipe key train.stps; did you mean steps?"),
        ("data.where=[a]", r"recipe key data.where is \['a'\]; expected names and values"),
        ("uses=[1]", r"recipe key uses is \[1\]; expected names and values"),
        ("data.where=3", "recipe key data.where is 3; expected names and values"),
        ("method=[1]", r"method=\[1\] cannot be laid over what the recipe has: one is a list"),
        ("data.size=[1", r"data.size=\[1 cannot be laid over what the recipe has: while parsing"),
        ("train.steps=many", "train.steps"),
        ("data=3", "data must hold keys"),
        ("train.steps=0", "give the run a budget"),
        ("data.size=[1,2,3,4]", r"expected \[H, W\]"),
        ("data.size=large", "data.size is 'large'; expected a list"),
        ("data.batch=0", "data.batch is 0"),
        ("data.context=-1", "data.context is -1; expected 0 or more"),
        ("data.jitter=-1", "data.jitter is -1; expected 0 or more"),
        ("data.depth=-2", "data.depth is -2; expected 0 or more"),
        ("data.slices=some", "data.slices is 'some'; expected middle or all"),
        ("data.paired=perhaps", "data.paired"),
        ("train.decay=steps", "train.decay is 'steps'; expected cosine, linear or constant"),
        ("about=${oc.env:HOME}", "only plain values"),
        ("method.channels=${oc.env:HOME}", "only plain values"),
        ("nonsense", "is not key=value"),
        ("train.lr=-1", "train.lr is -1.0"),
        ("train.devices=0", "train.devices is 0; expected at least 1"),
        ("train.validate_every=0", "train.validate_every is 0"),
        ("sample.steps=0", "sample.steps is 0"),
        ("seed=-1", "seed is -1; expected 0 to"),
        ("seed=99999999999", "seed is 99999999999; expected 0 to"),
    ],
)
def test_wrong_values_are_named(minimal: Path, override: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        load_recipe(minimal, [override])


def test_neighbouring_slices_are_for_networks_of_slices(minimal: Path) -> None:
    with pytest.raises(UsageError, match=r"data\.context is for slices; leave it 0 with a 3-D data\.size"):
        load_recipe(minimal, ["data.context=1", "data.size=[8,32,32]"])
    assert load_recipe(minimal, ["data.context=1"]).data.context == 1


def test_unknown_names_get_a_suggestion(minimal: Path) -> None:
    with pytest.raises(UsageError, match="did you mean ddpm-chest"):
        load_recipe("ddpm-chst")
    with pytest.raises(UsageError, match="did you mean diffusion"):
        build(load_recipe(minimal, ["method.name=difusion"]))
    with pytest.raises(UsageError, match=r"method\.objectiv; did you mean objective"):
        build(load_recipe(minimal, ["method.objectiv=v"]))


def test_a_path_that_is_no_recipe_is_said_without_the_list_of_all(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"is no recipe; expected a name from `fabrica recipes`, or a file"):
        load_recipe(tmp_path)


def test_damaged_yaml_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_text("name: [1, 2\n  x: }")
    with pytest.raises(UsageError, match="not valid YAML") as caught:
        load_recipe(path)
    assert "\n" not in str(caught.value)
    path.write_bytes(b"name: \xfe\xff\x00")
    with pytest.raises(UsageError, match="damaged: it is not text"):
        load_recipe(path)


@pytest.mark.parametrize("name", recipe_names())
def test_shipped_recipes_are_complete(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = load_recipe(name)
    assert recipe.name == name
    assert recipe.about and recipe.cost and recipe.score
    first = recipe_text(name).splitlines()[0]
    assert first.startswith("# fabrica ") and f"fabrica train {name} " in first
    assert (recipe.task in ("translate", "restore", "segment")) == bool(recipe.data.a) == bool(recipe.data.b)
    assert (recipe.task == "restore") == recipe.data.restores
    monkeypatch.setattr("fabrica.nets.denoisers.DiffusionModelUNet", without_memory)
    if recipe.method["name"] == "distill":  # whose student takes its teacher's network
        recipe.method["student"] = load_recipe(Path(recipe.uses["teacher"]).name).method
    found = Found.asked(recipe)
    if recipe.task == "segment":  # planned from images
        with pytest.raises(UsageError, match="planned from training images"):
            build(recipe)
        plan = Plan(size=[16, 16], levels=[[1, 1], [2, 2]], kernels=[[3, 3]] * 2, numbers=[0, 1], names=["", ""])
        found = replace(found, plan=plan, codec_b=CodecConfig("label", classes=2))
    build(recipe, found)


def without_memory(**sizes: Any) -> nn.Module:
    """The network, without a byte of its weights: the largest recipes are for GPUs."""
    with torch.device("meta"):
        return DiffusionModelUNet(**sizes)


def recipe_text(name: str) -> str:
    from importlib import resources

    return (resources.files("fabrica") / "recipes" / f"{name}.yaml").read_text()
