"""Judge synthetic images: draw them, measure them against held-out real ones, look for copies, write the report.

Every score is taken twice: of the synthetic images, and of as many real training images put in their place.
The second is what a perfect generator would score at this number of images, so it stands beside the first.
"""

from __future__ import annotations

import platform
import shlex
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fabrica import __version__
from fabrica.errors import UsageError
from fabrica.evaluate import distribution, extractors
from fabrica.evaluate.measure import (
    Bench,
    at_steps,
    by_class,
    copies,
    cost,
    distances,
    diversity,
    lay_out,
    search_copies,
)
from fabrica.evaluate.memorisation import EXACT, Audit
from fabrica.evaluate.report import Exhibits, Pair, Report, Row, shown, write_report
from fabrica.evaluate.sources import Drawn, Progress, Sets, Subject, open_sets, open_subject

if TYPE_CHECKING:
    from fabrica.model import Model

LEAST, MOST = 64, 1000  # synthetic images drawn unless n is given: as many as are held out, within these
PAIRS_SHOWN, CONTROLS_SHOWN = 6, 3


def evaluate(
    model: Model | Path | str,
    against: str | Path | None = None,
    out: str | Path = "report",
    *,
    n: int | None = None,
    split: str = "test",
    extractor: str = "radiomic",
    seed: int = 0,
    steps_curve: Sequence[int] = (),
    progress: Progress | None = None,
) -> Report:
    """Score synthetic images against held-out real ones and write out/report.html and out/scores.json.

    model      a Model, a model folder, or a folder or manifest of synthetic images.
    against    a manifest, folder or phantom source of real images; None: what the model was trained on.
    n          how many synthetic images; None: as many as are held out, at least 64 and at most 1000.
    split      the real images to compare with; val stands in, with a warning, where it is empty.
    extractor  what distances are measured on: see `extractors.extractor`.
    steps_curve  also measure the Fréchet distance at these numbers of sampler steps.
    progress   called with (what, done, total).

    A class-conditional model is asked for the classes in the proportions of the held-out images.
    Raises UsageError for too few images, and for a folder of images without `against`.
    """
    tell = progress or (lambda what, done, total: None)
    features_of = extractors.extractor(extractor)
    subject = open_subject(model, against, tell)
    if steps_curve and subject.model is None:
        raise UsageError("a steps curve needs a model that can sample; leave it out for a folder of images")
    sets = open_sets(subject, split, seed, tell)
    count = n if n is not None else min(max(len(sets.heldout), LEAST), MOST)
    drawn = subject.draw(count, sets, seed, tell)
    bench = lay_out(features_of, sets, drawn, seed, tell)
    found = search_copies(sets, drawn, seed, tell)
    rows = [*distances(bench, seed, tell), *diversity(sets, drawn, seed), *copies(found, len(drawn.images))]
    if drawn.seconds is not None:
        rows.append(cost(drawn.seconds / len(drawn.images)))
    curve = [at_steps(subject, sets, bench, drawn, steps, seed, tell) for steps in steps_curve]
    classes = by_class(bench, sets, drawn)
    warnings = _warnings(subject, sets, bench, found, n)
    facts = {
        "fabrica": __version__,
        "subject": subject.name,
        "model_hash": subject.model.hash if subject.model else None,
        "against": subject.against,
        "split": sets.split,
        "n_synthetic": len(drawn.images),
        "n_real": len(sets.heldout),
        "n_train": len(sets.searched),
        "n_reference": len(bench.reference),
        "extractor": features_of.name,
        "dims": bench.real.shape[1],
        "seed": seed,
        "copies": len(found.copies) if found else None,
        "copies_p_value": found.p_value if found else None,
        "steps_curve": [vars(point) for point in curve],
        "classes": [vars(item) for item in classes],
    }
    exhibits = Exhibits(
        title=subject.name,
        subject=subject.line,
        real=sets.heldout,
        synthetic=drawn.images,
        window=subject.window,
        facts=subject.facts,
        measured=_measured(facts, subject, features_of, n),
        distance=rows[0].name,
        pairs=_shown_pairs(found, sets, drawn),
        control=_shown_control(found, sets),
        log=subject.log,
        curve=curve,
        classes=classes,
    )
    return write_report(Path(out), facts, rows, warnings, _verdict(rows, bench, found, len(drawn.images)), exhibits)


