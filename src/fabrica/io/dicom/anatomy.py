"""What names of labels mean in SNOMED CT, as DICOM's dictionary has it (PS3.16, CID 7150 and CID 7151)."""

from __future__ import annotations

import re
from dataclasses import dataclass

Code = tuple[str, str, str]  # value, scheme, meaning

# A name without its side and its plural -> the concept's keyword in pydicom's dictionary of SNOMED CT.
_ORGANS = {
    "adrenal": "AdrenalGland", "adrenal gland": "AdrenalGland", "amygdala": "Amygdala", "aorta": "Aorta",
    "bladder": "Bladder", "brain": "Brain", "brain stem": "BrainStem", "brainstem": "BrainStem", "breast": "Breast",
    "caudate": "CaudateNucleus", "caudate nucleus": "CaudateNucleus", "cerebellum": "Cerebellum",
    "clavicle": "Clavicle", "clavicula": "Clavicle", "colon": "Colon", "duodenum": "Duodenum",
    "esophagus": "Esophagus", "oesophagus": "Esophagus", "eye": "Eye", "femur": "Femur",
    "gall bladder": "Gallbladder", "gallbladder": "Gallbladder", "heart": "Heart", "hippocampus": "Hippocampus",
    "humerus": "Humerus", "inferior vena cava": "InferiorVenaCava", "kidney": "Kidney", "liver": "Liver",
    "lung": "Lung", "lung lower lobe": "LowerLobeOfLung", "lung middle lobe": "MiddleLobeOfRightLung",
    "lung upper lobe": "UpperLobeOfLung", "mandible": "Mandible", "optic chiasm": "OpticChiasm",
    "optic nerve": "OpticNerve", "pancreas": "Pancreas", "parotid": "ParotidGland", "parotid gland": "ParotidGland",
    "portal vein": "PortalVein", "prostate": "Prostate", "pulmonary artery": "PulmonaryArtery", "putamen": "Putamen",
    "rectum": "Rectum", "rib": "Rib", "sacrum": "Sacrum", "scapula": "Scapula", "skull": "Skull",
    "small bowel": "SmallIntestine", "small intestine": "SmallIntestine", "spinal cord": "SpinalCord",
    "spleen": "Spleen", "sternum": "Sternum", "stomach": "Stomach", "submandibular gland": "SubmandibularGland",
    "thalamus": "Thalamus", "thyroid": "Thyroid", "thyroid gland": "Thyroid", "trachea": "Trachea",
    "ureter": "Ureter", "urinary bladder": "Bladder", "uterus": "Uterus", "vertebra": "Vertebra",
}  # fmt: skip
_TISSUES = {
    "blood vessel": "BloodVessel", "bone": "Bone", "cartilage": "Cartilage",
    "cerebrospinal fluid": "CerebrospinalFluid", "csf": "CerebrospinalFluid",
    "fat": "AdiposeTissue", "gray matter": "GrayMatter", "grey matter": "GrayMatter",
    "muscle": "Muscle", "skin": "Skin", "vessel": "BloodVessel", "white matter": "WhiteMatter",
}  # fmt: skip
_FINDINGS = {
    "cancer": "Neoplasm", "cyst": "Cyst", "edema": "Edema", "hemorrhage": "Hemorrhage", "lesion": "Lesion",
    "mass": "Mass", "necrosis": "Necrosis", "neoplasm": "Neoplasm", "nodule": "Nodule", "oedema": "Edema",
    "tumor": "Neoplasm", "tumour": "Neoplasm",
}  # fmt: skip
_SIDES = {"left": "Left", "l": "Left", "lt": "Left", "right": "Right", "r": "Right", "rt": "Right"}
_PLURALS = {"vertebrae": "vertebra", "ribs": "rib", "pelves": "pelvis"}


@dataclass(frozen=True)
class Meaning:
    """What a segment shows: category and type, the side it is on, and the organ that a finding is in."""

    category: Code
    kind: Code
    side: Code | None = None
    within: Code | None = None


def meaning(name: str) -> Meaning:
    """The codes of a name such as "liver", "kidney_left" or "Lung tumour"; of names that are not known, tissue."""
    words = [_PLURALS.get(word, word) for word in re.findall(r"[^\W_]+", _apart(name)) if word.isalpha()]
    sides = {_SIDES[word] for word in words if word in _SIDES}
    side = _code(sides.pop()) if len(sides) == 1 else None
    words = [word for word in words if word not in _SIDES]
    findings = [word for word in words if _singular(word) in _FINDINGS]
    rest = _singular(" ".join(word for word in words if word not in findings and word != "and"))
    if findings and (not rest or rest in _ORGANS):
        abnormal = _code("MorphologicallyAbnormalStructure")
        organ = _code(_ORGANS[rest]) if rest else None
        return Meaning(abnormal, _code(_FINDINGS[_singular(findings[0])]), side, organ)
    if not findings and rest in _ORGANS:
        return Meaning(_code("AnatomicalStructure"), _code(_ORGANS[rest]), side)
    if not findings and rest in _TISSUES:
        return Meaning(_code("Tissue"), _code(_TISSUES[rest]), side)
    return Meaning(_code("Tissue"), _code("Tissue"))


def _apart(name: str) -> str:
    """In lower case, "LeftKidney" as two words."""
    return re.sub(r"([a-z])([A-Z])", r"\1 \2", name).lower()


def _singular(name: str) -> str:
    known = {*_ORGANS, *_TISSUES, *_FINDINGS}
    return name if name in known or not name.endswith("s") else name[:-1]


def _code(keyword: str) -> Code:
    from pydicom.sr.codedict import codes

    found = getattr(codes.SCT, keyword)
    return str(found.value), str(found.scheme_designator), str(found.meaning)
