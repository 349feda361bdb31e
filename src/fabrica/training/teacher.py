"""The trained diffusion model that a student learns from: opened, checked against the recipe, and asked."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from fabrica import bundle
from fabrica.errors import UsageError
from fabrica.methods import Conditions, Denoise, Denoiser, Teacher, named
from fabrica.model.loading import load
from fabrica.model.model import Model
from fabrica.nets.device import autocast, default_device
from fabrica.recipe.folder import AUTOENCODER, TEXT_ENCODER, WEIGHTS
from fabrica.recipe.found import Found
from fabrica.recipe.schema import CodecConfig, Recipe, TextConfig

INSIDE = {
    "autoencoder": AUTOENCODER,
    "text": TEXT_ENCODER,
}  # what a recipe uses -> where its copy is in a model's folder
SAME = ("size", "channels", "fit", "condition", "classes", "categories")


def open_teacher(recipe: Recipe, found: Found) -> tuple[Model, Found]:
    """The model that a recipe names by uses.teacher. Found is then what a student has of its teacher:
    codecs, text, uses.autoencoder and .text, and method.student, .guidance, .rescale, .spacing and .clip.

    Call it when classes and categories are found. Raises UsageError where no student can learn from it,
    and where the two do not see the same images.
    """
    cls = named(recipe.method)
    if not cls.learner:
        name = recipe.method["name"]
        raise UsageError(f"{name} learns from no teacher; leave uses.teacher out, or take method.name=distill")
    where = Path(recipe.uses["teacher"])
    if bundle.found(where):
        raise UsageError(
            f"uses.teacher: {where} is a MONAI bundle, from which no student learns; train a teacher of your own, e.g. "
            "fabrica train ddpm-xray"
        )
    model = load(where, device=default_device())
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
    ours = found.data(recipe.data)
    for key in SAME:
        own, expected = getattr(ours, key), getattr(model.data, key)
        if own != expected:
            raise UsageError(
                f"data.{key} is {own or 'empty'}, and the teacher in {where} was trained with {expected or 'none'}: "
                "set the same, or train another teacher"
            )
    for key, empty in (("codec", CodecConfig()), ("text", TextConfig())):
        if getattr(found, key) not in (empty, getattr(model.found, key)):
            raise UsageError(f"{key} is not that of the teacher in {where}; leave it out: the teacher's is taken")
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
