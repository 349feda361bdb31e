"""The measurements of a report: distances, diversity, copies and classes, each beside what real images score."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fabrica.evaluate import distribution, fidelity
from fabrica.evaluate.extractors import Extractor
from fabrica.evaluate.memorisation import Audit, audit
from fabrica.evaluate.report import ClassScore, CurvePoint, Row
from fabrica.evaluate.sources import Drawn, Progress, Sets, Subject
from fabrica.image import Float32, Float64

Int = npt.NDArray[np.int64]

LEAST_OF_CLASS = 32
RESAMPLES = 100


@dataclass(frozen=True, eq=False)
class Bench:
    """Scaled features, float64 (N, F), of held-out real, synthetic and reference images.

    The reference are real images that take the place of the synthetic ones, in the same number where there are
    enough; `rivals` are the held-out images they are compared with: all, or a half if there is no train split.
    """

    extractor: Extractor
    scale: Callable[[Float64], Float64]
    real: Float64
    fake: Float64
    reference: Float64
    rivals: Float64
    reference_labels: Int | None
    note: str

    @property
    def name(self) -> str:
        own = self.extractor.name == "radiomic"
        return "Fréchet radiomic distance" if own else f"Fréchet distance ({self.extractor.name})"


def lay_out(extractor: Extractor, sets: Sets, drawn: Drawn, seed: int, tell: Progress) -> Bench:
    images, labels = sets.reference(len(drawn.images), seed)
    raw = _features(extractor, sets.heldout, "measuring real images", tell)
    scale = extractor.scaling(raw)
    real = scale(raw)
    fake = scale(_features(extractor, drawn.images, "measuring synthetic images", tell))
    note = ""
    if len(images) >= 4:
        reference, rivals = scale(_features(extractor, images, "measuring training images", tell)), real
        if len(images) < len(drawn.images):
            note = (
                f"the real column is measured on {len(images)} training images, not {len(drawn.images)}: there are "
                "no more; with as many it would be lower"
            )
    else:
        order = np.random.default_rng(seed).permutation(len(real))
        reference, rivals = real[order[::2]], real[order[1::2]]
        labels = None
        note = (
            f"there are no training images: the real column compares two halves of {len(rivals)} held-out images, "
            "and at equal N it would be lower"
        )
    return Bench(extractor, scale, real, fake, reference, rivals, labels, note)


def _features(extractor: Extractor, images: Float32, what: str, tell: Progress) -> Float64:
    parts = []
    for start in range(0, len(images), 128):
        parts.append(extractor.features(images[start : start + 128]))
        tell(what, min(start + 128, len(images)), len(images))
    return np.concatenate(parts)


def _kid(a: Float64, b: Float64) -> float:
    return 1000 * distribution.kid(a, b, subsets=20)[0]


def distances(bench: Bench, seed: int, tell: Progress) -> list[Row]:
    rows = []
    prdc_real = distribution.prdc(bench.rivals, bench.reference)

    def share(key: str) -> Callable[[Float64, Float64], float]:
        return lambda a, b: distribution.prdc(a, b)[key]

    scores: list[tuple[str, str, Callable[[Float64, Float64], float], str, float, str]] = [
        (
            "frechet",
            bench.name,
            distribution.frechet,
            "lower",
            np.inf,
            f"How far the two sets lie apart in {bench.real.shape[1]} image features.",
        ),
        (
            "kid_x1000",
            "KID × 1000",
            _kid,
            "lower",
            np.inf,
            "The same question by kernels; 0 for equal sets at any N.",
        ),
        (
            "precision",
            "Precision",
            share("precision"),
            "higher",
            1.0,
            "Share of synthetic images that look real.",
        ),
        (
            "recall",
            "Recall",
            share("recall"),
            "higher",
            1.0,
            "Share of real images within reach of synthetic ones.",
        ),
        (
            "density",
            "Density",
            share("density"),
            "near real",
            np.inf,
            "How densely real images surround synthetic ones.",
        ),
        (
            "coverage",
            "Coverage",
            share("coverage"),
            "higher",
            1.0,
            "Share of real images with a synthetic neighbour.",
        ),
    ]
    for done, (key, name, fn, better, top, explanation) in enumerate(scores):
        tell("intervals", done, len(scores))
        bottom = -np.inf if key == "kid_x1000" else 0.0
        value, low, high = distribution.bootstrap(
            fn, bench.real, bench.fake, n=RESAMPLES, seed=seed, bounds=(bottom, top)
        )
        real = prdc_real[key] if key in prdc_real else fn(bench.rivals, bench.reference)
        rows.append(Row(key, name, value, low, high, better, explanation, real))
    tell("intervals", len(scores), len(scores))
    return rows


def diversity(sets: Sets, drawn: Drawn, seed: int) -> list[Row]:
    if min(drawn.images.shape[2:]) < fidelity.TAPS or min(len(drawn.images), len(sets.heldout)) < 2:
        return []
    pixels = int(np.prod(drawn.images.shape[1:]))
    pairs = int(np.clip(2**24 // pixels, 50, 500))  # steady enough, and seconds whatever the size
    value, low, high = fidelity.diversity(drawn.images, pairs, seed)
    real = fidelity.diversity(sets.heldout, pairs, seed)[0]
    explanation = "Likeness of two random images of the set; well above real means too little variety."
    return [Row("ms_ssim", "MS-SSIM within the set", value, low, high, "near real", explanation, real)]


def copies(found: Audit | None, count: int) -> list[Row]:
    if found is None:
        return []
    explanation = f"{len(found.copies)} of {count} lie suspiciously near a training image; real: held-out ones that do."
    low, high = found.copy_interval
    row = Row("copy_rate", "Copies", found.copy_rate, low, high, "lower", explanation, found.control_rate, True)
    return [row]


def cost(seconds: float) -> Row:
    return Row("seconds_per_image", "Seconds an image", seconds, None, None, "lower", "Time to draw one image here.")


def search_copies(sets: Sets, drawn: Drawn, seed: int, tell: Progress) -> Audit | None:
    """The memorisation audit, or None where there is nothing to copy from or no control."""
    if len(sets.searched) < 4 or len(sets.heldout) < 10:
        return None
    tell("looking for copies", 0, 1)
    found = audit(sets.small(drawn.images), sets.memory_small(tell), sets.small(sets.heldout), seed=seed)
    tell("looking for copies", 1, 1)
    return found


def at_steps(
    subject: Subject, sets: Sets, bench: Bench, drawn: Drawn, steps: int, seed: int, tell: Progress
) -> CurvePoint:
    again = subject.draw(len(drawn.images), sets, seed, tell, steps=steps)
    fake = bench.scale(_features(bench.extractor, again.images, f"measuring at {steps} steps", tell))
    value, low, high = distribution.bootstrap(
        distribution.frechet, bench.real, fake, n=RESAMPLES, seed=seed, bounds=(0.0, np.inf)
    )
    return CurvePoint(steps, value, low, high, (again.seconds or 0.0) / len(again.images))


def by_class(bench: Bench, sets: Sets, drawn: Drawn) -> list[ClassScore]:
    if sets.labels is None or drawn.labels is None:
        return []
    items = []
    for k, name in enumerate(sets.classes):
        real, fake = bench.real[sets.labels == k], bench.fake[drawn.labels == k]
        value = floor = None
        if min(len(real), len(fake)) >= LEAST_OF_CLASS:
            value = distribution.frechet(real, fake)
            if bench.reference_labels is not None:
                reference = bench.reference[bench.reference_labels == k]
                floor = distribution.frechet(real, reference) if len(reference) >= LEAST_OF_CLASS else None
        items.append(ClassScore(name, len(real), len(fake), value, floor))
    return items
