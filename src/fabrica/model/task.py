"""The seam of the tasks. Synthesis, translation and compression are one object each, which answers what the training
loop, the model folder, its card, previews, the choice of weights, evaluation and the command line ask; so would be a
fourth. Here is what they are asked, and what they share."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor

from fabrica.conditioning.encoder import Encoded
from fabrica.data.augment import Int64
from fabrica.data.dataset import Dataset
from fabrica.data.standardise import middle
from fabrica.image import Float32
from fabrica.io.contact_sheet import Uint8, image_grid
from fabrica.methods import Method, Synthesiser, as_conditions
from fabrica.methods.noise import seeded
from fabrica.model.model import Model
from fabrica.recipe import card
from fabrica.recipe.found import Found
from fabrica.recipe.schema import Recipe

MOST = 512  # held-out images compared as a set: enough for a steady score, few enough to cost seconds
SHOWN = 8  # images in a row of a contact sheet
FIRST_SEED = 2**30  # far from the seeds that users take
MethodT = TypeVar("MethodT", bound=Method, contravariant=True)
DataT = TypeVar("DataT", contravariant=True)


class Task(Protocol[MethodT, DataT]):
    """What a task is asked. DataT: what its methods learn from and are judged by.

    model       the class of its trained models; verb: what these do, "translates".
    evaluation  the module whose `evaluate` judges these.
    next        what to do with a model after training, "sample {folder} ...".
    compares    whether weights may be chosen by how far results lie from held-out images as a set.
    diverse     whether results are to be as various as real images: of noise, not of sources.
    """

    @property
    def model(self) -> type[Model]: ...

    verb: str
    evaluation: str
    next: str
    compares: bool
    diverse: bool

    def card(self, recipe: Recipe, found: Found, method: MethodT) -> card.CardPart:
        """What the model card says of the task."""

    def preview(self, method: MethodT, recipe: Recipe, found: Found, heldout: DataT, device: torch.device) -> Uint8:
        """What a person looks at while a method trains. Call it under the run's autocast."""

    def paired(self, heldout: DataT) -> bool:
        """Whether each held-out image has a truth, so that a loss is meaningful."""

    def judged(self, heldout: DataT) -> Dataset:
        """The held-out images that results are to resemble."""

    def maker(self, recipe: Recipe, heldout: DataT, chosen: Int64, device: torch.device) -> Callable[[Any], Float32]:
        """From a method to its results (N, C, *S) in [-1, 1], to compare with the chosen images of `judged`."""

    def before_keeping(self, method: MethodT, data: DataT, feed: Callable[[Dataset], Iterable[Tensor]]) -> None:
        """What is to be measured of weights that are about to be kept. feed: a dataset's images, in batches."""

    def concluded(self, found: Found, opened: Callable[[], Any], data: DataT, heldout: DataT) -> Found:
        """What is found, with what the kept weights are worth. opened: gives their model, where it is asked."""


@torch.no_grad()
def drawn(method: Synthesiser, recipe: Recipe, conditions: Encoded, count: int, device: torch.device) -> Float32:
    """`count` samples float32 (N, C, *S) of a method in training, from seeds that nobody else takes."""
    parts = []
    for start in range(0, count, 64):
        stop = min(start + 64, count)
        own = as_conditions(conditions, slice(start, stop))
        draw = seeded(range(FIRST_SEED + start, FIRST_SEED + stop))
        parts.append(method.sample(draw, own, recipe.sample, device).float().clamp(-1, 1).cpu().numpy())
    return np.concatenate(parts)


def rows_of_two(above: Float32, below: Float32, found: Found) -> Uint8:
    """Rows of images (N, C, *S), each above a row of others."""
    rows = [part for k in range(0, len(above), SHOWN) for part in (above[k : k + SHOWN], below[k : k + SHOWN])]
    shown = middle(np.concatenate(rows), found.size)
    return image_grid(shown, columns=min(SHOWN, len(above)), spacing=found.spacing)


def grey(images: Float32) -> Float32:
    """(N, C, *S) -> (N, 1, *S): the middle of neighbouring slices; labels as greys."""
    channels = images.shape[1]
    if channels > 1 and np.isin(images[0], (-1, 1)).all():
        labels: Float32 = images.argmax(1, keepdims=True) * np.float32(2 / (channels - 1)) - 1
        return labels
    return images[:, channels // 2 : channels // 2 + 1]
