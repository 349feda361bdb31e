"""Bones of the chest phantom as mass points: ribs, shoulders and the arches of the vertebrae. Lengths in mm.

The vertebral bodies are wide enough for a profile (`chest_profiles`).
"""

from __future__ import annotations

import math

import numpy as np

from fabrica.image import Float32, Float64
from fabrica.phantoms.chest.anatomy import MU_CORTEX, MU_MARROW, Anatomy
from fabrica.phantoms.chest.curves import Parts, both_sides, parabola, smooth, tube_points
from fabrica.phantoms.chest.profiles import TABLE, levels


def bones(a: Anatomy, lung_out: Float64, step: float) -> Parts:
    """All of them; points no more than about `step` mm apart. `lung_out` is the profile of the lungs' outer border."""
    return _ribs(a, lung_out, step) + _shoulder_bones(a, step) + _neural_arches(a, step)


def _ribs(a: Anatomy, lung_out: Float64, step: float) -> Parts:
    """Twelve pairs: bent elliptical tubes on the wall of the rib cage, cortex around marrow.

    Each runs in an inclined plane from its vertebra over the side (theta = 90 degrees) to its cartilage, so that
    its back half arches over the lung and its front half falls steeply towards the sternum.
    """
    number = np.arange(12)
    fall = np.interp(number, [0, 1, 3, 6, 8, 10, 11], [80, 80, 90, 106, 112, 120, 130])
    last = np.radians(np.interp(number, [0, 5, 7, 8, 9, 10, 11], [138, 136, 124, 112, 100, 78, 50]))
    length = float(np.max(fall) + 2.3 * a.width)
    n = max(12, math.ceil(length / step))
    first = np.arcsin(19 / a.width)
    theta = first + (np.arange(n) + 0.5) / n * (last[:, None] - first)
    z = a.apex + 3 - levels()[5:17, None] - fall[:, None] * (1 - np.cos(theta)) / 2
    z -= 5 * np.exp(-(((theta - first) / 0.3) ** 2))  # the neck rises to the tubercle
    bow = np.interp(z, TABLE, lung_out) + 3.5
    bow = np.where(number[:, None] == 0, 0.6 * a.width, bow)  # the first is a tight arc of its own
    deep = 92 * a.depth * np.clip(bow / 120, 0.3, 1)
    x, y = bow * np.sin(theta), -6 - deep * np.cos(theta)
    path = np.stack([x, y, z], -1)
    tangent = np.gradient(path, axis=1)
    speed = np.linalg.norm(tangent, axis=-1, keepdims=True)
    out = np.stack([np.sin(theta) / bow, -np.cos(theta) / deep, np.zeros_like(x)], -1)
    out /= np.linalg.norm(out, axis=-1, keepdims=True)
    up = np.cross(tangent / speed, out)
    points, mass = _rib_section(path, up, out, speed[..., 0], step, a.bone)
    mass *= np.clip((last[:, None] - theta) / 0.12, 0, 1)[..., None]
    return both_sides([(points, mass)])


def _rib_section(
    path: Float64, up: Float64, out: Float64, speed: Float64, step: float, mineral: float
) -> tuple[Float32, Float32]:
    """Rib mass around its axis: a ring of cortex 1.2 mm thick, and rings of marrow inside."""
    tall, thick = 6.8, 3.8
    axis, high, wide, length = (part.astype(np.float32) for part in (path, up, out, speed))
    points, mass = [], []
    inner = ((0.72, 0.56), (0.46, 0.32), (0.2, 0.12)) if step < 2.2 else ((0.5, 1.0),)  # more would not be seen
    for size, filling in ((0.92, 0.0), *inner):
        count = max(4, math.ceil(size * 32 / step))
        phi = ((np.arange(count) + 0.5) / count * 2 * np.pi).astype(np.float32)
        h, w = size * tall * np.cos(phi), size * thick * np.sin(phi)
        points.append(axis[..., None, :] + h[:, None] * high[..., None, :] + w[:, None] * wide[..., None, :])
        rim = np.hypot(tall * np.sin(phi), thick * np.cos(phi)) * 2 * np.pi / count * 1.2 * MU_CORTEX
        core = np.full(count, np.pi * tall * thick * 0.72 * filling / count * MU_MARROW)
        mass.append(length[..., None] * ((core if filling else rim) * mineral).astype(np.float32))
    return np.concatenate(points, axis=-2), np.concatenate(mass, axis=-1)


