"""Which series is for which model."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("pynetdicom")

from fabrica.errors import UsageError
from fabrica.serving.node.rules import every, loaded

TABLE = """
rules:
  - modality: CT
    body_part: [CHEST, THORAX]
    description: "*lung*"
    slices: 20-600
    model: denoise
  - modality: MR
    slices: 20-
    model: [mr-to-ct, organs]
    direction: b2a
  - description: scout?
    slices: -3
    model: organs
otherwise: forward
"""
MODELS = ["denoise", "mr-to-ct", "organs"]


def table(folder: Path, text: str) -> Path:
    path = folder / "rules.yaml"
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("said", "models"),
    [
        (("CT", "CHEST", "Lung 1.0 thin", 20), ("denoise",)),
        (("CT", "thorax", "LUNG", 600), ("denoise",)),
        (("CT", "CHEST", "lung", 601), ()),
        (("CT", "CHEST", "lung", 19), ()),
        (("CT", "HEAD", "lung", 100), ()),
        (("CT", "", "lung", 100), ()),
        (("MR", "", "", 10**6), ("mr-to-ct", "organs")),
        (("MR", "", "scout1", 3), ("organs",)),
        (("US", "", "scout12", 1), ()),
        (("MR", "", "scout1", 0), ()),  # no image at all
    ],
)
def test_the_first_rule_that_fits(tmp_path: Path, said: tuple[str, str, str, int], models: tuple[str, ...]) -> None:
    rules = loaded(table(tmp_path, TABLE), MODELS)
    found = rules.wanted(*said)
    assert (found.models if found else ()) == models
    assert rules.otherwise == "forward"
    if said[0] == "MR" and found and said[3] > 3:
        assert found.direction == "b2a"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("rules: 3", "expected a list"),
        ("- model: denoise", "expected `rules:`"),
        ("rules:\n  - modality: CT", "rule 1 names no model"),
        ("rules:\n  - model: denose", "did you mean denoise"),
        ("rules:\n  - model: denoise\n    bodypart: CHEST", "did you mean body_part"),
        ("rules:\n  - model: denoise\n    slices: many", "expected a number"),
        ("rules:\n  - model: denoise\n    slices: 9-3", "smaller"),
        ("rules:\n  - model: denoise\n    modality: [CT, 3]", "expected a text"),
        ("rules: []\notherwise: drop", "expected keep or forward"),
        ("rules: [", "is no YAML"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        loaded(table(tmp_path, text), MODELS)


def test_one_model_needs_no_rules() -> None:
    found = every(["denoise"]).wanted("CT", "", "", 1)
    assert found is not None
    assert found.models == ("denoise",)
    assert every(["denoise"]).wanted("SR", "", "", 0) is None
    with pytest.raises(UsageError, match="give --rules"):
        every(MODELS)
