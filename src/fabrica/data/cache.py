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
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from fabrica import geometry
from fabrica.codec import ABSENT, Codec, Limits
from fabrica.data import masks, sides
from fabrica.data import standardise as standard
from fabrica.data.classes import check_labels, classes_of
from fabrica.data.dataset import META, Dataset, Meta, Writer
from fabrica.data.degrade import scale
from fabrica.data.manifest_cache import cache_home
from fabrica.data.masks import CLASSES
from fabrica.data.sample import MASK, PHANTOM
from fabrica.data.sources import TELLS_UNIT, Source, open_source
from fabrica.errors import FabricaError, UsageError
from fabrica.image import Image
from fabrica.progress import Count
from fabrica.recipe.schema import CodecConfig, DataConfig

FORMAT = 5  # raised when the layout of a cache folder changes
SAMPLE = 64  # images looked at to choose a codec
VOXELS = 200_000_000  # of which no more than this many voxels, however large the volumes
HOUNSFIELD = (-1024.0, 3071.0)
PERCENTILES = (0.5, 99.5)
FAT = -50.0  # HU
WIDER = 4.0


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
    return once(home, lambda partial: _write(source, codec, classes, partial, progress))


def build_masks(config: DataConfig, codec: Codec, split: str, progress: Count | None = None) -> Dataset:
    """The label maps of the images that `build_cache` gives, image by image."""
    return build_cache(replace(config, condition=[], classes=[]), codec, split, progress=progress, side=MASK)


def once(home: Path, write: Callable[[Path], None]) -> Dataset:
    """The dataset in this folder; if there is none, `write` makes it in a folder beside, which then takes the name. Of
    several processes one writes. Raises FabricaError for a full disk."""
    try:
        home.parent.mkdir(parents=True, exist_ok=True)
        with _locked(home.with_suffix(".lock")):
            return _existing(home) or _build(write, home)
    except OSError as error:
        raise FabricaError(
            f"cache not written to {home.parent}: {error.strerror or error}; "
            "free some space, or set FABRICA_CACHE to another folder"
        ) from error


def resolve_codec(config: DataConfig, chosen: CodecConfig | None = None, side: str = "") -> Codec:
    """The codec of a recipe, with what it left open decided from up to 64 training images.

    kind "auto": CT in HU -> window [-1024, 3071] HU. Images of 8 bits, and phantoms -> window at the declared
    range. Images of 16 bits -> window at the bits in use (12-bit values in a 16-bit PNG: [0, 4095]). Anything else
    has no common scale -> percentiles 0.5 and 99.5 of each image. Label maps, and masks of few integers -> one-hot;
    other masks (0 and 255) -> window from 0 to their highest value.
    """
    chosen = chosen or CodecConfig()
    return _said(chosen) or _found(config, chosen, _look(config, chosen, side), _is_mask(config, side))


def resolve_codecs(
    config: DataConfig, a: CodecConfig, b: CodecConfig, restores: bool = False
) -> tuple[Codec, Codec, bool]:
    """The codecs of both sides of a translation, and whether they are one, since grey values mean the same.

    They do where b is a made better (`restores`) unless the sides plainly lie in other ranges, where `config.scale`
    says so, and where both are CT in HU. One codec is that which the recipe says of either side, or is decided from
    the training images of both together (of b where a is degraded b). What restores does not clip unless told to.
    """
    looks: dict[str, Looked] = {}

    def look(side: str, chosen: CodecConfig) -> Looked:
        looks[side] = looks.get(side) or _look(config, chosen, side)
        return looks[side]

    shared = None if _is_mask(config, "a") or _is_mask(config, "b") else _shared(config, a, b, restores, look)
    pair = [shared or _said(each) or _found(config, each, look(side, each), _is_mask(config, side))
            for side, each in (("a", a), ("b", b))]  # fmt: skip
    said = next((each.clip for each in (a, b) if each.clip is not None), None)
    if restores and said is None:
        pair = [replace(codec, clip=codec.kind == "label") for codec in pair]
    return pair[0], pair[1], shared is not None


def _shared(
    config: DataConfig, a: CodecConfig, b: CodecConfig, restores: bool, look: Callable[[str, CodecConfig], Looked]
) -> Codec | None:
    """The one codec of both sides; None where each has its own."""
    asked, said = config.scale == "one" or config.restores, [each for each in (a, b) if each.kind != "auto"]
    if config.scale == "two" or any(each.kind == "label" for each in said):
        return None
    if (not (asked or restores) and said) or (len(said) == 2 and a != b and not config.restores):
        return None  # as the recipe says
    given = said[0] if said else a
    if config.restores:
        return _said(given) or _found(config, given, look("b", given), False)
    if (found := _said(given)) and (asked or restores):
        return found
    one, other = (look(side, given) for side in ("a", "b"))
    if {"label"} in (one.units, other.units):
        return None
    if asked or (one.alike(other) if restores else one.unit == other.unit == "HU"):
        return _found(config, given, one + other, False)
    return None


def _is_mask(config: DataConfig, side: str) -> bool:
    return {"a": config.a, "b": config.b, MASK: MASK}.get(side) == MASK


def _said(chosen: CodecConfig) -> Codec | None:
    """The codec that a recipe says without images; None where it leaves something open."""
    if chosen.kind == "label":
        return Codec("label", classes=chosen.classes, unit="label")
    if chosen.kind == "window" and chosen.low is not None and chosen.high is not None:
        return Codec("window", float(chosen.low), float(chosen.high), chosen.unit, clip=chosen.clip is not False)
    if chosen.kind not in ("auto", "window", "percentile"):
        raise UsageError(f"codec.kind is {chosen.kind!r}; expected auto, window, percentile or label")
    return None


