"""The two halves of MONAI's AutoencoderKL (Rombach et al. 2022; Pinaya et al. 2022), for images of any size.

MONAI's turns 97 x 66 into 96 x 64 without a word; here images are padded to what the strides need.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from monai.networks.nets import AutoencoderKL
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, avg_pool3d, interpolate

from fabrica.errors import UsageError
from fabrica.nets.convolutions import starting_at_zero
from fabrica.nets.framing import OURS, Span, moved, padded_to
from fabrica.nets.patches import pixel_shuffle, pixel_unshuffle
from fabrica.nets.upsampling import doubled

SURE = -6.0  # log variance of latents at first, where there is something to be sure of


class Encoder(nn.Module):
    """images (B, C, *S) -> mean and log variance of their latents, (B, 2 L, *s) with s = S / factor, rounded up.

    mean, std   of the latents over training images, each (L,): the scale of latents, kept beside the weights.
    span        what the layers take black and white for; images are in [-1, 1] whatever it is. Not a matter of the
                first convolution: it pads with zeros, which are black to one span and grey to the other.
    """

    def __init__(self, whole: AutoencoderKL, patch: int, factor: int, past: Past | None, span: Span = OURS) -> None:
        super().__init__()
        self.patch, self.factor, self.past, self.span = patch, factor, past, span
        self.layers, self.means, self.log_variances = whole.encoder, whole.quant_conv_mu, whole.quant_conv_log_sigma
        self.register_buffer("mean", torch.zeros(whole.latent_channels))
        self.register_buffer("std", torch.ones(whole.latent_channels))
        self.mean: Tensor
        self.std: Tensor
        if past:
            starting_at_zero(self.means.conv)
            nn.init.constant_(self.log_variances.conv.bias, SURE)

    def forward(self, images: Tensor) -> Tensor:
        images = padded_to(images, self.factor)
        found = self.layers(self.seen(images))
        means = self.means(found)
        if self.past:
            means = means + self.past.down(images, means.shape[1])
        return torch.cat([means, self.log_variances(found)], dim=1)

    def seen(self, images: Tensor) -> Tensor:
        """What the layers see of images, or of planes of them, whose sides are multiples of the patch."""
        return pixel_unshuffle(moved(images, OURS, self.span), self.patch)


class Decoder(nn.Module):
    """latents (B, L, *s) -> images (B, C, *s * factor), whose padding `inner` cuts off; with `strength` that of what it
    leaves open behind them, (B, 2 C, *s * factor), see `fabrica.nets.detail`. span: see Encoder."""

    def __init__(self, whole: AutoencoderKL, patch: int, past: Past | None, span: Span = OURS) -> None:
        super().__init__()
        self.patch, self.past, self.span = patch, past, span
        self.enter, self.layers = whole.post_quant_conv, whole.decoder
        if past:
            starting_at_zero(self.layers.blocks[-1].conv)

    def forward(self, latents: Tensor) -> Tensor:
        return self.completed(self.shown(self.layers(self.enter(latents))), latents)

    def completed(self, made: Tensor, latents: Tensor) -> Tensor:
        """What the layers made of latents, and what goes past them."""
        if not self.past:
            return made
        images, behind = made[:, : self.past.channels], made[:, self.past.channels :]
        return torch.cat([images + self.past.up(latents), behind], dim=1)

    def shown(self, made: Tensor) -> Tensor:
        """The images, or planes of them, that are in what the layers make: the way back from `Encoder.seen`."""
        return moved(pixel_shuffle(made, self.patch), self.span, OURS)


class Past(NamedTuple):
    """What goes past the networks, without weights (after Chen et al. 2025, Deep compression autoencoder, section 3.1):
    means of blocks of pixels, as channels of the latents, and back. The networks learn the rest, many times sooner.

    channels, factor   of the images; kept: so many means along each side of what one latent stands for.
    """

    channels: int
    factor: int
    kept: int

    def down(self, images: Tensor, latent_channels: int) -> Tensor:
        """images (B, C, *S) -> (B, L, *s); channels that are left over are 0."""
        means = pixel_unshuffle(_pools(images)(images, self.factor // self.kept), self.kept)
        empty = means.new_zeros(means.shape[0], latent_channels - means.shape[1], *means.shape[2:])
        return torch.cat([means, empty], dim=1)

    def up(self, latents: Tensor) -> Tensor:
        """latents (B, L, *s) -> (B, C, *S), linear between the middles of the blocks."""
        dims = latents.ndim - 2
        means = pixel_shuffle(latents[:, : self.channels * self.kept**dims].float(), self.kept)
        mode = "bilinear" if dims == 2 else "trilinear"
        return interpolate(means, scale_factor=self.factor // self.kept, mode=mode)


def _pools(images: Tensor) -> Callable[[Tensor, int], Tensor]:
    return avg_pool2d if images.ndim == 4 else avg_pool3d


def halves(
    shape: tuple[int, ...],
    channels: list[int],
    latent_channels: int,
    res_blocks: int,
    attention: bool = False,
    norm_groups: int = 32,
    patch: int = 1,
    shortcut: bool = False,
    strength: bool = False,
) -> tuple[Encoder, Decoder]:
    """Encoder and decoder of images (C, *S). strength: of what the decoder leaves open, behind its images.

    channels    width of each level; each but the last halves the sides. attention: at the deepest level.
    patch       pixels along the side of what the network sees as one. shortcut: see `Past`.
    """
    dims = len(shape) - 1
    if min(latent_channels, res_blocks, patch, norm_groups, *channels, len(channels)) < 1:
        raise UsageError("method.channels, latent_channels, res_blocks, norm_groups and patch are counts: 1 or more")
    if any(width % norm_groups for width in channels):
        raise UsageError(
            f"method.channels is {channels}; each must be a multiple of method.norm_groups, {norm_groups}: "
            f"take e.g. method.norm_groups={math.gcd(norm_groups, *channels)}"
        )
    factor = patch * 2 ** (len(channels) - 1)
    deepest = [-(-side // factor) for side in shape[1:]]
    if dims == 3 and min(deepest) < 4:  # bf16 gradients of smaller 3-D convolutions are not finite (torch 2.13)
        raise UsageError(
            f"data.size {list(shape[1:])} leaves {deepest} voxels of latents; it needs 4 a side: take larger volumes, "
            "fewer method.channels or a smaller method.patch"
        )
    whole = AutoencoderKL(
        spatial_dims=dims,
        in_channels=shape[0] * patch**dims,
        out_channels=shape[0] * patch**dims * (2 if strength else 1),
        channels=channels,
        num_res_blocks=[res_blocks] * len(channels),
        attention_levels=[False] * len(channels),
        latent_channels=latent_channels,
        norm_num_groups=norm_groups,
        with_encoder_nonlocal_attn=attention,
        with_decoder_nonlocal_attn=attention,
        use_flash_attention=True,
    )
    doubled(whole)
    fitting = [k for k in range(1, factor + 1) if factor % k == 0 and shape[0] * k**dims <= latent_channels]
    past = Past(shape[0], factor, max(fitting)) if shortcut and fitting else None
    return Encoder(whole, patch, factor, past), Decoder(whole, patch, past)
