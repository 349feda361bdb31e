"""`fabrica sample`: synthetic images."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from fabrica.cli.bars import named_bars
from fabrica.cli.importing import importing
from fabrica.cli.opening import opened
from fabrica.cli.options import KINDS, LAST_SEED, conditions, note
from fabrica.errors import UsageError

WHAT, SOURCE, HOW, TWO_SEEDS, OUTPUT = "What to draw", "From an image", "How", "Two seeds", "Output"
RECIPE_SAYS = "[default: as in the model's recipe]"


def sample(
    model: Annotated[
        Path,
        typer.Argument(help="Folder of a model that makes images of noise, trained, exported, or a MONAI bundle."),
    ],
    label: Annotated[
        str | None,
        typer.Option(
            rich_help_panel=WHAT,
            help="Class of the images, one of those in the training data. [default: each in turn; left to the model if "
            "it is told more than a class]",
        ),
    ] = None,
    prompt: Annotated[
        str | None,
        typer.Option(
            rich_help_panel=WHAT,
            metavar="TEXT",
            help="Findings, worded as in the training reports: a sentence or more. [default: left to the model]",
        ),
    ] = None,
    age: Annotated[
        float | None,
        typer.Option(rich_help_panel=WHAT, help="Age of the patient in years. [default: left to the model]"),
    ] = None,
    sex: Annotated[
        str | None,
        typer.Option(rich_help_panel=WHAT, help="Sex of the patient: F, M or O. [default: left to the model]"),
    ] = None,
    view: Annotated[
        str | None,
        typer.Option(
            rich_help_panel=WHAT,
            help="View of the radiograph as in the training data, e.g. PA or AP. [default: left to the model]",
        ),
    ] = None,
    mask: Annotated[
        Path | None,
        typer.Option(
            rich_help_panel=WHAT,
            metavar="FILE",
            help="Label map: an image whose values are the numbers of structures, as in the training masks; brought to "
            "the model's size. [default: left to the model]",
        ),
    ] = None,
    start: Annotated[
        Path | None,
        typer.Option(
            "--from",
            rich_help_panel=SOURCE,
            metavar="IMAGE",
            help="Image file to start from instead of noise; diffusion only. [default: none]",
        ),
    ] = None,
    strength: Annotated[
        float | None,
        typer.Option(
            rich_help_panel=SOURCE,
            help="How much of IMAGE is drawn anew: from above 0 (hardly changed) to 1 (nothing is left of it). "
            "[default: 0.6; 1 with --redraw]",
        ),
    ] = None,
    redraw: Annotated[
        Path | None,
        typer.Option(
            rich_help_panel=SOURCE,
            metavar="MASK",
            help="Image on the grid of IMAGE: drawn anew where it is above 0, kept elsewhere. [default: everywhere]",
        ),
    ] = None,
    steps: Annotated[
        int | None,
        typer.Option(
            rich_help_panel=HOW,
            help=f"Steps of the diffusion sampler; time grows in proportion. {RECIPE_SAYS}",
        ),
    ] = None,
    sampler: Annotated[
        str | None,
        typer.Option(
            rich_help_panel=HOW, help=f"Diffusion sampler: ddpm, ddim, heun, dpmpp-2m or unipc. {RECIPE_SAYS}"
        ),
    ] = None,
    guidance: Annotated[
        float | None,
        typer.Option(
            rich_help_panel=HOW,
            help="Scale of classifier-free guidance (diffusion): 1 is none; higher follows label, prompt and the "
            f"rest more closely, with less variety. {RECIPE_SAYS}",
        ),
    ] = None,
    rescale: Annotated[
        float | None,
        typer.Option(
            rich_help_panel=HOW,
            help=f"Share of the contrast added by guidance that is taken back, 0 (none) to 1 (all). {RECIPE_SAYS}",
        ),
    ] = None,
    truncation: Annotated[
        float | None,
        typer.Option(
            rich_help_panel=HOW,
            help="Limit of the latents in standard deviations (GANs): lower is more typical and less varied, 0 is no "
            f"limit. {RECIPE_SAYS}",
        ),
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(
            rich_help_panel=HOW,
            min=0,
            max=LAST_SEED,
            help="Number that fixes the noise: image k, counted from 0, is the one of seed SEED + k. [default: 0]",
        ),
    ] = None,
    interpolate: Annotated[
        tuple[int, int] | None,
        typer.Option(
            rich_help_panel=TWO_SEEDS,
            metavar="A B",
            help="Two seeds: images between those of seed A and seed B, as one strip (PNG) and one GIF, instead of "
            "separate files.",
        ),
    ] = None,
    frames: Annotated[
        int | None,
        typer.Option(
            rich_help_panel=TWO_SEEDS, help="Number of images from A to B, both included: 2 or more. [default: 16]"
        ),
    ] = None,
    out: Annotated[
        Path,
        typer.Option(
            "-o",
            "--out",
            rich_help_panel=OUTPUT,
            help="Folder for the images, for manifest.csv, a row an image, and for preview.png, the images on one "
            "sheet.",
        ),
    ] = Path("samples"),
    n: Annotated[int | None, typer.Option("-n", rich_help_panel=OUTPUT, help="Number of images. [default: 16]")] = None,
    as_: Annotated[
        str | None,
        typer.Option("--as", rich_help_panel=OUTPUT, help=f"File format: {KINDS}. [default: png]"),
    ] = None,
    precision: Annotated[
        str,
        typer.Option(
            rich_help_panel=HOW,
            help="What networks compute in: fp32, fp16, bf16. [default: fp32 of an exported model, else as trained]",
        ),
    ] = "",
) -> None:
    """Make synthetic images with a trained model.

    Each image depends on its seed alone, not on how many are made.
    """
    with importing():
        from fabrica.inference.samples import write_samples
        from fabrica.io import read, suffix_of
        from fabrica.recipe.card import OF_PHANTOMS

    told = conditions(mask, label=label, text=prompt, age=age, sex=sex, view=view)
    choices: dict[str, Any] = {
        "conditions": told,
        "steps": steps,
        "sampler": sampler,
        "guidance": guidance,
        "rescale": rescale,
        "truncation": truncation,
        "warn": note,
    }
    if interpolate:
        beside = "beside --interpolate A B, which makes one strip and one GIF of two seeds"
        _refuse(beside, n=n, as_=as_, seed=seed, start=start, strength=strength, redraw=redraw)
        _interpolate(model, out, interpolate, 16 if frames is None else frames, precision, choices)
        return
    _refuse("without --interpolate A B", frames=frames)
    files = {name: read(path) for name, path in (("start", start), ("redraw", redraw)) if path}
    choices |= {"strength": strength, **files}
    n, as_, seed = 16 if n is None else n, as_ or "png", seed or 0
    suffix_of(as_)  # refused before an hour of sampling, not after
    if out.exists() and not out.is_dir():
        raise UsageError(f"{out} is a file; name a folder for the images with -o")
    with importing():
        loaded = opened(model, precision)
    with named_bars() as progress:
        images = loaded.sample(n, seed=seed, progress=progress, **choices)
    if loaded.data.phantoms:
        note(f"the model is {OF_PHANTOMS}")
    write_samples(images, loaded.known(n, seed=seed, conditions=told), out, loaded, as_, told.get("mask"))
    seeds = f"seeds {seed} to {seed + n - 1}"
    print(
        f"{out}: {n} synthetic images ({as_}) of model {loaded.name} {loaded.hash}, {seeds}; on one sheet: preview.png"
    )


def _refuse(why: str, **given: Any) -> None:
    names = {"n": "-n", "as_": "--as"}
    found = [names.get(key, f"--{key}") for key, value in given.items() if value is not None]
    if found:
        raise UsageError(f"{', '.join(found)} cannot stand {why}")


def _interpolate(
    model: Path, out: Path, ends: tuple[int, int], frames: int, precision: str, choices: dict[str, Any]
) -> None:
    from numpy import concatenate

    from fabrica.io.contact_sheet import image_grid, save_gif, save_picture

    first, last = ends
    if not all(0 <= end <= LAST_SEED for end in ends):
        raise UsageError(f"--interpolate {first} {last}; expected two seeds from 0 to {LAST_SEED}")
    with importing():
        loaded = opened(model, precision)
    with named_bars() as progress:
        images = loaded.interpolate(first, last, frames, progress=progress, **choices)
    out.mkdir(parents=True, exist_ok=True)
    strip = out / f"interpolation-{first}-{last}.png"
    save_picture(image_grid(images), strip)
    there_and_back = concatenate([images, images[-2:0:-1]])
    save_gif(there_and_back, strip.with_suffix(".gif"))
    print(f"{strip}, {strip.with_suffix('.gif')}: {frames} images of model {loaded.name} {loaded.hash}")
