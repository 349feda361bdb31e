"""A few heads as files: a source of phantoms holds out 64 or more, and to draw them takes longer than to train."""

from __future__ import annotations

from pathlib import Path

import pytest

from fabrica import io
from fabrica.data.manifest import Manifest, Row
from fabrica.phantoms.head.head import head

SPLITS = ("train", "train", "train", "train", "val", "val", "test")


def stored(folder: Path, size: int, slices: int | None, contrasts: tuple[str, ...]) -> Path:
    """The manifest of one head for each of SPLITS, a file a contrast."""
    rows = []
    for k, split in enumerate(SPLITS):
        for contrast, image in head(k, size, slices, contrasts=contrasts).images.items():
            name = f"{k}-{contrast}.npz"
            io.write(image, folder / name)
            modality = "CT" if contrast == "CT" else "MR"
            rows.append(Row(f"{k}-{contrast}", f"p{k}", name, split=split, modality=modality, domain=contrast))
    Manifest(rows, folder).save(folder / "set.csv")
    return folder / "set.csv"


@pytest.fixture(scope="session")
def heads(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Slices of 32 x 32: T1, T2, FLAIR and CT."""
    return stored(tmp_path_factory.mktemp("heads"), 32, None, ("T1", "T2", "FLAIR", "CT"))


@pytest.fixture(scope="session")
def volumes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Volumes of 16 x 16 x 16: T1."""
    return stored(tmp_path_factory.mktemp("volumes"), 16, 16, ("T1",))
