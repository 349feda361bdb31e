"""The same network in another convention: what changes goes into the weights, and it stays a plain network of MONAI.

Each function changes a network in place, and is exact up to rounding.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from monai.networks.nets import AutoencoderKL, DiffusionModelUNet
from torch import Tensor, nn

PERIOD = 10_000.0  # of the slowest wave that MONAI's networks see of a time


@torch.no_grad()
def later(denoiser: DiffusionModelUNet, by: float) -> None:
    """Afterwards the network answers at time t as it did at t + by.

    It sees cos(t f) and sin(t f) of several frequencies f, and its first layer is linear in them; so the theorem of
    addition goes into that layer. MONAI's entry k of a table of noise levels is time k; here it is k + 1.
    """
    first = denoiser.time_embed[0]
    half = first.in_features // 2
    frequency = torch.exp(-math.log(PERIOD) / half * torch.arange(half, dtype=torch.float64))
    cos, sin = torch.cos(by * frequency), torch.sin(by * frequency)
    of_cos, of_sin, odd = first.weight.double().cpu().split([half, half, first.in_features % 2], dim=1)
    turned = torch.cat([of_cos * cos + of_sin * sin, of_sin * cos - of_cos * sin, odd], dim=1)
    first.weight.copy_(turned)


@torch.no_grad()
def negated(denoiser: DiffusionModelUNet) -> None:
    """Afterwards the network answers minus what it did: MONAI's rectified flow predicts x_0 - noise, this one's the
    velocity noise - x_0."""
    for weight in denoiser.out[-1].parameters():
        weight.neg_()


@torch.no_grad()
def rescaled(whole: AutoencoderKL, mean: Tensor, std: Tensor) -> None:
    """Afterwards latents are (z - mean) / std of what they were; mean and std are (L,). Images stay as they are."""
    means, log_variances, enter = (
        part.conv for part in (whole.quant_conv_mu, whole.quant_conv_log_sigma, whole.post_quant_conv)
    )
    ones = [1] * (means.weight.ndim - 2)
    enter.bias.add_((enter.weight * mean.view(1, -1, *ones)).flatten(1).sum(1))
    enter.weight.mul_(std.view(1, -1, *ones))
    means.weight.div_(std.view(-1, 1, *ones))
    means.bias.sub_(mean).div_(std)
    log_variances.bias.sub_(2 * std.log())


@torch.no_grad()
def axes_reversed(net: nn.Module) -> None:
    """Afterwards the network sees and gives volumes (B, C, D, H, W) as it did (B, C, W, H, D): MONAI's readers give
    (x, y, z), those of this house (z, y, x)."""
    for layer in net.modules():
        if isinstance(layer, nn.Conv3d | nn.ConvTranspose3d):
            layer.weight.copy_(layer.weight.clone().permute(0, 1, 4, 3, 2))


def matched(given: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The given weights under the names that the network wants: its own, or those of the MONAI Generative package.

    A name that is missing or left over stays so, for `load_state_dict` to tell. Left out is the projection behind
    attention of a network that wants none: MONAI Generative had its weights, and never used them.
    """
    left, found = dict(given), {}
    for name in wanted:
        older = name.replace(".attn.out_proj.", ".proj_attn.").replace(".attn.", ".").replace(".postconv.", ".conv.")
        for each in (name, older):
            if each in left:
                found[name] = left.pop(each)
                break
    projections = any(".attn.out_proj." in name for name in wanted)
    return found | {name: w for name, w in left.items() if projections or ".proj_attn." not in name}
