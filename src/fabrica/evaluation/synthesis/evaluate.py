"""Judge synthetic images: draw them, measure them against held-out real ones, look for copies, write the report.

Every score is taken twice: of the synthetic images, and of as many real training images put in their place.
The second is what a perfect generator would score at this number of images, so it stands beside the first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fabrica import __version__
from fabrica.errors import UsageError
from fabrica.evaluation.real_images import open_sets
from fabrica.evaluation.set_scores import (
    LEAST_JUDGED,
    Bench,
    Repeats,
    at_steps,
    by_class,
    copies,
    cost,
    distances,
    distinct,
    diversity,
    lay_out,
    repeats,
    search_copies,
)
from fabrica.evaluation.sets import Sets
from fabrica.evaluation.subject import Drawn, Subject, open_subject
from fabrica.evaluation.synthesis import mask_adherence as masked
from fabrica.evaluation.synthesis import text_guidance as prompted
from fabrica.evaluation.synthesis import told_and_not
from fabrica.evaluation.synthesis.condition_agreement import agreement
from fabrica.evaluation.synthesis.phantom_classifier import readable
from fabrica.evaluation.synthesis.text_guidance import GUIDANCES, Obedience, Shown
from fabrica.metrics import distribution, extractors
from fabrica.metrics.memorisation import EXACT, Audit
from fabrica.nets.device import default_device
from fabrica.progress import Progress
from fabrica.report.charts import shown
from fabrica.report.report import Exhibits, repeated, write_report
from fabrica.report.scores import ClassScore, CurvePoint, Pair, Report, ScoreRow

if TYPE_CHECKING:
    from fabrica.model.model import Model

LEAST, MOST = 64, 1000  # synthetic images drawn unless n is given: as many as are held out, within these
CURVE = (2, 5, 10, 20)  # sampler steps compared by default
PAIRS_SHOWN, CONTROLS_SHOWN = 6, 3
OPTIONS = ("steps_curve", "guidances")  # of `fabrica.evaluation.evaluate`, that mean something here


@dataclass(frozen=True, eq=False)
class SynthesisTrial:
    """Everything that one evaluation looked at and found."""

    subject: Subject
    sets: Sets
    drawn: Drawn
    bench: Bench
    found: Audit | None
    repeats: Repeats
    rows: Sequence[ScoreRow]
    curve: Sequence[CurvePoint]
    classes: Sequence[ClassScore]
    asked: int | None
    seed: int
    examples: Sequence[Shown] = ()
    obeyed: Obedience | None = None


def evaluate(
    model: Model | Path | str,
    against: str | Path | None = None,
    out: str | Path = "report",
    *,
    n: int | None = None,
    split: str = "test",
    extractor: str = "radiomic",
    seed: int = 0,
    steps_curve: Sequence[int] | None = None,
    guidances: Sequence[float] | None = None,
    progress: Progress | None = None,
) -> Report:
    """Score synthetic images against held-out real ones and write out/report.html and out/scores.json.

    model      a Model, a model folder, or a folder or manifest of synthetic images.
    against    a manifest, folder or phantom source of real images; None: what the model was trained on.
    n          how many synthetic images; None: all of those given, copies among them too; of a model as many as are
               held out, at least 64 and at most 1000.
    split      the real images to compare with; val stands in, with a warning, where test is empty.
    extractor  what distances are measured on: see `extractors.extractor`.
    steps_curve  also measure the Fréchet distance at these numbers of sampler steps; None: those that it has, or CURVE.
    guidances  a model of chest phantoms that reads text: the strengths of guidance at which it is measured how far it
               obeys; None: GUIDANCES.
    progress   called with (what, done, total).

    A conditional model is told what held-out images are told, or their classes in the same proportions.
    Raises UsageError for too few images, and for a folder of images without `against`.
    """
    tell = progress or (lambda what, done, total: None)
    features_of = extractors.extractor(extractor, str(default_device()))
    subject = open_subject(model, against, tell)
    steps_curve = _curve(steps_curve, subject)
    sets = open_sets(subject, split, seed, tell)
    count = _count(n, sets, subject)
    Path(out).mkdir(parents=True, exist_ok=True)  # a place that cannot be written is better known now than later
    drawn = subject.draw(count, sets, seed, tell)
    _require(len(drawn.images), "synthetic", subject.source)
    bench = lay_out(features_of, sets, drawn, seed, tell)
    found = search_copies(sets, drawn, seed, tell)
    again = repeats(drawn.images)
    rows = [*distances(bench, seed, tell), *diversity(sets, drawn, seed), distinct(sets, drawn, again)]
    rows += copies(found, len(drawn.images))
    if drawn.known and bench.reference_known:
        rows += agreement(bench.reference, bench.reference_known, bench.real, sets.known, bench.fake, drawn.known)
    if drawn.seconds is not None:
        rows.append(cost(drawn.seconds / len(drawn.images)))
    curve = [at_steps(subject, sets, bench, drawn, steps, seed, tell) for steps in steps_curve]
    obeyed = prompted.obedience(subject, GUIDANCES if guidances is None else guidances, seed, tell)
    if obeyed:
        rows += prompted.rows_of(obeyed)
    rows += masked.rows(drawn, sets, seed)
    shown_texts = prompted.examples(subject, sets, seed)
    classes = by_class(bench, sets, drawn)
    trial = SynthesisTrial(
        subject, sets, drawn, bench, found, again, rows, curve, classes, n, seed, shown_texts, obeyed
    )
    facts = _facts(trial)
    return write_report(Path(out), facts, rows, _warnings(trial), _verdict(trial), _exhibits(trial, facts))


def _curve(asked: Sequence[int] | None, subject: Subject) -> Sequence[int]:
    """The numbers of sampler steps to compare; none for images, and for models that make an image in one pass."""
    model = subject.model
    if model and "steps" in model.choices:
        return sorted(model.paces or CURVE) if asked is None else asked
    if asked and model:
        kind = model.method_name
        raise UsageError(f"model {model.name} ({kind}) makes images in one pass; leave the steps curve (--curve) out")
    if asked:
        raise UsageError("a steps curve needs a model that can sample; leave it out for a folder of images")
    return ()


def _count(n: int | None, sets: Sets, subject: Subject) -> int:
    _require(len(sets.heldout), "held-out real", "the real set")
    if n is None and subject.fixed is not None:
        return len(subject.fixed.images)
    if n is None:
        return min(max(len(sets.heldout), LEAST), MOST)
    _require(n, "synthetic", "-n")
    return n


def _require(count: int, kind: str, where: str) -> None:
    if count < LEAST_JUDGED:
        raise UsageError(
            f"{count} {kind} images ({where}); at least {LEAST_JUDGED} are needed, and some hundreds for "
            "figures that mean something"
        )


def _facts(trial: SynthesisTrial) -> dict[str, Any]:
    """What scores.json says beside the scores."""
    model, found = trial.subject.model, trial.found
    return {
        "fabrica": __version__,
        "subject": trial.subject.name,
        "model_hash": model.hash if model else None,
        "against": trial.subject.against,
        "split": trial.sets.split,
        "n_synthetic": len(trial.drawn.images),
        "n_given": trial.drawn.given if trial.subject.fixed else None,
        "n_unread": trial.subject.unread if trial.subject.fixed else None,
        "n_distinct": trial.repeats.distinct,
        "repeats": [[trial.drawn.names[k] for k in group] for group in trial.repeats.groups],
        "n_real": len(trial.sets.heldout),
        "n_searched": len(trial.sets.searched),
        "n_reference": len(trial.bench.reference),
        "extractor": trial.bench.extractor.name,
        "dims": trial.bench.real.shape[1],
        "seed": trial.seed,
        "copies": len(found.copies) if found else None,
        "copies_false_alarm": found.false_alarm if found else None,
        "copies_p_value": found.p_value if found else None,
        "steps_curve": [asdict(point) for point in trial.curve],
        "classes": [asdict(item) for item in trial.classes],
        "guidances": [asdict(point) for point in trial.obeyed.points] if trial.obeyed else [],
        "not_read": trial.obeyed.found.unread if trial.obeyed else {},
    }


def _exhibits(trial: SynthesisTrial, facts: dict[str, Any]) -> Exhibits:
    subject = trial.subject
    return Exhibits(
        title=subject.name,
        subject=subject.line,
        real=trial.sets.heldout,
        synthetic=trial.drawn.images,
        window=subject.window,
        facts=subject.facts,
        measured=_measured(trial, facts),
        distance=trial.bench.name,
        pairs=_pairs(trial) if trial.found else (),
        control=_control(trial) if trial.found else (),
        log=subject.log,
        curve=trial.curve,
        classes=trial.classes,
        texts=[(one.text, np.stack([one.synthetic, one.real])) for one in trial.examples],
        obeyed=prompted.chart(trial.obeyed) if trial.obeyed and trial.obeyed.points else None,
        masks=masked.examples(trial.drawn, trial.sets),
        differences=told_and_not.pictures(subject, trial.seed),
        spacing=trial.sets.spacing,
    )


def _pairs(trial: SynthesisTrial) -> list[Pair]:
    """The synthetic images that lie nearest to a training image."""
    assert trial.found is not None  # see the call
    sets, drawn, copied = trial.sets, trial.drawn, set(trial.found.copies)
    pairs = trial.found.pairs[:PAIRS_SHOWN]
    nearest = sets.memory_images([j for _, j, _ in pairs])
    return [
        Pair(drawn.images[i], image, drawn.names[i], sets.memory_name(j), distance, i in copied)
        for (i, j, distance), image in zip(pairs, nearest, strict=True)
    ]


def _control(trial: SynthesisTrial) -> list[Pair]:
    """The held-out images that lie nearest to a training image."""
    assert trial.found is not None  # see the call
    sets, pairs = trial.sets, trial.found.control_pairs[:CONTROLS_SHOWN]
    nearest = sets.memory_images([j for _, j, _ in pairs])
    return [
        Pair(sets.heldout[i], image, sets.heldout_names[i], sets.memory_name(j), distance)
        for (i, j, distance), image in zip(pairs, nearest, strict=True)
    ]


def _warnings(trial: SynthesisTrial) -> list[str]:
    bench, count = trial.bench, len(trial.drawn.images)
    few = distribution.enough(min(len(bench.real), count), bench.real.shape[1])
    notes = [*trial.subject.notes, *trial.sets.notes, _repeated(trial), few or "", bench.note]
    if trial.asked is not None and count < trial.asked:
        notes.append(f"asked for {trial.asked} synthetic images, found {count}; all of them are judged")
    if trial.found is None:
        notes.append("copies were not looked for: that needs at least 4 training and 10 held-out images")
    else:
        notes.append(_suspicion(trial.found))
    if prompted.reads_phantoms(trial.subject) and not readable(trial.subject.config.size[0]):
        notes.append("nothing reads phantoms of this size: whether images show what the text says is not scored")
    return [note[0].upper() + note[1:].rstrip(".") + "." for note in notes if note]


def _repeated(trial: SynthesisTrial) -> str:
    """A warning where synthetic images equal one another, with the largest group's names."""
    found, total = trial.repeats, len(trial.drawn.images)
    if not found.groups:
        return ""
    names = [trial.drawn.names[k] for k in found.groups[0]]
    shown_names = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
    many = f"{found.count} of {total} synthetic images {'is an exact copy' if found.count == 1 else 'are exact copies'}"
    return (
        f"{many} of others among them, so only {found.distinct} of {total} are different; {len(names)} are the same "
        f"image ({shown_names}): mode collapse, or files that were written twice"
    )


