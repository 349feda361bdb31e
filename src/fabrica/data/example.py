"""One held-out image as a file, such as a scanner would send."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from fabrica import io
from fabrica.data.resolution import scale
from fabrica.data.sources import open_source
from fabrica.image import VOLUMES, Image
from fabrica.recipe.schema import DataConfig

KINDS = {"phantom": "dicom", "dicom": "dicom", "npz": "npz", **{kind: kind for kind in VOLUMES}}


def example(config: DataConfig, folder: Path) -> Path:
    """The first held-out image of side a, at its own size, written into the folder in the format that it came in,
    phantoms as DICOM; where images are made worse in training, this one is, too. Raises UsageError where there is
    none, ReadError for a damaged one."""
    (sample,) = open_source(config, "val", "a").samples([0])
    image, kind = sample.image, KINDS.get(str(sample.image.origin.get("format")), "png")
    if (finer := scale(config.degrade)) > 1:
        image, kind = _every(image, finer), "npz"
    if image.unit == "label":
        kind = "nifti" if len(image.size) == 3 else "png"
    path = folder / f"held-out{io.suffix_of(kind, len(image.size))}"
    io.write(image, path, as_=kind, synthetic=not image.origin.get("dicom") and kind == "dicom")
    return path


def _every(image: Image, step: int) -> Image:
    """As few pixels as a scan of this image has before resolution is added: every so-manieth along the plane's axes."""
    affine = image.affine @ np.diag([step, step, 1.0, 1.0])
    return image.with_data(image.data[..., ::step, ::step], affine=affine)
