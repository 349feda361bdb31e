"""What stands instead where pairs are few: decided by counts alone, overridden by name, and said."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from fabrica.errors import UsageError
from fabrica.methods import build
from fabrica.recipe.few import are_few, few_laid, told
from fabrica.recipe.load import load_recipe
from fabrica.recipe.schema import FewConfig, Recipe
from tests.shipped import shipped

WITH = {name: recipe for name, recipe in shipped().items() if recipe.few != FewConfig()}


def test_what_is_few_is_a_threshold_in_patients_and_in_pairs() -> None:
    few = FewConfig(patients=30, pairs=300)
    for patients in range(1, 60):
        for pairs in (0, 1, 299, 300, 5000):
            assert bool(are_few(few, patients, pairs)) == (patients < 30 or 0 < pairs < 300), (patients, pairs)
    assert not are_few(FewConfig(), 1, 1)
    assert are_few(replace(few, pairs=0), 30, 1) == "" and are_few(replace(few, patients=0), 1, 299)


@pytest.mark.parametrize("name", WITH)
def test_every_value_for_few_pairs_is_one_of_the_method_and_takes_the_place_of_the_recipes(name: str) -> None:
    recipe = WITH[name]
    laid = few_laid(recipe)
    assert laid.few == FewConfig() and replace(laid, method={}, data=recipe.data, train=recipe.train) == replace(
        recipe, method={}, few=FewConfig()
    )
    for section in ("method", "data", "train"):
        own, now = (getattr(each, section) for each in (recipe, laid))
        before, after = (dict(part) if section == "method" else vars(part) for part in (own, now))
        for key, value in getattr(recipe.few, section).items():
            assert after[key] == value and before.get(key) != value, f"{section}.{key} changes nothing"
    sides = ["data.size=32"] if recipe.data.a != "mask" else ["data.size=32", "codec.kind=label", "codec.classes=2"]
    assert build(few_laid(load_recipe(name, sides))).config.adversarial == recipe.few.method["adversarial"]


def test_what_is_named_stands_for_few_pairs_too() -> None:
    plain = load_recipe("pix2pix-head")
    for override, section, key in (
        ("method.adversarial=0.5", "method", "adversarial"),
        ("data.turn=30", "data", "turn"),
        ("train.lr=5e-5", "train", "lr"),
    ):
        changed = load_recipe("pix2pix-head", [override])
        one, other = getattr(plain.few, section), getattr(changed.few, section)
        assert one == {key: one[key], **other} and key not in other
        laid = getattr(few_laid(changed), section)
        assert (laid[key] if section == "method" else getattr(laid, key)) == float(override.split("=")[1])
    assert few_laid(load_recipe("pix2pix-head", ["few.method.adversarial=0.3"])).method["adversarial"] == 0.3
    asks = load_recipe("strong-head", ["train.lr_of.critic=4e-4"])  # for a critic
    assert few_laid(asks).method["adversarial"] == 0.1 and few_laid(asks).data.flip
    assert load_recipe("pix2pix-head", ["method.name=cut", "data.paired=false"]).few == FewConfig()


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("few.data.tern=3", r"unknown recipe key few\.data\.tern; did you mean turn\?"),
        ("few.train.lr=fast", r"recipe key few\.train"),
        ("few.data.turn=-1", r"data\.turn is -1\.?0?; expected 0 or more"),
        ("few.patients=-1", r"few\.patients is -1; expected 0 \(not asked\) or more"),
        ("few.patience=3", r"unknown recipe key few\.patience; did you mean patients\?"),
    ],
)
def test_what_cannot_be_is_one_line_whether_pairs_are_few_or_not(override: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        load_recipe("pix2pix-head", [override])


def test_it_is_said_in_two_lines_with_the_counts_and_every_choice(tmp_path: Path) -> None:
    few = WITH["pix2pix-head"].few
    said = told(few, 7, 123)
    why, chosen = said.split("\n")
    assert why.startswith(f"123 pairs of 7 patients are few (fewer than {few.patients} patients)")
    # what it says can be typed: named, the same values are those of the recipe itself
    words = [word for word in chosen.split(";")[0].split() if "=" in word]
    assert few_laid(load_recipe("pix2pix-head", words)) == few_laid(WITH["pix2pix-head"])
    assert not any(
        values for values in vars(replace(load_recipe("pix2pix-head", words).few, patients=0, pairs=0)).values()
    )
    assert told(few, 1000, 5000) == "" and told(FewConfig(), 1, 1) == ""


def test_a_recipe_of_before_has_no_such_section_and_reads(tmp_path: Path) -> None:
    recipe = load_recipe("strong-head")
    few_laid(recipe).save(tmp_path / "recipe.yaml")
    text = (tmp_path / "recipe.yaml").read_text()
    (tmp_path / "recipe.yaml").write_text(text[: text.index("few:")] + text[text.index("sample:") :])
    again = load_recipe(tmp_path / "recipe.yaml")
    assert isinstance(again, Recipe) and again == few_laid(recipe)
