"""Training images/s of our whole loop (averaged weights, clipping, logging, held-out loss apart) against a plain
fp32 loop with MONAI's DiffusionInferer: the same UNet, the same batch, the same images."""

from __future__ import annotations

import tempfile
import time
from dataclasses import replace
from pathlib import Path
from statistics import median

import torch
from monai.inferers import DiffusionInferer
from monai.networks.nets import DiffusionModelUNet
from monai.networks.schedulers import DDPMScheduler

from benchmarks.ratio import told
from fabrica.codec import Codec
from fabrica.data.cache import build_cache
from fabrica.recipe.load import load_recipe
from fabrica.recipe.schema import Recipe
from fabrica.training.batches import batch_at
from fabrica.training.loop import train

ROUNDS, STEPS = 3, 12
UNET = {"channels": [64, 128, 128], "attention": [False, False, True], "res_blocks": 1, "head_channels": 64}


def recipe(size: int, batch: int) -> Recipe:
    values = [f"data.size={size}", f"data.batch={batch}", "data.count=256", "train.minutes=0", "train.log_every=1"]
    values += [
        f"train.steps={STEPS}",
        *(f"train.{period}_every=10000" for period in ("validate", "sample", "checkpoint")),
    ]
    chosen = load_recipe("ddpm-chest", values)
    return replace(chosen, method={**chosen.method, "patch": 1, **UNET})


def ours(size: int, batch: int) -> float:
    rates: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        chosen = recipe(size, batch)
        chosen.sample.steps = 1
        train(chosen, Path(folder) / "run", report=lambda row: rates.append(row["images_per_s"]))
    return median(rates[2:])


def plain_monai(size: int, batch: int) -> float:
    dataset = build_cache(recipe(size, batch).data, Codec("window", 0, 4095), "train")
    network = DiffusionModelUNet(
        spatial_dims=2,
        in_channels=1,
        out_channels=1,
        channels=UNET["channels"],
        attention_levels=UNET["attention"],
        num_res_blocks=UNET["res_blocks"],
        num_head_channels=UNET["head_channels"],
    )
    scheduler = DDPMScheduler(num_train_timesteps=1000)
    inferer = DiffusionInferer(scheduler)
    optimiser = torch.optim.Adam(network.parameters(), lr=2.5e-5)
    rates = []
    for step in range(STEPS):
        images = batch_at(dataset, step, batch, seed=0)["image"]
        began = time.perf_counter()
        optimiser.zero_grad(set_to_none=True)
        noise = torch.randn_like(images)
        timesteps = torch.randint(0, 1000, (batch,)).long()
        predicted = inferer(inputs=images, diffusion_model=network, noise=noise, timesteps=timesteps)
        loss = torch.nn.functional.mse_loss(predicted.float(), noise.float())
        loss.backward()
        optimiser.step()
        rates.append(batch / (time.perf_counter() - began))
    return median(rates[2:])


def main() -> dict[str, str]:
    scores = {}
    for size, batch in ((32, 32), (64, 16)):
        pairs = [(ours(size, batch), plain_monai(size, batch)) for _ in range(ROUNDS)]
        scores[f"{size} x {size}, batch {batch}, ours / MONAI fp32"] = told(pairs, 0)
    return scores
