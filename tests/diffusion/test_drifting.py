"""The drifting field against its definition, where it must vanish, and what is learned by it."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from fabrica.diffusion.drifting import beside, drift, drifting_loss, seen


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def written_out(made: torch.Tensor, real: torch.Tensor, temperature: float) -> torch.Tensor:
    """One place: the weights of algorithm 2 by loops."""
    count, pulls = len(made), len(real)
    everything = torch.cat([real, made])
    apart = torch.tensor([[float((x - y).norm()) for y in everything] for x in made], dtype=torch.float64)
    off = [(i, pulls + i) for i in range(count)]
    kept = torch.ones_like(apart)
    for place in off:
        kept[place] = 0
    kernel = torch.exp(-apart / (apart * kept).sum() * kept.sum() / temperature) * kept
    weight = kernel / (kernel.sum(1, keepdim=True) * kernel.sum(0, keepdim=True)).sqrt()
    field = torch.zeros_like(made)
    for i in range(count):
        for j in range(pulls):
            for k in range(count):
                field[i] += weight[i, j] * weight[i, pulls + k] * (real[j] - made[k])
    return field / field.square().sum(1).mean().sqrt()


@pytest.mark.parametrize("temperature", [0.1, 1.0])
def test_the_field_is_that_of_the_definition(temperature: float) -> None:
    made, real = noise(5, 3), noise(7, 3, seed=1) + 0.5
    field, length = drift(made[None], real[None], [temperature])
    torch.testing.assert_close(field[0], written_out(made, real, temperature))
    moved, scaled = drift(10 * made[None], 10 * real[None], [temperature])  # units do not matter
    torch.testing.assert_close(moved, field)
    torch.testing.assert_close(scaled, 10 * length)


def test_it_is_antisymmetric_and_so_pulls_nowhere_when_both_sets_are_one() -> None:
    """Among equals all that is left is what none has of itself: the sets pull as much as they push."""
    both = noise(400, 2)
    made, real = both[:200], both[200:]
    strayed, _ = drift((made + torch.tensor([3.0, 0.0]))[None], real[None], [0.5])
    settled, _ = drift(made[None], real[None], [0.5])
    assert float(strayed[0].mean(0)[0]) < -0.8  # back to where the real ones are, all together
    assert float(settled[0].mean(0).norm()) < 0.3


def test_labels_keep_sets_apart() -> None:
    """What is far away pulls those of its own label, and with labels no others."""
    made, real = noise(6, 2), noise(8, 2, seed=1)
    labels, theirs = torch.tensor([0, 0, 0, 1, 1, 1]), torch.tensor([0] * 4 + [1] * 4)
    real[4:] += 100.0
    alike = labels[:, None] == torch.cat([theirs, labels])
    for told, most in ((alike, 0.1), (None, 2.0)):
        field, _ = drift(made[None], real[None], [1.0], told)
        near, far = field[0].norm(dim=1).view(2, 3).mean(1)
        assert (float(near / far) < 0.1) == (told is not None) and float(near / far) < most


def test_windows_show_every_scale_and_what_details_add() -> None:
    images = noise(2, 3, 16, 16)
    scales = seen(images, [4])
    sizes = [(49, 2, 48), (49, 2, 48), (9, 2, 48), (9, 2, 48), (1, 2, 48)]
    assert [tuple(each.shape) for each in scales] == sizes
    torch.testing.assert_close(scales[0][0, 1], images[1, :, :4, :4].flatten())
    mean = torch.nn.functional.avg_pool2d(images, 4)
    torch.testing.assert_close(scales[4][0], mean.flatten(1))
    both = seen(images, [2, 4])
    assert len(both) == 7 + 5 and torch.equal(both[7], scales[0])
    flat = seen(torch.ones(1, 1, 8, 8), [4])
    assert not flat[1].any() and bool((flat[0] == 1).all())


def test_a_network_of_one_step_learns_a_distribution() -> None:
    """Images of one of two greys, drawn of noise in one step: both are made, and nothing between them."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(8, 64), nn.SiLU(), nn.Linear(64, 64), nn.SiLU(), nn.Linear(64, 16))
    optimiser = torch.optim.Adam(net.parameters(), lr=3e-3)
    rng = torch.Generator().manual_seed(0)
    for _ in range(300):
        sign = torch.randint(0, 2, (64, 1), generator=rng).float() * 2 - 1
        real = (sign * 0.6 + 0.05 * torch.randn(64, 16, generator=rng)).view(64, 1, 4, 4)
        made = net(torch.randn(64, 8, generator=rng)).view(64, 1, 4, 4)
        optimiser.zero_grad()
        drifting_loss(made, real, [4], 8, rng=rng).backward()
        optimiser.step()
    with torch.no_grad():
        means = net(torch.randn(512, 8, generator=rng)).mean(1)
    near = torch.stack([(means - grey).abs() < 0.25 for grey in (-0.6, 0.6)]).float().mean(1)
    assert float(near.min()) > 0.25 and float(near.sum()) > 0.6  # a smooth network makes some between


@pytest.mark.parametrize("weight", [0.0, 0.3, 2.0])
@pytest.mark.parametrize("unit", [1e-3, 1.0, 100.0])
def test_beside_fidelity_drifting_has_its_share_whatever_the_unit(weight: float, unit: float) -> None:
    wanted, made = unit * noise(4, 1, 16, 16), (unit * noise(4, 1, 16, 16, seed=1)).requires_grad_()
    fidelity = (made - wanted).abs().mean()
    drifting = drifting_loss(made, wanted, rng=torch.Generator().manual_seed(0))
    ours, theirs = (torch.autograd.grad(each, made, retain_graph=True)[0] for each in (fidelity, drifting))
    loss = beside(fidelity, drifting, made, weight)
    torch.testing.assert_close(loss, fidelity)  # the field has a direction, and no height
    (found,) = torch.autograd.grad(loss, made)
    torch.testing.assert_close(found, ours + weight * ours.norm() * theirs / theirs.norm())
