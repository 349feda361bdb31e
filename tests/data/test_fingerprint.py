"""A run goes on with the data it began with: what changed is said, and what makes no difference is none."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fabrica.data.dataset import SCALE, Dataset, Meta, Writer
from fabrica.data.fingerprint import differences, save

SIDE = 32
Given = dict[str, tuple[np.ndarray, str, int]]  # id -> values, text, label


def images(count: int = 6) -> Given:
    rng = np.random.default_rng(0)
    return {f"i{k}": (rng.uniform(-1, 1, (1, SIDE, SIDE)).astype(np.float32), f"text {k}", k % 2) for k in range(count)}


def written(folder: Path, given: Given) -> Dataset:
    folder.mkdir()
    with Writer(folder) as writer:
        for name, (values, text, label) in given.items():
            writer.add(values, name, text, label)
        writer.finish(Meta(writer.count, writer.shape, ("a", "b"), "DX", (), (SIDE, SIDE)))
    return Dataset(folder)


def edited(change: str) -> Given:
    given = images()
    values, text, label = given["i2"]
    if change == "pixel":  # a burned-in letter of one pixel, a twentieth of the range brighter
        values[0, 3, 4] += 0.1
    elif change == "gone":
        del given["i2"]
    elif change == "new":
        given["i9"] = (-values, text, label)
    elif change == "label":
        given["i2"] = (values, text, 1 - label)
    elif change == "text":
        given["i2"] = (values, "another", label)
    elif change == "order":
        given = dict(reversed(given.items()))
    elif change == "names":
        given = {f"moved/{name}": value for name, value in given.items()}
    elif change == "rounding":  # what another processor may round otherwise
        flips = np.random.default_rng(1).random(values.shape) < 0.01
        given["i2"] = (values + flips.astype(np.float32) / SCALE, text, label)
    return given


@pytest.mark.parametrize(
    ("change", "told", "said"),
    [
        ("pixel", ["text"], "of the training images 1 changed (the first i2)"),
        ("gone", [], "of the training images 1 gone (the first i2)"),
        ("new", [], "of the training images 1 new (the first i9)"),
        ("label", [], "1 of the training images have another label (the first i2)"),
        ("text", ["text"], "the training images have other texts or facts"),
        ("text", ["label"], ""),  # nothing that the network sees
        ("order", [], "the training images come in another order"),
        ("names", [], ""),
        ("rounding", [], ""),
        ("none", ["text", "age"], ""),
    ],
)
def test_what_changed_is_said(change: str, told: list[str], said: str, tmp_path: Path) -> None:
    save(tmp_path / "run" / "data.npz", {"training images": written(tmp_path / "old", images())}, told)
    now = {"training images": written(tmp_path / "new", edited(change))}
    assert differences(tmp_path / "run" / "data.npz", now, told) == ([said] if said else [])


@pytest.mark.parametrize("content", [None, b"", b"no zip"])
def test_what_cannot_be_read_is_not_known(content: bytes | None, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "data.npz").write_bytes(content)
    assert differences(tmp_path / "data.npz", {"training images": written(tmp_path / "d", images())}, []) is None
