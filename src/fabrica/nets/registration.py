"""A network that moves one image onto another: for pairs that are off by a few voxels.

RegGAN: Kong et al., Breaking the dilemma of medical image-to-image translation (NeurIPS 2021), section 3.2.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import affine_grid, grid_sample

from fabrica.nets.convolutions import starting_at_zero
from fabrica.nets.translators import ResidualUNet


class Registration(nn.Module):
    """(moving, fixed), each (B, C, *S) -> displacements (B, dims, *S) in voxels, axes in the order of S; 0 at the
    start of training."""

    def __init__(self, channels: int, dims: int, width: int = 16) -> None:
        super().__init__()
        self.net = ResidualUNet(2 * channels, dims, width, levels=4, dims=dims)
        starting_at_zero(self.net.leave)

    def forward(self, moving: Tensor, fixed: Tensor) -> Tensor:
        found: Tensor = self.net(torch.cat([moving, fixed], dim=1))
        return found


def warped(images: Tensor, displacements: Tensor) -> Tensor:
    """images (B, C, *S) looked up, linearly, at x + displacement (B, dims, *S) in voxels; the border is repeated."""
    size, dims = images.shape[2:], images.ndim - 2
    identity = torch.eye(dims, dims + 1, device=images.device).expand(len(images), -1, -1)
    grid = affine_grid(identity, list(images.shape), align_corners=False)
    per_voxel = displacements.new_tensor([2 / side for side in size]).view(1, dims, *[1] * dims)
    moved = (displacements * per_voxel).flip(1).movedim(1, -1)  # grid_sample wants the last axis first
    return grid_sample(images, grid + moved, padding_mode="border", align_corners=False)


def roughness(displacements: Tensor) -> Tensor:
    """The mean squared gradient of displacements (B, dims, *S), in voxels per voxel (eq. 6)."""
    long = [axis for axis in range(2, displacements.ndim) if displacements.shape[axis] > 1]
    slopes = [torch.diff(displacements, dim=axis).square().mean() for axis in long]
    return torch.stack(slopes).sum()
