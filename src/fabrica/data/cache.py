"""Decode once: standardised images in a cache folder, keyed by everything they depend on."""

from __future__ import annotations

import fcntl
import hashlib
import itertools
import json
import shutil
from array import array
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from fabrica import geometry
from fabrica.codec import ABSENT, Codec, Limits
from fabrica.data import masks, sides
from fabrica.data import standardise as standard
from fabrica.data.classes import check_labels, classes_of
from fabrica.data.codecs import resolve_codec
from fabrica.data.dataset import META, Dataset, Meta, Writer
from fabrica.data.manifest_cache import cache_home
from fabrica.data.resolution import scale
from fabrica.data.sample import MASK, PHANTOM
from fabrica.data.sources import Source, open_source
from fabrica.errors import FabricaError, UsageError
from fabrica.image import Image
from fabrica.progress import Count
from fabrica.recipe.schema import DataConfig

T = TypeVar("T")
FORMAT = 5  # raised when the layout of a cache folder changes


def build_cache(
    config: DataConfig,
    codec: Codec | None,
    split: str,
    folder: Path | None = None,
    progress: Count | None = None,
    side: str = "",
) -> Dataset:
    """The images of one split ("train", "val" or "test") as a Dataset: built once, then reused.

    Each image is encoded by the codec (None: as `resolve_codec` decides), turned and fitted to `config.size` (see
    `fabrica.data.standardise`), and stored as int16. A volume with a 2-D size gives the middle third of its axial
    slices, or all of them; their ids end in "#" and the number of the slice among these.

    folder    where caches lie; FABRICA_CACHE or ~/.cache/fabrica, with "datasets", when None.
    progress  called with (done, total) in source images.
    side      "a" or "b" of a translation, a contrast beside a, or the masks of images (see `open_source`): where it has
              no image, all values are ABSENT. Only a has `config.context`.

    The folder's name is a hash of manifest, files, config, codec and code, so a stale cache is never used; it
    takes that name only when it is whole, so neither is a half-built one. Of several processes that ask for the
    same, one builds and the others wait. Raises UsageError (see `open_source`, `classes_of`, `standardise`),
    ReadError for damaged images, FabricaError for a full disk.
    """
    source = open_source(config, split, side)
    classes = classes_of(config)
    codec = codec or resolve_codec(config, side=side)
    home = (folder or cache_home() / "datasets") / _key(source, codec, classes)
    return once(home, lambda partial: _write(source, codec, classes, partial, progress), Dataset)


def build_masks(config: DataConfig, codec: Codec, split: str, progress: Count | None = None) -> Dataset:
    """The label maps of the images that `build_cache` gives, image by image."""
    return build_cache(replace(config, condition=[], classes=[]), codec, split, progress=progress, side=MASK)


def once(home: Path, write: Callable[[Path], None], opened: Callable[[Path], T]) -> T:
    """What is in this folder, `opened`; if there is none, `write` makes it in a folder beside, which then takes the
    name. Of several processes one writes. Raises FabricaError for a full disk."""
    try:
        home.parent.mkdir(parents=True, exist_ok=True)
        with _locked(home.with_suffix(".lock")):
            return _existing(home, opened) or _build(write, home, opened)
    except OSError as error:
        raise FabricaError(
            f"cache not written to {home.parent}: {error.strerror or error}; "
            "free some space, or set FABRICA_CACHE to another folder"
        ) from error


def _key(source: Source, codec: Codec, classes: tuple[str, ...]) -> str:
    config = source.config
    code = (standard, geometry, sides, masks) if source.side == MASK else (standard, geometry, sides)
    told: dict[str, Any] = {
        "format": FORMAT,
        "code": hashlib.sha256(b"".join(Path(str(m.__file__)).read_bytes() for m in code)).hexdigest(),
        "source": source.fingerprint(),
        "split": source.split,
        "size": list(config.size),
        "channels": config.channels,
        "fit": config.fit,
        "slices": config.slices,
        "context": _context(source),
        "classes": classes,
        "codec": asdict(codec),
    }
    if given := _given(source, codec):
        told["limits"] = given.fingerprint()
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:32]


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold the lock file; the system lets go of it when a process dies."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _existing(home: Path, opened: Callable[[Path], T]) -> T | None:
    if not (home / META).is_file():
        return None
    try:
        return opened(home)
    except (FabricaError, ValueError, KeyError, TypeError, OSError):  # damaged since: build it again
        shutil.rmtree(home)
        return None


