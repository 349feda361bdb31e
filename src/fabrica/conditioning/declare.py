"""Which conditions a recipe's networks take."""

from __future__ import annotations

from fabrica.nets.conditions import Category, Condition, Features, Mask, Number, Text
from fabrica.recipe.found import Found
from fabrica.recipe.schema import CATEGORIES, Recipe

AGES = (0.0, 100.0)  # years; who is older counts as 100


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
