"""A head that never lived: registered MR, CT and PET pictures of one random anatomy, with masks and labels.

One continuous anatomy (`head_anatomy`) gives the tissue fractions of every voxel; each contrast is then its
own physics on the same fractions, so all pictures of a seed are exactly registered.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import ndimage

from fabrica.errors import UsageError
from fabrica.image import Float32, Float64, Image
from fabrica.phantoms import mri
from fabrica.phantoms.head_anatomy import (
    INDEX,
    TISSUES,
    Subject,
    Tumour,
    draw_subject,
    fractions,
    from_head,
)
from fabrica.phantoms.head_shapes import waves

CONTRASTS = ("T1", "T2", "FLAIR", "PD", "CT", "PET")
LEVELS = (-32.0, 58.0)  # MNI z in mm of the 2-D slices: from the orbits to the convexity
_COVER = (-78.0, 98.0)  # MNI z in mm of a volume

# Mean CT number in HU and glucose uptake relative to white matter.
_HU = (-1000, 45, -100, 1250, 330, 9, 38.5, 28.5, 37, 10, -995, 55, 62, 20, 42, 21)
_UPTAKE = (0, 0.5, 0.15, 0.25, 0.8, 0.1, 4.0, 1.0, 4.4, 0.4, 0, 0.9, 0.8, 3.0, 7.5, 0.8)
# Standard deviation of the texture, as a fraction of T1, of attenuation and of uptake.
_TEXTURE = (0, 0.08, 0.06, 0.1, 0.12, 0.01, 0.025, 0.02, 0.03, 0.01, 0, 0.05, 0.04, 0.10, 0.08, 0.05)


@dataclass(frozen=True)
class Scanner:
    """What differs between two MR scanners. `noise` is sigma over the white matter signal, `blur` in mm."""

    tesla: float
    gain: float
    noise: float
    bias: float
    blur: float
    sequences: dict[str, mri.Sequence]


def _flair(tr: float, te: float, tesla: float) -> mri.Sequence:
    return mri.Sequence(tr, te, mri.null_time(mri.relaxation("CSF", tesla).t1, tr))


SCANNERS = {
    "A": Scanner(
        tesla=1.5,
        gain=2000,
        noise=0.032,
        bias=0.06,
        blur=0.85,
        sequences={
            "T1": mri.Sequence(400, 12),
            "T2": mri.Sequence(4500, 100),
            "FLAIR": _flair(9000, 110, 1.5),
            "PD": mri.Sequence(4500, 20),
        },
    ),
    "B": Scanner(
        tesla=3.0,
        gain=900,
        noise=0.02,
        bias=0.17,
        blur=0.55,
        sequences={
            "T1": mri.Sequence(600, 9),
            "T2": mri.Sequence(6000, 85),
            "FLAIR": _flair(10000, 125, 3.0),
            "PD": mri.Sequence(6000, 12),
        },
    ),
}


@dataclass(frozen=True)
class Head:
    """One phantom head.

    images  one Image a contrast, (1, H, W) or (1, D, H, W), all on the same grid with the same affine;
            row 0 is anterior, column 0 is the patient's right, slice 0 is inferior
    tissue  the label of the largest fraction in each voxel: an index into TISSUES, unit "label"
    labels  tumour (bool), side ("left" | "right" | "none"), centre_mm (RAS+ of the scanner, or None),
            radius_mm, volume_mm3 (core and rim as measured in `tissue`), oedema_mm3, scanner,
            level (MNI z in mm of the 2-D slice)
    """

    images: dict[str, Image]
    tissue: Image
    labels: dict[str, Any]


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
    scanner   "A" (1.5 T) or "B" (3 T): affects MR only; with a tumour, T1 is taken after gadolinium

    The field of view is 220 to 240 mm. Anatomy, tumour, texture and the noise of each contrast have random
    streams of their own: what is asked for does not change what else is drawn. Raises UsageError.
    """
    _check(seed, size, slices, contrasts, scanner)
    anatomy, place, lesion, texture, acquisition = np.random.SeedSequence(seed).spawn(5)
    subject = draw_subject(np.random.default_rng(anatomy))
    rng = np.random.default_rng(place)
    level, fov = float(rng.uniform(*LEVELS)), float(rng.uniform(220, 240))
    drawn, present = _draw_tumour(subject, level, np.random.default_rng(lesion))
    present = present if tumour is None else tumour
    affine, grid = _grid(subject, level, fov, size, slices)
    voxel = fov / size
    parts = np.stack(
        [fractions(subject, plane.reshape(-1, 3), voxel, drawn if present else None) for plane in grid],
        axis=1,
    ).reshape(len(TISSUES), *grid.shape[:3])
    grain = _grain(parts.shape[1:], np.random.default_rng(texture))
    streams = acquisition.spawn(len(CONTRASTS) * len(SCANNERS))
    images = {}
    for name in contrasts:
        machine = list(SCANNERS).index(scanner) if name in SCANNERS[scanner].sequences else 0
        stream = np.random.default_rng(streams[CONTRASTS.index(name) * len(SCANNERS) + machine])
        spacing = np.linalg.norm(affine[:3, :3], axis=0)[::-1]
        data, header = _ACQUIRE[name](parts, grain, spacing, grid, name, SCANNERS[scanner], stream)
        unit = "HU" if name == "CT" else "arbitrary"
        origin = {"format": "phantom", "patient": f"head-{seed}", **header}
        images[name] = Image(_shaped(np.rint(data), slices), affine.copy(), unit, origin)
    names = np.argmax(parts, axis=0).astype(np.float32)
    origin = {"format": "phantom", "modality": "SEG", "patient": f"head-{seed}", "step": 1.0}
    tissue = Image(_shaped(names, slices), affine.copy(), "label", {**origin, "range": (0.0, len(TISSUES) - 1.0)})
    labels = _labels(drawn if present else None, subject, names, affine)
    return Head(images, tissue, {**labels, "scanner": scanner, "level": level})


