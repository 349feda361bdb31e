"""The recipes that ship, loaded once for all the lists of them that tests are made from."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fabrica.recipe.schema import Recipe


@cache
def shipped() -> dict[str, Recipe]:
    """Name -> recipe. They belong to all tests: whoever changes one loads it anew."""
    from fabrica.recipe.load import load_recipe, recipe_names

    return {name: load_recipe(name) for name in recipe_names()}
