"""What a model's recipe and found record say of it, whatever its task and whatever runs its networks."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from fabrica.codec import Codec
from fabrica.image import Float64
from fabrica.recipe.codecs import codec_of
from fabrica.recipe.found import Found
from fabrica.recipe.schema import DataConfig, Recipe


class Recorded:
    """A trained model, opened or exported, as far as its `recipe` and `found` tell."""

    if TYPE_CHECKING:  # who has them keeps them as fields

        @property
        def recipe(self) -> Recipe: ...
        @property
        def found(self) -> Found: ...

    @property
    def name(self) -> str:
        return self.recipe.name

    @property
    def method_name(self) -> str:
        """As recipes call it: "diffusion", "pix2pix" ..."""
        return str(self.found.method["name"])

    @cached_property
    def data(self) -> DataConfig:
        """What it was trained on, with what the recipe left open decided."""
        return self.found.data(self.recipe.data)

    @property
    def size(self) -> tuple[int, ...]:
        """Spatial size of the images it makes, (H, W) or (D, H, W): data.size without padding."""
        return tuple(self.found.size or self.data.size)

    @cached_property
    def codec(self) -> Codec:
        """That of the images it makes of noise, or of side a."""
        return codec_of(self.found.codec)

    @property
    def affine(self) -> Float64:
        """Of the images it makes, as the data set stands: volumes in RAS+, pictures with the patient's right on the
        left and the head or the front at the top; the identity where the spacing is not known."""
        direction = 1.0 if len(self.data.size) == 3 else -1.0
        affine = np.eye(4)
        for axis, spacing in enumerate(reversed(self.found.spacing)):
            affine[axis, axis] = direction * spacing
        return affine
