"""The methods: one file per algorithm. A method is an nn.Module with

Config    a dataclass of its own recipe values (the recipe's `method:` section, less `name`)
ships     the names of the networks that are averaged, saved and used afterwards
players   player -> the names of the networks that its optimiser owns
keep      what tells the best weights, unless the recipe chooses: "loss" (of `validation`), "frd" or "kid"
choices   which of the recipe's `sample:` values mean something to it
turns     (batch, rng) -> iterator of Turn: the control flow of the paper; the loop does the rest
sample    (draw, labels, settings, device) -> images, made of the noise that is drawn

Optional:

validation   (batch, rng) -> per-image losses on held-out images; lower is better. GANs have none
least_batch  the fewest images a step and process; 1 without it
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from importlib import import_module
from typing import Any, ClassVar, NamedTuple, Protocol, cast, runtime_checkable

import torch
from torch import Tensor, nn

from fabrica.errors import unknown
from fabrica.noise import Draw
from fabrica.recipe import Recipe, SampleConfig, typed

METHODS = {
    "diffusion": "fabrica.methods.diffusion:Diffusion",
    "mlp-gan": "fabrica.methods.mlp_gan:MLPGAN",
    "dcgan": "fabrica.methods.dcgan:DCGAN",
    "wgan-gp": "fabrica.methods.wgan_gp:WGANGP",
    "modern-gan": "fabrica.methods.modern_gan:ModernGAN",
}


class Turn(NamedTuple):
    """One player's move: the loss that its optimiser lowers, and what the log should show beside it."""

    player: str
    loss: Tensor
    seen: Mapping[str, float] = {}


class Method(Protocol):
    """What the training loop and the model folder need of a method; shapes are (C, *S)."""

    Config: ClassVar[type]
    config: Any
    ships: ClassVar[tuple[str, ...]]
    players: ClassVar[Mapping[str, tuple[str, ...]]]
    keep: ClassVar[str]
    choices: ClassVar[tuple[str, ...]]

    def turns(self, batch: dict[str, Tensor], rng: torch.Generator) -> Iterator[Turn]: ...
    def sample(self, draw: Draw, labels: Tensor | None, settings: SampleConfig, device: torch.device) -> Tensor: ...


@runtime_checkable
class Validated(Method, Protocol):
    """A method whose loss on held-out images says how good its weights are."""

    def validation(self, batch: dict[str, Tensor], rng: torch.Generator) -> Tensor: ...


def build(recipe: Recipe) -> Method:
    """The recipe's method with fresh weights; fills recipe.method with every value, defaults included.

    Raises UsageError for an unknown method or key, or values that the method cannot take.
    """
    values = dict(recipe.method)
    name = values.pop("name")
    if name not in METHODS:
        raise unknown("method", str(name), METHODS)
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
