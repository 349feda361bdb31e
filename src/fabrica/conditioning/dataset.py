"""Images for training, each with what networks are told of it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fabrica.conditioning.encoder import ConditionEncoder, Encoded
from fabrica.conditioning.masks import one_hot
from fabrica.data.augment import Changes, Int64, changed
from fabrica.data.dataset import ANY_SEED, Dataset, Strings


@dataclass(frozen=True)
class Conditioned:
    """Images and what is known of them.

    masks     the label map of each image, where networks are told it.
    latents   of each image, which networks see in its place; None: they see images.
    """

    images: Dataset
    encoder: ConditionEncoder
    masks: Dataset | None = None
    latents: Dataset | None = None

    def __len__(self) -> int:
        return len(self.images)

    @property
    def ids(self) -> Strings:
        return self.images.ids

    def batch(self, seed: int, positions: Int64, changes: Changes) -> dict[str, npt.NDArray[Any]]:
        """What networks see, as `Dataset.batch`, and `conditions`: of reports some sentences may stand for all."""
        seen = self.images if self.latents is None else self.latents
        found = seen.batch(seed, positions, changes)
        indices = found["index"]
        if self.masks is not None:  # changed as the images are
            found["mask"] = one_hot(changed(self.masks.read(indices), seed, positions, changes, labels=True))
        return found | self._said(indices, (np.random.default_rng([seed & ANY_SEED, int(p)]) for p in positions))

    def conditions(self, indices: Sequence[int] | Int64) -> Encoded:
        """What networks are told of these images: the values of `ConditionEncoder`, and "mask" float32
        (B, classes, *S), see `fabrica.conditioning.masks.one_hot`."""
        masks = {} if self.masks is None else {"mask": one_hot(self.masks.read(indices))}
        return masks | self._said(indices)

    def _said(self, indices: Sequence[int] | Int64, excerpts: Iterable[np.random.Generator] = ()) -> Encoded:
        """`conditions`, but masks. excerpts: one generator an image, which draws what sentences of its report are
        told."""
        known = [self.images.known(int(k)) for k in indices]
        for one, rng in zip(known, excerpts, strict=False):
            one["text"] = self.encoder.excerpt(one["text"], rng)
        return self.encoder.encode(known)
