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


def seen_otherwise(network: str, made: Tensor, wanted: Tensor, axis: int = 0) -> Tensor:
    """The squared distance of what a network file finds in two batches of images (Ledig et al. 2017, eq. 5).

    made, wanted (B, C, *S) in [-1, 1]. A network of 2-D convolutions sees the planes of volumes across `axis`, 0 to 2
    (2.5-D); one of 3-D convolutions, such as MedicalNet's, volumes as they are. One that takes three channels, as those
    trained on photographs and RadImageNet's do, sees grey ones three times.

    Raises UsageError for a file that is no network for such images.
    """
    seer, dims, channels = _opened(network, made.device)
    channels = channels or made.shape[1]
    if dims > made.ndim - 2 or (made.shape[1], channels) not in ((channels, channels), (1, 3)):
        raise UsageError(
            f"method.network {network} takes {dims}-D images of {channels} channels; found {made.ndim - 2}-D ones of "
            f"{made.shape[1]}: take another network, or leave it out"
        )

    def seen(images: Tensor) -> Tensor:
        if images.ndim - 2 > dims:  # (B, C, D, H, W) -> its planes (B n, C, h, w)
            images = images.movedim(2 + axis, 1).flatten(0, 1)
        found: Tensor = seer(images.expand(-1, channels, *images.shape[2:]))
        return found

    try:
        distance: Tensor = (seen(made) - seen(wanted)).square().mean()
    except RuntimeError as error:  # what TorchScript runs into
        reason = str(error).strip().splitlines()[-1]
        raise UsageError(f"method.network {network} cannot see images {list(made.shape)}: {reason}") from error
    return distance


@lru_cache(maxsize=2)
def _opened(network: str, device: torch.device) -> tuple[nn.Module, int, int]:
    """A TorchScript file, its weights fixed, the dimensions and the channels of the images that its first convolution
    takes, 2 and 0 (any) where a frozen file does not show its weights; UsageError if it is none."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # the format most published feature networks come in
            seer: nn.Module = torch.jit.load(network, map_location=device)  # type: ignore[no-untyped-call]
    except (RuntimeError, ValueError, OSError) as error:
        raise UsageError(f"method.network {network} is no TorchScript file: {str(error).splitlines()[0]}") from error
    for weight in seer.parameters():
        weight.requires_grad_(False)
    first = next((weight for weight in seer.parameters() if weight.ndim in (4, 5)), None)
    return (seer.eval(), 2, 0) if first is None else (seer.eval(), first.ndim - 2, first.shape[1])
