"""The results of a study: one page, every answer as CSV, all numbers as JSON, and iMRMC's layout.

The pages' libraries (matplotlib, Jinja) are those of the extra `study`.
"""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from fabrica import __version__
from fabrica.errors import FabricaError, UsageError
from fabrica.io.atomic import atomic
from fabrica.metrics.readers import imrmc
from fabrica.progress import Progress, part
from fabrica.report import study_charts
from fabrica.report.charts import Chart
from fabrica.report.report import filled
from fabrica.report.scores import finite
from fabrica.report.study_charts import Curve, Point
from fabrica.serving.study import clarity, common, preference, yes_no
from fabrica.serving.study.checklist import holds, items
from fabrica.serving.study.database import Receipt
from fabrica.serving.study.exhibits import exhibits
from fabrica.serving.study.findings import (
    Finding,
    Findings,
    Forest,
    Plot,
    corrected,
    in_words,
    interval,
    number,
    p_value,
)
from fabrica.serving.study.folder import KEY, Study, hash_of
from fabrica.serving.study.readings import READING, Readings, load, warnings_of
from fabrica.serving.study.tables import answers_csv, for_imrmc

KINDS = {
    "clarity": clarity.analyse,
    "preference": preference.analyse,
    "real-or-synthetic": yes_no.analyse,
    "detection": yes_no.analyse,
}
MOST_WARNINGS = 6  # of figures without an interval
STEPS = 3
PAGE, NUMBERS, TABLE, IMRMC = "report.html", "results.json", "answers.csv", "study.imrmc"


@dataclass(frozen=True)
class Results:
    """What was found, and the files that say so."""

    findings: Findings
    numbers: dict[str, Any]
    page: Path


def results(study: Study, out: Path, *, despite: bool = False, progress: Progress | None = None) -> Results:
    """Analyse a study into the folder `out`.

    despite   of a broken chain of answers, which then stands first among the page's warnings; else it is a FabricaError
              that names the row. Nothing is written to the study.
    """
    with study.answers() as answers:
        broken = answers.verify()
        if broken and not despite:
            raise FabricaError(f"{answers.path}: {broken}; nothing was written (--despite evaluates what is there)")
        readings, receipt = load(study, answers), answers.last()
    found = analysed(readings, progress)
    if broken:
        found.warnings.insert(
            0, f"The chain of answers is broken: {broken}. Trust none of this before it is explained."
        )
    layout = _imrmc(readings, found)
    numbers = _numbers(readings, found, receipt)
    files = {
        PAGE: _page(readings, found, numbers, receipt),
        NUMBERS: json.dumps(numbers, indent=2, ensure_ascii=False, allow_nan=False) + "\n",
        TABLE: answers_csv(readings),
        **({IMRMC: layout} if layout else {}),
    }
    if progress:
        progress("evaluating", STEPS, STEPS)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FabricaError(f"{out} cannot be the report's folder ({error.strerror}); choose another with -o") from error
    for name, text in files.items():
        with atomic(out / name) as temporary:
            temporary.write_text(text, encoding="utf-8")
    return Results(found, numbers, out / PAGE)


def analysed(readings: Readings, progress: Progress | None = None) -> Findings:
    """All analyses of a study. FabricaError where there is no answer that counts."""
    done = part(progress, "evaluating")
    if not readings.part(READING):
        raise FabricaError(f"{readings.study.folder} has no answers yet that count; nothing can be evaluated")
    found = Findings(warnings=warnings_of(readings))
    for step, analyse in enumerate((KINDS[readings.study.config.kind], common.analyse), start=1):
        if done:
            done(step - 1, STEPS)
        analyse(readings, found)
    found.claims = corrected(found.claims)
    if done:
        done(STEPS - 1, STEPS)
    found.warnings += [
        f"{name} of {of}: no interval ({note})."
        for name, of, note in dict.fromkeys(
            (r.name, r.of, r.estimate.note) for r in found.rows if r.estimate.note and not np.isfinite(r.estimate.low)
        )
    ][:MOST_WARNINGS]
    return found


def _imrmc(readings: Readings, found: Findings) -> str:
    """The text of study.imrmc; "" for kinds without a truth, and where the layout cannot hold what there is."""
    if readings.study.config.kind not in ("real-or-synthetic", "detection"):
        return ""
    if (scores := for_imrmc(readings)) is None:
        return ""
    try:
        return imrmc.text_of(scores)
    except UsageError as error:
        found.warnings.append(f"{IMRMC} was not written: {error}.")
        return ""


def _numbers(readings: Readings, found: Findings, receipt: Receipt) -> dict[str, Any]:
    config = readings.study.config
    rows = [
        {
            "key": row.key,
            "of": row.of,
            **{
                name: getattr(row.estimate, name)
                for name in ("value", "low", "high", "error", "df", "p", "method", "note")
            },
            "p_holm": row.holm,
        }
        for row in found.rows
    ]
    forests = [
        {"title": f.title, "readers": {name: [e.value, e.low, e.high] for name, e in f.rows}} for f in found.forests
    ]
    numbers: dict[str, Any] = finite(
        {
            "title": config.title,
            "kind": config.kind,
            "verdict": found.verdict,
            "warnings": found.warnings,
            "readers": readings.readers,
            "cases": len(readings.cases),
            "answers": len(readings.of),
            "last_answer": asdict(receipt),
            "config": hash_of(readings.study.folder / KEY / "config.yaml"),
            "figures": rows,
            "claims": [
                {"of": claim.of, **asdict(claim.verdict), "p_holm": claim.holm, "shown_holm": claim.shown_of_all}
                for claim in found.claims
            ],
            "by_reader": forests,
            "tables": [asdict(table) for table in found.tables],
            "fabrica": __version__,
        }
    )
    return numbers


