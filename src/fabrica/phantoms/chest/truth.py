"""What is true of a chest phantom: label maps of its organs and lesions, and its labels."""

from __future__ import annotations

import numpy as np

from fabrica.image import Float32
from fabrica.phantoms.chest.anatomy import Anatomy
from fabrica.phantoms.chest.bodies import spine_half, trachea
from fabrica.phantoms.chest.devices import generator
from fabrica.phantoms.chest.disease import SIDE_NAMES, Disease, Nodule
from fabrica.phantoms.chest.frame import Frame
from fabrica.phantoms.chest.projection import Scene

ORGANS = ("background", "body", "right lung", "left lung", "heart", "spine", "trachea")
LESIONS = ("none", "left_effusion", "right_effusion", "nodule", "pneumothorax", "pacemaker", "cardiomegaly")


def organ_map(a: Anatomy, scene: Scene) -> Float32:
    """(H, W), indices into ORGANS."""
    x, at, lungs = scene.x, scene.at, scene.lungs
    organs = np.zeros(x.shape, np.float32)
    in_trunk, in_arm = np.abs(x) < at["trunk_a"], np.abs(np.abs(x) - at["arm_x"]) < at["arm_a"]
    organs[in_trunk | in_arm] = ORGANS.index("body")
    organs[spine_half(a, at, x) > 0] = ORGANS.index("spine")
    organs[trachea(a, x, scene.z) > 4] = ORGANS.index("trachea")
    organs[lungs.field & (lungs.side < 0)] = ORGANS.index("right lung")
    organs[lungs.field & (lungs.side > 0)] = ORGANS.index("left lung")
    organs[lungs.heart] = ORGANS.index("heart")
    return organs


def lesion_map(a: Anatomy, d: Disease, frame: Frame, scene: Scene) -> Float32:
    """(H, W), indices into LESIONS; drawn back to front."""
    x, z, lungs = scene.x, scene.z, scene.lungs
    lesions = np.zeros(x.shape, np.float32)
    if d.cardiomegaly:
        lesions[lungs.heart] = LESIONS.index("cardiomegaly")
    for side in d.effusions:
        lesions[(lungs.fluid > 12) & (lungs.side == side)] = LESIONS.index(f"{SIDE_NAMES[side]}_effusion")
    lesions[lungs.gap] = LESIONS.index("pneumothorax")
    if d.nodule is not None:
        cx, cz = frame.turned(d.nodule.x, d.nodule.y, d.nodule.z)
        radius = max(d.nodule.radius, 0.6 * frame.pixel)  # at least a pixel, at any size
        lesions[(x - cx) ** 2 + (z - cz) ** 2 <= radius**2] = LESIONS.index("nodule")
    if d.pacemaker is not None:
        lesions[generator(a, d.pacemaker, x, z)[1]] = LESIONS.index("pacemaker")
    return lesions


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


def label_patient(a: Anatomy, d: Disease, frame: Frame, organs: Float32) -> dict[str, object]:
    """The labels of a `Chest`; `organs` (H, W) is its organ map."""
    sizes = {SIDE_NAMES[s]: "small" if h < 30 else "moderate" if h < 70 else "large" for s, h in d.effusions.items()}
    return {
        "cardiomegaly": d.cardiomegaly,
        "cardiomegaly_degree": None if not d.cardiomegaly else "marked" if d.heart_ratio > 0.625 else "mild",
        "left_effusion": 1 in d.effusions,
        "right_effusion": -1 in d.effusions,
        "nodule": d.nodule is not None,
        "pneumothorax": d.pneumothorax is not None,
        "pacemaker": d.pacemaker is not None,
        "heart_thorax_ratio": heart_thorax_ratio(organs),
        "nodule_mm": None if d.nodule is None else _position(d.nodule, frame),
        "nodule_diameter_mm": None if d.nodule is None else 2 * d.nodule.radius * a.scale,
        "nodule_side": None if d.nodule is None else SIDE_NAMES[d.nodule.side],
        "nodule_zone": None if d.nodule is None else d.nodule.zone,
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


def _position(nodule: Nodule, frame: Frame) -> tuple[float, ...]:
    """Where the nodule's centre appears, RAS+ mm of the affine."""
    column, row = frame.pixels(np.array([nodule.x, nodule.y, nodule.z]))
    return tuple(float(v) for v in (frame.affine() @ [column, row, 0.0, 1.0])[:3])
