"""`fabrica evaluate`: a model judged, and a page on it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from fabrica.cli.bars import named_bars
from fabrica.cli.importing import importing
from fabrica.cli.options import LAST_SEED, note, print_json
from fabrica.errors import UsageError

WHAT, MEASURES, UTILITY, OUTPUT = "What to judge", "What to measure", "What synthetic images are worth", "Output"


def evaluate(
    model: Annotated[
        Path, typer.Argument(help="Folder of a trained model, of a MONAI bundle, or of synthetic images.")
    ],
    against: Annotated[
        Path | None,
        typer.Option(
            rich_help_panel=WHAT,
            help="Real images: a manifest (.csv), a folder, or phantoms (phantom:chest ...). [default: the model's own "
            "data, of patients that it was not trained on]",
        ),
    ] = None,
    versus: Annotated[
        Path | None,
        typer.Option(
            rich_help_panel=WHAT,
            help="Folder of a second model that translates, restores or segments: both are judged on the same test "
            "images, by paired tests. [default: none]",
        ),
    ] = None,
    n: Annotated[
        int | None,
        typer.Option(
            "-n",
            rich_help_panel=WHAT,
            help="Number of images. [default: as many synthetic ones as are held out, 64 to 1000; all to translate; at "
            "most 1000 of an autoencoder]",
        ),
    ] = None,
    extractor: Annotated[
        str,
        typer.Option(
            rich_help_panel=MEASURES,
            help="Features in which distances between sets are measured: radiomic (no download), torchxrayvision, "
            "radimagenet, inception, dinov2, or a network file (.pt2, .pt, .onnx).",
        ),
    ] = "radiomic",
    curve: Annotated[
        str | None,
        typer.Option(
            rich_help_panel=MEASURES,
            help="Diffusion: numbers of sampler steps at which to measure the distance, too; '' for none. [default: "
            "2,5,10,20, or those that the model takes]",
        ),
    ] = None,
    guidances: Annotated[
        str | None,
        typer.Option(
            rich_help_panel=MEASURES,
            help="Models of chest phantoms that read text: scales of guidance at which to measure how far images obey "
            "their prompts; '' for none. [default: 1,1.5,2,3,5]",
        ),
    ] = None,
    seed: Annotated[
        int,
        typer.Option(
            rich_help_panel=MEASURES,
            min=0,
            max=LAST_SEED,
            help="Number that fixes the noise of images and the choice of those that are compared.",
        ),
    ] = 0,
    utility: Annotated[
        bool,
        typer.Option(
            "--utility",
            rich_help_panel=UTILITY,
            help="Models of masks or classes: train small segmenters or classifiers on real, on synthetic and on mixed "
            "images, and examine them on real images of other patients.",
        ),
    ] = False,
    paint: Annotated[
        bool,
        typer.Option(
            "--paint",
            rich_help_panel=UTILITY,
            help="Diffusion told masks: paint lesions of training images into others, rather than draw whole images.",
        ),
    ] = False,
    repeats: Annotated[
        int | None,
        typer.Option(rich_help_panel=UTILITY, help="Networks for each mix, from seeds of their own. [default: 3]"),
    ] = None,
    train_steps: Annotated[
        int | None, typer.Option(rich_help_panel=UTILITY, help="Steps for which each network learns. [default: 600]")
    ] = None,
    out: Annotated[
        Path,
        typer.Option("-o", "--out", rich_help_panel=OUTPUT, help="Folder for report.html and scores.json."),
    ] = Path("report"),
    as_json: Annotated[
        bool, typer.Option("--json", rich_help_panel=OUTPUT, help="Print the scores as JSON instead of a table.")
    ] = False,
) -> None:
    """Score a model against held-out real images, and write one HTML page.

    What it synthesises: distances, diversity, memorisation. What it translates: the error in the body beside baselines,
    distances between sets, uncertainty, pictures.
    """
    try:
        steps_curve = None if curve is None else [int(part) for part in curve.split(",") if part]
        strengths = None if guidances is None else [float(part) for part in guidances.split(",") if part]
    except ValueError as error:
        raise UsageError(
            f"--curve {curve}, --guidances {guidances}; expected whole numbers, e.g. 2,5,10, and numbers, e.g. 1,2.5"
        ) from error
    with importing():
        from fabrica.evaluation import evaluate as judge
        from fabrica.evaluation import scores_table
        from fabrica.evaluation.subject import opened

        subject = opened(model, note)
    with named_bars() as progress:
        choices: dict[str, Any] = {"n": n, "extractor": extractor, "seed": seed, "steps_curve": steps_curve}
        choices["guidances"] = strengths
        choices |= {"utility": utility, "paint": paint, "repeats": repeats, "train_steps": train_steps}
        report = judge(subject, against, out, versus=versus, progress=progress, warn=note, **choices)
    if as_json:
        print_json(report.scores)
        return
    print(scores_table(report))
    print(f"report: {report.page}")
