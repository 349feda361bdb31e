"""U-Net++ (Zhou et al. 2018, UNet++: a nested U-Net architecture; IEEE TMI 2020), plain or on a residual encoder."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

from fabrica.errors import UsageError, unknown
from fabrica.nets.convolutions import BATCH_NORMS, CONVOLUTIONS, Doubling
from fabrica.nets.framing import cropped_to, middle_of, padded_to, refuse_more

LEVELS = 5
ENCODERS = {"plain": (0, 0, 0, 0), "resnet34": (3, 4, 6, 3)}  # residual blocks of each level but the finest
POOLS = {2: nn.MaxPool2d, 3: nn.MaxPool3d}


class UNetPlusPlus(nn.Module):
    """images (B, C, *S) -> (B, C2, *S): a decoder begins at every level of the encoder, and each node sees all nodes
    of its level before it (eq. 1). Batch norm, which folds, and `Doubling` for resolution; the last layer is linear.

    width       channels at full resolution, doubled at each of four levels below; 32 in the paper.
    encoder     "plain": two convolutions a level and maxima between them; "resnet34": the residual blocks of that
                network with its 3, 4, 6 and 3 blocks (64 to 512 channels at width 32; He et al. 2016), one level higher
                up, and untrained.
    supervised  every depth has an output to learn from (section 3.2), not the last one alone.
    residual    the last layers give corrections of the middle C2 channels of the images.
    auxiliary   the last so many channels are seen and not corrected: see `fabrica.nets.framing.middle_of`.
    """

    def __init__(
        self,
        channels: int,
        out_channels: int,
        width: int = 32,
        encoder: str = "plain",
        supervised: bool = False,
        residual: bool = True,
        dims: int = 2,
        auxiliary: int = 0,
    ) -> None:
        super().__init__()
        if encoder not in ENCODERS:
            raise unknown("encoder", encoder, ENCODERS)
        if width < 1:
            raise UsageError(f"method.width is {width}; expected at least 1")
        if residual:
            refuse_more("U-Net++", channels - auxiliary, out_channels)
        self.residual, self.auxiliary = residual, auxiliary
        widths = [width * 2**k for k in range(LEVELS)]
        self.encode = nn.ModuleList([_node(channels, width, dims)])
        for (before, after), blocks in zip(pairwise(widths), ENCODERS[encoder], strict=True):
            self.encode.append(_stage(before, after, blocks, dims))
        self.grow, self.nodes = nn.ModuleDict(), nn.ModuleDict()
        for depth in range(1, LEVELS):
            for level in range(LEVELS - depth):
                name = f"{level}_{depth}"
                self.grow[name] = Doubling(widths[level + 1], widths[level], dims)
                self.nodes[name] = _node(widths[level] * (depth + 1), widths[level], dims)
        first = 1 if supervised else LEVELS - 1
        self.heads = nn.ModuleDict(
            {str(depth): CONVOLUTIONS[dims](width, out_channels, 1) for depth in range(first, LEVELS)}
        )

    def forward(self, x: Tensor) -> Tensor | list[Tensor]:
        """The image of the deepest decoder; in supervised training the list of every depth's, the deepest one last."""
        y = padded_to(x, 2 ** (LEVELS - 1))
        rows: list[list[Tensor]] = []  # of each level, its nodes from left to right
        for stage in self.encode:
            y = stage(y)
            rows.append([y])
        for depth in range(1, LEVELS):
            for level in range(LEVELS - depth):
                name = f"{level}_{depth}"
                up = self.grow[name](rows[level + 1][depth - 1])
                rows[level].append(self.nodes[name](torch.cat([*rows[level], up], dim=1)))
        images = []
        for name, head in list(self.heads.items())[0 if self.training else -1 :]:
            image = cropped_to(head(rows[0][int(name)]), x)
            images.append(middle_of(x, image, self.auxiliary) + image if self.residual else image)
        return images if self.training and len(self.heads) > 1 else images[-1]


class _Residual(nn.Module):
    """Two convolutions with batch norm, added to their input, which a third one brings to their size if it must."""

    def __init__(self, before: int, after: int, stride: int, dims: int) -> None:
        super().__init__()
        convolution, norm = CONVOLUTIONS[dims], BATCH_NORMS[dims]
        self.layers = nn.Sequential(
            convolution(before, after, 3, stride=stride, padding=1, bias=False),
            norm(after),
            nn.ReLU(inplace=True),
            convolution(after, after, 3, padding=1, bias=False),
            norm(after),
        )
        same = before == after and stride == 1
        self.past = nn.Sequential(
            *([] if same else [convolution(before, after, 1, stride=stride, bias=False), norm(after)])
        )

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu_(self.layers(x) + self.past(x))


def _node(before: int, after: int, dims: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for entering in (before, after):
        layers.append(CONVOLUTIONS[dims](entering, after, 3, padding=1, bias=False))
        layers += [BATCH_NORMS[dims](after), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers)


def _stage(before: int, after: int, blocks: int, dims: int) -> nn.Sequential:
    """From one level of the encoder to the next, of half the resolution."""
    if not blocks:
        return nn.Sequential(POOLS[dims](2), _node(before, after, dims))
    rest = (_Residual(after, after, 1, dims) for _ in range(blocks - 1))
    return nn.Sequential(_Residual(before, after, 2, dims), *rest)
