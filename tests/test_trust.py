"""The measures behind docs/trust.md, on heads whose answer is known."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from fabrica.data.manifest import Manifest
from fabrica.phantoms.head.anatomy import INDEX


@pytest.fixture(scope="module")
def trust() -> ModuleType:
    """docs/trust.py, which is a script and in no package."""
    path = Path(__file__).parent.parent / "docs" / "trust.py"
    spec = importlib.util.spec_from_file_location("trust", path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules["trust"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def one(trust: ModuleType):
    """A square brain of white matter with a lesion of 4 x 4 voxels that is twice as bright."""
    tissue = np.zeros((32, 32), np.uint8)
    tissue[4:28, 4:28] = INDEX["white matter"]
    healthy = np.where(tissue > 0, 1.0, 0.0)
    tissue[10:14, 10:14] = INDEX["oedema"]
    return trust.Head(0, tissue, {False: healthy, True: np.where(tissue == INDEX["oedema"], 2.0, healthy)})


def test_kept_is_1_in_the_truth_and_0_without_the_tumour(one) -> None:
    assert one.kept(one.truth[True]) == pytest.approx(1)
    assert one.kept(one.truth[False]) == pytest.approx(0)
    assert one.kept((one.truth[True] + one.truth[False]) / 2) == pytest.approx(0.5)


def test_values_are_in_units_of_normal_white_matter(one) -> None:
    np.testing.assert_allclose(one.in_units(300 * one.truth[True]), one.truth[True])


def test_the_detector_finds_what_is_bright_and_large_and_in_the_brain(trust: ModuleType, one) -> None:
    found = one.spots(one.truth[True])
    assert found[one.lesion].all() and found.sum() < 2 * one.lesion.sum()
    assert not one.spots(one.truth[False]).any()
    grain = one.truth[False] * np.random.default_rng(0).uniform(0.4, 1.6, one.truth[False].shape)
    assert not one.spots(grain).any()
    speck = one.truth[False].copy()
    speck[20:22, 20:23] = 2.0  # six voxels
    assert not one.spots(speck).any()
    skull = one.truth[False].copy()
    skull[:3] = 5.0
    assert not one.spots(skull).any()


def test_auc_counts_wins_and_needs_five_of_each(trust: ModuleType) -> None:
    assert trust.auc([2, 3, 4, 5, 6], [0, 1, 1, 1, 1.5])[0] == 1
    assert trust.auc([1] * 5, [1] * 5)[0] == 0.5
    assert trust.auc([1] * 4, [0] * 50) is None
    assert trust.auc([float("nan")] * 5, [0.0] * 5) is None


def test_an_interval_holds_the_mean_and_passes_over_what_is_not_known(trust: ModuleType) -> None:
    mean, low, high = trust.with_interval([0.0, 1.0, float("nan")] * 20)
    assert low < mean == 0.5 < high
    assert trust.with_interval([float("nan")]) is None


@pytest.mark.parametrize(
    ("name", "a", "b"), [("balanced", 0.5, 0.5), ("healthy-target", 0.5, 0), ("tumour-target", 0, 1)]
)
def test_each_side_has_the_share_of_tumours_it_is_said_to_have(trust, tmp_path, monkeypatch, name, a, b) -> None:
    monkeypatch.setattr(trust, "draw", lambda *_: None)
    case = next(case for case in trust.CASES if case.name == name)
    rows = Manifest.load(trust.manifest(tmp_path, case)).select(split="train").rows
    for domain, share in ((trust.SOURCE, a), (trust.TARGET, b)):
        paths = [row.path for row in rows if row.domain == domain]
        assert np.mean(["tumour" in path for path in paths]) == share
    heads = [{row.patient for row in rows if row.domain == domain} for domain in (trust.SOURCE, trust.TARGET)]
    assert not heads[0] & heads[1]  # no head is on both sides
