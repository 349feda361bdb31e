"""Training for INT8: values as INT8 has them, gradients as if nothing were rounded, norms as they will be folded."""

from __future__ import annotations

import copy
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn.functional import conv_transpose2d

from fabrica.nets import quantise
from fabrica.nets.convolutions import Doubling, added_up
from fabrica.nets.fusing import fused
from fabrica.nets.nafnet import NAFNet
from fabrica.nets.quantise import Range, values_in_8_bits, weights_in_8_bits
from fabrica.nets.unetpp import UNetPlusPlus

BOUND = st.floats(0.015625, 128, width=32)


@given(BOUND, BOUND, st.integers(0, 2**31 - 1))
def test_values_are_those_of_256_numbers_of_which_0_is_one(low: float, high: float, seed: int) -> None:
    x = torch.from_numpy(np.random.default_rng(seed).uniform(-2 * low, 2 * high, 64).astype(np.float32))
    made = values_in_8_bits(x, torch.tensor(-low), torch.tensor(high)).numpy()
    step = (high + low) / 255
    levels = made / step
    assert np.abs(levels - levels.round()).max() < 1e-3 and np.ptp(levels) < 255.01
    inside = (x.numpy() > step - low) & (x.numpy() < high - step)  # where 0 lies between two, a range moves by half
    assert (np.abs(made - x.numpy())[inside] < 0.501 * step).all()
    assert made.min() > -low - 0.501 * step and made.max() < high + 0.501 * step
    assert float(values_in_8_bits(torch.zeros(1), torch.tensor(-low), torch.tensor(high))) == 0


def test_gradients_pass_within_the_range_and_not_beyond_it() -> None:
    x = torch.tensor([-3.0, -0.9, 0.3, 1.4, 5.0], requires_grad=True)
    values_in_8_bits(x, torch.tensor(-1.0), torch.tensor(2.0)).sum().backward()  # type: ignore[no-untyped-call]
    assert x.grad is not None and x.grad.tolist() == [0, 1, 1, 1, 0]


@pytest.mark.parametrize("seed", range(5))
def test_a_norm_behind_a_convolution_changes_nothing_of_how_its_weights_are_rounded(seed: int) -> None:
    rng = torch.Generator().manual_seed(seed)
    weight, factor = torch.randn(5, 3, 3, 3, generator=rng), torch.rand(5, generator=rng) + 0.1
    signed = (factor * torch.tensor([1, -1, 1, -1, 1])).view(-1, 1, 1, 1)
    torch.testing.assert_close(weights_in_8_bits(weight * signed), weights_in_8_bits(weight) * signed)
    levels = weights_in_8_bits(weight) / (weight.abs().amax((1, 2, 3), keepdim=True) / 127)
    torch.testing.assert_close(levels, levels.round(), atol=1e-3, rtol=0)


def test_ranges_are_observed_then_used_then_frozen() -> None:
    network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Conv2d(2, 1, 1))
    plain = copy.deepcopy(network)
    ranges = quantise.prepare(network)
    x = torch.randn(2, 1, 9, 9, generator=torch.Generator().manual_seed(0))
    own, _ = (each for each in ranges if isinstance(each, Range))
    quantise.pace(ranges, 0.0)
    torch.testing.assert_close(network(x), plain(x), rtol=0, atol=0)
    assert (float(own.low), float(own.high)) == (float(x.min()), float(x.max()))
    quantise.pace(ranges, quantise.QUANTISED)
    assert 0 < float((network(x) - plain(x)).detach().abs().max()) < 0.05 and not quantise.settled(ranges)
    network(2 * x)
    assert float(own.high) > float(x.max())
    quantise.pace(ranges, quantise.FROZEN)
    before = float(own.high)
    network(5 * x)
    assert float(own.high) == before and quantise.settled(ranges)
    with torch.no_grad():
        quantise.pace(ranges, 0.0)
        network(9 * x)
    assert float(own.high) == before  # what is judged is not learned from
    assert network.state_dict().keys() == plain.state_dict().keys()


@pytest.mark.parametrize("kind", ["nafnet", "unet++"])
def test_norms_are_rounded_as_they_are_folded(kind: str) -> None:
    """What is trained is what will be exported: the folded network with rounded weights, and no norms of its own."""
    torch.manual_seed(0)
    network: nn.Module = NAFNet(1, 1, "tiny", 1) if kind == "nafnet" else UNetPlusPlus(1, 1, 4)
    for part in network.modules():
        if isinstance(part, nn.BatchNorm2d):
            nn.init.uniform_(part.weight, 0.5, 1.5)
            nn.init.normal_(part.bias, 0, 0.2)
            assert part.running_mean is not None and part.running_var is not None
            nn.init.normal_(part.running_mean, 0, 0.2)
            nn.init.uniform_(part.running_var, 0.5, 2)
    for weight in network.parameters():
        if not weight.any():
            nn.init.normal_(weight, 0, 0.05)
    folded = fused(copy.deepcopy(network))
    ranges = quantise.prepare(network.eval())
    x = torch.randn(1, 1, 33, 40, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        exact = folded(x)
        for each in ranges:
            assert isinstance(each, Range)
            each.rounds = True  # weights alone: no values were seen
        rounded = network(x)
        doubled = {id(layer.convolution): layer for layer in folded.modules() if isinstance(layer, Doubling)}
        for layer in [layer for layer in folded.modules() if isinstance(layer, nn.Conv2d)][:-1]:
            if id(layer) not in doubled:
                layer.weight.copy_(weights_in_8_bits(layer.weight))
        for layer in doubled.values():  # of which the four sums of weights are rounded that make a pixel
            part = weights_in_8_bits(added_up(layer.convolution.weight), axis=1)
            layer.forward = partial(conv_transpose2d, weight=part, bias=layer.convolution.bias, stride=2, padding=1)  # type: ignore[method-assign]
        wanted = folded(x)
    lost = float((wanted - exact).abs().mean())
    # rounding in float32, which such a network makes larger; norms that were left out would be more than is lost
    assert float((rounded - wanted).abs().mean()) < 0.3 * lost and 0 < lost < 0.05 * float(exact.std())
