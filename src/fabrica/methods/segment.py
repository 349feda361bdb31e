"""Segmentation: a network says of each voxel what it belongs to.

Dice and cross-entropy with deep supervision on patches, as nnU-Net learns (Isensee et al. 2021). The adversarial term
is one of two: a critic that looks at the image through each mask, at several depths (SegAN: Xue et al. 2018,
Neuroinformatics 16, eq. 1 and 2), or one of patches of image and mask (Isola et al. 2017). Of images without label maps
the critic of patches says where an answer looks drawn by hand, and there it is learned from (Hung et al. 2018, BMVC,
eq. 5). Of several contrasts now and then one is left out, so that the network can do without (ModDrop: Neverova et al.
2016, IEEE TPAMI).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from fabrica.adversarial.losses import accuracy, critic_loss, frozen, generator_loss, refuse_small
from fabrica.codec import ABSENT
from fabrica.errors import UsageError, unknown
from fabrica.methods import Compressor, Method, Teacher, Translator, Turn, side_shape
from fabrica.nets.overlap import cross_entropy, probabilities, signs, soft_dice
from fabrica.nets.segmenters import MaskCritic, SegmenterUNet
from fabrica.nets.translators import PatchCritic
from fabrica.nets.unetpp import UNetPlusPlus
from fabrica.recipe.found import Found
from fabrica.recipe.plan import Plan
from fabrica.recipe.schema import Recipe

NETWORKS = ("unet", "residual", "unet++")
CRITICS = ("segan", "patch")
RESIDUAL_BLOCKS = (1, 2, 2, 3, 3, 3)  # of the levels of network=residual
# Widths of the levels, times that of full resolution, and of all coarser ones WIDEST. Doubled, a level of pictures
# costs as much as the one before it, one of volumes half: most time goes into their full resolution, so it is thin.
GROWTH = {2: (1, 2, 4, 8, 16), 3: (1, 4, 8, 16)}
WIDEST = 20


def widths(width: int, levels: int, dims: int) -> list[int]:
    """Channels of each level of a U-Net of this width at full resolution, the finest first."""
    return [width * times for times in [*GROWTH[dims], *[WIDEST] * levels][:levels]]


class Segment(Translator):
    """Networks see a (B, C, *S) in [-1, 1] and give logits of b (B, K, *S), a channel a class, the background first; of
    a plan with regions, which may overlap, a channel a region, and none for the background."""

    @dataclass
    class Config:
        network: str = "unet"  # unet, residual (a residual encoder), or unet++
        width: int = 8  # channels at full resolution; `widths` says how many coarser levels have
        norm: str = "batch"  # batch, or instance
        supervised: bool = True  # the decoder's coarser levels answer, too (deep supervision)
        dice: float = 1.0
        cross_entropy: float = 1.0
        adversarial: float = 0.0  # weight of the critic; 0: no critic at all
        critic: str = "segan"  # segan, or patch
        critic_width: int = 32
        unlabelled: float = 0.0  # weight of what is learned of images without label maps; takes critic=patch
        sure: float = 0.2  # how much an answer must look drawn by hand to be learned from
        drop: float = 0.2  # the share of training patches of which one of several contrasts is left out

    task = "segmentation"
    directions = ("a2b",)
    pairs = True
    ships = ("network",)
    validated = True
    keep = "loss"
    logged = ("dice",)
    multimodal = True
    plans = True
    config: Config

    @classmethod
    def built(
        cls, config: Any, recipe: Recipe, found: Found, space: Compressor | None, teacher: Teacher | None
    ) -> Method:
        if not found.plan.size:
            raise UsageError("segment is planned from training images; train it with fabrica train, or give a plan")
        data = found.data(recipe.data)
        a, b = side_shape(data, found, "a"), side_shape(data, found, "b")
        beside = [data.channels] * len(data.auxiliary)
        return cls(config, (a[0] + sum(beside), *a[1:]), b, found.plan, [a[0], *beside])

    def __init__(
        self, config: Config, a: tuple[int, ...], b: tuple[int, ...], plan: Plan, contrasts: Sequence[int] = ()
    ) -> None:
        """a, b: (C, *S) of the patches of images and of label maps; contrasts: how many of a's channels show each."""
        super().__init__()
        if config.network not in NETWORKS:
            raise unknown("network", config.network, NETWORKS)
        if config.critic not in CRITICS:
            raise unknown("critic", config.critic, CRITICS)
        if min(config.dice, config.cross_entropy, config.adversarial, config.unlabelled) < 0:
            raise UsageError("method.dice, cross_entropy, adversarial and unlabelled are weights: 0 or more")
        if config.dice + config.cross_entropy == 0:
            raise UsageError("method.dice and method.cross_entropy are both 0: nothing says what a mask should be like")
        if config.unlabelled and not (config.adversarial and config.critic == "patch"):
            raise UsageError(
                "method.unlabelled takes a critic of patches: set method.critic=patch and adversarial=0.01"
            )
        if not 0 <= config.drop < 1:
            raise UsageError(f"method.drop is {config.drop}; expected a share from 0 to below 1")
        self.config, self.plan, self.contrasts = config, plan, list(contrasts)
        self.regions = bool(plan.regions)
        self.first = 0 if self.regions else 1  # channel that is not the background
        self.least_batch = 2 if config.norm == "batch" else 1
        self.network: nn.Module = _network(config, a[0], b[0], plan)
        self.players = {"network": ("network",)}
        if config.adversarial:
            self.critic: nn.Module
            if config.critic == "segan":
                self.critic = MaskCritic(a[0], config.critic_width, len(a) - 1)
            else:
                refuse_small("segment", a)
                self.critic = PatchCritic(a[0] + b[0], config.critic_width, dims=len(a) - 1)
            self.players = {"critic": ("critic",), **self.players}
        self.to(memory_format=torch.channels_last if len(a) == 3 else torch.channels_last_3d)  # type: ignore[call-overload]

    def turns(self, batch: dict[str, Tensor], rng: torch.Generator) -> Iterator[Turn]:
        a, b = self._dropped(batch["a"], rng), batch["b"]
        answers = self._answers(a)
        made = probabilities(answers[-1], self.regions)
        images, every = a, made  # that the critic sees answers to: the unlabelled ones last
        if self.config.unlabelled:
            unlabelled = self._dropped(batch["unlabelled"], rng)
            images = torch.cat([a, unlabelled])
            every = torch.cat([made, probabilities(self._answers(unlabelled)[-1], self.regions)])
        if self.config.adversarial:
            yield self._critic_turn(a, b, images, every.detach())
        loss = self._distance(answers, b).mean()
        metrics = {"dice": float(soft_dice(made.detach(), b, batch=True)[:, self.first :].nanmean())}
        if self.config.adversarial:
            with frozen(self.critic):
                loss = loss + self.config.adversarial * self._fooled(b, images, every)
                if self.config.unlabelled:
                    loss = loss + self.config.unlabelled * self._taught(images[len(a) :], every[len(a) :])
        yield Turn("network", loss, metrics)

    def validation(self, batch: dict[str, Tensor], rng: torch.Generator) -> Tensor:
        """1 - the mean Dice (B,) of the classes that a held-out patch shows, of hard answers."""
        b = batch["b"]
        answer = self.network(batch["a"])
        if self.regions:
            hard = (answer > 0).to(b.dtype)
        else:
            hard = torch.zeros_like(b).scatter_(1, answer.argmax(1, keepdim=True), 1.0)
        dice = soft_dice(hard, b)[:, self.first :]
        shown = (b[:, self.first :] > 0).flatten(2).any(2)
        found = 1 - dice.masked_fill(~shown, torch.nan).nanmean(1)
        return torch.where(found.isnan(), 1 - dice.nan_to_num(1.0).mean(1), found)

    def translate(self, images: Tensor, direction: str) -> Tensor:
        """a (B, C, *S) in [-1, 1] -> probabilities of the classes (B, K, *S), from -1 for 0 to 1 for 1."""
        return signs(self.network(images).float(), self.regions)

    def _dropped(self, images: Tensor, rng: torch.Generator) -> Tensor:
        """Images (B, C, *S) with one of several contrasts absent in the share `drop` of them, any of them alike."""
        count = len(self.contrasts)
        if count < 2 or not self.config.drop:
            return images
        which = torch.randint(count, (len(images), 1), generator=rng)
        gone = (which == torch.arange(count)) & (torch.rand(len(images), 1, generator=rng) < self.config.drop)
        channels = gone.repeat_interleave(torch.tensor(self.contrasts), dim=1)
        return images.masked_fill(channels.reshape(*channels.shape, *[1] * (images.ndim - 2)).to(images.device), ABSENT)

    def _answers(self, images: Tensor) -> list[Tensor]:
        found = self.network(images)
        return found if isinstance(found, list) else [found]

    def _distance(self, answers: list[Tensor], b: Tensor) -> Tensor:
        """(B,): Dice and cross-entropy of every answer, the finest counting most: each coarser level by half."""
        weights = [0.5 ** (len(answers) - 1 - k) for k in range(len(answers))]
        total = b.new_zeros(len(b))
        for answer, weight in zip(answers, weights, strict=True):
            truth = _at_size(b, answer)
            loss = self.config.cross_entropy * cross_entropy(answer, truth, self.regions)
            if self.config.dice:
                dice = soft_dice(probabilities(answer, self.regions), truth, batch=True)[:, self.first :]
                loss = loss + self.config.dice * (1 - dice.nanmean(1))
            total = total + weight / sum(weights) * loss
        return total

    def _critic_turn(self, a: Tensor, b: Tensor, images: Tensor, made: Tensor) -> Turn:
        if self.config.critic == "segan":
            return Turn("critic", -self._apart(images, b, made), {})
        on_real, on_fake = self.critic(torch.cat([a, b], 1)), self.critic(torch.cat([images, 2 * made - 1], 1))
        return Turn("critic", 0.5 * critic_loss(on_real, on_fake), accuracy(on_real, on_fake)._asdict())

    def _fooled(self, b: Tensor, images: Tensor, made: Tensor) -> Tensor:
        if self.config.critic == "segan":
            return self._apart(images, b, made)
        return generator_loss(self.critic(torch.cat([images, 2 * made - 1], 1)))

    def _apart(self, images: Tensor, b: Tensor, made: Tensor) -> Tensor:
        """How far apart the image looks through drawn masks and through those made: the mean absolute difference over
        all depths of the critic and all classes but the background (Xue et al. 2018, eq. 1)."""
        seen = images + 1  # air is nothing, inside of a mask and outside
        drawn = (b + 1) / 2
        through = (
            torch.cat([seen * maps[:, k : k + 1] for k in range(self.first, b.shape[1])]) for maps in (drawn, made)
        )
        pairs = zip(*(self.critic(each) for each in through), strict=True)
        return torch.stack([(one - other).abs().mean() for one, other in pairs]).mean()

    def _taught(self, images: Tensor, made: Tensor) -> Tensor:
        """Cross-entropy with the answer itself, where the critic takes it for drawn by hand (Hung et al., eq. 5)."""
        with torch.no_grad():
            sure = self.critic(torch.cat([images, 2 * made - 1], 1)).sigmoid()
            sure = nn.functional.interpolate(sure, made.shape[2:]) > self.config.sure
        own = torch.maximum(made, 1 - made) if self.regions else made.amax(1, keepdim=True)
        each = -own.clamp(min=1e-6).log().mean(1, keepdim=True) * sure
        return each.sum() / sure.sum().clamp(min=1)


def _at_size(b: Tensor, like: Tensor) -> Tensor:
    """Labels (B, K, *S) at a coarser answer's size: the nearest."""
    size = like.shape[2:]
    if b.shape[2:] == size:
        return b
    return nn.functional.interpolate(b, size, mode="nearest-exact")


def _network(config: Segment.Config, channels: int, classes: int, plan: Plan) -> nn.Module:
    dims = len(plan.size)
    if config.network == "unet++":
        return UNetPlusPlus(channels, classes, config.width, supervised=config.supervised, residual=False, dims=dims)
    count = len(plan.levels)
    last = RESIDUAL_BLOCKS[-1]
    blocks = [*RESIDUAL_BLOCKS, *[last] * count][:count] if config.network == "residual" else [0] * count
    each = widths(config.width, count, dims)
    return SegmenterUNet(channels, classes, each, plan.levels, plan.kernels, blocks, config.norm, config.supervised)
