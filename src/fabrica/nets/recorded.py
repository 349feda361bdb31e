"""A network's work on an NVIDIA GPU, recorded once for each size and then played: a CUDA graph, one call instead of one
for each layer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor

MOST = 4  # sizes that are recorded: each keeps memory of its own, and sizes that always change gain nothing
WARM = 3  # calls before a recording, in which libraries choose their algorithms


class Recorded:
    """function(images) -> a tensor, with the same values; images (B, C, *S). What cannot be recorded, since it waits
    for the processor in between, is called as it is."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        self.function = function
        self._recordings: dict[torch.Size, tuple[Any, Tensor, Tensor] | None] = {}

    def __call__(self, images: Tensor) -> Tensor:
        if images.shape not in self._recordings and len(self._recordings) < MOST:
            self._recordings[images.shape] = self._recording(images)
        recording = self._recordings.get(images.shape)
        if recording is None:
            return self.function(images)
        graph, given, made = recording
        given.copy_(images)
        graph.replay()
        return made.clone()

    def _recording(self, images: Tensor) -> tuple[Any, Tensor, Tensor] | None:
        if not images.is_cuda:
            return None
        given, beside = images.clone(), cast(Any, torch.cuda).Stream()
        try:
            beside.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(beside):
                for _ in range(WARM):
                    self.function(given)
            torch.cuda.current_stream().wait_stream(beside)
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                made = self.function(given)
        except RuntimeError:
            return None
        return graph, given, made
