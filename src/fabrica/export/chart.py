"""What each precision that was tried costs, as a picture."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence

import numpy as np

from fabrica.export.gate import ALLOWED
from fabrica.runtime.folder import Tried

PASSED, NOT = "#0072b2", "#d55e00"  # Okabe and Ito's blue and vermilion, told apart in all common colour blindness
LOSSES = {"psnr": "PSNR lost, dB", "dice": "Dice lost", "mae": "MAE lost, HU"}


def picture(
    tried: Mapping[str, Sequence[Tried]], speed: tuple[str, str] = ("faster", "times as fast as float32")
) -> bytes:
    """A PNG: for each graph its precisions from top to bottom, by size, speed and loss, the last one taken; what the
    gate allows is a dashed line. speed: which figure of `Tried` is shown for it, in which words; what is no number is
    left out."""
    from matplotlib.figure import Figure

    rows = sum(map(len, tried.values()))
    figure = Figure(figsize=(9.6, 1.2 * len(tried) + 0.34 * rows), layout="constrained")
    every = figure.subplots(
        len(tried),
        3,
        squeeze=False,
        sharey="row",
        gridspec_kw={"height_ratios": [len(each) for each in tried.values()]},
    )
    for axes, (graph, each) in zip(every, tried.items(), strict=True):
        key = next((name for name in LOSSES if any(getattr(one, name) is not None for one in each)), "off")
        loss = LOSSES.get(key, "mean distance from float32")
        panels = {"megabytes": "MB", speed[0]: speed[1], key: loss}
        colours = [PASSED if one.passed else NOT for one in each]
        for own, (name, words) in zip(axes, panels.items(), strict=True):
            values = [getattr(one, name) or 0.0 for one in each]
            own.barh(range(len(each)), values, color=colours, height=0.6)
            for place, value in enumerate(values):
                if np.isnan(value):
                    continue
                own.annotate(
                    f"{value:.3g}",
                    (max(value, 0.0), place),
                    (3, 0),
                    textcoords="offset points",
                    va="center",
                    fontsize=8,
                )
            own.set_xlabel(words)
            own.margins(x=0.18)
            own.spines[["top", "right"]].set_visible(False)
        if key in LOSSES:
            axes[2].axvline(getattr(ALLOWED, key), color="black", linestyle="--", linewidth=1, zorder=0)
            axes[2].set_title("dashed: the most that passes", loc="right", fontsize=8)
        axes[0].set_yticks(range(len(each)), [_named(one) for one in each])
        axes[0].set_ylim(len(each) - 0.5, -0.5)
        axes[0].set_title(graph, loc="left", fontsize=10)
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=110, metadata={"Software": None})
    return file.getvalue()


def _named(tried: Tried) -> str:
    left = f"{len(tried.floats)} left float" if tried.floats else ""
    return ", ".join(filter(None, (tried.precision, tried.ranges, left)))
