"""A plan that one run has found, read, changed and taken by another."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from fabrica.errors import UsageError
from fabrica.recipe.found import found_in, plan_in
from fabrica.recipe.load import load_recipe
from fabrica.training.loop import train
from tests.training.test_training_segment import SMALL, TINY, volumes

pytestmark = pytest.mark.usefixtures("few_asked")


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("plan")
    asked = [*TINY, *SMALL, f"data.source={volumes(home / 'data', 6)}", "train.steps=1"]
    return train(load_recipe("segment", asked), home / "run")


def test_a_plan_of_another_run(first: Path, tmp_path: Path) -> None:
    data = volumes(tmp_path / "data", 6, mm=1.25)
    asked = [*TINY, f"data.source={data}", "train.steps=1", f"uses.plan={first}"]
    run = train(load_recipe("segment", asked), tmp_path / "run")
    plan, other = found_in(run)[1].plan, found_in(first)[1].plan
    assert (plan.spacing, plan.size, plan.batch, plan.levels, plan.numbers) == (
        [1.0] * 3, other.size, other.batch, other.levels, other.numbers)  # fmt: skip
    assert plan_in(first / "found.yaml") == plan_in(first) == other
    train(load_recipe("segment", [*asked, "train.steps=2"]), tmp_path / "run", resume=True)


def test_a_plan_may_be_changed_by_hand(first: Path, tmp_path: Path) -> None:
    said = yaml.safe_load((first / "found.yaml").read_text())["plan"]
    said |= {"batch": 3, "mirror": [1], "levels": said["levels"][:2], "kernels": said["kernels"][:2]}
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(said))
    asked = [*TINY, f"data.source={first.parent / 'data'}", "train.steps=1", f"uses.plan={tmp_path / 'mine.yaml'}"]
    run = train(load_recipe("segment", asked), tmp_path / "run")
    plan = found_in(run)[1].plan
    assert plan.batch == 3 and plan.mirror == [1] and len(plan.levels) == 2


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "cannot be read"),
        ("a: [", "is no YAML"),
        ("- 1", "holds no plan"),
        ("plan: 3", "holds no plan"),
        ("plan: {sise: [1, 2]}", "sise; did you mean size"),
        ("plan: {size: [8, 8], batch: x}", "batch"),
        ("plan: {size: [8]}", "has size .8.; expected"),
        ("{}", "has size ..; expected"),
    ],
)
def test_what_holds_no_plan_is_one_line(tmp_path: Path, text: str | None, said: str) -> None:
    if text is not None:
        (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(UsageError, match=said) as told:
        plan_in(tmp_path / "mine.yaml")
    assert "\n" not in str(told.value) and "uses.plan" in str(told.value)


def test_only_segmenters_have_plans() -> None:
    with pytest.raises(UsageError, match=r"uses.plan is for segmentation"):
        load_recipe("pix2pix-head", ["uses.plan=runs/a"])
