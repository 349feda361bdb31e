"""python -m benchmarks.scanners HARMONISER TASK [TASK ...]: what models lose on another scanner, and what brings it
back.

TASK is the folder of a model from a contrast of the head phantom to CT, trained on scanner A; HARMONISER goes from B to
A (`harmonise-head`). Both scanners see the same held-out heads. Beside the harmoniser stands what needs no generator,
from UNSEEN unlabelled images of either scanner:

quantiles   grey values of B moved to those of A (Nyul and Udupa 1999): the mean quantiles of the body
amplitudes  the lowest frequencies' amplitudes of B replaced by the mean ones of A (Yang and Soatto 2020, FDA)
AdaBN       batch norm with the mean and variance of B (Li et al. 2016), for networks that have it
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from torch import nn

import fabrica
from fabrica.data.body import body, threshold
from fabrica.image import Float32, Float64, Image
from fabrica.methods import build
from fabrica.metrics.patients import interval
from fabrica.model.model import Model
from fabrica.phantoms.head.head import head
from fabrica.recipe.folder import WEIGHTS

HEADS, UNSEEN = 100, 96
FIRST, OTHERS = 3_000_000_000, 4_000_000_000  # seeds: of the test split, and far from every split
REACH = 1  # of the amplitudes moved, in cycles per image
FAINT = 0.15  # of the brightest: what is darker is air and its noise
Change = Callable[[Image], Image]


def main(harmoniser: str, task: str, heads: int = HEADS) -> dict[str, list[float]]:
    """Mean absolute error in the body, HU: mean and 95 % interval by name."""
    model, to_a = fabrica.load(task), fabrica.load(harmoniser)
    contrast, size = model.recipe.data.a.partition("@")[0], max(model.recipe.data.size)

    def drawn(scanner: str, seeds: range) -> list[Image]:
        return [head(seed, size, contrasts=[contrast], scanner=scanner).images[contrast] for seed in seeds]

    seeds, unseen = range(FIRST, FIRST + heads), range(OTHERS, OTHERS + UNSEEN)
    truth = [head(seed, size, contrasts=["CT"]).images["CT"] for seed in seeds]
    inside = [body(model.codec_b.encode(ct), threshold(model.codec_b)) for ct in truth]
    given = {scanner: drawn(scanner, seeds) for scanner in "AB"}
    of_a, of_b = (drawn(scanner, unseen) for scanner in "AB")

    def error(scanner: str, chosen: Model, change: Change = lambda image: image) -> list[float]:
        found = []
        for image, ct, mask in zip(given[scanner], truth, inside, strict=True):
            made = chosen.apply(change(image)).result
            found.append(float(np.abs(made.data - ct.data)[:, mask].mean()))
        each = interval(np.array(found))
        return [each.mean, each.low, each.high]

    return {
        "A, as trained": error("A", model),
        "B, as it comes": error("B", model),
        "B, harmonised by CUT": error("B", model, lambda image: to_a.apply(image).result),
        "B, quantiles": error("B", model, quantiles(of_b, of_a)),
        "B, amplitudes": error("B", model, amplitudes(of_a)),
        "B, AdaBN": error("B", adapted(model, of_b)),
    }


def quantiles(source: list[Image], target: list[Image]) -> Change:
    """Grey values of one scanner to those of another, zero to zero."""
    steps = np.linspace(0, 1, 101)

    def mean(images: list[Image]) -> Float64:
        inner = [image.data[image.data > FAINT * np.percentile(image.data, 99.5)] for image in images]
        return np.asarray(np.mean([np.quantile(values, steps) for values in inner], axis=0), np.float64)

    before, after = np.r_[0, mean(source)], np.r_[0, mean(target)]
    return lambda image: image.with_data(np.interp(image.data, before, after).astype(np.float32))


def amplitudes(target: list[Image]) -> Change:
    """The mean amplitudes of another scanner at low frequencies, with the image's own phases."""

    def scaled(image: Image) -> Float64:
        return np.asarray(image.data / np.percentile(image.data, 99.5), np.float64)

    wanted = np.mean([np.abs(np.fft.fft2(scaled(image))) for image in target], axis=0)
    height, width = wanted.shape[1:]
    near = (np.abs(np.fft.fftfreq(height, 1 / height)) <= REACH)[:, None]
    near = near & (np.abs(np.fft.fftfreq(width, 1 / width)) <= REACH)

    def changed(image: Image) -> Image:
        spectrum = np.fft.fft2(scaled(image))
        own = np.abs(spectrum)
        moved = np.fft.ifft2(spectrum * np.where(near, wanted / np.maximum(own, 1e-9), 1.0)).real
        values: Float32 = np.maximum(moved * np.percentile(image.data, 99.5), 0).astype(np.float32)
        return image.with_data(values)

    return changed


def adapted(model: Model, images: list[Image]) -> Model:
    """The model with the statistics of these images in each batch norm."""
    method = build(model.recipe)
    assert isinstance(method, nn.Module)
    method.load_state_dict(load_file(model.folder / WEIGHTS), strict=False)
    norms = [layer for layer in method.modules() if isinstance(layer, nn.BatchNorm2d)]
    method.eval()
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the mean over all batches
        norm.train()
    with torch.inference_mode():
        for k in range(0, len(images), 16):
            batch = np.stack([model.codec.encode(image) for image in images[k : k + 16]])
            method.translate(torch.from_numpy(batch), "a2b")  # type: ignore[operator]
    return replace(model, method=method.eval())


if __name__ == "__main__":
    results = Path(__file__).parent / "real" / "scanners.json"
    harmoniser, *tasks = sys.argv[1:]
    kept = {}
    for task in tasks:
        recipe, found = fabrica.load(task).recipe, main(harmoniser, task)
        kept[f"{recipe.name}, codec {recipe.codec.kind}"] = found
        at_home, away = found["A, as trained"][0], found["B, as it comes"][0]
        print(f"{recipe.name}, codec {recipe.codec.kind}")
        for name, (mean, low, high) in found.items():
            back = f"{100 * (away - mean) / (away - at_home):4.0f} % of the loss recovered" if "as" not in name else ""
            print(f"   {name:<28}{mean:6.1f} HU [{low:.1f}, {high:.1f}]  {back}")
    results.write_text(json.dumps(kept, indent=2) + "\n")
