"""What all tests share: few threads, a cache of their own, and a translator that changes nothing."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:  # what distributes the tests imports this file too, and needs nothing that takes seconds to import
    from fabrica.codec import Codec
    from fabrica.model.model import Model
    from fabrica.recipe.found import Fingerprint


@pytest.fixture(autouse=True, scope="session")
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """OMP_NUM_THREADS threads each, also of the processes that tests start; more than there are cores wait for one
    another. Numbers that depend on how sums are shared are compared within one process or between equal ones."""
    import torch

    os.environ["FABRICA_CACHE"] = str(tmp_path_factory.mktemp("cache"))
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", 1))
    share = max(1, min(2, len(os.sched_getaffinity(0)) // workers))
    torch.set_num_threads(int(os.environ.setdefault("OMP_NUM_THREADS", str(share))))


@pytest.fixture
def unchanged() -> Callable[..., Model]:
    """(codec, codec_b, seen, **data) -> a model like any other but for its network, which gives back what it gets."""
    return unchanged_model


def unchanged_model(
    codec: Codec | None = None, codec_b: Codec | None = None, seen: Fingerprint | None = None, **data: Any
) -> Model:
    from dataclasses import replace
    from pathlib import Path

    import torch
    from torch import nn

    from fabrica.codec import Codec
    from fabrica.methods import build
    from fabrica.model.translation import TranslationModel
    from fabrica.recipe.codecs import codec_config
    from fabrica.recipe.found import Fingerprint, Found
    from fabrica.recipe.schema import DataConfig, Recipe, TrainConfig

    class Middle(nn.Module):
        """Of neighbouring slices, the one in the middle."""

        def __init__(self, channel: int) -> None:
            super().__init__()
            self.channel = channel

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x[:, self.channel : self.channel + 1]

    hu = Codec("window", -1024.0, 3071.0, "HU")
    values: dict[str, Any] = {"a": "MR", "b": "CT", "paired": True, "size": [32, 32], "fit": "exact", **data}
    recipe = Recipe(
        name="unchanged",
        method={"name": "pix2pix", "network": "residual", "width": 4, "levels": 2, "adversarial": 0},
        data=DataConfig(**values),
        train=TrainConfig(precision="fp32"),
    )
    method = build(recipe)
    method.generator = Middle(recipe.data.context)
    found = replace(
        Found.asked(recipe),
        codec=codec_config(codec or hu),
        codec_b=codec_config(codec_b or hu),
        fingerprint_a=seen or Fingerprint(),
        fingerprint_b=Fingerprint("CT"),
    )
    return TranslationModel(Path("unchanged"), recipe, found, method, torch.device("cpu"), "0" * 12)
