"""The networks of a model as functions of tensors alone: what becomes a graph, and what it is tried with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from fabrica.errors import UsageError
from fabrica.export.plain import plain
from fabrica.methods import Compressor, Method, Translator
from fabrica.model.model import Model
from fabrica.recipe.codecs import codec_of
from fabrica.recipe.schema import CodecConfig

LARGEST = {2: 128, 3: 40}  # sides of what graphs are tried with; a network answers the same way to larger ones
Example = Callable[[int, Sequence[int]], tuple[Tensor, ...]]


@dataclass(frozen=True)
class Network:
    """One of a model's networks, in float32 on the processor.

    module   from tensors to a tensor. inputs: what these are called.
    example  (batch, size) -> inputs of this size, random ones; where it is fixed, the size is not looked at.
    free     which axes of each input may have any length. size: of images as in training.
    multiple of which sides have to be one.
    unit     of the results in words, and how many of them a network value of 1 is; None: the range is what comes out.
    """

    module: nn.Module
    inputs: tuple[str, ...]
    example: Example
    free: tuple[tuple[int, ...], ...]
    size: tuple[int, ...]
    unit: str
    half: float | None
    multiple: int = 1


def networks(model: Model) -> dict[str, Network]:
    """The networks of a model by name: see `fabrica.runtime.folder.Exported.graphs`. UsageError for a model that works
    with what no graph can hold."""
    method: Method = plain(model.method)
    if isinstance(method, Translator):
        return {direction: _translating(model, method, direction) for direction in method.directions}
    if isinstance(method, Compressor):
        return compressing(model, cast(Any, method))
    from fabrica.export import drawing  # not above: it is made of what stands here

    return drawing.networks(model, method)


class Function(nn.Module):
    """A function of a method's, as a module whose weights the method's are."""

    def __init__(self, method: Method, function: Callable[..., Tensor]) -> None:
        super().__init__()
        self.method, self.function = method, function

    def forward(self, *inputs: Tensor) -> Tensor:
        return self.function(*inputs)


def _translating(model: Model, method: Translator, direction: str) -> Network:
    if getattr(method.config, "noise", 0):
        raise UsageError(f"{model.name} draws noise beside the image (method.noise), and cannot be exported")
    found, data = model.found, model.data
    source, target = (found.codec, found.codec_b) if direction == "a2b" else (found.codec_b, found.codec)
    beside = [codec.classes if codec.kind == "label" else data.channels for codec in found.codecs_auxiliary]
    channels = (source.classes if source.kind == "label" else data.channels) * (2 * data.context + 1) + sum(beside)
    return Network(
        Function(method, lambda images: method.translate(images, direction)),
        ("images",),
        lambda batch, size: (_images(batch, channels, size),),
        ((0, *range(2, 2 + len(data.size))),),
        tuple(data.size),
        *unit(target),
    )


def compressing(model: Model, method: Any, beyond: bool = False) -> dict[str, Network]:
    """Latents on their scale, as of `Compressor.encode`, and images whose middle is that of `decode`; beyond: of
    `decoded`."""
    encoder, dims = method.encoder, len(model.data.size)
    mean, std = (values.view(-1, *[1] * dims) for values in (encoder.mean, encoder.std))
    free, size = ((0, *range(2, 2 + dims)),), tuple(model.data.size)
    channels, latents, noise = method.shape[0], method.latent_shape[0], method.noise_shape[:1]

    def smaller(batch: int, size: Sequence[int]) -> tuple[Tensor, ...]:
        generator, sides = rng(), [-(-side // method.factor) for side in size]
        return tuple(torch.randn(batch, each, *sides, generator=generator) for each in (latents, *noise))

    def decoded(found: Tensor, *noise: Tensor) -> Tensor:
        images: Tensor = method.completed(method.decoder(found * std + mean), *noise)
        return images if beyond else images.clamp(-1, 1)

    return {
        "encoder": Network(
            Function(method, lambda images: (encoder(images).chunk(2, dim=1)[0] - mean) / std),
            ("images",),
            lambda batch, size: (_images(batch, channels, size),),
            free,
            size,
            "latents of SD 1",
            None,
        ),
        "decoder": Network(
            Function(method, decoded),
            ("latents", "noise")[: 1 + len(noise)],
            smaller,
            free * (1 + len(noise)),
            size,
            *unit(model.found.codec),
        ),
    }


def traced_with(network: Network) -> tuple[Tensor, ...]:
    """Inputs that a graph is made from: of odd sides, none like another or like one that a stride divides, and two of a
    batch. From sides that fit, what is done for others would be lost."""
    sides = [2 * (side // 2) + 5 + 2 * k for k, side in enumerate(_small(network))]
    return network.example(2, [side * network.multiple for side in sides])


def sizes(network: Network) -> list[tuple[int, tuple[int, ...]]]:
    """(batch, size) that a graph is tried with: as in training, and what it was not made from."""
    small = _small(network)
    tried = [
        (1, small),
        (3, tuple(side + 1 for side in small)),
        (1, tuple(side + 3 + 4 * k for k, side in enumerate(small))),
        (2, tuple(max(side - 3 - k, side // 2 + 1) for k, side in enumerate(small))),
    ]
    return [(batch, tuple(side * network.multiple for side in size)) for batch, size in tried]


def _small(network: Network) -> tuple[int, ...]:
    """Sides as in training, or less, in multiples."""
    size, largest = network.size, LARGEST[len(network.size)]
    return tuple(max(1, min(side, largest) // network.multiple) for side in size)


def unit(codec: CodecConfig) -> tuple[str, float]:
    if codec.kind == "label":
        return "probability", 0.5
    low, high = codec_of(codec).span
    return codec.unit, (high - low) / 2


def rng() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def _images(batch: int, channels: int, size: Sequence[int]) -> Tensor:
    """Random images in [-1, 1] with structure at every scale."""
    generator, total = rng(), torch.zeros(batch, channels, *size)
    for coarser in (1, 4, 16):
        coarse = torch.randn(batch, channels, *(-(-side // coarser) for side in size), generator=generator)
        total = total + interpolate(coarse, list(size), mode="nearest") * np.sqrt(coarser) / 8
    return total.clamp(-1, 1)
