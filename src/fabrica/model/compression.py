"""Compression: latents of images, and images of latents, by a trained autoencoder and by one in training."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import NoReturn

import numpy as np
import torch
from torch import Tensor

from fabrica.conditioning.dataset import Conditioned
from fabrica.data.augment import Int64
from fabrica.data.dataset import Dataset, evenly
from fabrica.errors import UsageError
from fabrica.image import Float32
from fabrica.io.contact_sheet import Uint8
from fabrica.methods import Compressor
from fabrica.methods.noise import seeded
from fabrica.model.model import Model
from fabrica.model.task import SHOWN, rows_of_two
from fabrica.nets.device import autocast
from fabrica.recipe import card
from fabrica.recipe.found import Found
from fabrica.recipe.schema import Recipe


@dataclass(frozen=True)
class CompressionModel(Model):
    """A trained autoencoder."""

    use = (
        "is an autoencoder, for latent diffusion to work on; see what it leaves of images with: fabrica evaluate "
        "{folder}"
    )
    method: Compressor

    def encode(self, images: Float32, *, batch: int = 16) -> Float32:
        """The latents float32 (N, L, *s) of images (N, C, *S) in [-1, 1], of any size: mean 0 and standard deviation 1
        a channel over the training images. s is S over the autoencoder's factor, rounded up."""
        return self._in_batches(self.method.encode, [images], batch)

    def decode(
        self, latents: Float32, size: Sequence[int] = (), *, seeds: Sequence[int] = (), batch: int = 16
    ) -> Float32:
        """The images float32 (N, C, *S) in [-1, 1] of latents (N, L, *s). size: S of what was encoded; empty: the size
        of the training images, data.size. seeds: one an image, of the detail of an autoencoder that draws it; empty:
        without."""
        if seeds and len(seeds) != len(latents):
            raise UsageError(f"found {len(seeds)} seeds for {len(latents)} latents; give one for each, or none")
        detailed = seeds and self.method.noise_shape
        shape = (*self.method.noise_shape[:1], *latents.shape[2:])
        given = (latents, seeded(seeds)(shape).numpy()) if detailed else (latents,)
        return self._in_batches(lambda part, *noise: self.method.decode(part, size, *noise), given, batch)

    def _in_batches(self, net: Callable[..., Tensor], given: Sequence[Float32], batch: int) -> Float32:
        parts = []
        for start in range(0, len(given[0]), batch):
            some = (np.ascontiguousarray(values[start : start + batch], dtype=np.float32) for values in given)
            with torch.inference_mode(), autocast(self.recipe.train.precision, self.device):
                parts.append(net(*(torch.from_numpy(each).to(self.device) for each in some)).float().cpu().numpy())
        return np.concatenate(parts)


class Compression:
    """What is asked of an autoencoder while it trains, and of its model."""

    model = CompressionModel
    verb = "compresses"
    evaluation = "fabrica.evaluation.compression.evaluate"
    next = "evaluate {folder} -o report"
    compares = False
    diverse = False

    def card(self, recipe: Recipe, found: Found, method: Compressor) -> card.CardPart:
        return card.compression(method.latent_shape)

    @torch.no_grad()
    def preview(
        self, method: Compressor, recipe: Recipe, found: Found, heldout: Conditioned, device: torch.device
    ) -> Uint8:
        """Two rows of held-out images, each above a row of what encoder and decoder leave of them."""
        chosen = evenly(len(heldout), 2 * SHOWN)
        source = heldout.images.read(chosen)
        made = method.decode(method.encode(torch.from_numpy(source).to(device)), source.shape[2:]).cpu().numpy()
        return rows_of_two(source, made, found)

    def paired(self, heldout: Conditioned) -> bool:
        return True

    def judged(self, heldout: Conditioned) -> Dataset:
        return heldout.images

    def maker(self, recipe: Recipe, heldout: Conditioned, chosen: Int64, device: torch.device) -> NoReturn:
        raise NotImplementedError("an autoencoder makes no images of its own")

    def before_keeping(
        self, method: Compressor, data: Conditioned, feed: Callable[[Dataset], Iterable[Tensor]]
    ) -> None:
        """The scale of the latents is that of the very weights that are kept."""
        method.measure(feed(data.images))

    def concluded(self, found: Found, opened: object, data: Conditioned, heldout: Conditioned) -> Found:
        return found
