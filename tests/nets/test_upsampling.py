"""MONAI's networks double resolution as they are written, and learn the same."""

from __future__ import annotations

import copy

import pytest
import torch
from monai.networks.nets import AutoencoderKL, DiffusionModelUNet
from torch import Tensor, nn

from fabrica.nets.upsampling import Doubled, doubled


def denoiser(dims: int) -> nn.Module:
    return DiffusionModelUNet(dims, 1, 1, (1, 1, 1), (8, 16, 16), (False, False, False), 8, num_head_channels=8)


def autoencoder(dims: int) -> nn.Module:
    return AutoencoderKL(dims, 1, 1, (1, 1), (8, 16), (False, False), 2, norm_num_groups=8)


def learned(net: nn.Module, *inputs: Tensor) -> list[Tensor]:
    """The result, then the gradient of every weight."""
    torch.manual_seed(0)  # the latents of an autoencoder are drawn
    made = net(*inputs)
    made = made[0] if isinstance(made, tuple) else made
    net.zero_grad()
    made.square().sum().backward()
    return [made.detach(), *(p.grad for p in net.parameters() if p.grad is not None)]


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("kind", [denoiser, autoencoder])
def test_results_gradients_and_names_are_those_of_repeated_pixels(kind: object, dims: int) -> None:
    torch.manual_seed(0)
    written = (denoiser if kind is denoiser else autoencoder)(dims).double()
    for p in written.parameters():
        nn.init.normal_(p, std=0.1)  # MONAI's last layers begin with zeros
    ours = copy.deepcopy(written)
    doubled(ours)
    assert sum(isinstance(layer, Doubled) for layer in ours.modules()) == (2 if kind is denoiser else 1)
    assert list(ours.state_dict()) == list(written.state_dict())
    x = torch.randn(2, 1, *[8] * dims, dtype=torch.float64)
    inputs = (x, torch.tensor([3, 500])) if kind is denoiser else (x,)
    one, other = learned(ours, *inputs), learned(written, *inputs)
    assert len(one) == len(other)
    for made, expected in zip(one, other, strict=True):
        torch.testing.assert_close(made, expected, rtol=1e-7, atol=1e-8)


@pytest.mark.parametrize("size", [(2, 2, 2), (3, 6, 3), (4, 4, 4)])
def test_short_volumes_learn_in_bfloat16_what_they_learn_in_float32(size: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    net = autoencoder(3)
    doubled(net)
    layer = next(each for each in net.modules() if isinstance(each, Doubled))
    x = torch.randn(2, 16, *size)
    expected = torch.autograd.grad(layer(x).square().sum(), layer.postconv.conv.weight)[0]
    with torch.autocast("cpu", torch.bfloat16):
        found = torch.autograd.grad(layer(x).float().square().sum(), layer.postconv.conv.weight)[0]
    assert float((found - expected).norm() / expected.norm()) < 0.02


def test_layers_that_do_otherwise_are_left_alone() -> None:
    net = AutoencoderKL(2, 1, 1, (1, 1), (8, 16), (False, False), 2, norm_num_groups=8, use_convtranspose=True)
    doubled(net)
    assert not any(isinstance(layer, Doubled) for layer in net.modules())
