"""What a sampler is told of the image to make: the context of its cross-attention (Rombach et al. 2022, section 3.3).

Every condition has a learned null of its own, for what is not known and for guidance without a classifier (Ho &
Salimans 2022), so that one network answers to all of them, to some, and to none.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from fabrica.errors import UsageError, did_you_mean
from fabrica.nets.text import TextEncoder
from fabrica.recipe import conditions
from fabrica.recipe.conditions import Category, Condition, Features, Number, Said, Text
from fabrica.text.tokenizer import END, PAD

OCTAVES = 4  # of the waves that a number is written in; the shortest is an eighth of its range


class ConditionEmbedding(nn.Module):
    """Values by name -> (B, T, width), the context of MONAI's DiffusionModelUNet with cross_attention_dim = width.

    A text takes `context` of the T places, anything else one. MONAI's cross-attention knows no mask, so that places
    behind the end of a text hold one learned vector that says so. There are as many places whatever the text, and the
    context of a prompt depends on nothing but the prompt. A condition that is not known has its null in all its places.

    Raises UsageError for values under other names, of other shapes, and, where they can be looked at without waiting
    for an accelerator, out of range.
    """

    def __init__(self, declared: Mapping[str, Said], width: int = 192) -> None:
        super().__init__()
        if not declared:
            raise UsageError("no condition is declared; leave the conditions out, or name one, e.g. text")
        self.declared, self.width = dict(declared), width
        self.readers = nn.ModuleDict({name: _reader(name, what, width) for name, what in declared.items()})
        self.nulls = nn.ParameterDict({name: nn.Parameter(torch.randn(width)) for name in declared})
        self.pads = nn.ParameterDict(
            {name: nn.Parameter(torch.randn(width)) for name, what in declared.items() if _places(what)}
        )

    def forward(self, values: Mapping[str, Tensor], hidden: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The context; and its gist (B, conditions x width), the first place of each condition, at which a text says
        what it comes to as a whole (as BERT's first token does, Devlin et al. 2019).

        hidden (B, conditions) bool, in the order they are declared: what to leave out though it is known, see
        `dropped`."""
        if not torch.compiler.is_exporting():  # of a graph, values are none yet
            self._check(values)
        parts = []
        for k, (name, what) in enumerate(self.declared.items()):
            given = values[name]
            absent = _absent(what, given)
            if hidden is not None:
                absent = absent | hidden[:, k].to(absent.device)
            if isinstance(what, Text | Features):
                part = self._read(name, what, given)
            elif isinstance(what, Category):
                part = self.readers[name](given.clamp(min=0))[:, None]
            else:
                part = self.readers[name](_waves(given, what))[:, None]
            parts.append(torch.where(absent[:, None, None], self.nulls[name], part.float()))
        return torch.cat(parts, dim=1), torch.cat([part[:, 0] for part in parts], dim=1)

    def _read(self, name: str, what: Text | Features, given: Tensor) -> Tensor:
        """(B, context, width) whatever the length of `given`."""
        if isinstance(what, Text):
            mask = given > PAD
            meaning = self.readers[name](given.clamp(min=PAD), mask)
        else:
            mask = ~given[..., 0].isnan()
            meaning = self.readers[name](given.nan_to_num(0.0))
        there = torch.where(mask[..., None], meaning.float(), self.pads[name])
        rest = self.pads[name].expand(given.shape[0], what.context - given.shape[1], self.width)
        return torch.cat([there, rest], dim=1)

    def _check(self, values: Mapping[str, Tensor]) -> None:
        for name in values:
            if name not in self.declared:
                raise UsageError(f"no condition {name!r}{did_you_mean(name, self.declared)}")
        sizes = set()
        for name, what in self.declared.items():
            if name not in values:
                raise UsageError(f"condition {name!r} has no values; give -1 or NaN for those that are not known")
            given = values[name]
            places, wide = _places(what), (what.width,) if isinstance(what, Features) else ()
            shape = ("B", *([f"at most {places}"] if places else []), *map(str, wide))
            right = given.ndim == len(shape) and tuple(given.shape[2:]) == wide
            right = right and (not places or 1 <= given.shape[1] <= places)
            real = isinstance(what, Number | Features)
            if not right or given.is_floating_point() != real:
                raise UsageError(
                    f"condition {name!r} has {str(given.dtype).removeprefix('torch.')} values of shape "
                    f"{tuple(given.shape)}; expected {'float32' if real else 'int64'} "
                    f"({', '.join(shape)}{',' * (len(shape) == 1)})"
                )
            most = what.tokens if isinstance(what, Text) else what.classes if isinstance(what, Category) else 0
            if most and given.device.type == "cpu" and given.numel() and int(given.max()) >= most:
                raise UsageError(f"condition {name!r} has the value {int(given.max())}; expected at most {most - 1}")
            sizes.add(len(given))
        if len(sizes) > 1:
            raise UsageError(
                f"conditions are given of {' and '.join(map(str, sorted(sizes)))} images; expected one number"
            )


