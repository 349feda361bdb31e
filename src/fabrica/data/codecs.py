"""The codec of a data set: as the recipe says, or decided from a look at some training images."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from fabrica.codec import Codec, Limits
from fabrica.data.masks import CLASSES
from fabrica.data.sample import MASK
from fabrica.data.sources import TELLS_UNIT, open_source
from fabrica.errors import UsageError
from fabrica.image import Image
from fabrica.recipe.schema import CodecConfig, DataConfig

SAMPLE = 64  # images looked at to choose a codec
VOXELS = 200_000_000  # of which no more than this many voxels, however large the volumes
HOUNSFIELD = (-1024.0, 3071.0)
PERCENTILES = (0.5, 99.5)
FAT = -50.0  # HU
WIDER = 4.0


def resolve_codec(config: DataConfig, chosen: CodecConfig | None = None, side: str = "", common: bool = True) -> Codec:
    """The codec of a recipe, with what it left open decided from up to 64 training images.

    kind "auto": CT in HU -> window [-1024, 3071] HU. Images of 8 bits, and phantoms -> window at the declared
    range. Images of 16 bits -> window at the bits in use (12-bit values in a 16-bit PNG: [0, 4095]). Anything else
    has no common scale -> percentiles 0.5 and 99.5 of each image. Label maps, and masks of few integers -> one-hot;
    other masks (0 and 255) -> window from 0 to their highest value. common: whether a range that all images share is
    taken; else only HU are, and all other images have their own percentiles.
    """
    chosen = chosen or CodecConfig()
    return _said(chosen) or _found(config, chosen, _look(config, chosen, side), _is_mask(config, side), common)


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


def _found(config: DataConfig, chosen: CodecConfig, looked: Looked, is_mask: bool, common: bool = True) -> Codec:
    """What the recipe leaves open, from what was looked at."""
    if chosen.kind == "auto" and (looked.units == {"label"} or (is_mask and looked.whole and looked.top < CLASSES)):
        declared = looked.window() if looked.formats == {"phantom"} else None  # of all phantoms, not of those looked at
        top = declared[1] if declared else looked.top
        return Codec("label", classes=max(2, int(top) + 1), unit="label")
    if chosen.kind == "auto" and is_mask:
        return Codec("window", 0.0, looked.top)
    unit, clip, window = looked.unit, chosen.clip is not False, looked.window()
    if chosen.kind == "window" or (chosen.kind == "auto" and window and (common or unit == "HU")):
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
