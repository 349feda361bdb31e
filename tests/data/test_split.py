"""Splits are by patient, stable when patients are added, never empty, and free of copies."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fabrica.data.manifest import Row
from fabrica.data.split import assign, remove_leaks, split_rows
from fabrica.errors import UsageError

EIGHTY = (0.8, 0.1, 0.1)


def rows(*specs: tuple[str, str]) -> list[Row]:
    return [Row(id=f"{k}", patient=p, path=f"{k}", split=s) for k, (p, s) in enumerate(specs)]


@given(st.integers(3, 40), st.integers(0, 5))
def test_no_wanted_split_is_empty_from_three_patients_on(n: int, seed: int) -> None:
    splits = assign([f"p{k}" for k in range(n)], EIGHTY, seed)
    assert set(splits.values()) == {"train", "val", "test"}
    assert Counter(splits.values()).most_common(1)[0][0] == "train" or n < 6


def test_unwanted_splits_stay_empty() -> None:
    assert set(assign([f"p{k}" for k in range(30)], (0.9, 0.1, 0.0)).values()) == {"train", "val"}
    assert set(assign(["a", "b", "c"], (1.0, 0.0, 0.0)).values()) == {"train"}


def test_added_patients_move_nobody() -> None:
    few = assign([f"p{k}" for k in range(200)], EIGHTY, seed=3)
    many = assign([f"p{k}" for k in range(1000)], EIGHTY, seed=3)
    assert all(many[patient] == split for patient, split in few.items())
    counts = Counter(many.values())
    assert 760 < counts["train"] < 840 and 60 < counts["val"] < 140


def test_the_seed_matters_and_the_order_does_not() -> None:
    patients = [f"p{k}" for k in range(100)]
    assert assign(patients, EIGHTY, 0) != assign(patients, EIGHTY, 1)
    assert assign(patients, EIGHTY, 0) == assign(reversed(patients), EIGHTY, 0)


@pytest.mark.parametrize("fractions", [(0.8, 0.1, 0.2), (1.1, -0.1, 0.0), (0.0, 0.0, 0.0), (float("nan"), 1.0, 0.0)])
def test_fractions_must_add_up(fractions: tuple[float, float, float]) -> None:
    with pytest.raises(UsageError, match="add up to 1"):
        assign(["a"], fractions)


def test_a_published_split_is_kept() -> None:
    table = rows(*[(f"p{k}", ("train", "val", "test")[k % 3]) for k in range(30)])
    before = [row.split for row in table]
    assert split_rows(table, EIGHTY) == []
    assert [row.split for row in table] == before


def test_a_patient_torn_by_a_published_split_trains() -> None:
    table = rows(("a", "train"), ("a", "test"), ("b", "val"), ("c", "test"))
    notes = split_rows(table, EIGHTY)
    assert [row.split for row in table] == ["train", "train", "val", "test"]
    assert any("1 patients are in two splits" in note for note in notes)


def test_val_is_drawn_from_a_published_train() -> None:
    table = rows(*[(f"p{k}", "train" if k < 50 else "test") for k in range(60)])
    notes = split_rows(table, EIGHTY)
    assert {row.split for row in table[:50]} == {"train", "val"} and {row.split for row in table[50:]} == {"test"}
    assert notes == ["no val split as published: drawn by patient from train"]


def test_only_train_published_is_no_split() -> None:
    table = rows(*[(f"p{k}", "train") for k in range(60)])
    split_rows(table, EIGHTY)
    assert {row.split for row in table} == {"train", "val", "test"}


@given(st.integers(0, 30), st.integers(0, 30), st.integers(0, 9), st.booleans())
def test_patients_with_masks_and_without_are_drawn_apart(masked: int, bare: int, seed: int, published: bool) -> None:
    found = rows(*((f"p{k}", "train" if published else "") for k in range(masked + bare)))
    for row in found[:masked]:
        row.mask = "m.png"
    if published:
        found += rows(("tested", "test"))
    split_rows(found, EIGHTY, seed)
    own = found[: masked + bare]
    wanted = {"train", "val"} if published else {"train", "val", "test"}
    for count, part in ((masked, own[:masked]), (bare, own[masked:]), (masked + bare, own)):
        if count >= 3:
            assert {row.split for row in part} == wanted


def test_all_images_of_a_patient_stay_together() -> None:
    table = rows(*[(f"p{k % 20}", "") for k in range(100)])
    split_rows(table, EIGHTY)
    for patient in {row.patient for row in table}:
        assert len({row.split for row in table if row.patient == patient}) == 1


def test_copies_stay_in_the_most_protected_split_only() -> None:
    table = rows(("a", "train"), ("b", "val"), ("c", "test"), ("d", "train"), ("e", "train"), ("f", "train"))
    for row, digest in zip(table, ["x", "x", "x", "y", "y", ""], strict=True):
        row.sha256 = digest
    notes = remove_leaks(table)
    assert [row.split for row in table] == ["", "", "test", "train", "train", "train"]
    assert notes == ["3 exact duplicates, 1 of them across splits: 2 images taken out of train or val, leak removed"]
    assert remove_leaks(rows(("a", "train"))) == []