def unknown(declared: Mapping[str, Condition], size: int, device: torch.device) -> dict[str, Tensor]:
    """The values of `size` images of which nothing is known, see `fabrica.recipe.conditions.unknown`."""
    return {name: torch.from_numpy(each).to(device) for name, each in conditions.unknown(declared, size).items()}


def known(declared: Mapping[str, Said], values: Mapping[str, Tensor], hidden: Tensor) -> Tensor:
    """(B,) bool: of which images anything at all is told. hidden (B, conditions) as in `ConditionEmbedding`."""
    absent = torch.stack([_absent(what, values[name]) for name, what in declared.items()], dim=1)
    return ~(absent | hidden.to(absent.device)).all(dim=1)


def dropped(size: int, conditions: int, share: float, rng: torch.Generator) -> Tensor:
    """Which conditions to hide in training, (size, conditions) bool on the CPU: in `share` of the images all of them,
    since that is what guidance compares with and chance would hardly ever hide them all; and, where there are several,
    in `share` of the rest each by itself, so that any of them may be missing afterwards."""
    everything = torch.rand(size, 1, generator=rng) < share
    if conditions == 1:
        return everything
    return everything | (torch.rand(size, conditions, generator=rng) < share)


def _reader(name: str, what: Said, width: int) -> nn.Module:
    if "." in name or not name:
        raise UsageError(f"a condition cannot be called {name!r}; take a word without full stops")
    if isinstance(what, Text):
        return TextEncoder(what.tokens, width, what.layers, what.heads, what.context)
    if isinstance(what, Features):
        return nn.Linear(what.width, width)
    if isinstance(what, Category):
        if what.classes < 2:
            raise UsageError(f"condition {name!r} has {what.classes} classes; expected 2 or more")
        return nn.Embedding(what.classes, width)
    if not what.low < what.high:
        raise UsageError(
            f"condition {name!r} goes from {what.low} to {what.high}; expected a lower and a higher number"
        )
    return nn.Sequential(nn.Linear(1 + 2 * OCTAVES, width), nn.SiLU(), nn.Linear(width, width), nn.LayerNorm(width))


def _places(what: Said) -> int:
    """The most tokens of a text; 0 for what is none."""
    return what.context if isinstance(what, Text | Features) else 0


def _absent(what: Said, given: Tensor) -> Tensor:
    """(B,) bool: where nothing is known."""
    if isinstance(what, Text):
        return (given <= END).all(dim=1)  # no word between its beginning and its end
    if isinstance(what, Features):
        return given[..., 0].isnan().all(dim=1)
    return given < 0 if isinstance(what, Category) else given.isnan()


def _waves(given: Tensor, what: Number) -> Tensor:
    """(B, 1 + 2 OCTAVES): the number from 0 to 1, and sines and cosines of half a turn over its range, one, two ..."""
    share = ((given - what.low) / (what.high - what.low)).nan_to_num(0.5).clamp(0, 1)[:, None].float()
    angles = share * (math.pi * 2.0 ** torch.arange(OCTAVES, device=given.device))
    return torch.cat([share, angles.sin(), angles.cos()], dim=1)
