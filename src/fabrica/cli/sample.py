"""`fabrica sample`: synthetic images."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from fabrica.cli.bars import named_bars
from fabrica.cli.options import KINDS, LAST_SEED, Out, note
from fabrica.errors import UsageError


def sample(
    model: Annotated[Path, typer.Argument(help="A model folder or a bundle.")],
    out: Out = Path("samples"),
    n: Annotated[int | None, typer.Option("-n", help="How many images; 16 if not given.")] = None,
    label: Annotated[str | None, typer.Option(help="One of the model's labels; none: all in turn.")] = None,
    prompt: Annotated[str | None, typer.Option(metavar="TEXT", help="What the image is to show, as a report.")] = None,
    age: Annotated[float | None, typer.Option(help="Of the patient, in years.")] = None,
    sex: Annotated[str | None, typer.Option(help="Of the patient: F or M.")] = None,
    view: Annotated[str | None, typer.Option(help="PA, AP, ...")] = None,
    mask: Annotated[
        Path | None, typer.Option(metavar="FILE", help="A label map: what is to be where, brought to the model's size.")
    ] = None,
    start: Annotated[
        Path | None, typer.Option("--from", metavar="IMAGE", help="Draw this image anew, not one of noise alone.")
    ] = None,
    strength: Annotated[float | None, typer.Option(help="How much of it, to 1; 0.6, or 1 with --redraw.")] = None,
    redraw: Annotated[
        Path | None, typer.Option(metavar="MASK", help="Where to draw, above 0, and nowhere else; on IMAGE's grid.")
    ] = None,
    steps: Annotated[int | None, typer.Option(help="Steps of the sampler.")] = None,
    sampler: Annotated[str | None, typer.Option(help="ddpm, ddim, heun, dpmpp-2m or unipc.")] = None,
    guidance: Annotated[float | None, typer.Option(help="Strength of label and prompt; 1: as trained.")] = None,
    rescale: Annotated[
        float | None, typer.Option(help="Of the contrast that guidance adds, what share is taken back; 0 to 1.")
    ] = None,
    truncation: Annotated[
        float | None, typer.Option(help="GANs: latents within this many SD; less is more typical, less varied; 0: all.")
    ] = None,
    as_: Annotated[str | None, typer.Option("--as", help=f"{KINDS}; png if not given.")] = None,
    seed: Annotated[int | None, typer.Option(min=0, max=LAST_SEED, help="Same seed, same result; 0 if not given.")] = (
        None
    ),
    interpolate: Annotated[
        tuple[int, int] | None, typer.Option(metavar="A B", help="The way from seed A to seed B: a strip and a GIF.")
    ] = None,
    frames: Annotated[int | None, typer.Option(help="Images on that way; 16 if not given.")] = None,
) -> None:
    """Make synthetic images. Image k comes from seed + k alone."""
    from fabrica.io import read, suffix_of
    from fabrica.model.loading import load
    from fabrica.model.samples import write_samples

    told: dict[str, Any] = {"label": label, "text": prompt, "age": age, "sex": sex, "view": view}
    told |= {"mask": read(mask)} if mask else {}
    told = {name: value for name, value in told.items() if value is not None}
    choices: dict[str, Any] = {
        "told": told,
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
        _interpolate(model, out, interpolate, 16 if frames is None else frames, choices)
        return
    _refuse("without --interpolate A B", frames=frames)
    files = {name: read(path) for name, path in (("start", start), ("redraw", redraw)) if path}
    choices |= {"strength": strength, **files}
    n, as_, seed = 16 if n is None else n, as_ or "png", seed or 0
    suffix_of(as_)  # refused before an hour of sampling, not after
    if out.exists() and not out.is_dir():
        raise UsageError(f"{out} is a file; name a folder for the images with -o")
    loaded = load(model, warn=note)
    with named_bars() as progress:
        images = loaded.sample(n, seed=seed, progress=progress, **choices)
    write_samples(images, loaded.known(n, seed=seed, told=told), out, loaded, as_, told.get("mask"))
    print(f"{out}: {n} synthetic images ({as_}) of model {loaded.name} {loaded.hash}, seeds {seed} to {seed + n - 1}")


def _refuse(why: str, **given: Any) -> None:
    names = {"n": "-n", "as_": "--as"}
    found = [names.get(key, f"--{key}") for key, value in given.items() if value is not None]
    if found:
        raise UsageError(f"{', '.join(found)} cannot stand {why}")


def _interpolate(model: Path, out: Path, ends: tuple[int, int], frames: int, choices: dict[str, Any]) -> None:
    from numpy import concatenate

    from fabrica.io.contact_sheet import image_grid, save_gif, save_picture
    from fabrica.model.loading import load

    first, last = ends
    if not all(0 <= end <= LAST_SEED for end in ends):
        raise UsageError(f"--interpolate {first} {last}; expected two seeds from 0 to {LAST_SEED}")
    loaded = load(model, warn=note)
    with named_bars() as progress:
        images = loaded.interpolate(first, last, frames, progress=progress, **choices)
    out.mkdir(parents=True, exist_ok=True)
    strip = out / f"interpolation-{first}-{last}.png"
    save_picture(image_grid(images), strip)
    there_and_back = concatenate([images, images[-2:0:-1]])
    save_gif(there_and_back, strip.with_suffix(".gif"))
    print(f"{strip}, {strip.with_suffix('.gif')}: {frames} images of model {loaded.name} {loaded.hash}")
