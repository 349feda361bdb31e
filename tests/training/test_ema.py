"""Averaged weights: a geometric memory of the network, and a twin that leaves the other players alone."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from fabrica.methods.dcgan import DCGAN
from fabrica.methods.noise import seeded
from fabrica.recipe.schema import SampleConfig
from fabrica.training import ema


def test_weights_and_statistics_are_averaged_and_counters_copied() -> None:
    averaged, network = nn.BatchNorm1d(4), nn.BatchNorm1d(4)
    with torch.no_grad():
        averaged.weight.fill_(1.0)
        averaged.running_mean.fill_(2.0)
        network.weight.fill_(3.0)
        network.running_mean.fill_(10.0)
        network.num_batches_tracked.fill_(7)
    ema.update(averaged, network, 0.75)
    assert torch.equal(averaged.weight, torch.full((4,), 1.5))
    assert torch.equal(averaged.running_mean, torch.full((4,), 4.0))
    assert averaged.num_batches_tracked.item() == 7 and averaged.num_batches_tracked.dtype == torch.int64
    assert torch.equal(network.weight, torch.full((4,), 3.0)) and torch.equal(
        network.running_mean, torch.full((4,), 10.0)
    )


def test_the_past_fades_geometrically_and_no_decay_is_a_copy() -> None:
    averaged, network = nn.Linear(1, 1), nn.Linear(1, 1)
    with torch.no_grad():
        averaged.weight.fill_(0.0)
        for step in range(5):
            network.weight.fill_(float(step))
            ema.update(averaged, network, 0.5)
    assert averaged.weight.item() == pytest.approx(sum(k * 0.5 ** (5 - k) for k in range(5)))
    ema.update(averaged, network, 0.0)
    assert torch.equal(averaged.weight, network.weight) and torch.equal(averaged.bias, network.bias)


def test_decay_is_shorter_at_first() -> None:
    assert ema.warmed(0.999, 0) == 0.1
    assert ema.warmed(0.999, 90) == pytest.approx(0.91)
    assert ema.warmed(0.999, 10**6) == 0.999


def test_the_twin_owns_what_is_shipped_and_the_shared_critic_stays_in_training() -> None:
    method = DCGAN(DCGAN.Config(latent=8, width=4), (1, 32, 32))
    twin = ema.averaged_copy(method, method.ships)
    assert twin.critic is method.critic and method.critic.training and method.generator.training
    assert all(p.requires_grad for p in method.parameters())
    assert not twin.generator.training and not any(p.requires_grad for p in twin.generator.parameters())
    before = [p.clone() for p in twin.generator.parameters()]
    for turn in method.turns({"image": torch.randn(4, 1, 32, 32)}, torch.Generator().manual_seed(0)):
        turn.loss.backward()
    assert all(p.grad is not None for p in method.parameters())
    with torch.no_grad():
        for p in method.generator.parameters():
            p.add_(1)
    assert all(torch.equal(p, was) for p, was in zip(twin.generator.parameters(), before, strict=True))


def test_drawing_from_the_twin_changes_nothing_in_it() -> None:
    """Batch norm uses its averaged statistics, and does not gather new ones."""
    method = DCGAN(DCGAN.Config(latent=8, width=4), (1, 32, 32))
    twin = ema.averaged_copy(method, method.ships)
    before = {name: value.clone() for name, value in twin.state_dict().items()}
    with torch.no_grad():
        twin.sample(seeded(range(8)), {}, SampleConfig(), torch.device("cpu"))
    assert all(torch.equal(value, before[name]) for name, value in twin.state_dict().items())