def _check(seed: int, size: int, slices: int | None, contrasts: Sequence[str], scanner: str) -> None:
    if seed < 0:
        raise UsageError(f"the seed is {seed}; expected 0 or more")
    if size < 16:
        raise UsageError(f"the head would be {size} pixels wide; expected at least 16")
    if slices is not None and slices < 1:
        raise UsageError(f"found slices={slices}; expected at least 1, or None for a 2-D picture")
    unknown = [name for name in contrasts if name not in CONTRASTS]
    if unknown or isinstance(contrasts, str):
        raise UsageError(f"contrasts are {contrasts!r}; expected some of {', '.join(CONTRASTS)}")
    if scanner not in SCANNERS:
        raise UsageError(f"the scanner is {scanner!r}; expected one of {', '.join(SCANNERS)}")


def _shaped(data: Float32, slices: int | None) -> Float32:
    """(D, H, W) -> (1, H, W) for a 2-D picture, (1, D, H, W) for a volume."""
    stack = data if slices is None else data[None]
    return np.ascontiguousarray(stack, dtype=np.float32)


def _grid(subject: Subject, level: float, fov: float, size: int, slices: int | None) -> tuple[Float64, Float32]:
    """The affine of the voxel grid, and the scanner positions of its voxels, (D, H, W, 3) in mm."""
    pixel = fov / size
    if slices is None:
        start, step = float(from_head(subject, np.array([[0.0, -17.0, level]]))[0, 2]), 5.0
    else:
        ends = from_head(subject, np.array([[0.0, -17.0, z] for z in _COVER]))[:, 2]
        step = float(ends[1] - ends[0]) / slices
        start = float(ends[0]) + step / 2
    half = pixel * (size - 1) / 2
    affine = np.diag([-pixel, -pixel, step, 1.0])
    affine[:3, 3] = half, half, start
    axis = half - pixel * np.arange(size)
    heights = start + step * np.arange(slices or 1)
    z, y, x = np.meshgrid(heights, axis, axis, indexing="ij")
    return affine, np.stack([x, y, z], axis=-1).astype(np.float32)


def _draw_tumour(subject: Subject, level: float, rng: np.random.Generator) -> tuple[Tumour, bool]:
    """A lesion in the white matter near the level, and whether this seed has one."""
    present = bool(rng.random() < 0.5)
    radius = float(rng.uniform(8, 17))
    places = np.stack(
        [
            rng.choice([-1, 1], 48) * rng.uniform(20, 48, 48),
            rng.uniform(-75, 40, 48),
            max(level, -18.0) + rng.uniform(-0.4, 0.4, 48) * radius,
        ],
        axis=1,
    )
    here = fractions(subject, from_head(subject, places).astype(np.float32), 6.0)
    centre = places[int(np.argmax(here[INDEX["white matter"]]))]
    return (
        Tumour(
            centre=centre,
            radius=radius,
            rim=float(rng.uniform(2.2, 4.0)),
            reach=radius + float(rng.uniform(5, 14)),
            shape=waves(rng, 16, 1.6 * radius, 4 * radius),
            fingers=waves(rng, 16, 16, 45),
        ),
        present,
    )


def _labels(tumour: Tumour | None, subject: Subject, names: Float32, affine: Float64) -> dict[str, Any]:
    """What a mask and a report need to know of the lesion."""
    voxel = float(abs(np.linalg.det(affine[:3, :3])))
    mass = np.isin(names, (INDEX["tumour core"], INDEX["tumour rim"])).sum() * voxel
    oedema = (names == INDEX["oedema"]).sum() * voxel
    if tumour is None:
        centre, side, radius = None, "none", 0.0
    else:
        centre = tuple(float(v) for v in from_head(subject, tumour.centre[None])[0])
        side, radius = ("right" if tumour.centre[0] > 0 else "left"), tumour.radius
    return {
        "tumour": tumour is not None,
        "side": side,
        "centre_mm": centre,
        "radius_mm": radius,
        "volume_mm3": float(mass),
        "oedema_mm3": float(oedema),
    }


