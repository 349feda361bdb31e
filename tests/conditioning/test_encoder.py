"""What a model is told, from words to tensors, and what it says of what it cannot read."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fabrica.conditioning.encoder import ConditionEncoder, condition_encoder
from fabrica.conditioning.vocabulary import learned, load_words, save_words
from fabrica.data.metadata import about, age, sex
from fabrica.errors import FabricaError, UsageError
from fabrica.recipe.card import described
from fabrica.recipe.conditions import Category, Number, Text, declared
from fabrica.recipe.found import Found
from fabrica.recipe.load import load_recipe
from fabrica.recipe.schema import Recipe
from fabrica.text.tokenizer import BEGIN, PAD

REPORTS = [
    "FINDINGS: The heart is enlarged. The lungs are clear. IMPRESSION: Cardiomegaly.",
    "FINDINGS: The heart is normal. There is a large left effusion. IMPRESSION: Left effusion.",
    "FINDINGS: The heart is normal. The lungs are clear. IMPRESSION: Normal chest radiograph.",
] * 3


def recipe(*overrides: str) -> Recipe:
    values = ["data.condition=[text,age,sex]", "text.tokens=400", "text.context=24", *overrides]
    return load_recipe("ddpm-chest", values)


def found(asked: Recipe) -> Found:
    return replace(Found.asked(asked), categories={"sex": ["F", "M"]})


@pytest.fixture
def told() -> ConditionEncoder:
    return condition_encoder(recipe(), found(recipe()), *learned(recipe(), REPORTS))


def test_what_networks_are_told_follows_the_recipe() -> None:
    assert declared(recipe(), found(recipe())) == {
        "text": Text(400, 24, 3, 3),
        "age": Number(0, 100),
        "sex": Category(2),
    }
    assert (
        declared(
            recipe("data.condition=label", "data.classes=[a,b]"),
            found(recipe("data.condition=label", "data.classes=[a,b]")),
        )
        == {}
    )  # it has an embedding of its own
    both = declared(
        recipe("data.condition=[label,sex]", "data.classes=[a,b,c]"),
        found(recipe("data.condition=[label,sex]", "data.classes=[a,b,c]")),
    )
    assert both == {"label": Category(3), "sex": Category(2)}
    assert described(recipe(), found(recipe())) == "text, age, sex (F, M)"
    assert described(recipe("data.condition="), found(recipe("data.condition="))) == ""


@pytest.mark.parametrize("condition", ["[text,text]", "reports", "[text,ages]"])
def test_conditions_that_there_are_not_are_refused(condition: str) -> None:
    with pytest.raises(UsageError, match=r"expected each at most once of label, text, age, sex, view"):
        load_recipe("ddpm-chest", [f"data.condition={condition}"])


def test_words_and_numbers_become_arrays(told: ConditionEncoder) -> None:
    found = told.encode([{"text": REPORTS[0], "age": "57", "sex": "M"}, {"text": "", "sex": "F"}])
    assert found["text"].shape[0] == 2 and found["text"].dtype == np.int64
    assert 3 < found["text"].shape[1] <= 24 and (found["text"][:, 0] == BEGIN).all()
    assert (found["text"][1] > PAD).sum() == 2, "BEGIN and END alone"
    assert found["age"][0] == 57 and math.isnan(found["age"][1])
    assert found["sex"].tolist() == [1, 0] and "label" not in found
    # headings are nothing that a report says, so a prompt with them is one without
    plain = told.encode([{"text": REPORTS[0].replace("FINDINGS: ", "").replace("IMPRESSION: ", "")}])
    assert np.array_equal(plain["text"][0], told.encode([{"text": REPORTS[0]}])["text"][0])


def test_values_that_there_are_not_are_refused_of_a_user(told: ConditionEncoder) -> None:
    with pytest.raises(UsageError, match=r"no sex 'X'; expected one of F, M"):
        told.asked(1, 0, {"sex": "X"})
    for wrong in ("old", "-3", "inf", "500", -1.0):
        with pytest.raises(UsageError, match=r"expected years, e\.g\. 57"):
            told.asked(2, 0, {"age": wrong})
    with pytest.raises(UsageError, match="3 values of sex for 2 images"):
        told.asked(2, 0, {"sex": ["F", "M", "F"]})


def test_values_that_training_never_saw_stay_open_in_data(told: ConditionEncoder) -> None:
    """A held-out row must not stop an hour of training."""
    found = told.encode([{"sex": "O", "age": "057Y", "text": "🫁"}, {"sex": "M", "age": "old", "text": "🫁 lungs"}])
    assert found["sex"].tolist() == [-1, 1]
    assert found["age"][0] == 57 and math.isnan(found["age"][1])
    assert (found["text"][0] > PAD).sum() == 2 < (found["text"][1] > PAD).sum()
    assert [told.legible("text", said) for said in ("🫁", "心 12 .", "lungs")] == ["", "", "lungs"]


def test_a_user_may_say_numbers_of_any_kind_or_nothing(told: ConditionEncoder) -> None:
    for years in (57, 57.0, np.float32(57), np.int64(57), "57"):
        assert told.asked(2, 0, {"age": years}) == [{"age": "57"}] * 2
    assert told.asked(2, 0, {"age": [None, math.nan], "text": None}) == [{"age": "", "text": ""}] * 2
    (said,) = told.asked(1, 0, {"text": "a \udcff b"})
    assert said["text"].encode("utf-8")  # half a surrogate pair, as a shell hands over a broken byte


def test_classes_come_in_turn_only_where_nothing_else_is_told() -> None:
    alone = condition_encoder(
        recipe("data.condition=label", "data.classes=[a,b]"),
        found(recipe("data.condition=label", "data.classes=[a,b]")),
    )
    assert [one["label"] for one in alone.asked(3, 1, {})] == ["b", "a", "b"]
    beside = condition_encoder(
        recipe("data.condition=[label,sex]", "data.classes=[a,b]"),
        found(recipe("data.condition=[label,sex]", "data.classes=[a,b]")),
    )
    assert beside.asked(2, 0, {"sex": "F"}) == [{"sex": "F"}] * 2


def test_a_prompt_that_can_be_read_needs_no_note(told: ConditionEncoder) -> None:
    assert told.misread("The heart is enlarged.") == told.misread("") == told.misread("  \n ") == []


@pytest.mark.parametrize("prompt", ["心脏扩大。", "🫁🫀", "جمجمة", "αβγ δεζ", "xyzzy .", "心脏 12"])
def test_a_prompt_without_a_word_of_the_reports_is_refused(told: ConditionEncoder, prompt: str) -> None:
    with pytest.raises(UsageError, match=r"no word of the prompt .* occurs in the reports"):
        told.misread(prompt)


def test_words_that_no_report_has_are_left_out_with_a_note(told: ConditionEncoder) -> None:
    notes = told.misread("The heart 🫀 is enlarged 心.")
    assert len(notes) == 1 and "🫀" in notes[0] and "心" in notes[0] and "left out" in notes[0]
    with_them, without = (
        told.encode([{"text": t}])["text"] for t in ("The heart 🫀 is enlarged", "The heart is enlarged")
    )
    assert np.array_equal(with_them, without)


def test_what_is_no_sentence_is_named_too(told: ConditionEncoder) -> None:
    """Neither signs alone between full stops nor a heading of one's own may vanish without a word."""
    (note,) = told.misread("The heart is enlarged. 🫁")
    assert "🫁" in note and "enlarged" not in note
    (note,) = told.misread("LEFT EFFUSION: large.")
    assert "left effusion:" in note
    assert told.misread("FINDINGS: 1. The heart is enlarged. IMPRESSION: Cardiomegaly.") == []


