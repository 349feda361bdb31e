"""The command line: one thin command per verb. Heavy packages are imported inside the commands, so that
`fabrica --help` answers at once.

Exit codes: 0 done, 1 failed, 2 wrong use. Errors go to stderr, one line, no traceback unless --debug.
"""

from __future__ import annotations

import json
import re
import sys
from dataclasses import asdict
from io import TextIOWrapper
from pathlib import Path
from typing import Annotated, Any

import typer

from fabrica.cli.bars import named_bars, training_bar
from fabrica.errors import FabricaError, UsageError

app = typer.Typer(
    name="fabrica",
    help="Generative medical imaging from DICOM to DICOM.\n\nWith --debug, any command shows where an error arose.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

Out = Annotated[Path, typer.Option("-o", "--out", help="Where the result goes.")]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
LAST_SEED = 2**31 - 1
Seed = Annotated[int, typer.Option(min=0, max=LAST_SEED, help="Same seed, same result.")]
INTERRUPTED = 130  # what typer returns, instead of raising, after Ctrl-C
KINDS = "png, tiff, npz, nifti, dicom, metaimage, nrrd or mgh"  # what can be written: `fabrica.io.SUFFIXES`
MOST_LEFT_OUT = 20  # files that `scan` names one by one


def main() -> None:
    """Run the command line; never shows a traceback to a user without --debug."""
    for stream in (sys.stdout, sys.stderr):  # names of files need not be UTF-8
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    debug = "--debug" in sys.argv
    arguments = [a for a in sys.argv[1:] if a != "--debug"]
    try:
        if app(arguments or ["--help"], standalone_mode=False) == INTERRUPTED:
            raise KeyboardInterrupt
    except FabricaError as error:
        _fail(error, error.exit_code, debug)
    except typer.Abort:
        sys.exit(1)
    except KeyboardInterrupt:
        print("fabrica: stopped; what had been saved is kept", file=sys.stderr)
        sys.exit(1)
    except OSError as error:
        named = f"{error.filename} cannot be used ({error.strerror})" if error.filename else ""
        _fail(error, 1, debug, named)
    except Exception as error:
        if hasattr(error, "exit_code") and hasattr(error, "format_message"):  # click's own usage errors
            _fail(error, 2, debug, error.format_message())
        _fail(
            error,
            1,
            debug,
            f"unexpected {type(error).__name__}: {error} (run again with --debug and report it)",
        )


def _fail(error: Exception, code: int, debug: bool, message: str = "") -> None:
    if debug:
        raise error
    print(_line(f"fabrica: {message or error}"), file=sys.stderr)
    sys.exit(code)


def _line(text: str) -> str:
    """The text on one line, whatever names of files it holds: control characters and bytes that are no UTF-8 spelled
    out."""
    text = text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return re.sub(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]", lambda found: repr(found[0])[1:-1], text)


@app.command()
def demo(
    out: Out = Path("demo"),
    minutes: Annotated[float, typer.Option(help="Minutes of training.")] = 5.0,
    n: Annotated[int, typer.Option("-n", help="How many phantoms.")] = 2000,
    size: Annotated[int, typer.Option(help="Pixels a side.")] = 64,
) -> None:
    """Everything on phantoms: draw chests, train, sample to DICOM, and a report to open.

    What an earlier demo in the same folder has done already is kept.
    """
    data, run = out / "data", out / "model"
    _say(f"1/4  fabrica phantom chest -n {n} --size {size} -o {data}")
    if not (data / "manifest.csv").exists():
        phantom("chest", n, data, size=size)
    changes = [f"data.size={size}", f"train.minutes={minutes:g}"]
    _say(f"2/4  fabrica train ddpm-chest --data {data / 'manifest.csv'} -o {run} {' '.join(changes)}")
    if (run / "recipe.yaml").exists():
        train(out=run, resume=True)
    else:
        train("ddpm-chest", changes, data / "manifest.csv", run)
    _say(f"3/4  fabrica sample {run} -n 16 --as dicom -o {out / 'dicom'}")
    sample(run, out / "dicom", n=16, as_="dicom")
    _say(f"4/4  fabrica evaluate {run} --against {data / 'manifest.csv'} -o {out / 'report'}")
    evaluate(run, data / "manifest.csv", out / "report")
    _say(f"done. Pictures: {run / 'samples.png'}; report: {out / 'report' / 'report.html'}")


@app.command()
def scan(
    folder: Annotated[
        Path, typer.Argument(help="DICOM, NIfTI, MetaImage, NRRD, MGH, PNG/TIFF/JPEG, npz or zip, in any layout.")
    ],
    out: Out = Path("manifest.csv"),
    labels: Annotated[Path | None, typer.Option(help="CSV that names files, patients, labels, splits, texts.")] = None,
    patient: Annotated[str | None, typer.Option(help="Regex on the path; its first group is the patient.")] = None,
    layout: Annotated[str, typer.Option(help="mimic-cxr; if not given, what the folder shows.")] = "",
    views: Annotated[str | None, typer.Option(help="mimic-cxr: PA or PA,AP; '' for all; PA if not given.")] = None,
    reports: Annotated[Path | None, typer.Option(help="mimic-cxr: the folder of its reports, if another.")] = None,
    split: Annotated[str, typer.Option(help="Parts of train, val and test.")] = "0.8,0.1,0.1",
    include: Annotated[
        list[str] | None, typer.Option(help="A kind to take as images, too: localizer, derived, segmentation, dose ...")
    ] = None,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Index a folder of images into a manifest, split by patient."""
    from fabrica.data.helpers import helpers

    try:
        train_part, val_part, test_part = (float(part) for part in split.split(","))
    except ValueError as error:
        raise UsageError(f"--split {split}; expected three numbers, e.g. 0.8,0.1,0.1") from error
    with helpers(folder) as processes, named_bars() as progress:
        from fabrica.data.scan import scan as scan_folder  # while the helpers start

        manifest = scan_folder(
            folder,
            labels=labels,
            layout=layout,
            views=None if views is None else [view.strip().upper() for view in views.split(",") if view.strip()],
            reports=reports,
            patient_regex=patient,
            fractions=(train_part, val_part, test_part),
            include=include or [],
            seed=seed,
            helpers=processes,
            progress=lambda done, total: progress("reading", done, total),
        )
    manifest.save(out)
    counts = {part: len(manifest.select(split=part).rows) for part in ("train", "val", "test")}
    patients = {part: len(manifest.patients(part)) for part in counts}
    if as_json:
        _print_json(
            {
                "manifest": str(out),
                "images": counts,
                "patients": patients,
                "files": manifest.files,
                "rejected": manifest.rejected,
                "notes": manifest.notes,
            }
        )
        return
    for path, reason in manifest.rejected[:MOST_LEFT_OUT]:
        print(_line(f"left out {path}: {reason}"), file=sys.stderr)
    if (more := len(manifest.rejected) - MOST_LEFT_OUT) > 0:
        print(f"left out {more} more; --json lists all of them", file=sys.stderr)
    for note in manifest.notes:
        print(_line(f"note: {note}"))
    parts = ", ".join(f"{part} {counts[part]} images of {patients[part]} patients" for part in counts)
    files = ", ".join(f"{count} {word}" for word, count in manifest.files.items())
    print(f"{out}: {parts}" + (f"; of {sum(manifest.files.values())} files {files}" if files else ""))


@app.command()
def phantom(
    kind: Annotated[str, typer.Argument(help="chest or head")],
    n: Annotated[int, typer.Option("-n", help="How many patients.")] = 500,
    out: Out = Path("phantoms"),
    size: Annotated[int, typer.Option(help="Pixels a side.")] = 128,
    slices: Annotated[int | None, typer.Option(help="head: slices of a volume; none: one slice.")] = None,
    seed: Seed = 0,
) -> None:
    """Draw physics-based phantoms with masks, labels and report text."""
    from fabrica.data.embedded import write_phantoms

    with named_bars() as progress:
        write_phantoms(
            kind, n, out, size=size, seed=seed, slices=slices, progress=lambda d, t: progress("drawing", d, t)
        )
    print(f"{out / 'manifest.csv'}: {n} {kind} phantoms")


@app.command()
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
        _print_json(rows)
        return
    for row in rows:
        print(f"{row['name']:<24}{row['task']:<12}{row['about']}\n{'':<24}{row['cost']}; {row['score']}")


@app.command()
def train(
    recipe: Annotated[str | None, typer.Argument(help="A name from `fabrica recipes`, or a YAML file.")] = None,
    overrides: Annotated[list[str] | None, typer.Argument(metavar="[KEY=VALUE]...")] = None,
    data: Annotated[Path | None, typer.Option(help="A manifest or a folder of images.")] = None,
    out: Annotated[Path | None, typer.Option("-o", "--out", help="The model folder; runs/NAME if not given.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue the run in the model folder.")] = False,
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
    from fabrica.training.loop import train as train_recipe

    with named_bars() as progress, training_bar() as (report, warn):
        train_recipe(chosen, folder, resume=resume, report=report, progress=progress, warn=warn)
    from fabrica.methods import named
    from fabrica.model.tasks import TASKS
    from fabrica.recipe.found import found_in
    from fabrica.recipe.held_out import worth

    _, found = found_in(folder)
    for said in filter(None, (worth(known) for known in (found.held_out_b, found.held_out_a))):
        print(said)
    following = TASKS[named(found.method).task].next.format(folder=folder)
    print(f"{folder}: trained; see {folder / 'samples.png'}, next: fabrica {following}")


@app.command()
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
        "warn": _note,
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
    loaded = load(model, warn=_note)
    with named_bars() as progress:
        images = loaded.sample(n, seed=seed, progress=progress, **choices)
    write_samples(images, loaded.known(n, seed=seed, told=told), out, loaded, as_, told.get("mask"))
    print(f"{out}: {n} synthetic images ({as_}) of model {loaded.name} {loaded.hash}, seeds {seed} to {seed + n - 1}")


@app.command()
def apply(
    model: Annotated[Path, typer.Argument(help="A model folder: of one that translates or restores.")],
    source: Annotated[Path, typer.Argument(metavar="IN", help="An image, a DICOM series, a folder, or a manifest.")],
    out: Out = Path("translated"),
    beside: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=FILE", help="Another contrast of the patient, e.g. T2=t2.nii.gz; for each one."),
    ] = None,
    direction: Annotated[str, typer.Option(help="a2b, or b2a where the model goes both ways.")] = "a2b",
    uncertainty: Annotated[bool, typer.Option("--uncertainty", help="Also a map of where the model guesses.")] = False,
    round_trip: Annotated[bool, typer.Option("--round-trip", help="Also a map of the error there and back.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Also what is unlike the training images.")] = False,
    as_: Annotated[str | None, typer.Option("--as", help=f"{KINDS}; as IN if not given.")] = None,
    overlap: Annotated[float, typer.Option(help="Of neighbouring windows, 0 to below 1.")] = 0.5,
    as_json: Json = False,
) -> None:
    """Translate or restore images, scanner files in and out. What is unlike the training images is refused."""
    from fabrica.inference.files import apply as apply_model
    from fabrica.inference.refusal import cautions
    from fabrica.model.loading import load

    others = _beside(beside or [])
    loaded = load(model, warn=_note)
    with named_bars() as progress:
        outcomes = apply_model(
            loaded,
            source,
            out,
            beside=others,
            direction=direction,
            uncertainty=uncertainty,
            round_trip=round_trip,
            force=force,
            as_=as_ or "",
            overlap=overlap,
            progress=progress,
        )
    if as_json:
        _print_json([asdict(outcome) for outcome in outcomes])
    for outcome in outcomes if not as_json else ():
        doubt = "" if outcome.uncertainty is None else f"; mean uncertainty {outcome.uncertainty:.3g}"
        doubt += ", MORE THAN IN TRAINING: do not rely on it" if outcome.uncertain else ""
        if not outcome.refused:
            print(_line(f"{outcome.input} -> {outcome.output}{doubt}"))
    if lacking := [name for name in loaded.recipe.data.beside if name not in others]:
        _note(f"without {' and '.join(lacking)} beside the image (--beside {lacking[0]}=FILE)")
    for caution in cautions(loaded.way(direction)):
        print(f"fabrica: warning: {caution}", file=sys.stderr)
    failed = [outcome for outcome in outcomes if outcome.refused]
    for outcome in failed:
        print(_line(f"left out {outcome.refused}"), file=sys.stderr)
    if failed:
        raise FabricaError(f"{len(failed)} of {len(outcomes)} images were not translated")
    print(
        f"{out}: {len(outcomes)} images by model {loaded.name} {loaded.hash}",
        file=sys.stderr if as_json else sys.stdout,
    )


def _beside(given: list[str]) -> dict[str, Path]:
    """NAME=FILE, each name once."""
    found: dict[str, Path] = {}
    for each in given:
        name, equals, path = each.partition("=")
        if not (name and equals and path):
            raise UsageError(f"--beside {each}; expected NAME=FILE, e.g. --beside T2=t2.nii.gz")
        if name in found:
            raise UsageError(f"--beside gives {name} twice, {found[name]} and {path}; leave one out")
        found[name] = Path(path)
    return found


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
    loaded = load(model, warn=_note)
    with named_bars() as progress:
        images = loaded.interpolate(first, last, frames, progress=progress, **choices)
    out.mkdir(parents=True, exist_ok=True)
    strip = out / f"interpolation-{first}-{last}.png"
    save_picture(image_grid(images), strip)
    there_and_back = concatenate([images, images[-2:0:-1]])
    save_gif(there_and_back, strip.with_suffix(".gif"))
    print(f"{strip}, {strip.with_suffix('.gif')}: {frames} images of model {loaded.name} {loaded.hash}")


@app.command()
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
        report = judge(model, against, out, versus=versus, progress=progress, warn=_note, **choices)
    if as_json:
        _print_json(report.scores)
        return
    print(scores_table(report))
    print(f"report: {report.page}")


@app.command()
def export(
    model: Annotated[Path, typer.Argument(help="A model folder.")],
    to: Annotated[str, typer.Option(help="bundle: for MONAI.")],
    out: Annotated[Path, typer.Option("-o", "--out", help="Where the result goes.")],
) -> None:
    """Write a model in another format."""
    from fabrica.export import export as export_model
    from fabrica.export import writer
    from fabrica.model.loading import load

    writer(to)  # refused before the model is loaded
    loaded = load(model, warn=_note)
    export_model(loaded, to, out)
    print(f"{out}: model {loaded.name} {loaded.hash} as {to}")


@app.command()
def version() -> None:
    """The version of Fabrica."""
    from fabrica import __version__

    print(__version__)


def _note(sentence: str) -> None:
    print(_line(f"note: {sentence}"), file=sys.stderr)


def _say(text: str) -> None:
    print(text, flush=True)


def _print_json(value: Any) -> None:
    print(json.dumps(value, indent=2, ensure_ascii=False))
