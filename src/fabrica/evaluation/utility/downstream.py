"""The small networks that learn from the images: a U-Net that segments, or a classifier. Always the same ones, for the
same number of steps, so that only what they learned from tells them apart."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, leaky_relu

from fabrica.data import planning
from fabrica.data.augment import Changes
from fabrica.data.cases import IMAGES, Cases, Meta
from fabrica.data.dataset import SCALE
from fabrica.data.patches import Patches
from fabrica.evaluation.utility.examples import Answers, Examples, Lesson
from fabrica.image import Float32, Float64
from fabrica.methods.segment import Segment
from fabrica.metrics.patients import known_mean
from fabrica.metrics.roc import area_under_curve
from fabrica.metrics.segmentation import dice
from fabrica.nets.convolutions import BATCH_NORMS, CONVOLUTIONS
from fabrica.nets.device import autocast, default_device
from fabrica.recipe.plan import Plan

WIDTH = {2: 16, 3: 8}  # of the U-Net at full resolution
BATCH = {2: 16, 3: 4}
RATE, WEIGHT_DECAY, WARM = 3e-3, 1e-4, 0.1
WIDTHS = (16, 32, 64, 128)  # of the classifier's levels
Int64 = npt.NDArray[np.int64]


def learned(examples: Examples, lesson: Lesson, augment: bool, steps: int, seed: int) -> nn.Module:
    """A network that has learned from these examples for so many steps.

    augment   classic augmentation, that of `fabrica train segment`: turned, scaled, bent, mirrored where no name tells
              sides apart, and changed in grey value.
    """
    device, dims = default_device(), examples.images.ndim - 2
    plan = _plan(examples, lesson)
    patches = Patches(_Held(examples), plan)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = _network(lesson, plan).to(device).train()
    optimiser = torch.optim.AdamW(network.parameters(), RATE, weight_decay=WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, RATE, steps, pct_start=WARM)
    for step in range(steps):
        positions = np.arange(step * BATCH[dims], (step + 1) * BATCH[dims])
        batch = patches.batch(seed, positions, Changes(augment=augment))
        images = torch.from_numpy(np.ascontiguousarray(batch["a"])).to(device)
        with autocast("auto", device):
            if isinstance(network, Segment):
                maps = torch.from_numpy(batch["b"]).to(device)
                (turn,) = network.turns({"a": images, "b": maps}, torch.Generator())
                loss = turn.loss
            else:
                loss = cross_entropy(network(images), torch.from_numpy(examples.answers[batch["index"]]).to(device))
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        schedule.step()
    return network.eval()


@torch.inference_mode()
def answered(network: nn.Module, images: Float32) -> Answers:
    """What a network says of images (N, C, *S): label maps uint8 (N, *S), or the chances of the classes (N, K)."""
    device, parts = default_device(), []
    for start in range(0, len(images), 32):
        part = torch.from_numpy(images[start : start + 32]).to(device)
        with autocast("auto", device):
            if isinstance(network, Segment):
                parts.append(network.translate(part, "a2b").argmax(1).to(torch.uint8).cpu().numpy())
            else:
                parts.append(network(part).float().softmax(1).cpu().numpy())
    found: Answers = np.concatenate(parts)
    return found


def mean_dice(made: Answers, truth: Answers, classes: int) -> Float64:
    """(N,): the mean Dice over the classes that either label map shows, but the background; a missed class counts 0.
    NaN where neither shows any."""
    each = [[dice(one == k, other == k) for k in range(1, classes)] for one, other in zip(made, truth, strict=True)]
    return known_mean(np.array(each, dtype=np.float64), 1)


def found_lesions(made: Answers, truth: Answers) -> Float64:
    """(N,): 1 where an answer touches what is labelled, 0 where it misses it; NaN where nothing is."""
    inside, shown = ((each > 0).reshape(len(each), -1) for each in (made, truth))
    return np.where(shown.any(1), (inside & shown).any(1), np.nan).astype(np.float64)


def false_alarms(made: Answers, truth: Answers) -> Float64:
    """(N,): 1 where an answer finds something though nothing is labelled, else 0; NaN where something is."""
    inside, shown = ((each > 0).reshape(len(each), -1) for each in (made, truth))
    return np.where(shown.any(1), np.nan, inside.any(1)).astype(np.float64)


def auc(chances: npt.NDArray[Any], truth: Int64) -> float:
    """The area under the ROC curve, of each class against the others, their mean (Hand and Till 2001 have pairs of
    classes; Fawcett 2006, section 9.1). NaN where fewer than two classes are there."""
    return float(np.mean([area_under_curve(chances[truth == k, k], chances[truth != k, k]) for k in np.unique(truth)]))


def _plan(examples: Examples, lesson: Lesson) -> Plan:
    size = examples.images.shape[2:]
    classes = tuple(range(len(lesson.names))) if lesson.voxels else (0, 1)
    names = dict(enumerate(lesson.names)) if lesson.voxels else {}
    look = planning.Look(size, tuple(lesson.spacing), classes)
    plan = planning.planned([look], names=names, size=size, batch=BATCH[len(size)], width=WIDTH[len(size)])
    return plan if lesson.voxels else replace(plan, mirror=[])  # the side may be what tells classes apart


def _network(lesson: Lesson, plan: Plan) -> nn.Module:
    shape = lesson.train.images.shape[1:]
    if lesson.voxels:
        return Segment(Segment.Config(width=WIDTH[len(plan.size)]), shape, (len(lesson.names), *shape[1:]), plan)
    return Classifier(shape[0], len(lesson.names), len(shape) - 1)


class Classifier(nn.Module):
    """images (B, C, *S) -> logits (B, K): strided convolutions, and the mean and the largest of each channel."""

    def __init__(self, channels: int, classes: int, dims: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for before, after in pairwise([channels, *WIDTHS]):
            layers += [CONVOLUTIONS[dims](before, after, 3, 2, 1, bias=False), BATCH_NORMS[dims](after), nn.LeakyReLU()]
            layers += [CONVOLUTIONS[dims](after, after, 3, 1, 1, bias=False), BATCH_NORMS[dims](after), nn.LeakyReLU()]
        self.layers = nn.Sequential(*layers)
        self.head = nn.Linear(2 * WIDTHS[-1], classes)

    def forward(self, x: Tensor) -> Tensor:
        y = leaky_relu(self.layers(x)).flatten(2)
        logits: Tensor = self.head(torch.cat([y.mean(2), y.amax(2)], 1))
        return logits


class _Held(Cases):
    """Examples in memory, as they are: of each a patch is the whole."""

    def __init__(self, examples: Examples) -> None:
        volumes = examples.images.ndim == 5
        self._images = examples.images if volumes else examples.images[:, :, None]
        maps = examples.answers if examples.answers.ndim > 1 else np.zeros(self._images[:, 0].shape, dtype=np.uint8)
        self._maps = maps if maps.ndim == 4 else maps[:, None]
        self._places = np.empty((0, 5), dtype=np.int32)
        nothing: list[list[int]] = [[] for _ in range(len(examples))]
        self.meta = Meta(
            ids=[str(k) for k in range(len(examples))],
            sizes=[list(self._images.shape[2:])] * len(examples),
            channels=self._images.shape[1],
            labelled=True,
            modality="",
            spacing=[],
            extent=[],
            notes=[],
            reach=SCALE,
            marks=[],
            undrawn=nothing,
            contrasts=1,
            absent=nothing,
        )
        self.ids = self.meta.ids

    def _mapped(self, file: str, kind: str, k: int, channels: int) -> npt.NDArray[Any]:
        found: npt.NDArray[Any] = self._images[k] if file == IMAGES else self._maps[k][None]
        return found
