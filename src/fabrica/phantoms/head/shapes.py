"""Solids as signed distances in mm (negative inside), and smooth random fields, at scattered points."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fabrica.image import Float32

Point = tuple[float, float, float]


@dataclass(frozen=True)
class Places:
    """Points of the canonical head in mm: x to the right, y anterior, z superior, each of shape (n,).

    `side` is |x|: paired structures are written once, for the right, and hold for both.
    `spots` (n, 4) holds x, y, z and the sign of x, for random fields.
    """

    x: Float32
    y: Float32
    z: Float32
    side: Float32
    spots: Float32

    def at(self, chosen: npt.NDArray[np.bool_]) -> Places:
        """The points where `chosen` (n,) is true."""
        return Places(*(values[chosen] for values in (self.x, self.y, self.z, self.side, self.spots)))


def places(points: Float32) -> Places:
    """Points (n, 3) as Places."""
    x, y, z = np.ascontiguousarray(points.T)
    return Places(x, y, z, np.abs(x), np.stack([x, y, z, np.sign(x)], axis=1))


@dataclass(frozen=True)
class Waves:
    """A stationary Gaussian-like random field as a sum of plane waves (spectral representation).

    vectors  float32 (dimensions, count), rad/mm
    phases   float32 (count,)
    It is continuous and needs no lattice, so a slice and a volume see the same field.
    """

    vectors: Float32
    phases: Float32

    def _angles(self, points: Float32) -> Float32:
        angles: Float32 = points[:, : len(self.vectors)] @ self.vectors
        angles += self.phases
        return angles

    @property
    def _gain(self) -> np.float32:
        return np.float32(np.sqrt(2 / len(self.phases)))

    def at(self, points: Float32) -> Float32:
        """The field, mean 0 and variance 1, at points (n, dimensions or more) -> (n,)."""
        field: Float32 = np.cos(self._angles(points)).sum(axis=1) * self._gain
        return field

    def sheet_distance(self, points: Float32) -> Float32:
        """Distance to the nearest sheet where the field is 0, to first order: |f| / |grad f|, mm, (n,).

        The gradient is taken in the first three dimensions.
        """
        angles = self._angles(points)
        value = np.cos(angles).sum(axis=1)
        slope = np.sin(angles) @ self.vectors[:3].T
        distance: Float32 = np.abs(value) / np.sqrt((slope * slope).sum(axis=1) + np.float32(1e-6))
        return distance


def waves(rng: np.random.Generator, count: int, shortest: float, longest: float, difference: float = 0.0) -> Waves:
    """Random waves of `shortest` to `longest` mm in all directions of space.

    With `difference` > 0 a fourth coordinate, -1 (left) or +1 (right), shifts every phase by about that many
    radians: for fields read at mirrored places, where 0 is perfect symmetry and 2 and more none. It tears the
    field at the midline, so only structures that end there may use it.
    """
    direction = rng.standard_normal((3, count))
    direction /= np.linalg.norm(direction, axis=0)
    vectors = direction * (2 * np.pi / rng.uniform(shortest, longest, count))
    if difference > 0:
        vectors = np.vstack([vectors, difference * rng.standard_normal(count)])
    phases = rng.uniform(0, 2 * np.pi, count)
    return Waves(vectors.astype(np.float32), phases.astype(np.float32))


def ellipsoid(u: Float32, v: Float32, w: Float32, radii: Point) -> Float32:
    """About the distance to an ellipsoid around the origin: k0 (k0 - 1) / k1, exact on its surface."""
    a, b, c = (np.float32(1 / r) for r in radii)
    ua, vb, wc = u * a, v * b, w * c
    k0 = np.sqrt(ua * ua + vb * vb + wc * wc)
    ua *= a
    vb *= b
    wc *= c
    k1 = np.sqrt(ua * ua + vb * vb + wc * wc) + np.float32(1e-6)
    distance: Float32 = k0 * (k0 - 1) / k1
    return distance


def paired(p: Places, centre: Point, radii: Point, turn: float = 0.0) -> Float32:
    """Ellipsoids on both sides, turned by `turn` radians in the axial plane (positive: front end outward)."""
    u, v = p.side - np.float32(centre[0]), p.y - np.float32(centre[1])
    if turn:
        c, s = np.float32(np.cos(turn)), np.float32(np.sin(turn))
        u, v = c * u - s * v, s * u + c * v
    return ellipsoid(u, v, p.z - np.float32(centre[2]), radii)


def middle(p: Places, centre: Point, radii: Point) -> Float32:
    """An ellipsoid on the midline (or wherever `centre` says), not mirrored."""
    return ellipsoid(p.x - np.float32(centre[0]), p.y - np.float32(centre[1]), p.z - np.float32(centre[2]), radii)


def limb(p: Places, start: Point, end: Point, radii: tuple[float, float]) -> Float32:
    """A paired cone with round ends from `start` to `end`, its radius going from radii[0] to radii[1]."""
    axis = np.subtract(end, start)
    length2 = float(axis @ axis)
    bx, by, bz = (np.float32(v) for v in axis)
    u, v, w = p.side - np.float32(start[0]), p.y - np.float32(start[1]), p.z - np.float32(start[2])
    t = np.clip((u * bx + v * by + w * bz) * np.float32(1 / length2), 0, 1)
    u -= t * bx
    v -= t * by
    w -= t * bz
    radius = np.float32(radii[0]) + t * np.float32(radii[1] - radii[0])
    distance: Float32 = np.sqrt(u * u + v * v + w * w) - radius
    return distance


def smooth_min(a: Float32, b: Float32, blend: float) -> Float32:
    """The union of two solids with a fillet of about `blend` mm."""
    k = np.float32(blend)
    h = np.maximum(k - np.abs(a - b), 0) / k
    union: Float32 = np.minimum(a, b) - h * h * k * np.float32(0.25)
    return union


def smooth_max(a: Float32, b: Float32, blend: float) -> Float32:
    """The intersection of two solids with a rounded edge of about `blend` mm."""
    return -smooth_min(-a, -b, blend)


def rise(value: Float32, centre: float | Float32, width: float) -> Float32:
    """A smooth step from 0 to 1 over about `width` around `centre`."""
    t = np.clip((value - centre) * np.float32(1 / width) + np.float32(0.5), 0, 1)
    step: Float32 = t * t * (3 - 2 * t)
    return step


def bump(p: Places, centre: Point, radii: Point) -> Float32:
    """A paired bell, 1 at the centre."""
    u = (p.side - np.float32(centre[0])) * np.float32(1 / radii[0])
    v = (p.y - np.float32(centre[1])) * np.float32(1 / radii[1])
    w = (p.z - np.float32(centre[2])) * np.float32(1 / radii[2])
    bell: Float32 = np.exp(-(u * u + v * v + w * w))
    return bell
