"""What a report on a model that translates says in words: verdict, warnings, the model, how it was measured."""

from __future__ import annotations

import platform
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version

from fabrica import __version__
from fabrica.evaluation.accuracy import Scored
from fabrica.evaluation.cases import Exam, directions
from fabrica.evaluation.charts import shown
from fabrica.evaluation.extractors import Extractor
from fabrica.evaluation.gallery import Gallery
from fabrica.evaluation.report import Comparison, Row
from fabrica.evaluation.sources import alarms
from fabrica.folder import ALARMS
from fabrica.model import Model

FEWEST = 6  # patients: with fewer, Wilcoxon's signed-rank test cannot reach 5 %


@dataclass(frozen=True, eq=False)
class OneWay:
    """What was found in one direction."""

    scored: Scored
    gallery: Gallery
    rows: Sequence[Row]
    comparisons: Sequence[Comparison]
    notes: Sequence[str]


@dataclass(frozen=True, eq=False)
class Trial:
    """Everything that one evaluation looked at and found, by direction."""

    model: Model
    versus: Model | None
    exam: Exam
    extractor: Extractor
    asked: int | None
    seed: int
    ways: Mapping[str, OneWay]

    @property
    def rows(self) -> list[Row]:
        return [row for way in self.ways.values() for row in way.rows]

    @property
    def comparisons(self) -> list[Comparison]:
        return [item for way in self.ways.values() for item in way.comparisons]

    @property
    def first(self) -> Scored:
        """That of a to b, which every translator goes."""
        return self.ways["a2b"].scored


def warnings(trial: Trial) -> list[str]:
    before = [*alarms(trial.model.folder / ALARMS), *trial.exam.notes]
    notes = list(dict.fromkeys([*before, *(note for way in trial.ways.values() for note in way.notes)]))
    patients = len(set(trial.first.patients))
    if trial.exam.paired and patients < FEWEST:
        few = "1 patient is" if patients == 1 else f"{patients} patients are"
        notes.append(
            f"{few} too few: intervals mean little, and a paired test cannot reach 5 % with less than {FEWEST}"
        )
    notes += [said for row in trial.rows if row.key.endswith("mae") and (said := _useless(trial.model, row))]
    return [note[0].upper() + note[1:].rstrip(".") + "." for note in notes if note]


def _useless(model: Model, row: Row) -> str:
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


def _called(model: Model, row: Row) -> dict[str, str]:
    """The baselines in words."""
    data = model.recipe.data
    source, target = (data.b, data.a) if row.key.startswith("b2a") else (data.a, data.b)
    return {"mean": f"the mean training {target}", "identity": f"the {source} as it is"}


def verdict(trial: Trial) -> str:
    """The report in a sentence or two."""
    rows = {row.key: row for row in trial.rows}
    said = []
    if row := rows.get("mae"):
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
    if item := next((item for item in trial.comparisons if item.key == "mae"), None):
        word = "lower" if item.mean < 0 else "higher"
        p = "p < 0.001" if item.p < 0.001 else f"p = {shown(item.p)}"
        other = trial.versus.name if trial.versus else ""
        said.append(
            f"It is {shown(abs(item.mean))} {word} than that of {other} "
            f"(difference [{shown(item.low)}, {shown(item.high)}], {p})"
        )
    return ". ".join(said or ["There are neither pairs nor enough images for a score"]) + "."


def about(model: Model) -> list[tuple[str, str]]:
    recipe = model.recipe
    ways = {"a2b": f"{recipe.data.a} → {recipe.data.b}", "b2a": f"{recipe.data.b} → {recipe.data.a}"}
    facts = [
        ("about", recipe.about),
        ("method", str(recipe.method.get("name", ""))),
        ("directions", ", ".join(ways[way] for way in directions(model))),
        ("learnt from", "pairs" if recipe.data.paired else "two sets without pairs"),
        ("trained on", recipe.data.source),
        ("size it sees", " × ".join(str(side) for side in recipe.data.size)),
        ("weights", model.hash),
    ]
    return [(name, value) for name, value in facts if value]


def measured(trial: Trial) -> list[tuple[str, str]]:
    """How to read and repeat the figures."""
    first, exam = trial.first, trial.exam
    line = ["fabrica", "evaluate", str(trial.model.folder), "--against", exam.config.source]
    line += ["--versus", str(trial.versus.folder)] if trial.versus else []
    line += ["-n", str(trial.asked)] if trial.asked is not None else []
    line += ["--extractor", trial.extractor.name] if trial.extractor.name != "radiomic" else []
    line += ["--seed", str(trial.seed)] if trial.seed else []
    libraries = ", ".join(f"{library} {version(library)}" for library in ("numpy", "scipy", "torch"))
    seen = "what is brighter than air (CT: above −500 HU), largest piece, holes filled"
    masks = f"masks of the manifest for {first.declared} images" if first.declared else ""
    return [
        ("test images", f"{len(first.ids)} of {len(set(first.patients))} patients, the {exam.split} split"),
        ("body", "; else ".join(part for part in (masks, seen) if part)),
        ("means", "over patients; intervals: 95 %, percentile bootstrap over patients; of sets: random halves"),
        ("values", "HU clipped to −1024 … 3000, a range of 4024 (SynthRAD2023); other units: the true image's limits"),
        ("seed", str(trial.seed)),
        ("command", shlex.join(line)),
        ("versions", f"Fabrica {__version__}, Python {platform.python_version()}, {libraries}"),
    ]
