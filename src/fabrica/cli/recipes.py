"""`fabrica recipes`: what ships."""

from __future__ import annotations

from fabrica.cli.options import Json, print_json


def recipes(as_json: Json = False) -> None:
    """The recipes that ship, with cost and score."""
    from fabrica.recipe.load import load_recipe, recipe_names

    rows = []
    for name in recipe_names():
        recipe = load_recipe(name)
        rows.append(
            {
                "name": recipe.name,
                "method": recipe.method["name"],
                "task": recipe.task,
                "about": recipe.about,
                "cost": recipe.cost,
                "score": recipe.score,
            }
        )
    if as_json:
        print_json(rows)
        return
    for row in rows:
        print(f"{row['name']:<24}{row['task']:<12}{row['about']}\n{'':<24}{row['cost']}; {row['score']}")
