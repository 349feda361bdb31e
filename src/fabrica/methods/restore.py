"""Restoration: a network learns to undo what made images worse, from pairs, from few pairs, or from none.

Losses are sums with the weights of a preset: L1 and structural similarity as in Zhao et al. 2017 (Loss functions for
image restoration with neural networks, IEEE TCI), to which a critic of patches may be added, or drifting: a field that
moves what the network takes away towards what is to be taken away, and apart (Wang et al., RDDM: a residual-driven
drifting model for high-fidelity low-dose CT denoising, 2026). Without clean images the network learns from neighbouring
pixels: Huang et al., Neighbor2Neighbor: self-supervised denoising from single noisy images (CVPR 2021), which holds for
noise that is independent from pixel to pixel: of detectors, of MR, not of reconstructed CT, whose noise has a texture.
Contrasts beside the image are left out now and then, so that it can do without (ModDrop: Neverova et al. 2016, IEEE
TPAMI).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, pixel_unshuffle

from fabrica.adversarial.losses import accuracy, frozen, least_squares, refuse_small
from fabrica.codec import ABSENT
from fabrica.diffusion.drifting import beside, drifting_loss
from fabrica.errors import UsageError, unknown
from fabrica.methods import Translator, Turn
from fabrica.nets import losses
from fabrica.nets.framing import middle_of
from fabrica.nets.nafnet import NAFNet
from fabrica.nets.redcnn import REDCNN
from fabrica.nets.translators import PatchCritic
from fabrica.nets.unetpp import UNetPlusPlus

PRESETS: dict[str, dict[str, float]] = {
    "l1": {"l1": 1.0},
    "l1+ssim": {"l1": 0.7, "ssim": 0.3},
    "l1+ssim+critic": {"l1": 0.5, "ssim": 0.3, "critic": 0.2},
}
NETWORKS = ("nafnet", "redcnn", "unet++")
TARGETS = ("clean", "self")
AROUND = 9  # squares a side in which noise is measured
FAINTEST = 1e-2  # of the mean variance: what is constant, such as a burned-in letter, does not count more than that
NEIGHBOURS = ((0, 1), (1, 0), (0, 2), (2, 0), (1, 3), (3, 1), (2, 3), (3, 2))  # in a square of 0 1 / 2 3
SETS = ("critic", "drift")  # what sees images together, and so says nothing of one
GOLDEN = (5**0.5 - 1) / 2
TERMS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {  # (B, C, H, W) made and wanted -> (B,)
    "l1": lambda made, wanted: (made - wanted).abs().flatten(1).mean(1),
    "ssim": lambda made, wanted: 1 - losses.ssim(made, wanted),
    "ms_ssim": lambda made, wanted: 1 - losses.ms_ssim(made, wanted),
    "gradient": losses.gradient_similarity_deviation,
    "frequency": losses.frequency_distance,
}


class Restore(Translator):
    """The network sees a (B, C, H, W), the worse image and what is beside it, and gives b, the better one; [-1, 1]."""

    @dataclass
    class Config:
        network: str = "nafnet"  # nafnet, redcnn or unet++
        size: str = "small"  # of nafnet: tiny, small, base
        unshuffle: int = 4  # of nafnet: pixels along the side of what it makes one
        width: int = 0  # channels of redcnn (0: 96) and of unet++ at full resolution (0: 32)
        encoder: str = "plain"  # of unet++: plain, resnet34
        supervised: bool = True  # unet++ learns at each of its depths (deep supervision)
        loss: str = "l1"  # l1, l1+ssim, l1+ssim+critic
        weights: dict[str, float] = field(default_factory=dict)  # laid over the preset's; others are in TERMS and SETS
        target: str = "clean"  # self: b is never looked at
        clean: float = 1.0  # the share of training images whose clean one is looked at; the others are their own target
        drop: float = 0.0  # the share of training images that each contrast beside is left out of
        critic_width: int = 64

    directions = ("a2b",)
    pairs = True
    ships = ("network",)
    local = True
    mends = True
    reaches = True
    multimodal = True
    validated = True
    config: Config

    def __init__(self, config: Config, a: tuple[int, ...], b: tuple[int, ...], auxiliary: int = 0) -> None:
        """a, b: (C, H, W) of the two sides; auxiliary: how many contrasts follow a, each with the channels of b."""
        super().__init__()
        if len(a) != 3:
            raise UsageError("restore sees slices; give data.size as [H, W], and neighbours by data.context")
        self.weights = _weights(config)
        if config.target not in TARGETS:
            raise unknown("target", config.target, TARGETS)
        if not 0 < config.clean <= 1:
            raise UsageError(f"method.clean is {config.clean}; expected a share above 0, at most 1 (none: target=self)")
        if not 0 <= config.drop < 1:
            raise UsageError(f"method.drop is {config.drop}; expected a share from 0 to below 1")
        self.keep = "last" if config.target == "self" else "loss"  # noisy pixels do not tell which weights are best
        self.config, self.contrasts, self.auxiliary = config, auxiliary, auxiliary * b[0]
        self.network: nn.Module = _network(config, a[0] + self.auxiliary, b[0], self.auxiliary)
        self.players = {"network": ("network",)}
        self.least_batch = 2 if self.weights.get("drift") else 1  # what is made must have something to keep away from
        if self.weights.get("critic"):
            refuse_small("restore", b)
            self.critic: nn.Module = PatchCritic(b[0], config.critic_width)
            self.players = {"critic": ("critic",), **self.players}
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # faster on processors

    def turns(self, batch: dict[str, Tensor], rng: torch.Generator) -> Iterator[Turn]:
        a, b = self._dropped(batch["a"], rng), batch["b"]
        known = self._known(batch["index"])
        if not known.any():
            yield Turn("network", self._from_neighbours(a, rng).mean(), {})
            return
        made = self._depths(a[known])
        if "critic" in self.players:
            on_real, on_fake = self.critic(torch.cat([b[known], made[-1].detach()])).chunk(2)
            conditions = accuracy(on_real, on_fake, threshold=0.5)._asdict()
            yield Turn("critic", 0.5 * (least_squares(on_real, 1.0) + least_squares(on_fake, 0.0)), conditions)
        loss = torch.stack([self._distance(one, b[known]) for one in made]).mean(0).sum()
        if not known.all():
            loss = loss + self._from_neighbours(a[~known], rng).sum()
        loss = loss / len(a)
        if "critic" in self.players:
            with frozen(self.critic):
                loss = loss + self.weights["critic"] * least_squares(self.critic(made[-1]), 1.0)
        if self.weights.get("drift"):
            given = middle_of(a[known], b, self.auxiliary)
            drifting = drifting_loss((made[-1] - given).float(), b[known] - given, rng=rng)
            loss = beside(loss, drifting, made[-1], self.weights["drift"])
        yield Turn("network", loss, {})

    def validation(self, batch: dict[str, Tensor], rng: torch.Generator) -> Tensor:
        """The loss (B,) on held-out images, without the critic; without clean ones, that of neighbours."""
        if self.config.target == "self":
            return self._from_neighbours(batch["a"], rng)
        return self._distance(self.translate(batch["a"], "a2b"), batch["b"])

    def translate(self, images: Tensor, direction: str) -> Tensor:
        """a and what is beside it (B, C, H, W) in [-1, 1] -> b (B, C2, H, W) in [-1, 1]."""
        found: Tensor = self.network(images)
        return found.clamp(-self.reach, self.reach)

    def _dropped(self, a: Tensor, rng: torch.Generator) -> Tensor:
        """a with each contrast beside absent in the share `drop` of images, drawn one by one; never the worse image."""
        if not (self.contrasts and self.config.drop):
            return a
        left_out = torch.rand(len(a), self.contrasts, generator=rng) < self.config.drop
        channels = left_out.repeat_interleave(self.auxiliary // self.contrasts, dim=1)[..., None, None].to(a.device)
        own, others = a.tensor_split([a.shape[1] - self.auxiliary], dim=1)
        return torch.cat([own, others.masked_fill(channels, ABSENT)], dim=1)

    def _known(self, index: Tensor) -> Tensor:
        """Of which training images (B,) the clean one is looked at: the same ones every time, evenly spread."""
        if self.config.target == "self":
            return torch.zeros_like(index, dtype=torch.bool)
        return (index.double() * GOLDEN) % 1.0 < self.config.clean

    def _depths(self, images: Tensor) -> list[Tensor]:
        """The answer, after those of a network's lesser depths where it learns at each of them."""
        made = self.network(images)
        return made if isinstance(made, list) else [made]

    def _distance(self, made: Tensor, wanted: Tensor) -> Tensor:
        """(B,): the preset's terms, weighted."""
        found = [
            TERMS[name](made, wanted) * weight for name, weight in self.weights.items() if name in TERMS and weight
        ]
        return torch.stack(found).sum(0)

    def _from_neighbours(self, a: Tensor, rng: torch.Generator) -> Tensor:
        """(B,): Neighbor2Neighbor's loss (eq. 5). Of every square of 2 x 2 pixels one goes into an image of half the
        size and a neighbour of it into another: the same anatomy, other noise. Each is learnt from the other.

        Squares count by the inverse of the noise around them, which the two tell as well: that of a radiograph is four
        times as strong in its bright parts as in its dark ones. The paper's regularisation (eq. 6) is left out: in the
        minutes that training takes here it cost 1.3 dB.
        """
        places = torch.randint(len(NEIGHBOURS), (len(a), 1, a.shape[2] // 2, a.shape[3] // 2), generator=rng)
        one, other = (_picked(a, which) for which in torch.tensor(NEIGHBOURS).T[:, places].to(a.device))
        depths = self._depths(torch.cat([one, other]))
        wanted = middle_of(torch.cat([other, one]), depths[-1], self.auxiliary)
        noise = avg_pool2d(
            (wanted[: len(a)] - wanted[len(a) :]).square(), AROUND, 1, AROUND // 2, count_include_pad=False
        )
        weight = 1 / (noise + FAINTEST * noise.mean()).clamp(min=1e-8)
        weight = (weight / weight.mean((2, 3), keepdim=True)).repeat(2, 1, 1, 1)
        off = torch.stack([(weight * (made - wanted).square()).flatten(1).mean(1) for made in depths]).mean(0)
        return 0.5 * (off[: len(a)] + off[len(a) :])


def _picked(images: Tensor, which: Tensor) -> Tensor:
    """One pixel of each square of images (B, C, H, W), 0 to 3 row by row: `which` (B, 1, h, w) -> (B, C, h, w)."""
    height, width = which.shape[2:]
    squares = pixel_unshuffle(images[..., : 2 * height, : 2 * width], 2).reshape(len(images), -1, 4, height, width)
    picked: Tensor = squares.gather(2, which[:, None].expand(-1, squares.shape[1], -1, -1, -1)).squeeze(2)
    return picked


def _weights(config: Restore.Config) -> dict[str, float]:
    if config.loss not in PRESETS:
        raise unknown("loss", config.loss, PRESETS)
    for name, weight in config.weights.items():
        if name not in (*TERMS, *SETS):
            raise unknown("weight", name, (*TERMS, *SETS))
        if weight < 0:
            raise UsageError(f"method.weights.{name} is {weight}; expected 0 or more")
    found = PRESETS[config.loss] | config.weights
    if not any(weight for name, weight in found.items() if name in TERMS):
        raise UsageError("method.weights are all 0: nothing says what a restored image should be like")
    return found


def _network(config: Restore.Config, channels: int, out_channels: int, auxiliary: int) -> nn.Module:
    if config.network == "nafnet":
        return NAFNet(channels, out_channels, config.size, config.unshuffle, auxiliary)
    if config.network == "redcnn":
        return REDCNN(channels, out_channels, config.width or 96, auxiliary)
    if config.network == "unet++":
        width, encoder = config.width or 32, config.encoder
        return UNetPlusPlus(channels, out_channels, width, encoder, config.supervised, auxiliary=auxiliary)
    raise unknown("network", config.network, NETWORKS)
