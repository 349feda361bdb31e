"""Judge a model that translates: each result beside the true image, and all of them beside real ones as a set.

Scores of pairs are those of the SynthRAD challenges, inside the body, by patient. No score stands alone: beside it are
the source as it is, the mean training image, and, for sets, real images of other patients. Restoration is judged alike,
beside classics that learn nothing (`classics`) instead of the mean image.
"""

from __future__ import annotations

from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

from fabrica import __version__
from fabrica.data.dataset import mean_image
from fabrica.errors import UsageError
from fabrica.evaluation.subject import opened
from fabrica.evaluation.translation import accuracy, set_distances
from fabrica.evaluation.translation.cases import directions, learnt, open_cases, restores
from fabrica.evaluation.translation.classical_filters import TUNED, ClassicalFilters, tuned
from fabrica.evaluation.translation.gallery import gallery
from fabrica.evaluation.translation.restoration_panels import Restoring
from fabrica.evaluation.translation.wording import OneWay, TranslationTrial, about, measured, verdict, warnings
from fabrica.metrics import extractors
from fabrica.model.translation import TranslationModel
from fabrica.nets.device import default_device
from fabrica.progress import Progress
from fabrica.recipe.folder import read_log
from fabrica.report.charts import Chart, shown, training_charts
from fabrica.report.report import filled, keep
from fabrica.report.scores import BESIDE, Report, as_json, finite, numbers

TEMPLATE = "translation.html.jinja"
OPTIONS = ("versus",)  # of `fabrica.evaluation.evaluate`, that mean something here


def evaluate(
    model: TranslationModel | Path | str,
    against: str | Path | None = None,
    out: str | Path = "report",
    *,
    versus: TranslationModel | Path | str | None = None,
    n: int | None = None,
    split: str = "test",
    extractor: str = "radiomic",
    seed: int = 0,
    progress: Progress | None = None,
) -> Report:
    """Translate held-out images and score them; write report.html, scores.json and scores.csv (image by image).

    n   at most so many test images, drawn at random; None: all of them.
    The rest is as in `fabrica.evaluation.evaluate`. Raises UsageError.
    """
    tell = progress or (lambda what, done, total: None)
    model = _translator(model)
    rival = None if versus is None else _rival(model, versus)
    measure = extractors.extractor(extractor, str(default_device()))
    if all(model.way(way).target.kind == "label" for way in directions(model)):
        raise UsageError(f"model {model.name} makes label maps, which have no score here; see them with fabrica apply")
    held_out = open_cases(model, str(against) if against else model.data.source, split, n, seed)
    if rival and not held_out.paired:
        raise UsageError(f"versus (--versus) needs test images in pairs, and {held_out.config.source} has none")
    Path(out).mkdir(parents=True, exist_ok=True)  # a place that cannot be written is better known now than later
    trial = TranslationTrial(model, rival, held_out, measure, n, seed, {})
    trial = replace(trial, ways={way: _one_way(trial, way, tell) for way in directions(model)})
    return _written(trial, Path(out))


def _one_way(trial: TranslationTrial, way: str, tell: Progress) -> OneWay:
    """Score one direction: pair by pair where there are pairs, and as sets where the result has grey values."""
    model, held_out, seed, units = trial.model, trial.held_out, trial.seed, _units(trial.model, way)
    one, as_set = _groups(model, way)
    prefix = "" if way == "a2b" else f"{way}_"
    grey = model.way(way).target.kind != "label"
    train = set_distances.training(model, held_out, way[-1], tell)
    filters = _classics(trial, tell) if restores(model, way) and held_out.paired else None
    mean = mean_image(train) if train and grey and not filters else None
    simplest = partial(accuracy.simplest, way=model.way(way), mean=mean)
    rival = trial.versus if trial.versus and way in directions(trial.versus) else None
    scored = accuracy.score(model, held_out.cases[way], way, filters.answers if filters else simplest, rival, tell)
    best = Restoring(filters, _best(scored, filters)) if filters else None
    pictures = gallery(model, held_out.cases[way], scored, way, one, seed, tell, best)
    rows = [accuracy.gain(scored, one, seed)] if best else []
    rows += accuracy.rows(scored, one, prefix, units, seed) + ([pictures.row] if pictures.row else [])
    rows += accuracy.without(scored, seed)
    notes = [] if train else ["the training images are not there: neither their mean nor real ones stand beside"]
    notes += [best.filters.note] if best and best.filters.note else []
    comparisons = [
        item
        for other, name in _rivals(scored, best, rival).items()
        for item in accuracy.comparisons(scored, other, name, one, prefix, units, seed)
    ]
    if grey:
        asked = {"n": trial.asked, "seed": seed, "tell": tell}
        sets, said = set_distances.rows(model, held_out, way, train, trial.extractor, as_set, **asked)  # type: ignore[arg-type]
        rows, notes = [*rows, *sets], [*notes, *said]
    return OneWay(scored, pictures, rows, comparisons, notes, best)


def _classics(trial: TranslationTrial, tell: Progress) -> ClassicalFilters:
    """The classics, tuned on pairs that are not judged where there are any."""
    model, held_out = trial.model, trial.held_out
    cases, split = learnt(model, held_out, trial.seed, TUNED)
    found = tuned(model.way("a2b"), model.data.degrade, cases, split, tell)
    if split != held_out.split:
        return found
    return replace(found, note="the classics are tuned on the very images that are judged, which flatters them")