def test_a_prompt_too_long_is_cut_after_a_word_with_a_note(told: ConditionEncoder) -> None:
    prompt = " ".join(["The heart is enlarged."] * 12)
    notes = told.misread(prompt)
    assert len(notes) == 1 and "22 tokens" in notes[0] and "heart is enlarged" in notes[0]
    assert told.encode([{"text": prompt}])["text"].shape == (1, 24)


def test_excerpts_are_sentences_of_the_report() -> None:
    always = condition_encoder(recipe("text.excerpts=1"), found(recipe("text.excerpts=1")), *learned(recipe(), REPORTS))
    never = condition_encoder(recipe("text.excerpts=0"), found(recipe("text.excerpts=0")), *learned(recipe(), REPORTS))
    rng = np.random.default_rng(0)
    seen = {always.excerpt(REPORTS[0], rng) for _ in range(40)}
    assert len(seen) == 7, "every choice of one to three sentences"
    assert {never.excerpt(REPORTS[0], rng) for _ in range(9)} == {REPORTS[0]}


def test_words_are_kept_and_damage_is_found(told: ConditionEncoder, tmp_path: Path) -> None:
    path = tmp_path / "vocabulary.json"
    save_words(path, told)
    vocabulary, seen = load_words(path)
    assert vocabulary.merges == told.vocabulary.merges and seen == told.seen
    for damage in ("", "{}", '{"merges": [[9, 99999]], "seen": []}', '{"merges": 3, "seen": []}'):
        path.write_text(damage)
        with pytest.raises(FabricaError, match="missing or damaged"):
            load_words(path)
    path.write_text(json.dumps({"merges": [], "seen": [5000]}))
    with pytest.raises(FabricaError, match="names tokens that it has not"):
        load_words(path)
    with pytest.raises(FabricaError, match="missing or damaged"):
        load_words(tmp_path / "none.json")


def test_without_reports_there_are_no_words() -> None:
    with pytest.raises(UsageError, match="1 training images have a text"):
        learned(recipe(), ["", "  ", "The heart is normal."])


@pytest.mark.parametrize(
    ("said", "years"),
    [
        ("057Y", "57"),
        ("57", "57"),
        ("018M", "1.5"),
        ("3W", "0.06"),
        ("57.5", "57.5"),
        ("", ""),
        ("old", ""),
        ("999", ""),
    ],
)
def test_ages_are_read_as_dicom_and_tables_write_them(said: str, years: str) -> None:
    assert age(said) == years


def test_sex_and_view_are_read_as_dicom_and_tables_write_them() -> None:
    assert [sex(said) for said in ("M", "female", "O", "", "unknown")] == ["M", "F", "O", "", ""]
    assert about({"age": 41, "sex": "male", "view": "pa", "other": "x"}) == {"age": "41", "sex": "M", "view": "PA"}
