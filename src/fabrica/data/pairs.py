"""The two sides of a translation as batches: pair by pair, or each in an order of its own; and what is beside a."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fabrica.codec import Codec
from fabrica.data.augment import Changes, Int64, as_other_scanner, changed, shifted
from fabrica.data.body import body, threshold
from fabrica.data.dataset import Dataset, Strings, order
from fabrica.errors import UsageError
from fabrica.image import Float32

OTHER = 1  # added to the seed for side b where there are no pairs, so that no image meets the same one every epoch


@dataclass(frozen=True)
class Pairs:
    """Side a and side b; where `paired`, image k of one belongs to image k of the other.

    codecs    of a and of b: labels are changed otherwise than grey values, and the body is found in b.
    with_body: whether batches hold "body".
    auxiliary  what the network sees beside a: image k of each belongs to image k of a.
    """

    a: Dataset
    b: Dataset
    paired: bool
    codecs: tuple[Codec, Codec]
    with_body: bool = False
    auxiliary: Sequence[Dataset] = ()

    def __post_init__(self) -> None:
        if self.paired and len(self.a) != len(self.b):
            raise UsageError(
                f"pairs give {len(self.a)} slices of a and {len(self.b)} of b; expected as many: pairs of volumes "
                "must have the same number of slices"
            )

    def __len__(self) -> int:
        return len(self.a)

    @property
    def ids(self) -> Strings:
        """Those of a."""
        return self.a.ids

    @property
    def notes(self) -> Sequence[str]:
        """What was left out or changed on either side, each said once."""
        sides = (self.a, self.b, *self.auxiliary)
        return tuple(dict.fromkeys(note for side in sides for note in side.meta.notes))

    def read_a(self, indices: Sequence[int] | Int64) -> Float32:
        """What the network sees: a at these indices and what is beside it, float32 (B, C + n * C2, *S) in [-1, 1]."""
        return np.concatenate([side.read(indices) for side in (self.a, *self.auxiliary)], axis=1)

    def batch(self, seed: int, positions: Int64, changes: Changes) -> dict[str, npt.NDArray[Any]]:
        """ "a" float32 (B, C, *S), as `read_a`, and "b" (B, C2, *S) in [-1, 1], "index" int64 (B,) of a, and "body" if
        wanted.

        Pairs are changed alike; sides without pairs each in their own way. The scanner of a is changed alone, and
        b is moved `apart` from a.
        """
        own = seed if self.paired else seed + OTHER
        of_a, of_b = order(len(self.a), seed, positions), order(len(self.b), own, positions)
        labels = [codec.kind == "label" for codec in self.codecs]
        sides = [changed(self.a.read(of_a), seed, positions, changes, labels[0])]
        if changes.scanner and not labels[0] and self.codecs[0].unit != "HU":
            sides = [as_other_scanner(sides[0], seed, positions, changes.scanner)]
        sides += [changed(side.read(of_a), seed, positions, changes) for side in self.auxiliary]
        a = np.concatenate(sides, axis=1)
        b = changed(self.b.read(of_b), own, positions, changes, labels[1])
        if changes.apart:
            b = shifted(b, own, positions, changes.apart, which=4)
        found: dict[str, npt.NDArray[Any]] = {"a": a, "b": b}
        if self.with_body:
            limit = threshold(self.codecs[1])
            shown = -b if labels[1] else b  # the first label is the background
            found["body"] = np.stack([body(image, limit)[None] for image in shown])
        return found | {"index": of_a}