def _shoulder_bones(a: Anatomy, step: float) -> Parts:
    """Clavicles, scapulae (borders, spine and a thin blade) and the upper ends of the humeri."""
    out, top = a.scapula, a.apex
    clavicle, girth = _clavicle(a)
    parts = _long_bone(clavicle, girth, step, 1.3 * a.bone, 0.34)
    socket, acromion = (158 + out, 45, top - 26), (176 + out, 30, top + 1)
    angle, upper = (108 + out, -80, top - 146), (98 + out, -70, top - 12)
    lines = [
        (socket, (127 + out, -20, top - 76), angle),
        (upper, (90 + out, -80, top - 76), angle),
        ((96 + out, -80, top - 38), (134 + out, -40, top - 24), acromion),
        (socket, (128 + out, 0, top - 22), upper),
    ]
    thick = np.array([[7.0, 4.2, 2.8], [1.4, 1.3, 1.8], [2.2, 3.4, 6.5], [6.0, 2.4, 1.2]])
    girth = parabola(thick[..., None])[..., 0]
    parts += _long_bone(parabola(np.array(lines, float)), girth, step, 0.8 * a.bone, 0.35)
    parts.append(_blade(np.array([upper, socket, angle]), step, a.bone))
    head = np.array([[[177 + out, 30, top - 20], [183 + out, 28, top - 34]]])
    parts += _long_bone(head, np.array([[21.0, 21.0]]), step, 0.42 * a.bone, 0.1)
    shift = a.arm - 196 + out
    shaft = [[182 + shift, 28, top - 26], [190 + shift, 25, top - 90], [206 + shift, 22, top - 420]]
    parts += _long_bone(parabola(np.array([shaft])), np.linspace(17, 11, 17)[None], step, a.bone, 0.3)
    return both_sides(parts)


def _clavicle(a: Anatomy) -> tuple[Float64, Float64]:
    """Path (1, m, 3) and radius (1, m): from the sternal end, S-shaped, to the acromion."""
    t = np.linspace(0, 1, 24)
    x = 16 + t * 0.99 * (a.width + 12)
    z = a.apex - 50 + a.clavicle * smooth([0, 0.25, 0.5, 0.75, 1], [0, 0.38, 0.85, 1.05, 0.92], t)
    y = 70 + smooth([0, 0.3, 0.7, 1], [0, 10, -28, -40], t)
    radius = smooth([0, 0.05, 0.14, 0.45, 0.8, 0.95, 1], [4.0, 10.5, 7.6, 6.0, 6.8, 7.2, 3.0], t)
    return np.stack([x, y, z], -1)[None], radius[None]


def _long_bone(path: Float64, radius: Float64, step: float, mineral: float, wall: float) -> Parts:
    """A round bone: marrow through and through, and a wall of cortex (`wall`: its share of the radius) as the
    difference of two tubes."""
    points, volume = tube_points(path, radius, step)
    inner, hollow = tube_points(path, radius * (1 - wall), step)
    return [
        (points, volume * MU_CORTEX * mineral),
        (inner, hollow * (MU_MARROW - MU_CORTEX) * mineral),
    ]


def _blade(corners: Float64, step: float, mineral: float) -> tuple[Float32, Float32]:
    """A triangular plate (3, 3) of bone 2 mm thick, as points on a lattice."""
    n = max(6, math.ceil(130 / step))
    u, v = np.meshgrid((np.arange(n) + 0.5) / n, (np.arange(n) + 0.5) / n)
    v = v * (1 - u)
    edge, other = corners[1] - corners[0], corners[2] - corners[0]
    points = corners[0] + v[..., None] * edge + u[..., None] * other
    area = np.linalg.norm(np.cross(edge, other)) * (1 - u) / n**2
    return points.astype(np.float32), (area * 2.0 * MU_CORTEX * mineral).astype(np.float32)


def _neural_arches(a: Anatomy, step: float) -> Parts:
    """Pedicles (rings seen end-on), spinous and transverse processes of T1 ... L1."""
    heads = a.apex + 8 - levels()[4:18]
    turn = np.linspace(0, 2 * np.pi, 13)
    reach = np.linspace(10, 13.5, len(heads))
    ring = np.stack([3.2 * np.cos(turn), np.zeros(13), 5.2 * np.sin(turn)], -1)
    centre = np.stack([reach, np.full(len(heads), -82.0), heads - 9], -1)
    points, volume = tube_points(ring + centre[:, None], np.full((len(heads), 13), 1.3), step)
    parts = [(points, volume * 1.2 * MU_CORTEX * a.bone)]
    root, tip = centre + np.array([2, -4, 1]), centre + np.array([17, -16, 5])
    points, volume = tube_points(np.stack([root, tip], 1), np.full((len(heads), 2), 4.0), step)
    parts.append((points, volume * 1.3 * MU_MARROW * a.bone))
    parts = both_sides(parts)
    top = np.stack([np.zeros(len(heads)), np.full(len(heads), -95.0), heads - 10], -1)
    spinous = np.stack([top, top - np.array([0, 18, 20])], 1)
    points, volume = tube_points(spinous, np.tile([2.2, 3.4], (len(heads), 1)), step)
    parts.append((points, volume * 0.8 * MU_CORTEX * a.bone))
    return parts
