"""The files of a model folder and of a run."""

from __future__ import annotations

import csv
from pathlib import Path


def read_log(path: Path) -> list[dict[str, float]]:
    """The rows of a run's log.csv; empty cells are left out; [] where there is no log."""
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return [{key: float(value) for key, value in row.items() if key and value} for row in csv.DictReader(file)]


WEIGHTS, RECIPE, FOUND, CARD = "weights.safetensors", "recipe.yaml", "found.yaml", "README.md"


WORDS = "vocabulary.json"  # of a model that reads text


TEXT_ENCODER = "text"  # the folder inside, of a frozen encoder that reads its prompts


AUTOENCODER = "autoencoder"  # the folder inside, of the one that a model works with


ALARMS = "alarms.txt"  # what went wrong in training, "step 450: ..." a line; only there if something did
