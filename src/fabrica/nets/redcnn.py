"""RED-CNN, the classic of low-dose CT (Chen et al. 2017, Low-dose CT with a residual encoder-decoder CNN, IEEE TMI)."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

from fabrica.nets.framing import middle_of, refuse_more

LAYERS, SIDE = 5, 5


class REDCNN(nn.Module):
    """images (B, C, H, W) -> (B, C2, H, W): five convolutions and five deconvolutions of side 5, with the input and the
    results of the second and fourth convolution added again on the way back (figure 1).

    A deconvolution of stride 1 is a convolution with its weights turned round, and stands here as one. The paper has no
    padding and patches of 55 pixels; here borders are padded with zeros, so that any size will do. The ReLU behind the
    last sum is left out: values are in [-1, 1].

    auxiliary  the last so many channels are seen and not corrected: see `fabrica.nets.framing.middle_of`.
    """

    def __init__(self, channels: int, out_channels: int, width: int = 96, auxiliary: int = 0) -> None:
        super().__init__()
        refuse_more("RED-CNN", channels - auxiliary, out_channels)
        self.auxiliary = auxiliary
        ends = [channels, *[width] * (2 * LAYERS - 1), out_channels]
        layers = [nn.Conv2d(before, after, SIDE, padding=SIDE // 2) for before, after in pairwise(ends)]
        self.encode, self.decode = nn.ModuleList(layers[:LAYERS]), nn.ModuleList(layers[LAYERS:])

    def forward(self, x: Tensor) -> Tensor:
        y, seen = x, []
        for k, layer in enumerate(self.encode):
            y = torch.relu(layer(y))
            if k in (1, 3):
                seen.append(y)
        for k, layer in enumerate(self.decode[:-1]):
            y = layer(y)
            y = torch.relu(y + seen.pop() if k in (0, 2) else y)
        y = self.decode[-1](y)
        restored: Tensor = middle_of(x, y, self.auxiliary) + y
        return restored
