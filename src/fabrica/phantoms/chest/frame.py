"""The picture plane of the chest phantom: where the patient stands before the detector."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fabrica.image import Float32, Float64
from fabrica.phantoms.chest.anatomy import Anatomy
from fabrica.phantoms.chest.curves import Parts


@dataclass(frozen=True)
class Frame:
    """Where the detector stands. Pixel centres in mm, x to the patient's left and z up, over the body frame."""

    size: int
    pixel: float  # mm
    angle: float  # of the patient in the picture, radians
    shift: tuple[float, float]  # mm
    anatomy: Anatomy

    def affine(self) -> Float64:
        """(column, row, 0, 1) -> RAS+ mm; the origin is the image centre."""
        half = (self.size - 1) / 2 * self.pixel
        matrix = np.zeros((4, 4))
        matrix[0, 0] = matrix[2, 1] = -self.pixel
        matrix[1, 2] = -1.0
        matrix[:, 3] = (half, 0.0, half, 1.0)
        return matrix

    def body(self) -> tuple[Float32, Float32]:
        """x and z (H, W) of the pixel centres in the body frame, at depth 0."""
        at = (np.arange(self.size, dtype=np.float32) - (self.size - 1) / 2) * np.float32(self.pixel)
        px, pz = at[None, :] - self.shift[0], -at[:, None] - self.shift[1]
        c, s = math.cos(self.angle) / self.anatomy.scale, math.sin(self.angle) / self.anatomy.scale
        x, z = (px * c + pz * s).astype(np.float32), (pz * c - px * s).astype(np.float32)
        return (x - self._sway(z)).astype(np.float32), z

    def pixels(self, points: npt.NDArray[np.floating]) -> tuple[Float32, Float32]:
        """Column and row of body points (..., 3)."""
        x, y, z = np.ascontiguousarray(np.moveaxis(points, -1, 0), np.float32)
        x, z = x + np.float32(self.anatomy.turn) * y, z + np.float32(self.anatomy.nod) * y
        x += self._sway(z)
        scale = self.anatomy.scale / self.pixel
        c, s = np.float32(math.cos(self.angle) * scale), np.float32(math.sin(self.angle) * scale)
        column = x * c - z * s + np.float32(self.shift[0] / self.pixel + (self.size - 1) / 2)
        row = np.float32((self.size - 1) / 2 - self.shift[1] / self.pixel) - z * c - x * s
        return column, row

    def turned(self, x: float, y: float, z: float) -> tuple[float, float]:
        """Where in the body frame a point of depth y appears: the patient stands a little rotated and bent."""
        return x + self.anatomy.turn * y, z + self.anatomy.nod * y

    def project(self, parts: Parts) -> Float32:
        """Line integrals (H, W) of mass points: their masses on the pixels, bilinear, per mm^2 of body area."""
        points = np.concatenate([np.moveaxis(p, -1, 0).reshape(3, -1) for p, _ in parts], axis=1)
        mass = np.concatenate([w.ravel() for _, w in parts])
        column, row = self.pixels(points.T)
        n = self.size + 2  # a border takes what falls outside
        column, row = np.clip(column + 1, 0, n - 1.01), np.clip(row + 1, 0, n - 1.01)
        i, j = row.astype(np.int64), column.astype(np.int64)
        corner, fi, fj = i * n + j, row - i.astype(np.float32), column - j.astype(np.float32)
        lower, right = mass * fi, mass * fj
        both = lower * fj
        total = np.zeros(n * n)
        for step, weight in ((0, mass - lower - right + both), (1, right - both), (n, lower - both), (n + 1, both)):
            total += np.bincount(corner + step, weight, n * n)
        area = (self.pixel / self.anatomy.scale) ** 2
        return (total.reshape(n, n)[1:-1, 1:-1] / area).astype(np.float32)

    def _sway(self, z: Float32) -> Float32:
        amplitude, phase = self.anatomy.sway
        return np.asarray(
            np.float32(amplitude) * np.sin(z * np.float32(2 * math.pi / 260) + np.float32(phase)), np.float32
        )


def draw_frame(rng: np.random.Generator, size: int, anatomy: Anatomy) -> Frame:
    field = rng.uniform(360, 395)
    return Frame(
        size=size,
        pixel=field / size,
        angle=rng.normal(0, 0.022),
        shift=(rng.normal(0, 5), rng.normal(2, 6)),
        anatomy=anatomy,
    )
