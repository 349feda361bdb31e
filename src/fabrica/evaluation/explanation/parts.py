"""Which part of an image moved what a translator, a restorer or a segmenter makes of it: by occlusion, whatever runs
the network, and by integrated gradients, where it is PyTorch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from math import prod

import numpy as np
from scipy.ndimage import maximum_filter

from fabrica.codec import ABSENT
from fabrica.errors import UsageError, did_you_mean
from fabrica.image import Bools, Float32, Float64
from fabrica.inference.seeing import Seen
from fabrica.metrics.attribution import Attribution, default_window, integrated_gradients, local_mean, occlusion
from fabrica.progress import Progress, part

FILLS = ("mean", "empty")
MOST_CLASSES = 4  # that are explained where none is named
AT_ONCE = 2**20  # values of changed inputs in one call of a network
FAINT = 1e-3  # voxels of a class: less is none

GradientOf = Callable[..., tuple[Float64, Float32]]
"""(windows (B, C, *W), weights=(C2, *W)) -> the weighted sums of the answers, and their gradients: see
`fabrica.model.translation.TranslationModel.gradient`."""


@dataclass(frozen=True, eq=False)
class Part:
    """What moved one answer.

    name       the class, or "result"; unit: of all that follows.
    moved      (*W): by how much hiding this place changes the answer, the mean absolute change over the region; of a
               class in per cent of what of it is there.
    added      (*W): what this place adds to the answer's mean over the region, by occlusion: what is lost where it is
               hidden.
    gradients  what each value adds to it, by integrated gradients; None where none were asked for.
    share      of all that moved the answer, the share that lies in the region or within half a window of it; chance:
               the share of the image that is there. None where the region is everything.
    """

    name: str
    unit: str
    moved: Float64
    added: Float64
    gradients: Attribution | None
    share: float | None
    chance: float | None


@dataclass(frozen=True, eq=False)
class Parts:
    """answer (C2, *W): the network's own, in network values. window, stride: of the places that were hidden, in the
    pixels that the network sees; fill: what stood there instead."""

    seen: Seen
    answer: Float32
    window: Sequence[int]
    stride: Sequence[int]
    fill: str
    parts: Sequence[Part]


@dataclass(frozen=True, eq=False)
class _Target:
    """weights (C2, *W): of the answer in network values, whose weighted sum is explained; area: what is looked at."""

    name: str
    unit: str
    weights: Float64
    area: Bools


def explained(
    seen: Seen,
    *,
    class_: str = "",
    window: int = 0,
    stride: int = 0,
    fill: str = "mean",
    gradient: GradientOf | None = None,
    steps: int = 16,
    progress: Progress | None = None,
) -> Parts:
    """What moved the answer in the region of `seen`.

    class_   of label maps: the one that is explained; "": those that are there, at most MOST_CLASSES.
    window, stride   side of what is hidden at a time, and how far apart, in pixels that the network sees; 0: see
             `fabrica.metrics.attribution.default_window`.
    fill     what hides it: "mean", that of a place about twice as wide around each pixel, or "empty", the network's
             lowest value (air, black). It is also the baseline of integrated gradients.
    gradient, steps   for integrated gradients; None: none. steps: the first try, see `integrated_gradients`.

    Raises UsageError for classes that there are not, or that are not in the region, and for windows that do not fit.
    """
    if fill not in FILLS:
        raise UsageError(f"fill is {fill!r}; expected {' or '.join(FILLS)}")
    size = seen.values.shape[1:]
    usual, apart = default_window(size)
    wide = [min(window, n) for n in size] if window else usual
    far = [stride or max(1, w // 2) for w in wide] if window or stride else apart
    answer = seen.way.net(seen.values[None])[0]
    targets = _targets(seen, answer, class_)
    hidden = _hidden(seen.values, wide, fill)

    def effect(changed: Float32) -> Float64:
        lost = answer - seen.way.net(changed).astype(np.float64)
        each = [f(lost) for t in targets for f in (_sum_of(np.abs, t), _sum_of(np.asarray, t))]
        return np.stack(each, axis=1)

    at_once = max(1, min(16, AT_ONCE // prod(seen.values.shape)))
    found = occlusion(
        effect, seen.values, hidden, wide, far, batch=at_once, progress=part(progress, "hiding parts of the image")
    )
    parts = []
    for k, target in enumerate(targets):
        along = None
        if gradient is not None:
            along = integrated_gradients(
                partial(gradient, weights=target.weights),
                seen.values,
                hidden,
                steps=steps,
                batch=at_once,
                progress=part(progress, f"gradients of {target.name}"),
            )
        moved = np.where(seen.inside, found[2 * k], 0.0)
        share, chance = _near(moved, target.area, seen.inside, wide)
        added = np.where(seen.inside, found[2 * k + 1], 0.0)
        parts.append(Part(target.name, target.unit, moved, added, along, share, chance))
    return Parts(seen, answer, wide, far, fill, parts)


def _sum_of(change: Callable[[Float64], Float64], target: _Target) -> Callable[[Float64], Float64]:
    def weighted(lost: Float64) -> Float64:
        total: Float64 = (change(lost) * target.weights).reshape(len(lost), -1).sum(1)
        return total

    return weighted


def _hidden(x: Float32, window: Sequence[int], fill: str) -> Float32:
    """(C, *S): what stands where something is hidden."""
    if fill == "empty":
        return np.full_like(x, ABSENT)
    return local_mean(x, [2 * w + 1 for w in window])


def _targets(seen: Seen, answer: Float32, class_: str) -> list[_Target]:
    if seen.way.target.kind == "label":
        return _classes(seen, answer, class_)
    if class_:
        raise UsageError(f"model {seen.way.model} makes images and no label maps; leave the class out (--class)")
    target = seen.way.target
    low, high = seen.limits if seen.way.restores else target.span
    area = seen.region & seen.inside
    if not area.any():
        raise UsageError("nothing of the region lies in what the model sees of the image; mark another place")
    weights = np.broadcast_to(area / (area.sum() * len(answer)), answer.shape) * (high - low) / 2
    return [_Target("result", "" if target.unit == "arbitrary" else target.unit, weights, area)]


def _classes(seen: Seen, answer: Float32, class_: str) -> list[_Target]:
    codec, labels = seen.way.target, seen.way.labels
    numbers = list(codec.numbers or range(codec.classes))
    channels = {labels.get(number, f"label {number}"): k for k, number in enumerate(numbers) if number}
    if class_ and class_ not in channels:
        raise UsageError(f"model {seen.way.model} outlines no {class_!r}{did_you_mean(class_, channels)}")
    area = seen.region & seen.inside
    there = {name: np.where(area, (answer[k] + 1) / 2, 0.0).astype(np.float64) for name, k in channels.items()}
    if class_ and there[class_].sum() < FAINT:
        raise UsageError(f"the model sees no {class_} there, so that nothing can be explained; choose another place")
    wanted = [class_] if class_ else sorted(channels, key=lambda name: -float(there[name].sum()))[:MOST_CLASSES]
    wanted = [name for name in wanted if (there[name] > 0.5).any()] or wanted[:1]
    if there[wanted[0]].sum() < FAINT:
        raise UsageError("the model outlines nothing in this image, so that there is nothing to explain")
    targets = []
    for name in wanted:
        weights = np.zeros(answer.shape)
        weights[channels[name]] = area * (
            100 * 0.5 / there[name].sum()
        )  # network values go from -1 to 1, shares from 0
        targets.append(_Target(name, "%", weights, there[name] > 0.5))
    return targets


def _near(moved: Float64, area: Bools, inside: Bools, window: Sequence[int]) -> tuple[float | None, float | None]:
    near = maximum_filter(area, [w + 1 for w in window]) & inside  # half a window on each side
    if not area.any() or near.sum() == inside.sum() or not moved.any():
        return None, None
    return float(moved[near].sum() / moved.sum()), float(near.sum() / inside.sum())
