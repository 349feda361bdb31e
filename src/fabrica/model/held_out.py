"""How far a translator's results are from held-out images, beside what needs no model."""

from __future__ import annotations

import numpy as np

from fabrica.codec import Codec
from fabrica.data.body import body, threshold
from fabrica.data.dataset import evenly, mean_image
from fabrica.data.pairs import Pairs
from fabrica.data.standardise import middle
from fabrica.image import Float32
from fabrica.metrics import distribution
from fabrica.metrics.patients import interval
from fabrica.metrics.radiomics import standard_features
from fabrica.model.translation import TranslationModel
from fabrica.recipe.found import HeldOutError

FEWEST = 32  # images of a set
JUDGED = 64  # held-out images that say how good a translator is


def held_out_error(model: TranslationModel, train: Pairs, heldout: Pairs, direction: str = "a2b") -> HeldOutError:
    """How far results in this direction are from held-out images, and what needs no model: see `HeldOutError`.

    Of label maps, and of sides without pairs and with fewer than FEWEST images, nothing is measured."""
    codecs = (model.codec, model.codec_b) if direction == "a2b" else (model.codec_b, model.codec)
    if codecs[1].kind == "label":
        return HeldOutError()
    return (_by_pairs if heldout.paired else _by_sets)(model, train, heldout, direction, codecs)


def _by_pairs(
    model: TranslationModel, train: Pairs, heldout: Pairs, direction: str, codecs: tuple[Codec, Codec]
) -> HeldOutError:
    net, target = model.way(direction).net, heldout.b if direction == "a2b" else heldout.a
    source = heldout.read_a if direction == "a2b" else heldout.b.read
    plain = heldout.a if direction == "a2b" else heldout.b
    mean = mean_image(train.b if direction == "a2b" else train.a)
    alike = model.data.one_scale or (codecs[0] == codecs[1] and codecs[0].kind == "window")
    chosen = evenly(len(heldout), JUDGED)
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
    return HeldOutError(
        "mae",
        unit,
        values["error"],
        values.get("nothing"),
        values["mean"],
        len(chosen),
        len(errors),
        *((float(f"{gain.low:.4g}"), float(f"{gain.high:.4g}")) if gain else (None, None)),
    )


def _by_sets(
    model: TranslationModel, train: Pairs, heldout: Pairs, direction: str, codecs: tuple[Codec, Codec]
) -> HeldOutError:
    one, other = (heldout.a, heldout.b) if direction == "a2b" else (heldout.b, heldout.a)
    if min(len(one), len(other)) < FEWEST:
        return HeldOutError(images=min(len(one), len(other)))
    some = [evenly(len(side), JUDGED) for side in (one, other)]
    real, measured = standard_features(middle(other.read(some[1]), model.size))
    given, net = (heldout.read_a(some[0]) if direction == "a2b" else one.read(some[0])), model.way(direction).net
    made = np.concatenate([net(given[k : k + 8]) for k in range(0, len(given), 8)])
    plain = None if codecs[0].kind == "label" else _middle_slice(given, made.shape[1], axis=1)
    distances = [
        float(f"{distribution.frechet(real, measured(middle(images, model.size))):.5g}")
        for images in (made, plain)
        if images is not None
    ]
    cases = len({one.ids[int(k)].rsplit("#", 1)[0] for k in some[0]})
    return HeldOutError("frd", "", distances[0], distances[1] if plain is not None else None, None, len(given), cases)


def _middle_slice(values: Float32, channels: int, axis: int = 0) -> Float32:
    """Of neighbouring slices, one after the other along the axis of channels, the middle one."""
    first = (values.shape[axis] - channels) // 2
    return values.take(range(first, first + channels), axis)
