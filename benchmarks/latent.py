"""Diffusion on latents against diffusion on pixels: training and drawing images/s of one and the same denoiser, on
pixels as they are, on squares of two pixels, and on the latents of autoencoder-xray, a sixteenth of the places.

Weights are fresh: what an image costs does not depend on them. Encoding, once a training image, and decoding are
counted. The three answer in turn, so that the machine's mood meets all of them alike; medians of ROUNDS.
"""

from __future__ import annotations

import time
from statistics import median
from typing import cast

import torch
from torch import Tensor, nn

from fabrica.methods import Compressor, Method, build, noise
from fabrica.methods.diffusion import Diffusion
from fabrica.nets.device import autocast, default_device
from fabrica.recipe.load import load_recipe
from fabrica.recipe.schema import Recipe

SIZES, BATCH, DRAWN, ROUNDS = (64, 128), 16, 16, 5
WIDTHS = "method.channels=[64,128,128]"  # of the denoiser of all three
EPOCHS = 20  # how often an image is seen in training, and encoded once


def recipe(size: int, *overrides: str) -> Recipe:
    return load_recipe("ddpm-xray", [f"data.size={size}", f"data.batch={BATCH}", WIDTHS, "sample.steps=8", *overrides])


def methods(size: int) -> dict[str, tuple[Recipe, Diffusion]]:
    space = cast(Compressor, build(load_recipe("autoencoder-xray", [f"data.size={size}"])))
    cast(nn.Module, space).eval().requires_grad_(False)
    kinds = {"pixels": "method.patch=1", "squares of two pixels": "method.patch=2", "latents": "method.patch=1"}
    recipes = {name: recipe(size, patch) for name, patch in kinds.items()}
    return {
        name: (chosen, cast(Diffusion, build(chosen, space if name == "latents" else None)))
        for name, chosen in recipes.items()
    }


def step(chosen: Recipe, method: Diffusion, optimiser: torch.optim.Optimizer, images: Tensor) -> float:
    """Seconds of a training step."""
    device = default_device()
    began = time.perf_counter()
    with autocast(chosen.train.precision, device):
        (turn,) = method.turns({"image": images}, torch.Generator().manual_seed(0))
    optimiser.zero_grad(set_to_none=True)
    turn.loss.backward()
    optimiser.step()
    return _ended(began, device)


def encoding(chosen: Recipe, method: Diffusion, images: Tensor) -> tuple[Tensor, float]:
    """What the denoiser sees of these images, and the seconds that it takes to make it once."""
    if method.space is None:
        return images, 0.0
    device = default_device()
    began = time.perf_counter()
    with torch.no_grad(), autocast(chosen.train.precision, device):
        seen = method.space.encode(images)
    return seen, _ended(began, device)


def draw(chosen: Recipe, method: Method) -> float:
    """Seconds for DRAWN images."""
    device = default_device()
    began = time.perf_counter()
    with torch.inference_mode(), autocast(chosen.train.precision, device):
        cast(Diffusion, method).sample(noise.seeded(range(DRAWN)), {}, chosen.sample, device)
    return _ended(began, device)


def _ended(began: float, device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - began


def main() -> dict[str, str]:
    scores = {}
    for size in SIZES:
        images = torch.rand(BATCH, 1, size, size, generator=torch.Generator().manual_seed(0)) * 2 - 1
        images = images.to(default_device())
        found = methods(size)
        optimisers = {
            name: torch.optim.AdamW(m.to(default_device()).parameters(), 1e-4) for name, (_, m) in found.items()
        }
        trained: dict[str, list[float]] = {name: [] for name in found}
        drawn: dict[str, list[float]] = {name: [] for name in found}
        for k in range(ROUNDS + 1):
            for name, (chosen, method) in found.items():
                seen, once = encoding(chosen, method, images)
                seconds = step(chosen, method, optimisers[name], seen) + once / EPOCHS
                if k:  # the first round warms up
                    trained[name].append(BATCH / seconds)
                    drawn[name].append(DRAWN / draw(chosen, method))
        for what, rates in (("training", trained), ("drawing", drawn)):
            for name, each in rates.items():
                ratio = median(own / pixels for own, pixels in zip(each, rates["pixels"], strict=True))
                scores[f"{size} x {size}, {what}, {name}"] = f"{ratio:.1f} x pixels ({median(each):.1f} images/s)"
    return scores
