"""An explanation as a folder: maps as PNG, arrays, explanation.json, and a page where the packages for it are there."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from fabrica import __version__, io
from fabrica.errors import FabricaError
from fabrica.evaluation.explanation import pictures
from fabrica.evaluation.explanation.differences import Difference
from fabrica.evaluation.explanation.lesions import Score, Truth
from fabrica.evaluation.explanation.parts import Part, Parts
from fabrica.image import Image
from fabrica.io.atomic import atomic
from fabrica.io.contact_sheet import Uint8, save_picture

PAGE, FACTS = "report.html", "explanation.json"
NEEDED = ("jinja2", "markupsafe")  # for the page


@dataclass(frozen=True)
class Explanation:
    """What was explained. facts: what explanation.json says; page: None where nothing could write one; summary: for a
    terminal."""

    folder: Path
    facts: dict[str, Any]
    summary: str
    page: Path | None = None


@dataclass(frozen=True, eq=False)
class Section:
    """Of the page: pictures with what stands below each, and (name, value) of what was measured."""

    title: str
    text: str
    pictures: Sequence[tuple[str, Uint8]]
    facts: Sequence[tuple[str, str]]


def number(value: float, unit: str = "") -> str:
    """Three significant digits."""
    if not math.isfinite(value):
        return "–"
    text = f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"
    return f"{text}{' ' * bool(unit)}{unit}"


def write_differences(
    model: Any,
    found: Sequence[Difference],
    known: Sequence[tuple[Truth, Score] | None],
    out: Path,
    more: dict[str, Any],
) -> Explanation:
    """Of images of noise. model: a `Synthesises`; known: where findings truly lie, None where nobody knows."""
    unit = "" if model.codec.unit == "arbitrary" else model.codec.unit
    sections: list[Section] = []
    facts: list[dict[str, Any]] = []
    lines: list[str] = []
    make(out)
    for one, true in zip(found, known, strict=True):
        stem = _stem(one.comparison.name, [each["files"][0] for each in facts])
        sheet = pictures.differences(one, true[0] if true else None)
        arrays = {
            "told": one.told,
            "instead": one.instead,
            "difference": one.maps,
            "mean": one.mean,
            "error": one.error,
        }
        arrays |= {"seeds": np.array(one.seeds)}
        arrays |= {"true_area": true[0].areas, "true_difference": true[0].changes} if true else {}
        files = [f"{stem}.png", f"{stem}.npz"]
        save_picture(sheet, out / files[0])
        _save_arrays(out / files[1], arrays)
        if one.mean.ndim == 3:
            files.append(f"{stem}.nii.gz")
            io.write(Image(one.mean[None].astype(np.float32), model.affine), out / files[2], synthetic=True)
        share = one.share
        facts.append(
            {
                "name": one.comparison.name,
                "seeds": [int(one.seeds[0]), int(one.seeds[-1])],
                "told": [words[0] for words in one.words],
                "instead": [words[1] for words in one.words],
                "unit": unit,
                "mean_difference": one.size,
                "of_two_seeds": share,
                "mean_map": [float(one.mean.min()), float(one.mean.max())],
                "score": asdict(true[1]) if true else None,
                "files": files,
            }
        )
        said = f"mean |difference| {number(one.size, unit)}"
        said += f", {number(100 * share)} % of that between two seeds" if share is not None else ""
        if true:
            said += f"; {_scored(true[1])}"
        lines.append(f"{one.comparison.name}: {said} (N = {len(one.seeds)})")
        sections.append(_difference_section(one, true, sheet, unit, share))
    title = f"What {model.name} draws for what it is told"
    how = (
        "The same seeds drawn twice, told something and told something else; all else, noise included, is the same. "
        "A difference says what the words change in this model, and nothing of patients."
    )
    scores = [true[1] for true in known if true]
    return _finished(model, out, title, how, sections, scores, {"comparisons": facts, **more}, lines)


def _scored(score: Score) -> str:
    curve, low, high = score.area_under_curve
    return (
        f"AUC {curve:.2f} [{low:.2f}, {high:.2f}] (chance 0.50, a perfect generator {score.perfect:.2f}, two seeds "
        f"{score.between_seeds:.2f}), hits {100 * score.hits[0]:.0f} % (chance {100 * score.chance:.0f} %, a perfect "
        f"generator {100 * score.perfect_hits:.0f} %)"
    )


def _difference_section(
    one: Difference, true: tuple[Truth, Score] | None, sheet: Uint8, unit: str, share: float | None
) -> Section:
    columns = "told something else, told this, the difference" + (", and the true one of a phantom" if true else "")
    shade, mean = pictures.end_of(one.maps), pictures.end_of(one.mean)
    caption = (
        f"A row a seed, in order and not chosen; from left to right: {columns}. Orange is brighter, blue darker, "
        f"black the same; colours end at ±{number(shade, unit)}. "
    )
    caption += (
        f"The last row: means of all {len(one.seeds)}, ending at ±{number(mean, unit)}." if len(one.seeds) > 1 else ""
    )
    told, instead = one.words[0] if one.words else ({}, {})
    facts = [("told", _words(told)), ("instead", _words(instead))]
    if len({str(words) for words in one.words}) > 1:
        facts = [(f"{name}, the first of them", value) for name, value in facts]
    facts.append(("mean |difference|", number(one.size, unit)))
    if share is not None:
        facts.append(("of the difference between two seeds", f"{number(100 * share)} %"))
    return Section(one.comparison.name, "", [(caption, sheet)], facts)


def _words(told: Mapping[str, str]) -> str:
    return "; ".join(f"{name}: {value}" for name, value in told.items() if value) or "nothing"


def write_parts(model: Any, found: Parts, name: str, out: Path, more: dict[str, Any]) -> Explanation:
    """Of what a model makes of an image. model: a `Translates`; name: of the image."""
    sections: list[Section] = []
    facts: list[dict[str, Any]] = []
    lines: list[str] = []
    make(out)
    flat = len(found.seen.image.size) == 2
    for one in found.parts:
        stem = _stem(one.name, [each["stem"] for each in facts])
        shown = pictures.parts(found, one)
        files = []
        for what, pixels in shown.items():
            files.append(f"{stem}-{what.replace(' ', '-')}.png")
            save_picture(pixels, out / files[-1])
        maps = {"occlusion": one.moved, "contribution": one.added}
        maps |= {"gradients": one.gradients.map.sum(0)} if one.gradients else {}
        for what, values in maps.items() if not flat else ():
            files.append(f"{stem}-{what}.nii.gz")
            io.write(found.seen.on_image(values), out / files[-1], translated=True)
        if flat:
            files.append(f"{stem}.npz")
            _save_arrays(out / files[-1], {what: found.seen.on_image(values).data[0] for what, values in maps.items()})
        facts.append({"stem": stem, **_part_facts(one), "files": files})
        sections.append(Section(one.name, "", _captioned(one, shown, found), _said(one)))
        lines.append(f"{one.name}: {'; '.join(f'{key} {value}' for key, value in _said(one))}")
    _save_arrays(out / "seen.npz", {"input": found.seen.values, "answer": found.answer, "region": found.seen.region})
    window = " × ".join(map(str, found.window))
    hidden = {"mean": "the mean of what lies around it", "empty": "the lowest value (air, black)"}[found.fill]
    more = {"image": name, "window": list(found.window), "stride": list(found.stride), "fill": found.fill, **more}
    more |= {"corner": list(found.seen.corner), "plane": found.seen.plane, "seen": list(found.seen.values.shape[1:])}
    how = (
        f"Occlusion: windows of {window} of the {' × '.join(map(str, found.seen.values.shape[1:]))} pixels that the "
        f"network sees, in steps of {' × '.join(map(str, found.stride))}, each replaced by {hidden}; a pixel shows "
        "the mean effect of the windows over it, so that nothing finer than a window can be seen. A map says what this "
        "network used, not whether that was right."
    )
    return _finished(model, out, f"What {model.name} looks at", how, sections, [], {"parts": facts, **more}, lines)


def _part_facts(one: Part) -> dict[str, Any]:
    along = one.gradients
    return {
        "name": one.name,
        "unit": one.unit,
        "most_moved": float(one.moved.max()),
        "share_near": one.share,
        "chance_near": one.chance,
        "gradients": along
        and {
            "sum": along.total,
            "expected": along.expected,
            "gap": along.gap,
            "complete": along.complete,
            "steps": along.steps,
        },
    }


def _said(one: Part) -> list[tuple[str, str]]:
    said = [("most that hiding a place changes", number(float(one.moved.max()), one.unit))]
    if one.share is not None and one.chance is not None:
        there = f"{100 * one.share:.0f} % (of the image {100 * one.chance:.0f} %)"
        said.append(("of all change within half a window of what is explained", there))
    if one.gradients:
        total, wanted = number(one.gradients.total, one.unit), number(one.gradients.expected, one.unit)
        kept = "complete" if one.gradients.complete else "NOT complete: do not rely on its values"
        said.append(("integrated gradients", f"sum {total}, should be {wanted}: {kept} ({one.gradients.steps} steps)"))
    return said


def _captioned(one: Part, shown: Mapping[str, Uint8], found: Parts) -> list[tuple[str, Uint8]]:
    end = number(pictures.end_of(one.moved), one.unit)
    marked = "" if found.seen.region[found.seen.inside].all() else "; the green line is the region asked about"
    captions = {
        "input": f"what the network sees{marked}",
        "answer": "its answer" if found.seen.way.target.kind != "label" else f"its answer: {one.name}",
        "occlusion": f"change of the answer where a place is hidden, from black, none, to pale, {end}",
        "over the input": "the same, laid over the input",
    }
    if one.gradients:
        end = number(pictures.end_of(one.gradients.map.sum(0)), one.unit)
        captions["gradients"] = f"integrated gradients: orange adds to the answer, blue takes from it, ends at ±{end}"
    return [(captions[name], pixels) for name, pixels in shown.items()]


def _finished(
    model: Any,
    out: Path,
    title: str,
    how: str,
    sections: Sequence[Section],
    scores: Sequence[Score],
    facts: dict[str, Any],
    lines: Sequence[str],
) -> Explanation:
    everything = {"fabrica": __version__, "model": model.name, "model_hash": model.hash, **facts}
    everything = _finite(everything)
    _write(out / FACTS, json.dumps(everything, indent=2, ensure_ascii=False, allow_nan=False) + "\n")
    summary = "\n".join(lines)
    if not all(find_spec(package) for package in NEEDED):
        return Explanation(out, everything, summary)
    from fabrica.report.explanation import explanation_page

    recipe = getattr(model, "recipe", None)  # of what is no more than a `Translates` nothing is known
    about = [("model", f"{model.name}{f' ({model.method_name})' if recipe else ''}, {model.hash}")]
    about += [("trained on", str(recipe.data.source))] if recipe and recipe.data.source else []
    about += [("Fabrica", __version__)]
    _write(out / PAGE, explanation_page(title, how, sections, scores, about))
    return Explanation(out, everything, summary, out / PAGE)


def make(out: Path) -> None:
    """The folder. Raises FabricaError where it cannot be one."""
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FabricaError(f"{out} cannot be the folder ({error.strerror}); choose another with -o") from error


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _stem(name: str, taken: Sequence[str]) -> str:
    """A file's name without its end, that no other has."""
    plain = re.sub(r"[^\w]+", "-", name.lower()).strip("-")[:60] or "map"
    found, k = plain, 2
    while any(each.rsplit(".", 1)[0] == found for each in taken):
        found, k = f"{plain}-{k}", k + 1
    return found


def _save_arrays(path: Path, arrays: Mapping[str, Any]) -> None:
    with atomic(path) as temporary:
        np.savez_compressed(temporary, **arrays)


def _write(path: Path, text: str) -> None:
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
