"""`fabrica evaluate`: a model judged, and a page on it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from fabrica.cli.bars import named_bars
from fabrica.cli.options import Json, Out, Seed, note, print_json
from fabrica.errors import UsageError


def evaluate(
    model: Annotated[Path, typer.Argument(help="A model folder or a bundle, or a folder of synthetic images.")],
    against: Annotated[Path | None, typer.Option(help="Manifest of real images; none: the model's own.")] = None,
    out: Out = Path("report"),
    versus: Annotated[
        Path | None, typer.Option(help="A second model that translates, on the same test images, by paired tests.")
    ] = None,
    n: Annotated[int | None, typer.Option("-n", help="How many images to judge.")] = None,
    extractor: Annotated[str, typer.Option(help="radiomic, or a network: a name or a file.")] = "radiomic",
    curve: Annotated[str | None, typer.Option(help="Sampler steps to compare, as 2,5,10,20; '' for none.")] = None,
    guidances: Annotated[
        str | None, typer.Option(help="Of phantoms from text: guidance to compare, as 1,2,4; '' for none.")
    ] = None,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Score a model against held-out real images, and write one HTML page.

    What it synthesises: distances, diversity, memorisation. What it translates: the error in the body beside baselines,
    distances between sets, uncertainty, pictures.
    """
    from fabrica.evaluation import evaluate as judge
    from fabrica.report.report import scores_table

    try:
        steps_curve = None if curve is None else [int(part) for part in curve.split(",") if part]
        strengths = None if guidances is None else [float(part) for part in guidances.split(",") if part]
    except ValueError as error:
        raise UsageError(
            f"--curve {curve}, --guidances {guidances}; expected whole numbers, e.g. 2,5,10, and numbers, e.g. 1,2.5"
        ) from error
    with named_bars() as progress:
        choices: dict[str, Any] = {"n": n, "extractor": extractor, "seed": seed, "steps_curve": steps_curve}
        choices["guidances"] = strengths
        report = judge(model, against, out, versus=versus, progress=progress, warn=note, **choices)
    if as_json:
        print_json(report.scores)
        return
    print(scores_table(report))
    print(f"report: {report.page}")
