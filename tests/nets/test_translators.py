"""Generators of translation take any size, see as far as their papers say, and can learn."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from fabrica.errors import UsageError
from fabrica.nets.translators import PatchCritic, ResNetGenerator, UNetGenerator, cropped_to, padded_to

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
