"""Configs of studies: what is asked comes back, and what cannot be is one line that says what to do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fabrica.errors import UsageError
from fabrica.recipe.values import written
from fabrica.serving.study.config import load_config, parsed
from fabrica.serving.study.design import KINDS
from fabrica.serving.study.forms import checked, rating
from tests.serving.study.made import config_of


def changed(**changes: Any) -> dict[str, Any]:
    return {**config_of("clarity"), **changes}


@pytest.mark.parametrize("kind", KINDS)
def test_a_config_is_read_whatever_the_order_of_its_keys(kind: str, tmp_path: Path) -> None:
    raw = config_of(kind, **({"truth": "t.csv"} if kind == "detection" else {}))
    (tmp_path / "a.yaml").write_text("# a comment\n" + written(raw))
    (tmp_path / "b.yaml").write_text(written(dict(reversed(raw.items()))))
    one, two = load_config(tmp_path / "a.yaml"), load_config(tmp_path / "b.yaml")
    assert one == two == parsed(raw)
    assert one.readers == ["reader 1", "reader 2", "reader 3"] and one.question
    assert one.comparisons == [("reference", "degraded")]
    assert one.crossed is (kind != "real-or-synthetic")
    assert parsed({**raw, "seed": 1}) != one


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (changed(kind="claritty"), "no kind of study 'claritty'; did you mean clarity?"),
        (changed(armes=[]), "unknown study key armes; did you mean arms?"),
        (changed(arms=[{"name": "a", "image": "a"}]), "unknown study key arms[0].image; did you mean images?"),
        (changed(arms=[]), "arms are missing"),
        (changed(arms=["a"]), "arms[0] is 'a'"),
        (changed(arms=[{"name": "a|b", "images": "a"}]), "a name without |"),
        (changed(arms=[{"name": "a"}]), "neither images and model"),
        (changed(arms=[{"name": "a", "model": "m"}]), "either of (the arm that it is applied to) or count"),
        (changed(arms=[{"name": "a", "model": "m", "of": "b"}]), "expected an arm above it"),
        (changed(arms=[{"name": "a", "images": "a"}] * 2), "names that differ"),
        (changed(arms=[{"name": "a", "images": "a", "truth": "real"}]), "truth belongs to the kind real-or-synthetic"),
        (changed(readers=[]), "readers are missing"),
        (changed(scale=["good"]), "two or more"),
        (changed(scale=["good", "good"]), "an anchor twice"),
        (changed(window=[40]), "expected [centre, width]"),
        (changed(window=[40, 0]), "a width above 0"),
        (changed(window="wide"), "expected a list"),
        (changed(bits=24), "expected 1 to 16"),
        (changed(margin=-0.5), "margin is -0.5"),
        (changed(margin="much"), "margin"),
        (changed(truth="t.csv"), "truth belongs to a detection"),
        (changed(paired=False), "hold the same cases"),
        (changed(compare=[["degraded"]]), "expected pairs of arms"),
        (changed(compare=[["degraded", "referenz"]]), "did you mean reference?"),
        (changed(catch={"case": 1}), "expected a list of the answers"),
        (changed(catch={"case": [6]}), "the right answer 6; expected of 1, 2, 3, 4, 5"),
        (changed(catch={"case": ["good"]}), "the right answer 'good'"),
        (config_of("preference", training={"case": ["best"]}), "the right answer 'best'; expected of degraded"),
        (changed(allocation="most"), "no allocation 'most'"),
        (config_of("detection"), "truth says where lesions are"),
        (config_of("real-or-synthetic", ("a",)), "all arms are real"),
    ],
)
def test_what_cannot_be(raw: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError) as raised:
        parsed(raw)
    assert said in str(raised.value) and "\n" not in str(raised.value)


@pytest.mark.parametrize("text", ["kind: [", "- clarity", "kind: ${oc.env:HOME}"])
def test_what_is_no_config(text: str, tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text(text)
    with pytest.raises(UsageError):
        load_config(tmp_path / "c.yaml")
    with pytest.raises(UsageError, match=r"no config at"):
        load_config(tmp_path / "d.yaml")


def test_answers_by_kind() -> None:
    clarity, real, prefer = (parsed(config_of(kind)) for kind in ("clarity", "real-or-synthetic", "preference"))
    click = parsed(config_of("detection", truth="t.csv"))
    box = parsed(config_of("detection", truth="t.csv", mark="box"))
    assert checked(clarity, {"score": 5}) == {"score": 5}
    assert rating(real, checked(real, {"says": "synthetic", "confidence": 4})) == 4
    assert rating(real, checked(real, {"says": "real", "confidence": 4})) == -4
    assert checked(prefer, {"choice": 0}) == {"choice": 0}
    assert checked(click, {"says": "lesion", "confidence": 1, "marks": [[0, 3, 4]]}, (1, 8, 8))["marks"] == [[0, 3, 4]]
    assert checked(box, {"says": "lesion", "confidence": 1, "marks": [[0, 1, 2, 3, 4]]}, (1, 8, 8))
    wrong: list[tuple[Any, Any]] = [
        (clarity, {"score": 6}),
        (clarity, {"score": True}),
        (clarity, {"score": 2.0}),
        (clarity, {"score": 2, "arm": "a"}),
        (clarity, [2]),
        (real, {"says": "fake", "confidence": 1}),
        (real, {"says": "real", "confidence": 5}),
        (prefer, {"choice": 3}),
        (parsed(config_of("preference", ties=False)), {"choice": 0}),
        (click, {"says": "lesion", "confidence": 1, "marks": [[0, 9, 4]]}),
        (click, {"says": "lesion", "confidence": 1, "marks": [[1, 3, 4]]}),
        (click, {"says": "lesion", "confidence": 1, "marks": [[0, float("nan"), 4]]}),
        (click, {"says": "none", "confidence": 1, "marks": [[0, 3, 4]]}),
        (box, {"says": "lesion", "confidence": 1, "marks": [[0, 3, 2, 1, 4]]}),
    ]
    for config, answer in wrong:
        with pytest.raises(UsageError):
            checked(config, answer, (1, 8, 8))
