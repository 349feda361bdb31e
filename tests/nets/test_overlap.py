"""Losses of label maps: the published ones where all is known, and what may be where not."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, one_hot
from torch.nn.functional import cross_entropy as published

from fabrica.nets.overlap import cross_entropy, probabilities, soft_dice


def drawn(*size: int, classes: int = 4, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Logits (2, K, *S), class numbers, and these as labels of 1 and -1."""
    rng = torch.Generator().manual_seed(seed)
    logits = torch.randn(2, classes, *size, generator=rng)
    numbers = torch.randint(classes, (2, *size), generator=rng)
    return logits, numbers, 2 * one_hot(numbers, classes).movedim(-1, 1).float() - 1


@pytest.mark.parametrize("size", [(9, 7), (4, 6, 5)])
def test_of_known_labels_it_is_cross_entropy(size: tuple[int, ...]) -> None:
    logits, numbers, labels = drawn(*size)
    expected = published(logits, numbers, reduction="none").flatten(1).mean(1)
    torch.testing.assert_close(cross_entropy(logits, labels), expected)
    both = binary_cross_entropy_with_logits(logits, (labels + 1) / 2, reduction="none").mean(1).flatten(1).mean(1)
    torch.testing.assert_close(cross_entropy(logits, labels, regions=True), both)


def test_what_nobody_labelled_teaches_nothing() -> None:
    logits, _, labels = drawn(8, 8)
    labels[:, :, :4] = 0
    logits.requires_grad_()
    for regions in (False, True):
        (gradient,) = torch.autograd.grad(cross_entropy(logits, labels, regions).sum(), logits)
        assert gradient[:, :, :4].abs().max() < 1e-8 and gradient[:, :, 4:].abs().min() > 1e-6
    (gradient,) = torch.autograd.grad(soft_dice(probabilities(logits), labels).sum(), logits)
    assert gradient[:, :, :4].abs().max() == 0


def test_an_organ_that_was_not_drawn_may_be_in_the_background() -> None:
    """Of classes 0 to 3 only 1 was drawn: a voxel outside of it is 0, 2 or 3, and the loss is -log of their sum."""
    logits, numbers, labels = drawn(6, 6)
    outside = (numbers != 1)[:, None]
    labels = torch.where(outside, torch.tensor([0.0, -1, 0, 0]).view(1, 4, 1, 1), labels)
    labels[:, 2:] = torch.where(outside, labels[:, 2:], -1.0)
    each = torch.where(
        numbers == 1, -logits.softmax(1)[:, 1].log(), -(1 - logits.softmax(1)[:, 1]).log()
    )  # 1 - p1 = p0 + p2 + p3
    torch.testing.assert_close(cross_entropy(logits, labels), each.flatten(1).mean(1))


def test_dice_is_twice_what_is_common() -> None:
    labels = -torch.ones(1, 2, 4, 4)
    labels[:, 1, :2] = 1
    labels[:, 0, 2:] = 1
    made = torch.zeros(1, 2, 4, 4)
    made[:, 1, 1:3] = 1
    assert float(soft_dice(made, labels)[0, 1]) == pytest.approx(2 * 4 / (8 + 8), abs=1e-5)
    labels[:, :, 2] = 0  # a row that nobody labelled: what was made there is no fault
    assert float(soft_dice(made, labels)[0, 1]) == pytest.approx(2 * 4 / (8 + 4), abs=1e-5)
    labels[:, 1] = 0
    assert soft_dice(made, labels)[0, 1].isnan() and not soft_dice(made, labels)[0, 0].isnan()


def test_of_a_batch_sums_are_taken_together() -> None:
    logits, _, labels = drawn(5, 5, seed=3)
    together = soft_dice(probabilities(logits), labels, batch=True)
    flat = [x.transpose(0, 1).reshape(1, 4, 10, 5) for x in (probabilities(logits), labels)]
    torch.testing.assert_close(together, soft_dice(flat[0], flat[1]))
