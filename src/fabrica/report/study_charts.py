"""Charts of a reader study: forest plots, curves and shares, as SVG that follows the page's colours."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from markupsafe import Markup

from fabrica.report.charts import FIRST, INK, RULE, SECOND, dress, svg_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLOURS = (FIRST, SECOND, "#009e73", "#cc79a7", "#a08a00", "#8c6bb1", "#7f7f7f")
"""The page's two, then more of Okabe and Ito's and others of middle brightness, seen on light and on dark."""
MARKS = "os^Dv*P"


@dataclass(frozen=True)
class Point:
    """A row of a forest plot; low and high may be NaN."""

    name: str
    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Curve:
    name: str
    x: Sequence[float]
    y: Sequence[float]


def forest(name: str, rows: Sequence[Point], whole: Point, *, axis: str, null: float | None, alt: str) -> Markup:
    """Each reader's figure with its interval, and that of all below them as a diamond; null: a dashed line."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 1.0 + 0.34 * (len(rows) + 1)), layout="constrained")
    axes = figure.subplots()
    for place, row in enumerate(rows):
        if math.isfinite(row.low):
            axes.plot([row.low, row.high], [place, place], color=FIRST, linewidth=2, alpha=0.55, solid_capstyle="round")
        if math.isfinite(row.value):
            axes.plot([row.value], [place], "o", color=FIRST, markersize=6)
    last = len(rows)
    if math.isfinite(whole.value):
        low, high = (whole.low, whole.high) if math.isfinite(whole.low) else (whole.value, whole.value)
        axes.fill(
            [low, whole.value, high, whole.value], [last, last - 0.28, last, last + 0.28], color=SECOND, linewidth=0
        )
        axes.plot([whole.value], [last], "o", color=SECOND, markersize=4)
    if null is not None:
        axes.axvline(null, color=INK, linestyle="--", linewidth=1)
    axes.set_yticks(range(last + 1), [*(row.name for row in rows), whole.name])
    axes.set_ylim(last + 0.6, -0.6)
    dress(axes, axis, "")
    axes.grid(visible=False, axis="y")
    return svg_of(figure, name, alt)


def curves(
    name: str, lines: Sequence[Curve], *, x: str, y: str, alt: str, diagonal: bool = False, ticks: Sequence[float] = ()
) -> Markup:
    """Lines, at most as many as there are colours in turn; diagonal: of a ROC or VGC curve, from 0 to 1."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.6, 4.6) if diagonal else (6.4, 3.3), layout="constrained")
    axes = figure.subplots()
    if diagonal:
        axes.plot([0, 1], [0, 1], "--", color=RULE, linewidth=1.2)
        axes.set_aspect("equal")
        axes.set_xlim(-0.02, 1.02)
        axes.set_ylim(-0.02, 1.02)
    for k, line in enumerate(lines):
        colour = COLOURS[k % len(COLOURS)]
        mark = "" if diagonal else MARKS[k % len(MARKS)]
        axes.plot(line.x, line.y, f"{mark}-", color=colour, label=line.name, linewidth=1.8, markersize=5)
    if len(ticks):
        axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    dress(axes, x, y)
    _legend(figure, len(lines), 3 if diagonal else 4)
    return svg_of(figure, name, alt)


def bars(name: str, groups: Sequence[Curve], *, words: Sequence[str], x: str, y: str, alt: str) -> Markup:
    """Shares of each word, a bar a group beside one another."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 3.3), layout="constrained")
    axes = figure.subplots()
    width = 0.8 / max(len(groups), 1)
    for k, group in enumerate(groups):
        places = [i + (k - (len(groups) - 1) / 2) * width for i in range(len(group.y))]
        axes.bar(places, group.y, width=0.9 * width, color=COLOURS[k % len(COLOURS)], label=group.name)
    most = max(6, 60 // max(len(words), 1))  # letters below each
    short = [word if len(word) <= most else word[: most - 1] + "…" for word in words]
    axes.set_xticks(range(len(words)), short)
    dress(axes, x, y)
    axes.grid(visible=False, axis="x")
    axes.set_axisbelow(True)
    _legend(figure, len(groups), 4)
    return svg_of(figure, name, alt)


def _legend(figure: Figure, number: int, columns: int) -> None:
    if number > 1:
        figure.legend(loc="outside upper center", ncols=min(number, columns), frameon=False, labelcolor=INK)