def _grain(shape: tuple[int, ...], rng: np.random.Generator) -> Float32:
    """Texture common to all contrasts: in-plane correlated noise of mean 0 and deviation 1, (D, H, W)."""
    white = rng.standard_normal(shape, dtype=np.float32)
    smooth = ndimage.gaussian_filter(white, (0, 0.8, 0.8))
    return np.asarray(smooth / max(float(smooth.std()), 1e-6), dtype=np.float32)


def _mix(parts: Float32, values: Sequence[float]) -> Float32:
    """Values of the tissues weighted by their fractions: (tissues, D, H, W) -> (D, H, W)."""
    mixed: Float32 = np.tensordot(np.asarray(values, dtype=np.float32), parts, axes=1)
    return mixed


def _magnetic(
    parts: Float32,
    grain: Float32,
    spacing: Float64,
    grid: Float32,
    name: str,
    scanner: Scanner,
    rng: np.random.Generator,
) -> tuple[Float32, dict[str, Any]]:
    """MR: signal equation per tissue, texture through T1, blur, coil bias, Rician noise. 12-bit integers."""
    sequence = scanner.sequences[name]
    relaxations = [mri.relaxation(tissue, scanner.tesla) for tissue in TISSUES]
    clear = np.array([mri.signal(r, sequence) for r in relaxations])
    longer = [
        mri.Relaxation(r.t1 * (1 + cv), r.t2 * (1 + cv), r.pd) for r, cv in zip(relaxations, _TEXTURE, strict=True)
    ]
    change = np.array([mri.signal(r, sequence) for r in longer]) - clear
    signal = _mix(parts, clear) + grain * _mix(parts, change)
    signal = ndimage.gaussian_filter(signal, scanner.blur / spacing * (0, 1, 1))
    signal *= mri.coil_bias(grid, scanner.bias, rng)
    sigma = scanner.noise * float(clear[INDEX["white matter"]])
    noisy = mri.rician(signal, sigma, rng) * np.float32(scanner.gain)
    header = {"modality": "MR", "step": 1.0, "range": (0.0, 4095.0)}
    return np.clip(noisy, 0, 4095), header


def _tomography(
    parts: Float32,
    grain: Float32,
    spacing: Float64,
    grid: Float32,
    name: str,
    scanner: Scanner,
    rng: np.random.Generator,
) -> tuple[Float32, dict[str, Any]]:
    """CT in HU: attenuation of the mixture, point spread, noise with the grain of filtered back-projection."""
    del grid, name, scanner
    density = 1 + np.asarray(_HU) / 1000
    density[INDEX["cortical bone"]] *= rng.uniform(0.88, 1.1)
    exact = _mix(parts, density) + grain * _mix(parts, density * np.asarray(_TEXTURE) * 0.1)
    exact = ndimage.gaussian_filter(exact, 0.9 / spacing * (0, 1, 1))
    white = rng.standard_normal(exact.shape, dtype=np.float32)
    ramp = ndimage.gaussian_filter(white, (0, 0.5, 0.5)) - ndimage.gaussian_filter(white, (0, 1.5, 1.5))
    noise = ramp * np.float32(rng.uniform(2.0, 3.5) / max(float(ramp.std()), 1e-6))
    header = {"modality": "CT", "step": 1.0, "range": (-1024.0, 3071.0), "window": (40.0, 80.0)}
    return np.clip((exact - 1) * 1000 + noise, -1024, 3071), header


def _emission(
    parts: Float32,
    grain: Float32,
    spacing: Float64,
    grid: Float32,
    name: str,
    scanner: Scanner,
    rng: np.random.Generator,
) -> tuple[Float32, dict[str, Any]]:
    """FDG-like PET: uptake blurred to 5.5 mm (FWHM), counting noise, a light reconstruction filter."""
    del grid, name, scanner
    uptake = _mix(parts, _UPTAKE) + grain * _mix(parts, np.asarray(_UPTAKE) * np.asarray(_TEXTURE))
    blurred = ndimage.gaussian_filter(np.maximum(uptake, 0), 5.5 / 2.355 / spacing)
    counts = rng.uniform(12, 25) * float(np.prod(spacing)) / 10
    noisy = rng.poisson(np.maximum(blurred, 0) * counts).astype(np.float32) / np.float32(counts)
    smooth = ndimage.gaussian_filter(noisy, 3.0 / 2.355 / spacing)
    header = {"modality": "PT", "step": 1.0, "range": (0.0, 32767.0)}
    return np.clip(smooth * np.float32(2500), 0, 32767), header


_ACQUIRE: dict[str, Callable[..., tuple[Float32, dict[str, Any]]]] = {
    "T1": _magnetic,
    "T2": _magnetic,
    "FLAIR": _magnetic,
    "PD": _magnetic,
    "CT": _tomography,
    "PET": _emission,
}
