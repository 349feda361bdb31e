"""How near translated images are to the true ones, patient by patient, beside what knows nothing of the patient.

Baselines are scored on the same images in the same way. Those of translation: "identity", the source as it is, its
network values read on the target's scale; and "mean", the mean training image of the target side. Those of restoration
are in `classics`. A model that is no better is useless.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from fabrica.codec import Codec
from fabrica.data.standardise import fitted_to, inner_size
from fabrica.evaluation.translation.cases import Case, Cases, directions
from fabrica.geometry import resample
from fabrica.image import Bools, Float32, Float64, Image
from fabrica.inference.translation import Way, turned, turned_spacing
from fabrica.metrics import paired as pairs
from fabrica.metrics.patients import by_patient, interval
from fabrica.model.translation import TranslationModel
from fabrica.progress import Progress
from fabrica.report.scores import Comparison, ScoreRow

WITHOUT, ALL = "without_", "all"  # the contrasts beside
AWAY = "What stands beside the image, taken away"
NAMES = {
    "mae": ("MAE", "Mean absolute error inside the body."),
    "psnr": ("PSNR, dB", "Signal to noise: the range over the mean squared error, in decibels."),
    "ssim": ("SSIM", "Structure in small windows; 1 is equal."),
    "ms_ssim": ("MS-SSIM", "Structure at several scales; 1 is equal."),
    "fsim": ("FSIM", "Edges and their direction; 1 is equal."),
    "nmi": ("NMI", "Shared information, whatever the grey scale; 2 is equal, 1 unrelated."),
}
Scores = Mapping[str, Float64]
Answers = Callable[[Image], Mapping[str, Float32]]


@dataclass(frozen=True, eq=False)
class Scored:
    """Scores of all test images in one direction.

    of          who made the result ("result", "versus", a baseline's name, or WITHOUT and the contrast beside that the
                model had to do without) -> metric -> (N,); {} without pairs.
    round_trip  mean absolute error of there and back in the body, in the source's unit, (N,); None for one way.
    declared    images whose body is a mask of the manifest.
    """

    ids: Sequence[str]
    patients: list[str]
    of: Mapping[str, Scores]
    round_trip: Float64 | None
    declared: int

    @property
    def baselines(self) -> list[str]:
        return [who for who in self.of if who not in ("result", "versus") and not who.startswith(WITHOUT)]

    def by_patient(self, who: str, metric: str) -> Float64:
        return by_patient(self.of[who][metric], self.patients)

    def mean(self, who: str, metric: str) -> float:
        """Over patients; NaN of nobody."""
        values = self.by_patient(who, metric)
        return float(np.mean(there)) if len(there := values[np.isfinite(values)]) else float("nan")


def score(
    model: TranslationModel,
    cases: Cases,
    direction: str,
    baselines: Answers,
    versus: TranslationModel | None,
    tell: Progress,
) -> Scored:
    """Translate every test image and compare it with the true one, where there is one.

    baselines   what they answer to an image: by name, (C, *S) in the target's unit.
    """
    way = model.way(direction)
    back = len(directions(model)) == 2 and way.source.kind != "label"
    ids, patients, found, trips, declared = [], [], list[dict[str, dict[str, float]]](), [], 0
    for done, case in enumerate(cases.read(), start=1):
        given, truth = case.images[direction[0]], case.images.get(direction[-1])
        applied = model.apply(given, auxiliary=case.auxiliary, direction=direction, round_trip=back)
        if applied.round_trip is not None:
            trips.append(float(applied.round_trip.data[:, case.body].mean()))
        if truth is not None and way.target.kind != "label":
            made = {"result": applied.result.data, **baselines(given)}
            if versus:
                made["versus"] = _answer(versus, case, direction, versus.recipe.data.auxiliary)
            made |= {WITHOUT + name: _answer(model, case, direction, kept) for name, kept in _kept(cases).items()}
            found.append({who: compared(data, truth, way.target, case.body) for who, data in made.items()})
        ids.append(case.id)
        patients.append(case.patient)
        declared += case.declared
        tell(f"translating {direction}", done, len(cases))
    of = {
        who: {metric: np.array([each[who][metric] for each in found]) for metric in pairs.METRICS}
        for who in (found[0] if found else ())
    }
    return Scored(ids, patients, of, np.array(trips) if back else None, declared)


def _kept(cases: Cases) -> dict[str, list[str]]:
    """What is left beside when each contrast is taken away in turn, and at last all of them."""
    names = [name for name, source in cases.auxiliary.items() if len(source.absent) < source.count]
    found = {name: [other for other in names if other != name] for name in names}
    return found | ({ALL: []} if len(names) > 1 else {})


def _answer(model: TranslationModel, case: Case, direction: str, kept: Sequence[str]) -> Float32:
    """The result with these contrasts beside, as far as the patient has them."""
    auxiliary = {name: image for name, image in case.auxiliary.items() if name in kept}
    return model.apply(case.images[direction[0]], auxiliary=auxiliary, direction=direction).result.data


def compared(result: Float32, truth: Image, codec: Codec, inside: Bools) -> dict[str, float]:
    """`pairs.compare`, the mean over channels: in HU on SynthRAD's range, else on that of the true image."""
    limits = pairs.HOUNSFIELD if codec.unit == "HU" else codec.limits(truth.data)
    each = [pairs.compare(result[k : k + 1], truth.data[k : k + 1], limits, inside) for k in range(truth.channels)]
    return {metric: float(np.mean([scores[metric] for scores in each])) for metric in pairs.METRICS}


