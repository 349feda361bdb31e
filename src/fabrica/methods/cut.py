"""CUT: one translator whose patches must be recognised among others, learned without pairs and without a way back.

Park, Efros, Zhang, Zhu: Contrastive learning for unpaired image-to-image translation (ECCV 2020). FastCUT is nce=10
with identity=false. The paper trains one image at a time by Adam, learning rate 2e-4, betas 0.5 and 0.999.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, normalize

from fabrica.adversarial.losses import accuracy, frozen, least_squares, refuse_volumes
from fabrica.errors import UsageError
from fabrica.methods import Translator, Turn
from fabrica.nets.translators import PatchCritic, ResNetGenerator

TEMPERATURE = 0.07
FEATURES = 256  # that a patch is described by


class CUT(Translator):
    """Networks see a (B, C, H, W) and b (B, C2, H, W) in [-1, 1]; no image of a belongs to one of b."""

    @dataclass
    class Config:
        width: int = 64
        blocks: int = 6
        critic_width: int = 64
        nce: float = 1.0  # lambda: weight of the contrastive loss
        identity: bool = True  # contrast b with its own translation, too: keeps what needs no change
        residual: bool = False  # a is corrected, not drawn anew: for sides that look alike, such as two scanners
        patches: int = 256  # places contrasted with one another in each image and layer

    directions = ("a2b",)
    pairs = False
    ships = ("generator",)
    players: Mapping[str, tuple[str, ...]] = {"critic": ("critic",), "generator": ("generator", "projection")}
    keep = "frd"
    logged = ("nce",)
    config: Config

    def __init__(self, config: Config, a: tuple[int, ...], b: tuple[int, ...]) -> None:
        """a, b: (C, H, W) of the two sides."""
        super().__init__()
        refuse_volumes("cut", a)
        if a[0] != b[0]:
            raise UsageError(
                f"the sides have {a[0]} and {b[0]} channels; cut has one encoder for both: take pix2pix or cyclegan"
            )
        self.config = config
        generator = ResNetGenerator(a[0], b[0], config.width, config.blocks, config.residual)
        # after each convolution that halves, and in the first and the middle of the residual blocks
        last = len(generator.encode) - config.blocks
        self.taps = sorted({0, 3, 6, last, last + config.blocks // 2})
        self.projection: nn.Module = Projection([generator.widths[k] for k in self.taps])
        self.generator: nn.Module = generator
        self.critic: nn.Module = PatchCritic(b[0], config.critic_width)

    def turns(self, batch: dict[str, Tensor], rng: torch.Generator) -> Iterator[Turn]:
        a, b = batch["a"], batch["b"]
        made, *seen = self.generator(torch.cat([a, b]) if self.config.identity else a, self.taps)
        fake = made[: len(a)]
        on_real, on_fake = self.critic(torch.cat([b, fake.detach()])).chunk(2)
        loss = 0.5 * (least_squares(on_real, 1.0) + least_squares(on_fake, 0.0))
        yield Turn("critic", loss, accuracy(on_real, on_fake, threshold=0.5)._asdict())

        with frozen(self.critic):
            fooled = least_squares(self.critic(fake), 1.0)
        contrast = self._contrast(seen, made, rng)  # the mean of both parts: eq. 6 with equal weights
        yield Turn("generator", fooled + self.config.nce * contrast, {"nce": float(contrast.detach())})

    def translate(self, images: Tensor, direction: str) -> Tensor:
        """a (B, C, H, W) in [-1, 1] -> b."""
        found: Tensor = self.generator(images)
        return found.clamp(-1, 1)

    def _contrast(self, source: list[Tensor], made: Tensor, rng: torch.Generator) -> Tensor:
        """Patches of the translation against the same and other places of its source, layer by layer (eq. 4).

        source   what the encoder made of the source on the way to the translation; no gradient flows there (eq. 3).
        """
        places = [
            torch.randperm(layer.shape[2] * layer.shape[3], generator=rng)[: self.config.patches].to(made.device)
            for layer in source
        ]
        with torch.no_grad():
            keys = self.projection([_at(layer, p) for layer, p in zip(source, places, strict=True)])
        again = self.generator(made, self.taps, decode=False)
        queries = self.projection([_at(layer, p) for layer, p in zip(again, places, strict=True)])
        losses = [patch_nce(query, key) for query, key in zip(queries, keys, strict=True)]
        return torch.stack(losses).mean()


class Projection(nn.Module):
    """Patches of each layer (B, P, C) -> unit vectors (B, P, FEATURES): two layers each (section 3)."""

    def __init__(self, widths: Sequence[int]) -> None:
        super().__init__()
        self.heads = nn.ModuleList(
            nn.Sequential(nn.Linear(width, FEATURES), nn.ReLU(), nn.Linear(FEATURES, FEATURES)) for width in widths
        )

    def forward(self, layers: Sequence[Tensor]) -> list[Tensor]:
        return [normalize(head(patches).float(), dim=-1) for head, patches in zip(self.heads, layers, strict=True)]


def patch_nce(queries: Tensor, keys: Tensor) -> Tensor:
    """Cross-entropy of finding, for each patch of a translation (B, P, F), its own place among the patches of the
    source (B, P, F), both unit vectors (eq. 3)."""
    alike = torch.einsum("bpf,bqf->bpq", queries, keys) / TEMPERATURE
    own = torch.arange(alike.shape[1], device=alike.device).expand(len(alike), -1)
    return cross_entropy(alike.flatten(0, 1), own.flatten())


def _at(features: Tensor, places: Tensor) -> Tensor:
    """(B, C, H, W) at flat places (P,): (B, P, C)."""
    return features.flatten(2)[:, :, places].transpose(1, 2)
