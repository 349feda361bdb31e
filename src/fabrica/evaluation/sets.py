"""The real images that a model is judged by, in bounded memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fabrica.codec import Codec
from fabrica.conditioning.encoder import Asked, ConditionEncoder, Known
from fabrica.conditioning.masks import Given
from fabrica.data.cache import build_cache
from fabrica.data.dataset import Dataset
from fabrica.data.sample import MASK
from fabrica.image import Float32
from fabrica.metrics.memorisation import GRIDS, shrunk
from fabrica.progress import Progress
from fabrica.recipe.schema import DataConfig

Int = npt.NDArray[np.int64]


MOST_BYTES = 2**30  # held-out or synthetic images in memory; more are drawn at random down to this


MOST_TRAIN = 50_000  # training images searched for copies


BLOCK = 256


@dataclass(frozen=True, eq=False)
class Sets:
    """Real images: `heldout` float32 (N, C, *S) in [-1, 1] in memory, the others on disk.

    train      the train split of what is judged against, None if it has none: these stand in for synthetic images.
    memory     what the model was trained on, None if it is not there: this is searched for copies, at the places
               `searched`. The same as train unless a model is judged against other data than its own.
    spacing    mm between pixel centres of the held-out images, in the order of S; () if not known.
    masks      the label maps (1, *S) of the held-out images, for a model that is told masks; () for others.
    """

    heldout: Float32
    heldout_names: Sequence[str]
    labels: Int | None
    classes: Sequence[str]
    split: str
    train: Dataset | None
    memory: Dataset | None
    searched: Int
    notes: Sequence[str] = ()
    known: Sequence[Known] = ()
    spacing: Sequence[float] = ()
    masks: Sequence[Given] = ()

    def asked(
        self, teller: ConditionEncoder, n: int, seed: int
    ) -> tuple[dict[str, Asked], Sequence[Known], Int | None]:
        """What n synthetic images are told: what held-out images are, one after the other in random order, or only
        their classes, then as frequent as there; what is known of these; and their labels. Of images that are told
        a text all is known that is known of the held-out ones, since it may say that; of others what they are told."""
        rng = np.random.default_rng(seed)
        if set(teller.names) <= {"label"}:
            if not teller.names or self.labels is None:
                return {}, (), None
            labels = rng.permutation(spread(self.labels, len(self.classes), n))
            names = [self.classes[k] for k in labels]
            return {"label": names}, [{"label": name} for name in names], labels
        places = np.concatenate([rng.permutation(len(self.known)) for _ in range(-(-n // len(self.known)))])[:n]
        known = [self.known[k] for k in places]
        if "text" not in teller.names:
            known = [{name: one[name] for name in teller.names if name in one} for one in known]
        return self.conditions(teller, places), known, None if self.labels is None else self.labels[places]

    def conditions(self, teller: ConditionEncoder, places: Sequence[int] | Int) -> dict[str, Asked]:
        """All that is known of the held-out images at these places, as far as a model can be told it."""
        conditions: dict[str, Asked] = {
            name: [teller.legible(name, self.known[k].get(name, "")) for k in places]
            for name in teller.names
            if name != MASK
        }
        return conditions | ({MASK: [self.masks[k] for k in places]} if MASK in teller.names else {})

    def reference(self, n: int, seed: int) -> tuple[Float32, Int | None, Sequence[Known]]:
        """At most n training images, their labels, and all that is known of each, drawn at random, classes as frequent
        as held out."""
        if self.train is None:
            return self.heldout[:0], None, ()
        order = np.random.default_rng(seed).permutation(len(self.train))
        if self.labels is None or self.train.labels is None:
            chosen = np.sort(order[:n])
            return self.train.read(chosen), None, [self.train.known(int(k)) for k in chosen]
        wanted = np.bincount(spread(self.labels, len(self.classes), n), minlength=len(self.classes))
        found = self.train.labels[order]
        chosen = np.sort(np.concatenate([order[found == k][:count] for k, count in enumerate(wanted)]))
        known = [self.train.known(int(k)) for k in chosen]
        return self.train.read(chosen), self.train.labels[chosen], known

    def small(self, images: Float32) -> Float32:
        """Images at the largest size that the search for copies looks at."""
        return shrunk(images, GRIDS[images.ndim - 2][0])

    def memory_small(self, tell: Progress) -> Float32:
        """The training images that are searched, each at the size of `small`."""
        parts = []
        for start in range(0, len(self.searched), BLOCK):
            parts.append(self.small(self._read(self.searched[start : start + BLOCK])))
            tell("reading training images", min(start + BLOCK, len(self.searched)), len(self.searched))
        return np.concatenate(parts)

    def memory_images(self, places: Sequence[int]) -> Float32:
        """Full-size training images (N, C, *S) at these places of `searched`."""
        return self._read(self.searched[list(places)])

    def memory_name(self, place: int) -> str:
        """The id of the training image at this place of `searched`."""
        assert self.memory is not None  # nothing is searched without
        return self.memory.ids[int(self.searched[place])]

    def _read(self, indices: Int) -> Float32:
        assert self.memory is not None  # nothing is searched without
        return self.memory.read(indices)


def spread(labels: Int, classes: int, n: int) -> Int:
    """n labels, sorted, as frequent as in `labels` (N,), by largest remainders."""
    share = np.bincount(labels, minlength=classes) / len(labels) * n
    counts = np.floor(share).astype(np.int64)
    order = np.argsort(counts - share, kind="stable")
    counts[order[: n - int(counts.sum())]] += 1
    return np.repeat(np.arange(classes), counts)


def some(count: int, most: int, rng: np.random.Generator) -> Int:
    """At most `most` of 0 .. count - 1, drawn at random, in order."""
    return np.sort(rng.permutation(count)[:most])


def room(shape: Sequence[int]) -> int:
    """How many images (C, *S) may be in memory at once."""
    return max(64, MOST_BYTES // (4 * int(np.prod(shape))))


def cached(config: DataConfig, codec: Codec, split: str, tell: Progress, side: str = "") -> Dataset:
    what = f"caching {split} images" + (f" of {side}" if side else "")
    return build_cache(config, codec, split, progress=lambda done, total: tell(what, done, total), side=side)
