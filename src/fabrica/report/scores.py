"""Scores as data: rows with intervals and what stands beside them, written as JSON and as a table."""

from __future__ import annotations

import json
import math
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fabrica.image import Float32
from fabrica.report.charts import shown

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


@dataclass(frozen=True)
class ScoreRow:
    """One score. `real` is the same score of real images put in the place of the synthetic ones, at the same N.

    better     "lower", "higher", "near real" or "near 0".
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
    rows: tuple[ScoreRow, ...]
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
    def groups(self) -> list[tuple[str, list[ScoreRow], list[str]]]:
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


def numbers(rows: Sequence[ScoreRow]) -> dict[str, Any]:
    """Rows as they stand in scores.json."""
    return {
        r.key: {"value": r.value, "low": r.low, "high": r.high, "real": r.real}
        | ({"baselines": dict(r.baselines)} if r.baselines else {})
        for r in rows
    }


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
