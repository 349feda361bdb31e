"""What a critic sees: distortions within their limits, each image's own, through which gradients pass."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from fabrica.adversarial.diffaugment import KINDS, augmented, brightness, contrast, cutout, translation


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def images(n: int = 64, channels: int = 2, height: int = 32, width: int = 32) -> Tensor:
    return torch.rand(n, channels, height, width, generator=rng(1)) * 2 - 1


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_changes_images_each_in_its_own_way(kind: str) -> None:
    one = images(1).repeat(64, 1, 1, 1)
    found = augmented(one, [kind], rng())
    assert found.shape == one.shape and found.dtype == one.dtype
    assert len(torch.unique(found.flatten(1), dim=0)) > 16
    assert bool((found != one).flatten(1).any(dim=1).float().mean() > 0.9)


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_generator_gives_the_same_distortion(kind: str) -> None:
    x = images()
    assert torch.equal(augmented(x, [kind], rng(3)), augmented(x, [kind], rng(3)))
    assert not torch.equal(augmented(x, [kind], rng(3)), augmented(x, [kind], rng(4)))


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_pass_and_are_the_true_ones(kind: str) -> None:
    x = images(2, 1, 8, 8).double().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: augmented(x, [kind], rng()), (x,))
    (slope,) = torch.autograd.grad(augmented(x, [kind], rng()).square().sum(), x)
    assert bool((slope != 0).flatten(1).any(dim=1).all())


def test_kinds_follow_each_other_and_none_is_none() -> None:
    x, one = images(), rng()
    by_hand = cutout(translation(x, one), one)
    assert torch.equal(augmented(x, ["translation", "cutout"], rng()), by_hand)
    assert torch.equal(augmented(x, [], rng()), x)


def test_images_that_came_in_are_left_alone() -> None:
    x = images()
    before = x.clone()
    augmented(x, list(KINDS), rng())
    assert torch.equal(x, before)


def test_brightness_adds_one_number_of_up_to_a_quarter_of_the_range() -> None:
    x = images(1000, 2, 4, 4)
    added = brightness(x, rng()) - x
    assert float((added - added[:, :1, :1, :1]).abs().max()) < 1e-6
    each = added[:, 0, 0, 0]
    assert -0.5 <= float(each.min()) < -0.49 and 0.49 < float(each.max()) <= 0.5
    assert abs(float(each.mean())) < 0.03


def test_contrast_keeps_the_mean_and_scales_the_rest_by_half_to_one_and_a_half() -> None:
    x = images(1000, 2, 4, 4)
    found = contrast(x, rng())
    torch.testing.assert_close(found.mean(dim=(1, 2, 3)), x.mean(dim=(1, 2, 3)))
    ratio = found.std(dim=(1, 2, 3)) / x.std(dim=(1, 2, 3))
    assert 0.5 <= float(ratio.min()) < 0.51 and 1.49 < float(ratio.max()) <= 1.5
    flat = torch.full((4, 1, 8, 8), 0.3)
    torch.testing.assert_close(contrast(flat, rng()), flat)


def shifted(image: Tensor, down: int, right: int) -> Tensor:
    """(C, H, W) moved by whole pixels, by slices: what comes in is 0."""
    _, height, width = image.shape
    moved = torch.zeros_like(image)
    moved[:, max(down, 0) : height + min(down, 0), max(right, 0) : width + min(right, 0)] = image[
        :, max(-down, 0) : height + min(-down, 0), max(-right, 0) : width + min(-right, 0)
    ]
    return moved


def test_translation_moves_by_whole_pixels_up_to_an_eighth_of_each_side() -> None:
    x = images(300, 2, 16, 32)
    seen = set()
    for before, after in zip(x, translation(x, rng()), strict=True):
        moves = [(d, r) for d in range(-2, 3) for r in range(-4, 5) if torch.equal(shifted(before, d, r), after)]
        assert len(moves) == 1
        seen.update(moves)
    assert {down for down, _ in seen} == set(range(-2, 3)) and {right for _, right in seen} == set(range(-4, 5))


def test_cutout_hides_a_square_of_half_the_side_that_may_stand_over_the_edge() -> None:
    found = cutout(torch.ones(500, 2, 32, 32), rng())
    assert torch.equal(found[:, 0], found[:, 1])
    hidden = found[:, 0] == 0
    rows, columns = hidden.any(dim=2), hidden.any(dim=1)
    assert torch.equal(hidden, rows[:, :, None] & columns[:, None, :])  # a rectangle
    for lines in (rows, columns):
        assert bool(((lines.int().diff(dim=1) != 0).sum(dim=1) <= 2).all())  # in one piece
        assert int(lines.sum(dim=1).max()) == 16
        assert 7 <= int(lines.sum(dim=1).min()) <= 9  # its middle is always inside
        reached = lines.float().mean(dim=0)
        assert float(reached.min()) > 0.2  # the edges too
    assert bool((found[:, 0][~hidden] == 1).all())
