"""How alike two batches of images look to a network: a distance to learn from that sees texture, not single pixels."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor, nn
from torch.nn.functional import l1_loss

from fabrica.errors import UsageError


def feature_distance(found: Sequence[Tensor], wanted: Sequence[Tensor]) -> Tensor:
    """The mean distance of what each layer of a critic finds in two batches (pix2pixHD: Wang et al. 2018, eq. 4)."""
    return torch.stack([l1_loss(*pair) for pair in zip(found, wanted, strict=True)]).mean()


def seen_otherwise(network: str, made: Tensor, wanted: Tensor) -> Tensor:
    """The squared distance of what a network file finds in two batches of images (B, C, H, W) in [-1, 1] (Ledig et al.
    2017, eq. 5)."""
    seer = _opened(network, made.device)
    distance: Tensor = (seer(made) - seer(wanted)).square().mean()
    return distance


@lru_cache(maxsize=2)
def _opened(network: str, device: torch.device) -> nn.Module:
    """A TorchScript file, its weights fixed; UsageError if it is none."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # the format most published feature networks come in
            seer: nn.Module = torch.jit.load(network, map_location=device)  # type: ignore[no-untyped-call]
    except (RuntimeError, ValueError, OSError) as error:
        raise UsageError(f"method.network {network} is no TorchScript file: {str(error).splitlines()[0]}") from error
    for weight in seer.parameters():
        weight.requires_grad_(False)
    return seer.eval()
