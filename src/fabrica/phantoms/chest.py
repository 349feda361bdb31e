"""A frontal chest radiograph computed from a random 3-D thorax by the Beer-Lambert law.

Nothing is painted: every structure is a body with an attenuation, and a pixel is the line integral along a
parallel beam from back to front, p = integral of mu dy, put through scatter, blur, photon noise and a display
curve. Large bodies (trunk, lungs, heart, diaphragm) are stacks of superellipses or ellipsoids whose chord
along the beam is known in closed form; where bodies hide one another the intervals of the chords are united,
so that a heart in front of a lung removes exactly the lung that it displaces. Thin bodies (ribs, vessels,
clavicles, leads) are tubes cut into mass points, which conserve mass at every pixel size.

Body frame, mm: x to the patient's left (image right), y anterior, z superior, origin at the image centre.
All random numbers are drawn before the first pixel, from one stream for the anatomy, one for each finding and
one for the exposure: the same seed is the same patient at every size, with and without a finding.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from difflib import get_close_matches

import numpy as np
import numpy.typing as npt

from fabrica.errors import UsageError
from fabrica.image import Float32, Float64, Image
from fabrica.phantoms.chest_text import report

FINDINGS = ("cardiomegaly", "left_effusion", "right_effusion", "nodule", "pneumothorax", "pacemaker")
ORGANS = ("background", "body", "right lung", "left lung", "heart", "spine", "trachea")
LESIONS = ("none", "left_effusion", "right_effusion", "nodule", "pneumothorax", "pacemaker", "cardiomegaly")
DOMINANCE = ("pneumothorax", "left_effusion", "right_effusion", "nodule", "cardiomegaly", "pacemaker")

# Attenuation per mm at about 70 keV (120 kVp, filtered), rounded from the NIST tables; bone is what it adds to
# the soft tissue that it replaces.
MU_TISSUE = 0.0195
MU_LUNG = 0.0048
MU_CORTEX = 0.036
MU_MARROW = 0.009
MU_METAL = 0.60

Mask = npt.NDArray[np.bool_]
Side = int  # -1 the patient's right (image left), +1 the patient's left
SIDE_NAMES = {-1: "right", 1: "left"}
TABLE = np.arange(-280.0, 281.0)  # mm; profiles over z or x are tabulated once and looked up for all pixels


@dataclass(frozen=True, eq=False)
class Chest:
    """A phantom radiograph with its truth.

    image    (1, H, W), integers 0..4095, bigger = denser (bone white, lungs dark), "arbitrary", pixel spacing
             in the affine, patient's right on the left of the picture.
    organs   (1, H, W) label map, indices into ORGANS. Lungs are the lung fields a reader would outline: beside
             the heart, above the diaphragm, with any fluid or pleural air in them.
    lesions  (1, H, W) label map, indices into LESIONS. Cardiomegaly is the whole heart, under the others.
    labels   each of FINDINGS (bool); heart_thorax_ratio (widths measured in `organs`); nodule_mm (x, y, z in the
             RAS+ mm of the affine), nodule_diameter_mm, nodule_side, nodule_zone; cardiomegaly_degree; effusion_sides,
             effusion_sizes; pneumothorax_side, pneumothorax_size; device, device_side; view, sex, age. What does
             not apply is None or empty.
    text     a report: "FINDINGS: ... IMPRESSION: ..."
    label    "normal", or the finding that comes first in DOMINANCE.
    """

    image: Image
    organs: Image
    lesions: Image
    labels: dict[str, object]
    text: str
    label: str


def chest(seed: int, size: int = 128, findings: Collection[str] | None = None) -> Chest:
    """The patient of this seed as a radiograph of `size` x `size` pixels.

    `findings` are names from FINDINGS; () is a normal chest; None draws them (about 35 % are normal). Raises
    UsageError for an unknown finding, a negative seed or a size below 16.
    """
    if seed < 0:
        raise UsageError(f"the seed is {seed}; expected 0 or more")
    if size < 16:
        raise UsageError(f"the size is {size}; a chest needs at least 16 pixels a side")
    present = _draw_findings(seed) if findings is None else _check_findings(findings)
    anatomy = _draw_anatomy(np.random.default_rng([seed, 0]))
    disease = _draw_disease(seed, present, anatomy)
    frame = _draw_frame(np.random.default_rng([seed, 1]), size, anatomy)
    integral, organs, lesions = _project(anatomy, disease, frame)
    pixels = _expose(integral, frame, anatomy, np.random.default_rng([seed, 2]))

    origin = {
        "format": "phantom",
        "modality": "DX",
        "range": (0, 4095),
        "step": 1.0,
        "patient": f"chest-{seed}",
    }
    labels = _labels(anatomy, disease, frame, organs)
    return Chest(
        image=Image(pixels[None], frame.affine(), "arbitrary", origin),
        organs=Image(organs[None], frame.affine(), "label", {**origin, "range": (0, len(ORGANS) - 1)}),
        lesions=Image(lesions[None], frame.affine(), "label", {**origin, "range": (0, len(LESIONS) - 1)}),
        labels=labels,
        text=report(labels, np.random.default_rng([seed, 3])),
        label=next((name for name in DOMINANCE if labels[name]), "normal"),
    )


def _check_findings(findings: Collection[str]) -> frozenset[str]:
    if isinstance(findings, str):
        raise UsageError(f"findings is the text {findings!r}; expected a list or tuple of names")
    for name in findings:
        if name not in FINDINGS:
            near = get_close_matches(name, FINDINGS, 1)
            hint = f"did you mean {near[0]!r}?" if near else f"expected some of {', '.join(FINDINGS)}"
            raise UsageError(f"unknown finding {name!r}; {hint}")
    return frozenset(findings)


def _draw_findings(seed: int) -> frozenset[str]:
    rng = np.random.default_rng([seed, 4])
    if rng.random() < 0.35:
        return frozenset()
    number = rng.choice([1, 2, 3], p=[0.7, 0.24, 0.06])
    return frozenset(str(name) for name in rng.choice(FINDINGS, number, replace=False))


# --- the patient, before any pixel --------------------------------------------------------------------------


@dataclass(frozen=True)
class _Anatomy:
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
    vessels: tuple[tuple[Float64, Float64], ...]  # tubes: paths (k, m, 3), radii (k, m)

    @property
    def length(self) -> float:
        """From the apex down to the right costophrenic angle."""
        return self.apex - self.dome + self.sulcus


@dataclass(frozen=True)
class _Disease:
    """What is drawn of the findings; None or empty where there is none."""

    heart_ratio: float
    effusions: dict[Side, float]  # height of the fluid above the costophrenic angle, mm
    nodule: tuple[float, float, float, float] | None  # x, y, z, radius, mm of the body frame
    zone: str
    pneumothorax: Side | None
    collapse: tuple[float, float]  # apical descent as a share of the lung, lateral gap in mm
    pacemaker: Side | None
    leads: int


def _draw_anatomy(rng: np.random.Generator) -> _Anatomy:
    female = bool(rng.random() < 0.48)
    age = int(rng.integers(19, 92))
    portable = bool(rng.random() < 0.22)
    apex = rng.uniform(132, 146)
    lung = rng.uniform(205, 240) - (14 if portable else 0)
    width = rng.uniform(133, 147)
    waves = np.column_stack([rng.uniform(0.004, 0.011, 5), rng.normal(0, 0.05, (5, 2)), rng.uniform(0, 2 * np.pi, 5)])
    return _Anatomy(
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
        vessels=_grow_vessels(rng, apex, width, lung),
    )


def _grow_vessels(
    rng: np.random.Generator, apex: float, width: float, lung: float
) -> tuple[tuple[Float64, Float64], ...]:
    """Arteries and veins of both lungs, from the hila outwards: each branch bends and forks in two, the radii
    by Murray's law (r^3 = r1^3 + r2^3). One entry a generation: paths (k, 5, 3) and radii (k, 5), mm."""
    trunks = 15
    side = np.repeat([-1.0, 1.0], trunks)
    fan = np.radians(np.tile(np.linspace(76, -82, trunks), 2) + rng.normal(0, 7, 2 * trunks))
    lift = np.where(side > 0, 9.0, 0.0)  # the left hilum stands higher
    start = np.column_stack(
        [
            side * (19 + 8 * np.cos(fan)),
            rng.normal(-5, 8, 2 * trunks),
            apex - 103 + lift + 20 * np.sin(fan) + rng.normal(0, 3, 2 * trunks),
        ]
    )
    way = np.column_stack([side * np.cos(fan), rng.normal(0, 0.4, 2 * trunks), np.sin(fan)])
    radius = rng.uniform(3.5, 5.4, 2 * trunks) * np.where(fan < 0, 1.15, 0.85)
    length = np.where(np.abs(np.sin(fan)) > 0.75, 46.0, 37.0) * lung / 205
    grown = [_pulmonary_arteries(apex - 103)]
    for generation in range(7):
        way /= np.linalg.norm(way, axis=1, keepdims=True)
        reach = length * rng.uniform(0.75, 1.3, len(length))
        bend = rng.normal(0, 0.13, way.shape) * reach[:, None]
        along = np.linspace(0, 1, 5)[None, :, None]
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


