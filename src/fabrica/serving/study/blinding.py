"""Images made alike: the same grey values, the same encoding, the same number of bytes, whatever they come from.

What is shown of an image is bare grey values: unsigned integers of 8 bits, or of 16, little-endian, in the order slice,
row, column (and colour), then zeros up to a length that all images of the study have. No header, no compression:
nothing but the picture itself can tell one arm from another, and the picture is what readers are asked about.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fabrica.errors import UsageError
from fabrica.geometry import facing, upright
from fabrica.image import Float32, Image

BLOCK = 4096  # bytes of which a file's length is a multiple
SHARES = (0.5, 99.5)  # per cent of the grey values between which a window lies that nobody states
MOST_VALUES = 200_000  # of an image that a window is found from

Bytes = npt.NDArray[np.uint8] | npt.NDArray[np.uint16]


@dataclass(frozen=True)
class Look:
    """How all images of a study are shown: black and white in the images' unit, bits, and 1 grey value or 3 colours a
    pixel."""

    low: float
    high: float
    bits: int
    unit: str
    colours: int

    @property
    def type(self) -> np.dtype[np.unsignedinteger[Any]]:
        return np.dtype("<u2" if self.bits > 8 else np.uint8)


@dataclass(frozen=True)
class Facts:
    """What must be alike, of one image as it is shown.

    shape    slices, rows, columns; aspect: the height of a pixel over its width.
    window   that its file declares, (centre, width); limits, the lowest and highest value that a picture file stores;
             None: not known.
    step     between two neighbouring grey values that occur; 0 where there are very many.
    middle   the values between which most of it lies.
    """

    shape: tuple[int, int, int]
    aspect: float
    unit: str
    colours: int
    window: tuple[float, float] | None
    limits: tuple[float, float] | None
    step: float
    middle: tuple[float, float]


def shown(image: Image) -> tuple[Float32, float]:
    """An image as it is looked at: (D, H, W, C) with C 1 or 3, upright, from the head down, and the height of a pixel
    over its width."""
    data = image.data[:, None] if image.data.ndim == 3 else image.data
    data = data[:3] if image.channels in (3, 4) else data[:1]
    rows, columns = image.spacing[-2:]
    aspect = rows / columns if image.measured and min(rows, columns) > 0 else 1.0
    if image.placed:
        slices = [upright(data[:, d], image.affine) for d in range(data.shape[1])]
        aspect = 1 / aspect if facing(image.affine)[0] else aspect
        through = image.affine[:3, 2]
        axis = int(np.argmax(np.abs(through)))
        data = np.stack(slices[:: 1 if through[axis] < 0 else -1], 1)
    return np.ascontiguousarray(np.moveaxis(data, 0, -1), np.float32), aspect


def facts(image: Image, values: Float32, aspect: float) -> Facts:
    """Of an image and what `shown` made of it."""
    some = np.unique(values.reshape(-1)[:: max(1, values.size // MOST_VALUES)])
    low, high = (float(v) for v in np.percentile(values, SHARES))
    origin = image.origin
    window, limits = origin.get("window"), origin.get("range") if origin.get("format") == "raster" else None
    depth, rows, columns, colours = values.shape
    return Facts(
        (depth, rows, columns),
        round(aspect, 3),
        image.unit,
        colours,
        (float(window[0]), float(window[1])) if window else None,
        (float(limits[0]), float(limits[1])) if limits else None,
        float(np.diff(some).min()) if 1 < len(some) <= BLOCK else 0.0,
        (low, high),
    )


def look(found: Mapping[str, Mapping[str, Facts]], crossed: bool, window: list[float], bits: int) -> Look:
    """How the images of all arms, arm -> case -> facts, are shown alike.

    Raises UsageError, one line, where something would tell the arms apart: the size or shape of pixels, colour, unit,
    window, or the steps of the grey values."""
    arms = list(found)
    first = next(iter(found[arms[0]].values()))
    for what, kind in (("unit", "unit"), ("colours a pixel", "colours")):
        for arm, images in found.items():
            for case, each in images.items():
                if getattr(each, kind) != getattr(first, kind):
                    raise UsageError(
                        f"{what}: {getattr(first, kind)} in arm {arms[0]}, {getattr(each, kind)} in arm {arm} (case "
                        f"{case}): that would tell the arms; write all images alike"
                    )
    _check_sizes(found, crossed)
    low, high = _window(found, crossed, window)
    chosen = Look(low, high, bits, first.unit, first.colours)
    _check_steps(found, chosen)
    return chosen


def encoded(values: Float32, how: Look, length: int) -> bytes:
    """What is kept of one image (D, H, W, C), of this many bytes."""
    top = 2**how.bits - 1
    scaled = np.clip((values.astype(np.float64) - how.low) * (top / (how.high - how.low)), 0, top)
    pixels: Bytes = np.rint(np.nan_to_num(scaled)).astype(how.type)
    return pixels.tobytes().ljust(length, b"\0")


def decoded(data: bytes, shape: tuple[int, int, int], how: Look) -> Bytes:
    """The grey values (D, H, W, C) again."""
    number = int(np.prod(shape)) * how.colours
    found: Bytes = np.frombuffer(data, how.type, number).reshape(*shape, how.colours)
    return found


def length_of(found: Mapping[str, Mapping[str, Facts]], how: Look) -> int:
    """The bytes that every image is padded to: those of the largest, in whole blocks."""
    most = max(int(np.prod(each.shape)) for images in found.values() for each in images.values())
    return -(-most * how.colours * how.type.itemsize // BLOCK) * BLOCK


def _check_sizes(found: Mapping[str, Mapping[str, Facts]], crossed: bool) -> None:
    arms = list(found)
    anchor = {case: (arms[0], case, each) for case, each in found[arms[0]].items()}
    usual = next(iter(anchor.values()))
    for arm, images in found.items():
        for case, each in images.items():
            other, which, like = anchor[case] if crossed else usual
            if each.shape != like.shape:
                raise UsageError(
                    f"case {case} has {_size(each)} pixels in arm {arm}, and {_size(like)} in arm {other}"
                    f"{'' if crossed else f' (case {which})'}: sizes would tell the arms; bring them to one grid"
                )
            if abs(each.aspect - like.aspect) > 0.01 * like.aspect:
                raise UsageError(
                    f"case {case} has pixels {each.aspect:g} times as high as wide in arm {arm}, {like.aspect:g} times "
                    f"in arm {other}: shapes would tell the arms; bring them to one grid"
                )


def _window(found: Mapping[str, Mapping[str, Facts]], crossed: bool, window: list[float]) -> tuple[float, float]:
    limits = {arm: {each.limits for each in images.values() if each.limits} for arm, images in found.items()}
    first = next((arm for arm, those in limits.items() if those), "")
    for arm, those in limits.items():
        if those and those != limits[first]:
            raise UsageError(
                f"arm {first} has pictures of values {_ranges(limits[first])}, arm {arm} of {_ranges(those)}: the "
                "grey values would tell the arms; write all with the same number of bits"
            )
    if window:
        return window[0] - window[1] / 2, window[0] + window[1] / 2
    declared = {arm: {case: f.window for case, f in images.items() if f.window} for arm, images in found.items()}
    every = {w for windows in declared.values() for w in windows.values()}
    if len(every) == 1:
        centre, width = every.pop()
        return centre - width / 2, centre + width / 2
    _check_windows(declared, crossed)
    if first and len(limits[first]) == 1 and all(limits.values()):
        (bounds,) = limits[first]
        if bounds[1] - bounds[0] <= 255:
            return bounds
    middles = [f.middle for images in found.values() for f in images.values()]
    low, high = min(m[0] for m in middles), max(m[1] for m in middles)
    return (low, high) if low < high else (low, low + 1.0)


def _check_windows(declared: Mapping[str, Mapping[str, tuple[float, float]]], crossed: bool) -> None:
    """Of windows that differ: they may differ between cases, never between arms."""
    named = [arm for arm, windows in declared.items() if windows]
    for arm in named[1:]:
        one, two = declared[named[0]], declared[arm]
        differ = [c for c in one if c in two and one[c] != two[c]] if crossed else []
        if differ or (not crossed and set(one.values()) != set(two.values())):
            case = differ[0] if differ else next(iter(two))
            here, there = two[case], one[case] if differ else next(iter(one.values()))
            raise UsageError(
                f"case {case} declares the window [{here[0]:g}, {here[1]:g}] in arm {arm}, and arm {named[0]} "
                f"[{there[0]:g}, {there[1]:g}]: brightness would tell the arms; state one for all, "
                "window: [centre, width]"
            )


def _check_steps(found: Mapping[str, Mapping[str, Facts]], how: Look) -> None:
    """Grey values in steps that can be seen in one arm alone, such as of 8 bits beside 16, would tell it."""
    grey = (how.high - how.low) / (2**how.bits - 1)
    steps = {arm: float(np.median([each.step for each in images.values()])) for arm, images in found.items()}
    coarse = {arm: max(step / grey, 1.0) for arm, step in steps.items()}
    least, most = min(coarse, key=coarse.__getitem__), max(coarse, key=coarse.__getitem__)
    if coarse[most] > 1.5 * coarse[least]:
        bits = max(1, int(np.floor(np.log2((how.high - how.low) / steps[most] + 1))))
        raise UsageError(
            f"grey values of arm {most} lie {steps[most]:g} apart, those of arm {least} {steps[least]:.3g}: with "
            f"{how.bits} bits the steps would tell the arms; write all alike, or show fewer grey values, bits: {bits}"
        )


def _size(of: Facts) -> str:
    return " × ".join(map(str, of.shape[1:] if of.shape[0] == 1 else of.shape))


def _ranges(limits: set[tuple[float, float]]) -> str:
    return ", ".join(f"{low:g} to {high:g}" for low, high in sorted(limits))
