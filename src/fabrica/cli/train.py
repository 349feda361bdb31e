"""`fabrica train`: a recipe becomes a model folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fabrica.cli.bars import named_bars, training_bar
from fabrica.cli.importing import importing
from fabrica.cli.options import say
from fabrica.errors import UsageError


def train(
    recipe: Annotated[str | None, typer.Argument(help="Name from `fabrica recipes`, or a YAML file.")] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[KEY=VALUE]...", help="Values of the recipe to replace, e.g. train.minutes=60 data.size=96."
        ),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(
            help="Training images: a manifest (.csv), a folder, or phantoms (phantom:chest, phantom:head:T1 ...). "
            "[default: the recipe's]"
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("-o", "--out", help="Folder for the model. [default: runs/NAME of the recipe]")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue the run in the model folder from its last checkpoint.")
    ] = False,
) -> None:
    """Train a recipe into a model folder."""
    words = [word for word in (recipe, *(overrides or [])) if word]
    names = [word for word in words if "=" not in word]
    changes = [word for word in words if "=" in word]
    if data is not None:
        changes.append(f"data.source={data}")
    if len(names) != (0 if resume else 1):
        expected = "continue a run with: fabrica train --resume -o RUN" if resume else "see `fabrica recipes`"
        raise UsageError(f"found {len(names)} recipe names ({', '.join(names)}); {expected}")
    if resume and (out is None or not (out / "recipe.yaml").is_file()):
        raise UsageError(f"no run to resume in {out or 'no folder'}; give its folder: fabrica train --resume -o RUN")
    from fabrica.recipe.load import load_recipe

    chosen = load_recipe(out / "recipe.yaml" if resume and out else names[0], changes)
    folder = out or Path("runs") / chosen.name
    with importing():
        from fabrica.methods import named
        from fabrica.training.loop import train as train_recipe

        named(chosen.method)  # what its networks take is imported with it

    with named_bars() as progress, training_bar() as (report, warn):
        train_recipe(chosen, folder, resume=resume, report=report, progress=progress, warn=warn, say=say)
    from fabrica.model.tasks import TASKS
    from fabrica.recipe.found import found_in
    from fabrica.recipe.held_out import worth

    _, found = found_in(folder)
    for said in filter(None, (worth(known) for known in (found.held_out_b, found.held_out_a))):
        print(said)
    following = TASKS[named(found.method).task].next.format(folder=folder)
    print(f"{folder}: trained; see {folder / 'samples.png'}, next: fabrica {following}")
