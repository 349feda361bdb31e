"""Large bodies of the chest phantom as profiles: centre, half-width and half-depth at every height, in mm.

The widths of the heart, the mediastinum and the trunk are distances from the midline; those of the lungs are
tabulated once for both sides, over |x|.
"""

from __future__ import annotations

import numpy as np

from fabrica.image import Float32, Float64
from fabrica.phantoms.chest.anatomy import Anatomy
from fabrica.phantoms.chest.curves import smooth

TABLE = np.arange(-280.0, 281.0)  # mm; profiles over z or x are tabulated once and looked up for all pixels


def profiles(a: Anatomy, heart_ratio: float) -> dict[str, Float64]:
    """Every profile at the heights of TABLE."""
    z = TABLE
    s = (a.apex - z) / a.length  # 0 at the apex, 1 at the costophrenic angle
    q = np.sqrt(np.clip(s, 0, None))  # opens the apex as round as a sphere
    outer, inner = lung_borders(a, q)
    rows = {
        "lung_out": outer,
        "lung_in": inner,
        "lung_b": a.depth * smooth(_LUNG_KNOTS_B, _LUNG_B, q),
        "lung_y": smooth([0, 0.3, 0.6, 0.95, 1.05, 1.2], [-36, -24, -8, -4, -14, -48], q),
        "mid_left": smooth([-0.1, 0.02, 0.12, 0.19, 0.27, 0.35, 0.42, 0.55, 0.9], _mid_left(a), s),
        "mid_b": smooth([0.25, 0.5, 1], [140, 84, 78], s),
        "mid_y": smooth([0.25, 0.5, 1], [0, -28, -34], s),
        "mid_right": smooth([-0.1, 0.02, 0.15, 0.3, 0.45, 0.6, 0.9], [40, 27, 22, 27, 30, 17, 18], s),
        "aorta_x": smooth([0.27, 0.36, 0.6, 0.95], [18 + 0.5 * a.knob, 22, 18, 8], s),
    }
    return rows | _heart(a, heart_ratio, z) | _trunk(a, z, outer) | _spine(a, z)


def look_up(rows: dict[str, Float64], z: Float32) -> dict[str, Float32]:
    """The profiles at every pixel's height."""
    table = np.array(list(rows.values()), np.float32)
    place = np.clip(z - np.float32(TABLE[0]), 0, len(TABLE) - 1.001)
    k = place.astype(np.int32)
    f = place - k
    values = np.take(table, k, axis=1)
    values += f * (np.take(table, k + 1, axis=1) - values)
    return dict(zip(rows, values, strict=True))


_LUNG_KNOTS_B = [0, 0.2, 0.35, 0.5, 0.7, 0.9, 1, 1.12, 1.2]
_LUNG_B = [6, 30, 48, 64, 82, 88, 84, 46, 3]


def lung_borders(a: Anatomy, q: Float64) -> tuple[Float64, Float64]:
    """Outer and inner border of a lung over q, the root of the share of its height below the apex."""
    outer = smooth([0, 0.2, 0.35, 0.5, 0.65, 0.8, 0.92, 1.0, 1.1], [48, 79, 97, 113, 125, 135, 139.5, 140, 137], q)
    inner = smooth([0, 0.1, 0.2, 0.35, 0.5], [48, 34, 24, 16, 6], q)
    wide = a.width / 140
    return wide * outer, wide * inner


def collapsed_lung(a: Anatomy, sink: float, gap: float) -> dict[str, Float64]:
    """Borders of the lung in a pneumothorax over TABLE: sunk from the apex by the share `sink` of its height, drawn
    off the wall by `gap` mm, whole at the base."""
    s = (a.apex - TABLE) / a.length
    q = np.sqrt(np.clip((s - sink) / (1 - sink), 0, None))
    outer, inner = lung_borders(a, q)
    return {"out": outer - gap * np.clip(1.15 - q, 0, 1) ** 0.7 * np.clip(q / 0.15, 0, 1), "in": inner}


def _mid_left(a: Anatomy) -> list[float]:
    knob = 30 + 0.8 * a.knob
    return [40, 28, 23, 25, knob, knob - 2, 28, 16, 18]


