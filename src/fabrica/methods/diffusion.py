"""Denoising diffusion: learn to undo noise of every strength, then start from noise alone.

Ho, Jain, Abbeel: Denoising Diffusion Probabilistic Models (2020), with the later choices as options:
v-prediction (Salimans & Ho 2022), rectified flow (Liu et al. 2022), min-SNR weights (Hang et al. 2023),
classifier-free guidance (Ho & Salimans 2022); on latents of an autoencoder, told of each image by cross-attention
(Rombach et al. 2022), and of a mask where it is (SPADE, Park et al. 2019). The mathematics stands in fabrica.diffusion.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from fabrica import diffusion
from fabrica.conditioning.masks import laid_out
from fabrica.diffusion.loss import denoising_loss, draw_times
from fabrica.errors import UsageError
from fabrica.methods import Compressor, Conditions, Denoise, Denoiser, Predict, Turn
from fabrica.methods.noise import Draw
from fabrica.nets.alignment import Alignment, contrastive
from fabrica.nets.conditions import ConditionEmbedding, dropped, known, unknown
from fabrica.nets.denoisers import check, denoiser
from fabrica.nets.patches import pixel_shuffle, pixel_unshuffle
from fabrica.recipe.conditions import Category, Condition, Mask
from fabrica.recipe.schema import SampleConfig


class Diffusion(Denoiser):
    """Networks see x_t (B, C, *S), whose variance is about one, and t as a number from 0 to 1000. With a space, x_0 are
    its latents, and samples are decoded."""

    @dataclass
    class Config:
        objective: str = "v"  # what the network predicts: epsilon | x0 | v | flow
        schedule: str = "cosine"  # noise levels: linear | scaled-linear | cosine | flow
        levels: int = 1000
        beta_start: float | None = None
        beta_end: float | None = None
        zero_terminal_snr: bool = False
        shift: float = 1.0
        weighting: str = (
            "none"  # of the loss over noise levels: none | min-snr (fewer fine levels: grainier when short)
        )
        times: str = "stratified"  # where in [0, 1] to train: uniform | stratified | logit-normal
        patch: int = 1  # the network sees patch x patch pixels as channels of one: larger is faster, coarser
        channels: list[int] = field(default_factory=lambda: [64, 128, 128])
        attention: list[bool] = field(default_factory=lambda: [False, False, True])
        res_blocks: int = 1
        head_channels: int = 64
        norm_groups: int = 32  # fewer, of 4 channels and more each: what a group is normalised by, its mean, is lost
        label_drop: float = 0.1  # how often what is told of an image is hidden in training, for guidance
        context_width: int = 192  # of what is told, but the label, as cross-attention sees it
        mask_width: int = 64  # of the layers that see a mask, where one is told
        align: float = 0.1  # weight of finding whose words are whose in a batch; by it text is understood far sooner

    validated = True
    keep = "loss"
    logged = ("apart",)
    choices = ("steps", "sampler", "guidance", "rescale")
    latent = True
    conditional = True
    edits = True
    config: Config

    def __init__(
        self,
        config: Config,
        shape: tuple[int, ...],
        classes: int = 0,
        conditions: Mapping[str, Condition] | None = None,
        space: Compressor | None = None,
    ) -> None:
        """shape (C, *S) of the images in [-1, 1]; what is told of each: a label, one of so many `classes`, or all of
        `conditions`, a mask place by place, the rest by cross-attention and, its gist, beside t; space: a trained
        autoencoder on whose latents to work."""
        super().__init__()
        shape = space.latent_shape if space else shape
        self.config, self.shape, self.classes, self.space = config, shape, classes, space
        self.declared = conditions or ({"label": Category(classes)} if classes else {})
        check(config, shape, "size of latents" if space else "data.size")
        if not (0 <= config.label_drop <= 1 and config.align >= 0):
            raise UsageError(
                f"method.label_drop is {config.label_drop} and method.align {config.align}; expected a share from 0 to "
                "1, and 0 (no alignment) or more"
            )
        self.schedule = diffusion.Schedule(
            config.schedule,
            config.levels,
            config.beta_start,
            config.beta_end,
            config.zero_terminal_snr,
            config.shift,
        )
        diffusion.check(config.objective, self.schedule)
        self.denoiser = denoiser(config, shape, classes, conditions or {})
        self.said = {name: what for name, what in (conditions or {}).items() if not isinstance(what, Mask)}
        self.conditions = ConditionEmbedding(self.said, config.context_width) if self.said else None
        self.ships = ("denoiser", "conditions") if self.said else ("denoiser",)
        self.players = {"denoiser": self.ships}
        self.alignment: nn.Module | None = None
        if config.align and self.said:
            sides = [side // config.patch for side in shape[1:]]
            seen = (shape[0] * config.patch ** len(sides), *sides)
            self.alignment = Alignment(len(self.said) * config.context_width, seen)
            self.players = {"denoiser": (*self.ships, "alignment")}

    def turns(self, batch: dict[str, Tensor], rng: torch.Generator) -> Iterator[Turn]:
        images, hidden = batch["image"], self._hidden(len(batch["image"]), rng)
        shown = self._shown(batch, hidden)
        loss = self._loss(images, shown, rng).mean()
        if self.alignment is None or hidden is None:
            yield Turn("denoiser", loss)
            return
        alike = self.alignment(shown["class_labels"], pixel_unshuffle(images, self.config.patch))
        apart = contrastive(alike, known(self.said, batch, hidden[:, : len(self.said)]))
        yield Turn("denoiser", loss + self.config.align * apart, {"apart": float(apart.detach())})

    def validation(self, batch: dict[str, Tensor], rng: torch.Generator) -> Tensor:
        """The denoising loss (B,) of held-out images, weighted as in training."""
        return self._loss(batch["image"], self._shown(batch), rng)

    @torch.no_grad()
    def sample(
        self,
        draw: Draw,
        conditions: Conditions,
        settings: SampleConfig,
        device: torch.device,
        begin: diffusion.Begin | None = None,
    ) -> Tensor:
        """Images (N, C, *S), one a row of noise; of what is not told, the learned null. begin: images to
        start from, rather than noise alone."""
        start, space = draw(self.shape).to(device), self.space
        denoise = self.denoising(conditions, settings, len(start), device)
        found: Tensor = diffusion.sample(
            denoise,
            start,
            self.schedule,
            sampler=settings.sampler,
            steps=settings.steps,
            spacing=settings.spacing,
            noise=lambda: draw(self.shape).to(device),
            clip=1.0 if settings.clip and not space else None,  # latents know no limits
            begin=diffusion.within(begin, space.encode, self.shape[1:]) if begin and space else begin,
        )
        images = space.drawn(found, draw) if space else found.clamp(-1, 1)
        return images if begin is None or begin.keep is None else torch.where(begin.keep, begin.x_0, images)

    def denoising(self, conditions: Conditions, settings: SampleConfig, count: int, device: torch.device) -> Denoise:
        """The estimates of x_0 of `count` images of which this is told, with the guidance of the settings."""

        def knowing(conditions: Conditions) -> Denoise:
            return diffusion.estimates(self.predicting(conditions, count, device), self.schedule, self.config.objective)

        denoise = knowing(conditions)
        if conditions and settings.guidance != 1.0:
            denoise = diffusion.guided(denoise, knowing({}), settings.guidance, settings.rescale)
        return denoise

    def predicting(self, conditions: Conditions, count: int, device: torch.device) -> Predict:
        """The network's own answers, of `count` images of which this is told."""
        shown = self._shown_of(conditions, count, device)
        return lambda x_t, t: self.predicted(x_t, t, shown)

    def predicted(self, x_t: Tensor, t: Tensor, shown: Conditions) -> Tensor:
        """What the denoiser predicts of x_t (B, C, *S) at t (B,); shown: its keyword arguments."""
        out = self.denoiser(pixel_unshuffle(x_t, self.config.patch), t * 1000.0, **shown)
        return pixel_shuffle(out.float(), self.config.patch)

    def _loss(self, x_0: Tensor, shown: Conditions, rng: torch.Generator) -> Tensor:
        t = draw_times(len(x_0), rng, self.config.times).to(x_0.device)
        noise = torch.randn(x_0.shape, generator=rng).to(x_0.device)
        return denoising_loss(
            lambda x_t, t: self.predicted(x_t, t, shown),
            x_0,
            t,
            noise,
            self.schedule,
            self.config.objective,
            self.config.weighting,
        )

    def _shown(self, conditions: Conditions, hidden: Tensor | None = None) -> Conditions:
        """What the denoiser sees of what is told: its keyword arguments. hidden (B, conditions): what is not shown
        though it is told."""
        shown: dict[str, Tensor] = {}
        if "mask" in self.declared:  # always the last one
            finest = self.shape[1:] if self.space else conditions["mask"].shape[2:]
            hides = None if hidden is None else hidden[:, -1].to(conditions["mask"].device)
            sides = [side // self.config.patch for side in finest]
            shown["seg"] = laid_out(conditions["mask"].float(), hides, sides)
        if self.conditions is not None:
            rest = None if hidden is None else hidden[:, : len(self.said)]
            context, gist = self.conditions({name: conditions[name] for name in self.said}, rest)
            shown |= {"context": context, "class_labels": gist}
        if not self.classes:
            return shown
        absent = conditions["label"] < 0
        if hidden is not None:
            absent = absent | hidden[:, 0].to(absent.device)
        return {**shown, "class_labels": torch.where(absent, self.classes, conditions["label"])}

    def _shown_of(self, conditions: Conditions, count: int, device: torch.device) -> Conditions:
        """The same, of `count` images of which perhaps not everything is told."""
        values = {**unknown(self.declared, count, device), **conditions}
        return self._shown({name: each.to(device) for name, each in values.items()})

    def _hidden(self, count: int, rng: torch.Generator) -> Tensor | None:
        return dropped(count, len(self.declared), self.config.label_drop, rng) if self.declared else None
