"""Heads like those in training are welcome; other sequences, other bodies and other modalities are not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from fabrica import io
from fabrica.codec import Codec
from fabrica.data.cache import build_cache
from fabrica.data.codecs import resolve_codec
from fabrica.data.manifest import Manifest, Row
from fabrica.image import Float32, Image
from fabrica.inference.out_of_distribution import compared, grey_quantiles, look_at, uncertainty_in_body
from fabrica.model.model import Model
from fabrica.phantoms.head.head import head
from fabrica.recipe.found import Fingerprint
from fabrica.recipe.schema import CodecConfig, DataConfig
from fabrica.training.fingerprint import fingerprint

DATA = DataConfig("phantom:head", "T1", "CT", True, count=64, size=[48, 48])
MR = Codec("percentile", 0.5, 99.5, default_limits=(0.0, 1000.0))


@pytest.fixture(scope="module")
def known() -> Fingerprint:
    return fingerprint(*(build_cache(DATA, MR, split, side="a") for split in ("train", "val")), MR)


@cache
def image(contrast: str, seed: int = 11, slices: int | None = None) -> Image:
    drawn = head(seed, 48, slices, contrasts=[contrast]).images[contrast]
    drawn.data.setflags(write=False)
    return drawn


def test_what_training_images_have_in_common_is_written_down(known: Fingerprint) -> None:
    assert known.modality == "MR" and 200 < known.extent[0] <= known.extent[1] < 250
    assert sorted(known.quantiles) == known.quantiles and known.distance > 0.5


def test_other_heads_of_the_same_sequence_are_welcome(unchanged: Callable[..., Model], known: Fingerprint) -> None:
    model = unchanged(codec=MR, seen=known, size=[48, 48])
    assert [model.out_of_distribution(image("T1", seed)) for seed in range(20, 40)] == [[]] * 20


def test_other_sequences_modalities_and_fields_of_view_are_not(
    unchanged: Callable[..., Model], known: Fingerprint
) -> None:
    model = unchanged(codec=MR, seen=known, size=[48, 48])
    assert "its modality is CT, and MR in training" in model.out_of_distribution(image("CT"))
    for seed in range(20, 30):
        assert any("grey values" in reason for reason in model.out_of_distribution(image("PD", seed)))
    near = image("T1")
    far = replace(near, affine=near.affine @ [[0.3, 0, 0, 0], [0, 0.3, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
    assert any("its field of view is" in reason for reason in model.out_of_distribution(far))


WINDOW = Codec("window", -1024.0, 3071.0, "HU")
FEW: dict[str, tuple[Codec, tuple[str, ...]]] = {
    "T1": (MR, ("inverted",)),  # percentiles know neither shift nor scale
    "CT": (WINDOW, ("inverted", "shifted", "stored", "attenuation", "eight bits", "0 to 1")),
}
CHANGES: dict[str, Callable[[Float32], Float32]] = {
    "inverted": lambda x: -x,
    "shifted": lambda x: x + 1000,
    "stored": lambda x: x + 1024,
    "attenuation": lambda x: (x + 1000) * np.float32(2e-5),
    "eight bits": lambda x: np.clip((x + 160) / 400 * 255, 0, 255),
    "0 to 1": lambda x: np.clip((x + 1024) / 4095, 0, 1),
}


@pytest.mark.parametrize("contrast", FEW)
@pytest.mark.parametrize("count", [1, 2, 5, 10])
def test_values_are_compared_with_training_of_few_images(
    contrast: str, count: int, unchanged: Callable[..., Model], tmp_path: Path
) -> None:
    codec, changes = FEW[contrast]
    rows = []
    for k in range(count + 1):
        io.write(image(contrast, 100 + k), tmp_path / f"{k}.npz")
        rows.append(Row(f"{k}", f"p{k}", f"{k}.npz", "", "train" if k < count else "val"))
    Manifest(rows, tmp_path).save(tmp_path / "few.csv")
    config = DataConfig(str(tmp_path / "few.csv"), size=[48, 48])
    known = fingerprint(*(build_cache(config, codec, split) for split in ("train", "val")), codec)
    model = unchanged(codec=codec, seen=replace(known, modality=""), size=[48, 48])
    assert compared(model.way("a2b")) == ""
    alike = [model.out_of_distribution(image(contrast, seed)) for seed in range(20, 40)]
    assert sum(map(bool, alike)) <= 1, alike  # a head in twenty may be a rare one
    for name in changes:
        for seed in range(20, 24):
            head_ = image(contrast, seed)
            assert model.out_of_distribution(head_.with_data(CHANGES[name](head_.data))), (name, seed)


def test_a_model_that_knows_no_values_says_so(unchanged: Callable[..., Model]) -> None:
    assert "were not compared with those in training" in compared(unchanged(codec=MR).way("a2b"))


def test_five_volumes_are_few_however_many_slices_they_have(tmp_path: Path) -> None:
    rows = []
    for k in range(6):
        plane = image("T1", 100 + k)
        values = np.repeat(plane.data[:, None], 24, 1) * np.linspace(0.9, 1.1, 24, dtype=np.float32)[:, None, None]
        io.write(Image(values, np.diag([4.0, 4.0, 3.0, 1.0])), tmp_path / f"{k}.nii")
        rows.append(Row(f"{k}", f"p{k}", f"{k}.nii", "", "train" if k < 5 else "val"))
    Manifest(rows, tmp_path).save(tmp_path / "few.csv")
    config = DataConfig(str(tmp_path / "few.csv"), size=[48, 48])
    slices = [build_cache(config, MR, split) for split in ("train", "val")]
    assert len(slices[0]) > 32 and fingerprint(*slices, MR).bounds


def test_padding_around_an_image_is_no_part_of_its_look() -> None:
    values = MR.encode(image("T1"))
    values = np.maximum(values, np.float32(-0.99))
    around = np.pad(values, ((0, 0), (9, 12), (0, 30)), constant_values=-1)
    looks = [look_at(shown, grey_quantiles(shown, MR)) for shown in (around, values)]
    assert looks[0] == pytest.approx(looks[1])


def test_doubt_is_the_mean_inside_the_body() -> None:
    codec = resolve_codec(DATA, CodecConfig(), "b")
    values = codec.encode(image("CT"))
    spread = (values > -0.9) * 0.5  # air is certain
    assert uncertainty_in_body([(values, spread)], codec) == pytest.approx(0.5, abs=0.05)
