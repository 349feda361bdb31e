"""Which weights are the best: judged on held-out images, by the method's loss, or by how far samples lie from them.

A GAN's losses say nothing of its pictures: both players may lose while they get better, or win while one collapses.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from fabrica.codec import Codec
from fabrica.conditioning.dataset import Conditioned
from fabrica.data.augment import Changes
from fabrica.data.body import body, threshold
from fabrica.data.pairs import Pairs
from fabrica.data.standardise import middle
from fabrica.errors import UsageError
from fabrica.evaluation.translation.accuracy import mean_image
from fabrica.image import Float32, Float64
from fabrica.methods import Compressor, Method, Validated
from fabrica.metrics import distribution
from fabrica.metrics.paired import interval
from fabrica.metrics.radiomics import radiomic_features, standardised, standardiser
from fabrica.model.model import Model
from fabrica.recipe.schema import FoundConfig, Recipe
from fabrica.training.batches import batch_at
from fabrica.training.previews import drawn, translated

Judge = Callable[[Method], float]
"""judge(method with averaged weights) -> its score on held-out images; lower is better."""

MOST = 512  # images: enough for a steady score, few enough to cost seconds
FEWEST = 32
JUDGED = 64  # held-out images that say at the end how good a translator is


def judge(
    method: Method, recipe: Recipe, heldout: Conditioned | Pairs, device: torch.device
) -> tuple[str, Judge | None]:
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


def absent(heldout: Conditioned | Pairs) -> str | None:
    """A sentence about a class that the held-out images lack, so that nothing judges it; None if all are there."""
    if isinstance(heldout, Pairs) or heldout.images.labels is None:
        return None
    labels = heldout.images.labels
    missing = [name for k, name in enumerate(heldout.images.classes) if not (labels == k).any()]
    if not missing:
        return None
    return f"no held-out image shows {', '.join(missing)}: the weights are chosen without it; label or split anew"


@torch.no_grad()
def _loss(averaged: Method, recipe: Recipe, heldout: Conditioned | Pairs, device: torch.device) -> float:
    assert isinstance(averaged, Validated)  # see judge
    count = min(len(heldout), MOST)
    size = min(recipe.data.batch, count)
    total, cut = 0.0, Changes(recipe.data.crop)
    for k in range(count // size):
        batch = {key: v.to(device) for key, v in batch_at(heldout, k, size, seed=0, changes=cut).items()}
        total += float(averaged.validation(batch, torch.Generator().manual_seed(k)).mean())
    return total / (count // size)


def _distance(keep: str, recipe: Recipe, heldout: Conditioned | Pairs, device: torch.device) -> Judge:
    """The Fréchet or kernel distance of radiomic features, as in `fabrica evaluate`, but against the val split."""
    target = heldout.b if isinstance(heldout, Pairs) else heldout.images
    chosen = np.sort(np.random.default_rng(0).permutation(len(target))[:MOST])
    real, measured = _measured(recipe, target.read(chosen))
    told = {} if isinstance(heldout, Pairs) else heldout.conditions(chosen)

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
