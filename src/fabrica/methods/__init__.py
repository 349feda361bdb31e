"""The methods: one file per algorithm. A method is an nn.Module with

Config    a dataclass of its own recipe values (the recipe's `method:` section, less `name`)
ships     the names of the networks that are averaged, saved and used afterwards
players   player -> the names of the networks that its optimiser owns
keep      what tells the best weights, unless the recipe chooses: "loss" (of `validation`), "frd" or "kid"; nothing
          does: "last"
turns     (batch, rng) -> iterator of Turn: the control flow of the paper; the loop does the rest

One that synthesises sees batch["image"], and what the recipe has it told of each image: batch["label"], batch["text"],
batch["mask"] ... (see `fabrica.conditioning.encoder`). It has

choices   which of the recipe's `sample:` values mean something to it
sample    (draw, told, settings, device) -> images, made of the noise that is drawn, of which something is told or {}

One that translates sees batch["a"] and batch["b"]. It has

directions  "a2b", and "b2a" where it ships both ways
pairs       whether it learns from pairs
translate   (images of one side, direction) -> images of the other, [-1, 1] in and out

One that compresses sees batch["image"]. It has

latent_shape  (L, *s) of the latents of an image of the recipe's size
encode      images -> latents, of mean 0 and standard deviation 1 a channel over training images
decode      (latents, size of the images) -> images
measure     told training images, it sets that scale: before its weights are kept

Optional:

validation   (batch, rng) -> per-image losses on held-out images; lower is better
least_batch  the fewest images a step and process; 1 without it
files        which of its values name files that training needs, and what is trained does not
step         how many steps have been made, set by the loop: for what begins later
shows        the keys of what its turns have seen, but a critic's accuracy: columns of the log
needs        what else it wants in a batch: "body", bool (B, 1, *S), where the patient is in b
multimodal   whether it sees contrasts beside a, the last channels of batch["a"], each with b's; it is built with
             `beside`, their number
conditional  whether it may be told more than a label; it is then built with `told`, condition -> what it is
edits        whether `sample` also takes `begin`, images to start from (`fabrica.diffusion.Begin`)
latent       whether it may work on latents; it is then built with `space`, a Compressor, sees latents as
             batch["image"], and samples images
learner      whether it learns from a teacher; it is then built with `student`, a fresh network like the teacher's,
             and, to be trained, with `teacher`
paces        the numbers of steps that it samples in, where it cannot do so in any
mends        whether what it makes of a is a itself, made better
reach        set by `build`: the largest network value of its results, more than 1 where b's codec does not clip
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from importlib import import_module
from typing import Any, ClassVar, NamedTuple, Protocol, cast, runtime_checkable

import numpy as np
import torch
from torch import Tensor, nn

from fabrica.codec import REACH
from fabrica.conditioning.declare import declared
from fabrica.conditioning.encoder import Encoded
from fabrica.diffusion import Denoise, Predict, Schedule
from fabrica.errors import UsageError, unknown
from fabrica.methods.noise import Draw
from fabrica.nets.conditions import Condition
from fabrica.recipe.load import typed
from fabrica.recipe.schema import DataConfig, Recipe, SampleConfig

Conditions = Mapping[str, Tensor]
"""Condition -> its values (B, ...), one an image; see `fabrica.nets.conditions`."""

METHODS = {
    "diffusion": "fabrica.methods.diffusion:Diffusion",
    "distill": "fabrica.methods.distill:Distill",
    "mlp-gan": "fabrica.methods.mlp_gan:MLPGAN",
    "dcgan": "fabrica.methods.dcgan:DCGAN",
    "wgan-gp": "fabrica.methods.wgan_gp:WGANGP",
    "modern-gan": "fabrica.methods.modern_gan:ModernGAN",
    "cyclegan": "fabrica.methods.cyclegan:CycleGAN",
    "pix2pix": "fabrica.methods.pix2pix:Pix2Pix",
    "cut": "fabrica.methods.cut:CUT",
    "restore": "fabrica.methods.restore:Restore",
    "srgan": "fabrica.methods.srgan:SRGAN",
    "autoencoder": "fabrica.methods.autoencoder:Autoencoder",
}


class Turn(NamedTuple):
    """One player's move: the loss that its optimiser lowers, and what the log should show beside it."""

    player: str
    loss: Tensor
    seen: Mapping[str, float] = {}


