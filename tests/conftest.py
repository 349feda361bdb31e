"""What all tests share: few threads, a cache of their own, and a translator that changes nothing."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from fabrica.codec import Codec
from fabrica.methods import build
from fabrica.model import Model
from fabrica.recipe import DataConfig, Recipe, SeenConfig


@pytest.fixture(autouse=True, scope="session")
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    os.environ["FABRICA_CACHE"] = str(tmp_path_factory.mktemp("cache"))
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", 1))
    threads = max(1, min(2, len(os.sched_getaffinity(0)) // workers))  # more than there are cores wait for one another
    torch.set_num_threads(threads)
    os.environ["OMP_NUM_THREADS"] = str(threads)  # of the processes that tests start


class Middle(nn.Module):
    """Of neighbouring slices, the one in the middle."""

    def __init__(self, channel: int) -> None:
        super().__init__()
        self.channel = channel

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x[:, self.channel : self.channel + 1]


HU = Codec("window", -1024.0, 3071.0, "HU")


def unchanged_model(codec: Codec = HU, codec_b: Codec = HU, seen: SeenConfig | None = None, **data: Any) -> Model:
    values: dict[str, Any] = {"a": "MR", "b": "CT", "paired": True, "size": [32, 32], "fit": "exact", **data}
    recipe = Recipe(
        name="unchanged", method={"name": "pix2pix", "network": "residual", "width": 4, "levels": 2, "adversarial": 0}
    )
    recipe.data = DataConfig(**values)
    recipe.seen_a, recipe.seen_b = seen or SeenConfig(), SeenConfig("CT")
    recipe.train.precision = "fp32"
    method = build(recipe)
    method.generator = Middle(recipe.data.context)  # type: ignore[attr-defined]
    return Model(Path("unchanged"), recipe, codec, codec_b, method, torch.device("cpu"), "0" * 12)


@pytest.fixture
def unchanged() -> Callable[..., Model]:
    """(codec, codec_b, seen, **data) -> a model like any other but for its network, which gives back what it gets."""
    return unchanged_model
