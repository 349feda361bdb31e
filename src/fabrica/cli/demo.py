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

READY, PROMPT = "chest-text", "There is a large left pleural effusion."


def demo(
    out: Out = Path("demo"),
    minutes: Annotated[float, typer.Option(help="Time for training in minutes.")] = 3.0,
    n: Annotated[int, typer.Option("-n", help="Number of phantoms.")] = 2000,
    size: Annotated[int, typer.Option(help="Height and width of the images in pixels.")] = 64,
) -> None:
    """Everything on phantoms: images of a ready model at once; then draw chests, train, sample to DICOM, and a report.

    What an earlier demo in the same folder has done already is kept.
    """
    data, run, first = out / "data", out / "model", out / "first"
    say(f'1/5  fabrica sample {READY} --prompt "{PROMPT}" -n 8 -o {first}')
    sample(Path(READY), prompt=PROMPT, n=8, out=first)
    say(f"2/5  fabrica phantom chest -n {n} --size {size} -o {data}")
    if not (data / "manifest.csv").exists():
        phantom("chest", n, data, size=size)
    changes = [f"data.size={size}", f"train.minutes={minutes:g}"]
    say(f"3/5  fabrica train ddpm-chest --data {data / 'manifest.csv'} -o {run} {' '.join(changes)}")
    if (run / "recipe.yaml").exists():
        train(out=run, resume=True)
    else:
        train("ddpm-chest", changes, data / "manifest.csv", run)
    say(f"4/5  fabrica sample {run} -n 16 --as dicom -o {out / 'dicom'}")
    sample(run, out=out / "dicom", n=16, as_="dicom")
    say(f"5/5  fabrica evaluate {run} --against {data / 'manifest.csv'} -o {out / 'report'}")
    evaluate(run, data / "manifest.csv", out=out / "report")
    say(f"done. Pictures: {first}, {run / 'samples.png'}; report: {out / 'report' / 'report.html'}")
