"""The methods: one file per algorithm. Each is a class of its paper's losses and networks, with a dataclass `Config` of
its own recipe values (the recipe's `method:` section, less `name`), and is of one task: it synthesises, translates or
compresses. What the training loop and everything behind it may ask of one stands in the classes here; the control flow
of the paper is its `turns`, the loop does the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from fabrica.codec import REACH
from fabrica.conditioning.encoder import Encoded
from fabrica.diffusion import Schedule
from fabrica.errors import UsageError, unknown
from fabrica.methods.noise import Draw
from fabrica.recipe.conditions import Condition, declared
from fabrica.recipe.found import Found
from fabrica.recipe.load import typed
from fabrica.recipe.schema import DataConfig, Recipe, SampleConfig

Conditions = Mapping[str, Tensor]
"""Condition -> its values (B, ...), one an image; see `fabrica.nets.conditions`."""

Predict = Callable[[Tensor, Tensor], Tensor]
"""(x_t (B, C, *S), t (B,)) -> what a network predicts (B, C, *S)."""
Denoise = Callable[[Tensor, float], Tensor]
"""(x_t (B, C, *S), t) -> the estimate of x_0 (B, C, *S)."""

METHODS: dict[str, str | type[Method]] = {
    "diffusion": "fabrica.methods.diffusion:Diffusion",
    "distill": "fabrica.methods.distill:Distill",
    "mlp-gan": "fabrica.methods.mlp_gan:MLPGAN",
    "dcgan": "fabrica.methods.dcgan:DCGAN",
    "wgan-gp": "fabrica.methods.wgan_gp:WGANGP",
    "modern-gan": "fabrica.methods.modern_gan:ModernGAN",
    "drifting": "fabrica.methods.drifting:Drifting",
    "cyclegan": "fabrica.methods.cyclegan:CycleGAN",
    "pix2pix": "fabrica.methods.pix2pix:Pix2Pix",
    "cut": "fabrica.methods.cut:CUT",
    "restore": "fabrica.methods.restore:Restore",
    "srgan": "fabrica.methods.srgan:SRGAN",
    "segment": "fabrica.methods.segment:Segment",
    "autoencoder": "fabrica.methods.autoencoder:Autoencoder",
}


class Turn(NamedTuple):
    """One player's move: the loss that its optimiser lowers, and what the log should show beside it."""

    player: str
    loss: Tensor
    metrics: Mapping[str, float] = {}


class Method(nn.Module):
    """What the training loop needs of a method.

    ships        the names of the networks that are averaged, saved and used afterwards
    players      player -> the names of the networks that its optimiser owns
    keep         what tells the best weights, unless the recipe chooses: "loss" (of `validation`), "frd" or "kid";
                 nothing does: "last"
    logged       the keys of `Turn.metrics`, but a critic's accuracy: columns of the log
    files        which of its values name files that training needs, and what is trained does not
    least_batch  the fewest images a step and process
    step         how many steps have been made, set by the loop: for what begins later
    validated    whether it has a loss on held-out images, `validation`
    latent       whether it may work on latents; it is then built with `space`, a Compressor, sees latents as
                 batch["image"], and samples images
    learner      whether it learns from a teacher; it is then built with `student`, a fresh network like the
                 teacher's, and, to be trained, with `teacher`
    paces        the numbers of steps that it samples in; (): in any, or in none
    directions   of one that translates: "a2b", and "b2a" where it ships both ways
    mends        whether what it makes of a is a itself, made better
    needs        what else it wants in a batch: "body", bool (B, 1, *S), where the patient is in b
    plans        whether it learns from patches, by a plan of `fabrica.data.planning`
    """

    Config: ClassVar[type[Any]]
    task: ClassVar[str]
    ships: tuple[str, ...]
    players: Mapping[str, tuple[str, ...]]
    keep: str
    logged: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    least_batch: int = 1
    step: int = 0
    validated: bool = False
    latent: bool = False
    learner: bool = False
    paces: tuple[int, ...] = ()
    directions: tuple[str, ...] = ()
    mends: bool = False
    needs: tuple[str, ...] = ()
    plans: bool = False
    config: Any

    @classmethod
    def check(cls, recipe: Recipe, found: Found) -> None:
        """UsageError for data that do not say what the method learns from."""
        raise NotImplementedError

    @classmethod
    def built(
        cls, config: Any, recipe: Recipe, found: Found, space: Compressor | None, teacher: Teacher | None
    ) -> Method:
        """With fresh weights: see `build`."""
        raise NotImplementedError

    def turns(self, batch: dict[str, Tensor], rng: torch.Generator) -> Iterator[Turn]:
        """One step: each player's move in turn."""
        raise NotImplementedError

    def validation(self, batch: dict[str, Tensor], rng: torch.Generator) -> Tensor:
        """(B,): the loss on held-out images, that says how good the weights are; lower is better."""
        raise NotImplementedError


