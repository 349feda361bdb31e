"""Generators of translation take any size, see as far as their papers say, and can learn."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from fabrica.errors import UsageError
from fabrica.nets.framing import cropped_to, padded_to
from fabrica.nets.translators import (
    PatchCritic,
    ResidualUNet,
    ResNetGenerator,
    UNetGenerator,
)
from fabrica.nets.unetpp import UNetPlusPlus

GENERATORS = {
    "resnet": lambda c, c2: ResNetGenerator(c, c2, width=8, blocks=2),
    "unet": lambda c, c2: UNetGenerator(c, c2, width=8, levels=4),
}


def noise(*shape: int) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(0)) * 2 - 1


@pytest.mark.parametrize("size", [(32, 32), (33, 47), (30, 64), (17, 90)])
@pytest.mark.parametrize("kind", GENERATORS)
def test_any_size_comes_back_in_its_size(kind: str, size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    net = GENERATORS[kind](2, 3).eval()
    with torch.no_grad():
        found = net(noise(2, 2, *size))
    assert found.shape == (2, 3, *size)
    assert float(found.abs().max()) <= 1
    assert float(found.std()) > 0


@pytest.mark.parametrize("kind", GENERATORS)
def test_gradients_reach_every_weight(kind: str) -> None:
    torch.manual_seed(0)
    net = GENERATORS[kind](1, 1)
    net(noise(2, 1, 40, 36)).square().mean().backward()
    for name, weight in net.named_parameters():
        assert weight.grad is not None and float(weight.grad.abs().max()) > 0, name


def test_padding_is_cut_off_where_it_was_put() -> None:
    x = noise(1, 1, 13, 22)
    padded = padded_to(x, 8)
    assert padded.shape == (1, 1, 16, 24)
    assert torch.equal(cropped_to(padded, x), x)
    assert padded_to(padded, 8) is padded


def test_the_critic_judges_patches_of_seventy_pixels() -> None:
    critic = PatchCritic(1, width=4)
    for layer in critic.modules():
        if isinstance(layer, nn.InstanceNorm2d):  # it looks at the whole image; the receptive field is of convolutions
            layer.forward = lambda x: x  # type: ignore[method-assign]
    image = noise(1, 1, 200, 200).requires_grad_()
    scores = critic(image)
    scores[0, 0, 12, 12].backward()
    assert image.grad is not None
    touched = image.grad[0, 0].abs().sum(1).nonzero().flatten()
    assert int(touched.max() - touched.min()) + 1 == 70


def test_the_critic_takes_any_size_from_24() -> None:
    critic = PatchCritic(1, width=4)
    assert critic(noise(2, 1, 24, 24)).shape == (2, 1, 1, 1)
    assert critic(noise(2, 1, 77, 130)).shape == (2, 1, 7, 14)


def test_identity_can_be_learned() -> None:
    torch.manual_seed(0)
    net = UNetGenerator(1, 1, width=8, levels=3, dropout=0)
    optimiser = torch.optim.Adam(net.parameters(), 2e-3)
    images = torch.nn.functional.interpolate(noise(8, 1, 4, 4), size=32, mode="bilinear")
    first = last = 0.0
    for _ in range(80):
        loss = (net(images) - images).abs().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        first, last = first or float(loss.detach()), float(loss.detach())
    assert last < 0.4 * first


def test_too_few_levels_are_refused() -> None:
    with pytest.raises(UsageError, match="at least 2"):
        UNetGenerator(1, 1, levels=1)


U_NETS = {
    "unet": lambda c, c2, dims: UNetGenerator(c, c2, width=4, levels=3, dims=dims),
    "residual": lambda c, c2, dims: ResidualUNet(c, c2, width=4, levels=3, dims=dims),
    "unet++": lambda c, c2, dims: UNetPlusPlus(c, c2, width=4, residual=False, dims=dims),
}


@pytest.mark.parametrize("size", [(32, 48), (33, 27), (16, 32, 32), (9, 21, 30)])
@pytest.mark.parametrize("kind", U_NETS)
def test_u_nets_take_slices_and_volumes_of_any_size(kind: str, size: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    net = U_NETS[kind](3, 2, len(size))
    found = net(noise(1, 3, *size))
    assert found.shape == (1, 2, *size) and bool(found.isfinite().all())
    found.square().mean().backward()
    for name, weight in net.named_parameters():
        assert weight.grad is not None, name


def test_the_residual_network_reaches_beyond_the_range_of_a_tanh() -> None:
    torch.manual_seed(0)
    net = ResidualUNet(1, 1, width=4, levels=2)
    with torch.no_grad():
        net.leave.weight.mul_(50)
        assert float(net(noise(1, 1, 16, 16)).abs().max()) > 1


@pytest.mark.parametrize("kind", ["residual", "unet++"])
def test_at_work_a_place_is_seen_alike_whatever_is_far_from_it(kind: str) -> None:
    """Batch norm, not instance norm: windows agree where they overlap."""
    torch.manual_seed(0)
    net = U_NETS[kind](1, 1, 2).eval()
    images = noise(1, 1, 32, 320)
    other = images.clone()
    other[..., 200:] = 1
    with torch.no_grad():
        one, two = net(images), net(other)
    torch.testing.assert_close(one[..., :32], two[..., :32], rtol=0, atol=1e-5)
    assert not torch.equal(one[..., 200:], two[..., 200:])


def test_padding_is_shared_by_both_ends_and_repeats_the_border() -> None:
    x = noise(1, 1, 5, 6, 8)
    padded = padded_to(x, 4)
    assert padded.shape == (1, 1, 8, 8, 8)
    assert torch.equal(padded[..., 0, 0, :], x[..., 0, 0, :]) and torch.equal(padded[..., -1, -1, :], x[..., -1, -1, :])
    assert torch.equal(padded[:, :, 1:6, 1:7], x) and torch.equal(cropped_to(padded, x), x)


def test_the_critic_of_volumes_judges_patches_of_volumes() -> None:
    assert PatchCritic(2, width=4, dims=3)(noise(1, 2, 24, 32, 40)).shape == (1, 1, 1, 2, 3)


def test_taps_are_what_the_encoder_gives_in_its_order() -> None:
    torch.manual_seed(0)
    net = ResNetGenerator(1, 1, width=4, blocks=2)
    seen: dict[int, Tensor] = {}
    for k, layer in enumerate(net.encode):
        layer.register_forward_hook(lambda _, __, found, k=k: seen.__setitem__(k, found.clone()))
    images, taps = noise(1, 1, 24, 24), [0, 3, 6, 9, 10]
    with torch.no_grad():
        image, *found = net(images, taps)
        assert torch.equal(image, net(images))
    assert [one.shape[1] for one in found] == [net.widths[k] for k in taps] and len(net.widths) == len(net.encode)
    for k, one in zip(taps, found, strict=True):
        assert torch.equal(one, seen[k]), k
    with torch.no_grad():
        assert all(torch.equal(*pair) for pair in zip(net(images, taps, decode=False), found, strict=True))


def test_dropout_is_in_the_three_innermost_levels_of_the_decoder_only() -> None:
    net = UNetGenerator(1, 1, width=4, levels=7, dropout=0.5)
    drops = [any(isinstance(layer, nn.Dropout) for layer in level) for level in net.up]
    assert drops == [False, True, True, True, False, False, False]
    few = UNetGenerator(1, 1, width=4, levels=3, dropout=0.5)
    assert [any(isinstance(layer, nn.Dropout) for layer in level) for level in few.up] == [False, True, False]
    assert not any(isinstance(layer, nn.Dropout) for layer in UNetGenerator(1, 1, width=4, dropout=0).modules())
