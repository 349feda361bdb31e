"""`fabrica study`: a double-blind reader study, from its images to its statistics."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from fabrica.cli.bars import named_bars
from fabrica.cli.importing import importing
from fabrica.cli.opening import opened
from fabrica.cli.options import Json, Panels, Seed, note, print_json, say
from fabrica.errors import UsageError

study = typer.Typer(
    help="A double-blind reader study: made of a config (new), sized (power), answered in browsers (serve), evaluated "
    "(results).",
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
    trials = dict.fromkeys(asked.readers, 0)
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
    with importing():
        return opened(folder)


@study.command(cls=Panels, context_settings=WIDE)
def power(
    kind: Annotated[str, typer.Argument(help="clarity, detection, real-or-synthetic or preference.")],
    effect: Annotated[
        float,
        typer.Option(
            help="clarity: difference of mean scores; detection: of AUCs; else the share of right answers, or of those "
            "who prefer one arm, less a half. 0 with --claim equivalence."
        ),
    ],
    readers: Annotated[str, typer.Option(help="Numbers of readers to look at.")] = "3,5,8",
    cases: Annotated[str, typer.Option(help="Numbers of cases to look at, classes half and half.")] = "20,40,60,100",
    start: Annotated[float, typer.Option("--from", help="detection: the AUC of the worse arm.")] = 0.8,
    scores: Annotated[int, typer.Option(help="clarity: how many scores there are.")] = 5,
    claim: Annotated[
        str, typer.Option(help="What is to be shown: difference, superiority, non-inferiority or equivalence.")
    ] = "difference",
    margin: Annotated[float, typer.Option(help="Margin of the claim, in the effect's own unit; 0: none.")] = 0.0,
    alpha: Annotated[float, typer.Option(help="Level of the test, two-sided.")] = 0.05,
    target: Annotated[float, typer.Option(help="Power to reach: the search ends there.")] = 0.8,
    studies: Annotated[int, typer.Option(help="Simulated studies of each size.")] = 500,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """How many readers and cases show an effect: by simulated studies, analysed as `results` does it."""
    from fabrica.serving.study.sizing import powers

    try:
        sizes = [[int(part) for part in listed.split(",") if part.strip()] for listed in (readers, cases)]
    except ValueError as error:
        raise UsageError(f"--readers {readers} --cases {cases}; expected whole numbers, e.g. 3,5,8") from error
    choices: dict[str, Any] = {"start": start, "scores": scores, "claim": claim, "margin": margin, "alpha": alpha}
    choices |= {"target": target, "studies": studies, "seed": seed}
    with named_bars() as progress:
        found = powers(kind, effect, *sizes, progress=progress, **choices)
    reached = found[-1].share.value >= target
    if as_json:
        rows = [
            {"readers": f.readers, "cases": f.cases, "power": f.share.value, "low": f.share.low, "high": f.share.high}
            for f in found
        ]
        print_json({"reached": reached, "sizes": rows})
        return
    print(f"{'readers':>8} {'cases':>6}   power (95 % interval of {studies} simulated studies)")
    for f in found:
        print(f"{f.readers:8} {f.cases:6}   {f.share.value:.2f} [{f.share.low:.2f}, {f.share.high:.2f}]")
    last = found[-1]
    if reached:
        print(
            f"{last.readers} readers and {last.cases} cases reach {target:g}, with the fewest readings of these sizes"
        )
    else:
        print(f"no size reaches {target:g}; look at more readers or cases, or at a larger effect")


@study.command(cls=Panels, context_settings=WIDE)
def serve(
    folder: Annotated[Path, typer.Argument(metavar="STUDY", help="Folder that fabrica study new made.")],
    host: Annotated[str, typer.Option(help="Address to listen at; 0.0.0.0 for all of this machine.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 takes any that is free.")] = 8000,
    name: Annotated[
        list[str] | None, typer.Option(help="Name by which readers reach it beside its address; may be repeated.")
    ] = None,
    certificate: Annotated[Path | None, typer.Option(help="Certificate (PEM): the server speaks HTTPS.")] = None,
    key: Annotated[Path | None, typer.Option(help="Its key, where it is not in it.")] = None,
) -> None:
    """Serve a study to its readers, each by his own link of key/links.csv: a page to look at images and answer.

    Every answer is stored for good before the next image is shown. Logs are lines of JSON on stderr.
    """
    from fabrica.serving.study.folder import KEY, open_study

    with importing():
        from fabrica.serving.http.access import access, loopback
        from fabrica.serving.study.server import serve as start

    found = open_study(folder)
    granted = access(host, None, {}, name or [], secure=certificate is not None, personal=True)
    if not loopback(host) and not certificate:
        note("others reach this address, and without --certificate links, images and answers go in the clear")
    note(f"links of the readers are in {folder / KEY / 'links.csv'}; what stands there before # is the address")
    start(
        found,
        granted,
        port,
        certificate=certificate,
        key=key,
        listening=lambda where: say(f"fabrica serves the study at {where}"),
    )


@study.command(cls=Panels, context_settings=WIDE)
def results(
    folder: Annotated[Path, typer.Argument(metavar="STUDY", help="Folder of a study that has answers.")],
    out: Annotated[
        Path, typer.Option("-o", "--out", help="Folder for report.html, results.json, answers.csv and study.imrmc.")
    ] = Path("report"),
    despite: Annotated[
        bool,
        typer.Option(
            "--despite", help="Evaluate also what was changed after it was stored; the report begins with it."
        ),
    ] = False,
    as_json: Json = False,
) -> None:
    """Evaluate a study: statistics with readers and cases random, one page, every answer as CSV."""
    from fabrica.serving.study.folder import open_study

    found = open_study(folder)
    with importing():
        from fabrica.serving.study.results import results as evaluate

    with named_bars() as progress:
        made = evaluate(found, out, despite=despite, progress=progress)
    if as_json:
        print_json(made.numbers)
        return
    for warning in made.findings.warnings:
        note(warning)
    print(made.findings.verdict)
    for claim in made.findings.claims:
        alone = claim.verdict.shown and not claim.shown_of_all
        said = "shown alone, not with Holm's correction for all claims" if alone else "shown"
        print(f"{claim.of}: {said if claim.verdict.shown else 'not shown'} ({claim.verdict.method})")
    print(f"report: {made.page}")
