"""Phantoms on the disk: the embedded data as a folder that looks like any other data set."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from fabrica import io
from fabrica.data.label_names import column
from fabrica.data.manifest import Manifest, Row
from fabrica.data.metadata import about
from fabrica.data.split import assign
from fabrica.errors import UsageError
from fabrica.io.atomic import atomic
from fabrica.progress import Count

MASKS = ("anatomy", "lesions")
MOST = 1_000_000  # phantoms a seed, so that folders of two seeds share no patient


def write_phantoms(
    kind: str,
    count: int,
    folder: str | Path,
    *,
    size: int = 128,
    seed: int = 0,
    slices: int | None = None,
    masks: str = "anatomy",
    progress: Count | None = None,
) -> Manifest:
    """Draw `count` patients into `folder` and return the manifest, saved there as manifest.csv.

    kind    "chest": images/ID.png of 16 bits (values 0..4095), masks/ID.png (label map of the organs), lesions/ID.png
            (label map of the findings), the class and the report in the manifest.
            "head": ID/T1.nii.gz and the other contrasts, a row each with the contrast as domain, the label map of
            the tissues as mask (ID/tissue.nii.gz), and as pair the T1 of the same patient (for T1: the T2).
    masks   "anatomy", as above; "lesions": the masks are those of the findings, of heads ID/lesions.nii.gz: 1 the core
            of the tumour, 2 its rim, 3 oedema; empty of the healthy.
    size    pixels a side. slices: for heads, how many slices; None: one.
    seed    patient k is drawn from seed * 1,000,000 + k, so that folders of two seeds share no patient.

    Everything that is known of a patient is in labels.json. Raises UsageError.
    """
    if kind not in ("chest", "head"):
        raise UsageError(f"no phantom {kind!r}; expected chest or head")
    if not 1 <= count <= MOST or size < 16 or seed < 0:
        raise UsageError(
            f"{count} phantoms of {size} pixels with seed {seed}; expected 1 to {MOST} of at least 16 and a seed >= 0"
        )
    if masks not in MASKS:
        raise UsageError(f"masks are {masks!r}; expected {' or '.join(MASKS)}")
    folder, lesions = Path(folder), masks == "lesions"
    seeds = range(seed * MOST, seed * MOST + count)
    splits = assign((f"{kind}-{s}" for s in seeds), (0.8, 0.1, 0.1))
    manifest = Manifest([], folder)
    known: dict[str, dict[str, Any]] = {}
    for done, number in enumerate(seeds, start=1):
        name = f"{kind}-{number}"
        if kind == "chest":
            rows, known[name] = _chest(number, size, folder, name, lesions)
        else:
            rows, known[name] = _head(number, size, slices, folder, name, lesions)
        for row in rows:
            row.patient, row.split = name, splits[name]
        manifest.rows += rows
        if progress:
            progress(done, count)
    with atomic(folder / "labels.json") as temporary:
        temporary.write_text(json.dumps(known, indent=1, default=str), encoding="utf-8")
    manifest.save(folder / "manifest.csv")
    return manifest


def _chest(seed: int, size: int, folder: Path, name: str, lesions: bool) -> tuple[list[Row], dict[str, Any]]:
    from fabrica.phantoms.chest.chest import chest

    drawn = chest(seed, size)
    for part, image in (("images", drawn.image), ("masks", drawn.organs), ("lesions", drawn.lesions)):
        (folder / part).mkdir(parents=True, exist_ok=True)
        io.write(image, folder / part / f"{name}.png")
    row = Row(
        id=name,
        path=f"images/{name}.png",
        modality="DX",
        label=drawn.label,
        text=drawn.text,
        **about(drawn.labels),
        mask=f"{'lesions' if lesions else 'masks'}/{name}.png",
    )
    return [row], dict(drawn.labels)


def _head(
    seed: int, size: int, slices: int | None, folder: Path, name: str, lesions: bool
) -> tuple[list[Row], dict[str, Any]]:
    from fabrica.phantoms.head.head import LESIONS, head

    drawn = head(seed, size, slices)
    (folder / name).mkdir(parents=True, exist_ok=True)
    shown, masks = "lesions" if lesions else "tissue", drawn.lesions if lesions else drawn.tissue
    io.write(masks, folder / name / f"{shown}.nii.gz")
    rows = []
    for contrast, image in drawn.images.items():
        path = f"{name}/{contrast}.nii.gz"
        io.write(image, folder / path)
        rows.append(
            Row(
                id=f"{name}/{contrast}",
                path=path,
                modality=str(image.origin.get("modality", "")),
                domain=contrast,
                label="tumour" if drawn.labels["tumour"] else "healthy",
                mask=f"{name}/{shown}.nii.gz",
                mask_labels=column({(k,): each for k, each in enumerate(LESIONS, start=1)}) if lesions else "",
                pair=f"{name}/{'T2' if contrast == 'T1' else 'T1'}.nii.gz",
            )
        )
    return rows, dict(drawn.labels)
