"""`fabrica study`: a double-blind reader study, from its images to its statistics."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from fabrica.cli.bars import named_bars
from fabrica.cli.importing import importing
from fabrica.cli.options import Json, Panels, note, print_json

study = typer.Typer(
    help="A double-blind reader study: made of a config (new), sized (power), and evaluated (results).",
    no_args_is_help=True,
    rich_markup_mode=None,
)
WIDE = {"max_content_width": 120}


@study.command(cls=Panels, context_settings=WIDE)
def new(
    config: Annotated[Path, typer.Argument(help="YAML file that says what the study is: see docs/study.md.")],
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder for the study.")] = Path("study"),
    url: Annotated[
        str, typer.Option(help="Address under which readers will reach the server, which their links begin with.")
    ] = "http://127.0.0.1:8000",
    as_json: Json = False,
) -> None:
    """Make a study: images blinded, orders drawn, a secret link for each reader."""
    from fabrica.serving.study.config import load_config
    from fabrica.serving.study.folder import KEY, open_study
    from fabrica.serving.study.making import new as new_study

    asked = load_config(config)
    with named_bars() as progress:
        made = new_study(asked, config.parent, out, _opened, url=url, progress=progress)
    found = open_study(out)
    trials = {reader: 0 for reader in asked.readers}
    with found.answers() as answers:
        for reader in answers.readers.values():
            trials[reader.name] = len(answers.trials[reader.reader])
    links = out / KEY / "links.csv"
    if as_json:
        about = {"study": str(out), "made": made, "images": len(found.images), "trials": trials, "links": str(links)}
        print_json(about)
        return
    if not made:
        note(f"{out} was made of this config before; nothing was changed")
    counts = sorted(set(trials.values()))
    number = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    print(f"{out}: {len(found.images)} images in {len(asked.arms)} arms, {len(trials)} readers of {number} trials each")
    print(f"{links}: a secret link for each reader; give each his own, and keep {out / KEY} to yourself until the end")


def _opened(folder: Path) -> Any:
    """The model in a folder, trained or exported."""
    from fabrica import runtime

    if runtime.found(folder):
        return runtime.opened(folder)
    with importing():
        from fabrica.model.loading import load
    return load(folder, warn=note)
