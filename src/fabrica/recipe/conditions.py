"""What an image to be made may be told of, and as what values networks take it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fabrica.recipe.found import Found
from fabrica.recipe.schema import CATEGORIES, Recipe
from fabrica.text.tokenizer import PAD

AGES = (0.0, 100.0)  # years; who is older counts as 100


@dataclass(frozen=True)
class Text:
    """A report as the tokens of `fabrica.text.tokenizer`: (B, L) int64, L at most `context`; unknown where it is empty.

    tokens is the size of the vocabulary; the encoder has `layers` and `heads`."""

    tokens: int
    context: int = 128
    layers: int = 3
    heads: int = 3


@dataclass(frozen=True)
class Features:
    """A report as what a frozen encoder makes of its tokens: (B, L, width) float32, L at most `context`, the first of
    them for the whole; NaN behind the end of a text, and all of it where nothing is known."""

    width: int
    context: int


@dataclass(frozen=True)
class Category:
    """One of so many classes, such as sex or view: (B,) int64, 0 to classes - 1; not known where it is below 0."""

    classes: int


@dataclass(frozen=True)
class Number:
    """A quantity, such as age in years: (B,) float32, clipped to [low, high]; not known where it is NaN."""

    low: float
    high: float


@dataclass(frozen=True)
class Mask:
    """A label map of the image, one-hot: (B, classes, *size) float32; not known where it is 0 in all classes. It tells
    every place its own, and takes another way than the rest: see `fabrica.conditioning.masks.laid_out`."""

    classes: int
    size: tuple[int, ...]


Said = Text | Features | Category | Number
Condition = Said | Mask


def declared(recipe: Recipe, found: Found) -> dict[str, Condition]:
    """What a network is told by this recipe, in the order of data.condition, a mask behind the rest; {} where that is a
    label or nothing."""
    told: dict[str, Condition] = {}
    if set(recipe.data.condition) <= {"label"}:
        return told
    for name in recipe.data.condition:
        if name == "label":
            told[name] = Category(len(found.classes))
        elif name == "text":
            said = found.text
            frozen = "text" in found.uses
            own = Text(said.tokens, said.context, said.layers, said.heads)
            told[name] = Features(said.width, said.context) if frozen else own
        elif name == "age":
            told[name] = Number(*AGES)
        elif name in CATEGORIES:
            told[name] = Category(len(found.categories[name]))
    if "mask" in recipe.data.condition:
        told["mask"] = Mask(max(2, found.codec_mask.classes), tuple(recipe.data.size))
    return told


def unknown(declared: Mapping[str, Condition], size: int) -> dict[str, npt.NDArray[Any]]:
    """The values of `size` images of which nothing is known: what guidance compares with, and what stands in for the
    conditions that nobody has given."""
    values: dict[str, npt.NDArray[Any]] = {}
    for name, what in declared.items():
        if isinstance(what, Text):
            values[name] = np.full((size, 1), PAD, dtype=np.int64)
        elif isinstance(what, Features):
            values[name] = np.full((size, 1, what.width), math.nan, dtype=np.float32)
        elif isinstance(what, Category):
            values[name] = np.full(size, -1, dtype=np.int64)
        elif isinstance(what, Number):
            values[name] = np.full(size, math.nan, dtype=np.float32)
        else:
            values[name] = np.zeros((size, what.classes, *what.size), dtype=np.float32)
    return values


def whole(what: Condition, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Texts as long as the context, by padding; the rest as it is."""
    if not isinstance(what, Text):
        return values
    return np.pad(values, ((0, 0), (0, what.context - values.shape[1])), constant_values=PAD)
