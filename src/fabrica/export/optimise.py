"""The fastest way to run a model within the gate: precisions, runtimes, threads and students, side by side."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from fabrica.data.example import example
from fabrica.errors import UsageError, unknown
from fabrica.export import free, put
from fabrica.export.budget import Budget
from fabrica.export.candidates import BY_PYTORCH, PRECISIONS, Candidate, by_pytorch, exported, judge, usable
from fabrica.export.chart import LOSSES, picture
from fabrica.export.timing import timed
from fabrica.export.work import Work
from fabrica.methods import Translator
from fabrica.model.model import Model
from fabrica.progress import Progress, part
from fabrica.recipe.folder import CARD, FOUND, RECIPE, WEIGHTS
from fabrica.runtime.folder import Tried, load, seal
from fabrica.runtime.session import threads

TARGETS = {"cpu": ("onnx", "openvino"), "gpu": ("tensorrt",)}
TRIALS, PICTURE = "optimised.json", "optimised.png"


@dataclass(frozen=True)
class Trial:
    """A way to run a model, as it was tried.

    model      whose weights these are. threads: of the runtime; 0: those of PyTorch, or of a GPU.
    megabytes  of the networks' files. network, file: ms of the example image, within the network and from file to file,
               medians; None where the gate let it not pass. tried: what it loses. within: the budget.
    """

    model: str
    runtime: str
    precision: str
    threads: int
    megabytes: float
    network: float | None
    file: float | None
    tried: Tried
    within: bool

    def __str__(self) -> str:
        count = f" in {self.threads} thread{'s' * (self.threads > 1)}" if self.threads else ""
        return f"{self.model}, {self.runtime} {self.precision}{count}"


@dataclass(frozen=True)
class Result:
    """What was tried, the best of it, what was not tried and why, and the size of the image that was timed."""

    trials: Sequence[Trial]
    best: Trial
    left_out: Mapping[str, str]
    budget: Budget | None

    @property
    def beyond(self) -> str:
        """What to say where nothing is within the budget."""
        assert self.budget is not None
        smallest = min((each for each in self.trials if each.tried.passed), key=lambda each: each.megabytes)
        found = f"{self.best} takes {self.best.file:.3g} ms from file to file and has {self.best.megabytes:g} MB"
        if self.budget.unit == "MB":
            found += f", and the smallest, {smallest}, has {smallest.megabytes:g} MB"
        return (
            f"nothing that passes the gate is within {self.budget.said}: the fastest, {found}; it was written all the "
            "same: allow more, or name a smaller --student (docs/export.md)"
        )

    def table(self) -> list[str]:
        """A line for each trial, the best one marked."""
        names = len({each.model for each in self.trials}) > 1
        losses = {key: words for key, words in LOSSES.items() if any(_lost(each, key) for each in self.trials)}
        losses = losses or {"off": "mean distance from float32"}  # where nothing is known to be true
        heads = [*["model"] * names, "runtime", "precision", "threads", "network, ms", "file to file, ms", "MB"]
        heads += [*losses.values(), "gate", *([f"within {self.budget.said}"] if self.budget else [])]
        lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
        for each in self.trials:
            own = [*[each.model] * names, each.runtime, each.precision, str(each.threads or "")]
            own += [_number(each.network), _number(each.file), _number(each.megabytes)]
            own += [_lost(each, key) for key in losses]
            own += ["passed" if each.tried.passed else "not passed"]
            own += [("yes" if each.within else "no")] if self.budget else []
            lines.append(
                "| " + " | ".join(f"**{cell}**" if cell and each is self.best else cell for cell in own) + " |"
            )
        return lines


def optimise(
    work: Work,
    out: Path,
    *,
    target: str = "cpu",
    budget: Budget | None = None,
    students: Mapping[str, Model] | None = None,
    image: Path | None = None,
) -> Result:
    """Try the model, and students of it, in every precision and runtime of a target, "cpu" or "gpu"; those that pass
    the gate in 1, 2, 4 ... threads; and write what is the fastest from file to file to `out` (see `put`), as an
    exported folder, or where PyTorch is the fastest as a model folder. What was tried lies beside it.

    budget    within which the fastest is looked for; where nothing is, the fastest is written all the same.
    students  by what they are called. image: what is timed; None: a held-out one, see `example`.

    Raises UsageError for a model that `fabrica apply` does not take, students that answer another question, and where
    images to judge them on are not there; what ways to run it are missing here is told in `Result.left_out`.
    """
    free(out)
    if target not in TARGETS:
        raise unknown("target", target, TARGETS)
    if not isinstance(work.model.method, Translator):
        raise UsageError(f"{work.model.refusal}; what is optimised restores, translates or segments")
    works = [(work.model.name, work)]
    for who, student in (students or {}).items():
        _check(work.model, who, student)
        works.append((who, replace(work, model=student, student=True, _made={})))
    left_out: dict[str, str] = {}
    formats = usable(TARGETS[target], left_out)
    if target == "gpu" and work.model.device.type == "cpu":
        left_out["pytorch"] = "PyTorch finds no GPU here"
        if not formats:
            why = "; ".join(f"{name}: {reason}" for name, reason in left_out.items())
            raise UsageError(f"nothing here runs on a GPU ({why}); take --target cpu")
    with TemporaryDirectory() as temporary:
        home = Path(temporary)
        found = _candidates(works, formats, home, left_out, work.progress)
        source = replace(work.model.data, source=work.calibrate or work.model.data.source)
        trials = _timed(found, image or example(source, home), target, budget, work.progress)
        passed = [each for each in trials if each[0].file is not None]
        best, candidate = min(passed, key=lambda each: (not each[0].within, each[0].file))
        result = Result([trial for trial, _ in trials], best, left_out, budget)
        put(out, lambda folder: _keep(candidate, result, target, folder))
    return result


def _check(model: Model, who: str, student: Model) -> None:
    """UsageError for a student whose answers are not those of its teacher."""
    ours, theirs = (
        {
            "sides": (each.data.a, each.data.b, each.data.auxiliary, each.data.context, each.data.channels),
            "codecs": (each.found.codec, each.found.codec_b, each.found.codecs_auxiliary),
        }
        for each in (model, student)
    )
    if unlike := [name for name in ours if ours[name] != theirs[name]]:
        raise UsageError(
            f"{who} is no student of {model.name}: its {' and '.join(unlike)} are others, so that answers cannot be "
            f"compared; train it on the same data with uses.teacher={model.folder}"
        )


def _candidates(
    works: Sequence[tuple[str, Work]],
    formats: Sequence[str],
    home: Path,
    left_out: dict[str, str],
    progress: Progress | None,
) -> list[Candidate]:
    found: list[Candidate] = []
    done, count = 0, len(works) * (len(formats) * len(PRECISIONS) + len(BY_PYTORCH))

    def told() -> None:
        nonlocal done
        done += 1
        if progress:
            progress("ways to run it", done, count)

    for k, (who, work) in enumerate(works):
        judge(work)
        own: list[Candidate] = []
        for to in formats:
            own += exported(work, who, to, home / str(k), left_out, told)
            if own and not any(each.tried.passed for each in own):
                break  # a student that loses too much, whatever runs it
        else:
            own += by_pytorch(work, who, left_out, told) if "pytorch" not in left_out else []
        found += own
    done = count - 1
    told()  # what a student was spared is done, too
    return found


def _timed(
    found: Sequence[Candidate], image: Path, target: str, budget: Budget | None, progress: Progress | None
) -> list[tuple[Trial, Candidate]]:
    most = threads()
    counts = sorted({min(2**k, most) for k in range(most.bit_length() + 1)}) if target == "cpu" else [0]
    runs = [(each, count) for each in found for count in (counts if isinstance(each.place, Path) else [0])]
    ready = [each.opened(count) for each, count in runs if each.place is not None]
    seconds = iter(timed(ready, image, part(progress, "rounds of timing")))
    trials = []
    for each, count in runs:
        network, file = next(seconds) if each.place is not None else (None, None)
        within = file is not None and (budget is None or budget.holds(file, each.megabytes))
        trial = Trial(
            each.model, each.runtime, each.precision, count, each.megabytes, network, file, each.tried, within
        )
        trials.append((trial, each))
    return trials


def _keep(candidate: Candidate, result: Result, target: str, folder: Path) -> None:
    """Write the best one, with what was tried."""
    best, place, record = result.best, candidate.place, None
    if isinstance(place, Path):
        shutil.copytree(place, folder)
        record = load(folder)
    else:
        assert place is not None
        folder.mkdir(parents=True)
        for name in (WEIGHTS, FOUND, CARD):
            if (place.folder / name).is_file():
                shutil.copyfile(place.folder / name, folder / name)
        place.recipe.save(folder / RECIPE)
    said = {
        "target": target,
        "budget": result.budget.said if result.budget else "",
        "cores": threads(),
        "best": result.trials.index(best),
        "trials": [asdict(each) for each in result.trials],
        "left_out": dict(result.left_out),
    }
    (folder / TRIALS).write_text(json.dumps(said, indent=2, ensure_ascii=False), encoding="utf-8")
    (folder / PICTURE).write_bytes(picture(_groups(result.trials), ("ms", "ms, file to file")))
    with (folder / CARD).open("a", encoding="utf-8") as card:
        card.write("\n## What was tried\n\nOf one image, medians of rounds in turn:\n\n")
        card.write("\n".join([*result.table(), "", f"![what was tried]({PICTURE})", ""]))
    if record:
        seal(folder, replace(record, threads=best.threads if best.threads < threads() else 0))


def _groups(trials: Sequence[Trial]) -> dict[str, list[Tried]]:
    """What the chart shows: of each model and runtime the precisions, in the threads that were the fastest."""
    found: dict[str, dict[str, Trial]] = {}
    for each in trials:
        own = found.setdefault(f"{each.model}, {each.runtime}", {})
        if each.precision not in own or (each.file or 0.0) < (own[each.precision].file or 0.0):
            own[each.precision] = each
    return {
        name: [replace(each.tried, ms=each.file or float("nan"), megabytes=each.megabytes) for each in own.values()]
        for name, own in found.items()
    }


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}"


def _lost(trial: Trial, key: str) -> str:
    value = getattr(trial.tried, key)
    return "" if value is None else f"{value:.3f}"
