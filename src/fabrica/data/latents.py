"""Encode once: the latents of a dataset, for diffusion to learn from."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from fabrica.data.cache import once
from fabrica.data.dataset import FREE, Dataset, Writer
from fabrica.image import Float32
from fabrica.progress import Count

BATCH = 16


def encoded(data: Dataset, encode: Callable[[Float32], Float32], key: str, progress: Count | None = None) -> Dataset:
    """The latents (L, *s) of these images as a Dataset, with their ids, texts and labels: made once, then reused.

    encode    images (B, C, *S) in [-1, 1] -> latents (B, L, *s). key: changes when `encode` does.
    progress  called with (done, total).
    """
    name = hashlib.sha256(f"{data.folder.name} {key} {FREE}".encode()).hexdigest()[:32]
    return once(data.folder.with_name(name), lambda folder: _write(data, encode, folder, progress), Dataset)


def _write(data: Dataset, encode: Callable[[Float32], Float32], folder: Path, progress: Count | None) -> None:
    with Writer(folder, FREE) as writer:
        for start in range(0, len(data), BATCH):
            chosen = range(start, min(start + BATCH, len(data)))
            for k, latents in zip(chosen, encode(data.read(chosen)), strict=True):
                label = -1 if data.labels is None else int(data.labels[k])
                writer.add(latents, data.ids[k], data.texts[k], label, data.about(k))
            if progress:
                progress(chosen.stop, len(data))
        writer.finish(replace(data.meta, shape=writer.shape, spacing=(), content=writer.shape[1:], stored=FREE))