def _page(readings: Readings, found: Findings, numbers: Mapping[str, Any], receipt: Receipt) -> str:
    config = readings.study.config
    groups = [
        (group, _rows([row for row in found.rows if row.group == group]))
        for group in dict.fromkeys(row.group for row in found.rows)
    ]
    subject = f"{config.kind}: {', '.join(config.names)}; {len(readings.readers)} readers, {len(readings.cases)} cases"
    return filled(
        "study.html.jinja",
        title=config.title or "Reader study",
        subject=subject,
        report={"verdict": found.verdict, "warnings": found.warnings},
        claims=found.claims,
        p_value=p_value,
        groups=groups,
        forests=[_forest(forest) for forest in found.forests],
        plots=[_plot(plot) for plot in found.plots],
        tables=found.tables,
        exhibits=exhibits(readings),
        facts=_facts(readings),
        checklist=items(readings),
        holds=holds(config),
        numbers=json.dumps(numbers, indent=1, ensure_ascii=False),
        answers=len(readings.of),
        receipt=f"row {receipt.seq}, {receipt.hash[:16]}",
    )


def _rows(rows: Sequence[Finding]) -> list[dict[str, Any]]:
    """Of a group; what a figure is is explained once."""
    return [_row(row, row.key not in {before.key for before in rows[:place]}) for place, row in enumerate(rows)]


def _row(row: Finding, explained: bool) -> dict[str, Any]:
    of = row.estimate
    return {
        "name": row.name,
        "of": row.of,
        "explanation": row.explanation if explained else "",
        "value": number(of.value, row.percent),
        "interval": interval(of, row.percent),
        "p": p_value(of.p),
        "holm": p_value(row.holm),
        "corrected": bool(np.isfinite(row.holm)),
        "method": of.method,
        "note": of.note,
    }


def _forest(of: Forest) -> Chart:
    points = [Point(name, e.value, e.low, e.high) for name, e in of.rows]
    whole = Point("all readers", of.whole.value, of.whole.low, of.whole.high)
    said = "; ".join(f"{name} {number(e.value)}" for name, e in of.rows)
    alt = f"{of.title}: {said}; all readers {number(of.whole.value)}"
    svg = study_charts.forest(of.key, points, whole, axis=of.axis, null=of.null, alt=alt)
    return Chart(svg, f"{of.title}: {in_words(of.whole)}.")


def _plot(of: Plot) -> dict[str, Any]:
    lines = [Curve(s.name, s.x, s.y) for s in of.series]
    if of.kind == "bars":
        said = "; ".join(f"{s.name}: {', '.join(number(y, percent=True) for y in s.y)}" for s in of.series)
        svg = study_charts.bars(of.key, lines, words=of.words, x=of.x, y=of.y, alt=f"{of.title}: {said}")
    else:
        ticks = of.series[0].x if of.kind == "line" and of.series else ()
        said = "; ".join(f"{s.name} ends at {number(s.y[-1])}" for s in of.series) if of.kind == "line" else of.title
        square = of.kind == "roc"
        svg = study_charts.curves(of.key, lines, x=of.x, y=of.y, alt=said, diagonal=square, ticks=ticks)
    return {"svg": svg, "caption": f"{of.title}.", "square": of.kind == "roc"}


def _facts(readings: Readings) -> list[tuple[str, str]]:
    study, config = readings.study, readings.study.config
    times = sorted(reading.row.at for reading in readings.of)
    taken_back, late = (sum(getattr(r, name) for r in readings.every) for name in ("taken_back", "late"))
    look = study.look
    return [
        ("question", config.question),
        (
            "arms",
            "; ".join(
                f"{a.name}: {a.images or f'{a.model} of {a.of}' if not a.count else a.model}" for a in config.arms
            ),
        ),
        ("readers", ", ".join(readings.readers)),
        ("cases", f"{len(readings.cases)}, and {len(config.training)} for practice, {len(config.catch)} to catch"),
        ("allocation", f"{config.allocation}; washout {config.washout}, repeats {config.repeats}, seed {config.seed}"),
        ("shown", f"{look.low:g} (black) to {look.high:g} (white) {look.unit}, {look.bits} bits"),
        (
            "answers",
            f"{len(readings.of)}, from {times[0][:16]} to {times[-1][:16]} UTC; {taken_back} taken back"
            f"{f', {late} too late' if late else ''}",
        ),
        ("config", f"SHA-256 {hash_of(study.folder / KEY / 'config.yaml')[:16]}, unchanged since the study was made"),
        (
            "versions",
            f"Fabrica {__version__}, Python {platform.python_version()}, "
            f"{', '.join(f'{name} {version(name)}' for name in ('numpy', 'scipy'))}",
        ),
    ]
