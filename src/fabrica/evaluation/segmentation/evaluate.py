"""Judge a model that segments: each label map beside the true one, class by class and patient by patient.

What counts where a class is absent, missed or made up is the rule of `fabrica.metrics.segmentation`, which the page
repeats. The worst cases are shown first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from fabrica import __version__
from fabrica.data.cases import in_numbers
from fabrica.data.planning import ignored
from fabrica.errors import UsageError
from fabrica.evaluation.segmentation.accuracy import Accuracy, rows, summary, table, without
from fabrica.evaluation.segmentation.cases import ScoredCase, scored
from fabrica.evaluation.segmentation.panels import HOW, overlays
from fabrica.evaluation.segmentation.versus import comparisons, rival, said_of
from fabrica.evaluation.subject import alarms, opened
from fabrica.evaluation.translation.cases import Case, Cases, HeldOutCases, open_cases
from fabrica.image import Image
from fabrica.io.palette import colours, hexed
from fabrica.metrics.segmentation import TOLERANCE
from fabrica.metrics.surfaces import Mask
from fabrica.model.segmentation import SegmentationModel
from fabrica.progress import Progress
from fabrica.recipe.folder import ALARMS, read_log
from fabrica.recipe.plan import Plan
from fabrica.report.charts import png_uri, shown, training_charts
from fabrica.report.pictures import Exhibit, Picture
from fabrica.report.report import filled, keep, repeated
from fabrica.report.scores import Comparison, Report, as_json, finite, numbers

TEMPLATE = "segmentation.html.jinja"
OPTIONS = ("versus",)  # of `fabrica.evaluation.evaluate`, that mean something here
WORST, OTHERS = 4, (0.5, 1.0)  # cases shown: the worst, then the middle one and the best
FEWEST = 6  # patients: of fewer, intervals mean little
AROUND = 25.0  # mm around what is labelled that pictures of volumes show


def evaluate(
    model: SegmentationModel | Path | str,
    against: str | Path | None = None,
    out: str | Path = "report",
    *,
    versus: SegmentationModel | Path | str | None = None,
    n: int | None = None,
    split: str = "test",
    extractor: str = "radiomic",
    seed: int = 0,
    progress: Progress | None = None,
) -> Report:
    """Segment held-out images and score the label maps; write report.html, scores.json and scores.csv (case by class).

    versus   a second model, judged on the same cases by paired tests.
    n   at most so many test images, drawn at random; None: all of them. extractor: of no use here.
    Raises UsageError for a model that does not segment, and for test images without label maps.
    """
    tell = progress or (lambda what, done, total: None)
    found = opened(model)
    if not isinstance(found, SegmentationModel):
        raise UsageError(f"{getattr(found, 'folder', found)} is no model that segments")
    other = None if versus is None else rival(found, versus)
    held_out = open_cases(found, str(against) if against else found.data.source, split, n, seed)
    if not held_out.paired:
        raise UsageError(f"{held_out.config.source} has no label maps for its {split} images; there is no truth")
    Path(out).mkdir(parents=True, exist_ok=True)  # a place that cannot be written is better known now than later
    names = {number: name for number, (name, _) in found.found.plan.judged.items()}
    got = _scored(found, other, held_out, tell)
    if got.strange:
        listed = ", ".join(map(str, sorted(got.strange)))
        note = f"test images have labels that the model never learned, {listed}: their voxels are not judged"
        held_out = replace(held_out, notes=[*held_out.notes, note])
    compared = comparisons(got.cases, got.rivals, names, other.name, seed) if other else []
    accuracy = summary(got.cases, names, seed)
    trial = Trial(found, held_out, names, got.cases, accuracy, n, seed, got.without, other, compared)
    return _written(trial, Path(out), _exhibits(trial, tell))


@dataclass(frozen=True, eq=False)
class Trial:
    """What was judged: the model on these cases, with the names of the label numbers, and what came of it. without: of
    a model that sees several contrasts, the cases that have each one, done without it."""

    model: SegmentationModel
    held_out: HeldOutCases
    names: dict[int, str]
    cases: Sequence[ScoredCase]
    found: Accuracy
    asked: int | None
    seed: int
    without: Mapping[str, Sequence[ScoredCase]]
    versus: SegmentationModel | None = None
    comparisons: Sequence[Comparison] = ()


@dataclass(frozen=True, eq=False)
class _Scores:
    """cases: by the model; rivals: by a second one; without: by contrast, see `Trial`; strange: label numbers that the
    model does not know."""

    cases: list[ScoredCase] = field(default_factory=list)
    rivals: list[ScoredCase] = field(default_factory=list)
    without: dict[str, list[ScoredCase]] = field(default_factory=dict)
    strange: set[int] = field(default_factory=set)


def _scored(
    model: SegmentationModel, versus: SegmentationModel | None, held_out: HeldOutCases, tell: Progress
) -> _Scores:
    """All cases, by the classes of the model; and without each contrast in turn those that have it and another one."""
    found, cases, plan = _Scores(), held_out.cases["a2b"], model.found.plan
    without: dict[str, list[ScoredCase]] = {name: [] for name in (model.data.a, *model.data.auxiliary)}
    for done, case in enumerate(cases.read(), start=1):
        truth = _truth(cases, done - 1, case, plan)
        if truth.unnamed is not None:
            other = {int(number) for number in np.unique(truth.image.data[0][truth.unnamed])}
            found.strange.update(other - ignored(cases.sources["b"].names(cases.chosen[done - 1])))
        seen = {model.data.a: case.images["a"], **case.auxiliary}
        found.cases.append(_judged(model, case, seen, truth, plan))
        if versus is not None:
            known = (versus.data.a, *versus.data.auxiliary)
            shown_to = {name: image for name, image in seen.items() if name in known}
            found.rivals.append(_judged(versus, case, shown_to, truth, plan))
        for name in seen if len(seen) > 1 else ():
            left = {other: image for other, image in seen.items() if other != name}
            without[name].append(_judged(model, case, left, truth, plan))
        tell("segmenting", done, len(cases))
    found.without.update({name: each for name, each in without.items() if each})
    return found


def _judged(model: SegmentationModel, case: Case, seen: Mapping[str, Image], truth: _Truth, plan: Plan) -> ScoredCase:
    """What a model makes of these contrasts of a case, the first of which is the image, against the truth."""
    (name, image), *rest = seen.items()
    made = model.apply(image, contrast=name, auxiliary=dict(rest)).result
    if truth.undrawn:  # nobody has said where it is, so that it is no false alarm
        made = made.with_data(np.where(np.isin(made.data, truth.undrawn), 0, made.data))
    return scored(case.id, case.patient, made, truth.image, plan.owned, ignore=truth.unnamed)


@dataclass(frozen=True, eq=False)
class _Truth:
    """The true label map of a case in the model's numbers; those that nobody drew in it; and where it has labels that
    the model never learned, of which nothing is said: None where there are none."""

    image: Image
    undrawn: Sequence[int]
    unnamed: Mask | None


def _truth(cases: Cases, place: int, case: Case, plan: Plan) -> _Truth:
    """That of the case at this place."""
    image, undrawn = in_numbers(case.images["b"], cases.sources["b"], cases.chosen[place], plan)
    other = ~np.isin(image.data[0], [0, *plan.numbers])
    return _Truth(image, [plan.numbers[k] for k in undrawn], other if other.any() else None)


def _exhibits(trial: Trial, tell: Progress) -> list[Exhibit]:
    """The worst cases, the middle one and the best, each with the contours of both."""
    ranked = trial.found.cases
    places = list(range(min(WORST, len(ranked)))) + [round(share * (len(ranked) - 1)) for share in OTHERS]
    order = {case.id: k for k, case in enumerate(trial.cases)}
    exhibits = []
    for done, rank in enumerate(dict.fromkeys(places), start=1):
        case = ranked[rank]
        (read,) = trial.held_out.cases["a2b"].read([order[case.id]])
        image = read.images["a"]
        truth = _truth(trial.held_out.cases["a2b"], order[case.id], read, trial.model.found.plan).image
        made = trial.model.apply(image, auxiliary=read.auxiliary).result
        margin = AROUND if len(image.size) == 3 else None
        owned = trial.model.found.plan.owned
        drawn = overlays(image, truth, made, owned, colours=colours(trial.names), margin=margin)
        plain = overlays(image, truth, None, [], margin=None) if len(image.size) == 2 else []
        pictures = [
            Picture(png_uri(pixels), name or "image", k + 1) for k, (name, pixels) in enumerate([*plain, *drawn])
        ]
        title = "Worst" if rank == 0 else f"Number {rank + 1} of {len(ranked)}, the worst first"
        exhibits.append(Exhibit(title, case.id, _facts_of(case, trial.names), pictures, ()))
        tell("drawing", done, len(dict.fromkeys(places)))
    return exhibits


def _facts_of(case: ScoredCase, names: dict[int, str]) -> list[tuple[str, str]]:
    found = []
    for number, name in names.items():
        scores = case.scores[number]
        if scores.absent:
            found.append((name, "absent"))
            continue
        said = " (missed)" * scores.missed + " (false alarm)" * scores.false_alarm
        found.append((name, f"Dice {shown(scores.dice)}, HD95 {shown(scores.hd95)} mm{said}"))
    return found


def _written(trial: Trial, out: Path, exhibits: list[Exhibit]) -> Report:
    scores, warned = rows(trial.found, f"{TOLERANCE:g} mm", _unit(trial)), _warnings(trial)
    scores += without(trial.cases, trial.without, list(trial.names), trial.seed)
    told = _verdict(trial)
    everything = {**_facts(trial), **numbers(scores), "verdict": told, "warnings": warned}
    page, compared = out / "report.html", tuple(trial.comparisons)
    report = Report(finite(everything), tuple(scores), tuple(warned), page, told, "segmented", compared)
    keep(report, lambda: _page(trial, report, exhibits), scores_csv=table(trial.cases, trial.names))
    return report


def _unit(trial: Trial) -> str:
    spacing = trial.model.found.plan.spacing
    return "mm" if spacing else "pixels"


def _warnings(trial: Trial) -> list[str]:
    notes = [*alarms(trial.model.folder / ALARMS), *trial.held_out.notes]
    patients = len(trial.found.patients)
    if patients < FEWEST:
        few = "1 patient is" if patients == 1 else f"{patients} patients are"
        notes.append(f"{few} too few: intervals mean little")
    notes += [f"{one.name}: {one.said}" for one in trial.found.classes if one.missed or one.never]
    return [note[0].upper() + note[1:].rstrip(".") + "." for note in dict.fromkeys(notes) if note]


def _verdict(trial: Trial) -> str:
    dice, near = trial.found.overall["dice"], trial.found.overall["surface_dice"]
    count, patients = len(trial.cases), len(trial.found.patients)
    if not np.isfinite(dice.mean):
        return f"None of the classes is present in any of the {count} test images: nothing was judged."
    said = (
        f"Mean Dice {shown(dice.mean)} [{shown(dice.low)}, {shown(dice.high)}] on {count} test images of "
        f"{patients} patients; {shown(100 * near.mean)} % of the surfaces lie within {TOLERANCE:g} {_unit(trial)}."
    )
    missed = sum(one.missed for one in trial.found.classes)
    alarms_ = sum(one.false_alarms for one in trial.found.classes)
    if missed or alarms_:
        said += f" A class was missed {missed} times and made up {alarms_} times."
    worst = min((one for one in trial.found.classes if not one.never), key=lambda one: one.scores["dice"].mean)
    if len(trial.found.classes) > 1:
        said += f" The hardest is {worst.name}, Dice {shown(worst.scores['dice'].mean)}."
    if item := next((item for item in trial.comparisons if item.key == "dice"), None):
        said += f" Its Dice is {said_of(item)} that of {item.rival}."
    return said


def _facts(trial: Trial) -> dict[str, Any]:
    found = trial.found
    facts = {
        "fabrica": __version__,
        "subject": trial.model.name,
        "model_hash": trial.model.hash,
        "against": trial.held_out.config.source,
        "split": trial.held_out.split,
        "n_images": len(trial.cases),
        "n_patients": len(found.patients),
        "seed": trial.seed,
        "tolerance": TOLERANCE,
        "classes": [asdict(one) for one in found.classes],
        "overall": {metric: asdict(value) for metric, value in found.overall.items()},
        "patients": [asdict(one) for one in found.patients],
    }
    if trial.versus:
        items = {item.key: asdict(item) for item in trial.comparisons}
        facts["versus"] = {"subject": trial.versus.name, "model_hash": trial.versus.hash, **items}
    return facts


def _page(trial: Trial, report: Report, exhibits: list[Exhibit]) -> str:
    model, plan = trial.model, trial.model.found.plan
    size = " × ".join(str(side) for side in plan.size)
    facts = [
        ("about", model.recipe.about),
        ("method", f"{model.found.method['name']}, {model.found.method['network']}"),
        ("trained on", model.data.source),
        ("contrasts", ", ".join(plan.contrasts)),
        ("patches", size + (f" at {' × '.join(f'{mm:.3g}' for mm in plan.spacing)} mm" if plan.spacing else "")),
        ("weights", model.hash),
    ]
    versus = ["--versus", str(trial.versus.folder)] if trial.versus else []
    again = repeated(
        str(model.folder), trial.held_out.config.source, asked=trial.asked, extractor="", seed=trial.seed, more=versus
    )
    measured = [
        (
            "test images",
            f"{len(trial.cases)} of {len(trial.found.patients)} patients, the {trial.held_out.split} split",
        ),
        ("means", "of a class over patients, over all classes over these; intervals: 95 %, bootstrap over patients"),
        *again,
    ]
    return filled(
        TEMPLATE,
        title=model.name,
        subject=f"A model that segments {', '.join(trial.names.values())}, on held-out images of "
        f"{trial.held_out.config.source}",
        report=report,
        how=HOW,
        legend=[(trial.names[number], hexed(own)) for number, own in colours(trial.names).items()],
        exhibits=exhibits,
        patients=trial.found.patients,
        charts=training_charts(read_log(model.folder / "log.csv"), None),
        facts=[(name, value) for name, value in facts if value],
        measured=measured,
        numbers=as_json(report),
        shown=shown,
    )