class Method(Protocol):
    """What the training loop needs of a method."""

    Config: ClassVar[type]
    config: Any

    @property
    def ships(self) -> tuple[str, ...]: ...
    @property
    def keep(self) -> str: ...
    @property
    def players(self) -> Mapping[str, tuple[str, ...]]: ...
    def turns(self, batch: dict[str, Tensor], rng: torch.Generator) -> Iterator[Turn]: ...


@runtime_checkable
class Synthesiser(Method, Protocol):
    """A method that makes images of noise."""

    choices: ClassVar[tuple[str, ...]]

    def sample(self, draw: Draw, told: Conditions, settings: SampleConfig, device: torch.device) -> Tensor: ...


@runtime_checkable
class Translator(Method, Protocol):
    """A method that makes images of one side of images of the other."""

    directions: ClassVar[tuple[str, ...]]
    pairs: ClassVar[bool]

    def translate(self, images: Tensor, direction: str) -> Tensor: ...


@runtime_checkable
class Compressor(Method, Protocol):
    """A method that makes latents of images, and images of latents."""

    @property
    def latent_shape(self) -> tuple[int, ...]: ...
    def encode(self, images: Tensor) -> Tensor: ...
    def decode(self, latents: Tensor, size: Sequence[int] = ()) -> Tensor: ...
    def measure(self, images: Iterable[Tensor]) -> None: ...


@runtime_checkable
class Validated(Method, Protocol):
    """A method whose loss on held-out images says how good its weights are."""

    def validation(self, batch: dict[str, Tensor], rng: torch.Generator) -> Tensor: ...


@runtime_checkable
class Denoising(Method, Protocol):
    """A method that makes images by estimating x_0 step by step, from which a student can learn."""

    shape: tuple[int, ...]
    schedule: Schedule
    space: Compressor | None
    declared: Mapping[str, Condition]

    def denoising(self, told: Conditions, settings: SampleConfig, count: int, device: torch.device) -> Denoise: ...
    def predicting(self, told: Conditions, count: int, device: torch.device) -> Predict: ...


@dataclass(frozen=True)
class Teacher:
    """The weights of a trained model, and its estimates of x_0: ask(told, count, device), guided and in its own
    precision."""

    weights: Mapping[str, Tensor]
    ask: Callable[[Conditions, int, torch.device], Denoise]


def as_conditions(encoded: Encoded, part: slice = slice(None)) -> Conditions:
    """What a `ConditionEncoder` gives, of these images, as methods take it."""
    return {name: torch.from_numpy(np.array(values[part])) for name, values in encoded.items()}


def build(recipe: Recipe, space: Compressor | None = None, teacher: Teacher | None = None) -> Method:
    """The recipe's method with fresh weights; fills recipe.method with every value, defaults included.

    space, teacher   what recipe.uses names: the trained autoencoder on whose latents the method works, and the model
                     that it learns from, where it is to be trained.

    Raises UsageError for an unknown method or key, values that the method cannot take, and data that do not say what
    the method learns from.
    """
    cls, values = named(recipe), dict(recipe.method)
    name = values.pop("name")
    config = typed(cls.Config, values, "method.")
    data = recipe.data
    _check_uses(recipe, str(name), cls, config)
    if hasattr(cls, "translate"):
        _check_sides(str(name), cls, data)
        beside = {"beside": len(data.beside)} if data.beside else {}
        method = cls(config, side_shape(recipe, "a"), side_shape(recipe, "b"), **beside)
        if hasattr(method, "reach"):
            method.reach = REACH if recipe.codec_b.clip is False else 1.0
    elif data.a or data.b:
        task = "makes images of noise" if hasattr(cls, "sample") else "sees images of one kind"
        raise UsageError(f"{name} {task}; leave data.a and data.b empty, or take e.g. method.name=cut")
    else:
        classes, told = len(data.classes) if data.condition == ["label"] else 0, declared(recipe)
        if told and not getattr(cls, "conditional", False):
            raise UsageError(
                f"{name} cannot be told {', '.join(told)}; set data.condition=label, or take method.name=diffusion"
            )
        more: dict[str, Any] = {key: value for key, value in (("told", told), ("space", space)) if value}
        if getattr(cls, "learner", False):
            uses = {name: folder for name, folder in recipe.uses.items() if name != "teacher"}
            student = build(replace(recipe, method=config.student, uses=uses), space)
            more |= {"student": student, "teacher": teacher}
        method = cls(config, (data.channels, *data.size), classes, **more)
    recipe.method = {"name": name, **asdict(config)}
    return cast(Method, method)


