"""A model that is told: trained on reports, age, sex and view, asked by prompt, on the command line and in Python."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import fabrica
from fabrica.cli.main import app, main
from fabrica.data.manifest import Manifest
from fabrica.errors import FabricaError, UsageError
from fabrica.recipe.load import load_recipe
from fabrica.recipe.schema import Recipe
from fabrica.training.loop import train
from fabrica.training.run import open_run

pytestmark = pytest.mark.usefixtures("few_held_out")

TINY = [
    *("data.size=16", "data.count=24", "data.batch=8", "data.condition=[text,age,sex,view]", "text.tokens=320"),
    *("text.context=24", "text.layers=1", "method.channels=[8,16]", "method.attention=[false,true]"),
    *("method.head_channels=8", "method.norm_groups=8", "method.context_width=12", "sample.steps=2", "train.minutes=0"),
    *("train.steps=4", "train.validate_every=2", "train.log_every=1", "train.warmup=1", "train.checkpoint_every=2"),
]
ASKED = {"text": "There is a left effusion.", "age": 60, "sex": "F", "view": "AP"}


def tiny(*overrides: str) -> Recipe:
    return load_recipe("ddpm-chest", [*TINY, *overrides])


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(tiny(), tmp_path_factory.mktemp("text") / "run")


def test_what_is_told_changes_the_image_and_what_is_not_is_left_open(run: Path) -> None:
    model = fabrica.load(run, device="cpu")
    assert model.found.categories == {"sex": ["F", "M"], "view": ["AP", "PA"]}
    asked = model.sample_array(2, conditions=ASKED)
    alone = model.sample_array(2, conditions=ASKED, batch=1)  # rounded otherwise: kernels differ with the batch size
    assert np.abs(asked - alone).max() < 0.1 * np.abs(asked[0] - asked[1]).max()
    for name, other in (("text", "The heart is enlarged."), ("age", 20), ("sex", "M"), ("view", "PA")):
        assert not np.array_equal(asked, model.sample_array(2, conditions={**ASKED, name: other})), name
    assert not np.array_equal(asked, model.sample_array(2, conditions={"sex": "F", "text": ASKED["text"]}))
    each = model.sample_array(2, conditions={**ASKED, "sex": ["F", "M"]})
    assert np.array_equal(each[0], asked[0]) and not np.array_equal(each[1], asked[1])


def test_guidance_strengthens_and_at_one_changes_nothing(run: Path) -> None:
    model = fabrica.load(run, device="cpu")
    once, strong, rescaled = (
        model.sample_array(1, conditions=ASKED, guidance=g, rescale=r) for g, r in ((1, 0), (5, 0), (5, 1))
    )
    assert not np.array_equal(once, strong) and not np.array_equal(strong, rescaled)
    free = model.sample_array(1, conditions={"text": ""}, guidance=5, warn=lambda note: None)
    assert np.array_equal(free, model.sample_array(1, warn=lambda note: None)), "nothing to strengthen"


def test_without_a_prompt_it_says_so(run: Path) -> None:
    model = fabrica.load(run, device="cpu")
    for told in ({}, {"text": " "}, {"sex": "F"}):
        with pytest.warns(UserWarning, match="draws what a text says, and there is none"):
            model.sample_array(1, conditions=told)
    notes: list[str] = []
    model.sample_array(1, conditions={"text": "a left effusion 🫁"}, warn=notes.append)
    assert len(notes) == 1 and "🫁" in notes[0]


def test_what_a_model_is_not_told_is_refused(run: Path) -> None:
    model = fabrica.load(run, device="cpu")
    for told, message in (
        ({"label": "normal"}, r"is told no label of an image \(it is told text, age, sex, view\); leave it out"),
        ({**ASKED, "sex": "X"}, "no sex 'X'"),
        ({**ASKED, "age": "young"}, "expected years"),
        ({**ASKED, "sex": ["F", "M", "F"]}, "3 values of sex for 2 images"),
        ({"text": "心"}, "no word of the prompt"),
    ):
        with pytest.raises(UsageError, match=message):
            model.sample_array(2, conditions=told)
    with pytest.raises(UsageError, match="asked for rescale 2"):
        model.sample_array(1, conditions=ASKED, rescale=2.0)


def test_a_run_goes_on_with_its_own_words(run: Path, tmp_path: Path) -> None:
    half = train(tiny("train.steps=2"), tmp_path / "half")
    (half / "recipe.yaml").write_text(
        (half / "recipe.yaml").read_text().replace("  steps: 2\n  minutes", "  steps: 4\n  minutes")
    )
    train(None, half, resume=True)
    assert (half / "vocabulary.json").read_bytes() == (run / "vocabulary.json").read_bytes()


def test_a_folder_without_its_words_is_no_model(run: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(run, tmp_path / "copy")
    (copy / "vocabulary.json").unlink()
    with pytest.raises(FabricaError, match=r"vocabulary\.json is missing or damaged"):
        fabrica.load(copy, device="cpu")


def test_images_say_what_they_were_told(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["sample", str(run), "-n", "2", "--prompt", "There is a left effusion ☃.", "--age", "60", "--sex", "F"]
    app([*words, "-o", str(tmp_path / "out")], standalone_mode=False)
    assert "note: not in the training reports, and left out: “☃.”" in capsys.readouterr().err
    rows = Manifest.load(tmp_path / "out" / "manifest.csv").rows
    assert {(row.text, row.age, row.sex, row.view) for row in rows} == {("There is a left effusion ☃.", "60", "F", "")}


def test_what_was_drawn_before_stays_and_stays_listed(run: Path, tmp_path: Path) -> None:
    for prompt, listed in (("There is a left effusion.", 2), ("The lungs are clear.", 4), ("The lungs are clear.", 4)):
        app(["sample", str(run), "-n", "2", "--prompt", prompt, "-o", str(tmp_path)], standalone_mode=False)
        rows = Manifest.load(tmp_path / "manifest.csv").rows
        assert len(rows) == len({row.path for row in rows}) == len(list(tmp_path.glob("*-*.png"))) == listed


def test_a_prompt_that_cannot_be_read_is_one_line(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["fabrica", "sample", str(run), "--prompt", "心脏", "-o", str(tmp_path / "out")])
    with pytest.raises(SystemExit) as ended:
        main()
    said = capsys.readouterr().err
    assert ended.value.code == 2 and said.count("\n") == 1 and "no word of the prompt “心脏”" in said


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["method.name=dcgan", "data.condition=text"], "dcgan cannot be told text; set data.condition=label, or take"),
        (["data.condition=sex", "data.source=phantom:head:T1"], "data.condition names sex, of which .* know nothing"),
        (["data.condition=text", "data.source=phantom:head:T1"], "0 training images have a text"),
    ],
)
def test_data_that_do_not_say_it_are_refused(overrides: list[str], message: str, tmp_path: Path) -> None:
    base = [value for value in TINY if not value.startswith("method.")] if overrides[0].startswith("method") else TINY
    recipe = load_recipe("ddpm-chest", [*base, *overrides])
    if overrides[0].startswith("method"):
        recipe = replace(recipe, method={"name": "dcgan"})
    with pytest.raises(UsageError, match=message):
        open_run(recipe, tmp_path / "run", None, lambda note: None)
