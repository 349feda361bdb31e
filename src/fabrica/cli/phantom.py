"""`fabrica phantom`: phantoms as a data set on the disk."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fabrica.cli.bars import named_bars
from fabrica.cli.options import Out, Seed


def phantom(
    kind: Annotated[str, typer.Argument(help="chest (radiographs) or head (T1, T2, FLAIR, PD, CT, PET).")],
    n: Annotated[int, typer.Option("-n", help="Number of patients.")] = 500,
    out: Out = Path("phantoms"),
    size: Annotated[int, typer.Option(help="Height and width of the images in pixels.")] = 128,
    slices: Annotated[
        int | None, typer.Option(help="head: number of slices of each volume. [default: single slices]")
    ] = None,
    masks: Annotated[
        str, typer.Option(help="What masks show: anatomy (organs, tissues), or lesions (findings, tumours).")
    ] = "anatomy",
    seed: Seed = 0,
) -> None:
    """Draw physics-based phantoms with masks, labels and report text."""
    from fabrica.data.embedded import write_phantoms

    with named_bars() as progress:
        write_phantoms(
            kind,
            n,
            out,
            size=size,
            seed=seed,
            slices=slices,
            masks=masks,
            progress=lambda d, t: progress("drawing", d, t),
        )
    print(f"{out / 'manifest.csv'}: {n} {kind} phantoms")
