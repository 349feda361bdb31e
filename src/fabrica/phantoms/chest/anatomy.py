"""The patient of the chest phantom: what is drawn of the anatomy, and what its parts are made of.

Body frame, mm: x to the patient's left (image right), y anterior, z superior, origin at the image centre.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fabrica.image import Float64
from fabrica.phantoms.chest.curves import parabola

# Attenuation per mm at about 70 keV (120 kVp, filtered), rounded from the NIST tables; bone is what it adds to
# the soft tissue that it replaces.
MU_TISSUE = 0.0195
MU_LUNG = 0.0048
MU_CORTEX = 0.036
MU_MARROW = 0.009
MU_METAL = 0.60

Tubes = tuple[Float64, Float64]  # paths (k, m, 3) and radii (k, m)


@dataclass(frozen=True)
class Anatomy:
    """What is drawn of a patient. Lengths in mm of the body frame, before `scale`."""

    sex: str
    age: int
    view: str  # "PA" or "AP"
    scale: float  # body size; multiplies every length
    width: float  # largest half-width inside the rib cage
    depth: float  # factor on all depths along the beam
    apex: float  # z of the top of the lungs
    dome: float  # z of the top of the right diaphragm
    left_drop: float  # how much lower the left dome stands
    sulcus: float  # how far the lateral costophrenic angles lie below their dome
    fat: float  # half-thickness added to the trunk
    breast: float  # thickness of the breast shadow, 0 in men
    heart_ratio: float  # heart-thorax ratio without disease
    heart_left: float  # share of the heart's width on the patient's left
    heart_tilt: float  # roundness of the left border: 0 drooping apex, 1 globular
    knob: float  # prominence of the aortic knob
    hilum: float  # height of the right hilum below the apex
    scapula: float  # how far the scapulae are turned out of the lungs
    arm: float  # x of the arm's axis
    clavicle: float  # height of the outer over the inner end
    bone: float  # mineral content
    bubble: tuple[float, float, float, float]  # stomach gas: x, below the dome, half-width, half-height
    sway: tuple[float, float]  # scoliosis: amplitude, phase
    turn: float  # rotation about z: shift in x per mm of depth
    nod: float  # kyphosis and beam angle: shift in z per mm of depth
    waves: Float64  # (k, 4): amplitude, wave numbers in x and z, phase of the fat's unevenness
    vessels: tuple[Tubes, ...]

    @property
    def left_dome(self) -> float:
        """z of the top of the left diaphragm."""
        return self.dome - self.left_drop

    @property
    def length(self) -> float:
        """From the apex down to the right costophrenic angle."""
        return self.apex - self.dome + self.sulcus


def draw_anatomy(rng: np.random.Generator) -> Anatomy:
    female = bool(rng.random() < 0.48)
    age = int(rng.integers(19, 92))
    portable = bool(rng.random() < 0.22)
    apex = rng.uniform(132, 146)
    lung = rng.uniform(205, 240) - (14 if portable else 0)
    width = rng.uniform(133, 147)
    waves = np.column_stack([rng.uniform(0.004, 0.011, 5), rng.normal(0, 0.05, (5, 2)), rng.uniform(0, 2 * np.pi, 5)])
    return Anatomy(
        sex="female" if female else "male",
        age=age,
        view="AP" if portable else "PA",
        scale=rng.uniform(0.93, 1.0) if female else rng.uniform(1.0, 1.07),
        width=width,
        depth=rng.uniform(0.9, 1.12),
        apex=apex,
        dome=apex - lung,
        left_drop=rng.uniform(5, 19),
        sulcus=rng.uniform(34, 48),
        fat=rng.gamma(2.0, 3.5),
        breast=rng.uniform(12, 38) if female else 0.0,
        heart_ratio=rng.uniform(0.395, 0.47),
        heart_left=rng.uniform(0.63, 0.70),
        heart_tilt=rng.uniform(0, 1),
        knob=rng.uniform(0, 6) + 0.1 * max(age - 40, 0),
        hilum=rng.uniform(98, 108),
        scapula=rng.uniform(-14, 2) if portable else rng.uniform(2, 22),
        arm=rng.uniform(192, 212),
        clavicle=rng.uniform(28, 46) if portable else rng.uniform(14, 34),
        bone=rng.uniform(0.9, 1.15) - 0.003 * max(age - 50, 0),
        bubble=(rng.uniform(48, 74), rng.uniform(6, 24), rng.uniform(4, 34), rng.uniform(12, 24)),
        sway=(rng.normal(0, 2.2), rng.uniform(0, 2 * np.pi)),
        turn=rng.normal(0, 0.028),
        nod=rng.normal(0.06 if portable else 0.0, 0.03),
        waves=waves,
        vessels=_grow_vessels(rng, apex - 103, lung),
    )


def _grow_vessels(rng: np.random.Generator, hilum: float, lung: float) -> tuple[Tubes, ...]:
    """Arteries and veins of both lungs, from the hila outwards: each branch bends and forks in two, the radii
    by Murray's law (r^3 = r1^3 + r2^3). One entry a generation, after that of the pulmonary arteries.

    hilum  z of the right hilum, mm
    lung   height of the right lung, mm
    """
    start, way, radius, length = _first_branches(rng, hilum, lung)
    grown = [_pulmonary_arteries(hilum)]
    along = np.linspace(0, 1, 5)[None, :, None]
    for generation in range(7):
        way /= np.linalg.norm(way, axis=1, keepdims=True)
        reach = length * rng.uniform(0.75, 1.3, len(length))
        bend = rng.normal(0, 0.13, way.shape) * reach[:, None]
        path = start[:, None] + along * (reach[:, None] * way)[:, None] + along**2 * bend[:, None]
        taper = radius[:, None] * np.linspace(1, 0.93, 5)
        grown.append((path, taper))
        share = rng.uniform(0.3, 0.7, len(radius))
        end_way = reach[:, None] * way + 2 * bend
        fork = rng.normal(0, 1, way.shape) * (0.42 + 0.04 * generation) * reach[:, None]
        start = np.repeat(path[:, -1], 2, axis=0)
        way = np.stack([end_way + fork * (1 - share)[:, None] * 1.4, end_way - fork * share[:, None] * 1.4], 1)
        way = way.reshape(-1, 3)
        radius = np.stack([taper[:, -1] * np.cbrt(share), taper[:, -1] * np.cbrt(1 - share)], 1).ravel()
        length = np.repeat(length * 0.78, 2)
    return tuple(grown)


def _first_branches(rng: np.random.Generator, hilum: float, lung: float) -> tuple[Float64, Float64, Float64, Float64]:
    """Starts (k, 3), directions (k, 3), radii (k) and lengths (k) of the branches that fan out of both hila."""
    number = 15
    side = np.repeat([-1.0, 1.0], number)
    fan = np.radians(np.tile(np.linspace(76, -82, number), 2) + rng.normal(0, 7, 2 * number))
    lift = np.where(side > 0, 9.0, 0.0)  # the left hilum stands higher
    start = np.column_stack(
        [
            side * (19 + 8 * np.cos(fan)),
            rng.normal(-5, 8, 2 * number),
            hilum + lift + 20 * np.sin(fan) + rng.normal(0, 3, 2 * number),
        ]
    )
    way = np.column_stack([side * np.cos(fan), rng.normal(0, 0.4, 2 * number), np.sin(fan)])
    radius = rng.uniform(3.5, 5.4, 2 * number) * np.where(fan < 0, 1.15, 0.85)
    length = np.where(np.abs(np.sin(fan)) > 0.75, 46.0, 37.0) * lung / 205
    return start, way, radius, length


def _pulmonary_arteries(hilum: float) -> Tubes:
    """The right and left main branches up to the lobes, around the right hilum's height: (4, 17, 3), (4, 17)."""
    paths = [
        [[-12, 0, hilum + 6], [-33, -4, hilum - 14], [-45, -14, hilum - 58]],
        [[-16, 0, hilum - 2], [-32, 0, hilum + 10], [-44, 0, hilum + 36]],
        [[16, 0, hilum + 13], [38, -14, hilum + 2], [49, -26, hilum - 42]],
        [[18, 0, hilum + 14], [36, -4, hilum + 22], [46, 0, hilum + 44]],
    ]
    radii = [np.linspace(10, 5, 17), np.linspace(6.5, 3.4, 17), np.linspace(10, 4.6, 17), np.linspace(5.5, 3.4, 17)]
    return parabola(np.array(paths, float)), np.stack(radii)