def _rivals(scored: accuracy.Scored, best: Restoring | None, versus: TranslationModel | None) -> dict[str, str]:
    """Whom the model is compared with by paired tests: the name in `scored.of` -> that on the page."""
    found = {}
    if best:
        found = {"identity": "what came in", best.best: f"the best classic, {BESIDE[best.best]}"}
    if versus and "versus" in scored.of:
        found["versus"] = versus.name
    return found


def _best(scored: accuracy.Scored, filters: ClassicalFilters) -> str:
    """The classic with the highest mean PSNR on the very test images: no choice is kinder to the classics."""
    return max(filters.chosen, key=lambda key: scored.mean(key, "psnr"))


def _translator(model: TranslationModel | Path | str) -> TranslationModel:
    found = opened(model)
    if not isinstance(found, TranslationModel):
        raise UsageError(f"{getattr(found, 'folder', found)} is no model that translates")
    return found


def _rival(model: TranslationModel, versus: TranslationModel | Path | str) -> TranslationModel:
    """The second model; UsageError where it does not answer the same question."""
    other = _translator(versus)
    ours, theirs = model.data, other.data
    if (ours.a, ours.b, model.codec_b.unit) != (theirs.a, theirs.b, other.codec_b.unit):
        raise UsageError(
            f"{model.name} translates {ours.a} to {ours.b} and {other.name} {theirs.a} to {theirs.b}; "
            "versus needs two models of the same task"
        )
    if strange := [name for name in theirs.auxiliary if name not in ours.auxiliary]:
        raise UsageError(
            f"{other.name} sees {', '.join(strange)} beside the image and {model.name} does not; "
            f"judge {other.name}, versus {model.name}"
        )
    return other


def _groups(model: TranslationModel, direction: str) -> tuple[str, str]:
    """The headings of the scores pair by pair, and of those as sets."""
    data = model.data
    source, target = (data.a, data.b) if direction == "a2b" else (data.b, data.a)
    return f"{source} → {target}: each image", f"{source} → {target}: as sets"


def _units(model: TranslationModel, direction: str) -> tuple[str, str]:
    """Of source and target, "" where there is none to speak of."""
    way = model.way(direction)
    source, target = ("HU" if codec.unit == "HU" else "" for codec in (way.source, way.target))
    return source, target


def _written(trial: TranslationTrial, out: Path) -> Report:
    told, said = verdict(trial), warnings(trial)
    everything = {**_facts(trial), **numbers(trial.rows), "verdict": told, "warnings": said}
    report = Report(
        finite(everything),
        tuple(trial.rows),
        tuple(said),
        out / "report.html",
        told,
        "restored" if restores(trial.model) else "translated",
        tuple(trial.comparisons),
    )
    keep(
        report,
        lambda: _page(trial, report),
        scores_csv=accuracy.table({name: way.scored for name, way in trial.ways.items()}),
    )
    return report


def _facts(trial: TranslationTrial) -> dict[str, Any]:
    """What scores.json says beside the scores."""
    first = trial.first
    facts: dict[str, Any] = {
        "fabrica": __version__,
        "subject": trial.model.name,
        "model_hash": trial.model.hash,
        "against": trial.held_out.config.source,
        "split": trial.held_out.split,
        "paired": trial.held_out.paired,
        "directions": list(trial.ways),
        "n_images": len(first.ids),
        "n_patients": len(set(first.patients)),
        "n_body_masks": first.declared,
        "n_uncertainty": trial.ways["a2b"].gallery.doubted,
        "extractor": trial.extractor.name,
        "seed": trial.seed,
    }
    if trial.versus:
        facts["versus"] = {"subject": trial.versus.name, "model_hash": trial.versus.hash, **_compared(trial, "versus")}
    if beside := trial.ways["a2b"].beside:
        facts["gain"] = _compared(trial, "identity")
        facts["best_classic"] = {"name": beside.best, **_compared(trial, beside.best)}
        facts["classics"] = {key: classic.said for key, classic in beside.filters.chosen.items()}
    return facts


def _compared(trial: TranslationTrial, other: str) -> dict[str, Any]:
    """The comparisons with one other as they stand in scores.json, by metric."""
    said = ("key", "group", "other", "rival")
    return {
        item.key: {k: v for k, v in asdict(item).items() if k not in said}
        for item in trial.comparisons
        if item.other == other
    }


def _page(trial: TranslationTrial, report: Report) -> str:
    data = trial.model.data
    task = "restores degraded images" if restores(trial.model) else f"translates {data.a} to {data.b}"
    task = f"restores {data.a} to {data.b}" if restores(trial.model) and not data.restores else task
    return filled(
        TEMPLATE,
        title=trial.model.name,
        subject=f"A model that {task}, on held-out images of {trial.held_out.config.source}",
        restores=restores(trial.model),
        report=report,
        galleries=[way.gallery for way in trial.ways.values()],
        paired=trial.held_out.paired,
        beside=BESIDE,
        charts=_charts(trial.model),
        facts=about(trial.model),
        measured=measured(trial),
        numbers=as_json(report),
        shown=shown,
    )


def _charts(model: TranslationModel) -> list[Chart]:
    return training_charts(read_log(model.folder / "log.csv"), None)
