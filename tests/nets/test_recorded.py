"""What is recorded on a GPU answers as what is not; without one, everything is called as it is."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from fabrica.nets.recorded import MOST, Recorded

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU"))]


@pytest.mark.parametrize("device", DEVICES)
def test_a_recorded_network_answers_as_the_network(device: str) -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 1, 3, padding=1)).to(device).eval()
    recorded = Recorded(network)
    with torch.inference_mode():
        for size in [*range(8, 8 + MOST + 2), 8, 9]:  # more sizes than are recorded, and some again
            first, second = torch.randn(2, 2, 1, size, size + 3, device=device)
            made = recorded(first)
            torch.testing.assert_close(recorded(second), network(second))
            torch.testing.assert_close(made, network(first))  # a result is its caller's own


@pytest.mark.parametrize("device", DEVICES)
def test_what_waits_for_the_processor_is_called_as_it_is(device: str) -> None:
    def waits(images: Tensor) -> Tensor:
        return images * images.max().item()

    images = torch.arange(6.0, device=device).reshape(1, 1, 2, 3)
    torch.testing.assert_close(Recorded(waits)(images), images * 5)
