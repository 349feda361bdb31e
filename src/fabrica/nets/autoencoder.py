"""The two halves of MONAI's AutoencoderKL (Rombach et al. 2022; Pinaya et al. 2022), for images of any size.

MONAI's turns 97 x 66 into 96 x 64 without a word; here images are padded to what the strides need.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import NamedTuple

import torch
from monai.networks.nets import AutoencoderKL
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, avg_pool3d, conv2d, interpolate

from fabrica.errors import UsageError
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
            _silence(self.means.conv)
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
    """latents (B, L, *s) -> images (B, C, *s * factor): what `inner` cuts the padding off. span: see Encoder.

    grain   what it adds, made of noise, where noise is given: see `Grain`.
    """

    def __init__(
        self, whole: AutoencoderKL, patch: int, past: Past | None, span: Span = OURS, grain: Grain | None = None
    ) -> None:
        super().__init__()
        self.patch, self.past, self.span = patch, past, span
        self.enter, self.layers, self.grain = whole.post_quant_conv, whole.decoder, grain
        if past:
            _silence(self.layers.blocks[-1].conv)

    def forward(self, latents: Tensor, noise: Tensor | None = None) -> Tensor:
        """noise: Gaussian (B, C factor^2, *s); without it, or without grain, what is certain alone."""
        return self.with_noise(self.made(latents), noise)

    def made(self, latents: Tensor) -> Tensor:
        """The images, and behind them, with grain, the logarithms of its strength: (B, C or 2 C, *s * factor)."""
        return self.completed(self.shown(self.layers(self.enter(latents))), latents)

    def completed(self, made: Tensor, latents: Tensor) -> Tensor:
        """What the layers made of latents, and what goes past them."""
        if not self.past:
            return made
        images = made[:, : self.past.channels] + self.past.up(latents)
        return torch.cat([images, made[:, self.past.channels :]], dim=1) if self.grain else images

    def with_noise(self, made: Tensor, noise: Tensor | None) -> Tensor:
        """The images of what was made, with grain of this noise."""
        if not self.grain:
            return made
        images, strength = made.chunk(2, dim=1)
        return images if noise is None else images + self.grain(strength, noise)

    def shown(self, made: Tensor) -> Tensor:
        """The images, or planes of them, that are in what the layers make: the way back from `Encoder.seen`."""
        return moved(pixel_shuffle(made, self.patch), self.span, OURS)


class Grain(nn.Module):
    """Texture that latents do not hold, as noise of its spectrum and of a strength that the decoder finds for each
    place: what film grain synthesis is to video (Norkin & Birkbeck 2018). A decoder's images are means of all that
    the latents leave open, and a mean of textures is smooth; together they are a draw from a Gaussian (Nix & Weigend
    1994) with the spectrum of what is left over.

    factor   of the images over the latents: noise comes as so many times so many numbers for each place of latents.
    kernel   (1, 1, REACH, REACH): what colours white noise, and scales it, since images of training, whose latents
             were uncertain, left more over; kept beside the weights.
    """

    REACH = 31
    FAINT = -5.0  # logarithm of the strength at first, in images of [-1, 1]
    STRONGEST = -2.3  # of any texture: where more is left over an edge or a letter was missed, which noise is not

    def __init__(self, factor: int) -> None:
        super().__init__()
        self.factor = factor
        middle = torch.zeros(1, 1, self.REACH, self.REACH)
        middle[..., self.REACH // 2, self.REACH // 2] = 1
        self.register_buffer("kernel", middle)
        self.kernel: Tensor

    def forward(self, strength: Tensor, noise: Tensor) -> Tensor:
        """strength (B, C, H, W): what the decoder makes, see `scale`; noise: white, (B, C factor^2, *s)."""
        white = pixel_shuffle(noise, self.factor)
        kernel = self.kernel.to(noise.dtype).expand(white.shape[1], -1, -1, -1)
        return self.scale(strength) * conv2d(white, kernel, padding=self.REACH // 2, groups=white.shape[1])

    def scale(self, strength: Tensor) -> Tensor:
        """The standard deviation, place by place."""
        return (strength.float() + self.FAINT).clamp(-12.0, self.STRONGEST).exp()

    def surprise(self, strength: Tensor, left_over: Tensor) -> Tensor:
        """Minus the logarithm of the Gaussian density, less a constant, of what is left over (B, C, H, W), place by
        place: smallest where the strength is its root mean square."""
        scale = self.scale(strength)
        return scale.log() + 0.5 * (left_over / scale).square()

    def measure(self, left_over: Iterable[Tensor]) -> None:
        """Take the spectrum of what is left over, as multiples of the strength: batches (B, C, H, W)."""
        power = torch.stack([torch.fft.fft2(each).abs().square().mean((0, 1)) for each in left_over]).mean(0)
        kernel = torch.fft.fftshift(torch.fft.ifft2(power.sqrt()).real)  # of phase 0
        reach, window = self.REACH, _flat(self.REACH)
        top, left = (side // 2 - reach // 2 for side in kernel.shape)
        kernel = kernel[top : top + reach, left : left + reach].cpu() * window[:, None] * window
        self.kernel.copy_(kernel * (power.mean().cpu() / power.numel()).sqrt() / kernel.norm())


def _flat(width: int) -> Tensor:
    """A window (width,) that is 1 over its middle half and falls to nothing as a cosine on either side (Tukey's): one
    that falls from the middle on blurs a spectrum that is empty below what latents hold and full above."""
    away = (torch.arange(width) - width // 2).abs() / (width // 2 + 1)
    return 0.5 + 0.5 * torch.cos(torch.pi * (2 * away - 1).clamp_min(0))


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


def _silence(convolution: nn.Module) -> None:
    """At first nothing is added to what goes past."""
    for weight in convolution.parameters():
        nn.init.zeros_(weight)


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
    grain: bool = False,
) -> tuple[Encoder, Decoder]:
    """Encoder and decoder of images (C, *S). grain: see `Grain`.

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
    if grain and dims != 2:
        raise UsageError("method.grain is of images in two dimensions; set method.grain=false for volumes")
    if grain and min(shape[1:]) < Grain.REACH:
        raise UsageError(
            f"data.size is {list(shape[1:])}; grain takes {Grain.REACH} pixels or more along each axis, or set "
            "method.grain=false"
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
        out_channels=shape[0] * patch**dims * (2 if grain else 1),
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
    return Encoder(whole, patch, factor, past), Decoder(whole, patch, past, grain=Grain(factor) if grain else None)
