"""The two halves of MONAI's AutoencoderKL (Rombach et al. 2022; Pinaya et al. 2022), for images of any size.

MONAI's turns 97 x 66 into 96 x 64 without a word; here images are padded to what the strides need.
"""

from __future__ import annotations

import math

import torch
from monai.networks.nets import AutoencoderKL
from torch import Tensor, nn

from fabrica.errors import UsageError
from fabrica.nets.framing import padded_to
from fabrica.nets.patches import folded, unfolded


class Encoder(nn.Module):
    """images (B, C, *S) -> mean and log variance of their latents, (B, 2 L, *s) with s = S / factor, rounded up.

    mean, std   of the latents over training images, each (L,): the scale of latents, kept beside the weights.
    """

    def __init__(self, whole: AutoencoderKL, patch: int, factor: int) -> None:
        super().__init__()
        self.patch, self.factor = patch, factor
        self.layers, self.means, self.log_variances = whole.encoder, whole.quant_conv_mu, whole.quant_conv_log_sigma
        self.register_buffer("mean", torch.zeros(whole.latent_channels))
        self.register_buffer("std", torch.ones(whole.latent_channels))
        self.mean: Tensor
        self.std: Tensor

    def forward(self, images: Tensor) -> Tensor:
        found = self.layers(folded(padded_to(images, self.factor), self.patch))
        return torch.cat([self.means(found), self.log_variances(found)], dim=1)


class Decoder(nn.Module):
    """latents (B, L, *s) -> images (B, C, *s * factor): what `framing.inner` cuts the padding off."""

    def __init__(self, whole: AutoencoderKL, patch: int) -> None:
        super().__init__()
        self.patch = patch
        self.enter, self.layers = whole.post_quant_conv, whole.decoder

    def forward(self, latents: Tensor) -> Tensor:
        return unfolded(self.layers(self.enter(latents)), self.patch)


def halves(
    shape: tuple[int, ...],
    channels: list[int],
    latent_channels: int,
    res_blocks: int,
    attention: bool = False,
    norm_groups: int = 32,
    patch: int = 1,
) -> tuple[Encoder, Decoder]:
    """Encoder and decoder of images (C, *S).

    channels    width of each level; each but the last halves the sides. attention: at the deepest level.
    patch       pixels along the side of what the network sees as one.
    """
    dims = len(shape) - 1
    if min(latent_channels, res_blocks, patch, norm_groups, *channels, len(channels)) < 1:
        raise UsageError("method.channels, latent_channels, res_blocks, norm_groups and patch are counts: 1 or more")
    if any(width % norm_groups for width in channels):
        raise UsageError(
            f"method.channels is {channels}; each must be a multiple of method.norm_groups, {norm_groups}: "
            f"take e.g. method.norm_groups={math.gcd(norm_groups, *channels)}"
        )
    whole = AutoencoderKL(
        spatial_dims=dims,
        in_channels=shape[0] * patch**dims,
        out_channels=shape[0] * patch**dims,
        channels=channels,
        num_res_blocks=[res_blocks] * len(channels),
        attention_levels=[False] * len(channels),
        latent_channels=latent_channels,
        norm_num_groups=norm_groups,
        with_encoder_nonlocal_attn=attention,
        with_decoder_nonlocal_attn=attention,
        use_flash_attention=True,
    )
    return Encoder(whole, patch, patch * 2 ** (len(channels) - 1)), Decoder(whole, patch)
