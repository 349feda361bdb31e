"""Convolutions that are computed otherwise give what is written, and learn the same."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from fabrica.nets.convolutions import Doubling, Narrowing, exact


def noise(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def told(layer: nn.Module, written: nn.Module, x: Tensor) -> list[list[Tensor]]:
    """Of both: the result, then the gradients of the image and of every weight."""
    found = []
    for one in (layer, written):
        image = x.clone().requires_grad_()
        layer.zero_grad()
        y = one(image)
        (y * noise(*y.shape)).sum().backward()
        assert image.grad is not None
        grads = [p.grad.clone() for p in layer.parameters() if p.grad is not None]
        assert len(grads) == len(list(layer.parameters()))
        found.append([y.detach(), image.grad, *grads])
    return found


@pytest.mark.parametrize("size", [(5, 7), (1, 4), (3, 2, 5)])
@pytest.mark.parametrize("bias", [True, False])
def test_doubling_is_a_convolution_of_repeated_pixels(size: tuple[int, ...], bias: bool) -> None:
    layer = Doubling(3, 4, len(size), bias).double()
    written = nn.Sequential(nn.Upsample(scale_factor=2), layer.convolution)
    for ours, expected in zip(*told(layer, written, noise(2, 3, *size)), strict=True):
        torch.testing.assert_close(ours, expected)


@pytest.mark.parametrize("out", [1, 3])
@pytest.mark.parametrize("side", [3, 7])
def test_narrowing_is_the_convolution_that_it_is_at_work(out: int, side: int) -> None:
    layer = Narrowing(5, out, side).double()
    x = noise(2, 5, 9, 14)
    (trained, *_), _ = told(layer, layer.convolution, x)
    for ours, expected in zip(*told(layer, layer.convolution, x), strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-6, atol=1e-6)  # added in single precision
    torch.testing.assert_close(layer.eval()(x), trained, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(("kernel", "size"), [(3, (2, 2, 2)), (3, (2, 8, 8)), (4, (3, 5, 3)), (3, (4, 6, 4))])
def test_convolutions_of_small_volumes_learn_in_bfloat16_what_they_learn_in_float32(
    kernel: int, size: tuple[int, ...]
) -> None:
    torch.manual_seed(0)
    layer = nn.Sequential(nn.Conv3d(16, 8, kernel, padding=1))
    x, names = torch.randn(4, 16, *size), list(layer.state_dict())
    (expected,) = torch.autograd.grad(layer(x).square().sum(), layer[0].weight)
    exact(layer)
    assert list(layer.state_dict()) == names and isinstance(layer[0], nn.Conv3d)
    for _ in range(4):
        junk = [torch.full((n,), torch.nan) for n in (100, 1000, 10_000, 100_000)]
        del junk  # what lies in memory that is not written to
        with torch.autocast("cpu", torch.bfloat16):
            loss = layer(x).float().square().sum()
        (found,) = torch.autograd.grad(loss, layer[0].weight)
        assert float((found - expected).norm() / expected.norm()) < 0.02
