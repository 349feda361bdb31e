"""Heads like those in training are welcome; other sequences, other bodies and other modalities are not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from fabrica.codec import Codec
from fabrica.data.cache import build_cache, resolve_codec
from fabrica.image import Image
from fabrica.likeness import doubt, seen
from fabrica.model import Model
from fabrica.phantoms.head import head
from fabrica.recipe import CodecConfig, DataConfig, SeenConfig

DATA = DataConfig("phantom:head", "T1", "CT", True, count=64, size=[48, 48])
MR = Codec("percentile", 0.5, 99.5, default_limits=(0.0, 1000.0))


@pytest.fixture(scope="module")
def known() -> SeenConfig:
    return seen(*(build_cache(DATA, MR, split, side="a") for split in ("train", "val")), MR)


def image(contrast: str, seed: int = 11, slices: int | None = None) -> Image:
    return head(seed, 48, slices, contrasts=[contrast]).images[contrast]


def test_what_training_images_have_in_common_is_written_down(known: SeenConfig) -> None:
    assert known.modality == "MR" and 200 < known.extent[0] <= known.extent[1] < 250
    assert sorted(known.quantiles) == known.quantiles and known.distance > 0.5


def test_other_heads_of_the_same_sequence_are_welcome(unchanged: Callable[..., Model], known: SeenConfig) -> None:
    model = unchanged(codec=MR, seen=known, size=[48, 48])
    assert [model.unlike(image("T1", seed)) for seed in range(20, 40)] == [[]] * 20


def test_other_sequences_modalities_and_fields_of_view_are_not(
    unchanged: Callable[..., Model], known: SeenConfig
) -> None:
    model = unchanged(codec=MR, seen=known, size=[48, 48])
    assert "its modality is CT, and MR in training" in model.unlike(image("CT"))
    for seed in range(20, 30):
        assert any("grey values" in reason for reason in model.unlike(image("PD", seed)))
    near = image("T1")
    far = replace(near, affine=near.affine @ [[0.3, 0, 0, 0], [0, 0.3, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
    assert any("its field of view is" in reason for reason in model.unlike(far))


def test_of_few_images_only_modality_and_size_are_known() -> None:
    few = [build_cache(replace(DATA, count=8), MR, split, side="a") for split in ("train", "val")]
    assert seen(*few, MR).quantiles == [] and seen(*few, MR).modality == "MR"


def test_doubt_is_the_mean_inside_the_body() -> None:
    codec = resolve_codec(DATA, CodecConfig(), "b")
    values = codec.encode(image("CT"))
    spread = (values > -0.9) * 0.5  # air is certain
    assert doubt([(values, spread)], codec) == pytest.approx(0.5, abs=0.05)
