"""Which conditions a recipe's networks take."""

from __future__ import annotations

from fabrica.nets.conditions import Category, Condition, Features, Mask, Number, Text
from fabrica.recipe.schema import CATEGORIES, Recipe

AGES = (0.0, 100.0)  # years; who is older counts as 100


def declared(recipe: Recipe) -> dict[str, Condition]:
    """What a network is told by this recipe, in the order of data.condition, a mask behind the rest; {} where that is a
    label or nothing."""
    found: dict[str, Condition] = {}
    if set(recipe.data.condition) <= {"label"}:
        return found
    for name in recipe.data.condition:
        if name == "label":
            found[name] = Category(len(recipe.data.classes))
        elif name == "text":
            said = recipe.text
            frozen = "text" in recipe.uses
            own = Text(said.tokens, said.context, said.layers, said.heads)
            found[name] = Features(said.width, said.context) if frozen else own
        elif name == "age":
            found[name] = Number(*AGES)
        elif name in CATEGORIES:
            found[name] = Category(len(recipe.data.categories[name]))
    if "mask" in recipe.data.condition:
        found["mask"] = Mask(max(2, recipe.codec_mask.classes), tuple(recipe.data.size))
    return found


def described(recipe: Recipe) -> str:
    """What a model of this recipe is told of an image, in words; "" for nothing."""
    data = recipe.data
    masks = [f"{recipe.codec_mask.classes} classes"] if recipe.codec_mask.classes else []
    values = {"label": data.classes, "mask": masks, **data.categories}
    return ", ".join(f"{name} ({', '.join(values[name])})" if values.get(name) else name for name in data.condition)