def _heart(a: Anatomy, ratio: float, z: Float64) -> dict[str, Float64]:
    """The heart's borders as distances from the midline. The widest rows give exactly the asked ratio."""
    top, bottom = a.apex - a.hilum + 14, a.left_dome - 6
    h = (top - z) / (top - bottom)
    total = 2 * a.width * ratio
    left, right = total * a.heart_left, total * (1 - a.heart_left)
    round_ = 0.1 * a.heart_tilt
    knots = [0, 0.12, 0.3, 0.5, 0.68, 0.84, 0.98, 1.12, 1.25, 1.35]
    share = [0.30, 0.40, 0.52 + round_, 0.74 + round_, 0.92 + 0.5 * round_, 1.0, 0.98, 0.88, 0.62, 0.1]
    right_share = [0.58, 0.66, 0.8, 0.94, 1.0, 1.0, 0.93, 0.78, 0.6, 0.1]
    swollen = 0.8 + 0.45 * ratio
    return {
        "heart_left": left * smooth(knots, share, h),
        "heart_right": right * smooth(knots, right_share, h),
        "heart_b": swollen * smooth(knots, [14, 28, 44, 54, 57, 55, 50, 40, 24, 2], h) * (h > -0.12),
        "heart_y": smooth([0, 0.5, 1], [8, 22, 30], h),
    }


def _trunk(a: Anatomy, z: Float64, lung_out: Float64) -> dict[str, Float64]:
    """Skin: neck, shoulders, chest wall; and the arms beside it."""
    below = a.apex - z
    wall = lung_out + 21 + a.fat + (6 if a.sex == "male" else 0)
    shoulder = smooth(
        [-90, -52, -34, -18, -4, 8, 26, 60, 82, 100],
        [64, 64, 78, 114, 158, 190, 207, 205, 182, 155],
        below,
    )
    blend = 1 / (1 + np.exp(-(below - 82) / 9))
    depth = smooth([-60, -25, 5, 40, 90, 160, 260], [54, 54, 62, 80, 98, 106, 104], below)
    return {
        "trunk_a": (1 - blend) * shoulder + blend * wall,
        "trunk_b": a.depth * depth + 0.8 * a.fat,
        "arm_x": a.arm + smooth([30, 90, 240], [-6, 6, 16], below),
        "arm_a": (36 + 0.7 * a.fat) * smooth([0, 20, 60, 240], [0.3, 0.8, 1.0, 0.92], below),
    }


def _spine(a: Anatomy, z: Float64) -> dict[str, Float64]:
    """Vertebral bodies with their discs: half-width, half-depth and bone gain."""
    heads = a.apex + 8 - levels()
    level = np.interp(-z, -heads, np.arange(len(heads), dtype=float))
    phase = level % 1.0
    body = 1 / (1 + np.exp(-(0.40 - np.abs(phase - 0.5)) / 0.022))
    plates = np.exp(-(((np.abs(phase - 0.5) - 0.385) / 0.035) ** 2))
    growth = smooth([0, 6, 12, 20], [15, 16.5, 19, 23], level)
    return {
        "spine_a": growth * (1 + 0.1 * (2 * np.abs(phase - 0.5)) ** 2),
        "spine_b": growth * 0.85,
        "spine_gain": 0.35 + 0.75 * body + 0.5 * plates,
    }


def levels() -> Float64:
    """Distance of the upper plate of C3 ... L4 below that of T1, mm; T1 has index 5."""
    step = np.array([15.0] * 5 + [19 + 0.75 * k for k in range(12)] + [33.0] * 5)
    return np.concatenate([[0.0], np.cumsum(step)]) - float(step[:5].sum())


def diaphragm(a: Anatomy, x: Float64) -> Float64:
    """Height of the crest of the diaphragm over x, mm."""
    right, left = a.dome, a.left_dome
    w, drop = a.width, a.sulcus
    shape = [
        (-1.04, right - 1.25 * drop),
        (-0.95, right - 0.86 * drop),
        (-0.78, right - 0.36 * drop),
        (-0.5, right),
        (-0.25, right - 5),
        (0, (right + left) / 2 - 9),
        (0.28, left - 3),
        (0.5, left),
        (0.76, left - 0.34 * drop),
        (0.95, left - 0.86 * drop),
        (1.04, left - 1.25 * drop),
    ]
    return smooth([place * w for place, _ in shape], [height for _, height in shape], x)
