"""The model folder: weights.safetensors, recipe.yaml, found.yaml, README.md (model card). Nothing in it is code."""

from __future__ import annotations

from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import save

from fabrica import __version__
from fabrica.errors import FabricaError
from fabrica.io.atomic import atomic
from fabrica.methods import Method, networks
from fabrica.model.tasks import task_of
from fabrica.recipe.card import card
from fabrica.recipe.folder import CARD, FOUND, RECIPE, WEIGHTS
from fabrica.recipe.found import Found
from fabrica.recipe.schema import Recipe


def save_model(folder: Path, method: Method, recipe: Recipe, found: Found, *, kept: str) -> None:
    """Write the method's shipped networks, recipe, what was found and the model card; each file atomically.

    kept   which weights these are, for the card: "average at step 500, held-out loss 0.0312".
    """
    weights = {
        f"{name}.{key}": value.detach().cpu().contiguous()
        for name, network in zip(method.ships, networks(method, method.ships), strict=True)
        for key, value in network.state_dict().items()
    }
    try:
        recipe.save(folder / RECIPE)
        found.save(folder / FOUND)
        with atomic(folder / WEIGHTS) as temporary:
            # one entry: several are written in any order, and the same weights should be the same file
            # not `save_file`, whose files nobody but their owner may read
            temporary.write_bytes(save(weights, metadata={"fabrica": f"{__version__}, {kept}"}))
        save_card(folder, method, recipe, found, kept=kept)
    except (OSError, SafetensorError, FabricaError) as error:
        raise FabricaError(f"model not written to {folder}: {error}; the weights kept before are untouched") from error


def save_card(folder: Path, method: Method, recipe: Recipe, found: Found, *, kept: str) -> None:
    """Write the model card alone."""
    with atomic(folder / CARD) as temporary:
        part = task_of(method).card(recipe, found, method)
        parameters = sum(p.numel() for net in networks(method, method.ships) for p in net.parameters())
        temporary.write_text(card(recipe, found, part, parameters, kept), encoding="utf-8")
