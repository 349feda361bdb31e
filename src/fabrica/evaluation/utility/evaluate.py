"""What are synthetic images worth to who has real ones? The same small network learns from real images alone, from
synthetic ones alone, and from both in several mixes, and is examined on real images of other patients.

A segmenter where the model draws images of masks, a classifier where it draws classes. Each learns for the same number
of steps, from several seeds. The fair baseline is real images with classic augmentation: synthetic ones have to add to
that. Intervals come from resampling patients and seeds, of differences the same patients on both sides.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fabrica import __version__
from fabrica.data.dataset import evenly
from fabrica.errors import UsageError
from fabrica.evaluation.segmentation.panels import overlays
from fabrica.evaluation.subject import alarms, opened
from fabrica.evaluation.utility.downstream import (
    Int64,
    answered,
    auc,
    false_alarms,
    found_lesions,
    learned,
    mean_dice,
)
from fabrica.evaluation.utility.examples import Answers, Examples, Lesson, lesson
from fabrica.image import Float32, Float64, Image
from fabrica.metrics.patients import Interval, by_patient, known_mean
from fabrica.model.model import Model
from fabrica.progress import Progress
from fabrica.recipe.folder import ALARMS
from fabrica.report.charts import Chart, Line, level, line_chart, png_uri, shown
from fabrica.report.pictures import Exhibit, Picture
from fabrica.report.report import filled, keep, repeated
from fabrica.report.scores import Report, ScoreRow, as_json, finite, numbers

TEMPLATE = "utility.html.jinja"
MIXES = (0.5, 1.0, 2.0)  # synthetic images for each real one
REPEATS, STEPS = 3, 600
RESAMPLES = 1000
SHOWN = 4
BASELINE = "augmented"
FOUND, FALSE_ALARMS = "Images in which it was found", "False alarms in images without"
FEWEST = 6  # patients: of fewer, intervals mean little


@dataclass(frozen=True)
class Arm:
    """What one network learns from. ratio: synthetic images for each real one; None: no real ones at all."""

    key: str
    name: str
    ratio: float | None
    augment: bool = True


ARMS = (
    Arm("real", "real, not augmented", 0.0, augment=False),
    Arm(BASELINE, "real, augmented", 0.0),
    Arm("synthetic", "synthetic alone", None),
    *(Arm(f"mix_{ratio:g}", f"real + {ratio:g} synthetic each", ratio) for ratio in MIXES),
)


@dataclass(frozen=True)
class ArmScore:
    """What came of an arm: its score on real test images, each seed's, and how much more than the baseline's."""

    key: str
    name: str
    ratio: float | None
    images: int
    score: Interval
    seeds: tuple[float, ...]
    gain: Interval | None


@dataclass(frozen=True, eq=False)
class Trial:
    """One evaluation: what was to be learned, what was made for it, and what came of it."""

    model: Model
    lesson: Lesson
    made: Examples
    scores: Mapping[str, Sequence[ArmScore]]  # by measure
    answers: dict[str, Answers]  # by arm, of the first seed
    paint: bool
    repeats: int
    steps: int
    seed: int

    @property
    def measure(self) -> str:
        """The one that decides."""
        return next(iter(self.scores))

    @property
    def arms(self) -> dict[str, ArmScore]:
        return {arm.key: arm for arm in self.scores[self.measure]}

    @property
    def mixes(self) -> list[ArmScore]:
        return [self.arms[f"mix_{ratio:g}"] for ratio in MIXES]

    @property
    def best(self) -> ArmScore:
        """Of the mixes."""
        return max(self.mixes, key=lambda arm: arm.score.mean)


def evaluate(
    model: Model | Path | str,
    against: str | Path | None = None,
    out: str | Path = "report",
    *,
    split: str = "test",
    seed: int = 0,
    paint: bool = False,
    repeats: int = REPEATS,
    steps: int = STEPS,
    progress: Progress | None = None,
) -> Report:
    """Measure what a model's images are worth to a segmenter or a classifier; write out/report.html and
    out/scores.json.

    model     one that draws images of masks or of classes.
    against   a manifest, folder or phantom source of real images; None: what the model was trained on.
    paint     lesions are painted into training images, rather than whole images drawn: of diffusion that is told masks.
    repeats   networks for each mix, from seeds of their own, at least 2.
    steps     for which each learns.

    Raises UsageError for a model that is told neither masks nor classes, and for fewer repeats or steps.
    """
    tell = progress or (lambda what, done, total: None)
    found = opened(model)
    if not isinstance(found, Model):
        what = getattr(found, "folder", found)
        raise UsageError(f"{what} is no trained model; utility needs one that draws images of masks or of classes")
    if repeats < 2 or steps < 1:
        raise UsageError(f"{repeats} repeats of {steps} steps; expected at least 2, for an interval, and 1")
    told = lesson(found, str(against) if against else None, split, seed, tell, paint)
    Path(out).mkdir(parents=True, exist_ok=True)  # a place that cannot be written is better known now than later
    made = told.make(round(max(MIXES) * len(told.train)), seed, tell)
    outcomes: dict[str, list[Answers]] = {arm.key: [] for arm in ARMS}
    images: dict[str, int] = {}
    kind = "segmenters" if told.voxels else "classifiers"
    for number, arm in enumerate(ARMS):
        given = _given(arm, told, made)
        images[arm.key] = len(given)
        for k in range(repeats):
            network = learned(given, told, arm.augment, steps, seed + k)
            outcomes[arm.key].append(answered(network, told.test.images))
            tell(f"training {kind}", number * repeats + k + 1, len(ARMS) * repeats)
    scores = scored(told, outcomes, images, seed)
    first = {key: answers[0] for key, answers in outcomes.items()}
    return _written(Trial(found, told, made, scores, first, paint, repeats, steps, seed), Path(out))


def _given(arm: Arm, told: Lesson, made: Examples) -> Examples:
    """What an arm learns from: of several mixes the larger holds the smaller."""
    if arm.ratio is None:
        return made.some(range(min(len(made), len(told.train))))  # as many as there are real ones
    return told.train.with_more(made.some(range(round(arm.ratio * len(told.train))))) if arm.ratio else told.train


Score = Callable[[str, int, Int64], float]
"""(arm, which of its networks, patients by number) -> a score of its answers to their images."""


def scored(
    told: Lesson, outcomes: Mapping[str, Sequence[Answers]], images: Mapping[str, int], seed: int
) -> dict[str, list[ArmScore]]:
    """By measure, the score of each arm and its gain over the baseline, with 95 % intervals: patients are resampled,
    the same ones for all arms, and of each arm its networks.

    outcomes   arm -> what each of its networks says of the test images; images: how many it learned from.
    """
    patients, repeats = len(set(told.test.patients)), len(outcomes[BASELINE])
    return {
        name: _resampled(score, patients, repeats, images, seed) for name, score in _measures(told, outcomes).items()
    }


def _resampled(score: Score, patients: int, repeats: int, images: Mapping[str, int], seed: int) -> list[ArmScore]:
    rng = np.random.default_rng(seed)
    plain = {key: [score(key, k, np.arange(patients)) for k in range(repeats)] for key in images}
    drawn: dict[str, list[float]] = {key: [] for key in images}
    for _ in range(RESAMPLES):
        chosen = rng.integers(0, patients, patients)
        for key in images:
            seeds, times = np.unique(rng.integers(0, repeats, repeats), return_counts=True)
            each = [score(key, int(k), chosen) for k in seeds]
            drawn[key].append(float(np.average(each, weights=times)))
    found = []
    for arm in ARMS:
        own, mean = np.array(drawn[arm.key]), float(np.mean(plain[arm.key]))
        more = _interval(mean - float(np.mean(plain[BASELINE])), own - np.array(drawn[BASELINE]))
        gain = None if arm.key == BASELINE else more
        found.append(
            ArmScore(arm.key, arm.name, arm.ratio, images[arm.key], _interval(mean, own), tuple(plain[arm.key]), gain)
        )
    return found


def _measures(told: Lesson, outcomes: Mapping[str, Sequence[Answers]]) -> dict[str, Score]:
    """The one that decides first. Of label maps the mean Dice over patients, and where there is one class also in how
    many images it was found, and in how many without it; of classes the area under the ROC curve."""
    truth, names = told.test.answers, list(told.test.patients)
    if not told.voxels:
        of = np.unique(np.asarray(names), return_inverse=True)[1]
        own = [np.flatnonzero(of == k) for k in range(of.max() + 1)]

        def area(key: str, k: int, chosen: Int64) -> float:
            places = np.concatenate([own[int(patient)] for patient in chosen])
            return auc(outcomes[key][k][places], truth[places])

        return {"AUC": area}

    def over_patients(measure: Callable[[Answers, Answers], Float64]) -> Score:
        means = {key: [by_patient(measure(made, truth), names) for made in each] for key, each in outcomes.items()}

        def score(key: str, k: int, chosen: Int64) -> float:
            return float(known_mean(means[key][k][chosen], 0))

        return score

    found = {"Dice": over_patients(lambda made, truth: mean_dice(made, truth, len(told.names)))}
    if len(told.names) == 2:
        found |= {FOUND: over_patients(found_lesions), FALSE_ALARMS: over_patients(false_alarms)}
    return found


def _interval(mean: float, drawn: Float64) -> Interval:
    drawn = drawn[np.isfinite(drawn)]
    if not len(drawn):  # what is asked is in no image
        return Interval(mean, float("nan"), float("nan"))
    low, high = np.quantile(drawn, [0.025, 0.975])
    return Interval(mean, float(low), float(high))


def _written(trial: Trial, out: Path) -> Report:
    rows = []
    for measure, arms in trial.scores.items():
        better = "lower" if measure == FALSE_ALARMS else "higher"
        for arm in arms:
            seeds = ", ".join(shown(value) for value in arm.seeds)
            said = f"Learned from {arm.images} images; by seed {seeds}"
            key = arm.key if measure == trial.measure else f"{arm.key} {measure}"
            rows.append(_row(key, arm.name, arm.score, better, said, f"{measure}, on real images"))
        if measure == trial.measure:
            said = "Less the score of real images with classic augmentation, the same patients"
            group = "Gain over real images with classic augmentation"
            rows += [_row(f"gain_{a.key}", a.name, a.gain, better, said, group) for a in arms if a.gain]
    told, warned = _verdict(trial), _warnings(trial)
    everything = {**_facts(trial), **numbers(rows), "verdict": told, "warnings": warned}
    report = Report(finite(everything), tuple(rows), tuple(warned), out / "report.html", told, "measured")
    keep(report, lambda: _page(trial, report))
    return report


def _row(key: str, name: str, at: Interval, better: str, said: str, group: str) -> ScoreRow:
    return ScoreRow(key, name, at.mean, at.low, at.high, better, said, group=group)


def _verdict(trial: Trial) -> str:
    base, alone, best = trial.arms[BASELINE], trial.arms["synthetic"], trial.best
    assert best.gain is not None  # only the baseline has none
    harm = all(arm.gain is not None and arm.gain.high < 0 for arm in trial.mixes)
    judged = "they help" if best.gain.low > 0 else "they do harm" if harm else "no gain beyond chance"
    return (
        f"{trial.measure} on {len(trial.lesson.test)} real test images: {shown(base.score.mean)} "
        f"[{shown(base.score.low)}, {shown(base.score.high)}] learned from {base.images} real images with classic "
        f"augmentation; with {best.ratio:g} synthetic ones for each, the best of {len(MIXES)} mixes, "
        f"{shown(best.score.mean)}, a gain of {_signed(best.gain)}: {judged}. Synthetic images alone reach "
        f"{shown(alone.score.mean)}."
    )


def _signed(gain: Interval) -> str:
    return f"{gain.mean:+.3f} [{gain.low:+.3f}, {gain.high:+.3f}]"


def _warnings(trial: Trial) -> list[str]:
    notes = [*alarms(trial.model.folder / ALARMS), *trial.lesson.notes]
    patients = len(set(trial.lesson.test.patients))
    if patients < FEWEST:
        notes.append(f"{patients} test patients are too few: intervals mean little")
    notes.append("the best of several mixes is a little flattered: it was chosen by the same test images")
    return [note[0].upper() + note[1:].rstrip(".") + "." for note in dict.fromkeys(notes) if note]


def _facts(trial: Trial) -> dict[str, Any]:
    told = trial.lesson
    return {
        "fabrica": __version__,
        "subject": trial.model.name,
        "model_hash": trial.model.hash,
        "against": told.source,
        "split": told.split,
        "measure": trial.measure,
        "painted": trial.paint,
        "classes": list(told.names),
        "n_real": len(told.train),
        "n_test": len(told.test),
        "n_patients": len(set(told.test.patients)),
        "repeats": trial.repeats,
        "steps": trial.steps,
        "seed": trial.seed,
        "arms": {measure: [asdict(arm) for arm in arms] for measure, arms in trial.scores.items()},
    }


def _page(trial: Trial, report: Report) -> str:
    told = trial.lesson
    task = "segmenters" if told.voxels else "classifiers"
    size = " × ".join(str(side) for side in told.train.images.shape[2:])
    words = [
        "--utility",
        *(["--paint"] if trial.paint else []),
        "--repeats",
        str(trial.repeats),
        "--train-steps",
        str(trial.steps),
    ]
    again = repeated(
        str(trial.model.folder), told.source, asked=None, extractor="radiomic", seed=trial.seed, more=words
    )
    measured = [
        ("test images", f"{len(told.test)} of {len(set(told.test.patients))} patients, the {told.split} split"),
        ("each learned", f"{trial.steps} steps, from {trial.repeats} seeds"),
        ("intervals", "95 %, bootstrap over patients and seeds; of gains with the same patients on both sides"),
        *again,
    ]
    facts = [("about", trial.model.recipe.about), ("images", size), ("classes", ", ".join(told.names))]
    return filled(
        TEMPLATE,
        title=trial.model.name,
        subject=f"What its images are worth to {task} of {told.source}",
        report=report,
        curve=_curve(trial),
        exhibits=_exhibits(trial),
        facts=[(name, value) for name, value in (*facts, ("weights", trial.model.hash)) if value],
        measured=measured,
        measure=trial.measure,
        numbers=as_json(report),
    )


def _curve(trial: Trial) -> Chart:
    line = [trial.arms[BASELINE], *trial.mixes]
    x = [float(arm.ratio or 0) for arm in line]
    scores = [arm.score for arm in line]
    lines = [
        Line("real and synthetic", x, [s.mean for s in scores], [s.low for s in scores], [s.high for s in scores]),
        level("real, not augmented", x, trial.arms["real"].score.mean),
    ]
    said = "; ".join(f"{arm.name} {shown(arm.score.mean)}" for arm in trial.arms.values())
    svg = line_chart(
        "utility", lines, x="synthetic images for each real one", y=f"{trial.measure} on real images", alt=said, ticks=x
    )
    caption = (
        f"How well real images of other patients are read. The band is the 95 % interval; the dashed line is of real "
        f"images without augmentation; synthetic images alone reach {shown(trial.arms['synthetic'].score.mean)}."
    )
    return Chart(svg, caption)


def _exhibits(trial: Trial) -> list[Exhibit]:
    """Some of the images that were learned from, real ones and made ones; of a segmenter also some answers."""
    told, found = trial.lesson, []
    for title, examples in (("Real, to learn from", told.train), ("Synthetic, to learn from", trial.made)):
        places = evenly(len(examples), SHOWN)
        pictures = []
        for column, k in enumerate(places, start=1):
            caption = "" if told.voxels else str(told.names[int(examples.answers[k])])
            pictures.append(_picture(told, examples.images[k], _map(told, examples.answers, k), None, caption, column))
        found.append(Exhibit(title, "", (), pictures, ()))
    if not told.voxels:
        return found
    base = mean_dice(trial.answers[BASELINE], told.test.answers, len(told.names))
    order = [k for k in np.argsort(base) if np.isfinite(base[k])]
    for k in dict.fromkeys(order[round(share * (len(order) - 1))] for share in (0.0, 0.5, 1.0)):
        pictures = []
        for column, key in enumerate((BASELINE, trial.best.key, "synthetic"), start=1):
            name = trial.arms[key].name
            made = trial.answers[key][k]
            score = float(mean_dice(made[None], told.test.answers[k : k + 1], len(told.names))[0])
            caption = f"{name}: Dice {shown(score)}"
            pictures.append(_picture(told, told.test.images[k], told.test.answers[k], made, caption, column))
        found.append(Exhibit("Test image: dashed the truth, solid what was made", "", (), pictures, ()))
    return found


def _map(told: Lesson, answers: Answers, k: int) -> Answers | None:
    found: Answers | None = answers[k] if told.voxels else None
    return found


def _picture(
    told: Lesson, values: Float32, truth: Answers | None, made: Answers | None, caption: str, column: int
) -> Picture:
    """An image (C, *S) with contours; of a volume its axial plane."""
    spacing = tuple(told.spacing) or (1.0,) * (values.ndim - 1)
    affine = np.diag([*reversed(spacing), *[1.0] * (4 - len(spacing))])
    image = Image(values, affine)
    none = np.zeros(values.shape[1:], dtype=np.uint8)
    maps = [Image((none if each is None else each)[None].astype(np.float32), affine, "label") for each in (truth, made)]
    classes = range(1, len(told.names)) if told.voxels else ()
    drawn = overlays(image, maps[0], None if made is None else maps[1], classes, window=(-1, 1))
    return Picture(png_uri(drawn[0][1]), caption, column)
