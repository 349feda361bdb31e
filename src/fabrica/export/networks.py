"""The networks of a model as functions of tensors alone: what becomes a graph, and what it is tried with."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from fabrica.errors import UsageError
from fabrica.methods import Compressor, Method, Synthesiser, Translator
from fabrica.methods.diffusion import Diffusion
from fabrica.methods.distill import Distill
from fabrica.model.model import Model
from fabrica.nets.convolutions import TRANSPOSED, Doubling, added_up
from fabrica.recipe.codecs import codec_of
from fabrica.recipe.conditions import Category, Mask, Number, Text, unknown
from fabrica.recipe.schema import CodecConfig, SampleConfig
from fabrica.runtime.folder import Draws
from fabrica.text.tokenizer import FIRST, PAD

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
        return _compressing(model, cast(Any, method))
    if isinstance(method, Diffusion | Distill):
        return _denoising(model, method if isinstance(method, Diffusion) else cast(Diffusion, method.student))
    if isinstance(method, Synthesiser) and "steps" not in method.choices:
        return {"generator": _drawing(model, method)}
    raise UsageError(
        f"{model.name} ({model.method_name}) draws in a way that no graph holds; what can be exported translates, "
        "restores, segments or compresses, is a GAN, or diffusion of this house"
    )


def plain(method: Method) -> Method:
    """A copy in float32 on the processor, of operators that every runtime knows."""
    twin = copy.deepcopy(method).to("cpu", torch.float32).eval().requires_grad_(False)
    for parent in list(twin.modules()):
        for name, layer in parent.named_children():
            if isinstance(layer, Doubling):
                setattr(parent, name, _doubling(layer))
    return twin


def _doubling(layer: Doubling) -> nn.Module:
    """The transposed convolution that it is, its weights added up once."""
    weight = added_up(layer.convolution.weight).contiguous()
    channels, out_channels, *sides = weight.shape
    bias = layer.convolution.bias
    made: nn.Module = TRANSPOSED[len(sides)](
        channels, out_channels, tuple(sides), stride=2, padding=1, bias=bias is not None
    )
    made.load_state_dict({"weight": weight} | ({} if bias is None else {"bias": bias}))
    return made.requires_grad_(False)


class _Function(nn.Module):
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
        _Function(method, lambda images: method.translate(images, direction)),
        ("images",),
        lambda batch, size: (_images(batch, channels, size),),
        ((0, *range(2, 2 + len(data.size))),),
        tuple(data.size),
        *_unit(target),
    )


def _compressing(model: Model, method: Any) -> dict[str, Network]:
    """Latents on their scale, as of `Compressor.encode`, and images whose middle is that of `decode`."""
    encoder, dims = method.encoder, len(model.data.size)
    mean, std = (values.view(-1, *[1] * dims) for values in (encoder.mean, encoder.std))
    free, size = ((0, *range(2, 2 + dims)),), tuple(model.data.size)
    channels, latents = method.shape[0], method.latent_shape[0]

    def smaller(batch: int, size: Sequence[int]) -> tuple[Tensor, ...]:
        return (torch.randn(batch, latents, *(-(-side // method.factor) for side in size), generator=_rng()),)

    return {
        "encoder": Network(
            _Function(method, lambda images: (encoder(images).chunk(2, dim=1)[0] - mean) / std),
            ("images",),
            lambda batch, size: (_images(batch, channels, size),),
            free,
            size,
            "latents of SD 1",
            None,
        ),
        "decoder": Network(
            _Function(method, lambda found: method.decoder(found * std + mean).clamp(-1, 1)),
            ("latents",),
            smaller,
            free,
            size,
            *_unit(model.found.codec),
        ),
    }


def draws(model: Model) -> Draws:
    """How a model draws images of noise, beside its graphs; of one that draws none, nothing."""
    method: Method = model.method
    if not isinstance(method, Synthesiser):
        return Draws()
    if not isinstance(method, Diffusion | Distill):
        return Draws(
            list(method.choices), shape=list(_noise_shape(cast(Synthesiser, plain(method)), len(model.found.classes)))
        )
    inner = cast(Diffusion, method.student) if isinstance(method, Distill) else method
    finest = inner.shape[1:] if inner.space else model.data.size
    common = Draws(
        list(method.choices),
        method.edits,
        list(inner.shape),
        inner.config.objective,
        inner.schedule,
        places=[side // inner.config.patch for side in finest],
    )
    return replace(common, times=method.times, paces=list(method.paces)) if isinstance(method, Distill) else common


def _denoising(model: Model, method: Diffusion) -> dict[str, Network]:
    if "text" in model.found.uses:
        raise UsageError(
            f"{model.name} reads prompts by a frozen encoder of text that others have trained, which is not exported; "
            "train one that learns to read (without uses.text)"
        )
    dims, channels, patch = len(method.shape) - 1, method.shape[0], method.config.patch
    width, said = method.config.context_width, list(method.said)
    masked = "mask" in method.declared
    inputs = ["noisy", "times", *["labels"] * bool(method.classes), *["context"] * bool(said), *["mask"] * masked]
    places = sum(each.context if isinstance(each, Text) else 1 for each in method.said.values())
    firsts = np.cumsum([0] + [each.context if isinstance(each, Text) else 1 for each in method.said.values()])[:-1]

    def predicted(noisy: Tensor, times: Tensor, *told: Tensor) -> Tensor:
        given = dict(zip(inputs[2:], told, strict=True))
        shown: dict[str, Tensor] = {}
        if "labels" in given:
            shown["class_labels"] = torch.where(given["labels"] < 0, method.classes, given["labels"])
        if "context" in given:
            gist = torch.cat([given["context"][:, int(first)] for first in firsts], dim=1)
            shown |= {"context": given["context"], "class_labels": gist}
        if "mask" in given:
            shown["seg"] = given["mask"]
        return method.predicted(noisy, times, shown)

    def example(batch: int, size: Sequence[int]) -> tuple[Tensor, ...]:
        rng = _rng()
        given = [
            torch.randn(batch, channels, *size, generator=rng),
            torch.linspace(1.0, 0.1, batch),
            *[torch.arange(batch) % (method.classes + 1) - 1] * bool(method.classes),
            *[torch.randn(batch, places, width, generator=rng)] * bool(said),
        ]
        if masked:
            mask = cast(Mask, method.declared["mask"])
            shares = torch.rand(batch, mask.classes + 1, *(side // patch for side in size), generator=rng)
            given.append(shares / shares.sum(1, keepdim=True))
        return tuple(given)

    space = (0, *range(2, 2 + dims))
    free = {"noisy": space, "mask": space}
    found = {
        "denoiser": Network(
            _Function(method, predicted),
            tuple(inputs),
            example,
            tuple(free.get(name, (0,)) for name in inputs),
            tuple(method.shape[1:]),
            f"predicted {method.config.objective}",
            None,
            patch * 2 ** (len(method.config.channels) - 1),
        )
    }
    if said:
        found["conditions"] = _reading(model, method)
    if method.space:
        found |= _compressing(model, cast(Any, method.space))
    return found


def _reading(model: Model, method: Diffusion) -> Network:
    """What is told of an image, to the context of the denoiser; what is not known, to its learned null."""
    nothing = unknown(method.said, 1)

    def read(*values: Tensor) -> Tensor:
        assert method.conditions is not None
        context: Tensor = method.conditions(dict(zip(method.said, values, strict=True)))[0]
        return context

    def example(batch: int, _: Sequence[int]) -> tuple[Tensor, ...]:
        rng, given = _rng(), []
        for name, what in method.said.items():
            known = torch.arange(batch) % 3 != 1
            value: Tensor
            if isinstance(what, Text):
                value = torch.randint(FIRST, what.tokens, (batch, what.context), generator=rng)
                ends = torch.randint(2, what.context + 1, (batch, 1), generator=rng)
                value = torch.where(torch.arange(what.context) < ends, value, PAD)
                empty = torch.full((), PAD)
            elif isinstance(what, Number):
                value = torch.rand(batch, generator=rng) * (what.high - what.low) + what.low
                empty = torch.from_numpy(nothing[name])
            else:
                value = torch.arange(batch) % cast(Category, what).classes
                empty = torch.from_numpy(nothing[name])
            given.append(torch.where(known.view(-1, *[1] * (value.ndim - 1)), value, empty))
        return tuple(given)

    free = tuple((0,) for _ in method.said)
    size = tuple(model.data.size)
    return Network(_Function(method, read), tuple(method.said), example, free, size, "context", None)


def _noise_shape(method: Synthesiser, classes: int) -> Sequence[int]:
    """What a GAN asks of noise for one image."""
    asked: list[Sequence[int]] = []

    def noted(shape: Sequence[int]) -> Tensor:
        asked.append(shape)
        return torch.zeros(2, *shape)

    nothing = {"label": torch.zeros(2, dtype=torch.int64)} if classes else {}
    with torch.inference_mode():
        method.sample(noted, nothing, SampleConfig(truncation=0.0), torch.device("cpu"))
    (shape,) = asked
    return shape


def _drawing(model: Model, method: Synthesiser) -> Network:
    classes = len(model.found.classes) if model.data.condition == ["label"] else 0

    def generated(z: Tensor, *labels: Tensor) -> Tensor:
        conditions = {"label": labels[0]} if labels else {}
        return method.sample(lambda _: z, conditions, SampleConfig(truncation=0.0), torch.device("cpu"))

    shape = _noise_shape(method, classes)

    def example(batch: int, _: Sequence[int]) -> tuple[Tensor, ...]:
        z = torch.randn(batch, *shape, generator=_rng())
        return (z, torch.arange(batch) % classes) if classes else (z,)

    inputs = ("z", "labels") if classes else ("z",)
    return Network(
        _Function(method, generated),
        inputs,
        example,
        tuple((0,) for _ in inputs),
        tuple(model.data.size),
        *_unit(model.found.codec),
    )


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


def _unit(codec: CodecConfig) -> tuple[str, float]:
    if codec.kind == "label":
        return "probability", 0.5
    low, high = codec_of(codec).span
    return codec.unit, (high - low) / 2


def _rng() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def _images(batch: int, channels: int, size: Sequence[int]) -> Tensor:
    """Random images in [-1, 1] with structure at every scale."""
    rng, total = _rng(), torch.zeros(batch, channels, *size)
    for coarser in (1, 4, 16):
        coarse = torch.randn(batch, channels, *(-(-side // coarser) for side in size), generator=rng)
        total = total + interpolate(coarse, list(size), mode="nearest") * np.sqrt(coarser) / 8
    return total.clamp(-1, 1)
