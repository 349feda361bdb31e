"""Large bodies of the chest phantom in the picture: their chords along the beam, in mm, at every pixel.

Trunk, lungs, heart and diaphragm are stacks of superellipses or ellipsoids whose chord is known in closed form;
where bodies hide one another the intervals of the chords are united, so that a heart in front of a lung removes
exactly the lung that it displaces. x and z (H, W) are the pixel centres in the body frame; `at` holds the profiles
at every pixel, and the "crest" of the diaphragm.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fabrica.image import Float32
from fabrica.phantoms.chest.anatomy import Anatomy
from fabrica.phantoms.chest.disease import Disease
from fabrica.phantoms.chest.profiles import collapsed_lung, look_up

Mask = npt.NDArray[np.bool_]
Row = Float32 | np.float32
Rows = dict[str, Float32]


# --- closed forms -------------------------------------------------------------------------------------------


def stack_chord(x: Float32, centre: Row, width: Row, depth: Row) -> Float32:
    """Half the chord (mm) along the beam of a body whose cross-section at each height is the superellipse
    |x - centre|^3 / width^3 + y^2 / depth^2 = 1. All arguments in mm, broadcast."""
    t = np.abs(x - centre) / np.maximum(width, np.float32(1e-3))
    return np.asarray(depth * np.sqrt(np.maximum(1 - t * t * t, 0)), np.float32)


def ellipsoid_chord(x: Float32, z: Float32, centre: tuple[float, float], axes: tuple[float, float, float]) -> Float32:
    """The chord (mm) along y through an ellipsoid: 2 b sqrt(1 - (dx/a)^2 - (dz/c)^2), with half-axes (a, b, c)
    along x, y, z and the centre (x, z), mm."""
    dx, dz = (x - np.float32(centre[0])) / axes[0], (z - np.float32(centre[1])) / axes[2]
    return np.asarray(2 * axes[1] * np.sqrt(np.maximum(1 - dx * dx - dz * dz, 0)), np.float32)


def free_length(low: Float32, high: Float32, blocks: Sequence[tuple[Float32, Float32]]) -> Float32:
    """Length of the interval [low, high] that none of the blocks [start, end] covers, per pixel, mm."""
    starts = np.stack([np.clip(start, low, high) for start, _ in blocks])
    ends = np.stack([np.clip(end, low, high) for _, end in blocks])
    order = np.argsort(starts, axis=0)
    starts, ends = np.take_along_axis(starts, order, 0), np.take_along_axis(ends, order, 0)
    free, reach = np.zeros_like(low), low.copy()
    for start, end in zip(starts, ends, strict=True):
        free += np.maximum(start - reach, 0)
        np.maximum(reach, end, out=reach)
    return np.asarray(free + np.maximum(high - reach, 0), np.float32)


# --- trunk, spine and gas -----------------------------------------------------------------------------------


def soft_tissue(a: Anatomy, at: Rows, x: Float32, z: Float32) -> Float32:
    """mm of soft tissue along the beam, lungs still filled."""
    trunk = 2 * stack_chord(x, np.float32(0), at["trunk_a"], at["trunk_b"])
    arm = 2 * stack_chord(np.abs(x), at["arm_x"], at["arm_a"], at["arm_a"])
    body = np.maximum(trunk, arm)
    uneven = np.zeros_like(x)
    for size, kx, kz, phase in a.waves.astype(np.float32):
        uneven += size * np.cos(kx * x + kz * z + phase)
    body *= 1 + uneven
    if a.breast:
        for side in (-1, 1):
            centre = (side * 0.56 * a.width, a.dome + 16)
            body += 0.5 * ellipsoid_chord(x, z, centre, (0.46 * a.width, a.breast, 58.0))
    return body


def spine_half(a: Anatomy, at: Rows, x: Float32) -> Float32:
    """Half the chord of the vertebral bodies."""
    return stack_chord(x, np.float32(a.turn * -62), at["spine_a"], at["spine_b"])


def trachea(a: Anatomy, x: Float32, z: Float32) -> Float32:
    """Chord of the air column (mm) down to the carina; it gives way to the right at the aortic arch."""
    bend = np.float32(-1 - 0.25 * a.knob) * np.exp(-(((z - np.float32(a.apex - 70)) / 28) ** 2))
    dx = x - bend
    open_ = np.clip((z - np.float32(a.apex - 84)) / 8, 0, 1)
    return np.asarray(2 * open_ * np.sqrt(np.maximum(np.float32(8.4**2) - dx * dx, 0)), np.float32)


def stomach_gas(a: Anatomy, at: Rows, x: Float32, z: Float32) -> Float32:
    """Chord of the bubble under the left dome."""
    bx, below, wide, tall = a.bubble
    under = np.clip((at["crest"] - 5 - z) / 5, 0, 1)  # the stomach's wall
    return np.asarray(under * ellipsoid_chord(x, z, (bx, a.left_dome - below), (wide, 0.7 * wide, tall)), np.float32)


# --- lungs --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Lungs:
    """Per pixel, (H, W)."""

    free: Float32  # mm of lung along the beam, with any fluid or pleural air
    fluid: Float32  # mm of pleural fluid
    air: Float32  # mm of pleural air
    gate: Float32  # 0..1: share of the vessels that lie in lung
    field: Mask  # the lung fields of a reader
    heart: Mask
    side: Float32  # -1 right, +1 left
    gap: Mask  # outside the collapsed lung


def lungs(a: Anatomy, d: Disease, at: Rows, x: Float32, z: Float32) -> Lungs:
    """The lungs less what heart, mediastinum, aorta and diaphragm take of them, with what the pleura holds."""
    ax, side = np.abs(x), np.where(x < 0, np.float32(-1), np.float32(1))
    half = stack_chord(ax, *_span(at["lung_in"], at["lung_out"]), at["lung_b"])
    crest = at["crest"]
    heart_x, heart_w = _span(-at["heart_right"], at["heart_left"])
    heart_x += np.float32(a.turn * 25)
    heart = (np.abs(x - heart_x) < heart_w) & (at["heart_b"] > 8) & (z > a.left_dome - 16)
    mid_x, mid_w = _span(-at["mid_right"], at["mid_left"])
    field = (half > 0) & (z > crest) & ~heart & (np.abs(x - mid_x) > mid_w)

    solid = (  # depth of the centre, half chord
        (at["mid_y"], stack_chord(x, mid_x, mid_w, at["mid_b"])),
        (at["heart_y"], stack_chord(x, heart_x, heart_w, at["heart_b"])),
        (np.float32(-58), stack_chord(x, at["aorta_x"], np.float32(13), np.float32(13))),
        (np.float32(12), np.sqrt(np.maximum(crest - z, 0) / np.float32(0.0028))),
    )
    free = np.zeros_like(x)
    inside = half > 0
    low, high = (at["lung_y"] - half)[inside], (at["lung_y"] + half)[inside]
    free[inside] = free_length(low, high, [((y - h)[inside], (y + h)[inside]) for y, h in solid])

    wet = _fluid_share(a, d, at, ax, side, z)
    gone, gap = _collapse(a, d, at, ax, side, z, half)
    return Lungs(
        free=free,
        fluid=free * wet,
        air=free * gone,
        gate=np.asarray(np.clip(free / 45, 0, 1) * (1 - wet) * (1 - gone), np.float32),
        field=field,
        heart=heart,
        side=side,
        gap=gap & field,
    )


def _span(low: Float32, high: Float32) -> tuple[Float32, Float32]:
    """Centre and half-width of an interval."""
    half = np.float32(0.5)
    return half * (high + low), half * (high - low)


def _fluid_share(a: Anatomy, d: Disease, at: Rows, ax: Float32, side: Float32, z: Float32) -> Float32:
    """Share of the lung along the beam that pleural fluid has replaced: a meniscus, high at the chest wall."""
    share = np.zeros_like(z)
    for which, height in d.effusions.items():
        angle = (a.dome if which < 0 else a.left_dome) - a.sulcus
        wall = np.maximum(at["lung_out"] - ax, 0)
        surface = angle + height + (10 + 0.28 * height) * (np.exp(-wall / 13) - 0.25)
        depth = np.clip((surface - z) / (9 + 0.16 * height), 0, 1)
        share = np.where(side == which, depth * depth * (3 - 2 * depth), share)
    return share


def _collapse(
    a: Anatomy, d: Disease, at: Rows, ax: Float32, side: Float32, z: Float32, half: Float32
) -> tuple[Float32, Mask]:
    """Share of the lung along the beam that pleural air has replaced, and where no lung is left at all."""
    if d.pneumothorax is None:
        return np.zeros_like(z), np.zeros(z.shape, bool)
    edge = look_up(collapsed_lung(a, *d.collapse), z)
    middle, width = _span(edge["in"], edge["out"])
    left = stack_chord(ax, middle, width, at["lung_b"])
    here = side == d.pneumothorax
    share = np.where(here, 1 - np.clip(left / np.maximum(half, 1e-3), 0, 1), 0).astype(np.float32)
    return share, here & (left <= 0) & (ax > middle)
