"""What goes wrong with a GAN while it trains, seen early and said in one sentence with the remedy."""

from __future__ import annotations

import torch

from fabrica.data.dataset import Dataset
from fabrica.evaluation import fidelity
from fabrica.heldout import drawn
from fabrica.methods import Method
from fabrica.model import middle
from fabrica.recipe import Recipe

LOOKED = 32  # samples whose diversity is measured
PAIRS = 64


class Watch:
    def __init__(self, recipe: Recipe, heldout: Dataset, device: torch.device) -> None:
        self.recipe, self.device = recipe, device
        self.rows: list[dict[str, float]] = []
        size = recipe.output.size or recipe.data.size
        count = min(len(heldout), 128)
        self.real = fidelity.diversity(middle(heldout.read(range(count)), size), 256)[0]
        self.size = size

    def diversity(self, averaged: Method) -> float:
        """MS-SSIM among samples of these weights."""
        classes = len(self.recipe.data.classes) if self.recipe.data.condition == "label" else 0
        labels = torch.arange(LOOKED) % classes if classes else None
        images = middle(drawn(averaged, self.recipe, labels, LOOKED, self.device), self.size)
        return fidelity.diversity(images, PAIRS)[0]

    def see(self, row: dict[str, float]) -> list[str]:
        self.rows.append(row)
        return []
