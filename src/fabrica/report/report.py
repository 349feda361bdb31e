"""Report: scores with intervals as JSON, as plain text, and as one HTML page that stands alone.

This module measures nothing: `synthesis` hands it the rows and the exhibits. The page asks for nothing from
anywhere: styles are inline, pictures are data: URIs, charts are inline SVG.
"""

from __future__ import annotations

import json
import math
import platform
import shlex
import textwrap
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
from fabrica.report.charts import Chart, Line, level, line_chart, png_uri, shown, training_charts, triptych

GRID_IMAGES, GRID_VOLUMES = 36, 6
TEMPLATE = "synthesis.html.jinja"
BESIDE = {  # what scores stand beside
    "identity": "source as it is",
    "mean": "mean image",
    "bilateral": "bilateral filter",
    "nlm": "non-local means",
    "tv": "total variation",
    "wiener": "Wiener's filter",
    "bicubic": "bicubic",
    "shrunk": "as many numbers",
    "another": "another's mask",
    "real": "real images",
}


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
class Row:
    """One score. `real` is the same score of real images put in the place of the synthetic ones, at the same N.

    better     "lower", "higher" or "near real".
    percent    shares that a person reads as per cent; value, low, high and real stay 0 to 1.
    baselines  the same score of what should be worse, by the keys of BESIDE.
    group      the heading that rows stand under; "" where there is one table.
    """

    key: str
    name: str
    value: float
    low: float | None
    high: float | None
    better: str
    explanation: str
    real: float | None = None
    percent: bool = False
    baselines: Mapping[str, float] = field(default_factory=dict)
    group: str = ""

    def text(self, value: float | None) -> str:
        """A value of this row as the page and the terminal show it."""
        if value is None or not math.isfinite(value):
            return "–"
        return f"{100 * value:.1f} %" if self.percent else shown(value)

    @property
    def interval(self) -> str:
        if self.low is None or self.high is None:
            return ""
        low, high = self.text(self.low).removesuffix(" %"), self.text(self.high)
        return f"[{low}, {high}]"

    @property
    def beside(self) -> dict[str, float]:
        """What the value is to be compared with, by the keys of BESIDE."""
        return {**self.baselines, **({} if self.real is None else {"real": self.real})}


@dataclass(frozen=True)
class Comparison:
    """A score of a model and another over the same patients: both means, one less two with its 95 % interval, and
    Wilcoxon's p.

    key, name, better, group   as in Row.
    other   "versus" for a second model, else a key of BESIDE; rival: its name on the page.
    """

    key: str
    name: str
    one: float
    two: float
    mean: float
    low: float
    high: float
    p: float
    better: str
    group: str = ""
    other: str = "versus"
    rival: str = ""


@dataclass(frozen=True)
class Report:
    """What `evaluate` found. `scores` is what stands in scores.json; `page` is report.html.

    judged        what the column of values is called.
    comparisons   to other models or baselines; () without any.
    """

    scores: dict[str, Any]
    rows: tuple[Row, ...]
    warnings: tuple[str, ...]
    page: Path
    verdict: str
    judged: str = "synthetic"
    comparisons: tuple[Comparison, ...] = ()

    @property
    def rivals(self) -> list[tuple[str, list[Comparison]]]:
        """(whom the model is compared with, in words, and how) in order."""
        names = dict.fromkeys((c.other, c.rival) for c in self.comparisons)
        return [(name[1], [c for c in self.comparisons if (c.other, c.rival) == name]) for name in names]

    @property
    def groups(self) -> list[tuple[str, list[Row], list[str]]]:
        """(heading, its rows, the keys of BESIDE that they have) in order."""
        found = []
        for group in dict.fromkeys(row.group for row in self.rows):
            rows = [row for row in self.rows if row.group == group]
            found.append((group, rows, [key for key in BESIDE if any(key in row.beside for row in rows)]))
        return found


@dataclass(frozen=True)
class Pair:
    """An image (C, *S) in [-1, 1] and its nearest training image, with their names and distance."""

    image: Float32
    nearest: Float32
    name: str
    nearest_name: str
    distance: float
    copied: bool = False


@dataclass(frozen=True)
class ClassScore:
    """The Frechet distance within one class; `real` as in Row. value is None where images are too few."""

    name: str
    real_count: int
    synthetic_count: int
    value: float | None
    real: float | None


@dataclass(frozen=True)
class CurvePoint:
    """Quality and cost of sampling with this many steps."""

    steps: int
    value: float
    low: float
    high: float
    seconds_per_image: float


@dataclass(frozen=True)
class Exhibits:
    """Everything on the page that is not a score. Arrays are float32 (N, C, *S) in [-1, 1]; spacing in mm, in the order
    of S, () if not known. texts: each with what the model drew for it, and the real image that it describes; masks:
    each (3, C, *S) a mask, what the model drew for it, and the real image that it is of."""

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
    spacing: Sequence[float] = ()


def write_report(
    out: Path,
    scores: Mapping[str, Any],
    rows: Sequence[Row],
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


def numbers(rows: Sequence[Row]) -> dict[str, Any]:
    """Rows as they stand in scores.json."""
    return {
        r.key: {"value": r.value, "low": r.low, "high": r.high, "real": r.real}
        | ({"baselines": dict(r.baselines)} if r.baselines else {})
        for r in rows
    }


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


def as_json(report: Report) -> str:
    """What stands in scores.json."""
    return json.dumps(report.scores, indent=2, ensure_ascii=False, allow_nan=False)


def finite(value: Any) -> Any:
    """The same mappings, lists and plain values, with NaN and infinity as None: JSON has no word for them."""
    if isinstance(value, Mapping):
        return {str(key): finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


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


def _strip(row: Row) -> dict[str, float] | None:
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


def scores_table(report: Report) -> str:
    """Verdict, warnings and scores as plain aligned text for a terminal."""
    lines = [textwrap.fill(report.verdict, 100)]
    for group, rows, keys in report.groups:
        head = ["score", report.judged, "95 % interval", *(BESIDE[key] for key in keys), "better"]
        body = [
            [r.name, r.text(r.value), r.interval, *(r.text(r.beside.get(key)) for key in keys), r.better] for r in rows
        ]
        lines += ["", *([group] if group else []), *_aligned([head, *body], left=(0, 2, 3 + len(keys)))]
    for rival, compared in report.rivals:
        head = ["score", "this", "other", "difference", "95 % interval", "p"]
        body = [
            [c.name, shown(c.one), shown(c.two), shown(c.mean), f"[{shown(c.low)}, {shown(c.high)}]", shown(c.p)]
            for c in compared
        ]
        lines += ["", f"against {rival}, the same patients", *_aligned([head, *body], left=(0, 4))]
    if report.warnings:
        lines.append("")
        lines += [textwrap.fill(f"warning: {w}", 100, subsequent_indent="  ") for w in report.warnings]
    return "\n".join(lines)


def _aligned(cells: Sequence[Sequence[str]], left: Sequence[int]) -> list[str]:
    """Lines of a table, a rule under its first; the columns `left` start at the left, the others end at the right."""
    widths = [max(len(row[k]) for row in cells) for k in range(len(cells[0]))]
    lines = [
        "  ".join(
            f"{text:<{width}}" if k in left else f"{text:>{width}}"
            for k, (text, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in cells
    ]
    return [lines[0], "-" * max(len(line) for line in lines), *lines[1:]]
