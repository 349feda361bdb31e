"""python -m benchmarks.compare OUT.json NAME=RUN:REPORT ...: models trained on the same images, side by side.

RUN is a model folder that `fabrica train` wrote, REPORT the folder of its `fabrica evaluate`. Writes what
docs/synthesis.md shows, as JSON, and prints it as a table.
"""

from __future__ import annotations

import json
import statistics
import sys
from pathlib import Path
from typing import Any

from fabrica.recipe.folder import read_log

SCORES = ("frechet", "kid_x1000", "precision", "recall", "coverage", "ms_ssim", "copy_rate", "milliseconds_per_image")


def collected(run: Path, report: Path) -> dict[str, Any]:
    scores = json.loads((report / "scores.json").read_text(encoding="utf-8"))
    rows = read_log(run / "log.csv")
    return {
        **{key: scores[key] for key in SCORES},
        "n": scores["n_synthetic"],
        "copies": scores["copies"],
        "steps": rows[-1]["step"],
        "minutes": round(rows[-1]["seconds"] / 60, 1),
        "trained_images": rows[-1]["images"],
        "trained_images_per_s": round(statistics.median(row["images_per_s"] for row in rows)),
    }


def table(models: dict[str, dict[str, Any]]) -> str:
    """Markdown, a model a line; the last line is what real images score in the place of the first model's."""

    def line(name: str, found: dict[str, Any], key: str) -> str:
        frd, kid = found["frechet"], found["kid_x1000"]
        if key == "value":
            first = f"{frd['value']:.1f} [{frd['low']:.1f}, {frd['high']:.1f}]"
            last = [f"{found['copies']} of {found['n']}", f"{found['trained_images_per_s']}"]
            last.append(f"{1000 / found['milliseconds_per_image']['value']:.0f}")
        else:
            first, last = f"{frd[key]:.1f}", [f"{found['copy_rate'][key]:.1%}", "", ""]
        middle = [f"{kid[key]:.0f}", *(f"{found[part][key]:.2f}" for part in ("precision", "recall", "coverage"))]
        return "| " + " | ".join([name, first, *middle, f"{found['ms_ssim'][key]:.3f}", *last]) + " |"

    head = ["", "FRD", "KID × 1000", "precision", "recall", "coverage", "MS-SSIM", "copies"]
    head += ["images/s in training", "images/s in sampling"]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    lines += [line(name, found, "value") for name, found in models.items()]
    return "\n".join([*lines, line("real images", next(iter(models.values())), "real")])


if __name__ == "__main__":
    out, *named = sys.argv[1:]
    models = {}
    for item in named:
        name, _, folders = item.partition("=")
        run, _, report = folders.partition(":")
        models[name] = collected(Path(run), Path(report))
    Path(out).write_text(json.dumps(models, indent=2) + "\n", encoding="utf-8")
    print(table(models))
