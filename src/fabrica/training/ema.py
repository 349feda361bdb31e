"""Averaged weights: the exponential moving average of the networks that a method ships."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import TypeVar

import torch
from torch import nn

M = TypeVar("M", bound=nn.Module)


def averaged_copy(method: M, ships: Sequence[str]) -> M:
    """A copy of the method whose shipped networks are its own and whose other networks are shared."""
    shared = {id(net): net for name, net in method.named_modules() if name and not any(_within(name, s) for s in ships)}
    twin = copy.deepcopy(method, shared)
    for name in ships:  # the shared ones stay in training
        twin.get_submodule(name).requires_grad_(False).eval()
    return twin


def _within(name: str, other: str) -> bool:
    """Whether one of two modules is the other, or part of it."""
    return f"{name}.".startswith(f"{other}.") or f"{other}.".startswith(f"{name}.")


@torch.no_grad()
def update(averaged: nn.Module, network: nn.Module, decay: float) -> None:
    """averaged <- decay * averaged + (1 - decay) * network, in place.

    Buffers of numbers, such as the statistics of batch norm, are averaged as well, so that they fit the averaged
    weights; counters are copied. Polyak & Juditsky 1992; diffusion since Ho et al. 2020 and GANs since Karras et al.
    2018 draw samples with this average.
    """
    torch._foreach_lerp_(list(averaged.parameters()), list(network.parameters()), 1.0 - decay)
    for kept, new in zip(averaged.buffers(), network.buffers(), strict=True):
        if kept.is_floating_point():
            kept.lerp_(new, 1.0 - decay)
        else:
            kept.copy_(new)


def warmed(decay: float, step: int) -> float:
    """The decay at a step: shorter at first, so that early weights are forgotten soon."""
    return min(decay, (1 + step) / (10 + step))
