"""`fabrica explain`: what moved an image that a model has made."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from fabrica.cli.bars import named_bars
from fabrica.cli.importing import importing
from fabrica.cli.opening import opened
from fabrica.cli.options import LAST_SEED, conditions, note, print_json
from fabrica.errors import UsageError

TOLD, WHERE, HIDING, HOW, OUTPUT = "Of images of noise", "Of an image", "How parts are hidden", "How", "Output"


def explain(
    model: Annotated[Path, typer.Argument(help="Folder of a model, trained or exported.")],
    source: Annotated[
        Path | None,
        typer.Argument(
            metavar="IN",
            help="Of models that translate, restore or segment: an image or a DICOM series. [default: none]",
        ),
    ] = None,
    label: Annotated[
        str | None,
        typer.Option(rich_help_panel=TOLD, help="Class that is drawn. [default: each in turn]"),
    ] = None,
    prompt: Annotated[
        str | None,
        typer.Option(
            rich_help_panel=TOLD,
            metavar="TEXT",
            help="Findings that are drawn. [default: of models of phantoms, each finding in turn]",
        ),
    ] = None,
    age: Annotated[
        float | None, typer.Option(rich_help_panel=TOLD, help="Age in years. [default: left to the model]")
    ] = None,
    sex: Annotated[
        str | None, typer.Option(rich_help_panel=TOLD, help="Sex: F, M or O. [default: left to the model]")
    ] = None,
    view: Annotated[
        str | None, typer.Option(rich_help_panel=TOLD, help="View, e.g. PA or AP. [default: left to the model]")
    ] = None,
    mask: Annotated[
        Path | None,
        typer.Option(
            rich_help_panel=TOLD, metavar="FILE", help="Label map that all images have. [default: left to the model]"
        ),
    ] = None,
    word: Annotated[
        str | None,
        typer.Option(
            rich_help_panel=TOLD, metavar="WORDS", help="What is left out of the prompt. [default: all of it]"
        ),
    ] = None,
    instead: Annotated[
        list[str] | None,
        typer.Option(
            rich_help_panel=TOLD,
            metavar="VALUE",
            help="What is told instead; NAME=VALUE where several things are told. [default: the class of the healthy; "
            "of all else nothing]",
        ),
    ] = None,
    finding: Annotated[
        str | None,
        typer.Option(
            rich_help_panel=TOLD,
            help="Of models of chest phantoms: drawn with it and without, and scored against where it truly lies. "
            "[default: each in turn]",
        ),
    ] = None,
    n: Annotated[int | None, typer.Option("-n", rich_help_panel=TOLD, help="Number of seeds. [default: 16]")] = None,
    seed: Annotated[
        int | None, typer.Option(rich_help_panel=TOLD, min=0, max=LAST_SEED, help="The first seed. [default: 0]")
    ] = None,
    steps: Annotated[
        int | None,
        typer.Option(rich_help_panel=TOLD, help="Steps of the diffusion sampler. [default: as in the model's recipe]"),
    ] = None,
    guidance: Annotated[
        float | None,
        typer.Option(rich_help_panel=TOLD, help="Scale of guidance. [default: as in the model's recipe]"),
    ] = None,
    class_: Annotated[
        str | None,
        typer.Option(
            "--class", rich_help_panel=WHERE, metavar="NAME", help="Of label maps: which one. [default: those it shows]"
        ),
    ] = None,
    at: Annotated[
        str | None,
        typer.Option(
            rich_help_panel=WHERE,
            metavar="X,Y[,Z]",
            help="Voxel around which the result is asked about: column, row, slice from 0. [default: everywhere]",
        ),
    ] = None,
    radius: Annotated[
        int | None,
        typer.Option(rich_help_panel=WHERE, min=0, help="How far around that voxel, in voxels. [default: 2]"),
    ] = None,
    region: Annotated[
        Path | None,
        typer.Option(
            rich_help_panel=WHERE,
            metavar="FILE",
            help="Image, above 0 where the result is asked about. [default: everywhere]",
        ),
    ] = None,
    direction: Annotated[
        str | None, typer.Option(rich_help_panel=WHERE, help="As in `fabrica apply`. [default: a2b]")
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", rich_help_panel=WHERE, help="Also what is unlike the training images.")
    ] = False,
    window: Annotated[
        int | None,
        typer.Option(
            rich_help_panel=HIDING,
            min=1,
            help="Side of what is hidden, in pixels that the network sees. [default: an eighth of the image; of "
            "volumes a quarter]",
        ),
    ] = None,
    stride: Annotated[
        int | None,
        typer.Option(rich_help_panel=HIDING, min=1, help="How far apart. [default: half the window; of volumes all]"),
    ] = None,
    fill: Annotated[
        str | None,
        typer.Option(
            rich_help_panel=HIDING, help="What hides: mean (that around it) or empty (air, black). [default: mean]"
        ),
    ] = None,
    no_gradients: Annotated[
        bool,
        typer.Option(
            "--no-gradients",
            rich_help_panel=HIDING,
            help="Without integrated gradients, which are made where PyTorch runs the model.",
        ),
    ] = False,
    precision: Annotated[
        str,
        typer.Option(
            rich_help_panel=HOW,
            help="What networks compute in: fp32, fp16, bf16. [default: fp32 of an exported model, else as trained]",
        ),
    ] = "",
    out: Annotated[
        Path,
        typer.Option("-o", "--out", rich_help_panel=OUTPUT, help="Folder for the page, maps, arrays and JSON."),
    ] = Path("explanation"),
    as_json: Annotated[
        bool, typer.Option("--json", rich_help_panel=OUTPUT, help="Print explanation.json instead of a summary.")
    ] = False,
) -> None:
    """Show what moved a model's images: maps, a page, scores where the truth is known.

    Of images of noise: the same seeds with and without a label, a finding or a word. Of what is made of an image: which
    parts of it count, by hiding them, and by integrated gradients.
    """
    with importing():
        from fabrica.evaluation.explanation import explain as explain_model
        from fabrica.io import read

    told = conditions(mask, label=label, text=prompt, age=age, sex=sex, view=view)
    of_noise: dict[str, Any] = {"conditions": told or None, "instead": instead or None, "word": word}
    of_noise |= {"finding": finding, "n": n, "seed": seed, "steps": steps, "guidance": guidance}
    of_image: dict[str, Any] = {"class_": class_, "at": _place(at), "radius": radius, "direction": direction}
    of_image |= {"region": read(region) if region else None, "force": force or None, "window": window}
    of_image |= {"stride": stride, "fill": fill, "gradients": False if no_gradients else None}
    with importing():
        loaded = opened(model, precision)
    with named_bars() as progress:
        choices = {name: value for name, value in (of_noise | of_image).items() if value is not None}
        found = explain_model(loaded, source, out, progress=progress, warn=note, **choices)
    if as_json:
        print_json(found.facts)
        return
    print(found.summary)
    print(f"{found.page or out}: {'the page' if found.page else 'maps and explanation.json'}")


def _place(at: str | None) -> tuple[int, ...] | None:
    if at is None:
        return None
    try:
        return tuple(int(word) for word in at.split(","))
    except ValueError as error:
        raise UsageError(f"--at {at}; expected the place of a voxel, e.g. 40,52 or 40,52,7") from error