def simplest(given: Image, way: Way, mean: Float32 | None) -> dict[str, Float32]:
    """What the baselines of translation answer to this image, (C, *S) in the target's unit.

    mean   the mean training image of the target side, network values (C, *S); None: not known.
    """
    found = {}
    if way.source.kind != "label":
        found["identity"] = way.target.decode(way.source.encode(given))
    if mean is not None:
        found["mean"] = way.target.decode(on_grid_of(mean, given, way))
    return found


def on_grid_of(values: Float32, image: Image, way: Way) -> Float32:
    """Network values (C, *S) on the voxels of an image, (C, *its size); every slice alike for a network of slices."""
    array = np.empty((len(values), *image.size), dtype=np.float32)
    view, spacing = turned(array, image, way), turned_spacing(image, way)
    if len(way.data.size) == 2:
        view[:] = _unfitted(values, view.shape[2:], spacing[1:], way)[:, None]
    else:
        view[:] = _unfitted(values, view.shape[1:], spacing, way)
    return array


def _unfitted(values: Float32, size: Sequence[int], spacing: Sequence[float], way: Way) -> Float32:
    """`fabrica.data.standardise.fitted_to` undone: (C, *data.size) -> (C, *size)."""
    inner = inner_size(size, way.data.size, way.data.fit, tuple(spacing))
    return resample(fitted_to(values, inner, "exact")[0], size)


def rows(scored: Scored, group: str, prefix: str, units: tuple[str, str], seed: int) -> list[ScoreRow]:
    """A row a metric: mean over patients with its interval, beside the baselines; and the round trip.

    units   of the source and of the target, for the names.
    """
    found = []
    for metric in pairs.METRICS if scored.of else ():
        name, explanation = NAMES[metric]
        at = interval(scored.by_patient("result", metric), seed)
        beside = {who: scored.mean(who, metric) for who in scored.baselines}
        name = f"{name}, {units[1]}" if metric == "mae" and units[1] else name
        better = "higher" if metric in pairs.HIGHER_IS_BETTER else "lower"
        low, high = (at.low, at.high) if np.isfinite(at.mean) else (None, None)
        found.append(
            ScoreRow(prefix + metric, name, at.mean, low, high, better, explanation, baselines=beside, group=group)
        )
    if scored.round_trip is not None:
        at = interval(by_patient(scored.round_trip, scored.patients), seed)
        name = f"Round trip, {units[0]}" if units[0] else "Round trip"
        explanation = (
            "Mean absolute difference, inside the body, between the source and itself there and back. Small does not "
            "prove that the result is right: what is invented on the way there can be undone on the way back."
        )
        found.append(ScoreRow(prefix + "round_trip", name, at.mean, at.low, at.high, "lower", explanation, group=group))
    return found


