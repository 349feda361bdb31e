"""CycleGAN: two translators that must undo each other, learned from two sets of images without pairs.

Zhu, Park, Isola, Efros: Unpaired image-to-image translation using cycle-consistent adversarial networks (ICCV 2017).
The paper trains one image at a time by Adam, learning rate 2e-4, betas 0.5 and 0.999, constant for a half and falling
linearly in the other: see the recipes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import l1_loss

from fabrica.adversarial.losses import History, accuracy, frozen, least_squares, refuse_volumes
from fabrica.errors import UsageError
from fabrica.methods import Translator, Turn
from fabrica.nets.translators import PatchCritic, ResNetGenerator


class CycleGAN(Translator):
    """Networks see a (B, C, H, W) and b (B, C2, H, W) in [-1, 1]; no image of a belongs to one of b."""

    @dataclass
    class Config:
        width: int = 64  # of the generators at full resolution
        blocks: int = 6  # residual blocks: 6 for 128 pixels, 9 for 256 (appendix 7.2)
        critic_width: int = 64
        cycle: float = 10.0  # lambda
        identity: float = 0.5  # of lambda (section 5.2, photos from paintings); 0: no identity loss
        history: int = 50  # translated images kept for the critics (section 4); 0: none

    directions = ("a2b", "b2a")
    pairs = False
    ships = ("a2b", "b2a")
    players: Mapping[str, tuple[str, ...]] = {
        "generator": ("a2b", "b2a"),
        "critic": ("critic_a", "critic_b"),
    }
    keep = "frd"
    logged = ("cycle",)
    config: Config

    def __init__(self, config: Config, a: tuple[int, ...], b: tuple[int, ...]) -> None:
        """a, b: (C, H, W) of the two sides."""
        super().__init__()
        refuse_volumes("cyclegan", a)
        if config.identity and a[0] != b[0]:
            raise UsageError(f"the sides have {a[0]} and {b[0]} channels; set method.identity=0")
        self.config = config
        self.a2b: nn.Module = ResNetGenerator(a[0], b[0], config.width, config.blocks)
        self.b2a: nn.Module = ResNetGenerator(b[0], a[0], config.width, config.blocks)
        self.critic_a: nn.Module = PatchCritic(a[0], config.critic_width)
        self.critic_b: nn.Module = PatchCritic(b[0], config.critic_width)
        self.past_a, self.past_b = History(config.history, a), History(config.history, b)

    def turns(self, batch: dict[str, Tensor], rng: torch.Generator) -> Iterator[Turn]:
        a, b = batch["a"], batch["b"]
        # what one generator can see at once it sees at once: instance norm keeps images apart
        fake_b, same_b = self._both(self.a2b, a, b)
        fake_a, same_a = self._both(self.b2a, b, a)
        with frozen(self.critic_a, self.critic_b):
            fooled = least_squares(self.critic_a(fake_a), 1.0) + least_squares(self.critic_b(fake_b), 1.0)
        cycle = l1_loss(self.b2a(fake_b), a) + l1_loss(self.a2b(fake_a), b)
        loss = fooled + self.config.cycle * cycle
        if same_a is not None and same_b is not None:
            loss = loss + self.config.cycle * self.config.identity * (l1_loss(same_a, a) + l1_loss(same_b, b))
        yield Turn("generator", loss, {"cycle": float(cycle.detach()) / 2})

        losses, right = [], []
        for critic, past, real, fake in (
            (self.critic_a, self.past_a, a, fake_a.detach()),
            (self.critic_b, self.past_b, b, fake_b.detach()),
        ):
            on_real, on_fake = critic(torch.cat([real, past(fake, rng)])).chunk(2)
            losses.append(0.5 * (least_squares(on_real, 1.0) + least_squares(on_fake, 0.0)))  # halved: section 4
            right.append(accuracy(on_real, on_fake, threshold=0.5))
        conditions = {key: sum(getattr(one, key) for one in right) / 2 for key in right[0]._fields}
        yield Turn("critic", torch.stack(losses).sum(), conditions)

    def translate(self, images: Tensor, direction: str) -> Tensor:
        """images (B, C, H, W) in [-1, 1] of the side that the direction starts from -> of the other."""
        found: Tensor = (self.a2b if direction == "a2b" else self.b2a)(images)
        return found

    def _both(self, generator: nn.Module, source: Tensor, target: Tensor) -> tuple[Tensor, Tensor | None]:
        """The translation of the source, and what becomes of images that are of the target's kind already."""
        if not self.config.identity:
            return generator(source), None
        made, same = generator(torch.cat([source, target])).chunk(2)
        return made, same
