"""A method of your own in 60 lines: a variational autoencoder (Kingma, Welling 2014), trained like those that ship.

    python examples/own_method.py -o own-method

It learns from chest phantoms of 32 x 32; --data takes a manifest or a folder of images. 3,000 steps take three minutes
on one processor core. Then there are, in own-method:

    model/           weights, recipe, model card, samples.png
    samples/*.png    16 synthetic images
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss

import fabrica
from fabrica.methods import METHODS, Conditions, Synthesiser, Turn
from fabrica.methods.noise import Draw
from fabrica.recipe.schema import DataConfig, Recipe, SampleConfig, TrainConfig

PHANTOMS = 2000


class VAE(Synthesiser):
    @dataclass
    class Config:  # the recipe's `method:` section
        latent: int = 32
        width: int = 512
        variance: float = 0.02  # of pixels around what the decoder draws

    ships = ("decoder",)  # the networks that are averaged, saved, and needed to sample
    players: Mapping[str, tuple[str, ...]] = {"vae": ("encoder", "decoder")}  # an optimiser and its networks
    keep, validated = "loss", True  # the best weights are those of the lowest `validation`
    choices = ()  # which `sample:` values of the recipe mean something here

    def __init__(self, config: Config, shape: tuple[int, ...], classes: int = 0) -> None:
        """shape: (C, H, W) of the images."""
        super().__init__()
        self.config, pixels, width = config, math.prod(shape), config.width
        self.encoder = nn.Sequential(nn.Flatten(), *_layers(pixels, width, 2 * config.latent))
        self.decoder = nn.Sequential(*_layers(config.latent, width, pixels), nn.Unflatten(1, shape))

    def turns(self, batch: dict[str, Tensor], rng: torch.Generator) -> Iterator[Turn]:
        """One step: each player's loss in turn; batch["image"] is (B, C, H, W) in [-1, 1]."""
        yield Turn("vae", self.validation(batch, rng).mean())

    def validation(self, batch: dict[str, Tensor], rng: torch.Generator) -> Tensor:
        """(B,): the negative evidence lower bound (eq. 10), in nats a pixel, without its constant."""
        x = batch["image"]
        mean, log_variance = self.encoder(x).chunk(2, dim=1)
        z = mean + (0.5 * log_variance).exp() * torch.randn(mean.shape, generator=rng).to(x.device)
        error = mse_loss(self.decoder(z), x, reduction="none").flatten(1).sum(1) / (2 * self.config.variance)
        divergence = 0.5 * (mean**2 + log_variance.exp() - 1 - log_variance).sum(1)
        bound: Tensor = (error + divergence) / x[0].numel()
        return bound

    def sample(self, draw: Draw, conditions: Conditions, settings: SampleConfig, device: torch.device) -> Tensor:
        """Images (N, C, H, W) in [-1, 1]; draw(shape) is the noise of their seeds."""
        images: Tensor = self.decoder(draw((self.config.latent,)).to(device))
        return images.clamp(-1, 1)


def _layers(inputs: int, width: int, outputs: int) -> list[nn.Module]:
    return [nn.Linear(inputs, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU(), nn.Linear(width, outputs)]


METHODS["vae"] = VAE  # from here on recipes may name it, and `fabrica.load` knows it, in this process


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Train and sample a method of your own.")
    parser.add_argument("--data", default="phantom:chest", help="a manifest or a folder of images; none: phantoms")
    parser.add_argument("--steps", type=int, default=3000, help="of training")
    parser.add_argument("-o", "--out", type=Path, default=Path("own-method"))
    options = parser.parse_args(arguments)

    data = DataConfig(source=options.data, count=PHANTOMS, size=[32, 32])
    recipe = Recipe(name="vae", method={"name": "vae"}, data=data, train=TrainConfig(steps=options.steps, lr=1e-3))
    model = fabrica.load(fabrica.train(recipe, options.out / "model"))
    (options.out / "samples").mkdir()
    for k, image in enumerate(model.sample(16, seed=0)):
        fabrica.write(image, options.out / "samples" / f"{k:02d}.png", synthetic=True, model=model.name, seed=k)
    print(f"see {options.out / 'model' / 'samples.png'}")


if __name__ == "__main__":
    main()
