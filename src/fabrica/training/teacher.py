"""The trained diffusion model that a student learns from: opened, checked against the recipe, and asked."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from fabrica import bundle
from fabrica.diffusion import Denoise
from fabrica.errors import UsageError
from fabrica.methods import Conditions, Denoising, Teacher, named
from fabrica.model.loading import load
from fabrica.model.model import Model
from fabrica.nets.device import autocast, default_device
from fabrica.recipe.folder import AUTOENCODER, READER, WEIGHTS
from fabrica.recipe.schema import CodecConfig, Recipe, TextConfig

INSIDE = {"autoencoder": AUTOENCODER, "text": READER}  # what a recipe uses -> where its copy is in a model's folder
SAME = ("size", "channels", "fit", "condition", "classes", "categories")


def open_teacher(recipe: Recipe) -> Model:
    """The model that a recipe names by uses.teacher. Fills in what a student has of its teacher: codecs, text,
    uses.autoencoder and .text, and method.student, .guidance, .rescale, .spacing and .clip.

    Call it when data.classes and data.categories are filled in. Raises UsageError where no student can learn from it,
    and where the two do not see the same images.
    """
    if not getattr(named(recipe), "learner", False):
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
    if not isinstance(method, Denoising):
        raise UsageError(
            f"uses.teacher: {where} holds {model.name} ({theirs.method['name']}), no diffusion model; train one, e.g. "
            "fabrica train ddpm-xray"
        )
    if method.config.objective == "epsilon":
        raise UsageError(
            f"uses.teacher: {model.name} predicts noise (method.objective=epsilon), of which a first long step makes "
            "no image; train a teacher with v or x0"
        )
    for key in SAME:
        found, expected = getattr(recipe.data, key), getattr(theirs.data, key)
        if found != expected:
            raise UsageError(
                f"data.{key} is {found or 'empty'}, and the teacher in {where} was trained with {expected or 'none'}: "
                "set the same, or train another teacher"
            )
    for key, empty in (("codec", CodecConfig()), ("text", TextConfig())):
        if getattr(recipe, key) not in (empty, getattr(theirs, key)):
            raise UsageError(f"{key} is not that of the teacher in {where}; leave it out: the teacher's is taken")
        setattr(recipe, key, getattr(theirs, key))
    recipe.codec_mask = theirs.codec_mask
    recipe.uses |= {name: str(where / home) for name, home in INSIDE.items() if name in theirs.uses}
    asked = {key: getattr(theirs.sample, key) for key in ("guidance", "rescale", "spacing", "clip")}
    chosen = {key: value for key, value in recipe.method.items() if value not in (None, "")}
    recipe.method = {**asked, **chosen, "student": {**theirs.method, "align": 0.0}}  # words it understands already
    return model


def taught(recipe: Recipe, model: Model) -> Teacher:
    """What a student of this recipe, as `open_teacher` has filled it in, learns from."""
    method = model.method
    assert isinstance(method, Denoising)  # see open_teacher
    own = {key: recipe.method[key] for key in ("guidance", "rescale")}
    settings = replace(model.recipe.sample, **own)

    def ask(told: Conditions, count: int, device: torch.device) -> Denoise:
        denoise = method.denoising(told, settings, count, device)

        def estimate(x_t: Tensor, t: float) -> Tensor:
            with torch.no_grad(), autocast(model.recipe.train.precision, device):
                return denoise(x_t, t)

        return estimate

    return Teacher(load_file(model.folder / WEIGHTS), ask)
