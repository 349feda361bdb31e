"""What stands beside a degraded image: each contrast in its channel, on one grid, changed alike, absent where it is."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from fabrica import io
from fabrica.codec import ABSENT, Codec
from fabrica.data.augment import Changes
from fabrica.data.cache import build_cache
from fabrica.data.codecs import resolve_codec
from fabrica.data.dataset import SCALE
from fabrica.data.manifest import Manifest, Row
from fabrica.data.pairs import Pairs
from fabrica.data.sample import AUXILIARY, FIRST_SEED
from fabrica.data.sources import open_source
from fabrica.errors import UsageError
from fabrica.image import Float32
from fabrica.phantoms.head.head import head
from fabrica.recipe.schema import CodecConfig, DataConfig
from fabrica.training.batches import batch_at

MR = Codec("window", 0.0, 4095.0)
NOISE = [{"name": "rician", "sigma": 0.1}]
WHO = {"train": ("anna", "ben", "cleo"), "val": ("dora",), "test": ("emil", "fay")}


@pytest.fixture(scope="module")
def heads(tmp_path_factory: pytest.TempPathFactory) -> DataConfig:
    """Volumes of six patients: T1; T2 in finer voxels; FLAIR of Anna, Cleo and Fay alone; PD of those in training."""
    folder = tmp_path_factory.mktemp("heads")
    rows = []
    for seed, (split, name) in enumerate((split, name) for split, names in WHO.items() for name in names):
        drawn = {"T1": 32, "T2": 48, "FLAIR": 32, "PD": 32}
        if name not in ("anna", "cleo", "fay"):
            drawn.pop("FLAIR")
        if split != "train":
            drawn.pop("PD")
        for domain, size in drawn.items():
            path = f"{name}-{domain}.nii.gz"
            io.write(head(seed, size, 3, contrasts=[domain]).images[domain], folder / path)
            rows.append(Row(f"{name}-{domain}", name, path, "", split, "MR", domain))
    Manifest(rows[::-1], folder).save(folder / "manifest.csv")
    source, size = str(folder / "manifest.csv"), [32, 32]
    choices = {"auxiliary": ["T2", "FLAIR"], "size": size, "fit": "exact", "slices": "all"}
    return DataConfig(source, "degraded", "T1", paired=True, degrade=NOISE, **choices)  # type: ignore[arg-type]


def volume(heads: DataConfig, name: str, domain: str) -> Float32:
    """(3, 32, 32): slices as the network should see them."""
    image = io.read(Path(heads.source).parent / f"{name}-{domain}.nii.gz")
    return np.stack([MR.scaled(image.data[0, k], (0.0, 4095.0)) for k in range(3)])


def test_each_contrast_of_a_phantom_lands_in_its_channel(tmp_path: Path) -> None:
    config = DataConfig(
        "phantom:head", "degraded", "T1", paired=True, degrade=NOISE, auxiliary=["FLAIR", "T2"], count=5
    )
    config = replace(config, size=[32, 32], fit="exact")
    a, b, *auxiliary = (
        build_cache(config, MR, "train", tmp_path, side=side)
        for side in ("a", "b", AUXILIARY + "FLAIR", AUXILIARY + "T2")
    )
    pairs = Pairs(a, b, True, (MR, MR), auxiliary=auxiliary)
    batch = batch_at(pairs, 0, 5, seed=3)
    assert batch["a"].shape == (5, 3, 32, 32) and batch["b"].shape == (5, 1, 32, 32)
    for row, index in enumerate(batch["index"].tolist()):
        drawn = head(FIRST_SEED["train"] + index, 32, contrasts=["T1", "T2", "FLAIR"]).images
        for found, name in ((batch["b"][row, 0], "T1"), (batch["a"][row, 1], "FLAIR"), (batch["a"][row, 2], "T2")):
            np.testing.assert_allclose(found.numpy(), MR.encode(drawn[name])[0], atol=1 / SCALE)
        assert 0.03 < float((batch["a"][row, 0] - batch["b"][row, 0]).std()) < 0.5  # a alone is degraded
    assert torch.equal(batch["a"], torch.from_numpy(pairs.read_a(batch["index"].numpy())))


def test_all_channels_are_changed_alike(tmp_path: Path, heads: DataConfig) -> None:
    t2 = build_cache(heads, MR, "train", tmp_path, side=AUXILIARY + "T2")
    pairs = Pairs(t2, t2, True, (MR, MR), auxiliary=[t2, t2])
    changes = Changes(crop=16, flip=True, jitter=3, turn=20, bend=2, gamma=0.3)
    batch = batch_at(pairs, 1, 16, seed=5, changes=changes)
    assert torch.equal(batch["a"], batch["b"].expand(-1, 3, -1, -1))
    assert len({tuple(image.flatten().tolist()) for image in batch["b"]}) > 9  # nine slices, changed in many ways


def test_a_patient_without_a_contrast_is_kept_with_an_empty_channel(heads: DataConfig, tmp_path: Path) -> None:
    b, t2, flair = (
        build_cache(heads, MR, "train", tmp_path, side=side) for side in ("b", AUXILIARY + "T2", AUXILIARY + "FLAIR")
    )
    assert len(b) == len(t2) == len(flair) == 9
    names = [id_.split("-")[0] for id_ in b.ids]
    assert names == ["cleo"] * 3 + ["ben"] * 3 + ["anna"] * 3
    whole = flair.read(range(9))[:, 0]
    for k, name in ((0, "cleo"), (6, "anna")):
        np.testing.assert_allclose(whole[k : k + 3], volume(heads, name, "FLAIR"), atol=2 / SCALE)
    assert (whole[3:6] == ABSENT).all()
    signed = Codec("window", -1000.0, 3095.0)  # a value of 0 is far from -1 in it
    assert (build_cache(heads, signed, "train", tmp_path, side=AUXILIARY + "FLAIR").read([3, 4, 5]) == ABSENT).all()
    assert flair.meta.notes == ("1 of 3 images of 'T1' have no 'FLAIR' beside them: kept, without it",)
    assert not any("have no" in note for note in t2.meta.notes)
    assert flair.modality == "MR"


def test_a_contrast_in_other_voxels_lies_on_the_grid_of_b(heads: DataConfig, tmp_path: Path) -> None:
    t2 = build_cache(heads, MR, "train", tmp_path, side=AUXILIARY + "T2").read(range(9))[:, 0]
    for k, seed in ((0, 2), (3, 1), (6, 0)):
        wanted = [MR.encode(head(s, 32, 3, contrasts=["T2"]).images["T2"])[0] for s in (seed, 3)]
        own, other = (float(np.corrcoef(t2[k : k + 3].ravel(), values.ravel())[0, 1]) for values in wanted)
        assert own > 0.97 > 0.95 > other


def test_the_codec_is_decided_by_those_that_are_there(heads: DataConfig) -> None:
    found = resolve_codec(heads, CodecConfig("percentile", 0, 100), AUXILIARY + "FLAIR")
    tops = [float(io.read(Path(heads.source).parent / f"{name}-FLAIR.nii.gz").data.max()) for name in ("anna", "cleo")]
    assert found.default_limits and found.default_limits[1] == pytest.approx(np.mean(tops))


def test_a_split_may_lack_a_contrast_and_training_may_not(heads: DataConfig, tmp_path: Path) -> None:
    config = replace(heads, auxiliary=["PD"])
    assert open_source(config, "train", AUXILIARY + "PD").absent == frozenset()
    assert (build_cache(config, MR, "val", tmp_path, side=AUXILIARY + "PD").read([0, 1, 2]) == ABSENT).all()
    manifest = Manifest.load(heads.source)
    lone = [row for row in manifest.rows if row.domain != "FLAIR" or row.split == "test"]
    Manifest(lone, manifest.root).save(manifest.root / "lone.csv")
    with pytest.raises(UsageError, match=r"no image of 'T1' in split train of .* has one of 'FLAIR' beside it: give"):
        open_source(replace(heads, source=str(manifest.root / "lone.csv")), "train", AUXILIARY + "FLAIR")
    with pytest.raises(UsageError, match=r"has no image of 'FLAIRE'; did you mean FLAIR\?"):
        open_source(heads, "train", AUXILIARY + "FLAIRE")


def test_percentiles_are_those_of_the_very_degradation(heads: DataConfig, tmp_path: Path) -> None:
    codec = Codec("percentile", 0.0, 100.0, default_limits=(0.0, 1.0))
    louder = replace(heads, degrade=[{"name": "rician", "sigma": 0.4}])
    one, other = (build_cache(config, codec, "val", tmp_path, side="b").read([1]) for config in (heads, louder))
    assert float((other - one).min()) < -0.05  # brighter noise, darker truth
