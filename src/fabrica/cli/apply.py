"""`fabrica apply`: images translated, restored or segmented."""

from __future__ import annotations

import json
import signal
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fabrica.cli.bars import named_bars
from fabrica.cli.importing import importing
from fabrica.cli.opening import opened
from fabrica.cli.options import KINDS, Json, note, one_line, print_json, say
from fabrica.errors import FabricaError, UsageError

if TYPE_CHECKING:
    from fabrica.inference.results import Outcome
    from fabrica.inference.translator import Translates

WAITING = "A folder that fills up"
LOOKS = 1.0  # seconds between looks at a folder


def apply(
    model: Annotated[
        Path, typer.Argument(help="Folder of a model that translates, restores or segments, trained or exported.")
    ],
    source: Annotated[Path, typer.Argument(metavar="IN", help="Image, DICOM series, folder of them, or manifest.")],
    out: Annotated[
        Path, typer.Option("-o", "--out", help="Folder for the results; of one input, a file is possible, too.")
    ] = Path("translated"),
    auxiliary: Annotated[
        list[str] | None,
        typer.Option(
            "--auxiliary",
            "--beside",  # its earlier name
            metavar="NAME=FILE",
            help="Another contrast of the patient that the model takes, e.g. T2=t2.nii.gz; may be repeated.",
        ),
    ] = None,
    contrast: Annotated[
        str,
        typer.Option(
            metavar="NAME", help="To segment: which of the model's contrasts IN is, e.g. T2. [default: its first]"
        ),
    ] = "",
    direction: Annotated[
        str, typer.Option(help="a2b: from data.a to data.b of the recipe; b2a: back; or by the sides, e.g. T1-CT.")
    ] = "a2b",
    uncertainty: Annotated[
        bool,
        typer.Option(
            "--uncertainty",
            help="Also write a map: standard deviation over slightly changed inputs, in the unit of the result.",
        ),
    ] = False,
    round_trip: Annotated[
        bool,
        typer.Option(
            "--round-trip",
            help="Also write a map: absolute error after translation there and back, in the unit of IN; for models "
            "that go both ways.",
        ),
    ] = False,
    mirror: Annotated[
        bool,
        typer.Option("--mirror", help="To segment: the mean over mirrored images, a little better, and twice as slow."),
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Also translate what would be refused as unlike the training images.")
    ] = False,
    as_: Annotated[
        str | None,
        typer.Option(
            "--as",
            help=f"File format: {KINDS}; of label maps also seg (what dicom means then) and seg-labelmap. "
            "[default: that of IN]",
        ),
    ] = None,
    overlap: Annotated[
        float,
        typer.Option(help="Share by which neighbouring windows of a large image overlap: 0 to below 1."),
    ] = 0.5,
    precision: Annotated[
        str,
        typer.Option(
            help="What networks compute in: fp32, fp16, bf16. [default: fp32 of an exported model, else as trained]"
        ),
    ] = "",
    watch: Annotated[
        bool,
        typer.Option(
            "--watch",
            help="Wait for images that come into the folder IN, each once it is complete; until stopped.",
            rich_help_panel=WAITING,
        ),
    ] = False,
    quiet: Annotated[
        float,
        typer.Option(
            min=0.0, metavar="SECONDS", help="How long an image's files must not have changed.", rich_help_panel=WAITING
        ),
    ] = 10.0,
    as_json: Json = False,
) -> None:
    """Translate, restore or segment images, scanner files in and out. What is unlike the training images is refused."""
    others = _auxiliary(auxiliary or [])
    if watch and others:
        raise UsageError("--auxiliary says what belongs to one image, and --watch takes many; leave one out")
    with importing():
        from fabrica.inference.files import apply as apply_model
        from fabrica.inference.refusal import cautions
        from fabrica.inference.translator import contrasts_beside

        loaded = opened(model, precision)
    choices: dict[str, Any] = {"contrast": contrast, "direction": direction, "overlap": overlap, "as_": as_ or ""}
    choices |= {"uncertainty": uncertainty, "round_trip": round_trip, "mirror": mirror, "force": force}
    if watch:
        for caution in cautions(loaded.way(direction)):
            print(f"fabrica: warning: {caution}", file=sys.stderr)
        _watch(loaded, source, out, quiet, choices, as_json)
        return
    with named_bars() as progress:
        outcomes = apply_model(loaded, source, out, auxiliary=others, progress=progress, **choices)
    if as_json:
        print_json([asdict(outcome) for outcome in outcomes])
    for outcome in outcomes if not as_json else ():
        doubt = "" if outcome.uncertainty is None else f"; mean uncertainty {outcome.uncertainty:.3g}"
        doubt += ", MORE THAN IN TRAINING: do not rely on it" if outcome.uncertain else ""
        if not outcome.refused:
            print(one_line(f"{outcome.input} -> {outcome.output}{doubt}"))
    way = loaded.way(direction)
    _tell_lacking(contrasts_beside(way.data.a, way.data.auxiliary, contrast), outcomes)
    for caution in cautions(way):
        print(f"fabrica: warning: {caution}", file=sys.stderr)
    failed = [outcome for outcome in outcomes if outcome.refused]
    for outcome in failed:
        print(one_line(f"left out {outcome.refused}"), file=sys.stderr)
    if failed:
        raise FabricaError(f"{len(failed)} of {len(outcomes)} images were not translated")
    print(
        f"{out}: {len(outcomes)} images by model {loaded.name} {loaded.hash}",
        file=sys.stderr if as_json else sys.stdout,
    )


def _watch(model: Translates, source: Path, out: Path, quiet: float, choices: Mapping[str, Any], as_json: bool) -> None:
    """Until SIGINT or SIGTERM."""
    from fabrica.inference.watch import LEFT_OUT, Done, Watch

    made = left_out = 0

    def tell(done: Done) -> None:
        nonlocal made, left_out
        made, left_out = made + bool(not done.refused), left_out + bool(done.refused)
        if as_json:
            say(json.dumps(asdict(done), ensure_ascii=False))
        elif not done.refused:
            say(one_line(f"{done.source} -> {done.name}"))
        if done.refused:
            print(one_line(f"left out {done.refused}"), file=sys.stderr, flush=True)

    watching = Watch(model, source, out, quiet, choices)
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with watching.alone():
            note(f"waiting for images in {source}, by model {model.name} {model.hash}; end it with Ctrl-C")
            while True:
                for done in watching.look(time.time()):
                    tell(done)
                time.sleep(LOOKS)
    except KeyboardInterrupt:
        print(f"{out}: {made} images; {left_out} left out, see {out / LEFT_OUT}", file=sys.stderr)
    finally:
        signal.signal(signal.SIGTERM, before)


def _tell_lacking(beside: list[str], outcomes: list[Outcome]) -> None:
    """What the model sees beside an image and was not given."""
    for name in beside:
        lacking = sum(not outcome.refused and name not in outcome.auxiliary for outcome in outcomes)
        if lacking:
            of = f" of {lacking} of {len(outcomes)} images" if len(outcomes) > 1 else ""
            note(f"without {name} beside the image{of} (--auxiliary {name}=FILE)")


def _auxiliary(given: list[str]) -> dict[str, Path]:
    """NAME=FILE, each name once."""
    found: dict[str, Path] = {}
    for each in given:
        name, equals, path = each.partition("=")
        if not (name and equals and path):
            raise UsageError(f"--auxiliary {each}; expected NAME=FILE, e.g. --auxiliary T2=t2.nii.gz")
        if name in found:
            raise UsageError(f"--auxiliary gives {name} twice, {found[name]} and {path}; leave one out")
        found[name] = Path(path)
    return found
