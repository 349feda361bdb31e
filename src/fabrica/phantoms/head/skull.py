"""Skull, scalp, orbits and face of the head phantom, as signed distances in MNI mm (negative inside)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fabrica.image import Float32
from fabrica.phantoms.head.shapes import (
    Places,
    Waves,
    bump,
    ellipsoid,
    limb,
    middle,
    paired,
    rise,
    smooth_max,
    smooth_min,
    waves,
)


@dataclass(frozen=True)
class Skull:
    """What differs from skull to skull. Lengths in mm."""

    thickness: float
    scalp: float
    sinus: float
    mastoid: float
    uneven: Waves
    cells: Waves
    septa: Waves


def draw_skull(rng: np.random.Generator) -> Skull:
    """A skull at random."""
    return Skull(
        thickness=float(rng.uniform(5.2, 8.0)),
        scalp=float(rng.uniform(3.4, 6.2)),
        sinus=float(rng.uniform(0.2, 1.0)),
        mastoid=float(rng.uniform(-0.4, 0.8)),
        uneven=waves(rng, 16, 50, 110),
        cells=waves(rng, 24, 6, 11, difference=2),
        septa=waves(rng, 24, 12, 30),
    )


def cavity(p: Places) -> Float32:
    """The cranial cavity: an egg, broader behind, over the three steps of the skull base."""
    y = p.y + 17
    z = p.z - 8
    x = p.x * (1 + np.float32(0.0012) * y - np.float32(1.1e-5) * y * y)
    vault = ellipsoid(x, y, np.where(z > 0, z, z * np.float32(0.76)), (70, 88.5, 73))
    middle_fossa = np.float32(-20) - np.float32(25) * rise(p.side, 18, 16)
    into_front = rise(p.y, np.float32(13) + np.float32(0.3) * p.side, 14)
    into_back = rise(-p.y, np.float32(20) + np.float32(0.30) * p.side, 20)
    front = np.float32(-23) - 3 * rise(-p.side, -11, 10) + 8 * bump(p, (33, 46, 0), (20, 28, 1e3))
    floor = middle_fossa + (front - middle_fossa) * into_front
    floor = floor + (np.float32(-70) - floor) * into_back
    base: Float32 = np.multiply(floor - p.z, 0.75, dtype=np.float32)
    return smooth_max(vault, base, 7)


def bone_thickness(p: Places, skull: Skull) -> Float32:
    """Thickness of the bone around the cavity, mm: more at forehead and occiput, thin at temple and base."""
    points = p.spots
    t = np.float32(skull.thickness) + np.float32(0.55) * skull.uneven.at(points)
    t += np.float32(3.0) * bump(p, (0, -105, -5), (28, 25, 25))
    t += np.float32(2.5 + 5.0 * skull.sinus) * bump(p, (8, 74, -4), (20, 26, 17))
    t -= np.float32(2.5) * bump(p, (66, 5, -8), (18, 34, 22))
    t -= np.float32(skull.thickness - 3.2) * rise(p.y, 10, 20) * rise(-p.z, 14, 10)
    thickness: Float32 = np.maximum(t, np.float32(2.4))
    return thickness


def frontal_sinus(p: Places, outside: Float32, thickness: Float32, skull: Skull) -> Float32:
    """Air between the tables of the frontal bone, `outside` being the distance from the cavity."""
    room = np.abs(outside - thickness / 2) - (thickness / 2 - np.float32(1.4))
    patch = (np.float32(0.45 + 0.4 * (1 - skull.sinus)) - bump(p, (9, 76, -4), (18, 60, 16))) * 14
    septum = np.float32(0.7) - p.side
    air: Float32 = np.maximum(np.maximum(room, patch), np.maximum(septum, 50 - p.y))
    return air


def petrous(p: Places) -> Float32:
    """The pyramid of the temporal bone and the mastoid."""
    ridge = limb(p, (15, -16, -37), (50, -34, -39), (6, 10))
    return smooth_min(ridge, paired(p, (57, -38, -48), (12, 15, 20)), 6)


def air_cells(p: Places, skull: Skull) -> Float32:
    """Foam of small air cells (mastoid, ethmoid): negative where air."""
    points = p.spots
    return (skull.cells.at(points) - np.float32(skull.mastoid)) * np.float32(2)


@dataclass(frozen=True)
class Face:
    """Parts in front of and below the skull base."""

    surface: Float32
    globe: Float32
    lens: Float32
    orbit: Float32
    strings: Float32
    nerve: Float32
    mastoid: Float32
    ethmoid: Float32
    sinuses: Float32
    airway: Float32
    bones: Float32
    muscles: Float32

    def at(self, chosen: npt.NDArray[np.bool_]) -> Face:
        """The points where `chosen` (n,) is true."""
        return Face(**{name: values[chosen] for name, values in vars(self).items()})


def face(p: Places, vault: Float32, scalp: Float32) -> Face:
    """The parts of the face; `vault` is the distance from the outer table, `scalp` its cover in mm."""
    surface = smooth_min(vault - scalp, middle(p, (0, 34, -58), (60, 58, 62)), 18)
    neck = ellipsoid(p.x, p.y + 28, np.zeros_like(p.z), (58, 60, 1e3))
    surface = smooth_min(surface, np.maximum(neck, p.z + 45), 22)
    nose = smooth_min(middle(p, (0, 96, -56), (11, 14, 15)), limb(p, (0, 84, -26), (0, 98, -52), (5, 7)), 6)
    ears = np.maximum(paired(p, (79, -22, -32), (9, 15, 27), turn=0.5), -paired(p, (84, -18, -30), (6, 10, 18)))
    surface = smooth_min(smooth_min(surface, nose, 8), ears, 3)

    globe = paired(p, (32, 60, -36), (12, 12, 12))
    brow = smooth_min(surface, globe - 4, 6)
    orbit = smooth_min(paired(p, (30, 50, -36), (18, 22, 17)), limb(p, (24, 38, -35), (13, 14, -27), (12, 3)), 6)
    strings = np.minimum(
        limb(p, (19, 56, -36), (13, 20, -29), (1.6, 2.2)), limb(p, (43, 52, -36), (17, 20, -29), (1.6, 2.2))
    )
    strings = np.minimum(strings, limb(p, (30, 54, -48), (15, 20, -31), (1.8, 2.2)))
    strings = np.minimum(strings, limb(p, (30, 54, -24), (15, 20, -27), (1.8, 2.2)))
    ethmoid = smooth_max(middle(p, (0, 44, -38), (13, 25, 15)), np.float32(0.6) - p.side, 1)
    sphenoid = paired(p, (8, 12, -36), (7, 12, 8))
    maxillary = paired(p, (29, 46, -68), (14, 17, 16))
    nasal = np.maximum(middle(p, (0, 55, -68), (14, 32, 16)), np.float32(1.3) - p.side)
    turbinates = limb(p, (7, 30, -72), (7, 72, -72), (3.6, 3.2))
    airway = smooth_min(np.maximum(nasal, -turbinates), middle(p, (0, 12, -80), (13, 9, 32)), 4)
    return Face(
        surface=brow,
        globe=globe,
        lens=paired(p, (32, 68.5, -36), (4.6, 2.2, 4.6)),
        orbit=orbit,
        strings=strings,
        nerve=limb(p, (30, 48, -36), (11, 12, -26), (1.9, 2.3)),
        mastoid=paired(p, (58, -38, -46), (9, 12, 16)),
        ethmoid=ethmoid,
        sinuses=np.minimum(sphenoid, maxillary),
        airway=airway,
        bones=_face_bones(p, orbit, np.minimum(ethmoid, np.minimum(sphenoid, maxillary)), nasal),
        muscles=_muscles(p),
    )


def _face_bones(p: Places, orbit: Float32, sinuses: Float32, nasal: Float32) -> Float32:
    """Walls of orbits and sinuses, cheek bones, upper jaw, sphenoid and clivus, and the first vertebra."""
    walls = np.maximum(np.abs(orbit - 1) - 1, p.y - 62)
    walls = np.minimum(walls, np.abs(sinuses - np.float32(0.6)) - np.float32(0.6))
    walls = np.minimum(walls, np.maximum(np.abs(nasal - 1) - 1, p.y - 78))
    cheek = limb(p, (50, 48, -46), (66, 8, -46), (4.2, 2.4))
    rim = limb(p, (47, 50, -36), (45, 46, -16), (3.6, 3.8))
    body = smooth_min(middle(p, (0, 0, -38), (16, 17, 10)), limb(p, (0, -8, -32), (0, -26, -60), (9, 6)), 6)
    wing = limb(p, (16, 14, -25), (50, 24, -22), (3.2, 3.0))
    jaw = limb(p, (50, -2, -48), (47, 8, -100), (5.0, 6.5))
    teeth = np.maximum(np.abs(middle(p, (0, 52, -92), (26, 34, 10))) - 5, -(p.z + 84))
    ring = np.abs(ellipsoid(p.x, p.y + 43, np.zeros_like(p.z), (20, 17, 1e3))) - 4
    vertebra = np.maximum(ring, np.abs(p.z + 84) - 9)
    out: Float32 = walls
    for part in (cheek, rim, body, wing, jaw, teeth, vertebra):
        out = np.minimum(out, part)
    return out


def _muscles(p: Places) -> Float32:
    """Temporal, masticatory and neck muscles."""
    temporal = np.maximum(paired(p, (64, 20, -22), (13, 32, 38)), -(p.side - 44))
    masseter = paired(p, (56, 22, -72), (9, 20, 30))
    pterygoid = paired(p, (34, 8, -64), (14, 15, 20))
    neck = paired(p, (22, -72, -85), (24, 24, 40))
    side = paired(p, (50, -34, -90), (10, 16, 30))
    return np.minimum(np.minimum(np.minimum(temporal, masseter), np.minimum(pterygoid, neck)), side)
