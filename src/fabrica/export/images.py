"""Images that the ranges of INT8 are taken from, and others that a lower precision is judged on, as a graph sees them:
training and held-out images of the model's data, or of a folder that is given in its place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch

from fabrica.codec import Codec
from fabrica.data.augment import AS_THEY_ARE
from fabrica.data.cache import build_cache
from fabrica.data.cases import build_cases
from fabrica.data.dataset import evenly
from fabrica.data.pairs import Pairs
from fabrica.data.patches import Patches
from fabrica.data.sample import AUXILIARY
from fabrica.errors import FabricaError, UsageError
from fabrica.export.drawing import diffusion_of
from fabrica.export.networks import Network
from fabrica.image import Float32
from fabrica.methods import Compressor, Translator
from fabrica.model.model import Model
from fabrica.progress import Progress, part
from fabrica.recipe.codecs import codec_of

CALIBRATION, JUDGED = 32, 16  # images that ranges are taken from, and that a precision is judged on
FEWEST = 8  # of the former: of fewer, what is rare in an image would be cut off in the next
SPLITS = {"train": CALIBRATION, "val": JUDGED}
Inputs = tuple[npt.NDArray[np.generic], ...]


@dataclass(frozen=True)
class Images:
    """What a graph is given, a batch of one each; and what it should answer, where that is known, with the codec of
    these answers."""

    inputs: Sequence[Inputs]
    truths: Sequence[Float32]
    codec: Codec


def images(
    model: Model, name: str, network: Network, split: str, source: str = "", progress: Progress | None = None
) -> Images:
    """Some images of a split, "train" or "val", evenly spread, for the graph `name`; see `Work.images`.

    source   a folder or manifest that takes the place of the model's data; "": these.

    Raises UsageError where the images are not there, or too few to take ranges from.
    """
    try:
        found = _images(model, name, network, split, source, progress)
    except FabricaError as error:
        where = source or model.data.source or "nowhere"
        raise UsageError(
            f"a lower precision is set and judged on images like those of training, and {where} does not give them "
            f"({error}); name a folder or manifest of such images with --calibrate"
        ) from error
    if split == "train" and len(found.inputs) < FEWEST:
        raise UsageError(
            f"{len(found.inputs)} training images are too few to take the ranges of INT8 from; expected {FEWEST} at "
            "least: name a folder or manifest with more of them with --calibrate"
        )
    return found


def shown(network: Network, some: Images) -> Network:
    """The network with these images to try it with, cut or mirrored to any size."""
    whole = np.concatenate([inputs[0] for inputs in some.inputs])

    def example(batch: int, size: Sequence[int]) -> tuple[torch.Tensor, ...]:
        chosen = whole[np.resize(np.arange(len(whole)), batch)]
        for axis, (side, wanted) in enumerate(zip(whole.shape[2:], size, strict=True), start=2):
            chosen = chosen.take(_mirrored(side, wanted), axis)
        return (torch.from_numpy(np.ascontiguousarray(chosen)),)

    return replace(network, example=example)


def _mirrored(side: int, wanted: int) -> npt.NDArray[np.int64]:
    """Places of the middle of an axis, to and fro where more are wanted than there are."""
    places = np.arange(wanted) + max(side - wanted, 0) // 2
    around = np.concatenate([np.arange(side), np.arange(side)[::-1]])
    return around[places % len(around)]


def _images(model: Model, name: str, network: Network, split: str, source: str, progress: Progress | None) -> Images:
    method = model.method
    if isinstance(method, Translator):
        return _sides(model, name, split, source, progress)
    if isinstance(method, Compressor):
        return _compressed(model, method, name, split, source, progress)
    if name in ("encoder", "decoder"):
        space = diffusion_of(cast(Any, method)).space
        assert space is not None  # whose halves these are
        return _compressed(model, space, name, split, source, progress)
    drawn = [values.numpy() for values in network.example(CALIBRATION + JUDGED, network.size)]
    mixed = np.random.default_rng(0).permutation(CALIBRATION + JUDGED)  # both see every strength of noise, every label
    chosen = mixed[:CALIBRATION] if split == "train" else mixed[CALIBRATION:]
    return Images([tuple(each[k : k + 1] for each in drawn) for k in chosen], [], codec_of(model.found.codec))


def _sides(model: Model, name: str, split: str, source: str, progress: Progress | None) -> Images:
    found, data = model.found, replace(model.data, source=source or model.data.source)
    codecs = codec_of(found.codec), codec_of(found.codec_b)
    others = [codec_of(codec) for codec in found.codecs_auxiliary]
    told = part(progress, f"caching {split} images")
    if model.method.plans:
        cases = build_cases(data, codecs[0], found.plan, split, auxiliary=others, progress=told)
        many = split == "val" or len(cases) >= FEWEST  # of few cases several patches each
        places = np.arange(SPLITS[split] if many else len(cases))
        drawn = Patches(cases, found.plan, data.context).batch(0, places, AS_THEY_ARE)
        return Images([(each[None],) for each in drawn["a"]], [each[None] for each in drawn["b"]], codecs[1])
    a, b, *auxiliary = (
        build_cache(data, codec, split, progress=told, side=side)
        for side, codec in zip(
            ("a", "b", *(AUXILIARY + each for each in data.auxiliary)), (*codecs, *others), strict=True
        )
    )
    pairs = Pairs(a, b, data.paired, codecs, auxiliary=auxiliary)
    there = name == "a2b"
    chosen = evenly(len(a if there else b), SPLITS[split])
    read, true = (pairs.read_a, b.read) if there else (b.read, a.read)
    truths = [true([k]) for k in chosen] if data.paired else []
    return Images([(read([k]),) for k in chosen], truths, codecs[1] if there else codecs[0])


def _compressed(
    model: Model, method: Compressor, name: str, split: str, source: str, progress: Progress | None
) -> Images:
    data = replace(model.data, source=source or model.data.source, condition=[])  # an autoencoder is told nothing
    codec = codec_of(model.found.codec)
    whole = build_cache(data, codec, split, progress=part(progress, f"caching {split} images"))
    chosen = [whole.read([k]) for k in evenly(len(whole), SPLITS[split])]
    if name == "encoder":
        return Images([(each,) for each in chosen], [], codec)
    with torch.inference_mode():
        latents = [method.encode(torch.from_numpy(each)).numpy() for each in chosen]
    still = [(len(each), method.noise_shape[0], *each.shape[2:]) for each in latents if method.noise_shape]
    noise = [np.zeros(shape, np.float32) for shape in still]  # an image is compared with the one it was made of
    return Images(list(zip(latents, noise, strict=True)) if noise else [(each,) for each in latents], chosen, codec)
