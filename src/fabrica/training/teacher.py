"""The trained model that a student learns from: opened, checked against the recipe, and asked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import cast

import torch
from safetensors.torch import load_file
from torch import Tensor

from fabrica import bundle
from fabrica.errors import UsageError
from fabrica.methods import Conditions, Denoise, Denoiser, Method, Teacher, Translator, named, side_shape
from fabrica.methods.knowledge import Lesson, check_ways
from fabrica.model.loading import load
from fabrica.model.model import Model
from fabrica.model.tasks import TASKS
from fabrica.model.translation import TranslationModel
from fabrica.nets.device import autocast, default_device
from fabrica.recipe.folder import AUTOENCODER, TEXT_ENCODER, WEIGHTS
from fabrica.recipe.found import Found
from fabrica.recipe.schema import CodecConfig, DataConfig, Recipe, TextConfig

INSIDE = {
    "autoencoder": AUTOENCODER,
    "text": TEXT_ENCODER,
}  # what a recipe uses -> where its copy is in a model's folder
SAME = ("size", "channels", "fit", "condition", "classes", "categories")
SAME_SIDES = ("a", "b", "channels", "context", "auxiliary")


def open_teacher(recipe: Recipe, found: Found) -> tuple[Model, Found]:
    """The model that a recipe names by uses.teacher. Found is then what a student has of its teacher: codecs, and of
    one that segments uses.plan, of a diffusion model text, uses.autoencoder and .text, and method.student, .guidance,
    .rescale, .spacing and .clip.

    Call it when classes and categories are found. Raises UsageError where no student can learn from it,
    and where the two do not see the same images.
    """
    cls = named(recipe.method)
    if not cls.learner and not issubclass(cls, Translator):
        name = recipe.method["name"]
        raise UsageError(f"{name} learns from no teacher; leave uses.teacher out, or take method.name=distill")
    where = Path(recipe.uses["teacher"])
    if bundle.found(where):
        raise UsageError(
            f"uses.teacher: {where} is a MONAI bundle, from which no student learns; train a teacher of your own, e.g. "
            "fabrica train ddpm-xray"
        )
    model = load(where, device=default_device())
    if issubclass(cls, Translator):
        return model, _of_translator(recipe, found, model, where)
    theirs, method = model.recipe, model.method
    if not isinstance(method, Denoiser):
        raise UsageError(
            f"uses.teacher: {where} holds {model.name} ({model.method_name}), no diffusion model; train one, e.g. "
            "fabrica train ddpm-xray"
        )
    if method.config.objective == "epsilon":
        raise UsageError(
            f"uses.teacher: {model.name} predicts noise (method.objective=epsilon), of which a first long step makes "
            "no image; train a teacher with v or x0"
        )
    _check_same(SAME, found.data(recipe.data), model, where)
    _check_taken({"codec": CodecConfig(), "text": TextConfig()}, found, model, where)
    uses = recipe.uses | {name: str(where / home) for name, home in INSIDE.items() if name in model.found.uses}
    asked = {key: getattr(theirs.sample, key) for key in ("guidance", "rescale", "spacing", "clip")}
    chosen = {key: value for key, value in recipe.method.items() if value not in (None, "")}
    method_values = {**asked, **chosen, "student": {**model.found.method, "align": 0.0}}  # words it understands already
    found = replace(
        found,
        method=method_values,
        uses=uses,
        codec=model.found.codec,
        codec_mask=model.found.codec_mask,
        text=model.found.text,
    )
    return model, found


def _of_translator(recipe: Recipe, found: Found, model: Model, where: Path) -> Found:
    """What a student that translates, restores or segments has of its teacher."""
    cls = named(recipe.method)
    if not isinstance(model, TranslationModel) or model.method.task != cls.task:
        name, does = recipe.method["name"], TASKS[cls.task].verb
        raise UsageError(
            f"uses.teacher: {where} holds {model.name} ({model.method_name}), and {name} {does}; train a teacher that "
            "does, or leave uses.teacher out"
        )
    check_ways(cast(type[Translator], cls), "the student")
    check_ways(type(model.method), "the teacher")
    plans = model.method.plans  # then contrasts are found in the data, and compared once they are
    _check_same(SAME_SIDES[2:4] if plans else SAME_SIDES, found.data(recipe.data), model, where)
    codecs = {"codec": CodecConfig(), **({} if plans else {"codec_b": CodecConfig()})}
    _check_taken(codecs, found, model, where)
    uses = {"plan": str(where), **recipe.uses} if plans else recipe.uses
    theirs = model.found
    found = replace(found, uses=uses, codec=theirs.codec, codecs_auxiliary=theirs.codecs_auxiliary)
    return found if plans else replace(found, codec_b=theirs.codec_b, scale=theirs.scale)


def lesson_of(recipe: Recipe, found: Found, method: Method, model: TranslationModel) -> Lesson:
    """What a student, found as by `open_teacher`, learns from one that translates."""
    data, plan = found.data(recipe.data), found.plan
    for key in ("contrasts", "numbers", "regions"):
        own, expected = getattr(plan, key), getattr(model.found.plan, key)
        if own != expected:
            raise UsageError(
                f"the plan's {key} are {own or 'none'}, and those of the teacher in {model.folder} "
                f"{expected or 'none'}; take its data, or train another teacher"
            )
    channels, *size = side_shape(data, found, "a")
    shape = (channels + data.channels * len(data.auxiliary), *size)
    student = cast(Translator, method)
    return Lesson(recipe.distill, student, model.method, shape, model.recipe.train.precision)


def _check_same(keys: Sequence[str], ours: DataConfig, model: Model, where: Path) -> None:
    for key in keys:
        own, expected = getattr(ours, key), getattr(model.data, key)
        if own != expected:
            raise UsageError(
                f"data.{key} is {own or 'empty'}, and the teacher in {where} was trained with {expected or 'none'}: "
                "set the same, or train another teacher"
            )


def _check_taken(empty: Mapping[str, object], found: Found, model: Model, where: Path) -> None:
    for key, nothing in empty.items():
        if getattr(found, key) not in (nothing, getattr(model.found, key)):
            raise UsageError(f"{key} is not that of the teacher in {where}; leave it out: the teacher's is taken")


def taught(found: Found, model: Model) -> Teacher:
    """What a student, found as by `open_teacher`, learns from."""
    method = model.method
    assert isinstance(method, Denoiser)  # see open_teacher
    own = {key: found.method[key] for key in ("guidance", "rescale")}
    settings = replace(model.recipe.sample, **own)

    def ask(conditions: Conditions, count: int, device: torch.device) -> Denoise:
        denoise = method.denoising(conditions, settings, count, device)

        def estimate(x_t: Tensor, t: float) -> Tensor:
            with torch.no_grad(), autocast(model.recipe.train.precision, device):
                return denoise(x_t, t)

        return estimate

    return Teacher(load_file(model.folder / WEIGHTS), ask)
