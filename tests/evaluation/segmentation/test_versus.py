"""Two models on the same cases: differences over patients, class by class, of what both have."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import fabrica
from fabrica.errors import UsageError
from fabrica.evaluation.segmentation.cases import ScoredCase
from fabrica.evaluation.segmentation.versus import comparisons, rival
from fabrica.metrics.paired import difference
from fabrica.model.loading import load
from fabrica.model.segmentation import SegmentationModel
from fabrica.recipe.load import load_recipe
from fabrica.training.loop import train
from tests.command import call
from tests.evaluation.segmentation.test_accuracy import ABSENT, both
from tests.training.test_training_segment import SMALL, TINY, volumes

NAMES = {1: "liver", 4: "spleen", 7: "tail"}


def cases(dice: np.ndarray, spleen: float) -> list[ScoredCase]:
    """A patient for each row, with two images each; the tail is nowhere."""
    return [
        ScoredCase(f"{k}-{n}", f"p{k:02d}", {1: both(float(value)), 4: both(spleen) if k else ABSENT, 7: ABSENT})
        for k, values in enumerate(dice)
        for n, value in enumerate(values)
    ]


def test_differences_are_over_patients() -> None:
    rng = np.random.default_rng(0)
    one, two = rng.uniform(0.6, 0.9, (12, 2)), rng.uniform(0.5, 0.8, (12, 2))
    found = {item.key: item for item in comparisons(cases(one, 0.9), cases(two, 0.7), NAMES, "other", seed=3)}
    liver = difference(one.mean(1), two.mean(1), 3)
    assert found["dice_1"].name == "Dice, liver" and found["dice_1"].rival == "other"
    assert (found["dice_1"].mean, found["dice_1"].low, found["dice_1"].high, found["dice_1"].p) == pytest.approx(
        (liver.mean, liver.low, liver.high, liver.p)
    )
    assert found["dice_4"].mean == pytest.approx(0.2) and not any(key.endswith("_7") for key in found)
    means = np.array([one.mean(1), two.mean(1)])
    means[:, 1:] = (means[:, 1:] + [[0.9], [0.7]]) / 2
    assert (found["dice"].one, found["dice"].two) == pytest.approx(tuple(means.mean(1)))
    assert found["hd95"].better == "lower" and found["hd95"].mean < 0 < found["dice"].mean
    assert comparisons(cases(one, 0.9), cases(two, 0.7), {7: "tail"}, "other", 0) == []
    (only,) = [item for item in comparisons(cases(one, 1), cases(two, 1), {1: "liver"}, "o", 3) if item.key == "dice"]
    assert only.mean == pytest.approx(liver.mean) and only.name == "Dice"


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    home = tmp_path_factory.mktemp("versus")
    data = volumes(home / "data", 8)
    one, two = (
        train(
            load_recipe("segment", [*TINY, *SMALL, f"data.source={data}", f"train.steps={n}", f"seed={n}"]),
            home / str(n),
        )
        for n in (2, 3)
    )
    return one, two


def test_the_report_says_it(runs: tuple[Path, Path], tmp_path: Path) -> None:
    one, two = runs
    said = call("evaluate", one, "--versus", two, "-o", tmp_path / "report")
    assert said.returncode == 0 and "the same patients" in said.stdout
    page = (tmp_path / "report" / "report.html").read_text()
    assert "on the same patients" in page and f"--versus {two}" in page
    report = fabrica.evaluate(one, out=tmp_path / "again", versus=two)
    alone = fabrica.evaluate(two, out=tmp_path / "alone")
    for item in report.comparisons:
        if item.key == "dice_2":
            assert item.two == pytest.approx(alone.scores["dice_2"]["value"])
            assert item.one - item.two == pytest.approx(item.mean)
    assert report.scores["versus"]["dice"]["p"] <= 1 and {"dice", "dice_2", "dice_5"} <= set(report.scores["versus"])
    assert "higher" in report.verdict or "lower" in report.verdict


def test_other_tasks_are_refused(runs: tuple[Path, Path], tmp_path: Path) -> None:
    model = load(runs[0])
    assert isinstance(model, SegmentationModel)
    plan = model.found.plan

    def other(**changes: object) -> SegmentationModel:
        return replace(model, found=replace(model.found, plan=replace(plan, **changes)))  # type: ignore[arg-type]

    assert rival(model, other(names=["", "a", "b"])).name == model.name
    with pytest.raises(UsageError, match="knows no label 5"):
        rival(model, other(numbers=[0, 2, 6]))
    with pytest.raises(UsageError, match=r"label 2 is liver of .* and lung of"):
        rival(other(names=["", "liver", ""]), other(names=["", "lung", ""]))
    with pytest.raises(UsageError, match="is not a model folder"):
        rival(model, tmp_path / "nothing")
