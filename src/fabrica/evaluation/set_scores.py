"""The measurements of a report: distances, diversity, copies and classes, each beside what real images score."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fabrica.conditioning.encoder import Known
from fabrica.evaluation.sets import Sets
from fabrica.evaluation.subject import Drawn, Subject
from fabrica.image import Float32, Float64
from fabrica.metrics import distribution, fidelity
from fabrica.metrics.distribution import Score
from fabrica.metrics.extractors import Extractor
from fabrica.metrics.memorisation import Audit, audit
from fabrica.progress import Progress
from fabrica.report.scores import ClassScore, CurvePoint, ScoreRow

Int = npt.NDArray[np.int64]

LEAST_JUDGED = 16  # below, a half of the images has no five nearest neighbours
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
    reference_known: Sequence[Known] = ()

    @property
    def name(self) -> str:
        own = self.extractor.name == "radiomic"
        return "Fréchet radiomic distance" if own else f"Fréchet distance ({self.extractor.name})"


def lay_out(extractor: Extractor, sets: Sets, drawn: Drawn, seed: int, tell: Progress) -> Bench:
    """Measure the features of all images that distances need, on the scale of the held-out ones."""
    raw = _features(extractor, sets.heldout, "measuring real images", tell)
    scale = extractor.scaling(raw)
    real = scale(raw)
    fake = scale(_features(extractor, drawn.images, "measuring synthetic images", tell))
    images, labels, known = sets.reference(len(drawn.images), seed)
    if len(images) < LEAST_JUDGED:
        order = np.random.default_rng(seed).permutation(len(real))
        reference, rivals = real[order[::2]], real[order[1::2]]
        note = (
            f"there are too few training images: the real column compares two halves of {len(rivals)} held-out "
            "images, and at equal N it would be lower"
        )
        return Bench(extractor, scale, real, fake, reference, rivals, None, note)
    reference = scale(_features(extractor, images, "measuring training images", tell))
    note = ""
    if len(images) < len(drawn.images):
        note = (
            f"the real column is measured on {len(images)} training images, not {len(drawn.images)}: there are no "
            "more; with as many it would be lower"
        )
    return Bench(extractor, scale, real, fake, reference, real, labels, note, known)


def _features(extractor: Extractor, images: Float32, what: str, tell: Progress) -> Float64:
    parts = []
    for start in range(0, len(images), 128):
        parts.append(extractor.features(images[start : start + 128]))
        tell(what, min(start + 128, len(images)), len(images))
    return np.concatenate(parts)


def _kid(a: Float64, b: Float64) -> float:
    return 1000 * distribution.kid(a, b, subsets=20)[0]


def _prdc(key: str) -> Score:
    return lambda a, b: distribution.prdc(a, b)[key]


@dataclass(frozen=True)
class Distance:
    """A score of two sets of features (N, F), and how the report speaks of it."""

    key: str
    name: str
    fn: Score
    better: str
    bounds: tuple[float, float]
    explanation: str


SHARE = (0.0, 1.0)
DISTANCES = (
    Distance(
        "frechet",
        "Fréchet distance",
        distribution.frechet,
        "lower",
        (0.0, np.inf),
        "How far the two sets lie apart in all image features; the fewer the images, the larger.",
    ),
    Distance(
        "kid_x1000",
        "KID × 1000",
        _kid,
        "lower",
        (-np.inf, np.inf),
        "The same question by kernels; near 0 for equal sets, however few the images.",
    ),
    Distance(
        "precision", "Precision", _prdc("precision"), "higher", SHARE, "Share of synthetic images that look real."
    ),
    Distance("recall", "Recall", _prdc("recall"), "higher", SHARE, "Share of real images that synthetic ones reach."),
    Distance(
        "density",
        "Density",
        _prdc("density"),
        "near real",
        (0.0, np.inf),
        "How densely real images surround synthetic ones.",
    ),
    Distance(
        "coverage", "Coverage", _prdc("coverage"), "higher", SHARE, "Share of real images with a synthetic neighbour."
    ),
)


def distances(bench: Bench, seed: int, tell: Progress, scores: Sequence[Distance] = DISTANCES) -> list[ScoreRow]:
    """A row a score: of the synthetic images with a 95 % interval, and of real ones in their place."""
    rows = []
    for done, score in enumerate(scores, start=1):
        value, low, high = distribution.bootstrap(
            score.fn, bench.real, bench.fake, n=RESAMPLES, seed=seed, bounds=score.bounds
        )
        name = bench.name if score.key == "frechet" else score.name
        real = score.fn(bench.rivals, bench.reference)
        rows.append(ScoreRow(score.key, name, value, low, high, score.better, score.explanation, real))
        tell("intervals", done, len(scores))
    return rows


def diversity(sets: Sets, drawn: Drawn, seed: int) -> list[ScoreRow]:
    """How alike the images of the set are; no row for images smaller than the window of MS-SSIM."""
    if min(drawn.images.shape[2:]) < fidelity.TAPS or min(len(drawn.images), len(sets.heldout)) < 2:
        return []
    pixels = int(np.prod(drawn.images.shape[1:]))
    pairs = int(np.clip(2**24 // pixels, 50, 500))  # steady enough, and seconds whatever the size
    value, low, high = fidelity.diversity(drawn.images, pairs, seed)
    real = fidelity.diversity(sets.heldout, pairs, seed)[0]
    explanation = "Likeness of two random images of the set; well above real means too little variety."
    return [ScoreRow("ms_ssim", "MS-SSIM within the set", value, low, high, "near real", explanation, real)]


@dataclass(frozen=True)
class Repeats:
    """Images of a set that equal another one of it, value by value, on the network's scale.

    distinct   how many different images there are. groups: the places of those that are equal, the largest group first.
    """

    distinct: int
    groups: Sequence[Sequence[int]]

    @property
    def count(self) -> int:
        """How many images are repeats of another."""
        return sum(len(group) - 1 for group in self.groups)


def repeats(images: Float32) -> Repeats:
    """Of images (N, C, *S)."""
    found: dict[bytes, list[int]] = {}
    for k, image in enumerate(images):
        found.setdefault(hashlib.blake2b(np.ascontiguousarray(image).tobytes(), digest_size=16).digest(), []).append(k)
    groups = [group for group in found.values() if len(group) > 1]
    return Repeats(len(found), sorted(groups, key=len, reverse=True))


def distinct(sets: Sets, drawn: Drawn, found: Repeats) -> ScoreRow:
    """The share of different images, beside that of held-out ones."""
    share, real = found.distinct / len(drawn.images), repeats(sets.heldout).distinct / len(sets.heldout)
    explanation = f"{found.distinct} different images among {len(drawn.images)}; the others repeat one, value by value."
    return ScoreRow("distinct", "Different images", share, None, None, "higher", explanation, real, True)


def copies(found: Audit | None, count: int) -> list[ScoreRow]:
    """The share of suspected copies, beside that of held-out images; no row without a search."""
    if found is None:
        return []
    explanation = f"{len(found.copies)} of {count} lie suspiciously near a training image; real: held-out ones that do."
    low, high = found.copy_interval
    row = ScoreRow("copy_rate", "Copies", found.copy_rate, low, high, "lower", explanation, found.control_rate, True)
    return [row]


def cost(seconds: float) -> ScoreRow:
    """What an image costs in time, on the machine and with the batch size at hand."""
    explanation = "Time to draw one image here."
    return ScoreRow("milliseconds_per_image", "Milliseconds an image", 1000 * seconds, None, None, "lower", explanation)


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
    """The Fréchet distance of as many images, from the same seeds, drawn with this number of steps."""
    again = subject.draw(len(drawn.images), sets, seed, tell, steps=steps)
    fake = bench.scale(_features(bench.extractor, again.images, f"measuring at {steps} steps", tell))
    value, low, high = distribution.bootstrap(
        distribution.frechet, bench.real, fake, n=RESAMPLES, seed=seed, bounds=(0.0, np.inf)
    )
    return CurvePoint(steps, value, low, high, (again.seconds or 0.0) / len(again.images))


def by_class(bench: Bench, sets: Sets, drawn: Drawn) -> list[ClassScore]:
    """The Fréchet distance within each class that has LEAST_OF_CLASS images on both sides; [] without classes."""
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
