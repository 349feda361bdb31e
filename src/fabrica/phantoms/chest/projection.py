"""The line integral of attenuation through the chest phantom, p = integral of mu dy.

Large bodies enter by their chords, thin ones (ribs, vessels, bronchi, leads) as mass points, which conserve mass at
every pixel size.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fabrica.image import Float32
from fabrica.phantoms.chest.anatomy import MU_LUNG, MU_MARROW, MU_TISSUE, Anatomy
from fabrica.phantoms.chest.bodies import (
    Lungs,
    Rows,
    ellipsoid_chord,
    lungs,
    soft_tissue,
    spine_half,
    stomach_gas,
    trachea,
)
from fabrica.phantoms.chest.bones import bones
from fabrica.phantoms.chest.curves import Parts, parabola, tube_points
from fabrica.phantoms.chest.devices import generator, leads
from fabrica.phantoms.chest.disease import Disease
from fabrica.phantoms.chest.frame import Frame
from fabrica.phantoms.chest.profiles import TABLE, collapsed_lung, diaphragm, look_up, profiles


@dataclass(frozen=True)
class Scene:
    """What lies behind every pixel."""

    x: Float32  # (H, W), mm of the body frame
    z: Float32
    at: Rows  # profiles at every pixel, (H, W) each
    lungs: Lungs
    integral: Float32  # (H, W), of attenuation along the beam


def project(a: Anatomy, d: Disease, frame: Frame) -> Scene:
    """The patient with the findings, seen in the frame."""
    x, z = frame.body()
    rows = profiles(a, d.heart_ratio)
    at = look_up(rows, z)
    at["crest"] = np.interp(x, TABLE, diaphragm(a, TABLE)).astype(np.float32)
    step = max(0.3, 0.8 * frame.pixel / a.scale)
    lung = lungs(a, d, at, x, z)

    vessels = frame.project([tube_points(path, radius, step) for path, radius in a.vessels])
    integral = MU_TISSUE * soft_tissue(a, at, x, z) - (MU_TISSUE - MU_LUNG) * lung.free
    integral += (MU_TISSUE - MU_LUNG) * (vessels * lung.gate + lung.fluid) - MU_LUNG * lung.air
    integral += -MU_TISSUE * (trachea(a, x, z) + stomach_gas(a, at, x, z))
    integral += 2 * MU_MARROW * 0.8 * a.bone * at["spine_gain"] * spine_half(a, at, x)
    parts = bones(a, rows["lung_out"], step) + _bronchi(a, step) + _thin_findings(a, d, min(step, 1.2))
    integral += frame.project(parts)
    integral += _large_findings(a, d, frame, x, z)
    integral *= np.float32(a.scale)
    return Scene(x, z, at, lung, np.maximum(integral, 0))


def _bronchi(a: Anatomy, step: float) -> Parts:
    """Air of the main bronchi: the right steep and short, the left flat and long."""
    carina = a.apex - 83
    paths = np.array(
        [
            [[-1, -15, carina], [-12, -18, carina - 12], [-16, -22, carina - 24]],
            [[-1, -15, carina], [14, -18, carina - 11], [24, -24, carina - 20]],
        ],
        float,
    )
    points, volume = tube_points(parabola(paths), np.linspace([6.6, 5.8], [4.5, 3.8], 17).T, step)
    return [(points, -0.8 * MU_TISSUE * volume)]


def _thin_findings(a: Anatomy, d: Disease, step: float) -> Parts:
    """Leads and the pleural line."""
    parts: Parts = []
    if d.pacemaker is not None:
        parts += leads(a, d, step)
    if d.pneumothorax is not None:
        z = np.linspace(a.apex - 0.9 * a.length, a.apex - d.collapse[0] * a.length - 1, 80)
        out = np.interp(z, TABLE, collapsed_lung(a, *d.collapse)["out"])
        path = np.stack([d.pneumothorax * out, np.full_like(z, -5), z], -1)
        points, volume = tube_points(path[None], np.full((1, 80), 0.8), step)
        parts.append((points, volume * 12 * MU_TISSUE))  # the pleura seen on edge over some 20 mm
    return parts


def _large_findings(a: Anatomy, d: Disease, frame: Frame, x: Float32, z: Float32) -> Float32:
    """What nodule and generator add to the integral."""
    added = np.zeros_like(x)
    if d.nodule is not None:
        centre, radius = frame.turned(d.nodule.x, d.nodule.y, d.nodule.z), d.nodule.radius
        added += (1.25 * MU_TISSUE - MU_LUNG) * ellipsoid_chord(x, z, centre, (radius, radius, radius))
    if d.pacemaker is not None:
        added += generator(a, d.pacemaker, x, z)[0]
    return added
