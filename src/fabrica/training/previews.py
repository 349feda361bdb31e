"""Pictures of a model in training."""

from __future__ import annotations

import numpy as np
import torch

from fabrica.conditioning.dataset import Conditioned
from fabrica.conditioning.encoder import Encoded
from fabrica.data.dataset import Dataset
from fabrica.data.pairs import Pairs
from fabrica.data.standardise import middle
from fabrica.image import Float32
from fabrica.io.contact_sheet import Uint8, image_grid
from fabrica.methods import (
    Compressor,
    Method,
    Synthesiser,
    Translator,
    as_conditions,
    noise,
)
from fabrica.recipe.schema import Recipe

SHOWN = 8  # translated images in the contact sheet


FIRST_SEED = 2**30  # far from the seeds that users take


@torch.no_grad()
def drawn(method: Method, recipe: Recipe, told: Encoded, count: int, device: torch.device) -> Float32:
    """`count` samples float32 (N, C, *S) of a method in training, from seeds that nobody else takes."""
    assert isinstance(method, Synthesiser)  # see the calls
    parts = []
    for start in range(0, count, 64):
        stop = min(start + 64, count)
        own = as_conditions(told, slice(start, stop))
        draw = noise.seeded(range(FIRST_SEED + start, FIRST_SEED + stop))
        parts.append(method.sample(draw, own, recipe.sample, device).float().cpu().numpy())
    return np.concatenate(parts)


@torch.no_grad()
def translated(method: Method, images: Float32, device: torch.device, direction: str = "a2b") -> Float32:
    """Images (N, C, *S) in [-1, 1] of one side as the other, by a method in training."""
    assert isinstance(method, Translator)  # see the calls
    parts = [torch.from_numpy(images[k : k + 16]).to(device) for k in range(0, len(images), 16)]
    return np.concatenate([method.translate(part, direction).float().cpu().numpy() for part in parts])


def contact_sheet(method: Method, recipe: Recipe, heldout: Conditioned | Pairs, device: torch.device) -> Uint8:
    """What a person looks at while a model trains: 16 samples of seeds 0 to 15, told the classes in turn, or what
    held-out images are told, and below their masks; or held-out images, each as source,
    result, and the truth or, where there are no pairs, the way back; of a method that compresses held-out images above
    what is left of them.

    Call it under the run's autocast.
    """
    if isinstance(method, Compressor) and not isinstance(heldout, Pairs):
        return _rebuilt(method, recipe, heldout.images, device)
    if not isinstance(heldout, Pairs):
        assert isinstance(method, Synthesiser)  # only translators learn from pairs of sides
        with torch.inference_mode():
            told = {**heldout.conditions(np.arange(16) % len(heldout)), **told_in_turn(recipe, 16)}
            images = method.sample(noise.seeded(range(16)), as_conditions(told), recipe.sample, device)
        made = images.float().cpu().numpy()
        if "mask" in told:
            return _sheet_of_two(_grey(told["mask"] * 2 - 1).repeat(made.shape[1], axis=1), made, recipe)
        return image_grid(middle(made, recipe.made_size), columns=8, spacing=recipe.output.spacing)
    assert isinstance(method, Translator)  # see above
    chosen = np.unique(np.linspace(0, len(heldout.a) - 1, SHOWN).astype(int))
    source = heldout.a.read(chosen)
    columns = [source, translated(method, heldout.read_a(chosen), device)]
    if heldout.paired:
        columns.append(heldout.b.read(chosen))
    elif "b2a" in method.directions:
        columns.append(translated(method, columns[1], device, "b2a"))
    shown = np.stack([_grey(images) for images in columns], axis=1)
    shown = middle(shown.reshape(-1, *shown.shape[2:]), recipe.made_size)
    return image_grid(shown, columns=2 * len(columns), spacing=recipe.output.spacing)


@torch.no_grad()
def _rebuilt(method: Compressor, recipe: Recipe, heldout: Dataset, device: torch.device) -> Uint8:
    """Two rows of held-out images, each above a row of what encoder and decoder leave of them."""
    chosen = np.unique(np.linspace(0, len(heldout) - 1, 2 * SHOWN).astype(int))
    source = heldout.read(chosen)
    made = method.decode(method.encode(torch.from_numpy(source).to(device)), source.shape[2:]).cpu().numpy()
    return _sheet_of_two(source, made, recipe)


def _sheet_of_two(above: Float32, below: Float32, recipe: Recipe) -> Uint8:
    """Rows of images (N, C, *S), each above a row of others."""
    rows = [part for k in range(0, len(above), SHOWN) for part in (above[k : k + SHOWN], below[k : k + SHOWN])]
    shown = middle(np.concatenate(rows), recipe.made_size)
    return image_grid(shown, columns=min(SHOWN, len(above)), spacing=recipe.output.spacing)


def _grey(images: Float32) -> Float32:
    """(N, C, *S) -> (N, 1, *S): the middle of neighbouring slices; labels as greys."""
    channels = images.shape[1]
    if channels > 1 and np.isin(images[0], (-1, 1)).all():
        labels: Float32 = images.argmax(1, keepdims=True) * np.float32(2 / (channels - 1)) - 1
        return labels
    return images[:, channels // 2 : channels // 2 + 1]


def told_in_turn(recipe: Recipe, count: int) -> Encoded:
    """{"label": int64 (count,)}: every class in turn; {} for a model that is told none, or more than a label."""
    classes = len(recipe.data.classes) if recipe.data.condition == ["label"] else 0
    return {"label": np.arange(count) % classes} if classes else {}
