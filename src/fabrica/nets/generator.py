"""A generator of one step: images of noise and a label, for squares whose side is a power of two."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

from fabrica.nets import dcgan
from fabrica.nets.convolutions import Doubling


class Generator(nn.Module):
    """z (B, latent) and labels (B,) -> images (B, C, side, side): drawn at 4 x 4, then doubled again and again.

    width   channels at half the side; doubled at each halving, up to 512.

    Doubled by repeating pixels (`Doubling`), and drawn by one more convolution at full resolution, without which the
    repeated pixels stay visible as a plaid. Bilinear interpolation left no grain,
    transposed convolutions a checkerboard. That of R3GAN is residual and does without normalisation; on chest
    radiographs residual blocks here cost variety and speed in the minutes that a processor has, and batch norm gained
    both.
    """

    def __init__(self, latent: int, width: int, channels: int, side: int, classes: int) -> None:
        super().__init__()
        self.embed = nn.Embedding(classes, latent) if classes else None
        widths = [*dcgan.widths(side, width)[::-1], max(width // 2, 1)]
        entry = latent * (2 if classes else 1)
        layers: list[nn.Module] = [nn.ConvTranspose2d(entry, widths[0], dcgan.COARSEST, bias=False)]
        for before, after in pairwise(widths):
            layers += [nn.BatchNorm2d(before), nn.ReLU(inplace=True), Doubling(before, after, bias=False)]
        layers += [nn.BatchNorm2d(widths[-1]), nn.ReLU(inplace=True), nn.Conv2d(widths[-1], channels, 3, padding=1)]
        self.layers = nn.Sequential(*layers)
        self.apply(dcgan.initialise)
        if self.embed is not None:  # small beside z: as loud as z, the label drowns it, and a class is one image
            nn.init.normal_(self.embed.weight, 0.0, 0.02)

    def forward(self, z: Tensor, labels: Tensor | None) -> Tensor:
        if self.embed is not None:
            assert labels is not None  # Model and the data set see to it
            z = torch.cat([z, self.embed(labels)], dim=1)
        return dcgan.reach(self.layers(z[:, :, None, None]))
