"""Image: the one thing that readers return and writers accept."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

MOST_LABELS = 65535
"""The largest number of a label."""
UNITS = ("HU", "SUV", "Gy", "arbitrary", "label")
VOLUMES = ("nifti", "metaimage", "nrrd", "mgh")
"""The formats beside DICOM that keep volumes with their place in a patient."""


@dataclass(frozen=True, eq=False)
class Image:
    """A 2-D image or a 3-D volume with its place in the patient.

    data    float32, shape (C, H, W) or (C, D, H, W), in physical units: never scaled to a network's range.
    affine  float64, 4 x 4, maps the voxel index (w, h, d, 1) to mm in RAS+ (x to the patient's Right, y
            Anterior, z Superior). Index order is that of NIfTI and ITK: fastest axis first, so a NIfTI affine
            is kept as it stands while its array is transposed. For 2-D images d = 0.
    unit    one of UNITS: "HU" (CT numbers), "SUV" (PET by body weight, g/ml), "Gy" (radiation dose), "arbitrary" (MR,
            X-ray, photographs), "label" (integers).
    origin  what a writer needs to give the header back, and what a codec may trust. Keys in use:
            "path", "format" ("dicom" | one of VOLUMES | "raster" | "npz" | "phantom"), "modality" (DICOM's two
            letters: CT, MR, DX, CR, PT, ...), "patient", "range" ((lowest, highest) storable value),
            "step" (the difference between two neighbouring stored values), "window" (centre, width),
            "dicom" (a tuple of pydicom Datasets without pixels, one a slice), "grid" and "shape" (the affine and
            (D, H, W) in which these lie), "notes" (tuple of strings:
            what the reader had to repair or assume), "missing" (how many slices a DICOM volume seems to lack),
            "positions" (float64 (D, 3), RAS+ mm: where the first voxel of each slice lies, only of a volume whose
            slices are uneven, which no affine can say), "tells" (what tells this volume of a series apart: "echo=2"),
            "segment" (what a segment of a DICOM SEG is called: "liver"),
            "labels" (of a label map: number -> name, {1: "liver", 2: "spleen"}, without the background 0; numbers that
            nobody named are not in it, and some that are may have no voxel),
            "frames" (of a volume in one multi-frame DICOM file: the number of each slice's frame in it, from 1),
            "stored" (of VOLUMES: number type, slope and intercept in the file, and which axis of it had one voxel),
            "nan" (how many voxels were not finite and were replaced), "synthetic" and "translated" (True: made by a
            model, the latter of a patient). Absent: none.
    """

    data: Float32
    affine: Float64 = field(default_factory=lambda: np.eye(4))
    unit: str = "arbitrary"
    origin: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.data.ndim not in (3, 4):
            raise ValueError(f"Image data must be (C, H, W) or (C, D, H, W), found shape {self.data.shape}")
        if self.data.dtype != np.float32:
            raise ValueError(f"Image data must be float32, found {self.data.dtype}")
        if self.affine.shape != (4, 4):
            raise ValueError(f"Image affine must be 4 x 4, found {self.affine.shape}")
        if self.unit not in UNITS:
            raise ValueError(f"Image unit must be one of {', '.join(UNITS)}, found {self.unit!r}")

    def __repr__(self) -> str:
        """Short, and without the header: a notebook must not print a patient's name."""
        spacing = " x ".join(f"{mm:.3g}" for mm in self.spacing)
        return f"Image({self.data.shape}, {self.unit}, {spacing} mm, {self.origin.get('modality', '?')})"

    @property
    def channels(self) -> int:
        return int(self.data.shape[0])

    @property
    def size(self) -> tuple[int, ...]:
        """Spatial size in array order: (H, W) or (D, H, W)."""
        return tuple(int(n) for n in self.data.shape[1:])

    @property
    def spacing(self) -> tuple[float, ...]:
        """Millimetres between voxel centres in array order: (H, W) or (D, H, W)."""
        columns = np.linalg.norm(self.affine[:3, :3], axis=0)
        return tuple(float(s) for s in columns[: len(self.size)][::-1])

    @property
    def placed(self) -> bool:
        """Whether the affine says how the image lies in a patient, so that it can be turned as radiologists look.

        Volume formats mean theirs. Scale alone, from the origin, is what is left where nothing is known. Pictures, and
        DICOM objects of one slice, are made to be seen as they are stored: never turned, whatever they know.
        """
        bare = np.array_equal(self.affine, np.diag(np.abs(np.diag(self.affine))))
        if len(self.size) == 2:
            return self.origin.get("format") in VOLUMES and not bare
        return self.origin.get("format") in VOLUMES or not bare

    @property
    def measured(self) -> bool:
        """Whether the affine is in millimetres: placed images, those of DICOM, and every scale but that of formats
        which know none."""
        return not np.array_equal(self.affine, np.eye(4)) or self.origin.get("format") in ("dicom", *VOLUMES)

    def with_data(self, data: Float32, **changes: Any) -> Image:
        """The same place and origin with other voxels."""
        return replace(self, data=np.ascontiguousarray(data, dtype=np.float32), **changes)


def name(image: Image) -> str:
    """What an error message calls this image."""
    return str(image.origin.get("path") or image.origin.get("patient") or "an image")
