"""Small folders of images that the tests write themselves, and the way to the real ones."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Picture

from tests.real import DATA

Draw = Callable[..., Path]


@pytest.fixture
def draw(tmp_path: Path) -> Draw:
    """draw("images/a.png", seed=3): a picture of noise under tmp_path, the same for the same seed and size."""

    def write(name: str, seed: int = 0, size: tuple[int, int] = (16, 16), high: int = 256) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng([seed, *size]).integers(0, high, size)
        Picture.fromarray(pixels.astype(np.uint8 if high <= 256 else np.uint16)).save(path)
        return path

    return write


@pytest.fixture
def real() -> Callable[[str], Path]:
    """real("mednist_64"): a folder of real images, or a skip where this machine has none."""
    home = DATA

    def find(name: str) -> Path:
        if not (home / name).exists():
            pytest.skip(f"no {name} in {home}; set FABRICA_DATA to the folder of real images")
        return home / name

    return find
