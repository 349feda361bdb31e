"""How far answers lie from label maps: soft Dice and cross-entropy, where some voxels or classes are not known.

A label map is (B, K, *S): 1 where a voxel is of the class, -1 where it is not, 0 where nobody has said. A voxel that
nobody labelled (scribbles, an ignore label) is 0 throughout; where only some organs were drawn, a voxel outside of them
is 0 in the background and in every organ that was not drawn, any of which it may be.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import log_softmax, logsigmoid

SMOOTH = 1e-5
PLANES = 8  # along the first axis at once


def cross_entropy(logits: Tensor, labels: Tensor, regions: bool = False) -> Tensor:
    """(B,): the mean over voxels of -log of the probability of what a voxel may be; 0 where it may be anything.

    Where a label is known that is the cross-entropy; elsewhere classes that were not drawn count as one (the marginal
    loss: Shi et al. 2021, Medical Image Analysis 70, eq. 4). regions: classes may overlap, each is asked for itself.
    """
    if regions:
        each = -logsigmoid(logits * labels) * (labels != 0)
        return each.mean(1).flatten(1).mean(1)
    allowed = labels == labels.amax(1, keepdim=True)
    possible = log_softmax(logits, 1).masked_fill(~allowed, -torch.inf).logsumexp(1)
    return -possible.flatten(1).mean(1)


def soft_dice(probabilities: Tensor, labels: Tensor, batch: bool = False) -> Tensor:
    """(B, K): 2 |A B| / (|A| + |B|) of probabilities and labels over the voxels whose label is known (Milletari et al.
    2016, V-Net, eq. 3, without squares as Drozdzal et al. 2016). NaN where no voxel of the class is known.

    batch   sums go over the whole batch, (1, K): steadier where patches hold little of a class.
    """
    known = labels != 0
    axes = [0, *range(2, labels.ndim)] if batch else list(range(2, labels.ndim))
    truth, made = (labels > 0).to(probabilities.dtype), probabilities * known
    common, total = (truth * made).sum(axes), (truth + made).sum(axes)
    dice = (2 * common + SMOOTH) / (total + SMOOTH)
    found = torch.where(
        known.any(2).flatten(2).any(2) if not batch else known.transpose(0, 1).flatten(1).any(1), dice, torch.nan
    )
    return found[None] if batch else found


def probabilities(logits: Tensor, regions: bool = False) -> Tensor:
    """(B, K, *S) in [0, 1]: of classes that exclude one another, or, as regions, of each for itself."""
    return logits.sigmoid() if regions else logits.softmax(1)


def signs(logits: Tensor, regions: bool = False) -> Tensor:
    """Probabilities (B, K, *S) as -1 for 0 to 1 for 1. Where no gradient is asked for they take the place of the
    logits, a few planes at a time: of many classes a copy is large."""
    if torch.is_grad_enabled() or torch.compiler.is_exporting():
        return 2 * probabilities(logits, regions) - 1
    for k in range(0, logits.shape[2], PLANES):
        part = logits[:, :, k : k + PLANES]
        part.copy_(probabilities(part, regions)).mul_(2).sub_(1)
    return logits
