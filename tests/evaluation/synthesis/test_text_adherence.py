"""Images obey their own prompts, others by chance; what is read from pixels is what the phantoms are."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from fabrica.data.sample import FIRST_SEED
from fabrica.errors import UsageError
from fabrica.evaluation.synthesis import phantom_classifier as phantom_classifier
from fabrica.evaluation.synthesis.phantom_classifier import SEEDS, PhantomClassifier
from fabrica.evaluation.synthesis.phantom_findings import (
    FINDINGS,
    NOWHERE,
    PROMPTS,
    Int,
    Stated,
    examples,
    facts,
    numbered,
)
from fabrica.evaluation.synthesis.text_adherence import (
    Adherence,
    Prompt,
    adherence,
    classifier,
    pictures,
    prompts,
    scored,
)
from fabrica.phantoms import chest
from fabrica.phantoms.chest.chest import FINDINGS as DISEASES
from fabrica.phantoms.chest.chest import LESIONS


@pytest.fixture(scope="module")
def asked() -> list[Prompt]:
    return prompts(80)


def perfect(asked: list[Prompt]) -> tuple[dict[str, Int], dict[str, float]]:
    return numbered([prompt.stated for prompt in asked]), dict.fromkeys(FINDINGS, 1.0)


# --- prompts --------------------------------------------------------------------------------------------------


def test_prompts_state_what_their_phantoms_show(asked: list[Prompt]) -> None:
    assert [prompt.text for prompt in prompts(3)] == [prompt.text for prompt in asked[:3]]
    assert {p.text for p in prompts(4, seed=1)}.isdisjoint(p.text for p in asked)
    for prompt in asked[:8]:
        made = chest(prompt.seed, 24)
        assert made.text == prompt.text
        truth = facts(made.labels)
        assert all(truth[name] == value for name, value in prompt.stated.items())
        assert set(truth) - set(prompt.stated) <= {"view", "sex"}


def test_only_what_is_said_is_stated(asked: list[Prompt]) -> None:
    for prompt in asked:
        said = prompt.stated.get("sex")
        assert ("woman" in prompt.text.lower()) == (said == "female")
        assert (" PA " in prompt.text) == (prompt.stated.get("view") == "PA")
        for size in ("small", "moderate", "large"):
            if prompt.stated["size of left effusion"] == size:
                assert size in prompt.text.lower()
                assert "left" in prompt.text.lower() or "bilateral" in prompt.text.lower()
    assert 10 < sum("sex" in prompt.stated for prompt in asked) < 70
    for name, finding in FINDINGS.items():
        assert {prompt.stated[name] for prompt in asked if name in prompt.stated} <= set(finding.values)


def test_no_seed_is_used_twice() -> None:
    starts = sorted([*FIRST_SEED.values(), *SEEDS.values(), PROMPTS])
    assert min(np.diff(starts)) >= 500_000_000


# --- the score ------------------------------------------------------------------------------------------------


def test_what_is_obeyed_is_counted_by_value() -> None:
    said: list[Stated] = [{"pacemaker": "present"}] * 2 + [{"pacemaker": "absent"}] * 8 + [{}]
    seen = {"pacemaker": np.array([1, 0, *[0] * 8, 1])}
    (row,) = scored(numbered(said), seen, {"pacemaker": 0.99, "nodule": 0.7}, ("pacemaker",)).rows
    assert row.values == {"absent": (8, 8), "present": (1, 2)} and row.count == 10
    assert row.share == pytest.approx(0.75) and row.chance == 0.5 and row.low < 0.75 < row.high
    assert row.high - row.low > 0.4, "two pacemakers say little"


def test_a_report_is_obeyed_as_a_whole_where_nothing_that_is_read_is_wrong() -> None:
    said: list[Stated] = [{"pacemaker": "present", "view": "PA"}, {"pacemaker": "absent"}, {"view": "AP"}, {}]
    truth = numbered(said)
    seen = {name: truth[name].copy() for name in ("pacemaker", "view")}
    assert scored(truth, seen, {"pacemaker": 1.0, "view": 1.0}, ("pacemaker", "view")).whole == (4, 4)
    seen["view"][0] += 1
    assert scored(truth, seen, {"pacemaker": 1.0, "view": 1.0}, ("pacemaker", "view")).whole == (3, 4)
    assert scored(truth, seen, {"pacemaker": 1.0, "view": 0.5}, ("pacemaker",)).whole == (4, 4), "views are not read"
    assert scored(truth, seen, {}, ()).whole == (0, 0)


def test_what_cannot_be_read_is_named_and_left_out(asked: list[Prompt]) -> None:
    truth, accuracy = perfect(asked)
    result = scored(truth, truth, {**accuracy, "nodule": 0.6}, [name for name in FINDINGS if name != "nodule"])
    assert result.unread == {"nodule": 0.6} and len(result.rows) == len(FINDINGS) - 1
    assert result.mean == 1.0 and all(row.low > 0.3 and row.high == pytest.approx(1.0) for row in result.rows)
    nothing = Adherence((), {})
    assert np.isnan(nothing.mean) and np.isnan(nothing.chance)


def test_shuffled_prompts_fall_to_chance(asked: list[Prompt]) -> None:
    truth, accuracy = perfect(asked)
    means = []
    for seed in range(60):
        order = np.random.default_rng(seed).permutation(len(asked))
        seen = {name: np.maximum(value, 0)[order] for name, value in truth.items()}  # every image shows something
        result = scored(truth, seen, accuracy, tuple(FINDINGS))
        means.append([row.share for row in result.rows])
    chance = [row.chance for row in result.rows]
    np.testing.assert_allclose(np.mean(means, 0), chance, atol=0.06)


def test_a_generator_of_normal_chests_is_not_rewarded(asked: list[Prompt]) -> None:
    truth, accuracy = perfect(asked)
    normal = {name: np.zeros_like(seen) for name, seen in truth.items()}
    result = scored(truth, normal, accuracy, tuple(FINDINGS))
    assert result.mean == pytest.approx(result.chance)


def test_wrong_use_is_explained(asked: list[Prompt]) -> None:
    blind = PhantomClassifier(32, torch.nn.Identity(), {}, 0.0)
    blank = np.zeros((2, 1, 32, 32), np.float32)
    for said, images, message in (
        (asked[:3], blank, "3 prompts and 2 images"),
        ([{"nodul": "present"}] * 2, blank, "nothing reads 'nodul'"),
        ([{"nodule": "huge"}] * 2, blank, "expected one of absent, present"),
        (asked[:2], blank[:, :, :16], "takes float32 \\(N, 1, 32, 32\\)"),
        (asked[:2], blank.astype(np.float64), "are float64"),
        (asked[:2], blank * np.nan, "not finite"),
    ):
        with pytest.raises(UsageError, match=message):
            adherence(said, images, blind)
    with pytest.raises(UsageError, match="multiple of 8"):
        classifier(60)


# --- the reader -----------------------------------------------------------------------------------------------


def test_examples_know_where_the_nodule_is() -> None:
    images, labels, places = examples(SEEDS["learn"], 12, 64)
    assert images.shape == (12, 1, 64, 64) and images.dtype == np.float32 and np.abs(images).max() <= 1
    for k, (one, place) in enumerate(zip(labels, places, strict=True)):
        assert bool(one["nodule"]) == (place[0] != NOWHERE)
        if one["nodule"] and not one["pacemaker"]:
            rng = np.random.default_rng([SEEDS["learn"] + k, 99])
            again = chest(SEEDS["learn"] + k, 64, [name for name in DISEASES if rng.random() < 0.35])
            rows, columns = (again.lesions.data[0] == LESIONS.index("nodule")).nonzero()
            assert abs(rows.mean() - place[0]) <= 1 and abs(columns.mean() - place[1]) <= 1


def test_a_nodule_moves_with_its_image() -> None:
    images = torch.full((1, 1, 32, 32), -1.0)
    images[0, 0, 13, 21] = 1.0
    for seed in range(10):
        moved, shift = phantom_classifier._changed(images, torch.Generator().manual_seed(seed))
        row, column = divmod(int(moved[0, 0].argmax()), 32)
        assert [row, column] == (torch.tensor([13, 21]) + shift).tolist()
    places = torch.tensor([[13, 21], [NOWHERE, NOWHERE], [-1, 4], [4, 32]])
    assert phantom_classifier._cells(places, 32).tolist() == [3 * 8 + 5, 64, 64, 64]


@pytest.mark.slow
def test_a_reader_is_taught_once_and_kept() -> None:
    told: set[str] = set()
    first = classifier(32, count=96, exam=33, epochs=2, tell=lambda what, done, total: told.add(what))
    assert set(first.accuracy) == set(FINDINGS) and 0 < first.error < 0.3
    assert told == {"drawing phantoms to learn", "drawing phantoms to exam", "teaching the reader"}
    told.clear()
    again = classifier(32, count=96, exam=33, epochs=2, tell=lambda what, done, total: told.add(what))
    assert not told and again.accuracy == first.accuracy and again.error == first.error
    images = pictures(range(6), 32)
    one, other = first.read(images), again.read(images)
    assert all(np.array_equal(one[name], other[name]) and one[name].shape == (6,) for name in FINDINGS)
    assert first.ratios(images).shape == (6,)
    said = adherence([{"pacemaker": "absent"}] * 6, images, replace(first, accuracy={"pacemaker": 1.0}))
    assert [row.finding for row in said.rows] == ["pacemaker"] and said.rows[0].count == 6


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_reader_of_64_can_be_trusted() -> None:
    by = classifier(64)
    asked = prompts(300)
    images = pictures([prompt.seed for prompt in asked], 64)
    real = adherence(asked, images, by)
    assert real.mean > 0.97 and len(real.rows) >= 10, real
    assert all(row.high > 0.9 for row in real.rows)
    order = np.random.default_rng(0).permutation(300)
    shuffled = adherence(asked, images[order], by)
    assert abs(shuffled.mean - shuffled.chance) < 0.08
    for blank in (np.zeros_like(images), np.full_like(images, -1.0)):
        assert adherence(asked, blank, by).mean < real.chance + 0.1