class Synthesiser(Method):
    """A method that makes images of noise. It sees batch["image"], and what the recipe has it told of each image:
    batch["label"], batch["text"], batch["mask"] ... (see `fabrica.conditioning`).

    choices      which of the recipe's `sample:` values mean something to it
    conditional  whether it may be told more than a label; it is then built with `conditions`, condition -> what it is
    edits        whether `sample` also takes `begin`, images to start from (`fabrica.diffusion.Begin`)
    """

    task = "synthesis"
    choices: tuple[str, ...]
    conditional: bool = False
    edits: bool = False

    @classmethod
    def check(cls, recipe: Recipe, found: Found) -> None:
        _refuse_sides(recipe, found, "makes images of noise")
        if not cls.conditional:
            _refuse_conditions(recipe, found)

    @classmethod
    def built(
        cls, config: Any, recipe: Recipe, found: Found, space: Compressor | None, teacher: Teacher | None
    ) -> Method:
        data, conditions = recipe.data, declared(recipe, found)
        more: dict[str, Any] = {key: value for key, value in (("conditions", conditions), ("space", space)) if value}
        if cls.learner:
            uses = {name: folder for name, folder in found.uses.items() if name != "teacher"}
            student = build(recipe, replace(found, method=config.student, uses=uses), space)
            more |= {"student": student, "teacher": teacher}
        classes = len(found.classes) if data.condition == ["label"] else 0
        return cls(config, (data.channels, *data.size), classes, **more)

    def sample(self, draw: Draw, conditions: Conditions, settings: SampleConfig, device: torch.device) -> Tensor:
        """Images (B, C, *S) of [-1, 1], made of the noise that is drawn, of which something is told or {}. What is made
        of latents may lie beyond: grey levels are held before it is cut off, see `fabrica.data.levels`."""
        raise NotImplementedError


class Translator(Method):
    """A method that makes images of one side of images of the other. It sees batch["a"] and batch["b"].

    pairs        whether it learns from pairs
    multimodal   whether it sees contrasts beside a, the last channels of batch["a"], each with b's; it is built with
                 `auxiliary`, their number
    local        whether it answers alike wherever a window lies, so that large slices may go through it whole
    reach        the largest network value of its results, set by `build`: more than 1 where b's codec does not clip and
                 the method `reaches` beyond it
    """

    task = "translation"
    pairs: bool
    multimodal: bool = False
    local: bool = False
    reaches: bool = False
    reach: float = 1.0

    @classmethod
    def check(cls, recipe: Recipe, found: Found) -> None:
        _check_sides(str(found.method["name"]), cls, recipe.data)

    @classmethod
    def built(
        cls, config: Any, recipe: Recipe, found: Found, space: Compressor | None, teacher: Teacher | None
    ) -> Method:
        data = found.data(recipe.data)
        auxiliary = {"auxiliary": len(data.auxiliary)} if data.auxiliary else {}
        method = cls(config, side_shape(data, found, "a"), side_shape(data, found, "b"), **auxiliary)
        method.reach = REACH if cls.reaches and found.codec_b.clip is False else 1.0
        return method

    def translate(self, images: Tensor, direction: str) -> Tensor:
        """Images (B, C, *S) of one side as the other, [-1, 1] in and out."""
        raise NotImplementedError


class Compressor(Method):
    """A method that makes latents of images, and images of latents. It sees batch["image"]."""

    task = "compression"

    @classmethod
    def check(cls, recipe: Recipe, found: Found) -> None:
        _refuse_sides(recipe, found, "sees images of one kind")
        _refuse_conditions(recipe, found)

    @classmethod
    def built(
        cls, config: Any, recipe: Recipe, found: Found, space: Compressor | None, teacher: Teacher | None
    ) -> Method:
        data = recipe.data
        return cls(config, (data.channels, *data.size), len(found.classes) if data.condition == ["label"] else 0)

    @property
    def latent_shape(self) -> tuple[int, ...]:
        """(L, *s) of the latents of an image of the recipe's size."""
        raise NotImplementedError

    def encode(self, images: Tensor) -> Tensor:
        """Latents, of mean 0 and standard deviation 1 a channel over training images."""
        raise NotImplementedError

    @property
    def noise_shape(self) -> tuple[int, ...]:
        """Of the noise of an image of the recipe's size that `decode` takes for what latents do not hold; () where it
        takes none."""
        return ()

    def decode(self, latents: Tensor, size: Sequence[int] = (), noise: Tensor | None = None) -> Tensor:
        """Images (B, C, *size) in [-1, 1] of latents; size (): that of the training images. noise: see `noise_shape`;
        None: what is certain alone."""
        return self.decoded(latents, size, noise).clamp(-1, 1)

    def decoded(self, latents: Tensor, size: Sequence[int] = (), noise: Tensor | None = None) -> Tensor:
        """The same where it lies beyond [-1, 1], too."""
        raise NotImplementedError

    def drawn(self, latents: Tensor, draw: Draw) -> Tensor:
        """Images (B, C, *S) of the recipe's size, what latents do not hold drawn with the rest; as `decoded`."""
        noise = draw(self.noise_shape).to(latents.device) if self.noise_shape else None
        return self.decoded(latents, noise=noise)

    def measure(self, images: Iterable[Tensor]) -> None:
        """Told training images, it sets the scale of the latents: before its weights are kept."""
        raise NotImplementedError


