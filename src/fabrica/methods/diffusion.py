"""Denoising diffusion: learn to undo noise of every strength, then start from noise alone.

Ho, Jain, Abbeel: Denoising Diffusion Probabilistic Models (2020), with the later choices as options:
v-prediction (Salimans & Ho 2022), rectified flow (Liu et al. 2022), min-SNR weights (Hang et al. 2023),
classifier-free guidance (Ho & Salimans 2022); on latents of an autoencoder (Rombach et al. 2022). The mathematics
stands in fabrica.diffusion.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from monai.networks.nets import DiffusionModelUNet
from torch import Tensor, nn

from fabrica import diffusion
from fabrica.errors import UsageError
from fabrica.methods import Compressor, Turn
from fabrica.nets.patches import folded, unfolded
from fabrica.noise import Draw
from fabrica.recipe import SampleConfig


class Diffusion(nn.Module):
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
        norm_groups: int = 32
        label_drop: float = 0.1  # how often the label is hidden in training, for guidance

    ships: ClassVar[tuple[str, ...]] = ("denoiser",)
    players: ClassVar[dict[str, tuple[str, ...]]] = {"denoiser": ("denoiser",)}
    keep: ClassVar[str] = "loss"
    choices: ClassVar[tuple[str, ...]] = ("steps", "sampler", "guidance")
    latent: ClassVar[bool] = True

    def __init__(
        self, config: Config, shape: tuple[int, ...], classes: int = 0, space: Compressor | None = None
    ) -> None:
        """shape (C, *S) of the images in [-1, 1]; classes: how many labels, 0 for unconditional; space: a trained
        autoencoder on whose latents to work."""
        super().__init__()
        shape = space.latent_shape if space else shape
        self.config, self.shape, self.classes, self.space = config, shape, classes, space
        _check(config, shape, "size of latents" if space else "data.size")
        self.schedule = diffusion.Schedule(
            config.schedule,
            config.levels,
            config.beta_start,
            config.beta_end,
            config.zero_terminal_snr,
            config.shift,
        )
        diffusion.check(config.objective, self.schedule)
        self.denoiser: nn.Module = DiffusionModelUNet(
            spatial_dims=len(shape) - 1,
            in_channels=shape[0] * config.patch ** (len(shape) - 1),
            out_channels=shape[0] * config.patch ** (len(shape) - 1),
            channels=config.channels,
            attention_levels=config.attention,
            num_res_blocks=config.res_blocks,
            num_head_channels=config.head_channels,
            norm_num_groups=config.norm_groups,
            num_class_embeds=classes + 1 if classes else None,  # the last one is the learned null
            use_flash_attention=True,
        )

    def turns(self, batch: dict[str, Tensor], rng: torch.Generator) -> Iterator[Turn]:
        labels = self._dropped(batch["label"], rng) if self.classes else None
        per_image = self._loss(batch["image"], labels, rng)
        yield Turn("denoiser", per_image.mean())

    def validation(self, batch: dict[str, Tensor], rng: torch.Generator) -> Tensor:
        """The denoising loss (B,) of held-out images, weighted as in training."""
        labels = batch["label"] if self.classes else None
        return self._loss(batch["image"], labels, rng)

    def sample(self, draw: Draw, labels: Tensor | None, settings: SampleConfig, device: torch.device) -> Tensor:
        """Images (N, C, *S) in [-1, 1], one a row of noise; labels (N,) int64, or None for none (the learned null)."""
        start = draw(self.shape).to(device)
        if labels is None:
            labels = torch.full((len(start),), self.classes, dtype=torch.int64)

        def with_labels(shown: Tensor) -> diffusion.Denoise:
            def denoise(x_t: Tensor, t: float) -> Tensor:
                times = torch.full((len(x_t),), t, device=device)
                return self._x_0(x_t, times, shown if self.classes else None)

            return denoise

        denoise = with_labels(labels.to(device))
        if self.classes and settings.guidance != 1.0:
            null = with_labels(torch.full_like(labels, self.classes).to(device))
            denoise = diffusion.guided(denoise, null, settings.guidance, settings.rescale)
        found = diffusion.sample(
            denoise,
            start,
            self.schedule,
            sampler=settings.sampler,
            steps=settings.steps,
            spacing=settings.spacing,
            noise=lambda: draw(self.shape).to(device),
            clip=1.0 if settings.clip and not self.space else None,  # latents know no limits
        )
        return self.space.decode(found) if self.space else found.clamp(-1, 1)

    def _predict(self, x_t: Tensor, t: Tensor, labels: Tensor | None) -> Tensor:
        out = self.denoiser(folded(x_t, self.config.patch), t * 1000.0, class_labels=labels)
        return unfolded(out.float(), self.config.patch)

    def _x_0(self, x_t: Tensor, t: Tensor, labels: Tensor | None) -> Tensor:
        alpha, sigma = diffusion.coefficients(self.schedule, t, x_t)
        return diffusion.to_x0(self.config.objective, self._predict(x_t, t, labels), x_t, alpha, sigma)

    def _loss(self, x_0: Tensor, labels: Tensor | None, rng: torch.Generator) -> Tensor:
        t = diffusion.draw_times(len(x_0), rng, self.config.times).to(x_0.device)
        noise = torch.randn(x_0.shape, generator=rng).to(x_0.device)
        return diffusion.denoising_loss(
            lambda x_t, t: self._predict(x_t, t, labels),
            x_0,
            t,
            noise,
            self.schedule,
            self.config.objective,
            self.config.weighting,
        )

    def _dropped(self, labels: Tensor, rng: torch.Generator) -> Tensor:
        hidden = torch.rand(len(labels), generator=rng).to(labels.device) < self.config.label_drop
        return torch.where(hidden, self.classes, labels)


def _check(config: Diffusion.Config, shape: tuple[int, ...], what: str) -> None:
    if len(config.attention) != len(config.channels):
        raise UsageError(
            f"method.attention has {len(config.attention)} entries and method.channels {len(config.channels)}; "
            "give one for each level"
        )
    factor = config.patch * 2 ** (len(config.channels) - 1)
    if any(side % factor for side in shape[1:]):
        fitting = [max(factor, round(side / factor) * factor) for side in shape[1:]]
        remedy = f"e.g. data.size={fitting}" if what == "data.size" else "take another size, or fewer method.channels"
        raise UsageError(f"{what} {list(shape[1:])} does not fit; this network takes multiples of {factor}, {remedy}")
    deepest = [side // factor for side in shape[1:]]
    if len(deepest) == 3 and min(deepest) < 4:  # bf16 gradients of smaller 3-D convolutions are not finite (torch 2.13)
        raise UsageError(
            f"{what} {list(shape[1:])} leaves {deepest} voxels at the deepest level; it needs 4 a side: "
            "take larger volumes, fewer method.channels or a smaller method.patch"
        )
    uneven = [width for width in config.channels if width % config.norm_groups]
    if uneven:
        raise UsageError(
            f"method.channels {uneven} are not multiples of method.norm_groups {config.norm_groups}; "
            "change one of the two"
        )
    for width, attends in zip(config.channels, [*config.attention[:-1], True], strict=True):  # the middle attends
        if attends and width % config.head_channels:
            raise UsageError(
                f"method.channels {width} is not a multiple of method.head_channels {config.head_channels}"
            )