def _build(write: Callable[[Path], None], home: Path, opened: Callable[[Path], T]) -> T:
    """Write beside `home`, then rename. The caller holds the lock, so leftovers are those of a dead process."""
    partial = home.with_suffix(".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    try:
        write(partial)
        partial.rename(home)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return opened(home)


def _write(source: Source, codec: Codec, classes: tuple[str, ...], folder: Path, progress: Count | None) -> None:
    config = source.config
    modalities: Counter[str] = Counter()
    spacings, extents = array("d"), array("d")
    seen, resampled = [0] * len(classes), 0
    content = [0] * len(config.size)
    step = max(1, source.count // 200)
    beyond = values_in_all = 0
    with Writer(folder, reach=codec.reach) as writer:
        for done, (sample, limits) in enumerate(zip(source.samples(), _limits(source, codec), strict=False), start=1):
            label = -1
            if classes:
                check_labels({(sample.label, sample.id)}, classes)
                label = classes.index(sample.label)
                seen[label] += 1
            how = (config.size, config.channels, config.fit, config.slices, _context(source))
            parts = standard.standardise(sample.image, codec, *how, limits, scale(config.degrade))
            sliced = len(sample.image.size) > len(config.size)
            for k, (values, spacing) in enumerate(parts):
                values = np.full_like(values, ABSENT) if sample.absent else values
                name = f"{sample.id}#{k}" if sliced else sample.id
                writer.add(values, name, sample.text, label, sample.about)
                spacings.extend(spacing)
            beyond += 0 if sample.absent or source.side not in ("a", "b") else _beyond(sample.image, codec, limits)
            values_in_all += sample.image.data.size
            content = [max(pair) for pair in zip(content, _content(sample.image, config), strict=True)]
            modalities[sample.modality] += not sample.absent
            resampled += bool(sample.image.origin.get("resampled"))
            if sample.image.measured:
                extents.append(_extent(sample.image))
            if progress and (done % step == 0 or done == source.count):
                progress(done, source.count)
        if source.split == "train" and 0 in seen:
            missing = classes[seen.index(0)]
            more = "raise data.count" if config.source.startswith(PHANTOM) else "leave it out of data.classes"
            raise UsageError(f"class {missing!r} has no image among the {writer.count} for training; {more}")
        common = modalities.most_common(1)[0][0]
        middle = np.median(np.array(spacings).reshape(-1, len(config.size)), axis=0) if spacings else np.empty(0)
        spacing = tuple(float(mm) for mm in middle)
        extent = (min(extents), max(extents)) if extents else ()
        other = (
            f"{resampled} of {source.count} images of {source.which!r} lay on other voxels than their pairs: resampled"
        )
        notes = (*source.notes, *([other] if resampled else []))
        meta = Meta(writer.count, writer.shape, classes, common, spacing, tuple(content), extent, notes)
        writer.finish(replace(meta, reach=codec.reach, cut=beyond / max(values_in_all, 1)))


def _beyond(image: Image, codec: Codec, limits: Limits | None) -> int:
    """How many values the codec cuts off."""
    if codec.kind == "label":
        return 0
    return int(np.count_nonzero(codec.excess(image.data, limits or codec.limits(image.data))))


def _limits(source: Source, codec: Codec) -> Iterator[Limits | None]:
    """The limits of each image; None: its own."""
    given = _given(source, codec)
    return (codec.limits(sample.image.data) for sample in given.samples()) if given else itertools.repeat(None)


def _given(source: Source, codec: Codec) -> Source | None:
    """Where both sides of a pair have one scale, percentiles are those of a, all that is known at work, for both."""
    paired = source.config.paired and source.config.one_scale
    measured = codec.kind == "percentile" and paired and source.side == "b"
    if measured and not source.config.restores:
        return open_source(source.config, source.split, "a")
    return replace(source, side="a") if measured else None


def _context(source: Source) -> int:
    return source.config.context if source.side == "a" else 0


def _extent(image: Image) -> float:
    """The longer side of an image, or of the axial slices of a volume however it is stored, in mm."""
    axes = geometry.turn(image.affine, "RAS")[0][1:] if len(image.size) == 3 else (1, 2)
    return max(image.size[axis - 1] * image.spacing[axis - 1] for axis in axes)


def _content(image: Image, config: DataConfig) -> list[int]:
    """The part of `config.size` that a flat image fills without resampling; anything else counts as all of it."""
    if config.fit != "exact" or len(image.size) != 2:
        return list(config.size)
    return [min(pair) for pair in zip(geometry.faced(image).size, config.size, strict=True)]
