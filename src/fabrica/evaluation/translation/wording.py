"""What a report on a model that translates says in words: verdict, warnings, the model, how it was measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fabrica.evaluation.subject import alarms
from fabrica.evaluation.translation.accuracy import Scored
from fabrica.evaluation.translation.cases import HeldOutCases, directions, restores
from fabrica.evaluation.translation.restoration_panels import Restoring
from fabrica.inference.out_of_distribution import compared
from fabrica.metrics.extractors import Extractor
from fabrica.model.translation import TranslationModel
from fabrica.recipe.folder import ALARMS
from fabrica.recipe.held_out import useless
from fabrica.report.charts import shown
from fabrica.report.pictures import Gallery
from fabrica.report.report import repeated
from fabrica.report.scores import BESIDE, Comparison, ScoreRow

FEWEST = 6  # patients: with fewer, Wilcoxon's signed-rank test cannot reach 5 %


@dataclass(frozen=True, eq=False)
class OneWay:
    """What was found in one direction. beside: of restoration, the classics."""

    scored: Scored
    gallery: Gallery
    rows: Sequence[ScoreRow]
    comparisons: Sequence[Comparison]
    notes: Sequence[str]
    beside: Restoring | None = None


@dataclass(frozen=True, eq=False)
class TranslationTrial:
    """Everything that one evaluation looked at and found, by direction."""

    model: TranslationModel
    versus: TranslationModel | None
    held_out: HeldOutCases
    extractor: Extractor
    asked: int | None
    seed: int
    ways: Mapping[str, OneWay]

    @property
    def rows(self) -> list[ScoreRow]:
        return [row for way in self.ways.values() for row in way.rows]

    @property
    def comparisons(self) -> list[Comparison]:
        return [item for way in self.ways.values() for item in way.comparisons]

    def compared(self, other: str, metric: str) -> Comparison | None:
        """With a second model ("versus") or a baseline, from a to b."""
        return next((item for item in self.comparisons if (item.other, item.key) == (other, metric)), None)

    @property
    def beside(self) -> Restoring | None:
        return self.ways["a2b"].beside

    @property
    def first(self) -> Scored:
        """That of a to b, which every translator goes."""
        return self.ways["a2b"].scored


def warnings(trial: TranslationTrial) -> list[str]:
    before = [*alarms(trial.model.folder / ALARMS), *_known(trial), *trial.held_out.notes]
    notes = list(dict.fromkeys([*before, *(note for way in trial.ways.values() for note in way.notes)]))
    patients = len(set(trial.first.patients))
    if trial.held_out.paired and patients < FEWEST:
        few = "1 patient is" if patients == 1 else f"{patients} patients are"
        notes.append(
            f"{few} too few: intervals mean little, and a paired test cannot reach 5 % with less than {FEWEST}"
        )
    if trial.beside:
        notes += [said for other in ("identity", trial.beside.best) if (said := _no_better(trial, other))]
    else:
        notes += [said for row in trial.rows if row.key.endswith("mae") and (said := _useless(trial.model, row))]
    return [note[0].upper() + note[1:].rstrip(".") + "." for note in notes if note]


def _known(trial: TranslationTrial) -> list[str]:
    """What the end of training and its images say against the model."""
    model, said = trial.model, list[str]()
    for way in trial.ways:
        found = useless(model.found.held_out(way))
        said += [f"at the end of training, {found}"] * bool(found) + [compared(model.way(way))]
    return [sentence for sentence in said if sentence]


def _useless(model: TranslationModel, row: ScoreRow) -> str:
    """A sentence where the model is no better than a baseline."""
    for who, value in sorted(row.baselines.items(), reverse=True):  # the mean image first: it is the harder one
        called = _called(model, row)[who]
        if row.value >= value:
            return (
                f"the model is worse than {called}: its MAE is {row.text(row.value)}, not {row.text(value)}; "
                "do not use it"
            )
        if row.high is not None and row.high >= value:
            return f"the model is hardly better than {called}, whose MAE of {row.text(value)} lies within its interval"
    return ""


def _no_better(trial: TranslationTrial, other: str) -> str:
    """A sentence where the model restores no better than what it was given, or the best classic."""
    item = trial.compared(other, "psnr")
    if item is None or item.low > 0:
        return ""
    values = f"its PSNR is {shown(item.one)} dB, not {shown(item.two)} dB"
    if item.mean <= 0:
        return f"the model is no better than {item.rival}: {values}; do not use it"
    interval = f"[{shown(item.low)}, {shown(item.high)}]"
    return f"the model is hardly better than {item.rival}: {values}, and the interval of the gain {interval} holds 0"


def _called(model: TranslationModel, row: ScoreRow) -> dict[str, str]:
    """The baselines in words."""
    data = model.data
    source, target = (data.b, data.a) if row.key.startswith("b2a") else (data.a, data.b)
    return {"mean": f"the mean training {target}", "identity": f"the {source} as it is"}


def verdict(trial: TranslationTrial) -> str:
    """The report in a sentence or two."""
    rows = {row.key: row for row in trial.rows}
    said = _restored(trial)
    if (row := rows.get("mae")) and not said:
        unit = " HU" if trial.model.codec_b.unit == "HU" else ""
        others = [
            f"{row.text(row.baselines[who])}{unit} for {_called(trial.model, row)[who]}"
            for who in ("mean", "identity")
            if who in row.baselines
        ]
        where = f"inside the body, over {len(set(trial.first.patients))} patients"
        said.append(
            f"MAE {row.text(row.value)}{unit} {row.interval} {where}"
            + (f", against {' and '.join(others)}" if others else "")
        )
    if (row := rows.get("frechet")) and not said:
        beside = {"identity": "untranslated images score", "real": "real images score"}
        others = [f"{beside[who]} {row.text(value)}" for who, value in row.beside.items()]
        said.append(
            f"{row.name} {row.text(row.value)} {row.interval} from real images (lower is better); "
            + " and ".join(others)
        )
        if trip := rows.get("round_trip"):
            said.append(f"There and back, an image changes by {trip.text(trip.value)} in the mean")
    metric = "psnr" if trial.beside else "mae"
    if item := trial.compared("versus", metric):
        name = "PSNR" if trial.beside else "MAE"
        said.append(
            f"Its {name} is {_gap(item, ' dB' * bool(trial.beside))} than that of {item.rival} ({_interval(item)})"
        )
    return ". ".join(said or ["There are neither pairs nor enough images for a score"]) + "."


def _restored(trial: TranslationTrial) -> list[str]:
    """Restoration in two sentences; [] for translation."""
    if not trial.beside or not (gain := trial.compared("identity", "psnr")):
        return []
    who = len(set(trial.first.patients))
    interval = f"[{shown(gain.low)}, {shown(gain.high)}]"
    said = [
        f"PSNR {shown(gain.one)} dB inside the body, {_signed(gain.mean)} dB {interval} over what came in "
        f"({who} patient{'s' * (who > 1)})"
    ]
    if item := trial.compared(trial.beside.best, "psnr"):
        name, classic = BESIDE[trial.beside.best], item.two - gain.two
        said[0] += f"; best classic, {name}, {_signed(classic)} dB"
        said.append(f"The model is {_gap(item, ' dB')} than {name} ({_interval(item)})")
    if item := trial.compared("identity", "ssim"):
        said.append(f"SSIM {shown(item.one)}, not {shown(item.two)}")
    return said


def _signed(value: float) -> str:
    return f"{'−' if value < 0 else '+'}{shown(abs(value))}"


def _gap(item: Comparison, unit: str) -> str:
    """ "12.3 lower"."""
    return f"{shown(abs(item.mean))}{unit} {'lower' if item.mean < 0 else 'higher'}"


def _interval(item: Comparison) -> str:
    p = "p < 0.001" if item.p < 0.001 else f"p = {shown(item.p)}"
    return f"difference [{shown(item.low)}, {shown(item.high)}], {p}"


def about(model: TranslationModel) -> list[tuple[str, str]]:
    recipe = model.recipe
    ways = {"a2b": f"{recipe.data.a} → {recipe.data.b}", "b2a": f"{recipe.data.b} → {recipe.data.a}"}
    facts = [
        ("about", recipe.about),
        ("method", str(recipe.method.get("name", ""))),
        ("directions", ", ".join(ways[way] for way in directions(model))),
        ("degraded by", "; ".join(_step(step) for step in model.data.degrade)),
        ("learnt from", "pairs" if recipe.data.paired else "two sets without pairs"),
        ("trained on", recipe.data.source),
        ("size it sees", " × ".join(str(side) for side in recipe.data.size)),
        ("weights", model.hash),
    ]
    return [(name, value) for name, value in facts if value]


def _step(step: Mapping[str, Any]) -> str:
    """ "low-dose (photons 20000)"."""
    values = ", ".join(f"{key} {value:g}" if isinstance(value, float) else f"{key} {value}"
                       for key, value in step.items() if key != "name")  # fmt: skip
    return f"{step['name']} ({values})" if values else str(step["name"])


def _range(trial: TranslationTrial) -> str:
    """The range that PSNR and SSIM are taken over."""
    if not restores(trial.model):
        return "HU clipped to −1024 … 3000, a range of 4024 (SynthRAD2023); other units: the true image's limits"
    codec = trial.model.codec_b
    if codec.unit == "HU":
        return (
            "HU clipped to −1024 … 3000, a range of 4024 (SynthRAD2023). Papers on low-dose CT often take a window of "
            "400 HU: for the same error their PSNR is 20 dB lower"
        )
    if codec.kind == "percentile":
        return f"percentiles {codec.low:g} to {codec.high:g} of each true image"
    return f"{codec.low:g} … {codec.high:g}, all that the model sees"


def _classics(trial: TranslationTrial) -> list[tuple[str, str]]:
    """The classics with their strengths, and how these were found."""
    if not trial.beside:
        return []
    found = trial.beside.filters
    said = [(BESIDE[key], classic.said) for key, classic in found.chosen.items()]
    how = f"each as strong as gives the best mean PSNR on {found.tuned_on}; the best of them by PSNR on the test images"
    small = "; what was downsampled is filtered at its own size, then interpolated (bicubic)" * (found.factor > 1)
    return [("classics", how + small), *said]


def measured(trial: TranslationTrial) -> list[tuple[str, str]]:
    """How to read and repeat the figures."""
    first, held_out = trial.first, trial.held_out
    versus = ["--versus", str(trial.versus.folder)] if trial.versus else []
    folder, against, extractor = str(trial.model.folder), held_out.config.source, trial.extractor.name
    seen = "what is brighter than air (CT: above −500 HU), largest piece, holes filled"
    masks = f"masks of the manifest for {first.declared} images" if first.declared else ""
    return [
        ("test images", f"{len(first.ids)} of {len(set(first.patients))} patients, the {held_out.split} split"),
        ("body", "; else ".join(part for part in (masks, seen) if part)),
        ("means", "over patients; intervals: 95 %, percentile bootstrap over patients; of sets: random halves"),
        ("values", _range(trial)),
        *_classics(trial),
        *repeated(folder, against, asked=trial.asked, extractor=extractor, seed=trial.seed, more=versus),
    ]
