"""A small transformer that reads reports (Vaswani et al. 2017; norms before the layers, as in GPT-2; no order but the
learned positions, and each token sees all others, as in BERT, Devlin et al. 2019)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from fabrica.errors import UsageError


class TextEncoder(nn.Module):
    """ids (B, L) int64 and mask (B, L) bool, False at padding -> what each token means where it stands, (B, L, width).

    Padding is seen by no token; what comes out in its places means nothing.

    tokens   the size of the vocabulary.
    context  the longest text, in tokens. Raises UsageError for longer ones.
    heads    of attention; width must be a multiple of it.
    """

    def __init__(self, tokens: int, width: int = 192, layers: int = 3, heads: int = 3, context: int = 128) -> None:
        super().__init__()
        if width % heads:
            raise UsageError(f"a text encoder of width {width} and {heads} heads; take a width that is a multiple")
        self.context = context
        self.words = nn.Embedding(tokens, width)
        self.places = nn.Parameter(torch.empty(context, width))
        self.blocks = nn.ModuleList(_Block(width, heads) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        for table in (self.words.weight, self.places):
            nn.init.normal_(table, std=0.02)

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        if ids.ndim != 2 or ids.shape != mask.shape or ids.shape[1] > self.context:
            raise UsageError(
                f"tokens have shape {tuple(ids.shape)} and their mask {tuple(mask.shape)}; expected twice "
                f"(batch, at most {self.context})"
            )
        seen = mask.clone()
        seen[:, 0] = True  # nothing to attend to would be 0 / 0
        x = self.words(ids) + self.places[: ids.shape[1]]
        for block in self.blocks:
            x = block(x, seen[:, None, None])
        meaning: Tensor = self.norm(x)
        return meaning


class _Block(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm_attention, self.norm_each = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.each = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: Tensor, seen: Tensor) -> Tensor:
        batch, length, width = x.shape
        qkv = self.qkv(self.norm_attention(x)).view(batch, length, 3, self.heads, width // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        # as it is written: on a processor the backward pass of the fused kernels takes several times as long
        likeness = (q @ k.transpose(-2, -1)).float() / math.sqrt(q.shape[-1])
        attended = likeness.masked_fill(~seen, -math.inf).softmax(dim=-1).to(v.dtype) @ v
        x = x + self.out(attended.transpose(1, 2).reshape(batch, length, width))
        after: Tensor = x + self.each(self.norm_each(x))
        return after
