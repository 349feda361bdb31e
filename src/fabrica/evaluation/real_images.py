"""The real images that a model is judged by: opened by split."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from fabrica.conditioning.masks import Given
from fabrica.data.cache import build_masks
from fabrica.data.dataset import Dataset
from fabrica.data.manifest_cache import load_manifest
from fabrica.data.sample import MASK, PHANTOM
from fabrica.errors import FabricaError, UsageError
from fabrica.evaluation.sets import MOST_TRAIN, Int, Sets, cached, room, some
from fabrica.evaluation.subject import Subject
from fabrica.image import Image
from fabrica.progress import Progress
from fabrica.recipe.schema import DataConfig


def open_sets(subject: Subject, split: str, seed: int, tell: Progress) -> Sets:
    """The real images: held out, to stand in, and to search for copies.

    Raises UsageError where neither `split` nor val (for test) has images.
    """
    config = subject.config
    used, notes = used_split(split, lambda name: has_images(config, name), config.source)
    heldout = cached(config, subject.codec, used, tell)
    rng = np.random.default_rng(seed)
    kept = some(len(heldout), room(heldout.shape), rng)
    if len(kept) < len(heldout):
        notes.append(f"{len(kept)} of {len(heldout)} held-out images are used, drawn at random, to fit in memory")
    train = cached(config, subject.codec, "train", tell) if has_images(config, "train") else None
    memory, note = _memory(subject, train, tell)
    notes += [note] if note else []
    total = len(memory) if memory else 0
    searched = some(total, MOST_TRAIN, rng)
    if len(searched) < total:
        notes.append(f"copies were looked for in {len(searched)} of {total} training images, drawn at random")
    return Sets(
        heldout=heldout.read(kept),
        heldout_names=[heldout.ids[int(k)] for k in kept],
        labels=None if heldout.labels is None else heldout.labels[kept],
        classes=heldout.classes,
        split=used,
        train=train,
        memory=memory,
        searched=searched,
        notes=notes,
        known=[heldout.known(int(k)) for k in kept],
        spacing=heldout.spacing,
        masks=_masks(subject, used, kept, tell) if MASK in config.condition else (),
    )


def _masks(subject: Subject, split: str, kept: Int, tell: Progress) -> list[Given]:
    """The label maps of these images of a split; None where there is none."""
    from fabrica.recipe.codecs import codec_of

    assert subject.model is not None  # nothing else is told masks
    codec = codec_of(subject.model.found.codec_mask)
    found = build_masks(subject.config, codec, split, lambda done, total: tell(f"caching {split} masks", done, total))
    masks: list[Given] = []
    for k in kept:
        values = found.read([int(k)])[0]
        masks.append(Image(codec.decode(values), unit="label") if (values > 0).any() else None)
    return masks


def _memory(subject: Subject, train: Dataset | None, tell: Progress) -> tuple[Dataset | None, str]:
    """The images a model was trained on: its own, also when it is judged against others; and a note on that."""
    model = subject.model
    own = replace(model.recipe.data, size=list(model.size)) if model else subject.config
    if not own.source:  # a bundle's
        return None, "the model does not say what it was trained on"
    if own.source == subject.against or (
        PHANTOM not in own.source + subject.against and Path(own.source).resolve() == Path(subject.against).resolve()
    ):
        return train, ""
    try:
        memory = cached(own, subject.codec, "train", tell)
    except FabricaError as error:
        return None, f"the model's own training images are not there ({error})"
    return memory, f"copies were looked for in the model's own training images, {own.source}"


def used_split(split: str, has: Callable[[str], bool], source: str) -> tuple[str, list[str]]:
    """The split whose images judge: this one, or, where it has none, the other held-out one, with a note.

    Raises UsageError for a split that is not held out."""
    if split not in ("val", "test"):
        raise UsageError(f"split is {split!r}; expected test or val: training images are no fair judge")
    if has(split):
        return split, []
    used = "val" if split == "test" else "test"
    chose = "; they also chose the weights, which flatters the scores a little" if used == "val" else ""
    return used, [f"{source} has no {split} images, so its {used} images are used{chose}"]


def has_images(config: DataConfig, split: str) -> bool:
    if config.source.startswith(PHANTOM):
        return True
    return bool(load_manifest(config.source).select(split=split, **config.where).rows)
