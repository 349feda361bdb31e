"""From a place in the scanner to the tissues there: pose, deformation and the order in which tissues lie.

The anatomy is a continuous function of space. A slice evaluates it on its own plane only, so the slice is
exactly a cut through the volume of the same seed.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fabrica.image import Float32, Float64
from fabrica.phantoms.head import brain as head_brain
from fabrica.phantoms.head import skull as head_skull
from fabrica.phantoms.head.shapes import Places, Waves, bump, places, rise, waves

TISSUES = (
    "air",
    "skin",
    "fat",
    "cortical bone",
    "marrow",
    "CSF",
    "grey matter",
    "white matter",
    "deep grey matter",
    "eye",
    "sinus air",
    "muscle",
    "dura",
    "tumour core",
    "tumour rim",
    "oedema",
)
INDEX = {name: i for i, name in enumerate(TISSUES)}
_PIVOT = np.array([0.0, -13.0, 8.0])  # MNI mm: the origin of the scanner, so that nose and occiput both fit


@dataclass(frozen=True)
class Tumour:
    """A glioma-like lesion at `centre` (MNI mm): core and rim within `radius`, oedema to `reach`, in mm."""

    centre: Float64
    radius: float
    rim: float
    reach: float
    shape: Waves
    fingers: Waves


@dataclass(frozen=True)
class Subject:
    """One person: brain, skull, and how both lie in the scanner.

    rotation  3 x 3, head axes -> scanner axes;  shift in mm;  scale per head axis (1 = MNI size)
    warp      three smooth fields, `bend` mm each (standard deviation): the non-linear part of the anatomy
    """

    brain: head_brain.Brain
    skull: head_skull.Skull
    rotation: Float64
    shift: Float64
    scale: Float64
    warp: tuple[Waves, Waves, Waves]
    bend: float


def draw_subject(rng: np.random.Generator) -> Subject:
    """A person at random: a rotation of some degrees, a size, a shape."""
    pitch, roll, yaw = np.deg2rad(rng.normal(0, (4.0, 2.5, 3.0)))
    size = rng.normal(0.95, 0.022)
    return Subject(
        brain=head_brain.draw_brain(rng),
        skull=head_skull.draw_skull(rng),
        rotation=_rotation(pitch, roll, yaw),
        shift=rng.normal(0, (2.5, 3.0, 2.0)),
        scale=size * rng.normal(1, 0.025, 3),
        warp=(waves(rng, 10, 70, 160), waves(rng, 10, 70, 160), waves(rng, 10, 70, 160)),
        bend=float(rng.uniform(1.0, 2.0)),
    )


def _rotation(pitch: float, roll: float, yaw: float) -> Float64:
    """Rotation about x (pitch), then y (roll), then z (yaw), radians."""
    (cx, sx), (cy, sy), (cz, sz) = ((np.cos(a), np.sin(a)) for a in (pitch, roll, yaw))
    about_x = np.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]])
    about_y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    about_z = np.array([[cz, -sz, 0], [sz, cz, 0], [0, 0, 1]])
    rotation: Float64 = about_z @ about_y @ about_x
    return rotation


def to_head(subject: Subject, points: Float32) -> Float32:
    """Scanner positions (n, 3) in RAS+ mm -> MNI-like positions of the undeformed head, mm."""
    linear = (subject.rotation / subject.scale).astype(np.float32)
    straight: Float32 = (points - subject.shift.astype(np.float32)) @ linear + _PIVOT.astype(np.float32)
    bent = np.stack([field.at(straight) for field in subject.warp], axis=1)
    return straight + np.float32(subject.bend) * bent


def from_head(subject: Subject, places: Float64) -> Float64:
    """MNI-like positions (n, 3) -> scanner mm: `to_head` inverted by fixed-point iteration."""
    straight = np.asarray(places, dtype=np.float64)
    for _ in range(20):  # the bend contracts (its gradient is well below 1), so this converges
        bent = np.stack([field.at(straight.astype(np.float32)) for field in subject.warp], axis=1)
        straight = places - subject.bend * bent
    scanner: Float64 = (straight - _PIVOT) * subject.scale @ subject.rotation.T + subject.shift
    return scanner


class Canvas:
    """Tissue fractions (tissues, n) filled from the foremost tissue to the last: what is taken stays so."""

    def __init__(self, n: int, voxel: float) -> None:
        self.fractions = np.zeros((len(TISSUES), n), dtype=np.float32)
        self.free = np.ones(n, dtype=np.float32)
        self._per_mm = np.float32(1 / voxel)

    def cover(self, distance: Float32) -> Float32:
        """The share of a voxel inside a surface at this signed distance in mm (partial volume)."""
        share: Float32 = np.clip(np.float32(0.5) - distance * self._per_mm, 0, 1)
        return share

    def paint(self, tissue: str, distance: Float32, share: float = 1.0) -> None:
        """Give `share` of what is still free inside the surface to a tissue."""
        taken = self.free * self.cover(distance) * np.float32(share)
        self.fractions[INDEX[tissue]] += taken
        self.free -= taken


def fractions(subject: Subject, points: Float32, voxel: float, tumour: Tumour | None = None) -> Float32:
    """The share of each tissue at scanner positions (n, 3) in mm -> (tissues, n), sums of 1.

    `voxel` is the edge in mm over which boundaries are averaged.
    """
    p = places(to_head(subject, points))
    cavity = head_skull.cavity(p)
    thickness = head_skull.bone_thickness(p, subject.skull)
    scalp = np.float32(subject.skull.scalp) + 9 * bump(p, (66, 18, -14), (22, 30, 30))
    scalp += 3 * rise(-p.y, 95, 20) * rise(-p.z, 0, 30)
    face = head_skull.face(p, cavity - thickness, scalp)
    near = face.surface < voxel
    out = np.zeros((len(TISSUES), len(points)), dtype=np.float32)
    out[INDEX["air"]] = 1
    if not near.any():
        return out
    p, cavity, thickness = p.at(near), cavity[near], thickness[near]
    canvas = Canvas(len(p.x), voxel)
    inside = cavity < voxel
    if inside.any():
        canvas.fractions[:, inside] = _brain(p.at(inside), cavity[inside], subject.brain, voxel)
        canvas.free -= canvas.fractions.sum(axis=0)
    _head(canvas, p, cavity, thickness, face.at(near), subject.skull)
    if tumour is not None:
        _lesion(canvas, p, tumour)
    out[:, near] = canvas.fractions
    return out


def _brain(p: Places, cavity: Float32, brain: head_brain.Brain, voxel: float) -> Float32:
    """Tissue fractions (tissues, n) within the cranial cavity (its signed distance), 0 outside."""
    canvas = Canvas(len(p.x), voxel)
    uneven = brain.depth.at(p.spots)
    hull = head_brain.hulls(p, cavity, brain, uneven)
    canvas.paint("CSF", head_brain.ventricles(p, brain))
    canvas.paint("dura", np.maximum(np.minimum(hull.falx, hull.tentorium), cavity), 0.8)
    canvas.paint("white matter", np.maximum(head_brain.capsule_fibres(p), hull.cerebrum))
    deep, pale = head_brain.nuclei(p)
    canvas.paint("deep grey matter", np.maximum(deep, -hull.stem - 4))
    canvas.paint("deep grey matter", pale, 0.55)  # pallidum: much of it is myelinated
    canvas.paint("white matter", np.minimum(hull.callosum, pale))
    canvas.paint("grey matter", hull.stem, 0.3)  # nuclei scattered in the brain stem
    canvas.paint("white matter", hull.stem)
    folia, branches = head_brain.cerebellar_layers(p, hull.cerebellum, brain)
    canvas.paint("white matter", -branches)
    canvas.paint("grey matter", np.maximum(-folia, hull.cerebellum))
    depth = head_brain.pial_depth(p, hull, brain, uneven)
    canvas.paint("white matter", head_brain.white_matter(p, depth, uneven))
    canvas.paint("grey matter", -depth)
    canvas.paint("CSF", cavity)
    return canvas.fractions


def _head(
    canvas: Canvas, p: Places, cavity: Float32, thickness: Float32, face: head_skull.Face, skull: head_skull.Skull
) -> None:
    """Skull, orbits, face and scalp, outside of the cavity."""
    canvas.paint("muscle", np.maximum(face.lens, face.globe))
    canvas.paint("eye", face.globe + 1)
    canvas.paint("skin", face.globe)
    canvas.paint("white matter", face.nerve)
    canvas.paint("sinus air", head_skull.frontal_sinus(p, cavity, thickness, skull))
    cells = head_skull.air_cells(p, skull)
    canvas.paint("sinus air", np.maximum(face.mastoid, cells))
    canvas.paint("sinus air", np.maximum(face.ethmoid, cells - 3))
    canvas.paint("sinus air", np.minimum(face.sinuses, face.airway))
    canvas.paint("skin", face.ethmoid)  # the mucous membrane between the ethmoid cells
    table = np.minimum(np.float32(1.5), thickness * np.float32(0.26))
    canvas.paint("marrow", np.maximum(np.abs(cavity - thickness / 2) - thickness / 2 + table, -p.z - 22))
    shell = cavity - thickness
    rocks = head_skull.petrous(p)
    canvas.paint("marrow", np.maximum(rocks + 3, face.surface + 8), 0.5)
    canvas.paint("cortical bone", np.minimum(shell, np.maximum(rocks, face.surface + 8)))
    bones = np.maximum(face.bones, face.surface + 6)
    canvas.paint("marrow", bones + 3)
    canvas.paint("cortical bone", bones)
    canvas.paint("muscle", np.maximum(face.strings, face.orbit))
    canvas.paint("fat", np.maximum(face.orbit, face.surface + 2))
    canvas.paint("muscle", np.maximum(face.muscles, face.surface + 4))
    septa = skull.septa.at(p.spots)
    below = np.maximum(face.surface + 7, p.z + 28)
    canvas.paint("muscle", np.maximum(below, -4 * septa - 1), 0.85)
    canvas.paint("fat", face.surface + np.float32(1.9))
    canvas.paint("skin", face.surface)
    canvas.fractions[INDEX["air"]] += canvas.free


def _lesion(canvas: Canvas, p: Places, tumour: Tumour) -> None:
    """Replace brain by tumour, and white matter around it by oedema, in place."""
    points = p.spots[:, :3]
    away = np.linalg.norm(points - tumour.centre.astype(np.float32), axis=1)
    knobbly = np.float32(tumour.radius) * (1 + np.float32(0.26) * np.clip(tumour.shape.at(points), -1.6, 1.6))
    f = canvas.fractions
    swollen = canvas.cover(
        away - np.float32(tumour.reach) * (1 + np.float32(0.25) * np.clip(tumour.fingers.at(points), -1.6, 1.6))
    )
    white = f[INDEX["white matter"]] * swollen * np.float32(0.92)
    f[INDEX["oedema"]] += white
    f[INDEX["white matter"]] -= white
    whole = canvas.cover(away - knobbly)
    core = canvas.cover(away - knobbly + np.float32(tumour.rim))
    brain = np.zeros_like(away)
    for name in ("white matter", "grey matter", "deep grey matter", "oedema"):
        brain += f[INDEX[name]]
        f[INDEX[name]] *= 1 - whole
    f[INDEX["tumour core"]] += brain * core
    f[INDEX["tumour rim"]] += brain * (whole - core)
