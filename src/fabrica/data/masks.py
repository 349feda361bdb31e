"""The masks that images are told: label maps, from files of several habits to what a network is shown."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from fabrica.codec import Codec
from fabrica.data.standardise import standardise
from fabrica.errors import UsageError
from fabrica.image import Float32, Image, name
from fabrica.recipe.schema import DataConfig

CLASSES = 64  # label maps have fewer
Given = Image | None
"""A label map, or None: the mask of this image is not known."""


def as_labels(mask: Image) -> Image:
    """A mask as a label map (1, *S): whole numbers below CLASSES as they are; 0 and one larger number, 255 in pictures
    of black and white, as 0 and 1. Raises UsageError for anything else."""
    values = np.rint(mask.data)
    if mask.channels != 1 or not np.isfinite(values).all() or values.min() < 0:
        found = f"{mask.channels} channels" if mask.channels != 1 else "values below 0, or none at all"
        raise UsageError(f"mask {name(mask)} has {found}; expected a label map: one channel of whole numbers from 0")
    if values.max() >= CLASSES:
        if not np.isin(values, (0, values.max())).all():
            raise UsageError(
                f"mask {name(mask)} has values up to {values.max():g}; expected a label map of whole numbers below "
                f"{CLASSES}, or black and white: number its labels anew"
            )
        values = np.minimum(values, 1)
    return Image(values.astype(np.float32), mask.affine, "label", mask.origin)


def one_hot(values: Float32) -> Tensor:
    """Network values (..., classes, *S) of label maps, -1 and 1, as networks are told them: 0 and 1, float32; 0 in all
    classes where there is no mask."""
    return torch.from_numpy((values + 1) / 2)


def shown(masks: Image | Sequence[Given], n: int, codec: Codec, data: DataConfig) -> Tensor | None:
    """What a model is told of the masks of n images, one for all of them or one each: (n, classes, *data.size) as
    `one_hot`; None where no mask is known. They are brought to the size that the network sees as in training.

    Raises UsageError for other numbers of masks than images, and for masks that are none of this model's."""
    if isinstance(masks, Image):
        one = _values(masks, codec, data)
        return one.expand(n, *one.shape)
    if len(masks) != n:
        raise UsageError(f"{len(masks)} masks for {n} images; expected one each, or one for all")
    nothing = torch.zeros(codec.classes, *data.size)
    if all(mask is None for mask in masks):
        return None
    return torch.stack([nothing if mask is None else _values(mask, codec, data) for mask in masks])


def _values(mask: Image, codec: Codec, data: DataConfig) -> Tensor:
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
