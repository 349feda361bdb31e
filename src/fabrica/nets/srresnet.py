"""The two networks of SRGAN: one that doubles or quadruples resolution, and its critic.

Ledig et al.: Photo-realistic single image super-resolution using a generative adversarial network (CVPR 2017).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from fabrica.errors import UsageError
from fabrica.nets.convolutions import starting_at_zero

SLOPE = 0.2
STEEPEST = 512  # channels of the critic


class SRResNet(nn.Module):
    """images (B, C, H, W) on the fine grid -> (B, C, H, W), finer (figure 4).

    The images are pixels repeated `scale` times along both axes; the network sees every scale-th one of them, so that
    what goes in and what comes out lie on one grid. scale is 2 or 4. Unlike the paper's, it corrects the bicubic image
    and starts as that: to learn the image itself takes it hours.
    """

    def __init__(self, channels: int, scale: int, width: int = 64, blocks: int = 16) -> None:
        super().__init__()
        if scale not in (2, 4):
            raise UsageError(f"method.scale is {scale}; expected 2 or 4")
        if blocks < 1:
            raise UsageError(f"method.blocks is {blocks}; expected at least 1")
        self.scale = scale
        self.enter = nn.Sequential(nn.Conv2d(channels, width, 9, padding=4), nn.PReLU())
        self.blocks = nn.Sequential(*(_Block(width) for _ in range(blocks)))
        self.after = nn.Sequential(nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width))
        finer: list[nn.Module] = []
        for _ in range(scale // 2):
            finer += [_repeating(width), nn.PixelShuffle(2), nn.PReLU()]
        self.leave = nn.Sequential(*finer, starting_at_zero(nn.Conv2d(width, channels, 9, padding=4)))

    def forward(self, x: Tensor) -> Tensor:
        coarse = x[..., :: self.scale, :: self.scale]
        low = self.enter(coarse)
        correction = self.leave(low + self.after(self.blocks(low)))
        fine: Tensor = interpolate(coarse, scale_factor=self.scale, mode="bicubic") + correction
        return fine[..., : x.shape[2], : x.shape[3]]


class _Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.PReLU(),
            nn.Conv2d(width, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
        )

    def forward(self, x: Tensor) -> Tensor:
        total: Tensor = x + self.layers(x)
        return total


class SRCritic(nn.Module):
    """images (B, C, H, W) -> scores (B,), for sides from 32 (figure 4). The mean over all places stands before the two
    dense layers, so that crops of any size will do."""

    def __init__(self, channels: int, width: int = 64) -> None:
        super().__init__()
        self.layers = nn.ModuleList()
        before = channels
        for k in range(8):
            after = min(width * 2 ** (k // 2), STEEPEST)
            layers: list[nn.Module] = [nn.Conv2d(before, after, 3, stride=1 + k % 2, padding=1, bias=k == 0)]
            layers += [nn.BatchNorm2d(after)] * (k > 0) + [nn.LeakyReLU(SLOPE)]
            self.layers.append(nn.Sequential(*layers))
            before = after
        self.judge = nn.Sequential(nn.Linear(before, 16 * width), nn.LeakyReLU(SLOPE), nn.Linear(16 * width, 1))

    def forward(self, images: Tensor, features: bool = False) -> Tensor | list[Tensor]:
        """The scores; with `features` a list of them and of what the eight layers find, (B, C_k, H_k, W_k) each:
        distances between them are a perceptual loss that needs no network of photographs."""
        if min(images.shape[2:]) < 32:
            raise UsageError(f"images are {list(images.shape[2:])}; the critic of SRGAN takes 32 or more a side")
        found = []
        for layer in self.layers:
            images = layer(images)
            found.append(images)
        scores: Tensor = self.judge(images.mean((2, 3))).flatten()
        return [scores, *found] if features else scores


@torch.no_grad()
def _repeating(width: int) -> nn.Conv2d:
    """A sub-pixel convolution that starts as one that repeats pixels: what it would give the four pixels of a square by
    chance is the checkerboard of early training (ICNR, Aitken et al. 2017)."""
    convolution = nn.Conv2d(width, 4 * width, 3, padding=1)
    convolution.weight.copy_(convolution.weight[::4].repeat_interleave(4, dim=0))
    nn.init.zeros_(convolution.get_parameter("bias"))
    return convolution
