"""Does a model draw what a text says? Its images beside real ones of the same text; and, on chest phantoms, where the
truth is known, how many of the findings that a report states are seen, at several strengths of guidance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from fabrica.data.sample import PHANTOM
from fabrica.evaluation.sets import Sets
from fabrica.evaluation.subject import Subject
from fabrica.evaluation.synthesis.phantom_classifier import classifier, readable
from fabrica.evaluation.synthesis.phantom_findings import FINDINGS, Int, numbered
from fabrica.evaluation.synthesis.text_adherence import Adherence, pictures, prompts, scored
from fabrica.image import Float32, Float64
from fabrica.metrics.memorisation import wilson
from fabrica.metrics.patients import interval
from fabrica.progress import Progress
from fabrica.report.charts import Chart, Line, level, line_chart, shown
from fabrica.report.scores import ScoreRow

GUIDANCES = (1.0, 1.5, 2.0, 3.0, 5.0)
ASKED = 200  # prompts at each strength of guidance
RESAMPLES = 200
SHOWN = 6
OBEYED = "Does the image show what the text says?"


@dataclass(frozen=True, eq=False)
class Shown:
    """A text, what the model drew for it, and the real image that it describes: (C, *S) in [-1, 1]."""

    text: str
    synthetic: Float32
    real: Float32


@dataclass(frozen=True)
class GuidancePoint:
    """The mean share of findings obeyed at this strength of guidance, with its 95 % interval."""

    guidance: float
    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Obedience:
    """found: at the model's own guidance; real: of the phantoms that the texts were written for; hearts: what is stated
    of the heart's size -> the heart-thorax ratios measured in images and in phantoms; points: at other strengths, too,
    none where a model has no guidance to set."""

    found: Adherence
    interval: tuple[float, float]
    real: Adherence
    hearts: Mapping[str, tuple[Float64, Float64]]
    points: Sequence[GuidancePoint]


def examples(subject: Subject, sets: Sets, seed: int) -> list[Shown]:
    """What a model that reads text draws for reports of held-out images; [] for others."""
    if subject.model is None or "text" not in subject.config.condition:
        return []
    places = [k for k, known in enumerate(sets.known) if known.get("text")][:SHOWN]
    if not places:
        return []
    conditions = sets.conditions(subject.model.encoder, places)
    made = subject.model.sample_array(len(places), seed=seed, conditions=conditions, warn=lambda note: None)
    return [Shown(sets.known[k]["text"], image, sets.heldout[k]) for k, image in zip(places, made, strict=True)]


def reads_phantoms(subject: Subject) -> bool:
    """Whether this is a model of chest phantoms that reads reports."""
    if subject.model is None or "text" not in subject.config.condition:
        return False
    return subject.config.source.startswith(f"{PHANTOM}chest") and len(set(subject.model.size)) == 1


def obedience(subject: Subject, guidances: Sequence[float], seed: int, tell: Progress) -> Obedience | None:
    """The score of a model of chest phantoms that reads reports, on reports that no training has seen, at its own
    guidance and at `guidances`; None for other models, for sizes that have no reader, and without `guidances`."""
    model = subject.model
    if model is None or not guidances or not reads_phantoms(subject) or not readable(model.size[0]):
        return None
    by = classifier(model.size[0], tell=tell)
    asked = prompts(ASKED, seed)
    stated = numbered([one.stated for one in asked])
    texts = [one.text for one in asked]

    def drawn(guidance: float | None) -> Float32:
        images: Float32 = model.sample_array(
            ASKED, seed=seed, conditions={"text": texts}, guidance=guidance, progress=tell, warn=lambda note: None
        )
        return images

    def judged(images: Float32) -> tuple[Adherence, tuple[float, float]]:
        read = by.read(images)
        return scored(stated, read, by.accuracy, by.trusted), _interval(stated, read, by.accuracy, by.trusted)

    own = model.recipe.sample.guidance if "guidance" in model.choices else None
    images, true = drawn(own), pictures((one.seed for one in asked), model.size[0])
    score, interval = judged(images)
    points = []
    for guidance in [] if own is None else sorted({*guidances, own}):
        there, around = (score, interval) if guidance == own else judged(drawn(guidance))
        points.append(GuidancePoint(guidance, there.mean, *around))
    real = scored(stated, by.read(true), by.accuracy, by.trusted)
    return Obedience(score, interval, real, _hearts(stated, by.ratios(images), by.ratios(true)), points)


def _hearts(stated: dict[str, Int], ratios: Float64, real: Float64) -> dict[str, tuple[Float64, Float64]]:
    """The ratios (N,) measured in images and in phantoms, by what is stated of the heart's size."""
    name = "degree of cardiomegaly"
    degrees = stated[name]
    there = np.unique(degrees[degrees >= 0])
    return {FINDINGS[name].values[k]: (ratios[degrees == k], real[degrees == k]) for k in there}


