"""Report: scores with intervals as JSON, as plain text, and as one HTML page that stands alone.

This module measures nothing: `synthesis` hands it the rows and the exhibits. The page asks for nothing from
anywhere: styles are inline, pictures are data: URIs, charts are inline SVG.
"""

from __future__ import annotations

import math
import platform
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from fabrica import __version__
from fabrica.errors import FabricaError
from fabrica.image import Float32
from fabrica.io.atomic import atomic
from fabrica.io.contact_sheet import image_grid
from fabrica.report.charts import Bytes, Chart, Line, level, line_chart, png_uri, shown, training_charts, triptych
from fabrica.report.scores import ClassScore, CurvePoint, Pair, Report, ScoreRow, as_json, finite, numbers

GRID_IMAGES, GRID_VOLUMES = 36, 6
TEMPLATE = "synthesis.html.jinja"


def repeated(
    source: str, against: str, *, asked: int | None, extractor: str, seed: int, more: Sequence[str] = ()
) -> list[tuple[str, str]]:
    """How to repeat a report: the last lines of how it was measured. more: further words of the command."""
    line = ["fabrica", "evaluate", source, "--against", against, *more]
    line += ["-n", str(asked)] if asked is not None else []
    line += ["--extractor", extractor] if extractor != "radiomic" else []
    line += ["--seed", str(seed)] if seed else []
    libraries = ", ".join(f"{library} {version(library)}" for library in ("numpy", "scipy", "torch"))
    return [
        ("seed", str(seed)),
        ("command", shlex.join(line)),
        ("versions", f"Fabrica {__version__}, Python {platform.python_version()}, {libraries}"),
    ]


@dataclass(frozen=True)
class Exhibits:
    """Everything on the page that is not a score. Arrays are float32 (N, C, *S) in [-1, 1]; spacing in mm, in the order
    of S, () if not known. texts: each with what the model drew for it, and the real image that it describes; masks:
    each (3, C, *S) a mask, what the model drew for it, and the real image that it is of; differences: each what is told
    instead of what, and a sheet of it, uint8 (H, W, 3)."""

    title: str
    subject: str
    real: Float32
    synthetic: Float32
    window: str
    facts: Sequence[tuple[str, str]]
    measured: Sequence[tuple[str, str]]
    distance: str
    pairs: Sequence[Pair] = ()
    control: Sequence[Pair] = ()
    log: Sequence[Mapping[str, float]] = ()
    curve: Sequence[CurvePoint] = ()
    classes: Sequence[ClassScore] = field(default_factory=tuple)
    texts: Sequence[tuple[str, Float32]] = ()
    obeyed: Chart | None = None
    masks: Sequence[Float32] = ()
    differences: Sequence[tuple[str, Bytes]] = ()
    spacing: Sequence[float] = ()


def write_report(
    out: Path,
    scores: Mapping[str, Any],
    rows: Sequence[ScoreRow],
    warnings: Sequence[str],
    verdict: str,
    show: Exhibits,
) -> Report:
    """Write out/scores.json and out/report.html, each whole or not at all.

    scores   what is known beside the rows (names, counts, seed, ...); the rows are added under their keys.
             What is not a finite number becomes null.
    Raises FabricaError if the folder cannot be written.
    """
    everything = {**scores, **numbers(rows), "verdict": verdict, "warnings": list(warnings)}
    report = Report(finite(everything), tuple(rows), tuple(warnings), out / "report.html", verdict)
    keep(report, lambda: render(report, show))
    return report


def keep(report: Report, page: Callable[[], str], **more: str) -> None:
    """Write scores.json, report.html and `more` (name -> text, e.g. scores_csv) into the folder of report.page, each
    whole or not at all. Raises FabricaError if the folder cannot be written."""
    out = report.page.parent
    contents = {"scores.json": as_json(report) + "\n", report.page.name: page()}
    contents |= {name.replace("_", "."): text for name, text in more.items()}
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FabricaError(f"{out} cannot be the report's folder ({error.strerror}); choose another with -o") from error
    for name, content in contents.items():
        with atomic(out / name) as temporary:
            temporary.write_text(content, encoding="utf-8")


def render(report: Report, show: Exhibits) -> str:
    """The whole page."""
    volumes = show.real.ndim == 5
    count = GRID_VOLUMES if volumes else GRID_IMAGES
    columns = 1 if volumes else 6

    def grid(images: Float32) -> str:
        return png_uri(image_grid(images[:count], columns, spacing=show.spacing), widest=1000)

    def couple(images: Float32) -> str:
        return png_uri(image_grid(images, 1 if volumes else 2, spacing=show.spacing), widest=600)

    def triple(images: Float32) -> str:
        return png_uri(image_grid(images, 1 if volumes else 3, spacing=show.spacing), widest=900)

    def picture(pair: Pair) -> str:
        return png_uri(triptych(pair.image, pair.nearest, show.spacing), widest=900)

    return filled(
        TEMPLATE,
        title=show.title,
        subject=show.subject,
        report=report,
        show=show,
        shown=shown,
        strip=_strip,
        picture=picture,
        uri=png_uri,
        couple=couple,
        triple=triple,
        real_grid=grid(show.real),
        synthetic_grid=grid(show.synthetic),
        grid_count=(min(count, len(show.real)), min(count, len(show.synthetic))),
        volumes=volumes,
        charts=_charts(report, show),
        numbers=as_json(report),
    )


def filled(template: str, **values: Any) -> str:
    """A template of this package, filled. Every text is escaped: names and labels come from files that anybody may have
    written."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(template).render(**values)


def _strip(row: ScoreRow) -> dict[str, float] | None:
    """Where value, interval and real mark stand on a line from 0 to the largest of them, in per cent of it.

    None where there is nothing to compare with.
    """
    marks = [x for x in (row.value, row.low, row.high, row.real) if x is not None]
    if row.real is None or not all(math.isfinite(x) for x in marks):
        return None
    bottom, top = min(0.0, *marks), max(marks)
    if row.better == "higher":  # shares, 0 to 1
        top = max(1.0, top)
    width = (top - bottom) or 1.0

    def at(x: float | None) -> float:
        return round(96 * (row.value if x is None else x) / width - 96 * bottom / width + 2, 2)

    return {"value": at(row.value), "low": at(row.low), "high": at(row.high), "real": at(row.real)}


def _charts(report: Report, show: Exhibits) -> list[Chart]:
    charts = [_curve_chart(report, show)] if show.curve else []
    return charts + training_charts(show.log, _real(report, "ms_ssim"))


def _real(report: Report, key: str) -> float | None:
    """What real images score."""
    return next((row.real for row in report.rows if row.key == key), None)


def _curve_chart(report: Report, show: Exhibits) -> Chart:
    steps = [point.steps for point in show.curve]
    values = [point.value for point in show.curve]
    lines = [
        Line("synthetic", steps, values, [p.low for p in show.curve], [p.high for p in show.curve]),
    ]
    floor = _real(report, "frechet")
    if floor is not None:
        lines.append(level("real images", steps, floor))
    said = "; ".join(f"{p.steps} steps {shown(p.value)}" for p in show.curve)
    alt = f"{show.distance} against sampler steps: {said}"
    svg = line_chart("steps", lines, x="sampler steps", y=show.distance, alt=alt, log_x=True, ticks=steps)
    caption = "Quality against the number of sampler steps. The band is the 95 % interval"
    return Chart(svg, caption + ("." if floor is None else "; the dashed line is what real images score."))