def _suspicion(found: Audit) -> str:
    """A warning if the model copies, by the rate or by single samples far nearer than any honest image."""
    nearest = min((d for _, _, d in found.control_pairs if d > EXACT), default=0.0)
    close = sum(d < nearest / 2 for _, _, d in found.pairs)
    if found.memorised:
        return "the model copies training images; do not share its samples before looking at the closest pairs"
    if close:
        return (
            f"{close} synthetic images lie less than half as far from a training image as any held-out image does; "
            "look at the closest pairs before sharing them"
        )
    return ""


def _verdict(trial: SynthesisTrial) -> str:
    """The report in two sentences."""
    first, found, count = trial.rows[0], trial.found, len(trial.drawn.images)
    text = (
        f"At N = {count}, the {first.name} is {first.text(first.value)} {first.interval} (lower is better); "
        f"{len(trial.bench.reference)} real images in their place score {first.text(first.real)}"
    )
    if first.real:
        text += f", so the synthetic images score {shown(first.value / first.real)} times what real ones do"
    if found is None:
        return f"{text}. Copies of training images were not looked for."
    judged = ", more than chance explains" if found.memorised else ""
    return (
        f"{text}. Suspected copies of training images: {len(found.copies)} of {count}, where about "
        f"{found.false_alarm * count:.1f} are expected by chance{judged}."
    )


def _measured(trial: SynthesisTrial, facts: dict[str, Any]) -> list[tuple[str, str]]:
    """How to read and repeat the figures."""
    subject, name = trial.subject, trial.bench.extractor.name
    more: list[str] = []
    if subject.model and "steps" in subject.model.choices:
        more += ["--curve", ",".join(str(point.steps) for point in trial.curve)]
    if prompted.reads_phantoms(subject):
        strengths = trial.obeyed.points if trial.obeyed else ()
        more += ["--guidances", ",".join(f"{point.guidance:g}" for point in strengths)]
    again = repeated(subject.source, subject.against, asked=trial.asked, extractor=name, seed=trial.seed, more=more)
    return [
        ("synthetic", f"{facts['n_synthetic']} images"),
        ("real", f"{facts['n_real']} images of the {facts['split']} split of {subject.against}"),
        ("real column", f"{facts['n_reference']} real images in place of the synthetic ones"),
        ("copies looked for in", f"{facts['n_searched']} training images"),
        ("features", f"{name}, {facts['dims']} of them (those that vary in the real images)"),
        ("image size", " × ".join(str(side) for side in subject.config.size)),
        *again,
    ]
