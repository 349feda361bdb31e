"""dataset.json of MSD and nnU-Net: what its two versions say, and what a damaged one does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from fabrica.data.dataset_json import Described, nearest, read_described
from fabrica.data.label_names import column


def told(tmp_path: Path, said: Any, home: str = "", folds: Any = None) -> Described:
    files = []
    for name, value in (("dataset.json", said), ("splits_final.json", folds)):
        if value is not None:
            path = tmp_path / home / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(value if isinstance(value, str) else json.dumps(value))
            files.append(path.relative_to(tmp_path).as_posix())
    [found] = read_described(tmp_path, files)
    return found


MSD = {
    "name": "Hippocampus",
    "modality": {"0": "MRI"},
    "labels": {"0": "background", "1": "Anterior", "2": "Posterior"},
    "numTraining": 1,
    "training": [{"image": "./imagesTr/h_001.nii.gz", "label": "./labelsTr/h_001.nii.gz"}],
    "test": ["./imagesTs/h_002.nii.gz"],
}
NNUNET = {
    "channel_names": {"0": "T1", "1": "FLAIR"},
    "labels": {"background": 0, "whole tumour": [1, 2, 3], "core": [2, 3], "enhancing": 3},
    "regions_class_order": [1, 2, 3],
    "numTraining": 9,
    "file_ending": ".nii.gz",
}


def test_the_decathlon(tmp_path: Path) -> None:
    found = told(tmp_path, MSD, "Task04_Hippocampus")
    assert found.home == "Task04_Hippocampus" and found.channels == {0: "MRI"} and found.modality(0) == "MR"
    assert column(found.labels) == "1=Anterior|2=Posterior" and not found.nnunet
    home = "Task04_Hippocampus"
    assert found.masks == {f"{home}/imagesTr/h_001.nii.gz": f"{home}/labelsTr/h_001.nii.gz"}
    assert not found.splits and not found.notes  # what is held out has no masks


def test_version_2_of_nnunet_with_regions(tmp_path: Path) -> None:
    found = told(tmp_path, NNUNET)
    assert found.nnunet and found.channels == {0: "T1", 1: "FLAIR"}
    assert column(found.labels) == "1,2,3=whole tumour|2,3=core|3=enhancing"


def test_regions_keep_the_order_in_which_they_are_laid_over_one_another(tmp_path: Path) -> None:
    labels = {"background": 0, "kidney": [1, 2, 3], "masses": [2, 3], "tumour": 2, "ignore": 4}
    found = told(tmp_path, {"channel_names": {"0": "CT"}, "labels": labels, "regions_class_order": [1, 3, 2]})
    assert column(found.labels) == "1,2,3=kidney|3,2=masses|2=tumour|4=ignore" and not found.notes
    for order in ([1, 3], [1, 3, 3], "132", [1, 3, None]):
        found = told(tmp_path, {"channel_names": {"0": "CT"}, "labels": labels, "regions_class_order": order})
        assert column(found.labels) == "1,2,3=kidney|2,3=masses|2=tumour|4=ignore"
        assert len(found.notes) == 1 and "regions_class_order" in found.notes[0]


@pytest.mark.parametrize(
    ("named", "channels"),
    [
        ({"0": "CT"}, {0: "CT"}),
        ("CT", {0: "CT"}),
        (["T1", "T2"], {0: "T1", 1: "T2"}),
        ({"0": "noNorm"}, {}),
        ({"0": "zscore", "1": "T2"}, {1: "T2"}),
        ({"0": "T1", "1": "t1"}, {}),
        ({"first": "T1"}, {}),
        ({"0": 3}, {}),
        (None, {}),
        (7, {}),
    ],
)
def test_names_of_channels(tmp_path: Path, named: Any, channels: dict[int, str]) -> None:
    assert told(tmp_path, {"channel_names": named, "labels": {"0": "background", "1": "x"}}).channels == channels


@pytest.mark.parametrize(
    ("name", "letters"),
    [("CT", "CT"), ("ct_venous", "CT"), ("MRI", "MR"), ("T1Gd", "MR"), ("T2-weighted", "MR"), ("T1weighted", "MR"),
     ("ADC", "MR"), ("PET", "PT"), ("FDG-PET", "PT"), ("red", ""), ("usual", ""), ("ctenophora", ""), ("", "")],
)  # fmt: skip
def test_modalities_of_channels(tmp_path: Path, name: str, letters: str) -> None:
    assert told(tmp_path, {"modality": {"0": name}}).modality(0) == letters


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ("{", "is no JSON (line 1"),
        ('{"labels": {"0": "background",}}', "is no JSON (line 1"),
        ("", "is no JSON"),
        ("[" * 99_999, "is no JSON"),
        ({"labels": {"a": "b"}}, "has labels"),
        ({"labels": {"liver": -1}}, "has labels"),
    ],
)
def test_damaged_ones_are_one_line(tmp_path: Path, said: Any, words: str) -> None:
    found = told(tmp_path, said, "set")
    assert len(found.notes) == 1 and words in found.notes[0] and found.notes[0].startswith("set/dataset.json")
    assert "\n" not in found.notes[0] and not found.labels


@pytest.mark.parametrize("said", [[], "text", 3, None, {}, {"labels": None, "training": {"a": 1}, "test": 3}])
def test_others_say_nothing(tmp_path: Path, said: Any) -> None:
    found = told(tmp_path, json.dumps(said))
    assert not (found.labels or found.channels or found.masks or found.splits or found.notes)


def test_lists_with_masks_of_their_own_are_a_split(tmp_path: Path) -> None:
    pairs = {split: [{"image": f"{split}/i.png", "label": f"{split}/l.png"}] for split in ("training", "validation")}
    assert told(tmp_path, pairs).splits == {"training/i.png": "train", "validation/i.png": "val"}


def test_the_first_fold_is_the_split(tmp_path: Path) -> None:
    folds = [{"train": ["a", "b"], "val": ["c"]}, {"train": ["b", "c"], "val": ["a"]}]
    found = told(tmp_path, NNUNET, folds=folds)
    assert found.splits == {"a": "train", "b": "train", "c": "val"} and found.folds == 2


@pytest.mark.parametrize("folds", ["{", "[]", '{"train": []}', '[{"train": [1], "val": []}]', '[{"train": ["a"]}]'])
def test_other_folds_are_one_line(tmp_path: Path, folds: str) -> None:
    found = told(tmp_path, NNUNET, folds=folds)
    assert not found.splits and len(found.notes) == 1 and found.notes[0].startswith("splits_final.json is no")


def test_the_deepest_folder_speaks(tmp_path: Path) -> None:
    outer, inner = Described(""), Described("Task01")
    assert nearest([outer, inner], "Task01/imagesTr/x.nii.gz") is inner
    assert nearest([outer, inner], "Task011/imagesTr/x.nii.gz") is outer and nearest([inner], "x.nii.gz") is None
