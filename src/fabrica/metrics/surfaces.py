"""Surfaces of masks, element by element with their areas, and how far apart two of them lie.

The surface of a mask consists of one element for each 2 x 2 (x 2) neighbourhood of voxels that lies partly inside; what
is beyond the border of the image is outside. An element stands at the corner of voxels in the middle of its
neighbourhood, and its area is that of the surface that marching cubes (Lorensen and Cline 1987), or squares, draws
there (Nikolov et al. 2018, arXiv 1809.04430, whose figures these equal).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import product

import numpy as np
import numpy.typing as npt
from scipy.spatial import KDTree

from fabrica.image import Float64

Mask = npt.NDArray[np.bool_]
Int = npt.NDArray[np.int64]
Uint8 = npt.NDArray[np.uint8]
Point = tuple[int, ...]  # in half voxels from a corner of the neighbourhood: 0, 1 (the middle of an edge) or 2
Segment = tuple[Point, Point]
Triangle = tuple[Point, Point, Point]

RING = ((0, 0), (0, 1), (1, 1), (1, 0))  # the corners of a square, one after the other


@dataclass(frozen=True, eq=False)
class Directed:
    """All elements of one surface: distance to the nearest element of the other one, in mm, and area, in mm^2 (length
    in mm in 2-D); float64 (N,) each."""

    distances: Float64
    areas: Float64

    def within(self, tolerance: float) -> float:
        """The area that is no further away than this, in mm."""
        return float(np.sum(self.areas[self.distances <= tolerance]))

    def quantile(self, share: float) -> float:
        """The distance, in mm, within which this share of the area lies."""
        order = np.lexsort((self.areas, self.distances))
        below = np.cumsum(self.areas[order]) / np.sum(self.areas[order])
        return float(self.distances[order][min(int(np.searchsorted(below, share)), len(order) - 1)])


def between(made: Mask, truth: Mask, spacing: Sequence[float]) -> tuple[Directed, Directed]:
    """From the surface of `made` to that of `truth`, and back.

    made, truth   bool (H, W) or (D, H, W), neither empty. spacing: mm, in the order of the axes.
    """
    sides = [elements(made), elements(truth)]
    size = [n + 1 for n in made.shape]
    areas, found = element_areas(tuple(spacing)), []
    for (here, codes), (other, _) in (sides, sides[::-1]):
        apart = ~_among(here, other)
        distances = np.zeros(len(here))
        if apart.any():
            at, others = (np.stack(np.unravel_index(flat, size), 1) for flat in (here[apart], other))
            distances[apart] = _nearest(at, others, np.asarray(spacing, dtype=np.float64))
        found.append(Directed(distances, areas[codes]))
    return found[0], found[1]


def _among(here: Int, other: Int) -> Mask:
    """Which of these sorted numbers are among the others, sorted too."""
    at = np.minimum(np.searchsorted(other, here), len(other) - 1)
    found: Mask = other[at] == here
    return found


def _nearest(here: Int, other: Int, spacing: Float64) -> Float64:
    """Distance of each place (N, dims), in voxels, to the nearest of `other` (M, dims), in mm, (N,).

    A tree needs memory for the surface alone, where a distance transform needs it for the volume. It is not balanced:
    on a lattice, where many coordinates are equal, that is up to ten times as fast. The distance is that of whole
    voxels times spacing, as of a distance transform, so that what lies at a tolerance falls on the same side; but for
    several elements that are equally near and that rounding alone tells apart (3 x 0.7 mm and 2.1 mm).
    """
    tree = KDTree(other * spacing, balanced_tree=False, compact_nodes=False)
    apart = (here - other[tree.query(here * spacing)[1]]) * spacing
    distances: Float64 = np.sqrt((apart * apart).sum(1))
    return distances


def elements(mask: Mask, at_once: int = 2**22) -> tuple[Int, Uint8]:
    """Where the surface elements of a mask stand, as flat places in an array one longer along each axis, sorted; and
    their neighbourhoods. Element (i, j, k) lies between voxels i - 1 and i, and so on.

    at_once   so many voxels, about: the mask is gone through in slabs, which need less memory and are as fast.
    """
    layer = math.prod(n + 1 for n in mask.shape[1:])
    step = max(1, at_once // layer)
    places, found = [], []
    for start in range(0, len(mask) + 1, step):
        codes = neighbourhoods(mask[max(start - 1, 0) : start + step])[min(start, 1) :][:step].ravel()
        # of a code less 1, 0 wraps to the largest number: one comparison finds what is neither outside nor inside
        there = np.flatnonzero((codes - np.uint8(1)) < 2 ** (2**mask.ndim) - 2)
        places.append(there + start * layer)
        found.append(codes[there])
    return np.concatenate(places), np.concatenate(found)


def neighbourhoods(mask: Mask) -> Uint8:
    """Which corners of each neighbourhood lie inside, one bit a corner in the order of `corners`: one longer than the
    mask along each axis."""
    codes = np.zeros([n + 1 for n in mask.shape], dtype=np.uint8)
    inside = mask.view(np.uint8)
    for bit, corner in enumerate(corners(mask.ndim)):
        # a voxel is the far corner of the neighbourhood before it, and the near one of that behind
        part = tuple(slice(1 - at, 1 - at + n) for at, n in zip(corner, mask.shape, strict=True))
        codes[part] |= inside << np.uint8(bit)
    return codes


def corners(dims: int) -> list[Point]:
    """Those of a neighbourhood, 0 or 1 along each axis, in the order of their bits."""
    return list(product((0, 1), repeat=dims))


@lru_cache(maxsize=64)
def element_areas(spacing: tuple[float, ...]) -> Float64:
    """Area of the surface element of each neighbourhood, (256,) in mm^2; of two numbers of spacing length, (16,) in mm.

    The area of a triangle is the length of its normal, whose components grow with the spacing of the two other axes.
    """
    if len(spacing) == 2:
        lengths = np.zeros(16)
        for code in range(16):
            for one, two in _segments(_inside(code, 2), RING):
                lengths[code] += _length([(a - b) / 2 * mm for a, b, mm in zip(one, two, spacing, strict=True)])
        return lengths
    areas = np.zeros(256)
    depth, height, width = spacing
    across = (height * width, depth * width, depth * height)
    for code, normals in enumerate(_normals()):
        areas[code] = sum(_length([n * mm2 for n, mm2 in zip(normal, across, strict=True)]) for normal in normals)
    return areas


def _length(vector: Sequence[float]) -> float:
    return math.sqrt(sum(x * x for x in vector))


@lru_cache(maxsize=1)
def _normals() -> list[list[tuple[float, float, float]]]:
    """The triangles of each of the 256 neighbourhoods as normals, as long as the area among voxels of 1 mm.

    Marching cubes leaves two things open. A face with inside corners across from each other can be cut two ways: here
    these stay apart, and of more than four inside corners the outside is taken instead, so that inside and outside
    have the same surface. And a closed line of five or six points that lies in no plane can be filled with several
    sets of triangles: here with those of the largest area among cubes. That gives the areas of Nikolov et al., code
    by code, at any spacing.
    """
    found = []
    for code in range(256):
        inside = _inside(code if code.bit_count() <= 4 else 255 - code, 3)
        segments = [segment for face in _faces() for segment in _segments(inside, face)]
        filled = [max(_triangulations(line), key=_area) for line in _closed(segments)]
        found.append([_normal(triangle) for triangles in filled for triangle in triangles])
    return found


def _inside(code: int, dims: int) -> set[Point]:
    return {corner for bit, corner in enumerate(corners(dims)) if code >> bit & 1}


def _faces() -> Iterator[list[Point]]:
    """The four corners of each of the six faces of a cube, one after the other."""
    for axis, side in product(range(3), (0, 1)):
        yield [(*corner[:axis], side, *corner[axis:]) for corner in RING]


def _segments(inside: set[Point], ring: Sequence[Point]) -> list[Segment]:
    """The lines that part inside from outside in a square, from the middle of one edge to that of another: one for
    each run of inside corners."""
    found = []
    for k in range(4):
        if ring[k] in inside and ring[k - 1] not in inside:
            end = k
            while ring[(end + 1) % 4] in inside:
                end += 1
            found.append((_middle(ring[k - 1], ring[k]), _middle(ring[end % 4], ring[(end + 1) % 4])))
    return found


def _middle(one: Point, two: Point) -> Point:
    return tuple(a + b for a, b in zip(one, two, strict=True))


def _closed(segments: Sequence[Segment]) -> Iterator[list[Point]]:
    """Segments joined to closed lines: two meet at each point, one of either face at its edge."""
    left = list(segments)
    while left:
        line = list(left.pop())
        while line[-1] != line[0]:
            k = next(k for k, segment in enumerate(left) if line[-1] in segment)
            one, two = left.pop(k)
            line.append(two if one == line[-1] else one)
        yield line[:-1]


def _triangulations(line: Sequence[Point]) -> Iterator[list[Triangle]]:
    """All ways to fill a closed line with triangles between its points."""
    if len(line) < 3:
        yield []
    for k in range(1, len(line) - 1):
        for before, behind in product(_triangulations(line[: k + 1]), _triangulations(line[k:])):
            yield [*before, (line[0], line[k], line[-1]), *behind]


def _area(triangles: Sequence[Triangle]) -> float:
    return sum(_length(_normal(triangle)) for triangle in triangles)


def _normal(triangle: Triangle) -> tuple[float, float, float]:
    """As long as the area: of points in half voxels an eighth of the cross product of two sides."""
    (a, b, c), (d, e, f) = ([p - q for p, q in zip(point, triangle[0], strict=True)] for point in triangle[1:])
    return (b * f - c * e) / 8, (c * d - a * f) / 8, (a * e - b * d) / 8
