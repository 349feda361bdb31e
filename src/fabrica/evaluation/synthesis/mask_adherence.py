"""Does a model draw what a mask shows, and where? How far the image follows the mask, and pictures beside real ones.

An image that follows its mask is alike within each label and different between labels: the mask explains a large share
of the variance of its pixels. That needs no segmenter, knows no modality, and has three marks to be read by: what real
images score with their own masks, what synthetic ones do with their own, and with another image's.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fabrica.conditioning.masks import Given
from fabrica.evaluation.sets import Sets
from fabrica.evaluation.subject import Drawn
from fabrica.image import Float32, Float64
from fabrica.metrics.patients import interval
from fabrica.report.scores import ScoreRow

SHOWN = 6


def explained(images: Float32, masks: Sequence[Given]) -> Float64:
    """(N,): the share of the variance of the pixels of an image (C, *S) that lies between the labels of its mask, 0
    to 1 (the correlation ratio, Pearson 1905); NaN without mask, and of an image without variance."""
    found = np.full(len(images), np.nan)
    for k, (image, mask) in enumerate(zip(images.astype(np.float64), masks, strict=True)):
        if mask is None:
            continue
        labels = mask.data[0].astype(np.int64).ravel()
        counts = np.maximum(np.bincount(labels), 1)
        left = 0.0
        for channel in image.reshape(len(image), -1):
            means = np.bincount(labels, channel) / counts
            left += float(((channel - means[labels]) ** 2).mean())
        whole = float(image.reshape(len(image), -1).var(axis=1).sum())
        found[k] = 1 - left / whole if whole > 0 else np.nan
    return found


def rows(drawn: Drawn, sets: Sets, seed: int) -> list[ScoreRow]:
    """How far synthetic images follow their masks; [] for models that are told none, and where none is held out."""
    known = [k for k, mask in enumerate(drawn.masks) if mask is not None]
    if not known:
        return []
    images, masks = drawn.images[known], [drawn.masks[k] for k in known]
    own = interval(explained(images, masks), seed)
    others = explained(images, [*masks[len(masks) // 2 :], *masks[: len(masks) // 2]])
    real = interval(explained(sets.heldout, sets.masks), seed)
    said = (
        "The share of the variance within an image that the labels of its mask explain. As with another image's mask: "
        "the mask is ignored; above real images: flat areas, as if painted by numbers"
    )
    return [
        ScoreRow(
            "mask_explained",
            "explained by the mask",
            own.mean,
            own.low,
            own.high,
            "near real",
            said,
            real=real.mean,
            percent=True,
            baselines={"another": float(np.nanmean(others))},
        )
    ]


def examples(drawn: Drawn, sets: Sets) -> list[Float32]:
    """(3, C, *S) in [-1, 1] each: the mask of a held-out image as greys, what the model drew for it, and the real
    image; [] for models that are told none."""
    places = [k for k, mask in enumerate(drawn.masks) if mask is not None][:SHOWN]
    told = {id(mask): k for k, mask in enumerate(sets.masks)}
    top = max((float(mask.data.max()) for mask in sets.masks if mask is not None), default=0.0) or 1.0
    found = []
    for k in places:
        image, mask = drawn.images[k], drawn.masks[k]
        assert mask is not None  # see places
        grey = np.broadcast_to(2 * mask.data / np.float32(top) - 1, image.shape)
        found.append(np.stack([grey, image, sets.heldout[told[id(mask)]]]))
    return found
