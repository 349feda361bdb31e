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
    shared = {id(net): net for name, net in method.named_children() if name not in ships}
    return copy.deepcopy(method, shared).requires_grad_(False).eval()


@torch.no_grad()
def update(averaged: nn.Module, network: nn.Module, decay: float) -> None:
    """averaged <- decay * averaged + (1 - decay) * network, in place; buffers are copied.

    Polyak & Juditsky 1992; every diffusion paper since Ho et al. 2020 samples from this average.
    """
    torch._foreach_lerp_(list(averaged.parameters()), list(network.parameters()), 1.0 - decay)
    for kept, new in zip(averaged.buffers(), network.buffers(), strict=True):
        kept.copy_(new)


def warmed(decay: float, step: int) -> float:
    """The decay at a step: shorter at first, so that early weights are forgotten soon."""
    return min(decay, (1 + step) / (10 + step))
