"""Mixed precision reaches every network that learns: one that is not called as a module stays in float32, unnoticed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook

from fabrica.recipe.load import load_recipe
from fabrica.training.loop import train

SHORT = ["train.minutes=0", "train.steps=1", "train.precision=bf16", "data.batch=2"]
CHESTS = ["data.source=phantom:chest", "data.count=24", "data.size=32", *SHORT]
HEADS = ["data.source=phantom:head", "data.count=12", *SHORT]


@pytest.fixture
def learning() -> Iterator[list[tuple[nn.Module, torch.dtype]]]:
    """The convolutions that were called where gradients are kept, each with what it gave."""
    seen: list[tuple[nn.Module, torch.dtype]] = []

    def look(module: nn.Module, given: tuple[Tensor, ...], found: Tensor) -> None:
        if isinstance(module, nn.Conv2d) and module.training and torch.is_grad_enabled():
            seen.append((module, found.dtype))

    handle = register_module_forward_hook(look)
    yield seen
    handle.remove()


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("modern-xray", CHESTS),
        ("ddpm-xray", CHESTS),
        ("autoencoder-chest", [*CHESTS, "method.pretrain=0"]),
        ("autoencoder-xray-256", CHESTS),
        ("cyclegan-head", HEADS),
        ("cut-head", HEADS),
        ("strong-head", HEADS),
    ],
)
def test_what_learns_computes_in_the_precision_that_was_asked_for(
    name: str, changes: list[str], tmp_path: Path, learning: list[tuple[nn.Module, torch.dtype]]
) -> None:
    train(load_recipe(name, changes), tmp_path / "model")
    assert learning
    assert {str(module): kind for module, kind in learning if kind != torch.bfloat16} == {}
