"""What a segmenter or a classifier learns from and is examined on: real images, and those that a model makes, each with
what it shows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from fabrica.codec import Codec
from fabrica.data.augment import Changes, Int64, changed
from fabrica.data.cache import build_masks
from fabrica.data.dataset import Dataset
from fabrica.data.manifest_cache import load_manifest
from fabrica.data.sample import MASK, PHANTOM
from fabrica.errors import UsageError
from fabrica.evaluation.real_images import has_images, used_split
from fabrica.evaluation.sets import cached, room, some
from fabrica.evaluation.translation.cases import has_sides
from fabrica.evaluation.utility.lesions import painted
from fabrica.image import Float32, Image
from fabrica.model.model import Model
from fabrica.model.synthesis import SynthesisModel
from fabrica.model.translation import TranslationModel
from fabrica.nets.device import autocast
from fabrica.progress import Progress
from fabrica.recipe.codecs import codec_of
from fabrica.recipe.schema import DataConfig

MOST = {"train": 2000, "test": 1000}  # real images, drawn at random
TURN, BEND = 10.0, 2.0  # of the masks that images are made for: degrees either way, pixels
BATCH = 16
Answers = npt.NDArray[Any]
"""Label maps uint8 (N, *S) of class numbers, or one class number an image, int64 (N,)."""


@dataclass(frozen=True, eq=False)
class Examples:
    """images float32 (N, C, *S) in [-1, 1], what each shows, and whose it is ("": nobody's)."""

    images: Float32
    answers: Answers
    patients: Sequence[str]

    def __len__(self) -> int:
        return len(self.images)

    def some(self, chosen: Sequence[int] | Int64) -> Examples:
        return Examples(self.images[chosen], self.answers[chosen], [self.patients[int(k)] for k in chosen])

    def with_more(self, other: Examples) -> Examples:
        images, answers = (
            np.concatenate([one, more]) for one, more in ((self.images, other.images), (self.answers, other.answers))
        )
        return Examples(images, answers, [*self.patients, *other.patients])


@dataclass(frozen=True, eq=False)
class Lesson:
    """Real images to learn from and to be examined on, and how to make more.

    names    of the classes; where they are of voxels, the background first.
    voxels   whether each voxel has a class (label maps), or each image.
    make     (n, seed, tell) -> n synthetic examples, of what the training images show.
    codec    of the images; spacing in mm, in the order of S, () if not known.
    """

    train: Examples
    test: Examples
    names: Sequence[str]
    voxels: bool
    make: Callable[[int, int, Progress], Examples]
    codec: Codec
    spacing: Sequence[float]
    source: str
    split: str
    notes: Sequence[str] = ()


def lesson(model: Model, against: str | None, split: str, seed: int, tell: Progress, paint: bool = False) -> Lesson:
    """What there is to learn of images that `model` makes: the masks that it draws, or the classes.

    paint   lesions are painted into training images (`fabrica.evaluation.utility.lesions`), rather than images drawn.

    Raises UsageError for models that are told neither, and where one is to paint that cannot.
    """
    source = against or model.recipe.data.source
    told_masks = isinstance(model, SynthesisModel) and MASK in model.data.condition
    if paint and not (told_masks and model.method.edits):
        raise UsageError(
            f"model {model.name} ({model.method_name}) cannot paint lesions into images; that takes diffusion that is "
            "told masks (data.condition=mask)"
        )
    if isinstance(model, TranslationModel) and model.codec.kind == "label" and model.codec_b.kind != "label":
        return _of_translator(model, source, split, seed, tell)
    if isinstance(model, SynthesisModel) and MASK in model.data.condition:
        return _of_masks(model, source, split, seed, tell, paint)
    if isinstance(model, SynthesisModel) and "label" in model.data.condition:
        return _of_labels(model, source, split, seed, tell)
    raise UsageError(
        f"model {model.name} is told neither masks nor labels, so nothing says what its images show; utility "
        "(--utility) is for models that draw images of masks (data.a=mask, or data.condition=mask) or of classes "
        "(data.condition=label)"
    )


def _of_translator(model: TranslationModel, source: str, split: str, seed: int, tell: Progress) -> Lesson:
    if model.data.context:
        raise UsageError(f"model {model.name} sees {2 * model.data.context + 1} slices of a mask; set data.context=0")
    config = replace(model.data, source=source, paired=True)
    used, notes = used_split(split, lambda name: has_sides(config, name), source)
    codecs = {"a": model.codec, "b": model.codec_b}

    def pairs(which: str) -> tuple[Examples, Dataset, Float32]:
        of_a, of_b = (cached(config, codecs[side], which, tell, side) for side in ("a", "b"))
        return _drawn(of_b, of_a, config, which, seed)

    train, images, masks = pairs("train")

    def translated(told: Float32, seed: int, tell: Progress) -> Float32:
        parts = []
        for start in range(0, len(told), BATCH):
            part = torch.from_numpy(told[start : start + BATCH]).to(model.device)
            with torch.inference_mode(), autocast(model.recipe.train.precision, model.device):
                parts.append(model.method.translate(part, "a2b").float().cpu().numpy())
            tell("making synthetic images", start + len(part), len(told))
        return np.concatenate(parts)

    return Lesson(
        train,
        pairs(used)[0],
        _names(model.codec),
        True,
        _from_masks(masks, translated),
        model.codec_b,
        images.spacing,
        source,
        used,
        [*notes, *images.meta.notes],
    )


def _of_masks(model: SynthesisModel, source: str, split: str, seed: int, tell: Progress, paint: bool) -> Lesson:

    config = replace(model.data, source=source, size=list(model.size))
    used, notes = used_split(split, lambda name: has_images(config, name), source)
    codec = codec_of(model.found.codec_mask)

    def both(which: str) -> tuple[Examples, Dataset, Float32]:
        masks = build_masks(config, codec, which, lambda done, total: tell(f"caching {which} masks", done, total))
        return _drawn(cached(config, model.codec, which, tell), masks, config, which, seed)

    train, images, masks = both("train")

    def as_told(classes: Answers) -> Image:
        return Image(codec.numbered(classes[None]), unit="label")

    def drawn(told: Float32, seed: int, tell: Progress) -> Float32:
        asked = {MASK: [as_told(classes) for classes in told.argmax(1)]}
        return model.sample_array(len(told), seed=seed, conditions=asked, progress=tell, warn=lambda note: None)

    return Lesson(
        train,
        both(used)[0],
        _names(codec),
        True,
        _painted(model, train, as_told) if paint else _from_masks(masks, drawn),
        model.codec,
        images.spacing,
        source,
        used,
        notes,
    )


def _of_labels(model: SynthesisModel, source: str, split: str, seed: int, tell: Progress) -> Lesson:
    config = replace(model.data, source=source, size=list(model.size))
    used, notes = used_split(split, lambda name: has_images(config, name), source)

    def labelled(which: str) -> tuple[Examples, Dataset]:
        images = cached(config, model.codec, which, tell)
        assert images.labels is not None  # data.condition names them
        chosen = some(len(images), min(MOST.get(which, MOST["test"]), room(images.shape)), np.random.default_rng(seed))
        patients = _patients(images, config, which, chosen)
        return Examples(images.read(chosen), images.labels[chosen], patients), images

    train, images = labelled("train")

    def make(n: int, seed: int, tell: Progress) -> Examples:
        labels = np.random.default_rng(seed).permutation(np.resize(train.answers, n))
        asked = {"label": [images.classes[k] for k in labels]}
        found = model.sample_array(n, seed=seed, conditions=asked, progress=tell, warn=lambda note: None)
        return Examples(found, labels, [""] * n)

    return Lesson(
        train, labelled(used)[0], images.classes, False, make, model.codec, images.spacing, source, used, notes
    )


def _from_masks(
    masks: Float32, draw: Callable[[Float32, int, Progress], Float32]
) -> Callable[[int, int, Progress], Examples]:
    """Images of training masks (N, K, *S), each a little turned and bent, so that no two are alike."""

    def make(n: int, seed: int, tell: Progress) -> Examples:
        rng = np.random.default_rng(seed)
        order = np.concatenate([rng.permutation(len(masks)) for _ in range(-(-n // len(masks)))])[:n]
        told = changed(masks[order], seed, np.arange(n), Changes(turn=TURN, bend=BEND), labels=True)
        return Examples(draw(told, seed, tell), told.argmax(1).astype(np.uint8), [""] * n)

    return make


def _painted(
    model: SynthesisModel, train: Examples, as_told: Callable[[Answers], Image]
) -> Callable[[int, int, Progress], Examples]:
    """Lesions of training images painted into others."""

    def make(n: int, seed: int, tell: Progress) -> Examples:
        images, labels = painted(model, train.images, train.answers, as_told, n, seed, tell)
        return Examples(images, labels, [""] * n)

    return make


def _drawn(
    images: Dataset, masks: Dataset, config: DataConfig, which: str, seed: int
) -> tuple[Examples, Dataset, Float32]:
    """Images with their label maps, those that have one; and the network values of the label maps."""
    most = min(MOST.get(which, MOST["test"]), room(masks.shape), room(images.shape))
    chosen = some(len(images), most, np.random.default_rng(seed))
    told = masks.read(chosen)
    known = (told > 0).reshape(len(told), -1).any(1)
    if not known.any():
        raise UsageError(f"none of the {which} images of {config.source} has a mask; there is nothing to learn")
    chosen, told = chosen[known], told[known]
    patients = _patients(images, config, which, chosen)
    return Examples(images.read(chosen), told.argmax(1).astype(np.uint8), patients), images, told


def _patients(images: Dataset, config: DataConfig, which: str, chosen: Int64) -> list[str]:
    """Whose each image is; where nothing says so, each is its own."""
    ids = [images.ids[int(k)] for k in chosen]
    if config.source.startswith(PHANTOM):
        return ids
    rows = load_manifest(config.source).select(split=which, **config.where).rows
    of = {row.id: row.patient or row.id for row in rows}
    return [of.get(name) or of.get(name.rpartition("#")[0]) or name for name in ids]


def _names(codec: Codec) -> list[str]:
    numbers = codec.numbers or range(codec.classes)
    return ["background", *(f"label {number}" for number in list(numbers)[1:])]
