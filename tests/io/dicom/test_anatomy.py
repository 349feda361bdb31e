"""What names of labels mean: organs, tissues and findings with their codes, sides and places."""

from __future__ import annotations

import pytest

from fabrica.io.dicom.anatomy import _FINDINGS, _ORGANS, _TISSUES, meaning

ORGAN, TISSUE, FINDING = "Anatomical Structure", "Tissue", "Morphologically Abnormal Structure"


@pytest.mark.parametrize(
    ("name", "category", "kind", "side", "within"),
    [
        ("liver", ORGAN, "Liver", "", ""),
        ("Liver", ORGAN, "Liver", "", ""),
        ("kidney_left", ORGAN, "Kidney", "Left", ""),
        ("LeftKidney", ORGAN, "Kidney", "Left", ""),
        ("Kidney (R)", ORGAN, "Kidney", "Right", ""),
        ("lungs", ORGAN, "Lung", "", ""),
        ("left lung", ORGAN, "Lung", "Left", ""),
        ("lung_upper_lobe_left", ORGAN, "Upper lobe of lung", "Left", ""),
        ("vertebrae_L5", ORGAN, "Vertebra", "", ""),
        ("urinary_bladder", ORGAN, "Bladder", "", ""),
        ("Oesophagus", ORGAN, "Esophagus", "", ""),
        ("white matter", TISSUE, "White Matter", "", ""),
        ("CSF", TISSUE, "Cerebrospinal Fluid", "", ""),
        ("tumour", FINDING, "Neoplasm", "", ""),
        ("Lung nodules", FINDING, "Nodule", "", "Lung"),
        ("tumor of left kidney", TISSUE, "Tissue", "", ""),
        ("left kidney tumor", FINDING, "Neoplasm", "Left", "Kidney"),
        ("edema", FINDING, "Edema", "", ""),
        ("label 3", TISSUE, "Tissue", "", ""),
        ("left", TISSUE, "Tissue", "", ""),
        ("", TISSUE, "Tissue", "", ""),
        ("肝臓", TISSUE, "Tissue", "", ""),
        ("left and right lung", ORGAN, "Lung", "", ""),
    ],
)
def test_names(name: str, category: str, kind: str, side: str, within: str) -> None:
    found = meaning(name)
    assert (found.category[2], found.kind[2]) == (category, kind)
    assert (found.side[2] if found.side else "", found.within[2] if found.within else "") == (side, within)


def test_every_name_has_a_code_of_the_dictionary() -> None:
    for name in (*_ORGANS, *_TISSUES, *_FINDINGS):
        found = meaning(name)
        assert found.kind[0].isdigit() and found.kind[1] == "SCT" and found.kind[2] != "Tissue", name
