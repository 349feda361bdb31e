"""Label maps as networks are told them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fabrica.codec import Codec
from fabrica.data.masks import as_labels
from fabrica.data.standardise import standardise
from fabrica.diffusion.arrays import Array, namespace, parts
from fabrica.errors import UsageError
from fabrica.image import Float32, Image
from fabrica.recipe.schema import DataConfig

Given = Image | None
"""A label map, or None: the mask of this image is not known."""


def one_hot(values: Float32) -> Float32:
    """Network values (..., classes, *S) of label maps, -1 and 1, as networks are told them: 0 and 1; 0 in all classes
    where there is no mask."""
    return ((values + 1) / 2).astype(np.float32, copy=False)


def shown(masks: Image | Sequence[Given], n: int, codec: Codec, data: DataConfig) -> Float32 | None:
    """What a model is told of the masks of n images, one for all of them or one each: (n, classes, *data.size) as
    `one_hot`, a view that is not to be written into; None where no mask is known. They are brought to the size that the
    network sees as in training.

    Raises UsageError for other numbers of masks than images, and for masks that are none of this model's."""
    if isinstance(masks, Image):
        one = _values(masks, codec, data)
        return np.broadcast_to(one, (n, *one.shape))
    if len(masks) != n:
        raise UsageError(f"{len(masks)} masks for {n} images; expected one each, or one for all")
    if all(mask is None for mask in masks):
        return None
    nothing = np.zeros((codec.classes, *data.size), dtype=np.float32)
    return np.stack([nothing if mask is None else _values(mask, codec, data) for mask in masks])


def laid_out(mask: Array, hidden: Array | None, size: Sequence[int]) -> Array:
    """A mask (B, classes, *S), one-hot or 0 where none is known, as the denoiser sees it at its places: float32
    (B, classes + 1, *size), the share of each place that each class fills, and, in the last channel, 1 where no mask is
    known or shown, whose weights are the learned null. hidden (B,) bool: what is not shown though it is known."""
    xp = namespace(mask)
    absent = (mask == 0).reshape(len(mask), -1).all(1)
    if hidden is not None:
        absent = absent | hidden
    shares = mask
    for axis, places in enumerate(size, 2):
        means = [part.mean(axis) for part in parts(shares, axis, places)]
        shares = xp.stack(means, axis)
    where = absent.reshape(-1, 1, *[1] * len(size))
    null = xp.where(where, xp.ones_like(shares[:, :1]), 0.0)
    return xp.concatenate([xp.where(where, 0.0, shares), null], 1)


def _values(mask: Image, codec: Codec, data: DataConfig) -> Float32:
    """(classes, *data.size), as `one_hot`."""
    if not isinstance(mask, Image):
        raise UsageError(f"a mask is a {type(mask).__name__}; expected an Image, e.g. fabrica.read(FILE)")
    if len(mask.size) != len(data.size):
        raise UsageError(f"the mask is {len(mask.size)}-D, and the model draws {len(data.size)}-D images")
    labels = as_labels(mask)
    if labels.data.max() >= codec.classes:
        raise UsageError(
            f"the mask has the label {labels.data.max():g}; the model knows 0 to {codec.classes - 1}: leave others out"
        )
    (values, _), *_ = standardise(labels, codec, data.size, 1, data.fit)
    return one_hot(values)
