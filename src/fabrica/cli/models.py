"""`fabrica models`: those that ship."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from fabrica.cli.options import Json, print_json


def models(
    name: Annotated[str | None, typer.Argument(help="One of them: its card. [default: list all]")] = None,
    as_json: Json = False,
) -> None:
    """The models that ship, ready to use by name, or the card of one."""
    from fabrica.recipe.folder import CARD
    from fabrica.runtime import ready

    if name is not None and not as_json:
        print(ready.shipped(name).joinpath(CARD).read_text("utf-8").rstrip())
        return
    rows = [_row(each) for each in (ready.sums() if name is None else [name])]
    if as_json:
        print_json(rows)
        return
    for row in rows:
        print(f"{row['name']:<22}{row['task']:<12}{row['about']}")
        print(f"{'':<22}{row['size']}, {row['megabytes']:.1f} MB; {row['licence']}; {row['trained_on']}")
    print("use one by its name: fabrica models NAME shows its card" if rows else "no model ships with this package")


def _row(name: str) -> dict[str, Any]:
    from fabrica.recipe.found import found_in
    from fabrica.runtime import ready

    folder = ready.shipped(name)
    recipe, found = found_in(folder)
    size = found.plan.size or found.size or recipe.data.size
    return {
        "name": name,
        "task": recipe.task,
        "about": recipe.about,
        "size": " x ".join(map(str, size)),
        "megabytes": round(ready.megabytes(folder), 2),
        "licence": recipe.licence,
        "trained_on": recipe.credit,
    }
