"""A frontal chest radiograph computed from a random 3-D thorax by the Beer-Lambert law.

Nothing is painted: every structure is a body with an attenuation, and a pixel is the line integral along a
parallel beam from back to front, p = integral of mu dy (`chest_projection`), put through scatter, blur, photon noise
and a display curve (`chest_detector`).

All random numbers of a patient (`chest_anatomy`, `chest_disease`) are drawn before the first pixel, from one stream
for the anatomy, one for each finding and one for the exposure: the same seed is the same patient at every size, with
and without a finding.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np

from fabrica.errors import UsageError, did_you_mean
from fabrica.image import Image
from fabrica.phantoms.chest.anatomy import draw_anatomy
from fabrica.phantoms.chest.detector import expose
from fabrica.phantoms.chest.disease import FINDINGS, draw_disease, draw_findings
from fabrica.phantoms.chest.frame import draw_frame
from fabrica.phantoms.chest.projection import project
from fabrica.phantoms.chest.text import report
from fabrica.phantoms.chest.truth import LESIONS, ORGANS, label_patient, lesion_map, organ_map

__all__ = ["DOMINANCE", "FINDINGS", "LESIONS", "ORGANS", "Chest", "chest"]

DOMINANCE = ("pneumothorax", "left_effusion", "right_effusion", "nodule", "cardiomegaly", "pacemaker")


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
    _check(seed, size, findings)
    present = draw_findings(np.random.default_rng([seed, 4])) if findings is None else frozenset(findings)
    anatomy = draw_anatomy(np.random.default_rng([seed, 0]))
    disease = draw_disease(seed, present, anatomy)
    frame = draw_frame(np.random.default_rng([seed, 1]), size, anatomy)
    scene = project(anatomy, disease, frame)
    pixels = expose(scene.integral, frame.pixel, anatomy, np.random.default_rng([seed, 2]))
    organs, lesions = organ_map(anatomy, scene), lesion_map(anatomy, disease, frame, scene)
    labels = label_patient(anatomy, disease, frame, organs)

    origin = {"format": "phantom", "modality": "DX", "range": (0, 4095), "step": 1.0, "patient": f"chest-{seed}"}
    return Chest(
        image=Image(pixels[None], frame.affine(), "arbitrary", origin),
        organs=Image(organs[None], frame.affine(), "label", {**origin, "range": (0, len(ORGANS) - 1)}),
        lesions=Image(lesions[None], frame.affine(), "label", {**origin, "range": (0, len(LESIONS) - 1)}),
        labels=labels,
        text=report(labels, np.random.default_rng([seed, 3])),
        label=next((name for name in DOMINANCE if labels[name]), "normal"),
    )


def _check(seed: int, size: int, findings: Collection[str] | None) -> None:
    if seed < 0:
        raise UsageError(f"the seed is {seed}; expected 0 or more")
    if size < 16:
        raise UsageError(f"the size is {size}; a chest needs at least 16 pixels a side")
    if isinstance(findings, str):
        raise UsageError(f"findings is the text {findings!r}; expected a list or tuple of names")
    for name in findings or ():
        if name not in FINDINGS:
            raise UsageError(f"unknown finding {name!r}{did_you_mean(name, FINDINGS)}")