def _pulmonary_arteries(hilum: float) -> tuple[Float64, Float64]:
    """The right and left main branches up to the lobes, around the right hilum's height: (4, 17, 3), (4, 17)."""
    paths = [
        [[-12, 0, hilum + 6], [-33, -4, hilum - 14], [-45, -14, hilum - 58]],
        [[-16, 0, hilum - 2], [-32, 0, hilum + 10], [-44, 0, hilum + 36]],
        [[16, 0, hilum + 13], [38, -14, hilum + 2], [49, -26, hilum - 42]],
        [[18, 0, hilum + 14], [36, -4, hilum + 22], [46, 0, hilum + 44]],
    ]
    radii = [np.linspace(10, 5, 17), np.linspace(6.5, 3.4, 17), np.linspace(10, 4.6, 17), np.linspace(5.5, 3.4, 17)]
    return _resample(np.array(paths, float)), np.stack(radii)


def _draw_disease(seed: int, present: frozenset[str], anatomy: _Anatomy) -> _Disease:
    streams = {name: np.random.default_rng([seed, 10 + k]) for k, name in enumerate(FINDINGS)}
    ratio = float(streams["cardiomegaly"].uniform(0.58, 0.67))
    effusions: dict[Side, float] = {}
    for side, name in ((-1, "right_effusion"), (1, "left_effusion")):
        low, high = ((16, 26), (34, 62), (75, 110))[streams[name].choice(3, p=[0.35, 0.4, 0.25])]
        if name in present:
            effusions[side] = float(streams[name].uniform(low, high))
    rng = streams["pneumothorax"]
    air_side = -1 if rng.random() < 0.5 else 1
    if len(effusions) == 1:  # fluid below air would be level, without a meniscus
        air_side = -next(iter(effusions))
    collapse = (float(rng.uniform(0.05, 0.2)), float(rng.uniform(9, 30)))
    pace = streams["pacemaker"]
    can_side = 1 if pace.random() < 0.8 else -1
    leads = int(pace.integers(1, 3))
    shown_ratio = ratio if "cardiomegaly" in present else anatomy.heart_ratio
    nodule, zone = None, ""
    if "nodule" in present:
        nodule, zone = _place_nodule(streams["nodule"], anatomy, shown_ratio, effusions)
    return _Disease(
        heart_ratio=shown_ratio,
        effusions=effusions,
        nodule=nodule,
        zone=zone,
        pneumothorax=air_side if "pneumothorax" in present else None,
        collapse=collapse,
        pacemaker=can_side if "pacemaker" in present else None,
        leads=leads,
    )


def _place_nodule(
    rng: np.random.Generator, anatomy: _Anatomy, heart_ratio: float, effusions: dict[Side, float]
) -> tuple[tuple[float, float, float, float], str]:
    """A sphere in the visible part of a lung, clear of the heart, the chest wall and any fluid."""
    side = -1 if rng.random() < 0.55 else 1
    zone = str(rng.choice(["upper", "mid", "lower"], p=[0.42, 0.33, 0.25]))
    radius = float(rng.uniform(4, 12.5))
    down, across, back = rng.random(3)
    third = (anatomy.apex - anatomy.dome) / 3
    low, high = {"upper": (0.45, 1.0), "mid": (1.05, 1.95), "lower": (2.05, 2.6)}[zone]
    z = anatomy.apex - third * (low + down * (high - low))
    if side in effusions:
        z = max(z, anatomy.dome - anatomy.sulcus + effusions[side] + 40)
        zone = "upper" if z > anatomy.apex - third else "mid" if z > anatomy.apex - 2 * third else "lower"
    rows = _profiles(anatomy, heart_ratio)
    at = {name: float(np.interp(z, TABLE, row)) for name, row in rows.items()}
    inner = max(at["heart_left"], at["mid_left"]) if side > 0 else max(at["heart_right"], at["mid_right"])
    near, far = inner + radius + 8, at["lung_out"] - radius - 9
    x = side * (near + across * (far - near) if far > near else at["lung_out"] * 0.8)
    return (float(x), float(at["lung_y"] + (back - 0.5) * at["lung_b"]), float(z), radius), zone


