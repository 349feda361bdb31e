"""The report of a model that reads text: its images beside the real ones, and how far they obey."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fabrica.errors import UsageError
from fabrica.evaluation import evaluate
from fabrica.evaluation.explanation import explain
from fabrica.evaluation.explanation.lesions import numbers
from fabrica.evaluation.real_images import open_sets
from fabrica.evaluation.subject import Subject, open_subject
from fabrica.evaluation.synthesis import text_guidance as prompted
from fabrica.evaluation.synthesis.phantom_classifier import PhantomClassifier, classifier
from fabrica.evaluation.synthesis.text_adherence import pictures, prompts
from fabrica.model.loading import load
from fabrica.model.model import Model
from fabrica.model.synthesis import SynthesisModel
from fabrica.phantoms.chest.chest import chest
from fabrica.recipe.load import load_recipe
from fabrica.training.loop import train

pytestmark = pytest.mark.usefixtures("few_held_out")

TINY = [
    *("data.size=32", "data.count=16", "data.batch=8", "data.condition=[text]", "text.tokens=320", "text.layers=1"),
    *("text.context=64", "method.channels=[8,16]", "method.attention=[false,true]", "method.head_channels=8"),
    *("method.norm_groups=8", "method.context_width=12", "sample.steps=1", "train.minutes=0", "train.steps=2"),
    *("sample.guidance=2", "train.validate_every=2"),
]


def quiet(what: str, done: int, total: int) -> None:
    pass


def opened(run: Path) -> Subject:
    return open_subject(load(run, device="cpu"), None, quiet)


SURE = ("pacemaker", "view", "cardiomegaly")


@pytest.fixture(scope="module")
def reader() -> PhantomClassifier:
    """One that has hardly learned, and is sure of itself."""
    found = classifier(32, count=48, exam=16, epochs=2)
    return replace(found, accuracy={name: float(name in SURE) for name in found.accuracy})


@pytest.fixture
def hasty(reader: PhantomClassifier, monkeypatch: pytest.MonkeyPatch) -> PhantomClassifier:
    """The reader, asked little."""
    monkeypatch.setattr(prompted, "classifier", lambda size, tell: reader)
    monkeypatch.setattr(prompted, "ASKED", 48)
    return reader


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(load_recipe("ddpm-chest", TINY), tmp_path_factory.mktemp("told") / "run")


@pytest.mark.slow
def test_the_report_says_how_far_a_model_obeys(hasty: PhantomClassifier, run: Path, tmp_path: Path) -> None:
    report = evaluate(run, out=tmp_path / "report", n=16, steps_curve=(), guidances=[1.0, 4.0])
    points = report.scores["guidances"]
    assert [point["guidance"] for point in points] == [1.0, 2.0, 4.0], "its own guidance is measured too"
    assert all(point["low"] <= point["value"] <= point["high"] for point in points)
    keys = [row.key for row in report.rows if row.group == prompted.OBEYED]
    hearts = ["heart_absent", "heart_mild", "heart_marked"]
    assert keys == ["obeyed", "whole_reports", *(f"obeyed_{name}" for name in hasty.trusted), *hearts]
    assert report.scores["obeyed"]["value"] == points[1]["value"]
    own = next(row for row in report.rows if row.key == "obeyed")
    findings = [row for row in report.rows if row.key.startswith("obeyed_")]
    assert own.value == pytest.approx(np.mean([row.value for row in findings]))
    assert "nodule" in report.scores["not_read"]
    page = report.page.read_text(encoding="utf-8")
    assert "What it draws for a text" in page and "Findings obeyed: guidance 1" in page
    assert page.count("A synthetic and the real image for: FINDINGS:") == prompted.SHOWN


def test_one_that_draws_what_is_asked_scores_as_the_phantoms_do(
    hasty: PhantomClassifier, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = {prompt.text: prompt.seed for prompt in prompts(48)}

    def perfect(self: Model, n: int, *, conditions: dict[str, list[str]], **choices: object) -> np.ndarray:
        return pictures([asked[text] for text in conditions["text"]], 32)

    monkeypatch.setattr(SynthesisModel, "sample_array", perfect)
    found = prompted.obedience(opened(run), [1.0, 3.0], 0, quiet)
    assert found is not None and found.found == found.real
    assert {point.value for point in found.points} == {found.real.mean}
    whole = next(row for row in prompted.rows_of(found) if row.key == "whole_reports")
    assert whole.value == whole.real and found.found.whole[1] == 48
    assert all(np.array_equal(*ratios) for ratios in found.hearts.values())
    assert all(row.value == pytest.approx(row.real) for row in prompted.rows_of(found) if row.key.startswith("heart"))


def test_nothing_is_asked_of_models_that_read_nothing(run: Path) -> None:
    subject = opened(run)
    assert prompted.obedience(subject, [], 0, quiet) is None
    deaf = replace(subject, config=replace(subject.config, condition=[]))
    assert prompted.obedience(deaf, [1.0], 0, quiet) is None
    other = replace(subject, config=replace(subject.config, source="reports.csv"))
    assert prompted.obedience(other, [1.0], 0, quiet) is None


def test_a_model_without_guidance_is_asked_once(
    hasty: PhantomClassifier, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A student has its teacher's guidance, and none to set."""
    monkeypatch.setattr(SynthesisModel, "choices", property(lambda self: ("steps",)))
    found = prompted.obedience(opened(run), [1.0, 3.0], 0, quiet)
    assert found is not None and not found.points
    assert found.interval[0] <= found.found.mean <= found.interval[1]
    assert prompted.rows_of(found)[0].key == "obeyed"


