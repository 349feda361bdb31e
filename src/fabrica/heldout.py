"""Which weights are the best: judged on held-out images, by the method's loss, or by how far samples lie from them.

A GAN's losses say nothing of its pictures: both players may lose while they get better, or win while one collapses.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from fabrica import noise
from fabrica.data.dataset import Dataset, batch_at
from fabrica.errors import UsageError
from fabrica.evaluation import distribution
from fabrica.evaluation.radiomics import radiomic_features, standardised, standardiser
from fabrica.image import Float32, Float64
from fabrica.methods import Method, Validated
from fabrica.model import middle
from fabrica.recipe import Recipe

Judge = Callable[[Method], float]
"""judge(method with averaged weights) -> its score on held-out images; lower is better."""

MOST = 512  # images: enough for a steady score, few enough to cost seconds
FEWEST = 32
FIRST_SEED = 2**30  # far from the seeds that users take


def judge(method: Method, recipe: Recipe, heldout: Dataset, device: torch.device) -> tuple[str, Judge]:
    """The score that chooses the weights, and its name in the log: "val_loss", "frd" or "kid".

    Call the judge under the run's autocast. Every time it sees the same images and the same noise.
    Raises UsageError where the recipe's choice is not possible.
    """
    keep = method.keep if recipe.train.keep == "auto" else recipe.train.keep
    if keep == "loss":
        if not isinstance(method, Validated):
            raise UsageError(
                f"train.keep is loss, but {recipe.method['name']} has no loss that tells good weights; take frd or kid"
            )
        return "val_loss", lambda averaged: _loss(averaged, recipe, heldout, device)
    if len(heldout) < FEWEST:
        raise UsageError(
            f"{len(heldout)} held-out images are too few to choose weights by {keep}; it takes {FEWEST}: "
            "hold out more, e.g. fabrica scan --split 0.6,0.2,0.2"
        )
    return keep, _distance(keep, recipe, heldout, device)


def absent(heldout: Dataset) -> str | None:
    """A sentence about a class that the held-out images lack, so that nothing judges it; None if all are there."""
    if heldout.labels is None:
        return None
    missing = [name for k, name in enumerate(heldout.classes) if not (heldout.labels == k).any()]
    if not missing:
        return None
    return f"no held-out image shows {', '.join(missing)}: the weights are chosen without it; label or split anew"


@torch.no_grad()
def _loss(averaged: Method, recipe: Recipe, heldout: Dataset, device: torch.device) -> float:
    assert isinstance(averaged, Validated)  # see judge
    count = min(len(heldout), MOST)
    size = min(recipe.data.batch, count)
    total = 0.0
    for k in range(count // size):
        batch = {key: v.to(device) for key, v in batch_at(heldout, k, size, seed=0).items()}
        total += float(averaged.validation(batch, torch.Generator().manual_seed(k)).mean())
    return total / (count // size)


def _distance(keep: str, recipe: Recipe, heldout: Dataset, device: torch.device) -> Judge:
    """The Fréchet or kernel distance of radiomic features, as in `fabrica evaluate`, but against the val split."""
    chosen = np.sort(np.random.default_rng(0).permutation(len(heldout))[:MOST])
    raw = radiomic_features(middle(heldout.read(chosen), recipe.made_size))
    scaling = standardiser(raw)
    real = standardised(raw, *scaling)
    labels = None if heldout.labels is None else torch.from_numpy(heldout.labels[chosen])

    def features(method: Method) -> Float64:
        images = middle(drawn(method, recipe, labels, len(chosen), device), recipe.made_size)
        return standardised(radiomic_features(images), *scaling)

    if keep == "kid":
        return lambda averaged: distribution.kid(real, features(averaged), subsets=20)[0]
    return lambda averaged: distribution.frechet(real, features(averaged))


@torch.no_grad()
def drawn(method: Method, recipe: Recipe, labels: Tensor | None, count: int, device: torch.device) -> Float32:
    """`count` samples float32 (N, C, *S) of a method in training, from seeds that nobody else takes."""
    parts = []
    for start in range(0, count, 64):
        stop = min(start + 64, count)
        own = None if labels is None else labels[start:stop]
        draw = noise.seeded(range(FIRST_SEED + start, FIRST_SEED + stop))
        parts.append(method.sample(draw, own, recipe.sample, device).float().cpu().numpy())
    return np.concatenate(parts)
