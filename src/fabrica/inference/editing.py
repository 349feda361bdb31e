"""An image to start from, where a sampler is to change one rather than to draw one of noise."""

from __future__ import annotations

import numpy as np

from fabrica.codec import Codec
from fabrica.data.standardise import standardise
from fabrica.diffusion import Begin
from fabrica.errors import UsageError
from fabrica.image import Float32, Image
from fabrica.recipe.schema import DataConfig

STRENGTH = 0.6  # of a whole image: its layout remains, its detail is new


def begin(
    name: str,
    data: DataConfig,
    codec: Codec,
    start: Image | None,
    strength: float | None = None,
    redraw: Image | None = None,
) -> Begin | None:
    """What the sampler of a trained method, called `name`, starts from, as arrays of NumPy; None without `start`.

    start      an image, brought to the size that the network sees as a training image is.
    strength   how much is drawn anew: above 0, where hardly anything changes, to 1, where nothing remains. None:
               STRENGTH, or 1 with `redraw`.
    redraw     where: above 0 in this mask (1, *S) on the grid of `start`, and nowhere else; None: everywhere.

    Raises UsageError for what does not fit together.
    """
    if start is None:
        if strength is not None or redraw is not None:
            raise UsageError("a strength and a mask of where to draw are for an image to start from; give one (--from)")
        return None
    if len(start.size) != len(data.size):
        raise UsageError(f"the image is {len(start.size)}-D, and the model draws {len(data.size)}-D ones")
    strength = strength if strength is not None else STRENGTH if redraw is None else 1.0
    x_0 = _seen(start, codec, data, data.channels)
    if redraw is None:
        return Begin(x_0, strength)
    if redraw.data.shape != (1, *start.size):
        raise UsageError(f"the mask has shape {redraw.data.shape}; expected {(1, *start.size)}, that of the image")
    where = start.with_data((redraw.data > 0).astype(np.float32))
    drawn = _seen(where, Codec("window", 0.0, 1.0), data, 1) > -1
    if not drawn.any():
        what = "is empty" if not redraw.data.max() > 0 else "lies outside of what the model sees of the image"
        raise UsageError(f"the mask {what}, and nothing would be drawn; mark where to draw by values above 0")
    return Begin(x_0, strength, ~drawn)


def _seen(image: Image, codec: Codec, data: DataConfig, channels: int) -> Float32:
    """(1, C, *S) in [-1, 1], as the network saw training images."""
    (values, _), *_ = standardise(image, codec, data.size, channels, data.fit)
    return values[None]
