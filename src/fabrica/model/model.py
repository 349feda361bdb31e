"""A trained model: what was asked of it, what its training found, and its networks. What one can do with it depends on
its task: see `synthesis`, `translation` and `compression` beside this file."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Self

import torch

from fabrica.conditioning.encoder import UNCONDITIONAL, ConditionEncoder
from fabrica.errors import UsageError
from fabrica.methods import Method
from fabrica.nets.device import PRECISIONS
from fabrica.recipe.found import Found
from fabrica.recipe.record import Recorded
from fabrica.recipe.schema import Recipe


@dataclass(frozen=True)
class Model(Recorded):
    """A trained model, ready to use. `hash` is the start of the SHA-256 of its weights; `encoder` says what it is told
    of an image.

    Of what it has no verbs for, it says in one line what it is for (UsageError)."""

    use: ClassVar[str]  # what it is for, said to who asks something else; {folder} stands for its folder

    folder: Path
    recipe: Recipe
    found: Found
    method: Method
    device: torch.device
    hash: str
    encoder: ConditionEncoder = UNCONDITIONAL

    @property
    def choices(self) -> tuple[str, ...]:
        """Which settings of `sample` mean something to this model."""
        raise self.refusal

    @property
    def paces(self) -> tuple[int, ...]:
        """The numbers of steps that it samples in; (): in any."""
        return ()

    @property
    def sampling(self) -> str:
        """How images are made by default, in words; "" where none are made of noise."""
        return ""

    def known(self, *_: Any, **__: Any) -> Any:
        raise self.refusal

    def mask_seen(self, *_: Any, **__: Any) -> Any:
        raise self.refusal

    def sample(self, *_: Any, **__: Any) -> Any:
        raise self.refusal

    def sample_array(self, *_: Any, **__: Any) -> Any:
        raise self.refusal

    def interpolate(self, *_: Any, **__: Any) -> Any:
        raise self.refusal

    def apply(self, *_: Any, **__: Any) -> Any:
        raise self.refusal

    def way(self, *_: Any, **__: Any) -> Any:
        raise self.refusal

    def encode(self, *_: Any, **__: Any) -> Any:
        raise self._no_latents

    def decode(self, *_: Any, **__: Any) -> Any:
        raise self._no_latents

    def computing_in(self, precision: str) -> Self:
        """The same model, whose networks compute in this precision ("fp32" or "bf16") instead of that of its training;
        UsageError for another."""
        if precision not in PRECISIONS[1:]:
            raise UsageError(f"PyTorch runs models in {' or '.join(PRECISIONS[1:])}; found precision {precision!r}")
        return replace(self, recipe=replace(self.recipe, train=replace(self.recipe.train, precision=precision)))

    @property
    def refusal(self) -> UsageError:
        """What to say to who asks for what this model does not do."""
        return UsageError(f"model {self.name} {self.use.format(folder=self.folder)}")

    @property
    def _no_latents(self) -> UsageError:
        name = f"model {self.name} ({self.method_name})"
        return UsageError(f"{name} has no latents; encode and decode are for method autoencoder")
