"""A known displacement moves an image exactly, and smooth ones cost nothing."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from fabrica.nets.registration import Registration, roughness, warped


def noise(*shape: int) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(0)) * 2 - 1


def constant(*by: float, size: tuple[int, ...]) -> Tensor:
    """(1, dims, *size): the same displacement everywhere."""
    return torch.tensor(by, dtype=torch.float32).reshape(1, -1, *[1] * len(size)).expand(1, len(by), *size).clone()


@pytest.mark.parametrize("size", [(9, 14), (5, 8, 11)])
def test_no_displacement_changes_nothing(size: tuple[int, ...]) -> None:
    images = noise(2, 3, *size)
    torch.testing.assert_close(warped(images, torch.zeros(2, len(size), *size)), images, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("size", "by"), [((9, 14), (2, -3)), ((9, 14), (-1, 0)), ((5, 8, 11), (1, -2, 3))])
def test_whole_voxels_are_exact_and_the_border_is_repeated(size: tuple[int, ...], by: tuple[int, ...]) -> None:
    images = noise(1, 2, *size)
    wanted = images
    for axis, (step, side) in enumerate(zip(by, size, strict=True), start=2):
        wanted = wanted.index_select(axis, (torch.arange(side) + step).clamp(0, side - 1))
    found = warped(images, constant(*by, size=size))
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-5)


def test_each_image_of_a_batch_has_its_own_displacement() -> None:
    images = noise(1, 1, 8, 8).repeat(2, 1, 1, 1)
    both = torch.cat([constant(0, 0, size=(8, 8)), constant(0, 2, size=(8, 8))])
    found = warped(images, both)
    torch.testing.assert_close(found[0], images[0], rtol=0, atol=1e-5)
    torch.testing.assert_close(found[1, :, :, :6], images[1, :, :, 2:], rtol=0, atol=1e-5)


def test_parts_of_voxels_are_linear() -> None:
    ramp = (torch.arange(10.0) * 3).reshape(1, 1, 10, 1).expand(1, 1, 10, 7)
    found = warped(ramp, constant(0.25, 0.0, size=(10, 7)))
    torch.testing.assert_close(found[:, :, :9], ramp[:, :, :9] + 0.75, rtol=0, atol=1e-4)


def test_the_displacement_of_a_place_is_that_place_alone() -> None:
    images, moved = noise(1, 1, 8, 8), torch.zeros(1, 2, 8, 8)
    moved[0, :, 3, 4] = torch.tensor([2.0, -3.0])
    wanted = images.clone()
    wanted[0, 0, 3, 4] = images[0, 0, 5, 1]
    torch.testing.assert_close(warped(images, moved), wanted, rtol=0, atol=1e-5)


def test_gradients_reach_image_and_displacement() -> None:
    images, moved = noise(1, 1, 8, 8).requires_grad_(), torch.zeros(1, 2, 8, 8).requires_grad_()
    warped(images, moved).square().sum().backward()
    assert images.grad is not None and moved.grad is not None
    assert bool(images.grad.isfinite().all()) and float(moved.grad.abs().max()) > 0


@pytest.mark.parametrize("size", [(9, 14), (5, 8, 11)])
def test_a_constant_displacement_is_smooth(size: tuple[int, ...]) -> None:
    assert float(roughness(constant(*range(3, 3 + len(size)), size=size))) == 0.0


def test_roughness_is_the_mean_square_of_slopes() -> None:
    moved = torch.zeros(2, 2, 6, 6)
    moved[:, 0] = 0.5 * torch.arange(6.0)[:, None]  # 0.5 voxels a row, along rows
    assert float(roughness(moved)) == pytest.approx(0.25 / 2)  # the other component does not move
    moved[:, 1] = 2.0 * torch.arange(6.0)[None]
    assert float(roughness(moved)) == pytest.approx(0.25 / 2 + 4 / 2)


@pytest.mark.parametrize("size", [(24, 24), (19, 30), (8, 11, 16)])
def test_registration_starts_from_no_displacement_and_can_learn_one(size: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    net = Registration(1, len(size), width=4)
    moving, fixed = noise(2, 1, *size), noise(2, 1, *size).flip(-1)
    found = net(moving, fixed)
    assert found.shape == (2, len(size), *size) and float(found.detach().abs().max()) == 0.0
    (warped(moving, found) - fixed).square().mean().backward()
    assert net.net.leave.weight.grad is not None and float(net.net.leave.weight.grad.abs().max()) > 0
