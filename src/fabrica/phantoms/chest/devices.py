"""The pacemaker of the chest phantom: generator and leads. Lengths in mm of the body frame."""

from __future__ import annotations

import numpy as np

from fabrica.image import Float32, Float64
from fabrica.phantoms.chest.anatomy import MU_METAL, Anatomy
from fabrica.phantoms.chest.bodies import Mask
from fabrica.phantoms.chest.curves import Parts, smooth, tube_points
from fabrica.phantoms.chest.disease import Disease, Side


def generator(a: Anatomy, side: Side, x: Float32, z: Float32) -> tuple[Float32, Mask]:
    """What the can and its header below the clavicle add to the line integral at x and z (H, W), and their outline."""
    dx = (x - np.float32(side * 97)) * side
    dz = z - np.float32(a.apex - 66)
    case = 1 - (np.abs(dx / 22) ** 3.2 + np.abs(dz / 20) ** 2.6)
    added = np.clip(case * 8, 0, 1) * np.where(dx + 0.6 * dz > -4, np.float32(2.2), np.float32(1.5))
    header = (np.abs(dx + 6) < 15) & (dz > 12) & (dz < 24)
    added += np.float32(0.5) * (header & (case <= 0))
    return added.astype(np.float32), (case > 0) | header


def leads(a: Anatomy, d: Disease, step: float) -> Parts:
    """The leads, thicker at their tips."""
    paths = _lead_paths(a, d)
    tips = np.stack([paths[:, -5], paths[:, -1]], 1)
    parts = [
        tube_points(paths, np.full(paths.shape[:2], 1.0), step),
        tube_points(tips, np.full(tips.shape[:2], 1.5), step),
    ]
    return [(points, volume * MU_METAL) for points, volume in parts]


def _lead_paths(a: Anatomy, d: Disease) -> Float64:
    """(leads, m, 3): from the generator under the clavicle, down the superior vena cava, into the right heart."""
    side = d.pacemaker or 1
    bottom = a.left_dome + 8
    half = 2 * a.width * d.heart_ratio
    entry = [[side * 84, 78, a.apex - 47], [side * 62, 70, a.apex - 27], [side * 36, 55, a.apex - 34]]
    cava = [[-19 if side > 0 else -24, 30, a.apex - 58], [-25, 20, a.apex - 98]]
    right = half * (1 - a.heart_left)
    ventricle = [[-0.66 * right, 20, bottom + 42], [0, 40, bottom + 10]]
    atrium = [[-0.62 * right, 18, bottom + 44], [-0.3 * right, 28, bottom + 38]]
    ends = [[*ventricle, [half * a.heart_left * 0.6, 55, bottom + 3]], [*atrium, [-0.25 * right, 36, bottom + 58]]]
    t = np.linspace(0, 1, 60)
    paths = []
    for end in ends[: d.leads]:
        knots = np.array([*entry, *cava, *end], float)
        stops = np.linspace(0, 1, len(knots))
        paths.append(np.stack([smooth(stops.tolist(), knots[:, c].tolist(), t) for c in range(3)], -1))
    return np.stack(paths)
