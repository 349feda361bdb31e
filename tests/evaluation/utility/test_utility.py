"""What synthetic images are worth: that good ones are found good and noise is not, with intervals that hold."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import fabrica
from fabrica.errors import UsageError
from fabrica.evaluation import evaluate
from fabrica.evaluation.utility.evaluate import ARMS, BASELINE, scored
from fabrica.evaluation.utility.examples import Answers, Lesson, lesson
from fabrica.model.model import Model
from fabrica.recipe.load import load_recipe
from tests.evaluation.utility.test_downstream import lesson as balls

pytestmark = pytest.mark.usefixtures("few_held_out")
TINY = "data.size=32 data.count=24 data.batch=4 train.steps=2 train.minutes=0 train.warmup=0"
NET = "method.channels=[8,16] method.attention=[false,false] method.norm_groups=8 sample.steps=2 "
NET += "method.head_channels=8 method.mask_width=8"


@pytest.fixture(scope="module")
def of_masks(few_held_out: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    changes = [*TINY.split(), *NET.split(), "data.condition=mask"]
    return fabrica.train(load_recipe("ddpm-chest", changes), tmp_path_factory.mktemp("masks") / "m")


@pytest.fixture(scope="module")
def of_classes(few_held_out: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    changes = [*TINY.split(), *NET.split(), "data.condition=label", "method.mask_width=1"]
    return fabrica.train(
        load_recipe("ddpm-chest", changes), tmp_path_factory.mktemp("classes") / "m", warn=lambda note: None
    )


@pytest.fixture
def few_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no interval is looked at but for its being there."""
    monkeypatch.setattr("fabrica.evaluation.utility.evaluate.RESAMPLES", 100)


KEYS = [arm.key for arm in ARMS]


def outcomes(told: Lesson, wrong: Callable[[str], float], repeats: int = 3) -> dict[str, list[Answers]]:
    """Answers of which so many voxels are wrong."""
    found: dict[str, list[Answers]] = {}
    for number, arm in enumerate(ARMS):
        found[arm.key] = []
        for k in range(repeats):
            rng = np.random.default_rng([number, k])
            flipped = rng.random(told.test.answers.shape) < wrong(arm.key)
            found[arm.key].append(np.where(flipped, 1 - told.test.answers, told.test.answers).astype(np.uint8))
    return found


def test_a_gain_that_is_there_is_found_and_its_interval_holds_it() -> None:
    told = balls()
    rates = {"mix_1": 0.01, "synthetic": 0.3}
    by = {
        arm.key: arm
        for arm in scored(told, outcomes(told, lambda key: rates.get(key, 0.05)), dict.fromkeys(KEYS, 24), 0)["Dice"]
    }
    assert by[BASELINE].gain is None
    gain, harm, none = (by[key].gain for key in ("mix_1", "synthetic", "mix_2"))
    assert gain is not None and harm is not None and none is not None
    assert gain.low > 0 and gain.mean == pytest.approx(by["mix_1"].score.mean - by[BASELINE].score.mean)
    assert harm.high < 0
    assert none.low < 0 < none.high
    for arm in by.values():
        assert arm.score.low <= arm.score.mean <= arm.score.high
        assert np.mean(arm.seeds) == pytest.approx(arm.score.mean)


def test_images_of_one_patient_are_no_independent_cases(few_resamples: None) -> None:
    told = balls()
    one = replace(told, test=replace(told.test, patients=["a"] * 8 + ["b"] * 8))
    answers = outcomes(told, lambda key: 0.1)
    wide, narrow = (
        next(arm for arm in scored(each, answers, dict.fromkeys(KEYS, 24), 0)["Dice"] if arm.key == "real")
        for each in (one, told)
    )
    assert len(set(one.test.patients)) == 2
    assert wide.score.mean == pytest.approx(narrow.score.mean)


@pytest.mark.parametrize("kind", ["of_masks", "of_classes"])
def test_a_report_has_every_arm(kind: str, request: pytest.FixtureRequest, tmp_path: Path, few_resamples: None) -> None:
    folder: Path = request.getfixturevalue(kind)
    report = evaluate(folder, out=tmp_path, utility=True, repeats=2, train_steps=1)
    scores = json.loads((tmp_path / "scores.json").read_text())
    arms = scores["arms"][scores["measure"]]
    assert scores["measure"] == ("Dice" if kind == "of_masks" else "AUC")
    assert [arm["key"] for arm in arms] == [arm.key for arm in ARMS]
    assert [arm["images"] for arm in arms] == [round(n * 24) for n in (1, 1, 1, 1.5, 2, 3)]
    assert all(len(arm["seeds"]) == 2 and np.isfinite(arm["score"]["mean"]) for arm in arms)
    page = report.page.read_text()
    assert "<svg" in page and page.count("data:image/png") >= 8
    assert "http://" not in page.replace("http://www.w3.org", "") and "https://" not in page


def test_images_are_made_of_the_masks_that_they_are_said_to_show(of_masks: Path) -> None:
    model = fabrica.load(of_masks)
    told = lesson(model, None, "test", 0, lambda what, done, total: None)
    made = told.make(6, 0, lambda what, done, total: None)
    assert told.voxels and len(told.names) == 7
    assert made.images.shape == (6, 1, 32, 32) and made.answers.shape == (6, 32, 32)
    # turned and bent a little, they are no training masks, and hold the same organs
    assert not any((made.answers[:, None] == told.train.answers).all((2, 3)).ravel())
    same = [max((one == other).mean() for other in told.train.answers) for one in made.answers]
    assert min(same) > 0.5 and set(np.unique(made.answers)) <= set(np.unique(told.train.answers))
    again = told.make(6, 0, lambda what, done, total: None)
    assert np.array_equal(made.images, again.images)


def test_what_is_no_use_is_refused(
    of_masks: Path, of_classes: Path, unchanged: Callable[..., Model], tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match="neither masks nor labels"):
        evaluate(unchanged(), "phantom:head", tmp_path, utility=True)
    with pytest.raises(UsageError, match="at least 2"):
        evaluate(of_masks, out=tmp_path, utility=True, repeats=1)
    with pytest.raises(UsageError, match="--utility"):
        evaluate(of_masks, out=tmp_path, repeats=3)
    with pytest.raises(UsageError, match="cannot paint"):
        evaluate(of_classes, out=tmp_path, utility=True, paint=True)
    with pytest.raises(UsageError, match="leave out"):
        evaluate(of_masks, out=tmp_path, utility=True, n=5)
    with pytest.raises(UsageError, match="training images are no fair judge"):
        evaluate(of_masks, out=tmp_path, utility=True, split="train")
