"""The brain of the head phantom: cortex with gyri and sulci, ventricles, nuclei, stem and cerebellum.

Positions are those of the MNI atlas in mm (anterior commissure near the origin). Every function gives signed
distances in mm, negative inside, one value a point.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from fabrica.image import Float32
from fabrica.phantoms.head.shapes import (
    Places,
    Point,
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

# Right lateral ventricle: centre line (x, y, z) and radius in mm, from frontal to occipital horn.
_VENTRICLE: tuple[tuple[Point, float], ...] = (
    ((15, 31, 3), 1.2),
    ((10, 23, 7), 3.7),
    ((6, 10, 13), 4.1),
    ((8.5, -8, 20), 4.2),
    ((14, -26, 20), 4.2),
    ((24, -42, 10), 6.0),
    ((27, -62, 5), 2.6),
    ((23, -76, 3), 1.0),
)
_TEMPORAL_HORN: tuple[tuple[Point, float], ...] = (
    ((26, -42, 7), 4.0),
    ((34, -30, -9), 2.2),
    ((32, -10, -18), 1.5),
)


@dataclass(frozen=True)
class Brain:
    """What differs from brain to brain. Lengths in mm.

    folds        narrow-band field; its zero sheets are the sulci
    depth        slow field that varies the depth of the sulci, the cortex and the width of fissures
    ventricles   factor on the radius of the ventricles
    atrophy      0 (young) to 1 (old): wide sulci, wide fissures
    """

    folds: Waves
    depth: Waves
    cerebellum: Waves
    ventricles: tuple[float, float]
    atrophy: float


def draw_brain(rng: np.random.Generator) -> Brain:
    """A brain at random."""
    atrophy = float(rng.beta(1.2, 2.4))
    widening = 0.8 + 0.75 * atrophy + rng.uniform(-0.1, 0.25)
    left_right = rng.normal(0, 0.07)
    return Brain(
        folds=waves(rng, 56, 16, 23, difference=1.3),
        depth=waves(rng, 24, 28, 60, difference=1.3),
        cerebellum=waves(rng, 16, 30, 60, difference=0.3),
        ventricles=(float(widening * (1 - left_right)), float(widening * (1 + left_right))),
        atrophy=atrophy,
    )


@dataclass(frozen=True)
class Hulls:
    """Smooth envelopes: the cerebrum without its sulci, the same cut by the lateral fissure, and the rest."""

    cerebrum: Float32
    operculum: Float32
    cerebellum: Float32
    stem: Float32
    callosum: Float32
    falx: Float32
    tentorium: Float32


def _tentorium_height(p: Places) -> Float32:
    """z of the tentorium: highest where the stem passes, falling to the sides and to the back, mm."""
    height: Float32 = np.float32(8) - np.float32(4.3) * np.sqrt(p.side + 4)
    height -= np.float32(0.28) * np.maximum(-45 - p.y, 0)
    return height


def hulls(p: Places, cavity: Float32, brain: Brain, unevenness: Float32) -> Hulls:
    """The envelopes inside a cranial cavity (its signed distance); `unevenness` is the depth field (n,)."""
    gap = np.float32(0.9 + 1.5 * brain.atrophy) + np.float32(0.5) * unevenness
    arch = ellipsoid(np.zeros_like(p.x), p.y + 5, p.z - 2, (1e3, 39, 26))
    lifted = arch + np.float32(0.010) * p.side * p.side  # the fibres rise as they leave the midline
    callosum = np.maximum(np.maximum(lifted - 1, -lifted - 6), p.side - 24)
    callosum = np.maximum(callosum, 2 - p.z - np.float32(0.25) * np.abs(p.y + 5))

    above = p.z - _tentorium_height(p)
    behind = p.y + 14 + np.float32(0.42) * p.side
    infratentorial = smooth_max(np.float32(0.85) * above, np.float32(0.9) * behind, 6)

    stem = smooth_min(middle(p, (0, -23, -15), (17, 14, 19)), middle(p, (0, -25, -33), (17, 14.5, 14)), 6)
    stem = smooth_min(stem, limb(p, (9, -28, -33), (22, -48, -36), (8, 7)), 6)
    stem = smooth_min(stem, limb(p, (0, -31, -44), (0, -44, -110), (9.5, 7)), 8)

    width = np.float32(0.7 + 1.1 * brain.atrophy) + np.float32(0.35) * unevenness
    width += np.float32(1.2) * rise(p.y, 40, 40)  # the fissure opens towards the front
    fissure = np.maximum(p.side - width, -arch)
    cistern = smooth_min(middle(p, (0, 0, -18), (9, 13, 9)), middle(p, (0, -42, -3), (10, 8, 8)), 5)
    cerebrum = smooth_max(cavity + gap, -np.minimum(fissure, cistern), 3)
    cerebrum = smooth_max(cerebrum, -(infratentorial - 1), 4)
    cerebrum = np.maximum(cerebrum, -(stem - 3))
    operculum = smooth_max(cerebrum, -_sylvian(p, brain, unevenness), 2)

    lobes = smooth_min(paired(p, (24, -59, -34), (33, 36, 29)), middle(p, (0, -60, -24), (17, 29, 28)), 9)
    lobes = smooth_max(smooth_max(lobes, cavity + gap + 1, 4), infratentorial + 1, 4)
    falx = np.maximum(np.maximum(p.side - np.float32(0.55), -arch - 4), cavity)
    falx = np.maximum(falx, -(np.float32(0.9) * above - 1))
    tent = np.maximum(np.abs(infratentorial) - np.float32(0.5), np.maximum(cavity, -(stem - 5)))
    return Hulls(cerebrum, operculum, lobes, stem, callosum, falx, np.maximum(tent, above - 4))


def _sylvian(p: Places, brain: Brain, unevenness: Float32) -> Float32:
    """The lateral fissure: a sheet along the insula and its opening outward, above the temporal lobe."""
    open_by = np.float32(0.5 + 1.3 * brain.atrophy) + np.float32(0.3) * unevenness
    across = p.y - 2 + np.float32(0.15) * p.z
    bow = p.side - 41 + np.float32(0.011) * across * across
    patch = ellipsoid(np.zeros_like(p.x), p.y - 1, p.z - 1, (1e3, 24, 15))
    insula = np.maximum(np.abs(bow) - open_by, patch)
    plane = (p.z - 0.45 * (np.float32(-4) - p.y) - 1) * np.float32(0.9) + 2 * unevenness
    opening = np.maximum(np.abs(plane) - open_by - np.float32(0.1), np.maximum(39 - p.side, np.abs(p.y - 1) - 27))
    fissure: Float32 = np.minimum(insula, opening)
    return fissure


def pial_depth(p: Places, hull: Hulls, brain: Brain, unevenness: Float32) -> Float32:
    """Depth below the pia in mm, (n,): positive in the brain, negative in the sulci and outside.

    The sulci stand perpendicular on the hull because the folding field is read at the point of the surface
    below which a voxel lies (mostly: the exponent bends them a little).
    """
    u, v, w = p.side - 26, p.y + 17, p.z - 14
    radius2 = u * u * np.float32(1 / 42**2) + v * v * np.float32(1 / 86**2) + w * w * np.float32(1 / 60**2)
    stretch = np.maximum(radius2, np.float32(0.08)) ** np.float32(-0.34)
    spot = np.stack([u * stretch, v * stretch, w * stretch, np.sign(p.x)], axis=1)
    depth = -hull.cerebrum
    sheet = brain.folds.sheet_distance(spot) / stretch
    floor = np.float32(16) + np.float32(4.5) * unevenness - np.float32(25) * _core(p)
    width = np.float32(-0.35 + 0.8 * brain.atrophy) + np.float32(0.3) * unevenness
    width += np.float32(0.5 + 0.6 * brain.atrophy) * np.exp(np.minimum(-depth, 0) * np.float32(0.25))
    pial: Float32 = np.minimum(-hull.operculum, np.maximum(sheet - width, depth - floor))
    return pial


def white_matter(p: Places, depth: Float32, unevenness: Float32) -> Float32:
    """Distance to the white matter: below 2.3 to 3.4 mm of cortex, and all of the deep core, which has none."""
    cortex = np.float32(2.6) + np.float32(0.25) * unevenness + np.float32(0.6) * rise(-p.z, 5, 20)
    return cortex - np.maximum(depth, 14 * _core(p) - 4)


def ventricles(p: Places, brain: Brain) -> Float32:
    """Lateral, third and fourth ventricle."""
    left, right = brain.ventricles
    swell = np.where(p.x > 0, np.float32(right), np.float32(left))
    lateral = np.full_like(p.x, np.inf)
    for line in (_VENTRICLE, _TEMPORAL_HORN):
        for (start, r0), (end, r1) in pairwise(line):
            mean = (r0 + r1) / 2
            tube = limb(p, start, end, (r0, r1))
            tube -= np.float32(mean) * (swell - 1)
            lateral = smooth_min(lateral, tube, 2)
    lateral = np.maximum(lateral, np.float32(0.7) - p.side)  # the septum pellucidum
    wide = (left + right) / 2
    third = middle(p, (0, -15, 0), (1.5 * wide + 0.4, 15, 11))
    fourth = smooth_max(middle(p, (0, -46, -32), (8, 6, 11)), p.y + 41, 2)
    aqueduct = limb(p, (0, -31, -8), (0, -40, -26), (1.2, 1.4))
    spaces: Float32 = np.minimum(np.minimum(lateral, third), np.minimum(fourth, aqueduct))
    return spaces


def nuclei(p: Places) -> tuple[Float32, Float32]:
    """(caudate, putamen and thalamus; pallidum and hippocampus)."""
    caudate = smooth_min(
        limb(p, (11, 22, 2), (13, 12, 10), (5.5, 5.0)), limb(p, (13, 12, 10), (16, -18, 23), (4.2, 1.8)), 2
    )
    putamen = paired(p, (27, 1, 1), (5.2, 17, 10.5), turn=-0.22)
    thalamus = paired(p, (11.5, -19, 7), (9, 14, 9.5), turn=-0.45)
    pallidum = paired(p, (20, -4, -1), (4.3, 9.5, 6), turn=-0.4)
    hippocampus = limb(p, (24, -8, -20), (28, -34, -6), (6.5, 3.5))
    return np.minimum(np.minimum(caudate, putamen), thalamus), np.minimum(pallidum, hippocampus)


def capsule_fibres(p: Places) -> Float32:
    """The internal capsule between caudate, thalamus and the lentiform nucleus: white matter between them."""
    return np.minimum(limb(p, (14, 16, 4), (18, -3, 6), (1.6, 1.6)), limb(p, (18, -3, 6), (25, -20, 8), (1.6, 2.2)))


def cerebellar_layers(p: Places, hull: Float32, brain: Brain) -> tuple[Float32, Float32]:
    """(depth below the folia, depth of the white branches), both positive inside, from the cerebellar hull.

    Folia are thin curved sheets around the fourth ventricle; white matter branches between groups of them.
    """
    points = p.spots
    wobble = brain.cerebellum.at(points)
    u, v, w = np.float32(0.55) * p.x, p.y + 40, p.z + 36
    distance = np.sqrt(u * u + v * v + np.float32(0.8) * w * w) + np.float32(1.3) * wobble
    folia = -hull - np.float32(0.4) * (np.float32(0.5) + np.cos(distance * np.float32(2 * np.pi / 3.6)))
    branches = -hull - 7 - np.float32(4.5) * np.cos(distance * np.float32(2 * np.pi / 9) + wobble)
    core = -paired(p, (17, -56, -36), (12, 11, 8))
    return folia, np.maximum(branches, core)


def _core(p: Places) -> Float32:
    """Where the cortex does not reach: 1 in the deep core between insula and ventricles, falling to 0."""
    return bump(p, (18, -5, 6), (17, 26, 14))
