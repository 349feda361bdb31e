"""A model folder, opened."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from fabrica import bundle, runtime
from fabrica.conditioning.encoder import condition_encoder
from fabrica.conditioning.vocabulary import load_words
from fabrica.errors import FabricaError, UsageError
from fabrica.methods import build, networks
from fabrica.model.compression import CompressionModel
from fabrica.model.model import Model
from fabrica.model.tasks import task_of
from fabrica.nets.device import default_device
from fabrica.nets.fusing import fused
from fabrica.recipe.folder import AUTOENCODER, RECIPE, TEXT_ENCODER, WEIGHTS, WORDS
from fabrica.recipe.found import found_in
from fabrica.runtime import ready
from fabrica.text.frozen_encoder import open_frozen_encoder


def load(
    folder: str | Path, *, device: str | torch.device | None = None, warn: Callable[[str], None] | None = None
) -> Model:
    """The trained model in a folder written by `train`, or in a MONAI bundle, to be run by PyTorch. Executes nothing
    from the folder. `fabrica.model.opening.load` opens exported models, too.

    warn   called with one sentence on what a bundle does not say; None: `warnings.warn`.

    Raises UsageError if it is no model folder, FabricaError if weights and recipe do not fit.
    """
    folder = ready.place(folder)
    if bundle.found(folder):
        return _of_bundle(folder, torch.device(device) if device else default_device(), warn or warnings.warn)
    if runtime.found(folder):
        raise UsageError(
            f"{folder} is an exported model, to be applied, sampled, judged and served; this needs the model that it "
            "was made of"
        )
    for name in (RECIPE, WEIGHTS):
        if not (folder / name).is_file():
            raise UsageError(f"{folder} is not a model folder: it has no {name}")
    recipe, found = found_in(folder)
    chosen = torch.device(device) if device else default_device()
    space = load_autoencoder(folder / AUTOENCODER, chosen) if "autoencoder" in found.uses else None
    frozen = "text" in found.uses
    frozen_encoder = (
        open_frozen_encoder(folder / TEXT_ENCODER, found.text.context, chosen, found.text.width) if frozen else None
    )
    method = build(recipe, found, space.method if space else None)
    try:
        weights = load_file(folder / WEIGHTS)
        for name, network in zip(method.ships, networks(method, method.ships), strict=True):
            prefix = f"{name}."
            own = {key.removeprefix(prefix): w for key, w in weights.items() if key.startswith(prefix)}
            network.load_state_dict(own)
            fused(network)
    except (SafetensorError, RuntimeError, OSError) as error:
        reason = str(error).strip().splitlines()[0]
        raise FabricaError(f"{folder / WEIGHTS} does not fit its recipe or is damaged: {reason}") from error
    method.to(chosen).eval().requires_grad_(False)
    others = "".join(used.hash for used in (space, frozen_encoder) if used)
    digest = hashlib.sha256((folder / WEIGHTS).read_bytes() + others.encode()).hexdigest()[:12]
    learned = "text" in recipe.data.condition and not frozen_encoder
    vocabulary, seen = load_words(folder / WORDS) if learned else (None, frozenset[int]())
    encoder = condition_encoder(recipe, found, vocabulary, seen, frozen_encoder)
    return task_of(method).model(folder, recipe, found, method, chosen, digest, encoder)


def _of_bundle(folder: Path, device: torch.device, warn: Callable[[str], None]) -> Model:
    recipe, found, method, digest = bundle.opened(folder, warn)
    method.to(device).eval().requires_grad_(False)
    encoder = condition_encoder(recipe, found)
    return task_of(method).model(folder, recipe, found, method, device, digest, encoder)


def load_autoencoder(folder: str | Path, device: torch.device) -> CompressionModel:
    """The autoencoder in a folder; UsageError for another model."""
    model = load(folder, device=device)
    if not isinstance(model, CompressionModel):
        raise UsageError(
            f"uses.autoencoder: {folder} holds {model.name} ({model.method_name}), no autoencoder; train "
            "one, e.g. fabrica train autoencoder-chest"
        )
    return model