def _interval(
    stated: dict[str, Int], read: dict[str, Int], accuracy: dict[str, float], trusted: Sequence[str]
) -> tuple[float, float]:
    """95 % of the means over prompts drawn anew with replacement (bootstrap)."""
    rng = np.random.default_rng(0)
    means = []
    for _ in range(RESAMPLES):
        chosen = rng.integers(0, ASKED, ASKED)
        said, found = ({name: values[chosen] for name, values in of.items()} for of in (stated, read))
        means.append(scored(said, found, accuracy, trusted).mean)
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)


def rows_of(obeyed: Obedience) -> list[ScoreRow]:
    """The mean at the model's own guidance, then each finding."""

    def row(key: str, name: str, found: tuple[float, float, float], said: str, real: float) -> ScoreRow:
        return ScoreRow(key, name, *found, "higher", said, real, percent=True, group=OBEYED)

    said = (
        f"The share of {ASKED} reports whose findings are seen in the image, each value of a finding counted alike, "
        "read by a network that was trained on phantoms; real: the phantoms of these reports. Images that know nothing "
        f"of the text get {100 * obeyed.found.chance:.0f} %."
    )
    rows = [row("obeyed", "All findings", (obeyed.found.mean, *obeyed.interval), said, obeyed.real.mean)]
    right, reports = obeyed.found.whole
    if reports:  # none where the reader can be trusted with nothing
        shares = (right / reports, *wilson(right, reports))
        whole = "The share of reports of which the image shows everything."
        rows.append(row("whole_reports", "Whole reports", shares, whole, obeyed.real.whole[0] / reports))
    of_real = {each.finding: each.share for each in obeyed.real.rows}
    for each in obeyed.found.rows:
        counts = ", ".join(f"{value} {right} of {number}" for value, (right, number) in each.values.items())
        key, name = "obeyed_" + each.finding.replace(" ", "_"), each.finding.capitalize()
        said = f"Chance {100 * each.chance:.0f} %. {counts}."
        rows.append(row(key, name, (each.share, each.low, each.high), said, of_real[each.finding]))
    return rows + [_heart(size, *ratios) for size, ratios in obeyed.hearts.items()]


def _heart(size: str, images: Float64, phantoms: Float64) -> ScoreRow:
    own = interval(images)
    enlarged = "not enlarged" if size == "absent" else f"{size}ly enlarged"
    said = f"Measured in the {len(images)} images of reports in which the heart is {enlarged}; real: in their phantoms."
    name, real = f"Heart-thorax ratio, {enlarged}", float(phantoms.mean())
    return ScoreRow(f"heart_{size}", name, own.mean, own.low, own.high, "near real", said, real, group=OBEYED)


def chart(obeyed: Obedience) -> Chart:
    """The mean share obeyed against the strength of guidance."""
    x = [point.guidance for point in obeyed.points]
    y = [point.value for point in obeyed.points]
    lines = [
        Line("findings obeyed", x, y, [p.low for p in obeyed.points], [p.high for p in obeyed.points]),
        level("phantoms", x, obeyed.real.mean),
    ]
    said = "; ".join(f"guidance {p.guidance:g}: {shown(p.value)}" for p in obeyed.points)
    svg = line_chart("guidance", lines, x="guidance", y="findings obeyed", alt=f"Findings obeyed: {said}", ticks=x)
    caption = (
        "How far images obey the text, against the strength of guidance. The band: 95 % interval; the dashed line: "
        f"what the phantoms of these reports score; what knows nothing of the text gets {obeyed.found.chance:.2f}."
    )
    return Chart(svg, caption)
