"""pix2pix: a conditional GAN with an L1 loss on registered pairs.

Isola, Zhu, Zhou, Efros: Image-to-image translation with conditional adversarial networks (CVPR 2017). The classic is
network=unet with dropout, l1=100 and the critic at full weight. The strong setting, that of the SynthRAD challenges'
best (FIELD: 2.5-D residual U-Nets or U-Net++, L1 inside the body, a weak critic), is network=residual or unet++,
masked=true, adversarial below 1. Pairs that are off by a few voxels: registration (RegGAN, Kong et al. 2021). In the
place of a critic a field may move answers towards real images and apart: drifting (Li et al., Generative drifting for
conditional medical image generation, 2026).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fabrica.adversarial.losses import accuracy, critic_loss, frozen, generator_loss, refuse_small
from fabrica.diffusion.drifting import beside, drifting_loss
from fabrica.errors import UsageError, unknown
from fabrica.methods import Translator, Turn
from fabrica.nets import losses
from fabrica.nets.registration import Registration, roughness, warped
from fabrica.nets.translators import PatchCritic, ResidualUNet, UNetGenerator
from fabrica.nets.unetpp import UNetPlusPlus

NETWORKS = ("unet", "residual", "unet++")
OUTSIDE = 0.1  # weight of voxels outside the body: air must stay air, and is easy


class Pix2Pix(Translator):
    """Networks see a (B, C, *S) and b (B, C2, *S) in [-1, 1], S = H, W or D, H, W; b stands where a does."""

    @dataclass
    class Config:
        network: str = "unet"  # unet (the paper's), residual, or unet++
        width: int = 64  # channels at full resolution
        levels: int = 7  # of resolution; unet++ has five
        dropout: float = 0.5  # of unet
        noise: int = 0  # channels of noise beside a: what a mask leaves open is drawn from them; 0: none
        critic_width: int = 64
        l1: float = 100.0  # lambda
        ssim: float = 0.0  # weight of 1 - structural similarity, of volumes slice by slice (Zhao et al. 2017)
        adversarial: float = 1.0  # weight of the critic; 0: no critic at all
        drifting: float = 0.0  # length of that field's gradient in answers, in those of all else; 0: none
        masked: bool = False  # L1 counts inside the body, and a tenth outside
        registration: float = 0.0  # weight of the smoothness of displacements; 0: pairs are trusted to the voxel
        mirror: bool = False  # the answer is the mean of those to the image and to its mirror image, left to right

    directions = ("a2b",)
    pairs = True
    ships = ("generator",)
    validated = True
    keep = "loss"
    logged = ("l1",)
    config: Config

    def __init__(self, config: Config, a: tuple[int, ...], b: tuple[int, ...]) -> None:
        """a, b: (C, *S) of the two sides."""
        super().__init__()
        if config.network not in NETWORKS:
            raise unknown("network", config.network, NETWORKS)
        if config.noise < 0:
            raise UsageError(f"method.noise is {config.noise}; expected 0 channels or more")
        weights = config.l1, config.ssim, config.adversarial, config.drifting
        if min(*weights, config.registration) < 0 or not any(weights):
            raise UsageError(
                "method.l1, ssim, adversarial, drifting and registration are weights: 0 or more, and not all 0"
            )
        if config.drifting and len(a) != 3:
            raise UsageError("method.drifting sees slices; give data.size as [H, W], or set method.drifting=0")
        if config.adversarial:
            refuse_small("pix2pix", a)
        self.config = config
        self.needs = ("body",) if config.masked else ()
        dims = len(a) - 1
        # batch norm needs two values: of one image there is only one where the network has shrunk it to a voxel
        self.least_batch = 2 if config.drifting or max(a[1:]) <= _shrinks(config) else 1
        self.generator: nn.Module = _generator(config, a[0] + config.noise, b[0], dims)
        self.players = {"generator": ("generator",)}
        if config.registration:
            self.registrar: nn.Module = Registration(b[0], dims)
            self.players["generator"] = ("generator", "registrar")
        if config.adversarial:
            self.critic: nn.Module = PatchCritic(a[0] + b[0], config.critic_width, dims=dims)
            self.players = {"critic": ("critic",), **self.players}
        if dims == 2:
            self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # faster on processors

    def turns(self, batch: dict[str, Tensor], rng: torch.Generator) -> Iterator[Turn]:
        a, b = batch["a"], batch["b"]
        fake = self.generator(torch.cat([a, self._noise(a, rng)], 1))
        if self.config.adversarial:
            on_real, on_fake = self.critic(torch.cat([a, b], 1)), self.critic(torch.cat([a, fake.detach()], 1))
            conditions = accuracy(on_real, on_fake)._asdict()
            yield Turn("critic", 0.5 * critic_loss(on_real, on_fake), conditions)  # halved: section 3.3

        loss, moved = fake.new_zeros(()), fake
        if self.config.registration:
            displacements = self.registrar(fake, b)
            moved = warped(fake, displacements)
            loss = loss + self.config.registration * roughness(displacements)
        distance = self._l1(moved, b, batch.get("body")).mean()
        loss = loss + self.config.l1 * distance
        if self.config.ssim:
            loss = loss + self.config.ssim * _dissimilarity(moved, b).mean()
        if self.config.adversarial:
            with frozen(self.critic):
                loss = loss + self.config.adversarial * generator_loss(self.critic(torch.cat([a, fake], 1)))
        if self.config.drifting:
            loss = beside(loss, drifting_loss(moved.float(), b, rng=rng), moved, self.config.drifting)
        yield Turn("generator", loss, {"l1": float(distance.detach())})

    def validation(self, batch: dict[str, Tensor], rng: torch.Generator) -> Tensor:
        """The L1 distance (B,) of held-out pairs, inside the body where training counts it there, and structural
        dissimilarity with the share that it has in training."""
        made = self.translate(batch["a"], "a2b")
        distance = self._l1(made, batch["b"], batch.get("body"))
        if not self.config.ssim:
            return distance
        return distance + self.config.ssim / (self.config.l1 or self.config.ssim) * _dissimilarity(made, batch["b"])

    def translate(self, images: Tensor, direction: str) -> Tensor:
        """a (B, C, *S) in [-1, 1] -> b (B, C2, *S) in [-1, 1]; with noise, that of seed 0."""
        if self.config.noise:
            one = self._noise(images[:1], torch.Generator().manual_seed(0))  # the same beside each, whatever the batch
            images = torch.cat([images, one.expand(len(images), *one.shape[1:])], 1)
        found: Tensor = self.generator(images)
        if self.config.mirror:
            found = (found + self.generator(images.flip(-1)).flip(-1)) / 2
        return found.clamp(-1, 1)

    def _noise(self, like: Tensor, rng: torch.Generator) -> Tensor:
        """Standard normal (B, noise, *S)."""
        return torch.randn(len(like), self.config.noise, *like.shape[2:], generator=rng).to(like.device)

    def _l1(self, made: Tensor, wanted: Tensor, body: Tensor | None) -> Tensor:
        distance = (made - wanted).abs().mean(1).flatten(1)
        if body is None:
            return distance.mean(1)
        weight = torch.where(body.flatten(1), 1.0, OUTSIDE)
        return (distance * weight).sum(1) / weight.sum(1)


def _dissimilarity(made: Tensor, wanted: Tensor) -> Tensor:
    """(B,): 1 - structural similarity, of volumes (B, C, D, H, W) the mean over their slices."""
    if made.ndim == 4:
        return 1 - losses.ssim(made, wanted)
    slices = [volume.movedim(2, 1).flatten(0, 1) for volume in (made, wanted)]
    alike: Tensor = losses.ssim(*slices)
    return 1 - alike.reshape(len(made), -1).mean(1)


def _shrinks(config: Pix2Pix.Config) -> int:
    """How many times smaller the layers with batch norm get than the image."""
    most: int = {"unet": 0, "residual": 2 ** (config.levels - 1), "unet++": 16}[config.network]
    return max(most, 8 if config.registration else 0)


def _generator(config: Pix2Pix.Config, channels: int, out_channels: int, dims: int) -> nn.Module:
    if config.network == "unet":
        return UNetGenerator(channels, out_channels, config.width, config.levels, config.dropout, dims)
    if config.network == "residual":
        return ResidualUNet(channels, out_channels, config.width, config.levels, dims)
    return UNetPlusPlus(channels, out_channels, config.width, residual=False, dims=dims)
