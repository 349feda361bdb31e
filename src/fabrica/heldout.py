"""Which weights are the best: judged on held-out images, by the method's loss, or by how far samples lie from them.

A GAN's losses say nothing of its pictures: both players may lose while they get better, or win while one collapses.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from fabrica import noise
from fabrica.codec import Codec
from fabrica.data.augment import Changes
from fabrica.data.body import body, threshold
from fabrica.data.dataset import Dataset, batch_at
from fabrica.data.pairs import Pairs
from fabrica.errors import UsageError
from fabrica.evaluation import distribution
from fabrica.evaluation.accuracy import mean_image
from fabrica.evaluation.pairs import interval
from fabrica.evaluation.radiomics import radiomic_features, standardised, standardiser
from fabrica.image import Float32, Float64
from fabrica.methods import Compressor, Method, Synthesiser, Told, Translator, Validated
from fabrica.model import Model, middle, told_in_turn
from fabrica.pictures import Uint8, image_grid
from fabrica.recipe import FoundConfig, Recipe

Judge = Callable[[Method], float]
"""judge(method with averaged weights) -> its score on held-out images; lower is better."""

MOST = 512  # images: enough for a steady score, few enough to cost seconds
FEWEST = 32
JUDGED = 64  # held-out images that say at the end how good a translator is
SHOWN = 8  # translated images in the contact sheet
FIRST_SEED = 2**30  # far from the seeds that users take


def judge(method: Method, recipe: Recipe, heldout: Dataset | Pairs, device: torch.device) -> tuple[str, Judge | None]:
    """The score that chooses the weights, and its name in the log: "val_loss", "frd" or "kid"; "" and None where
    those at the end are kept and too few images are held out for a score.

    Call the judge under the run's autocast. Every time it sees the same images and the same noise.
    Raises UsageError where the recipe's choice is not possible.
    """
    keep = method.keep if recipe.train.keep in ("auto", "last") else recipe.train.keep
    if keep in ("loss", "last"):
        if not isinstance(method, Validated) or (isinstance(heldout, Pairs) and not heldout.paired):
            raise UsageError(
                f"train.keep is loss, but {recipe.method['name']} has no loss that tells good weights; take frd or kid"
            )
        return "val_loss", lambda averaged: _loss(averaged, recipe, heldout, device)
    if isinstance(method, Compressor):
        raise UsageError(
            f"train.keep is {keep}, which compares samples, and an autoencoder makes none; take loss or last"
        )
    held = min(len(heldout), len(heldout.b)) if isinstance(heldout, Pairs) else len(heldout)
    if held < FEWEST and recipe.train.keep == "last":
        return "", None
    if held < FEWEST:
        raise UsageError(
            f"{held} held-out images are too few to choose weights by {keep}; it takes {FEWEST}: hold out more, e.g. "
            "fabrica scan --split 0.6,0.2,0.2, or keep the weights at the end, whatever they are: train.keep=last"
        )
    return keep, _distance(keep, recipe, heldout, device)


def absent(heldout: Dataset | Pairs) -> str | None:
    """A sentence about a class that the held-out images lack, so that nothing judges it; None if all are there."""
    if isinstance(heldout, Pairs) or heldout.labels is None:
        return None
    missing = [name for k, name in enumerate(heldout.classes) if not (heldout.labels == k).any()]
    if not missing:
        return None
    return f"no held-out image shows {', '.join(missing)}: the weights are chosen without it; label or split anew"


@torch.no_grad()
def _loss(averaged: Method, recipe: Recipe, heldout: Dataset | Pairs, device: torch.device) -> float:
    assert isinstance(averaged, Validated)  # see judge
    count = min(len(heldout), MOST)
    size = min(recipe.data.batch, count)
    total, cut = 0.0, Changes(recipe.data.crop)
    for k in range(count // size):
        batch = {key: v.to(device) for key, v in batch_at(heldout, k, size, seed=0, changes=cut).items()}
        total += float(averaged.validation(batch, torch.Generator().manual_seed(k)).mean())
    return total / (count // size)


def _distance(keep: str, recipe: Recipe, heldout: Dataset | Pairs, device: torch.device) -> Judge:
    """The Fréchet or kernel distance of radiomic features, as in `fabrica evaluate`, but against the val split."""
    target = heldout.b if isinstance(heldout, Pairs) else heldout
    chosen = np.sort(np.random.default_rng(0).permutation(len(target))[:MOST])
    real, measured = _measured(recipe, target.read(chosen))
    told = target.told(chosen)

    def made(method: Method) -> Float32:
        if isinstance(heldout, Pairs):
            return translated(method, heldout.read_a(range(min(MOST, len(heldout.a)))), device)
        return drawn(method, recipe, told, len(chosen), device)

    def features(method: Method) -> Float64:
        return measured(made(method))

    if keep == "kid":
        return lambda averaged: distribution.kid(real, features(averaged), subsets=20)[0]
    return lambda averaged: distribution.frechet(real, features(averaged))


def _measured(recipe: Recipe, real: Float32) -> tuple[Float64, Callable[[Float32], Float64]]:
    """The features (N, F) of real images (N, C, *S), and what measures others on their scale."""
    raw = radiomic_features(middle(real, recipe.made_size))
    scaling = standardiser(raw)
    return standardised(raw, *scaling), lambda images: standardised(
        radiomic_features(middle(images, recipe.made_size)), *scaling
    )


def found(model: Model, train: Pairs, heldout: Pairs, direction: str = "a2b") -> FoundConfig:
    """How far results in this direction are from held-out images, and what needs no model: see `FoundConfig`.

    Of label maps, and of sides without pairs and with fewer than FEWEST images, nothing is measured."""
    codecs = (model.codec, model.codec_b) if direction == "a2b" else (model.codec_b, model.codec)
    if codecs[1].kind == "label":
        return FoundConfig()
    return (_found_by_pairs if heldout.paired else _found_by_sets)(model, train, heldout, direction, codecs)


def _found_by_pairs(
    model: Model, train: Pairs, heldout: Pairs, direction: str, codecs: tuple[Codec, Codec]
) -> FoundConfig:
    net, target = model.way(direction).net, heldout.b if direction == "a2b" else heldout.a
    source = heldout.read_a if direction == "a2b" else heldout.b.read
    plain = heldout.a if direction == "a2b" else heldout.b
    mean = mean_image(train.b if direction == "a2b" else train.a)
    alike = model.recipe.data.one_scale or (codecs[0] == codecs[1] and codecs[0].kind == "window")
    chosen = np.unique(np.linspace(0, len(heldout) - 1, JUDGED).astype(int))
    errors: dict[str, dict[str, list[float]]] = {}
    for k in chosen:
        truth = target.read([k])[0]
        inside = body(truth, threshold(codecs[1]))
        answers = {"error": net(source([k]))[0], "mean": mean}
        if alike:
            answers["nothing"] = _middle_slice(plain.read([k])[0], len(truth))
        for name, made in answers.items():
            case = errors.setdefault(target.ids[int(k)].rsplit("#", 1)[0], {})
            case.setdefault(name, []).append(float(np.abs(made - truth)[:, inside].mean()))
    low, high = codecs[1].span
    scale, unit = ((high - low) / 2, codecs[1].unit) if codecs[1].unit != "arbitrary" else (50.0, "%")
    means = {name: np.array([np.mean(case[name]) for case in errors.values()]) * scale for name in answers}
    best = min((name for name in means if name != "error"), key=lambda name: float(means[name].mean()))
    gain = interval(means[best] - means["error"]) if len(errors) > 1 else None
    values = {name: float(f"{each.mean():.5g}") for name, each in means.items()}
    return FoundConfig(
        "mae",
        unit,
        values["error"],
        values.get("nothing"),
        values["mean"],
        len(chosen),
        len(errors),
        *((float(f"{gain.low:.4g}"), float(f"{gain.high:.4g}")) if gain else (None, None)),
    )


def _found_by_sets(
    model: Model, train: Pairs, heldout: Pairs, direction: str, codecs: tuple[Codec, Codec]
) -> FoundConfig:
    one, other = (heldout.a, heldout.b) if direction == "a2b" else (heldout.b, heldout.a)
    if min(len(one), len(other)) < FEWEST:
        return FoundConfig(images=min(len(one), len(other)))
    some = [np.unique(np.linspace(0, len(side) - 1, JUDGED).astype(int)) for side in (one, other)]
    real, measured = _measured(model.recipe, other.read(some[1]))
    given, net = (heldout.read_a(some[0]) if direction == "a2b" else one.read(some[0])), model.way(direction).net
    made = np.concatenate([net(given[k : k + 8]) for k in range(0, len(given), 8)])
    plain = None if codecs[0].kind == "label" else _middle_slice(given, made.shape[1], axis=1)
    distances = [
        float(f"{distribution.frechet(real, measured(images)):.5g}") for images in (made, plain) if images is not None
    ]
    cases = len({one.ids[int(k)].rsplit("#", 1)[0] for k in some[0]})
    return FoundConfig("frd", "", distances[0], distances[1] if plain is not None else None, None, len(given), cases)


def _middle_slice(values: Float32, channels: int, axis: int = 0) -> Float32:
    """Of neighbouring slices, one after the other along the axis of channels, the middle one."""
    first = (values.shape[axis] - channels) // 2
    return values.take(range(first, first + channels), axis)


@torch.no_grad()
def drawn(method: Method, recipe: Recipe, told: Told, count: int, device: torch.device) -> Float32:
    """`count` samples float32 (N, C, *S) of a method in training, from seeds that nobody else takes."""
    assert isinstance(method, Synthesiser)  # see the calls
    parts = []
    for start in range(0, count, 64):
        stop = min(start + 64, count)
        own = {name: values[start:stop] for name, values in told.items()}
        draw = noise.seeded(range(FIRST_SEED + start, FIRST_SEED + stop))
        parts.append(method.sample(draw, own, recipe.sample, device).float().cpu().numpy())
    return np.concatenate(parts)


@torch.no_grad()
def translated(method: Method, images: Float32, device: torch.device, direction: str = "a2b") -> Float32:
    """Images (N, C, *S) in [-1, 1] of one side as the other, by a method in training."""
    assert isinstance(method, Translator)  # see the calls
    parts = [torch.from_numpy(images[k : k + 16]).to(device) for k in range(0, len(images), 16)]
    return np.concatenate([method.translate(part, direction).float().cpu().numpy() for part in parts])


def contact_sheet(method: Method, recipe: Recipe, heldout: Dataset | Pairs, device: torch.device) -> Uint8:
    """What a person looks at while a model trains: 16 samples of seeds 0 to 15, told the classes in turn, or what
    held-out images are told, and below their masks; or held-out images, each as source,
    result, and the truth or, where there are no pairs, the way back; of a method that compresses held-out images above
    what is left of them.

    Call it under the run's autocast.
    """
    if isinstance(method, Compressor) and not isinstance(heldout, Pairs):
        return _rebuilt(method, recipe, heldout, device)
    if not isinstance(heldout, Pairs):
        assert isinstance(method, Synthesiser)  # only translators learn from pairs of sides
        with torch.inference_mode():
            told = {**heldout.told(np.arange(16) % len(heldout)), **told_in_turn(recipe, 16)}
            images = method.sample(noise.seeded(range(16)), told, recipe.sample, device)
        made = images.float().cpu().numpy()
        if "mask" in told:
            return _sheet_of_two(_grey(told["mask"].numpy() * 2 - 1).repeat(made.shape[1], axis=1), made, recipe)
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
