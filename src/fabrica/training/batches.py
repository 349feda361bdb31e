"""Batches as a function of the step, read one ahead."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch

from fabrica.data.augment import AS_THEY_ARE, Changes, Int64


class Batches(Protocol):
    """Images in a numbered row: a Dataset, a Conditioned one, or the two sides of a translation."""

    def __len__(self) -> int: ...
    def batch(self, seed: int, positions: Int64, changes: Changes) -> dict[str, npt.NDArray[Any]]: ...


def batch_at(
    data: Batches,
    step: int,
    batch: int,
    seed: int,
    rank: int = 0,
    world: int = 1,
    changes: Changes = AS_THEY_ARE,
) -> dict[str, torch.Tensor]:
    """The batch that process `rank` of `world` sees at `step`: a pure function of its arguments.

    The images come in the order of an endless stream: one permutation of the dataset an epoch, drawn from seed and
    epoch, one after the other, so a batch at the end of an epoch runs on into the next. At one step the processes
    take neighbouring pieces of `batch` images, so 2 x 16 images see the same as 1 x 32.

    Returns tensors: "image" float32 (B, C, *S) in [-1, 1], "index" int64 (B,) and what `Conditioned.conditions`
    says; of a translation see `fabrica.data.pairs`.
    """
    first = (step * world + rank) * batch
    found = data.batch(seed, np.arange(first, first + batch), changes)
    return {name: torch.from_numpy(values) for name, values in found.items()}


def prefetch(
    data: Batches,
    *,
    start: int,
    batch: int,
    seed: int,
    rank: int = 0,
    world: int = 1,
    changes: Changes = AS_THEY_ARE,
) -> Iterator[dict[str, torch.Tensor]]:
    """`batch_at` for start, start + 1, ... without end; a thread reads one batch ahead."""
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="prefetch") as pool:
        step = start
        coming = pool.submit(batch_at, data, step, batch, seed, rank, world, changes)
        while True:
            step += 1
            ready, coming = coming, pool.submit(batch_at, data, step, batch, seed, rank, world, changes)
            yield ready.result()
