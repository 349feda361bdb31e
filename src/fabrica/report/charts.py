"""Pictures for reports: contact sheets as data: URIs, line charts as SVG that follows the page's colours."""

from __future__ import annotations

import base64
import io
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from markupsafe import Markup
from PIL import Image as Picture

from fabrica.image import Float32
from fabrica.io.contact_sheet import image_grid

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Bytes = npt.NDArray[np.uint8]

# Placeholder colours that `svg_of` swaps for the page's CSS variables, so that charts follow dark mode. The page's
# two series colours are Okabe and Ito's blue and vermilion, told apart in all common colour blindness.
INK, RULE, FIRST, SECOND = "#010203", "#040506", "#070809", "#0a0b0c"
_VARIABLES = {INK: "currentColor", RULE: "var(--rule)", FIRST: "var(--first)", SECOND: "var(--second)"}

STEP = "training step"
LOGGED = {  # column of a run's log -> its name in a chart, and a factor
    "loss": ("training", 1),
    "val_loss": ("held-out", 1),
    "frd": ("held-out FRD", 1),
    "kid": ("held-out KID × 1000", 1000),
    "real_accuracy": ("real images", 100),
    "fake_accuracy": ("synthetic images", 100),
    "ms_ssim": ("samples", 1),
}


@dataclass(frozen=True)
class Line:
    """One curve. `low` and `high` draw a band; `dashed` is for references."""

    name: str
    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float] = ()
    high: Sequence[float] = ()
    dashed: bool = False


@dataclass(frozen=True)
class Chart:
    """A drawing for the page, an <svg> element whose texts are escaped, and what stands below it."""

    svg: Markup
    caption: str


def shown(value: float) -> str:
    """About three significant digits, never 1e-05: 12,345, 123, 12.3, 1.23, 0.123, 0.000."""
    size = abs(value)
    digits = 0 if size >= 99.95 else 1 if size >= 9.995 else 2 if size >= 0.9995 else 3
    text = f"{value:{',' if size >= 10_000 else ''}.{digits}f}"
    return text.removeprefix("-") if size < 0.0005 else text


def triptych(sample: Float32, nearest: Float32, spacing: Sequence[float] = ()) -> Bytes:
    """Two images (C, *S) in [-1, 1] and their absolute difference: uint8 (H, W) or (H, W, 3).

    Side by side, or below each other for volumes, whose three planes need the width. In the difference black is
    equal and white is the whole range, black against white. spacing: of the voxels, see `image_grid`.
    """
    difference = np.abs(sample - nearest) - np.float32(1)
    return image_grid(np.stack([sample, nearest, difference]), columns=1 if sample.ndim == 4 else 3, spacing=spacing)


