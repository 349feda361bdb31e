"""Images a second of every method of synthesis at 64 x 64: drawing 64 of them with the recipe's own settings.

Weights are fresh: what an image costs does not depend on them. Networks answer in turn, so that the machine's mood
meets all of them alike; the medians of ROUNDS are compared.
"""

from __future__ import annotations

import statistics
import time
from typing import Any, cast

import torch
from torch import nn

from fabrica.methods import Method, build, noise
from fabrica.nets.device import autocast, default_device
from fabrica.recipe.load import load_recipe
from fabrica.recipe.schema import Recipe

RECIPES = ("mlp-xray", "dcgan-xray", "wgan-xray", "modern-xray", "ddpm-xray")
IMAGES, ROUNDS = 64, 9


def draw(recipe: Recipe, method: Method) -> float:
    """Seconds for IMAGES images."""
    device = default_device()
    began = time.perf_counter()
    with torch.inference_mode(), autocast(recipe.train.precision, device):
        method.sample(noise.seeded(range(IMAGES)), {}, recipe.sample, device)
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - began


def main() -> dict[str, Any]:
    recipes = [load_recipe(name) for name in RECIPES]
    methods = [build(recipe) for recipe in recipes]
    for method in methods:
        cast(nn.Module, method).to(default_device()).eval().requires_grad_(False)
    seconds: dict[str, list[float]] = {name: [] for name in RECIPES}
    for k in range(ROUNDS + 1):
        for name, recipe, method in zip(RECIPES, recipes, methods, strict=True):
            took = draw(recipe, method)
            if k:  # the first round warms up
                seconds[name].append(took)
    median = {name: statistics.median(values) for name, values in seconds.items()}
    slowest = median["ddpm-xray"]
    found = {f"{name}, images/s": round(IMAGES / value) for name, value in median.items()}
    ratios = {f"{name} against ddpm-xray (10 steps)": round(slowest / median[name], 1) for name in RECIPES[:-1]}
    return {**found, **ratios}
