"""Which weights are the best: judged on held-out images, by the method's loss, or by how far samples lie from them.

A GAN's losses say nothing of its pictures: both players may lose while they get better, or win while one collapses.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from fabrica.conditioning.dataset import Conditioned
from fabrica.data.augment import Changes
from fabrica.data.pairs import Pairs
from fabrica.data.standardise import middle
from fabrica.errors import UsageError
from fabrica.image import Float64
from fabrica.methods import Method
from fabrica.metrics import distribution
from fabrica.metrics.radiomics import standard_features
from fabrica.model.task import MOST, Task
from fabrica.model.tasks import task_of
from fabrica.recipe.found import Found
from fabrica.recipe.schema import Recipe
from fabrica.training.batches import batch_at

Judge = Callable[[Method], float]
"""judge(method with averaged weights) -> its score on held-out images; lower is better."""

FEWEST = 32


def judge(
    method: Method, recipe: Recipe, found: Found, heldout: Conditioned | Pairs, device: torch.device
) -> tuple[str, Judge | None]:
    """The score that chooses the weights, and its name in the log: "val_loss", "frd" or "kid"; "" and None where
    those at the end are kept and too few images are held out for a score.

    Call the judge under the run's autocast. Every time it sees the same images and the same noise.
    Raises UsageError where the recipe's choice is not possible.
    """
    task, name = task_of(method), found.method["name"]
    keep = method.keep if recipe.train.keep in ("auto", "last") else recipe.train.keep
    if keep in ("loss", "last"):
        if not method.validated or not task.paired(heldout):
            raise UsageError(f"train.keep is loss, but {name} has no loss that tells good weights; take frd or kid")
        size = found.data(recipe.data).batch
        return "val_loss", lambda averaged: _loss(averaged, recipe, heldout, size, device)
    if not task.compares:
        raise UsageError(f"train.keep is {keep}, which compares samples, and {name} makes none; take loss or last")
    held = min(len(heldout), len(task.judged(heldout)))
    if held < FEWEST and recipe.train.keep == "last":
        return "", None
    if held < FEWEST:
        raise UsageError(
            f"{held} held-out images are too few to choose weights by {keep}; it takes {FEWEST}: hold out more, e.g. "
            "fabrica scan --split 0.6,0.2,0.2, or keep the weights at the end, whatever they are: train.keep=last"
        )
    return keep, _distance(keep, recipe, found, task, heldout, device)


@torch.no_grad()
def _loss(averaged: Method, recipe: Recipe, heldout: Conditioned | Pairs, at_once: int, device: torch.device) -> float:
    count = min(len(heldout), MOST)
    size = min(at_once, count)
    total, cut = 0.0, Changes(recipe.data.crop)
    for k in range(count // size):
        batch = {key: v.to(device) for key, v in batch_at(heldout, k, size, seed=0, changes=cut).items()}
        total += float(averaged.validation(batch, torch.Generator().manual_seed(k)).mean())
    return total / (count // size)


def _distance(
    keep: str, recipe: Recipe, found: Found, task: Task[Any, Any], heldout: Conditioned | Pairs, device: torch.device
) -> Judge:
    """The Fréchet or kernel distance of radiomic features, as in `fabrica evaluate`, but against the val split."""
    target = task.judged(heldout)
    chosen = np.sort(np.random.default_rng(0).permutation(len(target))[:MOST])
    real, measured = standard_features(middle(target.read(chosen), found.size))
    made = task.maker(recipe, heldout, chosen, device)

    def features(method: Method) -> Float64:
        return measured(middle(made(method), found.size))

    if keep == "kid":
        return lambda averaged: distribution.kid(real, features(averaged), subsets=20)[0]
    return lambda averaged: distribution.frechet(real, features(averaged))
