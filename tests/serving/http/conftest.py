"""Two servers for all tests of HTTP: one as the command line starts it, and one with small limits, of slow models."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from fabrica.codec import Codec
from fabrica.recipe.codecs import codec_config
from tests.handmade import handmade
from tests.serving.http.started import Server, by_cli, by_hand, started

TOKEN = "only-for-these-tests"


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of what the servers have on disk: scratch folders, and models."""
    place: Path = tmp_path_factory.mktemp("serving")
    for name in ("scratch", "small", "slow", "stuck", "dies", "organs", "noise", "contrasts", "large"):
        (place / name).mkdir()
    return place


@pytest.fixture(scope="session")
def server(folder: Path) -> Iterator[Server]:
    """`fabrica serve` of exported models: "hand" of CT, "mr", and "pictures" of grey values from 0 to 255."""
    pytest.importorskip("onnxruntime", reason="needs onnxruntime")
    grey = codec_config(Codec("window", 0.0, 255.0, "arbitrary"))
    pictures = handmade(folder / "pictures", modality="", codec=grey, codec_b=grey)
    models = handmade(folder / "hand"), f"mr={handmade(folder / 'of-mr', modality='MR')}", pictures
    with started(by_cli(*models, "--scratch", folder / "scratch")) as found:
        yield found


@pytest.fixture(scope="session")
def small(folder: Path) -> Iterator[Server]:
    """A server of small limits that asks for a token, with models that are slow, stick or die, and one of noise."""
    models = [folder / name for name in ("slow", "stuck", "dies", "organs", "noise", "contrasts")]
    limits = {"largest": 300_000, "tensors": 100_000, "seconds": 8.0, "patience": 0.5}
    with started(by_hand(folder / "small", *models, token=TOKEN, places=5, **limits), TOKEN) as found:
        yield found
