"""How far translated images lie, as a set, from real ones: the score that needs no pairs.

Everything is measured on the network's grid at one number of images: the translated, the untranslated, and real
training images in their place, which is what a perfect translator would score.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from fabrica.codec import ABSENT
from fabrica.data.cache import build_cache
from fabrica.data.dataset import Dataset
from fabrica.data.sample import AUXILIARY
from fabrica.data.standardise import middle
from fabrica.errors import FabricaError, UsageError
from fabrica.evaluation.set_scores import DISTANCES, LEAST_JUDGED, RESAMPLES
from fabrica.evaluation.sets import room
from fabrica.evaluation.translation.cases import HeldOutCases
from fabrica.image import Float32, Float64
from fabrica.metrics import distribution
from fabrica.metrics.extractors import Extractor
from fabrica.metrics.spectrum import stride_peak
from fabrica.model.translation import TranslationModel
from fabrica.progress import Progress
from fabrica.report.scores import ScoreRow

MOST = 1000  # images a set
BATCH = 16
STRIDE = 4  # of the generators' strided layers, and their halves
SHOWN = DISTANCES[:2]  # Fréchet distance and KID


def cached(
    model: TranslationModel, held_out: HeldOutCases, split: str, side: str, tell: Progress, source: str = ""
) -> Dataset:
    """The images of one side on the network's grid, those of the exam or of another source."""
    data = model.data
    config = replace(data, source=source or held_out.config.source, paired=data.paired and held_out.paired)
    codecs = {"a": model.codec, "b": model.codec_b}
    codecs |= {AUXILIARY + name: codec for name, codec in zip(data.auxiliary, model.codecs_auxiliary, strict=True)}
    codec = codecs[side]
    return build_cache(config, codec, split, None, lambda d, t: tell(f"caching {split} {side}", d, t), side)


def training(model: TranslationModel, held_out: HeldOutCases, side: str, tell: Progress) -> Dataset | None:
    """Training images of one side, of what is judged against, else the model's own; None where neither is there."""
    for source in dict.fromkeys((held_out.config.source, model.data.source)):
        try:
            return cached(model, held_out, "train", side, tell, source)
        except FabricaError:
            continue
    return None


def rows(
    model: TranslationModel,
    held_out: HeldOutCases,
    direction: str,
    train: Dataset | None,
    extractor: Extractor,
    group: str,
    *,
    n: int | None,
    seed: int,
    tell: Progress,
) -> tuple[list[ScoreRow], list[str]]:
    """Fréchet distance and KID of one direction, and warnings; no row where there are too few or too small images."""
    if n is not None and n < LEAST_JUDGED:
        return [], [_too_few(n)]
    given, target = (cached(model, held_out, held_out.split, side, tell) for side in (direction[0], direction[-1]))
    count = min(len(given), len(target), MOST, room(target.shape), *([n] if n is not None else []))
    if count < LEAST_JUDGED:
        return [], [_too_few(count)]
    source, real = _draw(given, count, seed), middle(_draw(target, count, seed), model.size)
    whole = _with_auxiliary(model, held_out, source, count, seed, tell)
    made = middle(_translated(model, whole, direction, tell), model.size)
    try:
        raw = extractor.features(real)
    except UsageError as error:
        return [], [f"distances between sets are left out ({error})"]
    scale = extractor.scaling(raw)
    features, fake = scale(raw), scale(extractor.features(made))
    plain = _plain(model, source, direction)
    identity = None if plain is None else scale(extractor.features(middle(plain, model.size)))
    notes = [distribution.enough(count, features.shape[1]) or ""]
    reference = None
    if train is not None:
        there = _draw(train, count, seed)
        reference = scale(extractor.features(middle(there, model.size)))
        if len(there) < count:
            notes.append(
                f"the real column is measured on {len(there)} training images, not {count}: with as many it "
                "would be lower"
            )
    prefix = "" if direction == "a2b" else f"{direction}_"
    found = _rows(extractor, features, fake, identity, reference, group, prefix, held_out.paired, seed)
    return [*found, *_pattern(made, real, group, prefix)], [note for note in notes if note]


def _pattern(made: Float32, real: Float32, group: str, prefix: str) -> list[ScoreRow]:
    """The row on the pattern that strides leave; none of volumes, and of images too small to show it."""
    if made.ndim != 4:
        return []
    try:
        value, usual = stride_peak(made, STRIDE, real), stride_peak(real, STRIDE)
    except UsageError:
        return []
    explanation = (
        f"Power at the frequencies of a pattern of {STRIDE} pixels against that around them: 1 no pattern; well above "
        "real: a checkerboard."
    )
    return [
        ScoreRow(
            prefix + "stride_peak",
            "Pattern of strides",
            value,
            None,
            None,
            "near real",
            explanation,
            usual,
            group=group,
        )
    ]


def _too_few(count: int) -> str:
    return f"{count} test images are too few for distances between sets; at least {LEAST_JUDGED} are needed"


def _rows(
    extractor: Extractor,
    real: Float64,
    fake: Float64,
    identity: Float64 | None,
    reference: Float64 | None,
    group: str,
    prefix: str,
    paired: bool,
    seed: int,
) -> list[ScoreRow]:
    found = []
    for score in SHOWN:
        value, low, high = distribution.bootstrap(score.fn, real, fake, n=RESAMPLES, seed=seed, bounds=score.bounds)
        beside = {} if identity is None else {"identity": score.fn(real, identity)}
        floor = None if reference is None else score.fn(real, reference)
        own = extractor.name == "radiomic"
        name = "Fréchet radiomic distance" if own else f"Fréchet distance ({extractor.name})"
        name = name if score.key == "frechet" else score.name
        explanation = score.explanation
        if score.key == "frechet" and paired:
            explanation += (
                " The real column shows other patients; translated images show those they are compared with, and may "
                "score below it."
            )
        found.append(
            ScoreRow(prefix + score.key, name, value, low, high, "lower", explanation, floor, False, beside, group)
        )
    return found


def _draw(data: Dataset, count: int, seed: int) -> Float32:
    """At most `count` images; of two sides of pairs the same ones."""
    return data.read(np.sort(np.random.default_rng(seed).permutation(len(data))[:count]))


def _with_auxiliary(
    model: TranslationModel, held_out: HeldOutCases, source: Float32, count: int, seed: int, tell: Progress
) -> Float32:
    """Images (N, C, *S), and after them the channels of what the model sees beside them."""
    parts = [source]
    for name in model.data.auxiliary:
        there = name in held_out.cases["a2b"].auxiliary
        empty = np.full((len(source), model.data.channels, *source.shape[2:]), ABSENT, dtype=np.float32)
        parts.append(
            _draw(cached(model, held_out, held_out.split, AUXILIARY + name, tell), count, seed) if there else empty
        )
    return np.concatenate(parts, axis=1)


def _translated(model: TranslationModel, images: Float32, direction: str, tell: Progress) -> Float32:
    """Network images (N, C, *S) of one side as the other."""
    net, parts = model.way(direction).net, []
    for k in range(0, len(images), BATCH):
        parts.append(net(images[k : k + BATCH]))
        tell(f"translating {direction} as a set", min(k + BATCH, len(images)), len(images))
    return np.concatenate(parts)


def _plain(model: TranslationModel, images: Float32, direction: str) -> Float32 | None:
    """The images untranslated, the middle one of neighbouring slices; None for labels, which have no grey scale."""
    way = model.way(direction)
    if way.source.kind == "label":
        return None
    channels = way.data.channels
    first = (images.shape[1] - channels) // 2
    return images[:, first : first + channels]
