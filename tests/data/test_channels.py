"""Four digits at the end of names: channels of cases, or the numbers of cases."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fabrica.data.channels import channels
from fabrica.data.dataset_json import Described

CASES = st.lists(st.integers(0, 9999), min_size=1, max_size=6, unique=True)


@given(
    st.sampled_from(["BRATS_{:03}", "case_{:04}", "la{}", "FLARE22_Tr_{:04}", "{:04}", "a_b-{}"]),
    CASES,
    st.integers(1, 5),
    st.sampled_from([".nii.gz", ".png", ".mha"]),
    st.sampled_from(["", "nnUNet_raw/Dataset001_X/", "Task01_X/"]),
)
def test_channels_beside_labels_of_the_case(pattern: str, cases: list[int], count: int, suffix: str, home: str) -> None:
    names = [pattern.format(case) for case in cases]
    images = [f"{home}imagesTr/{name}_{k:04}{suffix}" for name in names for k in range(count)]
    labels = [f"{home}labelsTr/{name}{suffix}" for name in names]
    assert channels(images, labels) == {path: k % count for k, path in enumerate(images)}


@given(st.sampled_from(["amos_{:04}", "FLARE22_Tr_{:04}", "case_x_{:04}"]), CASES, st.booleans())
def test_numbers_of_cases_beside_labels_of_the_same_name(pattern: str, cases: list[int], some: bool) -> None:
    images = [f"imagesTr/{pattern.format(case)}.nii.gz" for case in cases]
    images += [f"imagesTs/{pattern.format(case)}.nii.gz" for case in range(3)]
    labels = [path.replace("imagesTr", "labelsTr") for path in images[: 1 if some else len(cases)]]
    assert channels(images, labels) == {}


@pytest.mark.parametrize(
    ("images", "found"),
    [
        ([f"imagesTr/c{case}_{k:04}.png" for case in "abc" for k in range(2)], True),
        ([f"imagesTr/c{case}_0000.png" for case in "abc"], True),
        ([f"imagesTr/amos_{k:04}.png" for k in range(6)], False),
        ([f"imagesTr/amos_{k:04}.png" for k in range(6)] + ["imagesTr/other_0003.png"], False),
        ([f"imagesTr/film{f}_{k:04}.png" for f in range(3) for k in range(40)], False),
        ([f"images/film{f}_{k:04}.png" for f in range(3) for k in range(4)], False),
        (["imagesTr/a_0000.png", "imagesTr/b_0000.png", "imagesTr/c.png"], False),
        ([f"T1/c{case}_{k:04}.png" for case in "abc" for k in range(2)], False),
        ([], False),
    ],
)
def test_without_labels_the_names_must_agree(images: list[str], found: bool) -> None:
    assert bool(channels(images, [])) == found
    json = [Described("", nnunet=True)]
    named = any(path.startswith("images") for path in images)
    assert bool(channels(images, [], json)) == named  # version 2 of nnU-Net demands them


def test_each_data_set_for_itself() -> None:
    images = ["A/imagesTr/x_0000.png", "A/imagesTr/x_0001.png", "B/imagesTr/x_0000.png", "B/imagesTr/x_0001.png"]
    labels = ["A/labelsTr/x.png", "B/labelsTr/x_0000.png", "B/labelsTr/x_0001.png"]
    assert channels(images, labels) == {"A/imagesTr/x_0000.png": 0, "A/imagesTr/x_0001.png": 1}
