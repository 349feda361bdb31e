"""Which files are masks of which images, and which of several an image is given: folders of organs, readers, BIDS."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fabrica.data.bids import bids_masks
from fabrica.data.mask_choice import Choice, chosen, first_mask
from fabrica.data.mask_files import masks_of

ORGANS = ("liver", "kidney_left", "kidney_right", "vertebrae_L1", "vertebrae_L2", "rib_left_1", "aorta")


def case(home: str, *names: str) -> list[str]:
    return [f"{home}/{name}" for name in names]


@given(
    st.lists(st.sampled_from(ORGANS), min_size=2, unique=True),
    st.sampled_from(["segmentations", "masks", "structures", "labels", "Segmentations"]),
    st.sampled_from([("ct",), ("mri",), ("imaging",), ("CASE",), ("t1", "t2", "flair"), ("img",)]),
    st.sampled_from([".nii.gz", ".nrrd", ".mha", ".png"]),
)
def test_a_folder_of_organs_is_the_mask(organs: list[str], folder: str, images: tuple[str, ...], suffix: str) -> None:
    files = []
    for home in ("s0011", "s0058"):
        files += case(home, *(f"{image.replace('CASE', home)}{suffix}" for image in images))
        files += case(f"{home}/{folder}", *(f"{organ}{suffix}" for organ in organs))
    found = chosen(masks_of(files))
    if {name.rstrip("L12_") for name in organs} == {"vertebrae"}:
        return  # one word that is numbered: see below
    assert len(found) == 2 * len(images)
    for image, choice in found.items():
        assert choice == Choice(f"{image.split('/')[0]}/{folder}", tuple(sorted(organs)))


@pytest.mark.parametrize(
    ("names", "used"),
    [
        (["reader1", "reader2"], "reader1"),
        (["reader1", "reader2", "consensus"], "consensus"),
        (["tumour_annotation-1", "tumour_annotation-2", "kidney_annotation-1"], "kidney_annotation-1"),
        (["liver_observer_A", "spleen_observer_A"], "liver_observer_A"),
    ],
)
def test_masks_of_several_readers_are_no_classes(names: list[str], used: str) -> None:
    files = [*case("P1", "ct.nii.gz"), *case("P1/masks", *(f"{name}.nii.gz" for name in names))]
    assert chosen(masks_of(files)) == {"P1/ct.nii.gz": Choice(f"P1/masks/{used}.nii.gz", (), len(names))}


@pytest.mark.parametrize("names", [["1", "2"], ["00ab12cd34ef", "77ab12cd34ff"], ["slice_01", "slice_02"], ["a", "b"]])
def test_numbers_and_hashes_name_no_class(names: list[str]) -> None:
    files = [*case("P1", "ct.nii.gz"), *case("P1/masks", *(f"{name}.nii.gz" for name in names))]
    assert not any(choice.classes for choice in chosen(masks_of(files)).values())


def test_numbered_masks_of_one_thing_are_no_classes() -> None:
    files = [*case("P1", "ct.nii.gz"), *case("P1/masks", "nodule_1.nii.gz", "nodule_2.nii.gz")]
    assert chosen(masks_of(files)) == {"P1/ct.nii.gz": Choice("P1/masks/nodule_1.nii.gz", (), 2)}


def test_an_odd_name_among_classes_is_one_of_them() -> None:
    files = case("P1", "ct.nii.gz", *(f"masks/{name}.nii.gz" for name in ("liver", "C7", "aorta")))
    assert chosen(masks_of(files)) == {"P1/ct.nii.gz": Choice("P1/masks", ("C7", "aorta", "liver"))}


def test_a_label_map_goes_before_the_folder_of_classes() -> None:
    files = case("P1", "ct.nii.gz", "segmentation.nii.gz", "segmentations/liver.nii.gz", "segmentations/aorta.nii.gz")
    assert chosen(masks_of(files))["P1/ct.nii.gz"].path == "P1/segmentation.nii.gz"


def test_a_case_of_one_organ_is_like_the_others() -> None:
    files = [
        *case("A", "ct.nii.gz", "masks/liver.nii.gz", "masks/aorta.nii.gz"),
        *case("B", "ct.nii.gz", "masks/aorta.nii.gz"),
    ]
    assert chosen(masks_of(files)) == {
        "A/ct.nii.gz": Choice("A/masks", ("aorta", "liver")),
        "B/ct.nii.gz": Choice("B/masks", ("aorta",)),
    }
    alone = case("B", "ct.nii.gz", "masks/aorta.nii.gz")
    assert chosen(masks_of(alone)) == {"B/ct.nii.gz": Choice("B/masks/aorta.nii.gz")}


def test_images_in_a_folder_of_their_own_beside_organs() -> None:
    files = [
        path for p in ("P1", "P2") for path in case(p, "images/ct.nii.gz", "masks/liver.nii.gz", "masks/aorta.nii.gz")
    ]
    assert {choice.path for choice in chosen(masks_of(files)).values()} == {"P1/masks", "P2/masks"}


def test_a_folder_beside_images_of_several_patients_is_nobodys() -> None:
    files = ["a.png", "b.png", "c.png", "masks/liver.png", "masks/aorta.png"]
    assert masks_of(files) == {"masks/liver.png": [], "masks/aorta.png": []}


PUBLIC = {
    "Slicer": (["p1/ct.nrrd", "p1/Segmentation.seg.nrrd"], {"p1/ct.nrrd": "p1/Segmentation.seg.nrrd"}),
    "beside": (["x1.nrrd", "x1.seg.nrrd", "x2.nrrd"], {"x1.nrrd": "x1.seg.nrrd"}),
    "left and right": (
        ["x1.png", "x1_left_mask.png", "x1_right_mask.png", "x2.png"],
        {"x1.png": "."},
    ),
    "what is shown, not another image's": (["x1.png", "x1_2_mask.png", "x1_t2_mask.png"], {}),
    "HaN-Seg": (
        ["case_01/case_01_IMG_CT.nrrd", "case_01/case_01_OAR_Brainstem.seg.nrrd"],
        {"case_01/case_01_IMG_CT.nrrd": "case_01/case_01_OAR_Brainstem.seg.nrrd"},
    ),
    "KiTS21": (
        [f"case_{k}/{name}.nii.gz" for k in (1, 2) for name in ("imaging", "aggregated_AND_seg", "aggregated_MAJ_seg")],
        {f"case_{k}/imaging.nii.gz": f"case_{k}/aggregated_MAJ_seg.nii.gz" for k in (1, 2)},
    ),
    "KiTS23": (
        [f"c_{k}/{name}.nii.gz" for k in (1, 2) for name in ("imaging", "segmentation", "instances/seg_annotation-1")],
        {f"c_{k}/imaging.nii.gz": f"c_{k}/segmentation.nii.gz" for k in (1, 2)},
    ),
    "LIDC": (
        [f"P1/{name}/slice-1.png" for name in ("images", "mask-0", "mask-1")],
        {"P1/images/slice-1.png": "P1/mask-0/slice-1.png"},
    ),
    "mmsegmentation": (
        ["img_dir/train/x.png", "ann_dir/train/x.png"],
        {"img_dir/train/x.png": "ann_dir/train/x.png"},
    ),
    "BraTS 2023": (
        [f"BraTS-GLI-00000-000/BraTS-GLI-00000-000-{c}.nii.gz" for c in ("t1n", "t1c", "t2w", "t2f", "seg")],
        {
            f"BraTS-GLI-00000-000/BraTS-GLI-00000-000-{c}.nii.gz": "BraTS-GLI-00000-000/BraTS-GLI-00000-000-seg.nii.gz"
            for c in ("t1n", "t1c", "t2w", "t2f")
        },
    ),
    "BraTS 2023, flat": (
        ["BraTS-GLI-00000-000-t1n.nii.gz", "BraTS-GLI-00000-000-seg.nii.gz", "BraTS-GLI-00001-000-t1n.nii.gz"],
        {"BraTS-GLI-00000-000-t1n.nii.gz": "BraTS-GLI-00000-000-seg.nii.gz"},
    ),
    "AMOS": (["imagesVa/amos_0005.nii.gz", "labelsVa/amos_0005.nii.gz"],
             {"imagesVa/amos_0005.nii.gz": "labelsVa/amos_0005.nii.gz"}),
}  # fmt: skip


@pytest.mark.parametrize("name", PUBLIC)
def test_masks_of_more_public_sets(name: str) -> None:
    files, expected = PUBLIC[name]
    found = masks_of(files)
    assert {image: choice.path for image, choice in chosen(found).items()} == expected
    assert all(mask in found for mask in files if "seg" in mask.lower() or "OAR" in mask)


def test_dicom_has_masks_of_other_formats() -> None:
    files = ["P1/ct_mask.nii.gz", "P2/liver.nii.gz", "P2/mask.nii.gz", "P3/segmentations/a1.nii.gz", "x_mask.png",
             "P3/segmentations/liver.nii.gz", "P4/mask.nii.gz"]  # fmt: skip
    found = masks_of(files, ["P1/ct", "P2", "P3/dicom", "x.dcm", "P4/CT/1.dcm"])
    assert found == {
        "P1/ct_mask.nii.gz": ["P1/ct"],
        "P2/mask.nii.gz": ["P2/liver.nii.gz", "P2"],
        "P3/segmentations/liver.nii.gz": ["P3/dicom"],
        "P3/segmentations/a1.nii.gz": ["P3/dicom"],
        "x_mask.png": ["x.dcm"],
    }
    assert masks_of(["mask.nii.gz"], ["."]) == {"mask.nii.gz": ["."]}


# --- BIDS

A, B = "sub-01/ses-1/anat/sub-01_ses-1", "sub-01/ses-2/anat/sub-01_ses-2"


@pytest.mark.parametrize(
    ("files", "masks"),
    [
        ([f"{A}_T1w.nii.gz", f"{A}_label-lesion_mask.nii.gz"],
         {f"{A}_label-lesion_mask.nii.gz": [f"{A}_T1w.nii.gz"]}),
        ([f"{A}_T1w.nii.gz", f"{A}_FLAIR.nii.gz", f"{B}_T1w.nii.gz", "derivatives/x/" + A + "_space-orig_dseg.nii.gz"],
         {"derivatives/x/" + A + "_space-orig_dseg.nii.gz": [f"{A}_T1w.nii.gz", f"{A}_FLAIR.nii.gz"]}),
        ([f"{A}_space-MNI_T1w.nii.gz", f"{A}_space-T1w_mask.nii.gz"], {}),
        ([f"{A}_run-1_T1w.nii.gz", f"{A}_run-2_T1w.nii.gz", f"{A}_run-2_mask.nii.gz"],
         {f"{A}_run-2_mask.nii.gz": [f"{A}_run-2_T1w.nii.gz"]}),
        (["sub-01_T1w.nii.gz", "derivatives/manual/sub-01_ses-1_msk.nii.gz"], {}),
        (["sub-02_T1w.nii.gz", "sub-01_mask.nii.gz"], {}),
        (["x_T1w.nii.gz", "x_mask.nii.gz"], {}),
    ],
)  # fmt: skip
def test_masks_of_bids(files: list[str], masks: dict[str, list[str]]) -> None:
    assert bids_masks(files) == masks


@pytest.mark.parametrize(
    ("pattern", "folder", "names"),
    [
        ("ManualMask/{}Mask/x1.png", "ManualMask", ("left", "right")),
        ("{}_mask/x1.png", ".", ("left", "right")),
        ("masks/{}/x1.png", "masks", ("left", "right")),
        ("masks/{}_lung/x1.png", "masks", ("left lung", "right lung")),
        ("masks/x1_{}.png", "masks", ("left", "right")),
        ("images/x1_{}_lung_mask.png", "images", ("left lung", "right lung")),
    ],
)
def test_left_and_right_are_one_mask(pattern: str, folder: str, names: tuple[str, ...]) -> None:
    masks = [pattern.format(side) for side in ("right", "left")]
    found = chosen(masks_of(["images/x1.png", "images/x2.png", *masks, pattern.format("left").replace("x1", "x2")]))
    left, right = (pattern.format(side).removeprefix(f"{folder}/") for side in ("left", "right"))
    assert found["images/x1.png"] == Choice(folder, names, 1, f"{left}|{right}")
    alone = pattern.format("left").replace("x1", "x2")  # of which only the left was drawn
    assert found["images/x2.png"] == Choice(alone, names[:1])


def test_of_readers_the_agreement_is_used() -> None:
    assert first_mask(["a/x_mask.png", "b/x_staple_label.png"]) == "b/x_staple_label.png"