class Denoiser(Synthesiser):
    """A method that makes images by estimating x_0 step by step, from which a student can learn."""

    shape: tuple[int, ...]
    schedule: Schedule
    space: Compressor | None
    declared: Mapping[str, Condition]

    def denoising(self, conditions: Conditions, settings: SampleConfig, count: int, device: torch.device) -> Denoise:
        raise NotImplementedError

    def predicting(self, conditions: Conditions, count: int, device: torch.device) -> Predict:
        raise NotImplementedError


@dataclass(frozen=True)
class Teacher:
    """The weights of a trained model, and its estimates of x_0: ask(told, count, device), guided and in its own
    precision."""

    weights: Mapping[str, Tensor]
    ask: Callable[[Conditions, int, torch.device], Denoise]


def as_conditions(encoded: Encoded, part: slice = slice(None)) -> Conditions:
    """What a `ConditionEncoder` gives, of these images, as methods take it."""
    return {name: torch.from_numpy(np.array(values[part])) for name, values in encoded.items()}


def build(
    recipe: Recipe, found: Found | None = None, space: Compressor | None = None, teacher: Teacher | None = None
) -> Method:
    """The recipe's method with fresh weights.

    found            what is decided of classes, codecs and method; None: what the recipe says.
    space, teacher   what recipe.uses names: the trained autoencoder on whose latents the method works, and the model
                     that it learns from, where it is to be trained.

    Raises UsageError for an unknown method or key, values that the method cannot take, and data that do not say what
    the method learns from.
    """
    found = found or Found.asked(recipe)
    cls, config = checked(recipe, found)
    return cls.built(config, recipe, found, space, teacher)


def checked(recipe: Recipe, found: Found) -> tuple[type[Method], Any]:
    """The method's class and its own values; UsageError for what can be refused before any image is looked at."""
    cls, values = named(found.method), dict(found.method)
    name = str(values.pop("name"))
    config = typed(cls.Config, values, "method.")
    _check_uses(recipe, found, name, cls, config)
    cls.check(recipe, found)
    return cls, config


def _refuse_sides(recipe: Recipe, found: Found, what: str) -> None:
    if recipe.data.a or recipe.data.b:
        name = found.method["name"]
        raise UsageError(f"{name} {what}; leave data.a and data.b empty, or take e.g. method.name=cut")


def _refuse_conditions(recipe: Recipe, found: Found) -> None:
    if told := ", ".join(declared(recipe, found)):
        name = found.method["name"]
        raise UsageError(f"{name} cannot be told {told}; set data.condition=label, or take method.name=diffusion")


def named(method: Mapping[str, Any]) -> type[Method]:
    """The class of a recipe's `method:` section; UsageError for an unknown one."""
    name = method["name"]
    if name not in METHODS:
        hint = "(one of your own: put its class into fabrica.methods.METHODS first)"
        raise UsageError(f"{unknown('method', str(name), METHODS)} {hint}")
    where = METHODS[name]
    if isinstance(where, type):
        return where
    module, _, cls_name = where.partition(":")
    cls: type[Method] = getattr(import_module(module), cls_name)
    return cls


def side_shape(data: DataConfig, found: Found, side: str) -> tuple[int, ...]:
    """(C, *S) of what a translator's network sees of side "a" itself, or "b"."""
    codec = found.codec if side == "a" else found.codec_b
    channels = codec.classes if codec.kind == "label" else data.channels
    size = [data.crop] * len(data.size) if data.crop else data.size
    return (channels * (2 * data.context + 1) if side == "a" else channels, *size)


def _check_uses(recipe: Recipe, found: Found, name: str, cls: type[Method], config: Any) -> None:
    if "autoencoder" in found.uses and not cls.latent:
        raise UsageError(f"{name} works on pixels, not on latents; leave `uses` out, or take method.name=diffusion")
    if cls.learner and not config.student:
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
    if data.auxiliary and not cls.multimodal:
        raise UsageError(f"{name} sees one contrast; leave data.auxiliary empty, or take method.name=restore")
    if data.condition:
        raise UsageError(f"{name} takes no labels; set data.condition=''")


def networks(method: Method, names: Sequence[str]) -> list[nn.Module]:
    """The method's networks with these names, "student.denoiser" for one within another."""
    return [method.get_submodule(name) for name in names]