def _shown_pairs(found: Audit | None, sets: Sets, drawn: Drawn) -> list[Pair]:
    if found is None:
        return []
    pairs, copies = found.pairs[:PAIRS_SHOWN], set(found.copies)
    nearest = sets.memory_images([j for _, j, _ in pairs])
    return [
        Pair(drawn.images[i], image, drawn.names[i], sets.memory_name(j), distance, i in copies)
        for (i, j, distance), image in zip(pairs, nearest, strict=True)
    ]


def _shown_control(found: Audit | None, sets: Sets) -> list[Pair]:
    if found is None:
        return []
    pairs = found.control_pairs[:CONTROLS_SHOWN]
    nearest = sets.memory_images([j for _, j, _ in pairs])
    return [
        Pair(sets.heldout[i], image, sets.heldout_names[i], sets.memory_name(j), distance)
        for (i, j, distance), image in zip(pairs, nearest, strict=True)
    ]


def _warnings(subject: Subject, sets: Sets, bench: Bench, found: Audit | None, n: int | None) -> list[str]:
    count = min(len(bench.real), len(bench.fake))
    notes = [*subject.notes, *sets.notes, distribution.enough(count, bench.real.shape[1]) or "", bench.note]
    if n is not None and len(bench.fake) < n:
        notes.append(f"asked for {n} synthetic images, found {len(bench.fake)}; all of them are judged")
    if found is None:
        notes.append("copies were not looked for: that needs at least 4 training and 10 held-out images")
    else:
        notes.append(_suspicion(found))
    return [note[0].upper() + note[1:].rstrip(".") + "." for note in notes if note]


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


def _verdict(rows: Sequence[Row], bench: Bench, found: Audit | None, count: int) -> str:
    first = rows[0]
    text = (
        f"At N = {count}, the {first.name} is {first.text(first.value)} {first.interval} (lower is better); "
        f"{len(bench.reference)} real images in their place score {first.text(first.real)}"
    )
    if first.real:
        text += f", so the synthetic images lie {shown(first.value / first.real)} times as far from the real ones"
    if found is None:
        return f"{text}. Copies of training images were not looked for."
    expected = shown(found.false_alarm * count)
    judged = ", more than chance explains" if found.memorised else ""
    return (
        f"{text}. Suspected copies of training images: {len(found.copies)} of {count}, where about {expected} are "
        f"expected by chance{judged}."
    )


def _measured(
    facts: dict[str, Any], subject: Subject, extractor: extractors.Extractor, n: int | None
) -> list[tuple[str, str]]:
    line = ["fabrica", "evaluate", subject.source, "--against", subject.against]
    line += ["-n", str(facts["n_synthetic"])] if n is not None else []
    line += ["--extractor", extractor.name] if extractor.name != "radiomic" else []
    line += ["--seed", str(facts["seed"])] if facts["seed"] else []
    libraries = ", ".join(f"{name} {version(name)}" for name in ("numpy", "scipy", "torch"))
    return [
        ("synthetic", f"{facts['n_synthetic']} images"),
        ("real", f"{facts['n_real']} images of the {facts['split']} split of {subject.against}"),
        ("real column", f"{facts['n_reference']} real images in place of the synthetic ones"),
        ("copies looked for in", f"{facts['n_train']} training images"),
        ("features", f"{extractor.name}, {facts['dims']} that vary in the real images"),
        ("image size", " × ".join(str(side) for side in subject.config.size)),
        ("seed", str(facts["seed"])),
        ("command", shlex.join(line)),
        ("versions", f"Fabrica {__version__}, Python {platform.python_version()}, {libraries}"),
    ]
