"""`fabrica demo`: all of it on phantoms."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fabrica.cli.evaluate import evaluate
from fabrica.cli.options import Out, say
from fabrica.cli.phantom import phantom
from fabrica.cli.sample import sample
from fabrica.cli.train import train


def demo(
    out: Out = Path("demo"),
    minutes: Annotated[float, typer.Option(help="Time for training in minutes.")] = 5.0,
    n: Annotated[int, typer.Option("-n", help="Number of phantoms.")] = 2000,
    size: Annotated[int, typer.Option(help="Height and width of the images in pixels.")] = 64,
) -> None:
    """Everything on phantoms: draw chests, train, sample to DICOM, and a report to open.

    What an earlier demo in the same folder has done already is kept.
    """
    data, run = out / "data", out / "model"
    say(f"1/4  fabrica phantom chest -n {n} --size {size} -o {data}")
    if not (data / "manifest.csv").exists():
        phantom("chest", n, data, size=size)
    changes = [f"data.size={size}", f"train.minutes={minutes:g}"]
    say(f"2/4  fabrica train ddpm-chest --data {data / 'manifest.csv'} -o {run} {' '.join(changes)}")
    if (run / "recipe.yaml").exists():
        train(out=run, resume=True)
    else:
        train("ddpm-chest", changes, data / "manifest.csv", run)
    say(f"3/4  fabrica sample {run} -n 16 --as dicom -o {out / 'dicom'}")
    sample(run, out=out / "dicom", n=16, as_="dicom")
    say(f"4/4  fabrica evaluate {run} --against {data / 'manifest.csv'} -o {out / 'report'}")
    evaluate(run, data / "manifest.csv", out=out / "report")
    say(f"done. Pictures: {run / 'samples.png'}; report: {out / 'report' / 'report.html'}")
