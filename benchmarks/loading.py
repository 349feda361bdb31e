"""DICOM -> batch: images/s from the second epoch on, ours against MONAI's LoadImaged in a plain DataLoader."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

from monai.data import DataLoader, Dataset
from monai.transforms import Compose, EnsureChannelFirstd, LoadImaged, Resized, ScaleIntensityRanged

from fabrica import io
from fabrica.codec import Codec
from fabrica.data.cache import build_cache
from fabrica.data.manifest import Manifest, Row
from fabrica.phantoms import chest
from fabrica.recipe.schema import DataConfig
from fabrica.training.batches import batch_at

COUNT, SIZE, BATCH, EPOCHS = 128, 128, 32, 3


def main() -> dict[str, str]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rows = []
        for seed in range(COUNT):
            io.write(chest(seed, size=256).image, folder / f"{seed:04d}.dcm", synthetic=True)
            rows.append(Row(id=str(seed), patient=str(seed), path=f"{seed:04d}.dcm", split="train"))
        Manifest(rows, folder, [], []).save(folder / "manifest.csv")
        theirs = _epochs(_monai(folder))
        ours = _epochs(_ours(folder))
    return {
        "ours / MONAI LoadImaged, 2 workers": f"{ours / theirs:.0f} x ({ours:.0f} / {theirs:.0f} images/s)",
    }


def _epochs(epoch: Callable[[], object]) -> float:
    """Median images/s of all epochs but the first."""
    rates = []
    for _ in range(EPOCHS + 1):
        began = time.perf_counter()
        epoch()
        rates.append(COUNT / (time.perf_counter() - began))
    return median(rates[1:])


def _monai(folder: Path) -> Callable[[], object]:
    keys = ["image"]
    transforms = Compose(
        [
            LoadImaged(keys, frozen_encoder="PydicomReader", image_only=True),
            EnsureChannelFirstd(keys),
            ScaleIntensityRanged(keys, 0, 4095, -1, 1, clip=True),
            Resized(keys, (SIZE, SIZE), mode="area"),
        ]
    )
    files = [{"image": str(path)} for path in sorted(folder.glob("*.dcm"))]
    loader = DataLoader(Dataset(files, transforms), batch_size=BATCH, shuffle=True, num_workers=2)
    return lambda: [batch["image"].shape for batch in loader]


def _ours(folder: Path) -> Callable[[], object]:
    config = DataConfig(source=str(folder / "manifest.csv"), size=[SIZE, SIZE], batch=BATCH)
    dataset = build_cache(config, Codec("window", 0, 4095), "train", folder=folder / "cache")
    return lambda: [batch_at(dataset, k, BATCH, seed=0)["image"].shape for k in range(COUNT // BATCH)]
