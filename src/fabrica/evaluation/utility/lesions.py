"""Lesions painted into training images: a lesion's mask from one patient is laid into another's image, and the model
draws what it shows, and nothing else, anew."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from scipy.ndimage import binary_dilation, find_objects

from fabrica.errors import UsageError
from fabrica.image import Float32, Image
from fabrica.model.synthesis import SynthesisModel
from fabrica.progress import Progress

AROUND = 2  # voxels around a lesion that are drawn anew with it, so that it has no rim
TRIES = 50  # places that are looked at
Mask = npt.NDArray[np.bool_]
Labels = npt.NDArray[np.uint8]


def painted(
    model: SynthesisModel,
    images: Float32,
    labels: Labels,
    as_told: Callable[[Labels], Image],
    n: int,
    seed: int,
    tell: Progress,
) -> tuple[Float32, Labels]:
    """n images (n, C, *S) in [-1, 1] with their label maps (n, *S): training images, one lesion more in each.

    images    (N, C, *S) with labels (N, *S), class numbers; a lesion is all that is labelled in one of them.
    as_told   class numbers (*S) as the label map that the model is told.

    A lesion is laid where the image looks most like what was around it, of TRIES places drawn at random, and not upon
    another one; an image without room for it stays as it is.
    """
    sick = [k for k, each in enumerate(labels) if each.any()]
    if not sick:
        raise UsageError("no training image shows a lesion; there is nothing to paint")
    made, maps = [], []
    for k in range(n):
        rng = np.random.default_rng([seed, k])
        lesion, ground = sick[int(rng.integers(len(sick)))], int(rng.integers(len(images)))
        image, whole = images[ground], labels[ground]
        moved = laid(images[lesion], labels[lesion], image, whole, rng)
        if moved is not None:
            whole = np.where(moved > 0, moved, whole)
            where = binary_dilation(moved > 0, iterations=AROUND)[None].astype(np.float32)
            start = Image(model.codec.decode(image), model.affine, model.codec.unit)
            conditions = {"mask": as_told(whole)}
            redraw = Image(where, model.affine, "label")
            image = model.sample_array(1, seed=seed + k, conditions=conditions, start=start, redraw=redraw)[0]
        made.append(image)
        maps.append(whole)
        tell("painting lesions", k + 1, n)
    return np.stack(made), np.stack(maps)


def laid(image: Float32, labels: Labels, ground: Float32, there: Labels, rng: np.random.Generator) -> Labels | None:
    """The labels (*S) of a lesion in `image` (C, *S) moved to a place in `ground`, where `there` shows none; None where
    no place was found."""
    box = find_objects((labels > 0).view(np.uint8))[0]
    room = [n - (part.stop - part.start) for part, n in zip(box, labels.shape, strict=True)]
    ring_before = _ring(image, labels > 0)
    best, least = None, np.inf
    for _ in range(TRIES):
        corner = [int(rng.integers(free + 1)) for free in room]
        moved = np.zeros_like(labels)
        moved[tuple(slice(k, k + p.stop - p.start) for k, p in zip(corner, box, strict=True))] = labels[box]
        if (there[binary_dilation(moved > 0, iterations=AROUND)] > 0).any():
            continue
        ring = _ring(ground, moved > 0)
        apart = float(((ring - ring_before) ** 2).sum())
        if apart < least:
            best, least = moved, apart
    return best


def _ring(image: Float32, lesion: Mask) -> npt.NDArray[np.float64]:
    """Mean and standard deviation of what lies around a lesion."""
    ring = binary_dilation(lesion, iterations=2 * AROUND) & ~binary_dilation(lesion, iterations=1)
    values = image[:, ring] if ring.any() else image.reshape(len(image), -1)
    return np.array([values.mean(), values.std()], dtype=np.float64)
