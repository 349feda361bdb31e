"""`fabrica optimise`: the fastest way to run a model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fabrica.cli.bars import named_bars
from fabrica.cli.importing import importing
from fabrica.cli.options import note
from fabrica.errors import FabricaError


def optimise(
    model: Annotated[Path, typer.Argument(help="Folder of a trained model that translates, restores or segments.")],
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder for the fastest one, ready for fabrica apply.")],
    target: Annotated[str, typer.Option(help="What it is to run on: cpu or gpu.")] = "cpu",
    budget: Annotated[
        str, typer.Option(help="The most that an image may take, from file to file, or its files: 200ms, 0.2s or 20MB.")
    ] = "",
    student: Annotated[
        list[Path] | None, typer.Option(metavar="FOLDER", help="A student of the model, tried too; may be repeated.")
    ] = None,
    on: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Image or series to time. [default: a held-out one]")
    ] = None,
    calibrate: Annotated[
        str, typer.Option(help="Folder or manifest of images to judge on, for those of training.")
    ] = "",
) -> None:
    """Try precisions, runtimes, threads and students, and keep the fastest that loses no quality."""
    from fabrica.export.budget import parsed

    asked = parsed(budget) if budget else None
    if on and not on.exists():
        raise FabricaError(f"nothing at {on} to time; expected an image or a DICOM series")
    with importing():
        from fabrica.export.optimise import optimise as fastest
        from fabrica.export.work import Work
        from fabrica.model.loading import load

        device = "cpu" if target == "cpu" else None
        loaded = load(model, device=device, warn=note)
        students = {str(each): load(each, device=device, warn=note) for each in student or ()}
    with named_bars() as progress:
        work = Work(loaded, calibrate, progress=progress)
        result = fastest(work, out, target=target, budget=asked, students=students, image=on)
    for line in result.table():
        print(line)
    for name, why in result.left_out.items():
        note(f"not tried: {name}: {why}")
    best = result.best
    print(f"{out}: {best}: {best.file:.3g} ms from file to file, {best.network:.3g} of them the network's")
    if not best.within:
        raise FabricaError(result.beyond)