def named(recipe: Recipe) -> Any:
    """The class of the recipe's method; UsageError for an unknown one."""
    name = recipe.method["name"]
    if name not in METHODS:
        raise unknown("method", str(name), METHODS)
    module, _, cls_name = METHODS[name].partition(":")
    return getattr(import_module(module), cls_name)


def check_pace(method: Method, steps: int, asked: str = "asked for {steps} steps") -> None:
    """UsageError for a number of steps that a method does not sample in; asked: how they were."""
    paces = getattr(method, "paces", (steps,))
    if steps not in paces:
        *most, last = sorted(paces)
        known = f"{', '.join(map(str, most))} or {last}" if most else last
        raise UsageError(f"{asked.format(steps=steps)}; this model takes {known}")


def side_shape(recipe: Recipe, side: str) -> tuple[int, ...]:
    """(C, *S) of what a translator's network sees of side "a" itself, or "b"."""
    data, codec = recipe.data, recipe.codec if side == "a" else recipe.codec_b
    channels = codec.classes if codec.kind == "label" else data.channels
    size = [data.crop] * len(data.size) if data.crop else data.size
    return (channels * (2 * data.context + 1) if side == "a" else channels, *size)


def _check_uses(recipe: Recipe, name: str, cls: type, config: Any) -> None:
    if "autoencoder" in recipe.uses and not getattr(cls, "latent", False):
        raise UsageError(f"{name} works on pixels, not on latents; leave `uses` out, or take method.name=diffusion")
    if "autoencoder" in recipe.uses and recipe.train.keep in ("frd", "kid"):
        raise UsageError(f"train.keep is {recipe.train.keep}, which compares images; with uses.autoencoder take loss")
    if getattr(cls, "learner", False) and not config.student:
        raise UsageError(
            f"{name} learns from a trained diffusion model, and none is named; set uses.teacher to its folder"
        )


def _check_sides(name: str, cls: type[Translator], data: DataConfig) -> None:
    if not (data.a and data.b) or data.a == data.b:
        raise UsageError(
            f"{name} translates; say from what to what by data.a and data.b, e.g. data.a=T1 data.b=CT "
            f"(domains of the manifest, or image and mask); found {data.a!r} and {data.b!r}"
        )
    if cls.pairs and not data.paired:
        raise UsageError(f"{name} learns from pairs; set data.paired=true, or take method.name=cut or cyclegan")
    if data.context and "b2a" in cls.directions:
        raise UsageError(f"{name} goes both ways, and data.context is for one; take method.name=pix2pix")
    if data.beside and not getattr(cls, "multimodal", False):
        raise UsageError(f"{name} sees one contrast; leave data.beside empty, or take method.name=restore")
    if data.condition:
        raise UsageError(f"{name} takes no labels; set data.condition=''")


def networks(method: Method, names: Sequence[str]) -> list[nn.Module]:
    """The method's networks with these names, "student.denoiser" for one within another."""
    return [cast(nn.Module, method).get_submodule(name) for name in names]
