"""The methods: one file per algorithm. A method is an nn.Module with

Config    a dataclass of its own recipe values (the recipe's `method:` section, less `name`)
ships     the names of the networks that are averaged, saved and used afterwards
players   player -> the names of the networks that its optimiser owns
turns     (batch, rng) -> iterator of (player, loss): the control flow of the paper; the loop does the rest
validation  (batch, rng) -> per-image losses on held-out images; lower is better
sample    (seeds, labels, settings) -> images, one random generator for each seed
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from importlib import import_module
from typing import Any, ClassVar, Protocol, cast

import torch
from torch import Tensor, nn

from fabrica.errors import UsageError, did_you_mean
from fabrica.recipe import Recipe, SampleConfig, typed

METHODS = {
    "diffusion": "fabrica.methods.diffusion:Diffusion",
}


class Method(Protocol):
    """What the training loop and the model folder need of a method; shapes are (C, *S)."""

    Config: ClassVar[type]
    config: Any
    ships: ClassVar[tuple[str, ...]]
    players: ClassVar[Mapping[str, tuple[str, ...]]]

    def turns(self, batch: dict[str, Tensor], rng: torch.Generator) -> Iterator[tuple[str, Tensor]]: ...
    def validation(self, batch: dict[str, Tensor], rng: torch.Generator) -> Tensor: ...
    def sample(
        self, seeds: Sequence[int], labels: Tensor | None, settings: SampleConfig, device: torch.device
    ) -> Tensor: ...


def build(recipe: Recipe) -> Method:
    """The recipe's method with fresh weights; fills recipe.method with every value, defaults included.

    Raises UsageError for an unknown method or key, or values that the method cannot take.
    """
    values = dict(recipe.method)
    name = values.pop("name")
    if name not in METHODS:
        raise UsageError(f"no method {name!r}{did_you_mean(str(name), list(METHODS))}")
    module, _, cls_name = METHODS[name].partition(":")
    cls = getattr(import_module(module), cls_name)
    config = typed(cls.Config, values, "method.")
    classes = len(recipe.data.classes) if recipe.data.condition == "label" else 0
    method = cls(config, (recipe.data.channels, *recipe.data.size), classes)
    recipe.method = {"name": name, **asdict(config)}
    return cast(Method, method)


def networks(method: Method, names: Sequence[str]) -> list[nn.Module]:
    """The method's networks with these names."""
    return [cast(nn.Module, getattr(method, name)) for name in names]
