"""SRGAN: finer images whose texture a critic believes, after a training by distance alone (SRResNet).

Ledig, Theis, Huszar et al.: Photo-realistic single image super-resolution using a generative adversarial network
(CVPR 2017). The paper compares features of a network trained on photographs; here they are those of a network file,
or of the critic, which has seen nothing but radiology.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import l1_loss

from fabrica.adversarial.losses import accuracy, critic_loss, frozen, generator_loss
from fabrica.errors import UsageError
from fabrica.methods import Translator, Turn
from fabrica.nets.perceptual import feature_distance, seen_otherwise
from fabrica.nets.srresnet import SRCritic, SRResNet

SMALLEST = 32  # pixels a side that the critic sees


class SRGAN(Translator):
    """Networks see a (B, C, H, W), pixels repeated `scale` times, and b (B, C, H, W), both in [-1, 1]."""

    @dataclass
    class Config:
        scale: int = 2  # 2 or 4, as `data.degrade` made images smaller
        width: int = 64
        blocks: int = 16
        critic_width: int = 64
        pretrain: int = 0  # steps by L1 alone before the critic begins (SRResNet); -1: all of them
        l1: float = 1.0
        features: float = 1.0  # weight of the distance of features, the perceptual loss
        adversarial: float = 1e-3  # section 2.2
        network: str = ""  # TorchScript file, images (B, C, H, W) in [-1, 1] -> features; empty: those of the critic

    directions = ("a2b",)
    pairs = True
    ships = ("generator",)
    players: Mapping[str, tuple[str, ...]] = {"generator": ("generator",), "critic": ("critic",)}
    validated = True
    keep = "loss"
    logged = ("l1", "features")
    files = ("network",)
    local = True
    mends = True
    reaches = True
    config: Config

    def __init__(self, config: Config, a: tuple[int, ...], b: tuple[int, ...]) -> None:
        """a, b: (C, H, W) of the two sides."""
        super().__init__()
        if len(a) != 3 or a[0] != b[0]:
            raise UsageError(f"srgan makes slices finer; found images {list(a)} and {list(b)}: no volumes, no context")
        if config.pretrain >= 0 and min(b[1:]) < SMALLEST:
            raise UsageError(f"images are {list(b[1:])}; the critic of srgan takes {SMALLEST} or more along each axis")
        self.config = config
        self.generator: nn.Module = SRResNet(a[0], config.scale, config.width, config.blocks)
        self.critic: nn.Module = SRCritic(b[0], config.critic_width)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # faster on processors

    def turns(self, batch: dict[str, Tensor], rng: torch.Generator) -> Iterator[Turn]:
        a, b = batch["a"], batch["b"]
        made = self.generator(a)
        distance = l1_loss(made, b)
        if self.config.pretrain < 0 or self.step < self.config.pretrain:
            yield Turn("generator", distance, {"l1": float(distance.detach())})
            return
        config = self.config
        with frozen(self.critic):
            scores, *features = self.critic(made, features=True)
            if config.network:
                perceptual = seen_otherwise(config.network, made, b)
            else:
                with torch.no_grad():
                    _, *wanted = self.critic(b, features=True)
                perceptual = feature_distance(features, wanted)
        loss = config.l1 * distance + config.features * perceptual + config.adversarial * generator_loss(scores)
        yield Turn("generator", loss, {"l1": float(distance.detach()), "features": float(perceptual.detach())})

        on_real, on_fake = self.critic(b), self.critic(made.detach())  # apart: each set has its own statistics
        yield Turn("critic", critic_loss(on_real, on_fake), accuracy(on_real, on_fake)._asdict())

    def validation(self, batch: dict[str, Tensor], rng: torch.Generator) -> Tensor:
        """The L1 distance (B,) of held-out images: what SRResNet is good at, and SRGAN pays with."""
        return (self.translate(batch["a"], "a2b") - batch["b"]).abs().flatten(1).mean(1)

    def translate(self, images: Tensor, direction: str) -> Tensor:
        """a (B, C, H, W) in [-1, 1] -> b (B, C, H, W) in [-1, 1]."""
        found: Tensor = self.generator(images)
        return found.clamp(-self.reach, self.reach)