# --- large bodies: profiles over height ---------------------------------------------------------------------


def _smooth(knots: Sequence[float], values: Sequence[float], at: Float64) -> Float64:
    """Cubic Hermite curve through the knots (finite-difference tangents), constant beyond the ends."""
    x, y = np.asarray(knots, float), np.asarray(values, float)
    slope = np.gradient(y, x)
    k = np.clip(np.searchsorted(x, at) - 1, 0, len(x) - 2)
    step = x[k + 1] - x[k]
    t = np.clip((at - x[k]) / step, 0, 1)
    left = (1 + 2 * t) * y[k] + t * step * slope[k]
    right = (3 - 2 * t) * y[k + 1] + (t - 1) * step * slope[k + 1]
    return np.asarray((1 - t) ** 2 * left + t**2 * right, np.float64)


def _profiles(a: _Anatomy, heart_ratio: float) -> dict[str, Float64]:
    """Centres, half-widths and half-depths (mm) of the stacked bodies at the heights of TABLE."""
    z, wide = TABLE, a.width / 140
    s = (a.apex - z) / a.length  # 0 at the apex, 1 at the costophrenic angle
    q = np.sqrt(np.clip(s, 0, None))  # opens the apex as round as a sphere
    rows = {
        "lung_out": wide * _smooth([0, 0.2, 0.35, 0.5, 0.65, 0.8, 0.92, 1.0, 1.1], _LUNG_OUT, q),
        "lung_in": wide * _smooth([0, 0.1, 0.2, 0.35, 0.5], [48, 34, 24, 16, 6], q),
        "lung_b": a.depth * _smooth([0, 0.2, 0.35, 0.5, 0.7, 0.9, 1, 1.12, 1.2], _LUNG_B, q),
        "lung_y": _smooth([0, 0.3, 0.6, 0.95, 1.05, 1.2], [-36, -24, -8, -4, -14, -48], q),
        # the mediastinum, as distances of its borders from the midline
        "mid_left": _smooth([-0.1, 0.02, 0.12, 0.19, 0.27, 0.35, 0.42, 0.55, 0.9], _mid_left(a), s),
        "mid_b": _smooth([0.25, 0.5, 1], [140, 84, 78], s),
        "mid_y": _smooth([0.25, 0.5, 1], [0, -28, -34], s),
        "mid_right": _smooth([-0.1, 0.02, 0.15, 0.3, 0.45, 0.6, 0.9], [40, 27, 22, 27, 30, 17, 18], s),
        "aorta_x": _smooth([0.27, 0.36, 0.6, 0.95], [18 + 0.5 * a.knob, 22, 18, 8], s),
    }
    rows |= _heart(a, heart_ratio, z) | _trunk(a, z, rows["lung_out"]) | _spine(a, z)
    return rows


_LUNG_OUT = [48, 79, 97, 113, 125, 135, 139.5, 140, 137]
_LUNG_B = [6, 30, 48, 64, 82, 88, 84, 46, 3]


def _mid_left(a: _Anatomy) -> list[float]:
    knob = 30 + 0.8 * a.knob
    return [40, 28, 23, 25, knob, knob - 2, 28, 16, 18]


def _heart(a: _Anatomy, ratio: float, z: Float64) -> dict[str, Float64]:
    """The heart's borders as distances from the midline. The widest rows give exactly the asked ratio."""
    top, bottom = a.apex - a.hilum + 14, a.dome - a.left_drop - 6
    h = (top - z) / (top - bottom)
    total = 2 * a.width * ratio
    left, right = total * a.heart_left, total * (1 - a.heart_left)
    round_ = 0.1 * a.heart_tilt
    knots = [0, 0.12, 0.3, 0.5, 0.68, 0.84, 0.98, 1.12, 1.25, 1.35]
    share = [0.30, 0.40, 0.52 + round_, 0.74 + round_, 0.92 + 0.5 * round_, 1.0, 0.98, 0.88, 0.62, 0.1]
    right_share = [0.58, 0.66, 0.8, 0.94, 1.0, 1.0, 0.93, 0.78, 0.6, 0.1]
    swollen = 0.8 + 0.45 * ratio
    return {
        "heart_left": left * _smooth(knots, share, h),
        "heart_right": right * _smooth(knots, right_share, h),
        "heart_b": swollen * _smooth(knots, [14, 28, 44, 54, 57, 55, 50, 40, 24, 2], h) * (h > -0.12),
        "heart_y": _smooth([0, 0.5, 1], [8, 22, 30], h),
    }


def _trunk(a: _Anatomy, z: Float64, lung_out: Float64) -> dict[str, Float64]:
    """Skin: neck, shoulders, chest wall; and the arms beside it."""
    below = a.apex - z
    wall = lung_out + 21 + a.fat + (6 if a.sex == "male" else 0)
    shoulder = _smooth(
        [-90, -52, -34, -18, -4, 8, 26, 60, 82, 100],
        [64, 64, 78, 114, 158, 190, 207, 205, 182, 155],
        below,
    )
    blend = 1 / (1 + np.exp(-(below - 82) / 9))
    return {
        "trunk_a": (1 - blend) * shoulder + blend * wall,
        "trunk_b": a.depth * _smooth([-60, -25, 5, 40, 90, 160, 260], [54, 54, 62, 80, 98, 106, 104], below)
        + 0.8 * a.fat,
        "arm_x": a.arm + _smooth([30, 90, 240], [-6, 6, 16], below),
        "arm_a": (36 + 0.7 * a.fat) * _smooth([0, 20, 60, 240], [0.3, 0.8, 1.0, 0.92], below),
    }


def _spine(a: _Anatomy, z: Float64) -> dict[str, Float64]:
    """Vertebral bodies with their discs: half-width, half-depth and bone gain."""
    heads = a.apex + 8 - _levels()
    level = np.interp(-z, -heads, np.arange(len(heads), dtype=float))
    phase = level % 1.0
    body = 1 / (1 + np.exp(-(0.40 - np.abs(phase - 0.5)) / 0.022))
    plates = np.exp(-(((np.abs(phase - 0.5) - 0.385) / 0.035) ** 2))
    growth = _smooth([0, 6, 12, 20], [15, 16.5, 19, 23], level)
    return {
        "spine_a": growth * (1 + 0.1 * (2 * np.abs(phase - 0.5)) ** 2),
        "spine_b": growth * 0.85,
        "spine_gain": 0.35 + 0.75 * body + 0.5 * plates,
    }


