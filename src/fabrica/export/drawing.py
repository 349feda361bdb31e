"""The networks of what makes images of noise: a GAN's generator; a denoiser, and what it needs beside it. What samplers
do with them is of no graph: see `fabrica.runtime.synthesis`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from fabrica.errors import UsageError
from fabrica.export.networks import Function, Network, compressing, rng, unit
from fabrica.export.plain import plain
from fabrica.methods import Method, Synthesiser
from fabrica.methods.diffusion import Diffusion
from fabrica.methods.distill import Distill
from fabrica.model.model import Model
from fabrica.recipe.conditions import Category, Mask, Number, Text, unknown
from fabrica.recipe.schema import SampleConfig
from fabrica.runtime.folder import Draws
from fabrica.text.tokenizer import FIRST, PAD


def networks(model: Model, method: Method) -> dict[str, Network]:
    """Those of a method that makes images of noise; UsageError for another, and for what no graph can hold."""
    if isinstance(method, Diffusion | Distill):
        return _denoising(model, diffusion_of(method))
    if isinstance(method, Synthesiser) and "steps" not in method.choices:
        return {"generator": _generating(model, method)}
    raise UsageError(
        f"{model.name} ({model.method_name}) draws in a way that no graph holds; what can be exported translates, "
        "restores, segments or compresses, is a GAN, or diffusion of this house"
    )


def diffusion_of(method: Diffusion | Distill) -> Diffusion:
    """What denoises: of a distilled model its student."""
    return cast(Diffusion, method.student) if isinstance(method, Distill) else method


def draws(model: Model) -> Draws:
    """How a model draws images of noise, beside its graphs; of one that draws none, nothing."""
    method: Method = model.method
    if not isinstance(method, Synthesiser):
        return Draws()
    if not isinstance(method, Diffusion | Distill):
        shape = _noise_shape(cast(Synthesiser, plain(method)), len(model.found.classes))
        return Draws(list(method.choices), shape=list(shape))
    inner = diffusion_of(method)
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
    """The denoiser, told what the other graphs make of words and NumPy of masks; on latents, the autoencoder too."""
    if "text" in model.found.uses:
        raise UsageError(
            f"{model.name} reads prompts by a frozen encoder of text that others have trained, which is not exported; "
            "train one that learns to read (without uses.text)"
        )
    dims, channels, patch = len(method.shape) - 1, method.shape[0], method.config.patch
    width, said = method.config.context_width, list(method.said)
    masked = "mask" in method.declared
    inputs = ["noisy", "times", *["labels"] * bool(method.classes), *["context"] * bool(said), *["mask"] * masked]
    lengths = [each.context if isinstance(each, Text) else 1 for each in method.said.values()]
    firsts = np.cumsum([0, *lengths])[:-1]  # places of the context at which each condition begins: its gist

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
        generator = rng()
        given = [
            torch.randn(batch, channels, *size, generator=generator),
            torch.linspace(1.0, 0.1, batch),
            *[torch.arange(batch) % (method.classes + 1) - 1] * bool(method.classes),
            *[torch.randn(batch, sum(lengths), width, generator=generator)] * bool(said),
        ]
        if masked:
            mask = cast(Mask, method.declared["mask"])
            shares = torch.rand(batch, mask.classes + 1, *(side // patch for side in size), generator=generator)
            given.append(shares / shares.sum(1, keepdim=True))
        return tuple(given)

    space = (0, *range(2, 2 + dims))
    free = {"noisy": space, "mask": space}
    found = {
        "denoiser": Network(
            Function(method, predicted),
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
        found |= compressing(model, cast(Any, method.space), beyond=True)
    return found


def _reading(model: Model, method: Diffusion) -> Network:
    """What is told of an image, to the context of the denoiser; what is not known, to its learned null."""
    nothing = unknown(method.said, 1)

    def read(*values: Tensor) -> Tensor:
        assert method.conditions is not None
        context: Tensor = method.conditions(dict(zip(method.said, values, strict=True)))[0]
        return context

    def example(batch: int, _: Sequence[int]) -> tuple[Tensor, ...]:
        generator, given = rng(), []
        for name, what in method.said.items():
            known = torch.arange(batch) % 3 != 1
            value: Tensor
            if isinstance(what, Text):
                value = torch.randint(FIRST, what.tokens, (batch, what.context), generator=generator)
                ends = torch.randint(2, what.context + 1, (batch, 1), generator=generator)
                value = torch.where(torch.arange(what.context) < ends, value, PAD)
                empty = torch.full((), PAD)
            elif isinstance(what, Number):
                value = torch.rand(batch, generator=generator) * (what.high - what.low) + what.low
                empty = torch.from_numpy(nothing[name])
            else:
                value = torch.arange(batch) % cast(Category, what).classes
                empty = torch.from_numpy(nothing[name])
            given.append(torch.where(known.view(-1, *[1] * (value.ndim - 1)), value, empty))
        return tuple(given)

    free = tuple((0,) for _ in method.said)
    size = tuple(model.data.size)
    return Network(Function(method, read), tuple(method.said), example, free, size, "context", None)


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


def _generating(model: Model, method: Synthesiser) -> Network:
    classes = len(model.found.classes) if model.data.condition == ["label"] else 0

    def generated(z: Tensor, *labels: Tensor) -> Tensor:
        conditions = {"label": labels[0]} if labels else {}
        return method.sample(lambda _: z, conditions, SampleConfig(truncation=0.0), torch.device("cpu"))

    shape = _noise_shape(method, classes)

    def example(batch: int, _: Sequence[int]) -> tuple[Tensor, ...]:
        z = torch.randn(batch, *shape, generator=rng())
        return (z, torch.arange(batch) % classes) if classes else (z,)

    inputs = ("z", "labels") if classes else ("z",)
    return Network(
        Function(method, generated),
        inputs,
        example,
        tuple((0,) for _ in inputs),
        tuple(model.data.size),
        *unit(model.found.codec),
    )
