"""Sampling 64 images at the default steps against MONAI's DDPM with 1000 steps: the same trained network, the same
schedule, time and quality (Frechet distance and KID to held-out phantoms, with bootstrap intervals)."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from monai.inferers import DiffusionInferer
from monai.networks.schedulers import DDPMScheduler
from torch import Tensor, nn

import fabrica
from fabrica.data.cache import build_cache
from fabrica.metrics.distribution import bootstrap, frechet, kid
from fabrica.metrics.extractors import extractor
from fabrica.recipe.load import load_recipe
from fabrica.training.loop import train

MINUTES, COUNT = 1.5, 64


class ByLevel(nn.Module):
    """Our network as MONAI calls it: level k of 1000 (from 0) is our time (k + 1) / 1000."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor, timesteps: Tensor, context: None = None) -> Tensor:
        out: Tensor = self.network(x, timesteps + 1)
        return out


def main() -> dict[str, str]:
    overrides = [
        "data.size=32",
        "method.patch=1",
        f"train.minutes={MINUTES}",
        "train.steps=0",
        "data.count=2000",
    ]
    with tempfile.TemporaryDirectory() as folder:
        model = fabrica.load(train(load_recipe("ddpm-chest", overrides), Path(folder) / "run"))
    heldout = build_cache(model.recipe.data, model.codec, "test")
    real = heldout.read(np.arange(len(heldout)))

    began = time.perf_counter()
    ours = model.sample_array(COUNT)
    our_seconds = time.perf_counter() - began

    scheduler = DDPMScheduler(num_train_timesteps=1000, schedule="cosine", prediction_type="v_prediction")
    noise = torch.randn(COUNT, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    began = time.perf_counter()
    with torch.inference_mode():
        theirs = DiffusionInferer(scheduler).sample(noise, ByLevel(model.method.denoiser), scheduler, verbose=False)
    their_seconds = time.perf_counter() - began

    ratio = f"{their_seconds / our_seconds:.0f} x ({their_seconds:.1f} / {our_seconds:.2f} s)"
    scores = {"time, MONAI DDPM-1000 / ours": ratio}
    features = extractor("radiomic")
    reference = features.features(real)
    for name, images in (("ours", ours), ("MONAI DDPM-1000", theirs.clamp(-1, 1).numpy())):
        made = features.features(images)
        for metric, function in (("Frechet", frechet), ("KID x1000", lambda a, b: 1000 * kid(a, b)[0])):
            value, low, high = bootstrap(function, reference, made, n=100)
            scores[f"{metric}, {name}"] = f"{value:.2f} [{low:.2f}, {high:.2f}]"
    return scores