def _levels() -> Float64:
    """Distance of the upper plate of C3 ... L4 below that of T1, mm; T1 has index 5."""
    step = np.array([15.0] * 5 + [19 + 0.75 * k for k in range(12)] + [33.0] * 5)
    return np.concatenate([[0.0], np.cumsum(step)]) - float(step[:5].sum())


def _diaphragm(a: _Anatomy, x: Float64) -> Float64:
    """Height of the crest of the diaphragm over x, mm."""
    right, left = a.dome, a.dome - a.left_drop
    w, drop = a.width, a.sulcus
    knots = [-1.04 * w, -0.95 * w, -0.78 * w, -0.5 * w, -0.25 * w, 0, 0.28 * w, 0.5 * w, 0.76 * w, 0.95 * w]
    heights = [
        right - 1.25 * drop,
        right - 0.86 * drop,
        right - 0.36 * drop,
        right,
        right - 5,
        (right + left) / 2 - 9,
        left - 3,
        left,
        left - 0.34 * drop,
        left - 0.86 * drop,
    ]
    return _smooth([*knots, 1.04 * w], [*heights, left - 1.25 * drop], x)


# --- the picture plane --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Frame:
    """Where the detector stands. Pixel centres in mm, x to the patient's left and z up, over the body frame."""

    size: int
    pixel: float  # mm
    angle: float  # of the patient in the picture, radians
    shift: tuple[float, float]  # mm
    anatomy: _Anatomy

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
        x, y, z = np.moveaxis(points.astype(np.float32), -1, 0)
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

    def _sway(self, z: Float32) -> Float32:
        amplitude, phase = self.anatomy.sway
        return np.asarray(
            np.float32(amplitude) * np.sin(z * np.float32(2 * math.pi / 260) + np.float32(phase)), np.float32
        )


def _draw_frame(rng: np.random.Generator, size: int, anatomy: _Anatomy) -> _Frame:
    field = rng.uniform(360, 395)
    return _Frame(
        size=size,
        pixel=field / size,
        angle=rng.normal(0, 0.022),
        shift=(rng.normal(0, 5), rng.normal(2, 6)),
        anatomy=anatomy,
    )


Row = Float32 | np.float32


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


# --- thin bodies: mass points -------------------------------------------------------------------------------


Points = npt.NDArray[np.floating]
Parts = list[tuple[Float32, Float32]]  # (points (..., 3) in body mm, mass (...) = volume x attenuation)


def tube_points(paths: Points, radii: Points, step: float) -> tuple[Float32, Float32]:
    """Solid round tubes as points and the volume that each stands for (mm^3).

    paths (k, m, 3) and radii (k, m) in mm. Points lie no more than about `step` mm apart along the tube, and
    across it at the Gauss-Chebyshev nodes of the chord 2 sqrt(r^2 - u^2), so that the volume is exact.
    Returns points (k, n, u, 3) and volumes (k, n, u).
    """
    paths, radii = paths.astype(np.float32), radii.astype(np.float32)
    legs = np.linalg.norm(np.diff(paths, axis=1), axis=2)
    m, n = paths.shape[1], max(1, math.ceil(legs.max() * (paths.shape[1] - 1) / step))
    at = (np.arange(n) + 0.5) / n * (m - 1)
    k = np.minimum(at.astype(int), m - 2)
    f = (at - k).astype(np.float32)
    centre = paths[:, k] * (1 - f)[:, None] + paths[:, k + 1] * f[:, None]
    radius = radii[:, k] * (1 - f) + radii[:, k + 1] * f
    leg = legs[:, k]
    bend = np.gradient(paths, axis=1)[..., ::2]  # in the picture; turned gradually, or the bends would crack
    way = bend[:, k] * (1 - f)[:, None] + bend[:, k + 1] * f[:, None]
    way /= np.linalg.norm(way, axis=2, keepdims=True) + 1e-6
    across = max(1, math.ceil(math.pi * float(radii.max()) / step))
    angle = np.arange(1, across + 1) * np.pi / (across + 1)
    offset = radius[..., None] * np.cos(angle, dtype=np.float32)
    points = np.empty((*offset.shape, 3), np.float32)
    points[..., 0] = centre[..., None, 0] - offset * way[..., 1:]
    points[..., 1] = centre[..., None, 1]
    points[..., 2] = centre[..., None, 2] + offset * way[..., :1]
    share = np.float32(2 * np.pi / (across + 1)) * np.sin(angle, dtype=np.float32) ** 2
    volume = (radius**2 * leg * (m - 1) / n)[..., None] * share
    return points, volume


def _splat(parts: Parts, frame: _Frame) -> Float32:
    """Sum of masses (points (..., 3), weights (...)) on the pixels, bilinear, per mm^2 of body area."""
    points = np.concatenate([p.reshape(-1, 3) for p, _ in parts])
    mass = np.concatenate([w.ravel() for _, w in parts])
    column, row = frame.pixels(points)
    n = frame.size + 2  # a border takes what falls outside
    column, row = np.clip(column + 1, 0, n - 1.01), np.clip(row + 1, 0, n - 1.01)
    i, j = row.astype(np.int64), column.astype(np.int64)
    fi, fj = row - i, column - j
    at, lower = i * n + j, mass * fi
    upper = mass - lower
    total = np.zeros(n * n)
    for step, weight in ((0, upper * (1 - fj)), (1, upper * fj), (n, lower * (1 - fj)), (n + 1, lower * fj)):
        total += np.bincount(at + step, weight, n * n)
    area = (frame.pixel / frame.anatomy.scale) ** 2
    return (total.reshape(n, n)[1:-1, 1:-1] / area).astype(np.float32)


def _ribs(a: _Anatomy, lung_out: Float64, step: float) -> Parts:
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
    z = a.apex + 3 - _levels()[5:17, None] - fall[:, None] * (1 - np.cos(theta)) / 2
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
    points, mass = _bone_section(path, up, out, speed[..., 0], step, a.bone)
    mass *= np.clip((last[:, None] - theta) / 0.12, 0, 1)[..., None]
    return _both_sides([(points, mass)])


