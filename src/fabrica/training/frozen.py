"""What a model works with that was trained before, an autoencoder, an encoder of text: opened, checked against the
recipe, and copied into the model's folder."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from fabrica import bundle
from fabrica.errors import FabricaError, UsageError
from fabrica.io.atomic import atomic
from fabrica.model.compression import CompressionModel
from fabrica.model.loading import load_autoencoder
from fabrica.nets.device import default_device
from fabrica.recipe.folder import AUTOENCODER, CARD, FOUND, RECIPE, TEXT_ENCODER, WEIGHTS
from fabrica.recipe.found import Found
from fabrica.recipe.schema import CodecConfig, Recipe
from fabrica.text.frozen_encoder import CONFIG, FrozenEncoder, files_of, open_frozen_encoder


def open_space(recipe: Recipe, found: Found, folder: Path) -> tuple[CompressionModel, Found]:
    """The autoencoder that a recipe names; of a run that goes on in `folder`, the copy there. The codec
    found is the autoencoder's.

    Raises UsageError where the two do not see the same images.
    """
    where = _origin(found.uses["autoencoder"], folder, folder / AUTOENCODER, WEIGHTS)
    if not where.exists():
        raise UsageError(
            f"uses.autoencoder: {where} is not a model folder: it is not there; train an autoencoder first, e.g. "
            f"fabrica train autoencoder-chest -o {where}"
        )
    if bundle.found(where):
        raise UsageError(
            f"{where} is a MONAI bundle, which diffusion is not trained on; train an autoencoder of your own"
        )
    space = load_autoencoder(where, default_device())
    theirs, ours = space.recipe.data, recipe.data
    for key in ("size", "channels", "fit"):
        own, expected = getattr(ours, key), getattr(theirs, key)
        if own != expected:
            raise UsageError(
                f"data.{key} is {own}, and the autoencoder in {where} was trained with {expected}: "
                f"set data.{key}={expected}, or train another autoencoder"
            )
    if found.codec not in (CodecConfig(), space.found.codec):
        raise UsageError(f"codec is not that of the autoencoder in {where}; leave it out: the autoencoder's is taken")
    return space, replace(found, codec=space.found.codec)


def latents_key(space: CompressionModel) -> str:
    """What changes when the latents of an image do: weights, precision, code."""
    from fabrica.methods import autoencoder as method  # not above: MONAI, which it takes, takes seconds to import
    from fabrica.nets import autoencoder, slabs

    code = [Path(str(module.__file__)).read_bytes() for module in (method, autoencoder, slabs)]
    return f"{space.hash} {space.recipe.train.precision} {hashlib.sha256(b''.join(code)).hexdigest()}"


def open_text(found: Found, folder: Path) -> tuple[FrozenEncoder, Found]:
    """The encoder of text that a recipe names; of a run that goes on in `folder`, the copy there. Text is
    read as far as it can."""
    where = _origin(found.uses["text"], folder, folder / TEXT_ENCODER, CONFIG)
    frozen_encoder = open_frozen_encoder(where, found.text.context, default_device())
    return frozen_encoder, replace(
        found, text=replace(found.text, context=frozen_encoder.context, width=frozen_encoder.width)
    )


def _origin(named: str, folder: Path, inside: Path, proof: str) -> Path:
    """Where that is which the recipe names: in the run's own folder where it goes on, and `proof` is there."""
    resumed = (folder / RECIPE).is_file() and (inside / proof).is_file()
    where = inside if resumed else Path(named)
    if not resumed and inside.exists() and inside.resolve() != where.resolve():
        raise UsageError(f"{inside} is there already, where a copy of {where} would go; choose another folder with -o")
    return where


def keep_space(space: CompressionModel, folder: Path) -> None:
    """Copy the autoencoder into a model's folder, so that the model works without the original."""
    files = (space.folder / name for name in (RECIPE, FOUND, CARD, WEIGHTS))
    _keep("autoencoder", space.folder, [path for path in files if path.is_file()], folder / AUTOENCODER)


def keep_text(frozen_encoder: FrozenEncoder, folder: Path) -> None:
    """Copy the encoder of text and its tokenizer into a model's folder, for the same reason."""
    _keep("text encoder", frozen_encoder.folder, files_of(frozen_encoder), folder / TEXT_ENCODER)


def _keep(what: str, origin: Path, files: Sequence[Path], home: Path) -> None:
    if home.resolve() == origin.resolve():
        return
    try:
        home.mkdir(exist_ok=True)
        for path in files:
            with atomic(home / path.name) as temporary:
                shutil.copyfile(path, temporary)
    except (OSError, FabricaError) as error:
        raise FabricaError(f"the {what} is not copied to {home}: {error}; free some space") from error