def test_a_reader_that_can_be_trusted_with_nothing_has_no_whole_reports(
    hasty: PhantomClassifier, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    blind = replace(hasty, accuracy=dict.fromkeys(hasty.accuracy, 0.0))
    monkeypatch.setattr(prompted, "classifier", lambda size, tell: blind)
    found = prompted.obedience(opened(run), [1.0], 0, quiet)
    assert found is not None and not found.found.rows
    assert "whole_reports" not in {row.key for row in prompted.rows_of(found)}


def test_the_hearts_are_measured_once_in_images_and_once_in_phantoms(
    hasty: PhantomClassifier, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured = []
    ratios = PhantomClassifier.ratios
    monkeypatch.setattr(
        PhantomClassifier, "ratios", lambda self, images: measured.append(len(images)) or ratios(self, images)
    )
    found = prompted.obedience(opened(run), [1.0, 2.0, 3.0], 0, quiet)
    assert found is not None and [point.guidance for point in found.points] == [1.0, 2.0, 3.0]
    assert measured == [48, 48] and len(found.hearts) == 3


def test_sizes_without_a_reader_are_left_out(run: Path) -> None:
    subject = opened(run)
    assert subject.model is not None
    odd = replace(subject.model, found=replace(subject.model.found, size=[36, 36]))
    assert prompted.obedience(replace(subject, model=odd), [1.0], 0, quiet) is None


def test_what_an_image_was_not_told_is_not_looked_for_in_it(run: Path) -> None:
    subject = opened(run)
    assert subject.model is not None
    sets, teller = open_sets(subject, "test", 0, quiet), subject.model.encoder
    assert {"sex", "view", "text"} <= set(sets.asked(teller, 4, 0)[1][0]), "a text may say any of it"
    told, known, _ = sets.asked(replace(teller, names=("age", "view")), 4, 0)
    assert set(told) == {"age", "view"} and all(set(one) == {"age", "view"} for one in known)


def test_without_texts_no_example_is_drawn(run: Path) -> None:
    subject = opened(run)
    sets = open_sets(subject, "test", 0, quiet)
    assert len(prompted.examples(subject, sets, 0)) == min(prompted.SHOWN, len(sets.known))
    silent = replace(sets, known=[{**known, "text": ""} for known in sets.known])
    assert prompted.examples(subject, silent, 0) == []


def test_one_that_draws_the_phantoms_of_its_reports_points_at_every_lesion(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, drawn = load(run), {}
    for number in numbers(4, 2):
        for findings in (["pacemaker"], ()):
            drawn[chest(number, 32, findings).text] = chest(number, 32, findings).image.data / 4095 * 2 - 1

    def perfect(self: Model, n: int, *, conditions: dict[str, list[str]], **choices: object) -> np.ndarray:
        return np.stack([drawn[text] for text in conditions["text"]])

    monkeypatch.setattr(SynthesisModel, "sample_array", perfect)
    told = explain(model, out=tmp_path / "out", finding="pacemaker", n=4, seed=2)
    score = told.facts["comparisons"][0]["score"]
    assert score["area_under_curve"] == [1.0, 1.0, 1.0] and score["hits"][0] == 1.0
    assert score["perfect"] < 1 and score["between_seeds"] < 0.95 and score["chance"] < 0.2


def test_a_finding_and_a_word_are_explained(run: Path, tmp_path: Path) -> None:
    told = explain(load(run), out=tmp_path / "finding", finding="left_effusion", n=3)
    (one,) = told.facts["comparisons"]
    score = one["score"]
    assert score["count"] == 3 and score["area_under_curve"][1] <= score["area_under_curve"][0] <= 1
    assert all("effusion" in said["text"] for said in one["told"])
    assert all("left" in said["text"].lower() for said in one["told"])
    assert "Do the maps light up where the finding lies?" in told.page.read_text(encoding="utf-8")
    text = "There is a large left pleural effusion."
    told = explain(load(run), out=tmp_path / "word", conditions={"text": text}, word="left", n=2, guidance=1.5)
    (one,) = told.facts["comparisons"]
    assert one["instead"][0] == {"text": "There is a large pleural effusion."} and one["score"] is None
    for choices, words in (
        ({"conditions": {"text": text}, "word": "right"}, "the prompt has no 'right'"),
        ({"conditions": {"text": f"{text} 心脏."}, "word": "心脏"}, "no word of the prompt “心脏”"),
        ({"conditions": {"sex": "F"}}, "told no sex"),
        ({"conditions": {"text": text}, "finding": "nodule"}, "leave the rest out"),
    ):
        with pytest.raises(UsageError, match=words):
            explain(load(run), out=tmp_path / "not", **choices)