def png_uri(pixels: Bytes, widest: int = 1200) -> str:
    """A PNG as a data: URI, for pages that stand alone; wider pictures are shrunk to `widest` pixels."""
    picture = Picture.fromarray(pixels)
    if picture.width > widest:
        height = max(1, round(picture.height * widest / picture.width))
        picture = picture.resize((widest, height), Picture.Resampling.BOX)
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def line_chart(
    name: str,
    lines: Sequence[Line],
    *,
    x: str,
    y: str,
    alt: str,
    log_x: bool = False,
    log_y: bool = False,
    ticks: Sequence[float] = (),
) -> Markup:
    """An inline <svg> of at most two solid curves and dashed references.

    name     short and unique in the page: it prefixes the ids inside the drawing.
    x, y     axis labels with units. alt  what a person who cannot see the chart should know.
    ticks    where the x axis is marked; empty: matplotlib's choice.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 3.3), layout="constrained")
    axes = figure.subplots()
    colours = iter((FIRST, SECOND))
    for line in lines:
        colour = INK if line.dashed else next(colours)
        marker = "" if line.dashed or len(line.x) > 30 else "o"
        style = f"{marker}{'--' if line.dashed else '-'}"
        axes.plot(line.x, line.y, style, color=colour, label=line.name, linewidth=1.8, markersize=5)
        if len(line.low):
            axes.fill_between(line.x, line.low, line.high, color=colour, alpha=0.18, linewidth=0)
    if log_x:
        axes.set_xscale("log")
    if log_y:
        axes.set_yscale("log")
    if len(ticks):
        axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        axes.set_xticks([], minor=True)
    if log_y:
        _plain_ticks(axes.yaxis)
    dress(axes, x, y)
    if len(lines) > 1:
        figure.legend(loc="outside upper right", ncols=len(lines), frameon=False, labelcolor=INK)
    return svg_of(figure, name, alt)


def training_charts(log: Sequence[Mapping[str, float]], real: float | None) -> list[Chart]:
    """What a run's log holds: losses, or of a GAN its distance from held-out images, its critic and its diversity.

    real   MS-SSIM among real images, if known. What has fewer than two points is left out.
    """
    found = {key: _line(log, key) for key in LOGGED}
    charts = []
    if found["real_accuracy"] is None:  # the losses of two players say nothing of the images
        charts += _loss_chart(found["loss"], found["val_loss"])
    charts += [_distance_chart(key, line) for key in ("frd", "kid") if (line := found[key])]
    if (on_real := found["real_accuracy"]) and (on_fake := found["fake_accuracy"]):
        charts.append(_critic_chart(on_real, on_fake))
    if line := found["ms_ssim"]:
        charts.append(_diversity_chart(line, real))
    return charts


def _line(log: Sequence[Mapping[str, float]], key: str) -> Line | None:
    """A column of the log against training steps; None where it has fewer than two numbers."""
    name, factor = LOGGED[key]
    rows = [row for row in log if "step" in row and math.isfinite(row.get(key, math.nan))]
    return Line(name, [row["step"] for row in rows], [factor * row[key] for row in rows]) if len(rows) > 1 else None


def level(name: str, x: Sequence[float], y: float) -> Line:
    """A dashed reference along the whole chart."""
    return Line(name, [x[0], x[-1]], [y, y], dashed=True)


def _loss_chart(training: Line | None, heldout: Line | None) -> list[Chart]:
    lines = [line for line in (training, heldout) if line]
    if not lines:
        return []
    values = [y for line in lines for y in line.y]
    said = "; ".join(f"{line.name} from {shown(line.y[0])} to {shown(line.y[-1])}" for line in lines)
    svg = line_chart("loss", lines, x=STEP, y="loss", alt=f"Loss: {said}", log_y=_steep(values))
    if heldout is None:
        return [Chart(svg, "Training loss.")]
    caption = "Training loss and the loss on held-out images. Copying begins where the held-out curve turns up."
    return [Chart(svg, caption)]


def _distance_chart(name: str, line: Line) -> Chart:
    best, step = min(zip(line.y, line.x, strict=True))
    alt = f"{line.name}: from {shown(line.y[0])} to {shown(line.y[-1])}, lowest {shown(best)} at step {step:.0f}"
    svg = line_chart(name, [line], x=STEP, y=line.name, alt=alt, log_y=_steep(line.y))
    caption = (
        f"How far samples lay from held-out images; lower is better. The lowest, {shown(best)} at step {step:.0f}, is "
        "of the weights that were kept."
    )
    return Chart(svg, caption)


def _critic_chart(real: Line, fake: Line) -> Chart:
    alt = f"Images that the critic told apart: real {real.y[-1]:.0f} %, synthetic {fake.y[-1]:.0f} % at the end"
    lines = [real, fake, level("guessing", real.x, 50)]
    svg = line_chart("critic", lines, x=STEP, y="recognised, %", alt=alt)
    caption = (
        "The share of real and of synthetic images that the critic recognised as what they are. Where both stay near "
        "100 % it has won, and the generator may learn nothing more; 50 % is guessing."
    )
    return Chart(svg, caption)


def _diversity_chart(line: Line, real: float | None) -> Chart:
    alt = f"MS-SSIM among samples: from {shown(line.y[0])} to {shown(line.y[-1])}"
    lines = [line]
    if real is not None and math.isfinite(real):
        alt += f"; among real images {shown(real)}"
        lines.append(level("real images", line.x, real))
    svg = line_chart("diversity", lines, x=STEP, y="MS-SSIM", alt=alt)
    caption = "How alike samples were among each other. A rise well above real images is a collapse to a few pictures."
    return Chart(svg, caption)


def _steep(values: Sequence[float]) -> bool:
    """Whether a logarithmic axis shows more."""
    return min(values) > 0 and max(values) > 5 * min(values)


def _plain_ticks(axis: Any) -> None:
    """0.05 instead of 5 x 10^-2, at 1, 2 and 5 of each decade."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def dress(axes: Any, x: str, y: str) -> None:
    axes.set_xlabel(x, color=INK)
    axes.set_ylabel(y, color=INK)
    axes.grid(color=RULE, linewidth=0.8)
    axes.tick_params(which="both", colors=INK, length=0)
    axes.patch.set_visible(False)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(RULE)


def svg_of(figure: Figure, name: str, alt: str) -> Markup:
    """The figure as an <svg> element without addresses, with unique ids and the page's colours and font."""
    import matplotlib

    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
        nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(buffer, format="svg", transparent=True, metadata=nothing)
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    for colour, variable in _VARIABLES.items():
        text = text.replace(colour, variable)
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r'\bid="', f'id="{name}-', text)
    text = re.sub(r"url\(#", f"url(#{name}-", text)
    text = re.sub(r'xlink:href="#', f'href="#{name}-', text)
    text = re.sub(r"<style.*?</style>", "", text, flags=re.DOTALL)  # it would hold for the whole page
    text = re.sub(r"font-family: [^;\"]+", "font-family: inherit", text)
    head, body = text.split(">", 1)
    box = re.search(r'viewBox="[^"]+"', head)
    assert box is not None  # matplotlib always writes one
    return Markup(f'<svg role="img" aria-label="{escape(alt)}" {box[0]}>{body}')