def gain(scored: Scored, group: str, seed: int) -> ScoreRow:
    """By how much PSNR is higher than what came in scores, patient by patient; beside it that of the classics."""
    before = scored.by_patient("identity", "psnr")
    at = interval(scored.by_patient("result", "psnr") - before, seed)
    others = {who: interval(scored.by_patient(who, "psnr") - before, seed).mean for who in scored.baselines}
    explanation = "PSNR less that of the degraded image itself, in decibels: 3 dB halve the squared error."
    low, high = (at.low, at.high) if np.isfinite(at.mean) else (None, None)
    return ScoreRow(
        "psnr_gain", "PSNR gained, dB", at.mean, low, high, "higher", explanation, baselines=others, group=group
    )


def without(scored: Scored, seed: int) -> list[ScoreRow]:
    """A row for each contrast beside: PSNR where the model has to do without it."""
    found = []
    for who in scored.of:
        if not who.startswith(WITHOUT):
            continue
        at = interval(scored.by_patient(who, "psnr"), seed)
        lost = interval(scored.by_patient("result", "psnr") - scored.by_patient(who, "psnr"), seed)
        name = who.removeprefix(WITHOUT)
        name = "anything beside" if name == ALL else name
        explanation = (
            f"PSNR of the same images, {name} taken away: {lost.mean:.2f} dB less [{lost.low:.2f}, {lost.high:.2f}]."
        )
        low, high = (at.low, at.high) if np.isfinite(at.mean) else (None, None)
        title = f"PSNR without {name}, dB"
        found.append(ScoreRow(f"psnr_{who}", title, at.mean, low, high, "higher", explanation, group=AWAY))
    return found


def comparisons(
    scored: Scored, other: str, rival: str, group: str, prefix: str, units: tuple[str, str], seed: int
) -> list[Comparison]:
    """The paired difference to another, a metric each, over the patients.

    other   its name in `scored.of`; rival: its name on the page.
    """
    found = []
    for metric in pairs.METRICS:
        one, two = scored.by_patient("result", metric), scored.by_patient(other, metric)
        both = np.isfinite(one) & np.isfinite(two)
        if not both.any():
            continue
        gap = pairs.difference(one[both], two[both], seed)
        name = f"MAE, {units[1]}" if metric == "mae" and units[1] else NAMES[metric][0]
        better = "higher" if metric in pairs.HIGHER_IS_BETTER else "lower"
        means = float(one[both].mean()), float(two[both].mean())
        values = (*means, gap.mean, gap.low, gap.high, gap.p)
        found.append(Comparison(prefix + metric, name, *values, better, group, other, rival))
    return found


def table(scored: Mapping[str, Scored]) -> str:
    """All scores of all images as CSV: id, patient, metrics; those of baselines and of the way back with a prefix."""
    lines: dict[str, dict[str, object]] = {}
    for direction, found in scored.items():
        back = "" if direction == "a2b" else f"{direction}_"
        for k, (id_, patient) in enumerate(zip(found.ids, found.patients, strict=True)):
            line = lines.setdefault(id_, {"id": id_, "patient": patient})
            for who, metrics in found.of.items():
                own = "" if who == "result" else f"{who}_"
                line |= {f"{back}{own}{metric}": _number(values[k]) for metric, values in metrics.items()}
            if found.round_trip is not None:
                line[f"{back}round_trip"] = _number(found.round_trip[k])
    columns = list(dict.fromkeys(key for line in lines.values() for key in line))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines.values())
    return text.getvalue()


def _number(value: float) -> str:
    return f"{value:.6g}" if np.isfinite(value) else ""
