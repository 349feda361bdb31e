"""The findings of the chest phantom: what is drawn of each, and where a nodule may lie."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fabrica.phantoms.chest.anatomy import Anatomy
from fabrica.phantoms.chest.profiles import TABLE, profiles

FINDINGS = ("cardiomegaly", "left_effusion", "right_effusion", "nodule", "pneumothorax", "pacemaker")

Side = int  # -1 the patient's right (image left), +1 the patient's left
SIDE_NAMES = {-1: "right", 1: "left"}


@dataclass(frozen=True)
class Nodule:
    """A sphere; centre and radius in mm of the body frame."""

    x: float
    y: float
    z: float
    radius: float
    zone: str  # "upper", "mid" or "lower" third of the lung

    @property
    def side(self) -> Side:
        return 1 if self.x > 0 else -1


@dataclass(frozen=True)
class Disease:
    """What is drawn of the findings; None or empty where there is none."""

    heart_ratio: float
    effusions: dict[Side, float]  # height of the fluid above the costophrenic angle, mm
    nodule: Nodule | None
    pneumothorax: Side | None
    collapse: tuple[float, float]  # apical descent as a share of the lung, lateral gap in mm
    pacemaker: Side | None
    leads: int

    @property
    def cardiomegaly(self) -> bool:
        return self.heart_ratio > 0.55


def draw_findings(rng: np.random.Generator) -> frozenset[str]:
    """Some of FINDINGS, in about 35 % of the draws none."""
    if rng.random() < 0.35:
        return frozenset()
    number = rng.choice([1, 2, 3], p=[0.7, 0.24, 0.06])
    return frozenset(str(name) for name in rng.choice(FINDINGS, number, replace=False))


def draw_disease(seed: int, present: frozenset[str], anatomy: Anatomy) -> Disease:
    """The findings `present`. Each has a random stream of its own, so that none depends on the others' presence."""
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
    return Disease(
        heart_ratio=shown_ratio,
        effusions=effusions,
        nodule=_place_nodule(streams["nodule"], anatomy, shown_ratio, effusions) if "nodule" in present else None,
        pneumothorax=air_side if "pneumothorax" in present else None,
        collapse=collapse,
        pacemaker=can_side if "pacemaker" in present else None,
        leads=leads,
    )


def _place_nodule(
    rng: np.random.Generator, anatomy: Anatomy, heart_ratio: float, effusions: dict[Side, float]
) -> Nodule:
    """A nodule in the visible part of a lung, clear of the heart, the chest wall and any fluid."""
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
    rows = profiles(anatomy, heart_ratio)
    at = {name: float(np.interp(z, TABLE, row)) for name, row in rows.items()}
    inner = max(at["heart_left"], at["mid_left"]) if side > 0 else max(at["heart_right"], at["mid_right"])
    near, far = inner + radius + 8, at["lung_out"] - radius - 9
    x = side * (near + across * (far - near) if far > near else at["lung_out"] * 0.8)
    y = at["lung_y"] + (back - 0.5) * at["lung_b"]
    return Nodule(float(x), float(y), float(z), radius, zone)