def _found(config: DataConfig, chosen: CodecConfig, looked: Looked, is_mask: bool) -> Codec:
    """What the recipe leaves open, from what was looked at."""
    if chosen.kind == "auto" and (looked.units == {"label"} or (is_mask and looked.whole and looked.top < CLASSES)):
        declared = looked.window() if looked.formats == {"phantom"} else None  # of all phantoms, not of those looked at
        top = declared[1] if declared else looked.top
        return Codec("label", classes=max(2, int(top) + 1), unit="label")
    if chosen.kind == "auto" and is_mask:
        return Codec("window", 0.0, looked.top)
    unit, clip, window = looked.unit, chosen.clip is not False, looked.window()
    if chosen.kind == "window" or (chosen.kind == "auto" and window):
        if window is None:
            raise UsageError(f"codec.low and codec.high are missing, and {config.source} declares no common range")
        low, high = window
        return Codec(
            "window",
            low if chosen.low is None else chosen.low,
            high if chosen.high is None else chosen.high,
            unit,
            clip=clip,
        )
    limits = chosen.default_limits or [float(v) for v in np.median(np.array(looked.limits), axis=0)]
    low, high = looked.percentiles
    return Codec("percentile", low, high, unit, default_limits=(limits[0], limits[1]), clip=clip)


@dataclass
class Looked:
    """What a sample of the training images has in common."""

    percentiles: Limits
    units: set[str]
    formats: set[str]
    ranges: set[Limits | None]
    limits: list[Limits]
    top: float = 0.0
    whole: bool = True
    hounsfield: int = 0  # images in HU
    untold: int = 0  # images that may be: CT, or of no known modality, with values below fat's, and no unit
    other: int = 0  # images that are not

    def __add__(self, other: Looked) -> Looked:
        """Both together; limits are those of the first."""
        return Looked(
            self.percentiles,
            self.units | other.units,
            self.formats | other.formats,
            self.ranges | other.ranges,
            self.limits,
            max(self.top, other.top),
            self.whole and other.whole,
            self.hounsfield + other.hounsfield,
            self.untold + other.untold,
            self.other + other.other,
        )

    def alike(self, other: Looked) -> bool:
        """Whether grey values may mean the same: the ranges overlap, neither is WIDER times the other, and where one is
        in HU the other may be."""
        if "HU" in (self.unit, other.unit) and (self.other or other.other):
            return False
        (low, high), (low_b, high_b) = (np.median(np.array(each.limits), axis=0) for each in (self, other))
        ratio = (high - low) / (high_b - low_b) if high > low and high_b > low_b else np.inf
        return bool(1 / WIDER < ratio < WIDER and max(low, low_b) < min(high, high_b))

    @property
    def unit(self) -> str:
        """ "HU" where all images are in HU, or most are and nothing speaks against the rest, such as a part of a body
        without air around it in a file that knows no units."""
        most = self.hounsfield >= max(self.untold, 1) and not self.other
        return "HU" if most else "arbitrary"

    def add(self, image: Image, modality: str = "") -> None:
        self.units.add(image.unit)
        untold = image.unit == "arbitrary" and image.origin.get("format") not in TELLS_UNIT
        untold = untold and modality in ("CT", "OT", "") and bool(image.data.min() < FAT)
        self.hounsfield += image.unit == "HU"
        self.untold += untold
        self.other += image.unit != "HU" and not untold
        self.formats.add(str(image.origin.get("format", "")))
        found = image.origin.get("range")
        self.ranges.add((float(found[0]), float(found[1])) if found else None)
        low, high = (float(v) for v in np.percentile(image.data, self.percentiles))
        self.limits.append((low, high))
        self.top = max(self.top, float(image.data.max()))
        self.whole = self.whole and bool((image.data == np.rint(image.data)).all() and image.data.min() >= 0)

    def window(self) -> Limits | None:
        """One physical range for all images, if there is one."""
        if self.unit == "HU":
            return HOUNSFIELD
        if not self.formats <= {"raster", "npz", "phantom"} or len(self.ranges) != 1:
            return None
        declared = next(iter(self.ranges))
        if declared is None or self.formats == {"phantom"}:
            return declared
        low, high = declared
        if low != 0 or high not in (255, 65535):
            return declared if low == 0 and high in (1, 1023, 4095, 16383) else None
        bits = next(bits for bits in range(8, 17) if self.top <= 2**bits - 1)
        return (0.0, float(2**bits - 1))


def _look(config: DataConfig, chosen: CodecConfig, side: str) -> Looked:
    percentiles = PERCENTILES if chosen.low is None or chosen.high is None else (chosen.low, chosen.high)
    source = open_source(config, "train", side)
    looked = Looked(percentiles, set(), set(), set(), [])
    voxels = 0
    there = [k for k in range(source.count) if k not in source.absent] if source.absent else range(source.count)
    picked = [there[k * len(there) // SAMPLE] for k in range(SAMPLE)] if len(there) > SAMPLE else list(there)
    for sample in source.samples(picked):
        looked.add(sample.image, sample.modality)
        voxels += sample.image.data.size
        if voxels > VOXELS:
            break
    return looked


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


def _existing(home: Path) -> Dataset | None:
    if not (home / META).is_file():
        return None
    try:
        return Dataset(home)
    except (FabricaError, ValueError, KeyError, TypeError, OSError):  # damaged since: build it again
        shutil.rmtree(home)
        return None


def _build(write: Callable[[Path], None], home: Path) -> Dataset:
    """Write beside `home`, then rename. The caller holds the lock, so leftovers are those of a dead process."""
    partial = home.with_suffix(".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    try:
        write(partial)
        partial.rename(home)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return Dataset(home)


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
