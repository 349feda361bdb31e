"""Codec: the reversible map between physical units and what a network sees, [-1, 1].

It is saved with the model, so that inference never has to guess a range.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fabrica.errors import UsageError
from fabrica.image import Float32, Image

KINDS = ("window", "percentile", "label")
ABSENT = -1.0  # the network values of a contrast that is not there
Limits = tuple[float, float]
SAMPLED = 2**26  # values: a volume of 512 x 512 x 256
REACH = 4.0  # network values: as far beyond [-1, 1] go those of a codec that does not clip


@dataclass(frozen=True)
class Codec:
    """How values become network values.

    kind      "window": [low, high] in physical units -> [-1, 1], clipped; the same for every image (CT in HU,
              8- or 16-bit radiographs). "percentile": low and high are percentiles (0 to 100) of each image,
              for modalities without a scale (MR). "label": integers 0..classes-1 -> one-hot channels.
    unit      the physical unit that `decode` gives back.
    default_limits  the limits in physical units that `decode` uses where no source image gives them
              (samples of a percentile codec): the median over the training images.
    numbers   of labels: what stands in label maps for each class, the background first; (): 0 to classes - 1.
    regions of labels that overlap: the numbers that each channel stands for. They are laid over one another in this
              order, the k-th as numbers[k] where its network value is above 0.
    clip      whether values beyond the limits become -1 or 1, and are lost. If not, they go on linearly, up to REACH:
              where both sides of a translation have one scale, nothing that was there is cut from a result.
    """

    kind: str = "window"
    low: float = 0.0
    high: float = 255.0
    unit: str = "arbitrary"
    classes: int = 0
    default_limits: Limits | None = None
    clip: bool = True
    numbers: tuple[int, ...] = ()
    regions: tuple[tuple[int, ...], ...] = ()

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise UsageError(f"codec.kind is {self.kind!r}; expected one of {', '.join(KINDS)}")
        if self.regions and not len(self.regions) == len(self.numbers) == self.classes:
            raise UsageError(
                f"codec.regions are {len(self.regions)}, codec.numbers {list(self.numbers)} and codec.classes "
                f"{self.classes}; expected as many of each"
            )
        if self.kind == "label" and self.classes < 2 - bool(self.regions):
            raise UsageError(f"codec.classes is {self.classes}; a label codec needs at least 2")
        if self.numbers and len(set(self.numbers)) != self.classes:
            raise UsageError(f"codec.numbers are {list(self.numbers)}; expected {self.classes}, each once, or none")
        if self.kind != "label" and not self.low < self.high:
            raise UsageError(f"codec.low {self.low} must be below codec.high {self.high}")
        if self.kind == "percentile" and not (self.low >= 0 and self.high <= 100):
            raise UsageError(f"codec.low {self.low} and codec.high {self.high} must be percentiles, 0 to 100")

    @property
    def reach(self) -> float:
        """Network values lie within [-reach, reach]."""
        return 1.0 if self.clip else REACH

    @property
    def span(self) -> Limits:
        """The physical values that -1 and 1 stand for where no source image says: `default_limits`, or the window."""
        if self.kind == "label":
            return -1.0, 1.0
        return (self.default_limits or (0.0, 1.0)) if self.kind == "percentile" else (self.low, self.high)

    def limits(self, data: Float32) -> Limits:
        """The physical values that become -1 and +1 for this array; of more than SAMPLED values, percentiles are those
        of some of them, evenly spread."""
        if self.kind != "percentile":
            return self.low, self.high
        some = data.reshape(-1)[:: 1 + data.size // SAMPLED] if data.size > SAMPLED else data
        low, high = (float(v) for v in np.percentile(some, [self.low, self.high]))
        return (low, high) if low < high else (low, low + 1.0)  # a constant image

    def encode(self, image: Image) -> Float32:
        """Physical units (C, *S) -> network units float32 (C, *S) in [-reach, reach], or (classes, *S) in {-1, 1}."""
        return self.scaled(image.data, self.limits(image.data))

    def scaled(self, data: Float32, limits: Limits) -> Float32:
        """`encode` of a part of an image whose limits are these."""
        if self.kind == "label":
            wanted = np.rint(data[0]).astype(np.int64)
            if self.regions:
                inside: Float32 = np.stack([np.isin(wanted, each) for each in self.regions]).astype(np.float32) * 2 - 1
                return inside
            numbers = np.array(self.numbers or range(self.classes))
            if not self.numbers and (wanted.min() < 0 or wanted.max() >= self.classes):
                raise UsageError(
                    f"label values span {wanted.min()} to {wanted.max()}; the codec expects 0 to {self.classes - 1}: "
                    "give it more classes, or number the labels anew"
                )
            if self.numbers and not np.isin(wanted, numbers).all():
                other = np.setdiff1d(wanted, numbers)[:8].tolist()
                raise UsageError(f"label values {other} are none of the codec's, {list(self.numbers)}")
            one_hot = numbers.reshape(-1, *[1] * wanted.ndim) == wanted
            signs: Float32 = one_hot.astype(np.float32) * 2 - 1
            return signs
        low, high = limits
        scaled: Float32 = (data - np.float32(low)) * np.float32(2.0 / (high - low)) - np.float32(1)
        return np.clip(scaled, -self.reach, self.reach)

    def excess(self, data: Float32, limits: Limits) -> Float32:
        """What `scaled` cuts off, in physical units: values less the nearest that it keeps."""
        low, high = limits
        more = (self.reach - 1) * (high - low) / 2
        return data - np.clip(data, np.float32(low - more), np.float32(high + more))

    def numbered(self, classes: npt.NDArray[np.integer[Any]]) -> Float32:
        """Classes of a label codec, 0 to classes - 1, as what stands in label maps for them."""
        found: Float32 = np.array(self.numbers or range(self.classes), dtype=np.float32)[classes]
        return found

    def decode(self, values: Float32, limits: Limits | None = None) -> Float32:
        """Network units (C, *S) -> physical units float32; a label map (1, *S) for a label codec."""
        if self.regions:
            laid = np.zeros((1, *values.shape[1:]), dtype=np.float32)
            for number, channel in zip(self.numbers, values, strict=True):
                laid[0][channel > 0] = number
            return laid
        if self.kind == "label":
            return self.numbered(np.argmax(values, axis=0, keepdims=True))
        if limits is None:
            limits = (self.low, self.high) if self.kind == "window" else self.default_limits
        if limits is None:
            raise UsageError("a percentile codec needs the limits of a source image to decode")
        low, high = limits
        values = values.astype(np.float32)
        clipped = np.clip(values, -1.0, 1.0) if self.clip else values
        physical: Float32 = (clipped + np.float32(1)) * np.float32((high - low) / 2.0) + np.float32(low)
        return physical
