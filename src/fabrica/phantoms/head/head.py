"""A head that never lived: registered MR, CT and PET pictures of one random anatomy, with masks and labels.

One continuous anatomy (`head_anatomy`) gives the tissue fractions of every voxel; each contrast is then its
own physics (`head_scan`, `mri`) on the same fractions, so all pictures of a seed are exactly registered.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import ndimage

from fabrica.errors import UsageError
from fabrica.image import Float32, Float64, Image
from fabrica.phantoms.head.anatomy import INDEX, TISSUES, Subject, Tumour, draw_subject, fractions, from_head, to_head
from fabrica.phantoms.head.scan import CONTRASTS, SCANNERS, Scene, acquire
from fabrica.phantoms.head.shapes import waves

LEVELS = (-26.0, 58.0)  # MNI z in mm of the 2-D slices: from the orbits to the convexity
LESIONS = ("tumour core", "tumour rim", "oedema")
_COVER = (-78.0, 98.0)  # MNI z in mm of a volume
_THICKNESS = 5.0  # mm, of a 2-D slice


@dataclass(frozen=True)
class Head:
    """One phantom head.

    images  one Image a contrast, (1, H, W) or (1, D, H, W), all on the same grid with the same affine;
            row 0 is anterior, column 0 is the patient's right, slice 0 is inferior
    tissue  the label of the largest fraction in each voxel: an index into TISSUES, unit "label"
    labels  tumour (bool), side ("left" | "right" | "none"), centre_mm (RAS+ mm, or None), radius_mm,
            volume_mm3 (core and rim as measured in `tissue`; a 2-D slice counts as 5 mm thick), oedema_mm3,
            scanner, level (MNI z in mm of the 2-D slice)
    """

    images: dict[str, Image]
    tissue: Image
    labels: dict[str, Any]

    @property
    def lesions(self) -> Image:
        """The label map of the tumour alone: 1, 2, 3 for LESIONS where they are the largest fraction; empty of the
        healthy."""
        found = np.zeros_like(self.tissue.data)
        for number, name in enumerate(LESIONS, start=1):
            found[self.tissue.data == INDEX[name]] = number
        return self.tissue.with_data(found, origin={**self.tissue.origin, "range": (0.0, float(len(LESIONS)))})


def head(
    seed: int,
    size: int = 128,
    slices: int | None = None,
    contrasts: Sequence[str] = CONTRASTS,
    tumour: bool | None = None,
    scanner: str = "A",
) -> Head:
    """The phantom head of a seed.

    slices    None: one axial slice (1, size, size) at a random level of the brain;
              N: a volume (1, N, size, size) of the head from skull base to vertex
    tumour    None: present in half of the seeds. The lesion replaces tissue without displacing the rest
    scanner   "A" (1.5 T) or "B" (3 T): affects MR only. T1 is taken after gadolinium

    The field of view is 220 to 240 mm. Anatomy, tumour, texture and the noise of each contrast have random
    streams of their own: what is asked for does not change what else is drawn. Raises UsageError.
    """
    _check(seed, size, slices, contrasts, scanner)
    anatomy, place, lesion, texture, noise = np.random.SeedSequence(seed).spawn(5)
    subject = draw_subject(np.random.default_rng(anatomy))
    rng = np.random.default_rng(place)
    level, fov = float(rng.uniform(*LEVELS)), float(rng.uniform(220, 240))
    drawn, present = _draw_tumour(subject, level, np.random.default_rng(lesion))
    mass = drawn if (present if tumour is None else tumour) else None
    affine, grid = _grid(subject, level, fov, size, slices)
    scene = _scene(subject, mass, grid, affine, np.random.default_rng(texture))

    patient = {"format": "phantom", "patient": f"head-{seed}"}
    streams = dict(zip(CONTRASTS, noise.spawn(len(CONTRASTS)), strict=True))
    images = {}
    for name in contrasts:
        stream = np.random.default_rng(streams[name])
        data, header = acquire(name, scene, SCANNERS[scanner], stream)
        unit = "HU" if name == "CT" else "arbitrary"
        images[name] = Image(_shaped(data, slices), affine.copy(), unit, {**patient, **header})
    names = np.argmax(scene.parts, axis=0).astype(np.float32)
    header = {"modality": "SEG", "step": 1.0, "range": (0.0, len(TISSUES) - 1.0)}
    tissue = Image(_shaped(names, slices), affine.copy(), "label", {**patient, **header})
    labels = _labels(mass, subject, names, affine)
    return Head(images, tissue, {**labels, "scanner": scanner, "level": level})


def _check(seed: int, size: int, slices: int | None, contrasts: Sequence[str], scanner: str) -> None:
    if seed < 0:
        raise UsageError(f"the seed is {seed}; give 0 or more")
    if size < 16:
        raise UsageError(f"the head would be {size} pixels wide; give at least 16")
    if slices is not None and slices < 1:
        raise UsageError(f"the head would have {slices} slices; give at least 1, or None for a 2-D picture")
    if isinstance(contrasts, str) or any(name not in CONTRASTS for name in contrasts):
        raise UsageError(f"contrasts are {contrasts!r}; give a list of some of {', '.join(CONTRASTS)}")
    if scanner not in SCANNERS:
        raise UsageError(f"the scanner is {scanner!r}; give one of {', '.join(SCANNERS)}")


def _shaped(data: Float32, slices: int | None) -> Float32:
    """(D, H, W) -> (1, H, W) for a 2-D picture, (1, D, H, W) for a volume."""
    return np.ascontiguousarray(data if slices is None else data[None], dtype=np.float32)


def _height(subject: Subject, level: float) -> float:
    """Scanner z in mm of the axial plane that meets the axis of the head at MNI z = `level`."""
    return float(from_head(subject, np.array([[0.0, -17.0, level]]))[0, 2])


def _grid(subject: Subject, level: float, fov: float, size: int, slices: int | None) -> tuple[Float64, Float32]:
    """The affine of the voxel grid, and the scanner positions of its voxels, (D, H, W, 3) in mm."""
    pixel = fov / size
    start, step = _height(subject, level), _THICKNESS
    if slices is not None:
        bottom, top = (_height(subject, z) for z in _COVER)
        step = (top - bottom) / slices
        start = bottom + step / 2
    half = pixel * (size - 1) / 2
    affine = np.diag([-pixel, -pixel, step, 1.0])
    affine[:3, 3] = half, half, start
    axis = half - pixel * np.arange(size)
    z, y, x = np.meshgrid(start + step * np.arange(slices or 1), axis, axis, indexing="ij")
    return affine, np.stack([x, y, z], axis=-1).astype(np.float32)


def _scene(subject: Subject, tumour: Tumour | None, grid: Float32, affine: Float64, rng: np.random.Generator) -> Scene:
    """Tissue fractions plane by plane (each fits the cache), and the texture."""
    spacing = np.linalg.norm(affine[:3, :3], axis=0)[::-1]
    planes = [fractions(subject, plane.reshape(-1, 3), float(spacing[1]), tumour) for plane in grid]
    parts = np.stack(planes, axis=1).reshape(len(TISSUES), *grid.shape[:3])
    grain = ndimage.gaussian_filter(rng.standard_normal(grid.shape[:3], dtype=np.float32), (0, 0.8, 0.8))
    return Scene(parts, grain / grain.std(), grid, spacing)


def _draw_tumour(subject: Subject, level: float, rng: np.random.Generator) -> tuple[Tumour, bool]:
    """A lesion in the white matter near the level, and whether this seed has one."""
    present = bool(rng.random() < 0.5)
    radius = float(rng.uniform(8, 17))
    sides = rng.choice([-1, 1], 64) * rng.uniform(18, 48, 64)
    spots = from_head(subject, np.stack([sides, rng.uniform(-75, 40, 64), np.full(64, level)], axis=1))
    spots[:, 2] = _height(subject, level) + rng.uniform(-0.3, 0.3, 64) * radius  # the slice cuts through it
    here = fractions(subject, spots.astype(np.float32), 6.0)
    best = spots[[int(np.argmax(here[INDEX["white matter"]]))]].astype(np.float32)
    tumour = Tumour(
        centre=to_head(subject, best)[0].astype(np.float64),
        radius=radius,
        rim=float(rng.uniform(2.2, 4.0)),
        reach=radius + float(rng.uniform(5, 14)),
        shape=waves(rng, 16, 1.4 * radius, 3.5 * radius),
        fingers=waves(rng, 16, 16, 45),
    )
    return tumour, present


def _labels(tumour: Tumour | None, subject: Subject, names: Float32, affine: Float64) -> dict[str, Any]:
    """What a mask and a report need to know of the lesion."""
    if tumour is None:
        nothing = {"tumour": False, "side": "none", "centre_mm": None, "radius_mm": 0.0}
        return {**nothing, "volume_mm3": 0.0, "oedema_mm3": 0.0}
    voxel = float(abs(np.linalg.det(affine[:3, :3])))
    mass = np.isin(names, (INDEX["tumour core"], INDEX["tumour rim"]))
    return {
        "tumour": True,
        "side": "right" if tumour.centre[0] > 0 else "left",
        "centre_mm": tuple(float(v) for v in from_head(subject, tumour.centre[None])[0]),
        "radius_mm": tumour.radius,
        "volume_mm3": float(mass.sum()) * voxel,
        "oedema_mm3": float((names == INDEX["oedema"]).sum()) * voxel,
    }
