"""What was found, beside what was asked: frozen, written and read again whole, refused in one line where it is not."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, asdict, replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from fabrica.errors import FabricaError
from fabrica.recipe.found import Fingerprint, Found, HeldOutError, found_in, load_found
from fabrica.recipe.load import load_recipe
from fabrica.recipe.schema import CodecConfig
from tests.draws import draws

NUMBERS = st.floats(allow_nan=False, allow_infinity=False, width=32)
WORDS = st.text(st.characters(codec="utf-8", exclude_categories=["C", "Z"], exclude_characters="$"), max_size=8)
CODECS = st.builds(CodecConfig, st.sampled_from(["auto", "window", "percentile"]), st.none() | NUMBERS, unit=WORDS)
FOUND = st.builds(
    Found,
    method=st.dictionaries(WORDS.filter(bool), NUMBERS | st.booleans() | st.none() | WORDS, max_size=3),
    classes=st.lists(WORDS, max_size=3),
    categories=st.dictionaries(WORDS.filter(bool), st.lists(WORDS, max_size=3), max_size=2),
    codec=CODECS,
    codecs_auxiliary=st.lists(CODECS, max_size=2),
    modality=WORDS,
    spacing=st.lists(NUMBERS, max_size=3),
    fingerprint_a=st.builds(Fingerprint, quantiles=st.lists(NUMBERS), covariance=st.lists(st.lists(NUMBERS))),
    held_out_b=st.builds(HeldOutError, error=NUMBERS, nothing=st.none() | NUMBERS, images=st.integers(0, 99)),
)


@settings(deadline=None, max_examples=draws(40))
@given(FOUND)
def test_what_is_written_is_read(tmp_path_factory: pytest.TempPathFactory, found: Found) -> None:
    path = tmp_path_factory.getbasetemp() / "found.yaml"
    found.save(path)
    assert load_found(path) == found


@pytest.mark.parametrize("word", ["???", "a ??? b", "null", "~", "1e3", "yes"])
def test_words_that_mean_more_elsewhere_are_words(tmp_path: Path, word: str) -> None:
    found = Found(classes=[word, "b"], categories={word: [word]}, modality=word, method={"name": word})
    found.save(tmp_path / "found.yaml")
    assert load_found(tmp_path / "found.yaml") == found


def test_both_records_are_frozen() -> None:
    recipe = load_recipe("ddpm-chest")
    for record, name in ((recipe, "seed"), (recipe.data, "size"), (recipe.train, "lr"), (Found(), "classes")):
        with pytest.raises(FrozenInstanceError):
            setattr(record, name, None)


def test_what_was_asked_is_where_finding_starts() -> None:
    recipe = load_recipe("nafnet-multi", ["data.classes=[a,b]", "output.modality=MR"])
    found = Found.asked(recipe)
    assert found.classes == ["a", "b"] and found.modality == "MR" and found.size == recipe.data.size
    assert found.scale == "auto" and len(found.codecs_auxiliary) == len(recipe.data.auxiliary) > 0
    decided = replace(found, classes=["c"], scale="two").data(recipe.data)
    assert (decided.classes, decided.scale, recipe.data.classes) == (["c"], "two", ["a", "b"])


def changed(path: Path, **values: Any) -> Path:
    raw = asdict(Found())
    raw = {key: value for key, value in {**raw, **values}.items() if value != "gone"}
    path.write_text(yaml.safe_dump(raw))
    return path


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"clases": []}, "has an unknown key clases; did you mean classes\\?"),
        ({"held_out_b": "gone"}, "is damaged: it has no held_out_b; take it from where the model was trained"),
        ({"version": 2}, "has version 2, and this Fabrica reads 1; update Fabrica"),
        ({"version": "gone"}, "has version no version, and this Fabrica reads 1"),
        ({"spacing": "wide"}, "is damaged: .*spacing"),
        ({"held_out_a": {"eror": 1.0}}, "is damaged: unknown .*held_out_a.eror"),
        ({"classes": ["${oc.env:HOME}"]}, "expected plain values by name"),
    ],
)
def test_a_record_that_is_not_whole_is_one_line(tmp_path: Path, values: dict[str, Any], message: str) -> None:
    path = changed(tmp_path / "found.yaml", **values)
    with pytest.raises(FabricaError, match=message) as caught:
        load_found(path)
    assert "\n" not in str(caught.value) and str(path) in str(caught.value)


@pytest.mark.parametrize("content", ["", "- 1", "{", "\0"])
def test_a_file_that_is_no_record_is_one_line(tmp_path: Path, content: str) -> None:
    (tmp_path / "found.yaml").write_text(content)
    with pytest.raises(FabricaError, match=r"found\.yaml (is damaged|has version)"):
        load_found(tmp_path / "found.yaml")


def test_a_folder_of_the_earlier_form_is_read(tmp_path: Path) -> None:
    """In which recipe.yaml held both."""
    recipe = load_recipe("pix2pix-head")
    older = asdict(recipe) | {
        "codec": asdict(CodecConfig("window", 0.0, 4095.0)),
        "output": {"modality": "CT", "spacing": [1.0, 1.0], "size": [60, 60]},
        "seen_a": {"modality": "MR", "extent": [200.0, 240.0], "doubt": 0.25},
        "found_b": {"measure": "mae", "unit": "HU", "error": 10.0, "nothing": None, "cases": 4},
    }
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(older))
    asked, found = found_in(tmp_path)
    assert asked.data == recipe.data and asked.output.modality == "CT"
    assert found.codec.high == 4095.0 and found.size == [60, 60] and found.modality == "CT"
    assert found.fingerprint_a.uncertainty == 0.25 and found.fingerprint_a.modality == "MR"
    assert found.held_out_b.error == 10.0 and found.held_out_a == HeldOutError()


def test_a_folder_without_what_was_found_is_one_line(tmp_path: Path) -> None:
    load_recipe("pix2pix-head").save(tmp_path / "recipe.yaml")
    with pytest.raises(FabricaError, match=r"has no found\.yaml, which says what its training found"):
        found_in(tmp_path)


def test_keys_are_understood_by_their_earlier_names() -> None:
    recipe = load_recipe("nafnet-multi", ["data.beside=[FLAIR]", "train.watch_every=7"])
    assert recipe.data.auxiliary == ["FLAIR"] and recipe.train.monitor_every == 7
    by_hand = load_recipe("nafnet-multi", ["data.auxiliary=[FLAIR]", "train.monitor_every=7"])
    assert by_hand == recipe
