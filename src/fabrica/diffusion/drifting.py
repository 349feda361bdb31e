"""Drifting: a field that moves what is made towards real images, and is zero where both are alike (Deng et al. 2026,
"Generative modeling via drifting", arXiv:2602.04770).

A network of one step learns by it: what it makes is to become what the field moves it to. Distances between whole
images say little, so the field is that of what is seen through windows (`seen`): each place of each scale has its own,
as the paper has one for each place of a frozen network's features.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, interpolate, unfold

TEMPERATURES = (0.02, 0.05, 0.2)  # of the paper's appendix A.6: from the nearest alone to many
SIDES = (2, 4)  # of windows, in pixels
PLACES = 48  # windows of a scale that are compared in one step


def seen(images: Tensor, sides: Sequence[int]) -> list[Tensor]:
    """images (B, C, H, W) -> several times (places, B, C * side * side): windows of each of these sides, overlapping by
    half.

    Of the images, and of what their finest details add to them (a Laplacian pyramid, Burt and Adelson 1983), at their
    own resolution, at half of it, and so on until one window holds the whole. In the images alone brightness decides
    which windows are near, and texture is averaged away.
    """
    found = []
    for side in sides:
        left = images
        while min(left.shape[2:]) > side:
            coarse = avg_pool2d(left, 2)
            details = left - interpolate(coarse, left.shape[2:], mode="bilinear", align_corners=False)
            found += [_windows(each, side) for each in (left, details)]
            left = coarse
        found.append(_windows(left, min(left.shape[2:])))
    return found


def _windows(images: Tensor, side: int) -> Tensor:
    return unfold(images, side, stride=max(1, side // 2)).permute(2, 0, 1)


def drift(
    made: Tensor, real: Tensor, temperatures: Sequence[float] = TEMPERATURES, alike: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The field (L, N, D) at each of N made vectors, made (L, N, D) and real (L, P, D) at L places, and the length (L,
    1, 1) in which it is measured.

    Towards real ones and away from made ones, weighted by exp(-distance / temperature), normalised over both what
    pulls and what is pulled (algorithm 2): with weights a and b of made x for real y and made z, it is the sum of
    a b (y - z). Distances are measured in their mean at a place; the field of each temperature has a mean square of 1
    there, and they are added (appendix A.6).

    alike   bool (N, P + N): which real, then made ones may move which; None: all. None moves itself.
    """
    count = made.shape[1]
    apart = torch.cdist(made, torch.cat([real, made], dim=1))
    others = torch.ones(count, real.shape[1] + count, dtype=torch.bool, device=made.device)
    others[:, real.shape[1] :].fill_diagonal_(False)
    if alike is not None:
        others &= alike
    length = (apart * others).sum((1, 2), keepdim=True) / others.sum()
    length = length.clamp_min(torch.finfo(made.dtype).tiny ** 0.5)
    field = torch.zeros_like(made)
    for temperature in temperatures:
        logits = (-apart / (length * temperature)).masked_fill(~others, -1e9)
        weights = (logits.softmax(2) * logits.softmax(1)).sqrt() * others
        pull, push = weights[:, :, : real.shape[1]], weights[:, :, real.shape[1] :]
        moved = (pull * push.sum(2, keepdim=True)) @ real - (push * pull.sum(2, keepdim=True)) @ made
        size = moved.square().sum(2, keepdim=True).mean(1, keepdim=True).sqrt()
        field += moved / size.clamp_min(torch.finfo(made.dtype).tiny ** 0.5)
    return field, length


def drifting_loss(
    made: Tensor,
    real: Tensor,
    sides: Sequence[int] = SIDES,
    places: int = PLACES,
    *,
    rng: torch.Generator,
    temperatures: Sequence[float] = TEMPERATURES,
    alike: Tensor | None = None,
) -> Tensor:
    """How far made images (N, C, H, W) are from where the field moves them, real (P, C, H, W): equation 6 of the paper,
    through so many windows of each scale, drawn anew; the gradient reaches `made` alone."""
    total = made.new_zeros(())
    for ours, theirs in zip(seen(made, sides), seen(real, sides), strict=True):
        chosen = torch.randperm(len(ours), generator=rng)[:places].to(made.device)
        ours, theirs = ours[chosen], theirs[chosen]
        with torch.no_grad():
            field, length = drift(ours, theirs, temperatures, alike)
            target = ours / length + field
        total = total + (ours / length - target).square().sum(2).mean()
    return total


def beside(fidelity: Tensor, drifting: Tensor, made: Tensor, weight: float) -> Tensor:
    """A loss of what was made whose gradient there is that of `fidelity`, and that of `drifting` at `weight` times its
    length: the two have no unit in common, and far from what is wanted one of them would be all, near it the other
    (gradients coordinated in the space of the outputs: Li et al. 2026, Generative drifting for conditional medical
    image generation)."""
    ours, theirs = (torch.autograd.grad(each, made, retain_graph=True)[0] for each in (fidelity, drifting))
    length = weight * ours.norm() / theirs.norm().clamp_min(torch.finfo(theirs.dtype).tiny)
    along: Tensor = (length * theirs * (made - made.detach())).sum()
    return fidelity + along
