"""Adversarial mathematics against references and closed forms."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn.functional import binary_cross_entropy_with_logits

from fabrica.adversarial.losses import (
    SIDES,
    History,
    accuracy,
    critic_loss,
    frozen,
    generator_loss,
    least_squares,
    mixed_accuracy,
    refuse_volumes,
    relativistic,
    slopes,
    square_side,
    wasserstein,
)
from fabrica.errors import UsageError

REAL, FAKE = torch.randn(2, 50, generator=torch.Generator().manual_seed(0)) * 5


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_critic_minimises_cross_entropy_with_smoothing_on_real_images_only(smoothing: float) -> None:
    wanted = binary_cross_entropy_with_logits(REAL, torch.full_like(REAL, 1 - smoothing))
    wanted += binary_cross_entropy_with_logits(FAKE, torch.zeros_like(FAKE))
    torch.testing.assert_close(critic_loss(REAL, FAKE, smoothing), wanted)


def test_the_generator_minimises_cross_entropy_with_fakes_called_real() -> None:
    torch.testing.assert_close(generator_loss(FAKE), binary_cross_entropy_with_logits(FAKE, torch.ones_like(FAKE)))


def test_sure_scores_keep_losses_and_gradients_finite() -> None:
    """Where log(sigmoid) itself would be infinite; a critic that is sure still tells the generator where to go."""
    fake = torch.tensor([-1000.0], requires_grad=True)
    assert float(generator_loss(fake).detach()) == 1000 and float(critic_loss(-fake, fake).detach()) == 0
    (slope,) = torch.autograd.grad(generator_loss(fake), fake)
    assert float(slope) == -1


def test_wasserstein_is_the_difference_of_means() -> None:
    assert float(wasserstein(torch.tensor([3.0, 5.0]), torch.tensor([1.0, -2.0]))) == -4.5


def test_the_relativistic_loss_is_of_pairs() -> None:
    better, worse = torch.tensor([0.0, 3.0]), torch.tensor([0.0, 1.0])
    wanted = (math.log(2) + math.log(1 + math.exp(-2))) / 2
    assert float(relativistic(better, worse)) == pytest.approx(wanted, rel=1e-6)
    assert float(relativistic(REAL + 7, FAKE + 7)) == pytest.approx(float(relativistic(REAL, FAKE)), rel=1e-5)
    assert float(relativistic(better, worse.flip(0))) != pytest.approx(wanted, rel=0.01)


def test_the_slope_of_a_linear_critic_is_its_weight_and_the_penalty_moves_it() -> None:
    w = torch.randn(3, 4, 4, generator=torch.Generator().manual_seed(1), requires_grad=True)
    images = torch.randn(5, 3, 4, 4, generator=torch.Generator().manual_seed(2), requires_grad=True)
    found = slopes((images * w).sum(dim=(1, 2, 3)), images)
    torch.testing.assert_close(found, w.detach().square().sum().expand(5))
    (moved,) = torch.autograd.grad(found.mean(), w)
    torch.testing.assert_close(moved, 2 * w.detach())


def test_slopes_are_each_images_own() -> None:
    images = torch.randn(5, 1, 2, 2, requires_grad=True)
    found = slopes(images.pow(2).sum(dim=(1, 2, 3)), images)
    torch.testing.assert_close(found.detach(), 4 * images.detach().square().sum(dim=(1, 2, 3)))


def test_accuracy_is_the_share_beyond_the_threshold() -> None:
    real, fake = torch.tensor([1.0, 2.0, -1.0, 3.0]), torch.tensor([-1.0, 0.5])
    assert accuracy(real, fake) == (0.75, 0.5)
    assert accuracy(real, fake, threshold=1.5) == (0.5, 1.0)


def test_mixed_accuracy_knows_no_zero() -> None:
    """Scores of a Wasserstein or relativistic critic mean something between each other only."""
    real, fake = torch.tensor([1.0, 2.0, -1.0, 3.0]), torch.tensor([-1.0, 0.0])
    for shift in (0.0, 100.0, -100.0):
        assert mixed_accuracy(real + shift, fake + shift) == (0.75, 1.0)
    many = torch.randn(2, 10_000, generator=torch.Generator().manual_seed(0))
    assert mixed_accuracy(many[0], many[1]) == pytest.approx((0.5, 0.5), abs=0.03)
    assert mixed_accuracy(many[0] - 5, many[1] + 5) == (0.0, 0.0)


def test_gradients_pass_through_a_frozen_network_and_none_is_kept() -> None:
    network, x = torch.nn.Linear(3, 1), torch.ones(2, 3, requires_grad=True)
    with frozen(network):
        loss = network(x).sum()
    loss.backward()  # the block is over, and still
    assert network.weight.grad is None and network.bias.grad is None
    assert x.grad is not None
    torch.testing.assert_close(x.grad, network.weight.detach().expand(2, 3))


def test_frozen_networks_thaw_as_they_were_even_after_an_error() -> None:
    one, other = torch.nn.Linear(3, 1), torch.nn.Linear(3, 1)
    other.bias.requires_grad_(False)
    with pytest.raises(ZeroDivisionError), frozen(one, other):
        assert not any(p.requires_grad for p in (*one.parameters(), *other.parameters()))
        _ = 1 / 0
    assert one.weight.requires_grad and one.bias.requires_grad and other.weight.requires_grad
    assert not other.bias.requires_grad


@pytest.mark.parametrize("side", SIDES)
def test_powers_of_two_fit(side: int) -> None:
    assert square_side((3, side, side)) == side


@pytest.mark.parametrize(
    ("sides", "nearest"),
    [((48, 48), 32), ((30, 30), 32), ((64, 32), 64), ((512, 512), 256), ((16, 16), 32), ((200,) * 2, 256)],
)
def test_other_sides_are_refused_with_one_that_fits(sides: tuple[int, ...], nearest: int) -> None:
    with pytest.raises(UsageError) as refused:
        square_side((1, *sides))
    message = str(refused.value)
    assert message.startswith(f"data.size {list(sides)} does not fit") and "\n" not in message
    assert "32, 64, 128, 256" in message and f"data.size={nearest} " in message


def test_volumes_are_refused() -> None:
    with pytest.raises(UsageError, match=r"data\.size \[64, 64, 64\] does not fit"):
        square_side((1, 64, 64, 64))


def frames(*values: float) -> torch.Tensor:
    """(B, 1, 2, 2), each filled with one value."""
    return torch.tensor(values).reshape(-1, 1, 1, 1).expand(-1, 1, 2, 2).clone()


def test_the_first_images_fill_the_history_and_are_shown_themselves() -> None:
    past, rng = History(3, (1, 2, 2)), torch.Generator().manual_seed(0)
    assert torch.equal(past(frames(1, 2), rng), frames(1, 2)) and int(past.count) == 2
    assert torch.equal(past(frames(3), rng), frames(3)) and int(past.count) == 3
    assert torch.equal(past.past, frames(1, 2, 3))


def test_half_of_the_images_shown_are_older_and_none_is_shown_twice() -> None:
    """An older one makes room for the new: every image is shown once at most, and lost only in the buffer."""
    past, rng = History(20, (1, 2, 2)), torch.Generator().manual_seed(0)
    shown = torch.cat([past(frames(*range(4 * k, 4 * k + 4)), rng) for k in range(500)])[:, 0, 0, 0]
    new = torch.arange(2000.0)
    older = (shown != new)[20:].float().mean()
    assert float(older) == pytest.approx(0.5, abs=4 * 0.5 / 1980**0.5)  # four standard errors
    assert bool((shown <= new).all())
    later = shown[20:]
    assert len(later.unique()) == len(later)
    held = past.past[:, 0, 0, 0]
    assert not set(held.tolist()) & set(later.tolist())
    gap = float((new - shown)[20:].mean())  # ten older ones of mean age 40 in twenty
    assert 10 < gap < 30


def test_the_images_shown_are_no_view_of_the_history() -> None:
    past, rng = History(1, (1, 2, 2)), torch.Generator().manual_seed(0)
    given = frames(1)
    past(given, rng).fill_(9)
    assert torch.equal(past.past, frames(1)) and torch.equal(given, frames(1))


def test_a_history_of_none_shows_every_image_as_it_comes() -> None:
    past, rng = History(0, (1, 2, 2)), torch.Generator().manual_seed(0)
    assert all(torch.equal(past(frames(k, k + 1), rng), frames(k, k + 1)) for k in range(50))


def test_a_restored_history_goes_on_where_it_stood() -> None:
    one, other = History(5, (1, 2, 2)), History(5, (1, 2, 2))
    for k in range(6):
        one(frames(2 * k, 2 * k + 1), torch.Generator().manual_seed(k))
    other.load_state_dict(one.state_dict())
    for k in range(6, 12):
        new = frames(2 * k, 2 * k + 1)
        assert torch.equal(*(past(new, torch.Generator().manual_seed(k)) for past in (one, other)))


def test_least_squares_is_the_mean_square_from_what_is_wanted() -> None:
    assert float(least_squares(torch.tensor([[1.0, 3.0], [0.0, -1.0]]), 1.0)) == (0 + 4 + 1 + 4) / 4


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((1, 32, 32, 32), r"^cut sees slices; give data\.size as \[H, W\], or take method\.name=pix2pix for volumes$"),
        ((1, 64, 23), r"^data\.size is \[64, 23\]; the critic of cut takes 24 or more along each axis$"),
    ],
)
def test_translators_of_slices_refuse_volumes_and_what_is_too_small(shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        refuse_volumes("cut", shape)
    refuse_volumes("cut", (3, 24, 24))
