"""Synthetic images as files, with a manifest of what each was told."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fabrica import io
from fabrica.conditioning.encoder import Known
from fabrica.data.manifest import Manifest, Row
from fabrica.image import Image
from fabrica.inference.synthesis import Synthesises
from fabrica.io.contact_sheet import PREVIEW, image_grid, save_picture
from fabrica.recipe.card import MARK

SHOWN = 64  # images at most on the sheet


def write_samples(
    images: Sequence[Image],
    known: Sequence[Known],
    folder: Path,
    model: Synthesises,
    as_: str = "png",
    mask: Image | None = None,
) -> Manifest:
    """Write synthetic images as DICOM, NIfTI or PNG, with a manifest.csv that says what each was told, and preview.png,
    the first of them on one sheet, as a person looks at them; returns the manifest. What was written into the folder
    before stays, and stays listed, unless the same is drawn again: by this model, of the same seed, told the same.

    mask   a label map that all were told, which is written beside them, on their grid.
    Images that were drawn from another image are that image's patient's: see `fabrica.io.write`, `translated`."""
    suffix = io.suffix_of(as_, len(model.size))
    folder.mkdir(parents=True, exist_ok=True)
    rows, seen = [], ""
    said = f"{MARK}: synthetic" if model.data.phantoms else ""
    if mask is not None:
        labels = model.mask_seen(mask)
        seen = f"mask-{_digest(labels.data.tobytes())}{io.suffix_of('nifti' if len(model.size) == 3 else 'png')}"
        io.write(labels, folder / seen)
    for image, told in zip(images, known, strict=True):
        seed, drawn_anew = image.origin["seed"], "translated" in image.origin
        words = {**told, "mask": seen, "start": str(image.origin.get("start", ""))}
        name = f"{model.hash}-{seed:06d}" + (f"-{_digest(repr(words).encode())}" if any(words.values()) else "")
        path = folder / f"{name}{suffix}"
        how: dict[str, Any] = {"translated": True} if drawn_anew else {"synthetic": True}
        io.write(image, path, model=model.name, model_hash=model.hash, seed=seed, description=said, **how)
        rows.append(
            Row(
                id=name,
                patient=str(image.origin.get("patient") or name),
                path=path.name,
                split="test",
                modality=image.origin["modality"],
                mask=seen,
                **told,
            )
        )
    made, there = {row.id for row in rows}, folder / "manifest.csv"
    rows = [*(row for row in Manifest.load(there).rows if row.id not in made), *rows] if there.is_file() else rows
    manifest = Manifest(rows, folder, [], [])
    manifest.save(there)
    shown = np.stack([model.codec.encode(image) for image in images[:SHOWN]])
    save_picture(image_grid(shown, spacing=images[0].spacing), folder / PREVIEW)
    return manifest


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:6]