def _bone_section(
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


def _long_bone(path: Float64, radius: Float64, step: float, mineral: float, wall: float = 0.28) -> Parts:
    """A round bone: marrow through and through, and a wall of cortex as the difference of two tubes."""
    points, volume = tube_points(path, radius, step)
    inner, hollow = tube_points(path, radius * (1 - wall), step)
    return [
        (points, volume * MU_CORTEX * mineral),
        (inner, hollow * (MU_MARROW - MU_CORTEX) * mineral),
    ]


def _clavicle_path(a: _Anatomy, side: Side) -> Float64:
    """(m, 3): from the sternal end, S-shaped, to the acromion."""
    t = np.linspace(0, 1, 24)
    x = 16 + t * 0.99 * (a.width + 12)
    z = a.apex - 50 + a.clavicle * _smooth([0, 0.25, 0.5, 0.75, 1], [0, 0.38, 0.85, 1.05, 0.92], t)
    y = 70 + _smooth([0, 0.3, 0.7, 1], [0, 10, -28, -40], t)
    return np.stack([side * x, y, z], -1)


def _clavicle_radius() -> Float64:
    return _smooth([0, 0.05, 0.14, 0.45, 0.8, 0.95, 1], [4.0, 10.5, 7.6, 6.0, 6.8, 7.2, 3.0], np.linspace(0, 1, 24))


def _shoulder_bones(a: _Anatomy, step: float) -> Parts:
    """Clavicles, scapulae (borders, spine and a thin blade) and the upper ends of the humeri."""
    out, top = a.scapula, a.apex
    parts = _long_bone(_clavicle_path(a, 1)[None], _clavicle_radius()[None], step, 1.3 * a.bone, 0.34)
    socket, acromion = (158 + out, 45, top - 26), (176 + out, 30, top + 1)
    angle, upper = (108 + out, -80, top - 146), (98 + out, -70, top - 12)
    lines = [
        (socket, (127 + out, -20, top - 76), angle),
        (upper, (90 + out, -80, top - 76), angle),
        ((96 + out, -80, top - 38), (134 + out, -40, top - 24), acromion),
        (socket, (128 + out, 0, top - 22), upper),
    ]
    thick = np.array([[7.0, 4.2, 2.8], [1.4, 1.3, 1.8], [2.2, 3.4, 6.5], [6.0, 2.4, 1.2]])
    parts += _long_bone(
        _resample(np.array(lines, float)), _resample(thick[..., None])[..., 0], step, 0.8 * a.bone, 0.35
    )
    parts.append(_blade(np.array([upper, socket, angle]), step, a.bone))
    shift = a.arm - 196 + out
    head = np.array([[[177 + out, 30, top - 20], [183 + out, 28, top - 34]]])
    parts += _long_bone(head, np.array([[21.0, 21.0]]), step, 0.42 * a.bone, 0.1)
    shaft = [[182 + shift, 28, top - 26], [190 + shift, 25, top - 90], [206 + shift, 22, top - 420]]
    parts += _long_bone(_resample(np.array([shaft])), np.linspace(17, 11, 17)[None], step, a.bone, 0.3)
    return _both_sides(parts)


def _both_sides(parts: Parts) -> Parts:
    """The patient's left side and its mirror image."""
    return parts + [(points * np.array([-1, 1, 1], np.float32), mass) for points, mass in parts]


def _resample(paths: Float64, count: int = 17) -> Float64:
    """Paths (k, 3, c) as smooth curves of `count` points through the same three."""
    t = np.linspace(0, 1, count)[:, None]
    a, b, c = paths[:, None, 0], paths[:, None, 1], paths[:, None, 2]
    return a * (1 - t) * (1 - 2 * t) + b * 4 * t * (1 - t) + c * t * (2 * t - 1)


def _blade(corners: Float64, step: float, mineral: float) -> tuple[Float32, Float32]:
    """A triangular plate (3, 3) of bone 2 mm thick, as points on a lattice."""
    n = max(6, math.ceil(130 / step))
    u, v = np.meshgrid((np.arange(n) + 0.5) / n, (np.arange(n) + 0.5) / n)
    v = v * (1 - u)
    points = corners[0] + v[..., None] * (corners[1] - corners[0]) + u[..., None] * (corners[2] - corners[0])
    edge, other = corners[1] - corners[0], corners[2] - corners[0]
    area = np.linalg.norm(np.cross(edge, other)) * (1 - u) / n**2
    return points.astype(np.float32), (area * 2.0 * MU_CORTEX * mineral).astype(np.float32)


def _neural_arches(a: _Anatomy, step: float) -> Parts:
    """Pedicles (rings seen end-on), spinous and transverse processes of T1 ... L1."""
    levels = a.apex + 8 - _levels()[4:18]
    turn = np.linspace(0, 2 * np.pi, 13)
    reach = np.linspace(10, 13.5, len(levels))
    ring = np.stack([3.2 * np.cos(turn), np.zeros(13), 5.2 * np.sin(turn)], -1)
    centre = np.stack([reach, np.full(len(levels), -82.0), levels - 9], -1)
    points, volume = tube_points(ring + centre[:, None], np.full((len(levels), 13), 1.3), step)
    parts = [(points, volume * 1.2 * MU_CORTEX * a.bone)]
    root, tip = centre + np.array([2, -4, 1]), centre + np.array([17, -16, 5])
    points, volume = tube_points(np.stack([root, tip], 1), np.full((len(levels), 2), 4.0), step)
    parts.append((points, volume * 1.3 * MU_MARROW * a.bone))
    parts = _both_sides(parts)
    top = np.stack([np.zeros(len(levels)), np.full(len(levels), -95.0), levels - 10], -1)
    spinous = np.stack([top, top - np.array([0, 18, 20])], 1)
    points, volume = tube_points(spinous, np.tile([2.2, 3.4], (len(levels), 1)), step)
    parts.append((points, volume * 0.8 * MU_CORTEX * a.bone))
    return parts


def _lead_paths(a: _Anatomy, disease: _Disease) -> Float64:
    """(leads, m, 3): from the generator under the clavicle, down the superior vena cava, into the right heart."""
    side = disease.pacemaker or 1
    bottom = a.dome - a.left_drop + 8
    half = 2 * a.width * disease.heart_ratio
    entry = [[side * 84, 78, a.apex - 47], [side * 62, 70, a.apex - 27], [side * 36, 55, a.apex - 34]]
    cava = [[-19 if side > 0 else -24, 30, a.apex - 58], [-25, 20, a.apex - 98]]
    right = half * (1 - a.heart_left)
    ventricle = [[-0.66 * right, 20, bottom + 42], [0, 40, bottom + 10]]
    atrium = [[-0.62 * right, 18, bottom + 44], [-0.3 * right, 28, bottom + 38]]
    ends = [[*ventricle, [half * a.heart_left * 0.6, 55, bottom + 3]], [*atrium, [-0.25 * right, 36, bottom + 58]]]
    t = np.linspace(0, 1, 60)
    paths = []
    for end in ends[: disease.leads]:
        knots = np.array([*entry, *cava, *end], float)
        stops = np.linspace(0, 1, len(knots))
        paths.append(np.stack([_smooth(stops.tolist(), knots[:, c].tolist(), t) for c in range(3)], -1))
    return np.stack(paths)


# --- line integrals -----------------------------------------------------------------------------------------


def _project(a: _Anatomy, d: _Disease, frame: _Frame) -> tuple[Float32, Float32, Float32]:
    """The line integral of attenuation, the organ map and the lesion map, each (H, W)."""
    x, z = frame.body()
    rows = _profiles(a, d.heart_ratio)
    at = _look_up(rows, z)
    step = max(0.3, 0.8 * frame.pixel / a.scale)
    at["crest"] = np.interp(x, TABLE, _diaphragm(a, TABLE)).astype(np.float32)
    lungs = _lungs(a, d, at, x, z)

    vessels = _splat([tube_points(p, r, step) for p, r in a.vessels], frame)
    integral = MU_TISSUE * _tissue(a, at, x, z) - (MU_TISSUE - MU_LUNG) * lungs.free
    integral += (MU_TISSUE - MU_LUNG) * (vessels * lungs.gate + lungs.fluid) - MU_LUNG * lungs.air
    integral += _gas(a, at, x, z)
    integral += 2 * MU_MARROW * 0.8 * a.bone * at["spine_gain"] * _spine_half(a, at, x)
    parts = _ribs(a, rows["lung_out"], step)
    parts += _shoulder_bones(a, step) + _neural_arches(a, step) + _bronchi(a, step)
    integral += _splat(parts + _devices(a, d, step), frame)
    lesions = np.zeros(x.shape, np.float32)
    integral += _lesions(a, d, frame, lungs, lesions, x, z)
    integral *= np.float32(a.scale)
    return np.maximum(integral, 0), _organs(a, at, lungs, x, z), lesions


@dataclass(frozen=True)
class _Lungs:
    """Per pixel, (H, W)."""

    free: Float32  # mm of lung along the beam, with any fluid or pleural air
    fluid: Float32  # mm of pleural fluid
    air: Float32  # mm of pleural air
    gate: Float32  # 0..1: share of the vessels that lie in lung
    field: Mask  # the lung fields of a reader
    heart: Mask
    side: Float32  # -1 right, +1 left
    gap: Mask  # outside the collapsed lung


def _look_up(profiles: dict[str, Float64], z: Float32) -> dict[str, Float32]:
    """The profiles at every pixel's height."""
    table = np.array(list(profiles.values()), np.float32)
    place = np.clip(z - np.float32(TABLE[0]), 0, len(TABLE) - 1.001)
    k = place.astype(np.int32)
    f = place - k
    values = np.take(table, k, axis=1)
    values += f * (np.take(table, k + 1, axis=1) - values)
    return dict(zip(profiles, values, strict=True))


def _tissue(a: _Anatomy, at: dict[str, Float32], x: Float32, z: Float32) -> Float32:
    """mm of soft tissue along the beam, lungs still filled."""
    zero = np.float32(0)
    trunk = 2 * stack_chord(x, zero, at["trunk_a"], at["trunk_b"])
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


def _lungs(a: _Anatomy, d: _Disease, at: dict[str, Float32], x: Float32, z: Float32) -> _Lungs:
    ax, side = np.abs(x), np.where(x < 0, np.float32(-1), np.float32(1))
    half_of = np.float32(0.5)
    middle, width = half_of * (at["lung_out"] + at["lung_in"]), half_of * (at["lung_out"] - at["lung_in"])
    half = stack_chord(ax, middle, width, at["lung_b"])
    crest = at["crest"]
    heart_x = half_of * (at["heart_left"] - at["heart_right"]) + np.float32(a.turn * 25)
    heart_w = half_of * (at["heart_left"] + at["heart_right"])
    heart = (np.abs(x - heart_x) < heart_w) & (at["heart_b"] > 8) & (z > a.dome - a.left_drop - 16)
    mid_x, mid_w = half_of * (at["mid_left"] - at["mid_right"]), half_of * (at["mid_left"] + at["mid_right"])
    field = (half > 0) & (z > crest) & ~heart & (np.abs(x - mid_x) > mid_w)

    y = at["lung_y"]
    solid = (
        (at["mid_y"], stack_chord(x, mid_x, mid_w, at["mid_b"])),
        (at["heart_y"], stack_chord(x, heart_x, heart_w, at["heart_b"])),
        (np.float32(-58), stack_chord(x, at["aorta_x"], np.float32(13), np.float32(13))),
        (np.float32(12), np.sqrt(np.maximum(crest - z, 0) / np.float32(0.0028))),
    )
    free = np.zeros_like(x)
    inside = half > 0
    low, high = (y - half)[inside], (y + half)[inside]
    blocks = [((c - h)[inside], (c + h)[inside]) for c, h in solid]
    free[inside] = free_length(low, high, blocks)

    wet = _fluid_share(a, d, at, ax, side, z)
    gone, gap = _collapse(a, d, at, ax, side, z, half)
    return _Lungs(
        free=free,
        fluid=free * wet,
        air=free * gone,
        gate=np.asarray(np.clip(free / 45, 0, 1) * (1 - wet) * (1 - gone), np.float32),
        field=field,
        heart=heart,
        side=side,
        gap=gap & field,
    )


def _fluid_share(a: _Anatomy, d: _Disease, at: dict[str, Float32], ax: Float32, side: Float32, z: Float32) -> Float32:
    """Share of the lung along the beam that pleural fluid has replaced: a meniscus, high at the chest wall."""
    share = np.zeros_like(z)
    for which, height in d.effusions.items():
        angle = (a.dome if which < 0 else a.dome - a.left_drop) - a.sulcus
        wall = np.maximum(at["lung_out"] - ax, 0)
        surface = angle + height + (10 + 0.28 * height) * (np.exp(-wall / 13) - 0.25)
        depth = np.clip((surface - z) / (9 + 0.16 * height), 0, 1)
        share = np.where(side == which, depth * depth * (3 - 2 * depth), share)
    return share


def _collapse(
    a: _Anatomy, d: _Disease, at: dict[str, Float32], ax: Float32, side: Float32, z: Float32, half: Float32
) -> tuple[Float32, Mask]:
    """Share of the lung along the beam that pleural air has replaced, and where no lung is left at all."""
    if d.pneumothorax is None:
        return np.zeros_like(z), np.zeros(z.shape, bool)
    edge = _look_up(_collapsed(a, d), z)
    middle, width = np.float32(0.5) * (edge["out"] + edge["in"]), np.float32(0.5) * (edge["out"] - edge["in"])
    left = stack_chord(ax, middle, width, at["lung_b"])
    here = side == d.pneumothorax
    share = np.where(here, 1 - np.clip(left / np.maximum(half, 1e-3), 0, 1), 0).astype(np.float32)
    return share, here & (left <= 0) & (ax > middle)


def _collapsed(a: _Anatomy, d: _Disease) -> dict[str, Float64]:
    """Borders of the collapsed lung over TABLE: sunk from the apex, drawn off the wall, whole at the base."""
    sink, gap = d.collapse
    s = (a.apex - TABLE) / a.length
    q = np.sqrt(np.clip((s - sink) / (1 - sink), 0, None))
    wide = a.width / 140
    out = wide * _smooth([0, 0.2, 0.35, 0.5, 0.65, 0.8, 0.92, 1.0, 1.1], _LUNG_OUT, q)
    out = out - gap * np.clip(1.15 - q, 0, 1) ** 0.7 * np.clip(q / 0.15, 0, 1)
    return {"out": out, "in": wide * _smooth([0, 0.1, 0.2, 0.35, 0.5], [48, 34, 24, 16, 6], q)}


def _spine_half(a: _Anatomy, at: dict[str, Float32], x: Float32) -> Float32:
    return stack_chord(x, np.float32(a.turn * -62), at["spine_a"], at["spine_b"])


def _trachea(a: _Anatomy, x: Float32, z: Float32) -> Float32:
    """Chord of the air column (mm) down to the carina; it gives way to the right at the aortic arch."""
    bend = np.float32(-1 - 0.25 * a.knob) * np.exp(-(((z - np.float32(a.apex - 70)) / 28) ** 2))
    dx = x - bend
    open_ = np.clip((z - np.float32(a.apex - 84)) / 8, 0, 1)
    return np.asarray(2 * open_ * np.sqrt(np.maximum(np.float32(8.4**2) - dx * dx, 0)), np.float32)


def _gas(a: _Anatomy, at: dict[str, Float32], x: Float32, z: Float32) -> Float32:
    """What the air of the trachea and the stomach takes from the integral."""
    bx, below, wide, tall = a.bubble
    under = np.clip((at["crest"] - 5 - z) / 5, 0, 1)  # the stomach's wall
    bubble = under * ellipsoid_chord(x, z, (bx, a.dome - a.left_drop - below), (wide, 0.7 * wide, tall))
    return np.asarray(-MU_TISSUE * (_trachea(a, x, z) + bubble), np.float32)


def _bronchi(a: _Anatomy, step: float) -> Parts:
    """Air of the main bronchi: the right steep and short, the left flat and long."""
    carina = a.apex - 83
    paths = np.array(
        [
            [[-1, -15, carina], [-12, -18, carina - 12], [-16, -22, carina - 24]],
            [[-1, -15, carina], [14, -18, carina - 11], [24, -24, carina - 20]],
        ],
        float,
    )
    points, volume = tube_points(_resample(paths), np.linspace([6.6, 5.8], [4.5, 3.8], 17).T, step)
    return [(points, -0.8 * MU_TISSUE * volume)]


def _devices(a: _Anatomy, d: _Disease, step: float) -> Parts:
    """Leads and the pleural line: thin, and so projected as mass points."""
    parts: Parts = []
    if d.pacemaker is not None:
        paths = _lead_paths(a, d)
        points, volume = tube_points(paths, np.full(paths.shape[:2], 1.0), min(step, 1.2))
        parts.append((points, volume * MU_METAL))
        tips = np.stack([paths[:, -5], paths[:, -1]], 1)
        points, volume = tube_points(tips, np.full((len(paths), 2), 1.5), min(step, 1.2))
        parts.append((points, volume * MU_METAL))
    if d.pneumothorax is not None:
        edge = _collapsed(a, d)
        z = np.linspace(a.apex - 0.9 * a.length, a.apex - d.collapse[0] * a.length - 1, 80)
        out = np.interp(z, TABLE, edge["out"])
        path = np.stack([d.pneumothorax * out, np.full_like(z, -5), z], -1)
        points, volume = tube_points(path[None], np.full((1, 80), 0.8), min(step, 1.2))
        parts.append((points, volume * 12 * MU_TISSUE))  # the pleura seen on edge over some 20 mm
    return parts


def _lesions(a: _Anatomy, d: _Disease, frame: _Frame, lungs: _Lungs, mask: Float32, x: Float32, z: Float32) -> Float32:
    """Fills the lesion map, back to front, and returns what nodule and generator add to the integral."""
    if d.heart_ratio > 0.55:
        mask[lungs.heart] = LESIONS.index("cardiomegaly")
    for side in d.effusions:
        mask[(lungs.fluid > 12) & (lungs.side == side)] = LESIONS.index(f"{SIDE_NAMES[side]}_effusion")
    mask[lungs.gap] = LESIONS.index("pneumothorax")
    added = np.zeros_like(x)
    if d.nodule is not None:
        nx, ny, nz, radius = d.nodule
        cx, cz = frame.turned(nx, ny, nz)
        chord = ellipsoid_chord(x, z, (cx, cz), (radius, radius, radius))
        added += (1.25 * MU_TISSUE - MU_LUNG) * chord
        near = (x - cx) ** 2 + (z - cz) ** 2 <= max(radius, 0.6 * frame.pixel) ** 2
        mask[near] = LESIONS.index("nodule")
    if d.pacemaker is not None:
        dx = (x - np.float32(d.pacemaker * 97)) * d.pacemaker
        dz = z - np.float32(a.apex - 66)
        case = 1 - (np.abs(dx / 22) ** 3.2 + np.abs(dz / 20) ** 2.6)
        added += np.clip(case * 8, 0, 1) * np.where(dx + 0.6 * dz > -4, np.float32(2.2), np.float32(1.5))
        header = (np.abs(dx + 6) < 15) & (dz > 12) & (dz < 24)
        added += np.float32(0.5) * (header & (case <= 0))
        mask[(case > 0) | header] = LESIONS.index("pacemaker")
    return added


def _organs(a: _Anatomy, at: dict[str, Float32], lungs: _Lungs, x: Float32, z: Float32) -> Float32:
    organs = np.zeros(x.shape, np.float32)
    in_trunk, in_arm = np.abs(x) < at["trunk_a"], np.abs(np.abs(x) - at["arm_x"]) < at["arm_a"]
    organs[in_trunk | in_arm] = ORGANS.index("body")
    organs[_spine_half(a, at, x) > 0] = ORGANS.index("spine")
    organs[_trachea(a, x, z) > 4] = ORGANS.index("trachea")
    organs[lungs.field & (lungs.side < 0)] = ORGANS.index("right lung")
    organs[lungs.field & (lungs.side > 0)] = ORGANS.index("left lung")
    organs[lungs.heart] = ORGANS.index("heart")
    return organs


# --- the detector -------------------------------------------------------------------------------------------


def _blur_matrix(size: int, sigma: float) -> Float32:
    """(size, size) Gaussian weights of a row blur, sigma in pixels; rows sum to one, so that edges keep level."""
    at = np.arange(size, dtype=np.float32)
    weights = np.exp(-0.5 * ((at[:, None] - at[None, :]) / np.float32(max(sigma, 1e-3))) ** 2)
    return np.asarray(weights / weights.sum(1, keepdims=True), np.float32)


def detect(integral: Float32, pixel: float, photons: float, rng: np.random.Generator) -> Float32:
    """What a flat detector makes of line integrals (H, H): -log of the signal, with scatter, blur and noise.

    primary = exp(-integral); first-order scatter is born along the ray in proportion to integral x primary and
    arrives spread over 26 mm, 8 % of it past the grid; focal spot and pixel aperture blur; the quanta are Poisson
    with `photons` per mm^2 in the open beam (as a Gaussian of the same variance). `pixel` in mm.
    """
    n = len(integral)
    wide, focal = _blur_matrix(n, 26 / pixel), _blur_matrix(n, math.hypot(0.35 / pixel, 0.42))
    primary = np.exp(-integral)
    scatter = wide @ (integral * primary) @ wide.T
    signal = focal @ (primary + np.float32(0.08) * scatter) @ focal.T
    noise = rng.standard_normal((n, n), dtype=np.float32)
    signal += np.sqrt(signal / np.float32(photons * pixel * pixel)) * noise
    return np.asarray(-np.log(np.maximum(signal, np.float32(2e-3))), np.float32)


def _expose(integral: Float32, frame: _Frame, a: _Anatomy, rng: np.random.Generator) -> Float32:
    """Line integrals to display values 0..4095: the detector, range compression, edges, the film-like curve."""
    exposure, contrast = rng.normal(0, 0.10), rng.uniform(1.63, 2.1)
    photons = rng.uniform(20000, 60000)
    sharpen, equalise = rng.uniform(0.35, 0.8), rng.uniform(0.5, 0.64)
    density = detect(integral, frame.pixel, photons, rng)

    broad, near = _blur_matrix(frame.size, 45 / frame.pixel), _blur_matrix(frame.size, 6 / frame.pixel)
    ground = np.float32(2.75 * (0.5 + 0.5 * a.depth) + 0.012 * (a.fat - 7))
    level = broad @ np.maximum(density, np.float32(0.7)) @ broad.T
    density = density - ground - np.float32(equalise) * (level - ground)
    density += np.float32(sharpen) * (density - near @ density @ near.T)
    curve = 1 / (1 + np.exp(-np.float32(contrast) * (density + np.float32(exposure))))
    return np.asarray(np.rint(np.clip(curve * 4095, 0, 4095)), np.float32)


# --- the truth ----------------------------------------------------------------------------------------------


def heart_thorax_ratio(organs: Float32) -> float:
    """Widest row of the heart over the widest row between the outer borders of the two lungs, in an organ map
    (H, W). Raises ValueError where a lung or the heart is missing."""
    columns = np.arange(organs.shape[1])
    heart = np.where(organs == ORGANS.index("heart"), columns, -1)
    right, left = organs == ORGANS.index("right lung"), organs == ORGANS.index("left lung")
    both = right.any(1) & left.any(1)
    if not both.any() or heart.max() < 0:
        raise ValueError("the organ map lacks a lung or the heart")
    from_, to = np.argmax(right, 1), organs.shape[1] - 1 - np.argmax(left[:, ::-1], 1)
    thorax = np.max(np.where(both, to - from_ + 1, 0))
    hearts = heart.max(0)
    seen = np.flatnonzero(hearts >= 0)
    return float((seen[-1] - seen[0] + 1) / thorax)


def _labels(a: _Anatomy, d: _Disease, frame: _Frame, organs: Float32) -> dict[str, object]:
    sizes = {SIDE_NAMES[s]: "small" if h < 30 else "moderate" if h < 70 else "large" for s, h in d.effusions.items()}
    position = None
    if d.nodule is not None:
        column, row = frame.pixels(np.array(d.nodule[:3]))
        position = tuple(float(v) for v in (frame.affine() @ [column, row, 0.0, 1.0])[:3])
    return {
        "cardiomegaly": d.heart_ratio > 0.55,
        "cardiomegaly_degree": None if d.heart_ratio < 0.55 else "marked" if d.heart_ratio > 0.625 else "mild",
        "left_effusion": 1 in d.effusions,
        "right_effusion": -1 in d.effusions,
        "nodule": d.nodule is not None,
        "pneumothorax": d.pneumothorax is not None,
        "pacemaker": d.pacemaker is not None,
        "heart_thorax_ratio": heart_thorax_ratio(organs),
        "nodule_mm": position,
        "nodule_diameter_mm": None if d.nodule is None else 2 * d.nodule[3] * a.scale,
        "nodule_side": None if d.nodule is None else SIDE_NAMES[1 if d.nodule[0] > 0 else -1],
        "nodule_zone": None if d.nodule is None else d.zone,
        "effusion_sides": tuple(sizes),
        "effusion_sizes": sizes,
        "pneumothorax_side": None if d.pneumothorax is None else SIDE_NAMES[d.pneumothorax],
        "pneumothorax_size": None if d.pneumothorax is None else "large" if d.collapse[0] > 0.12 else "small",
        "device": None if d.pacemaker is None else f"{'dual' if d.leads == 2 else 'single'}-chamber pacemaker",
        "device_side": None if d.pacemaker is None else SIDE_NAMES[d.pacemaker],
        "view": a.view,
        "sex": a.sex,
        "age": a.age,
    }
