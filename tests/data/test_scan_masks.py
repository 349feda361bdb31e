"""Segmentation data sets as they lie after download, written small and scanned: masks, channels, names, splits."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from PIL import Image as Picture

from fabrica.data.label_names import labels_in
from fabrica.data.manifest import COLUMNS, Manifest, Row
from fabrica.data.scan import scan
from fabrica.data.sides import matched, side
from fabrica.io import read_mask

SIZE = (6, 5, 4)


def volume(path: Path, seed: int = 0, labels: tuple[int, ...] = (), size: tuple[int, ...] = SIZE) -> None:
    """A volume of noise, or of these labels; the same for the same seed."""
    rng = np.random.default_rng([seed, len(labels), *size])
    values = rng.choice(labels, size).astype(np.uint8) if labels else rng.integers(0, 999, size).astype(np.int16)
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(values, np.diag([2.0, 2, 3, 1])), path)  # type: ignore[no-untyped-call]


def picture(path: Path, values: Any, size: tuple[int, int] = (8, 8), seed: int = 0) -> None:
    """A picture of these values, of noise where they are None."""
    rng = np.random.default_rng([seed, *size])
    pixels = rng.integers(0, 256, size) if values is None else rng.choice(values, size)
    path.parent.mkdir(parents=True, exist_ok=True)
    Picture.fromarray(pixels.astype(np.uint8)).save(path)


def tell(path: Path, said: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(said if isinstance(said, str) else json.dumps(said))


def rows_of(manifest: Manifest) -> dict[str, Row]:
    manifest.check()
    assert sum(manifest.files.values()) == sum(path.is_file() for path in manifest.root.rglob("*"))
    return {row.id: row for row in manifest.rows}


def said(manifest: Manifest, *words: str) -> bool:
    return any(all(word in note for word in words) for note in manifest.notes)


def decathlon(root: Path, cases: int = 12, unlabelled: int = 5, **more: Any) -> None:
    for k in range(cases + unlabelled):
        test = k >= cases
        volume(root / ("imagesTs" if test else "imagesTr") / f"hippocampus_{k:03}.nii.gz", k)
        if not test:
            volume(root / "labelsTr" / f"hippocampus_{k:03}.nii.gz", k, (0, 1, 2))
    tell(
        root / "dataset.json",
        {"modality": {"0": "MRI"}, "labels": {"0": "background", "1": "Anterior", "2": "Posterior"}, **more},
    )


def test_the_decathlon(tmp_path: Path) -> None:
    decathlon(tmp_path)
    manifest = scan(tmp_path)
    rows = rows_of(manifest)
    assert len(rows) == 17 and {row.domain for row in rows.values()} == {"MRI"}
    assert {row.modality for row in rows.values()} == {"MR"}
    for name, row in rows.items():
        labelled = name.startswith("imagesTr")
        assert row.mask == (name.replace("images", "labels") + ".nii.gz" if labelled else "")
        assert row.mask_labels == ("1=Anterior|2=Posterior" if labelled else "")
    for labelled in (True, False):  # each split has both
        assert {row.split for row in rows.values() if bool(row.mask) == labelled} == {"train", "val", "test"}
    assert said(manifest, "12 of 17 images have a mask", "5 have none", "1 Anterior, 2 Posterior")
    assert said(manifest, "5 images of test have no masks")


def test_a_published_test_split_with_masks_is_kept(tmp_path: Path) -> None:
    decathlon(tmp_path)
    for k in range(12, 17):
        volume(tmp_path / "labelsTs" / f"hippocampus_{k:03}.nii.gz", k, (0, 1, 2))
    rows = rows_of(scan(tmp_path))
    assert {name for name, row in rows.items() if row.split == "test"} == {n for n in rows if n.startswith("imagesTs")}


def test_a_folder_without_any_mask_keeps_its_split(tmp_path: Path) -> None:
    for k in range(8):
        volume(tmp_path / ("imagesTr" if k < 6 else "imagesTs") / f"x_{k}.nii.gz", k)
    assert Counter(row.split for row in scan(tmp_path).rows)["test"] == 2


def test_volumes_of_one_file_are_channels_of_one_patient(tmp_path: Path) -> None:
    """The decathlon's brains and prostates: 4-D images, 3-D labels."""
    for k in range(6):
        volume(tmp_path / "imagesTr" / f"BRATS_{k:03}.nii.gz", k, size=(*SIZE, 2))
        volume(tmp_path / "labelsTr" / f"BRATS_{k:03}.nii.gz", k, (0, 1))
    tell(
        tmp_path / "dataset.json", {"modality": {"0": "FLAIR", "1": "T1w"}, "labels": {"0": "background", "1": "edema"}}
    )
    manifest = scan(tmp_path)
    rows = rows_of(manifest)
    assert len(rows) == 12 and len({row.patient for row in rows.values()}) == 6
    assert {(row.frame, row.domain, row.modality) for row in rows.values()} == {
        ("volume=1", "FLAIR", "MR"),
        ("volume=2", "T1w", "MR"),
    }
    assert all(row.mask == row.path.replace("images", "labels") for row in rows.values())
    both = [side(manifest, name, "x") for name in ("FLAIR", "T1w")]
    assert [a.path for a, _ in matched(*both)] == [b.path for _, b in matched(*both)] and len(matched(*both)) == 6


NAMES = {1: {"channel_names": {"0": "T1", "1": "FLAIR"}, "labels": {"background": 0, "tumour": 1}},
         2: {"modality": {"0": "T1", "1": "FLAIR"}, "labels": {"0": "background", "1": "tumour"}}, 3: None}  # fmt: skip


@pytest.mark.parametrize("version", NAMES)
@pytest.mark.parametrize("pattern", ["BRATS_{:03}", "patient01_frame{:02}", "case_{:04}"])
def test_channels_of_nnunet(tmp_path: Path, version: int, pattern: str) -> None:
    home = tmp_path / "Dataset001_Tumour"
    cases = [pattern.format(k) for k in range(1, 9)]
    for k, name in enumerate(cases):
        for channel in range(2):
            volume(home / ("imagesTr" if k < 7 else "imagesTs") / f"{name}_{channel:04}.nii.gz", 9 * k + channel)
        if k < 6:  # the seventh has no label
            volume(home / "labelsTr" / f"{name}.nii.gz", k, (0, 1))
    if NAMES[version]:
        tell(home / "dataset.json", NAMES[version])
    manifest = scan(tmp_path)
    rows = rows_of(manifest)
    domains = ["T1", "FLAIR"] if NAMES[version] else ["0000", "0001"]
    assert len(rows) == 16 and {row.modality for row in rows.values()} == {"MR" if NAMES[version] else ""}
    for k, name in enumerate(cases):
        own = [row for row in rows.values() if Path(row.path).name.startswith(f"{name}_")]
        assert [row.domain for row in own] == domains and len({row.patient for row in own}) == 1
        assert {row.mask for row in own} == {f"Dataset001_Tumour/labelsTr/{name}.nii.gz" if k < 6 else ""}
    assert len({row.patient for row in rows.values()}) == (1 if pattern.startswith("patient") else 8)
    if not pattern.startswith("patient"):
        assert sum(bool(row.mask_labels) for row in rows.values()) == (12 if NAMES[version] else 0)
    a, b = (side(manifest, domain, "x") for domain in domains)
    pairs = matched(a, b)
    assert len(pairs) == 8 and all(one.path[:-11] == other.path[:-11] for one, other in pairs)


def test_numbers_of_cases_are_no_channels(tmp_path: Path) -> None:
    """AMOS: amos_0001 is a patient, and all of amos_* one would leak."""
    for k in range(12):
        part = "Tr" if k < 8 else "Va"
        volume(tmp_path / f"images{part}" / f"amos_{k:04}.nii.gz", k)
        volume(tmp_path / f"labels{part}" / f"amos_{k:04}.nii.gz", k, (0, 1, 5))
    tell(
        tmp_path / "dataset.json", {"modality": {"0": "CT"}, "labels": {"0": "background", "1": "spleen", "5": "liver"}}
    )
    rows = rows_of(scan(tmp_path))
    assert len({row.patient for row in rows.values()}) == 12 and all(row.mask for row in rows.values())
    assert {(row.domain, row.modality, row.mask_labels) for row in rows.values()} == {("CT", "CT", "1=spleen|5=liver")}
    assert {row.split for name, row in rows.items() if "Va" in name} == {"val"}


def test_several_data_sets_in_one_folder_keep_their_names(tmp_path: Path) -> None:
    decathlon(tmp_path / "Task04_Hippocampus", 4, 0)
    for k in range(4):
        volume(tmp_path / "Task03_Liver" / "imagesTr" / f"liver_{k}.nii.gz", 50 + k)
        volume(tmp_path / "Task03_Liver" / "labelsTr" / f"liver_{k}.nii.gz", k, (0, 1, 2))
    tell(tmp_path / "Task03_Liver/dataset.json", {"modality": {"0": "CT"}, "labels": {"1": "liver", "2": "cancer"}})
    manifest = scan(tmp_path)
    rows = rows_of(manifest)
    assert len({row.patient for row in rows.values()}) == 8
    assert {(row.domain, row.mask_labels) for row in rows.values()} == {
        ("MRI", "1=Anterior|2=Posterior"),
        ("CT", "1=liver|2=cancer"),
    }
    assert said(manifest, "label 1 is Anterior or liver")


@pytest.mark.parametrize("test", [False, True])
def test_the_first_fold_of_a_cross_validation(tmp_path: Path, test: bool) -> None:
    decathlon(tmp_path, 10, 4)
    if test:
        for k in range(10, 14):
            volume(tmp_path / "labelsTs" / f"hippocampus_{k:03}.nii.gz", k, (0, 1, 2))
    names = [f"hippocampus_{k:03}" for k in range(10)]
    tell(
        tmp_path / "splits_final.json", [{"train": names[2:], "val": names[:2]}, {"train": names[:8], "val": names[8:]}]
    )
    manifest = scan(tmp_path)
    rows = rows_of(manifest)
    held_out = {name for name, row in rows.items() if row.split == ("val" if test else "test") and row.mask}
    assert held_out == {"imagesTr/hippocampus_000", "imagesTr/hippocampus_001"}
    assert said(manifest, "the first of 2 folds", "val" if test else "test")
    assert {row.split for row in rows.values() if row.mask} == {"train", "val", "test"}


@pytest.mark.parametrize("mark", ["BraTS20_Training_{:03}|_", "BraTS-GLI-{:05}-000|-"])
def test_brats(tmp_path: Path, mark: str) -> None:
    pattern, sign = mark.split("|")
    names = ("t1", "t1ce", "t2", "flair") if sign == "_" else ("t1n", "t1c", "t2w", "t2f")
    for k in range(5):
        case = pattern.format(k)
        for n, name in enumerate(names):
            volume(tmp_path / case / f"{case}{sign}{name}.nii.gz", 9 * k + n)
        if k < 4:
            volume(tmp_path / case / f"{case}{sign}seg.nii.gz", k, (0, 1, 2, 4))
    manifest = scan(tmp_path)
    rows = rows_of(manifest)
    assert len(rows) == 20 and len({row.patient for row in rows.values()}) == 5
    assert Counter(row.domain for row in rows.values()) == dict.fromkeys(names, 5)
    for row in rows.values():
        seg = f"{row.path.rpartition(sign)[0]}{sign}seg.nii.gz"
        assert row.mask == (seg if (tmp_path / seg).exists() else "")
    assert said(manifest, "labels that nothing names, 1, 2, 4")


def test_scans_of_one_patient_of_brats_stay_together(tmp_path: Path) -> None:
    for patient, visit in ((0, 0), (1, 0), (1, 1), (1, 2), (7, 0), (8, 0)):
        case = f"BraTS-GLI-{patient:05}-{visit:03}"
        for n, name in enumerate(("t1n", "t2f", "seg")):
            volume(
                tmp_path / case / f"{case}-{name}.nii.gz", 99 * patient + 9 * visit + n, (0, 1) if name == "seg" else ()
            )
    manifest = scan(tmp_path)
    rows = rows_of(manifest)
    assert {row.patient for row in rows.values()} == {f"BraTS-GLI-{k:05}" for k in (0, 1, 7, 8)}
    pairs = matched(side(manifest, "t1n", "x"), side(manifest, "t2f", "x"))
    assert len(pairs) == 6 and all(Path(a.path).parent == Path(b.path).parent for a, b in pairs)


@pytest.mark.parametrize("image", ["ct", "mri"])
def test_a_folder_of_organs_is_the_mask(tmp_path: Path, image: str) -> None:
    organs = ("spleen", "kidney_left", "liver")
    for k in range(4):
        home = tmp_path / f"s{k:04}"
        volume(home / f"{image}.nii.gz", k)
        for n, organ in enumerate(organs):
            volume(home / "segmentations" / f"{organ}.nii.gz", 9 * k + n, (0, 1))
    manifest = scan(tmp_path)
    rows = rows_of(manifest)
    assert len(rows) == 4 and {row.patient for row in rows.values()} == {f"s{k:04}" for k in range(4)}
    for row in rows.values():
        assert row.mask == f"{row.patient}/segmentations" and (tmp_path / row.mask).is_dir()
        assert labels_in(row.mask_labels) == {1: "kidney_left", 2: "liver", 3: "spleen"}
    assert manifest.files["used"] == 16 and said(manifest, "4 of 4 images", "1 kidney_left, 2 liver, 3 spleen")
    (tmp_path / "s0003/segmentations/liver.nii.gz").unlink()
    assert said(scan(tmp_path), "label 2 is liver or spleen", "mask_labels")


@pytest.mark.parametrize(
    ("image", "mask"),
    [
        ("images/{}.png", "masks/{}.png"),
        ("images/{}.png", "masks/{}_mask.png"),
        ("image/{}.jpg", "label/{}.tif"),
        ("train/images/{}.png", "train/masks/{}.png"),
        ("images/train/{}.png", "labels/train/{}.png"),
        ("imgs/{}.tiff", "Ground Truth/{}.png"),
        ("{}.png", "{}_mask.png"),
        ("{}.jpg", "{}_segmentation.png"),
        ("CXR_png/{}.png", "mask/{}_mask.png"),
        ("img_dir/{}.png", "ann_dir/{}.png"),
    ],
)
def test_pictures_beside_their_masks(tmp_path: Path, image: str, mask: str) -> None:
    for k in range(4):
        picture(tmp_path / image.format(f"scan{k}x"), None, seed=k)
        if k < 3:
            picture(tmp_path / mask.format(f"scan{k}x"), (0, 255), seed=k)
    rows = rows_of(scan(tmp_path))
    found = {row.path: row.mask for row in rows.values()}
    assert found == {image.format(f"scan{k}x"): mask.format(f"scan{k}x") if k < 3 else "" for k in range(4)}


@pytest.mark.parametrize("mask", ["ManualMask/{}Mask/{}.png", "{1}_{0}_mask.png", "masks/{}_lung/{}.png"])
def test_masks_of_the_left_and_the_right_are_one_label_map(tmp_path: Path, mask: str) -> None:
    image = "CXR_png/{}.png" if "/" in mask else "{}.png"
    for k in range(4):
        picture(tmp_path / image.format(f"scan{k}x"), None, (16, 16), seed=k)
        for name, half in (("left", slice(0, 8)), ("right", slice(8, 16))):
            values = np.zeros((16, 16), dtype=np.uint8)
            values[2 + k : 12, half] = 255
            path = tmp_path / mask.format(name, f"scan{k}x")
            path.parent.mkdir(parents=True, exist_ok=True)
            if k < 3 or name == "right":
                Picture.fromarray(values).save(path)
    manifest = scan(tmp_path)
    rows_of(manifest)  # every file is accounted for
    manifest.save(tmp_path / "manifest.csv")
    rows = {row.id: row for row in Manifest.load(tmp_path / "manifest.csv").rows}
    assert len(rows) == 4 and not said(manifest, "several masks")
    lung = " lung" * ("lung" in mask)
    for k in range(4):
        row = next(row for row in rows.values() if f"scan{k}x" in row.path)
        labels = {1: f"left{lung}", 2: f"right{lung}"} if k < 3 else {1: f"right{lung}"}
        assert labels_in(row.mask_labels) == labels
        truth = np.zeros((16, 16))
        truth[2 + k : 12, :8], truth[2 + k : 12, 8:] = (1, 2) if k < 3 else (0, 1)
        read = read_mask(tmp_path / row.mask, row.mask_frame)
        np.testing.assert_array_equal(read.data[0], truth)
        assert all((tmp_path / path).is_file() for path in row.mask_files)


LABELS = {
    "number,name\n1,lung\n2,heart\n": "labels.csv",
    '{"lung": 1, "heart": 2}': "classes.json",
    "1 lung\n2 heart": "labels.txt",
}


@pytest.mark.parametrize("text", LABELS)
@pytest.mark.parametrize("home", ["", "masks", "info"])
def test_names_beside_the_data(tmp_path: Path, text: str, home: str) -> None:
    for k in range(3):
        picture(tmp_path / "images" / f"x{k}.png", None, seed=k)
        picture(tmp_path / "masks" / f"x{k}.png", (0, 1, 2), seed=k)
    tell(tmp_path / home / LABELS[text], text)
    manifest = scan(tmp_path)
    rows = rows_of(manifest)
    assert {row.mask_labels for row in rows.values()} == {"1=lung|2=heart"}
    assert not said(manifest, "not used") and said(manifest, "3 of 3 images", "labels: 1 lung, 2 heart")


def test_a_table_of_images_is_none_of_labels(tmp_path: Path) -> None:
    for k in range(3):
        picture(tmp_path / "images" / f"x{k}.png", None, seed=k)
        picture(tmp_path / "masks" / f"x{k}.png", (0, 1), seed=k)
    tell(tmp_path / "labels.csv", "file,label\nx0.png,ill\nx1.png,well\nx2.png,ill\n")
    rows = rows_of(scan(tmp_path))
    assert {(row.label, row.mask_labels) for row in rows.values()} == {("ill", ""), ("well", "")}


def test_pairs_that_a_dataset_json_lists(tmp_path: Path) -> None:
    for k in range(6):
        volume(tmp_path / "scans" / f"p{k}.nii.gz", k)
        volume(tmp_path / "drawings" / f"d{k}.nii.gz", k, (0, 1))
    pairs = [{"image": f"scans/p{k}.nii.gz", "label": f"./drawings/d{k}.nii.gz"} for k in range(6)]
    tell(
        tmp_path / "dataset.json",
        {"labels": {"1": "x"}, "training": pairs[:4], "validation": pairs[4:5], "test": pairs[5:]},
    )
    rows = rows_of(scan(tmp_path))
    assert {row.path: (row.mask, row.split) for row in rows.values()} == {
        f"scans/p{k}.nii.gz": (f"drawings/d{k}.nii.gz", ("val" if k == 4 else "test") if k > 3 else "train")
        for k in range(6)
    }


def test_manifests_without_the_column_load_as_before(tmp_path: Path) -> None:
    decathlon(tmp_path, 4, 0)
    manifest = scan(tmp_path)
    manifest.save(tmp_path / "m.csv")
    assert Manifest.load(tmp_path / "m.csv").rows == manifest.rows
    with (tmp_path / "m.csv").open(newline="") as file:
        table = list(csv.reader(file))
    at = COLUMNS.index("mask_labels")
    with (tmp_path / "old.csv").open("w", newline="") as file:
        csv.writer(file).writerows(record[:at] + record[at + 1 :] for record in table)
    old = Manifest.load(tmp_path / "old.csv")
    assert not old.notes and [row.mask for row in old.rows] == [row.mask for row in manifest.rows]
    assert {row.mask_labels for row in old.rows} == {""}


def test_the_command_tells_of_masks(tmp_path: Path) -> None:
    decathlon(tmp_path / "set", 4, 1)
    command = [sys.executable, "-m", "fabrica", "scan", str(tmp_path / "set"), "-o", str(tmp_path / "m.csv")]
    done = subprocess.run([*command, "--json"], capture_output=True, check=True)
    assert json.loads(done.stdout)["masks"] == {"there": 4, "none": 1, "labels": {"Anterior": 4, "Posterior": 4}}
    shown = subprocess.run(command, capture_output=True, check=True, text=True).stdout
    assert "4 of 5 images have a mask (column `mask`), 1 have none; labels: 1 Anterior, 2 Posterior" in shown


# --- what is wrong


def test_a_damaged_dataset_json_is_one_line(tmp_path: Path) -> None:
    decathlon(tmp_path, 4, 0)
    tell(tmp_path / "dataset.json", '{"labels": {"0": "background"')
    manifest = scan(tmp_path)
    assert {row.mask_labels for row in rows_of(manifest).values()} == {""}
    assert sum("dataset.json is no JSON" in note for note in manifest.notes) == 1


def test_labels_that_are_named_and_not_held_and_the_other_way_round(tmp_path: Path) -> None:
    decathlon(tmp_path, 4, 0, labels={"0": "background", "1": "Anterior", "9": "Cyst"})
    manifest = scan(tmp_path)
    assert {row.mask_labels for row in rows_of(manifest).values()} == {"1=Anterior|9=Cyst"}
    assert said(manifest, "no mask holds label 9 (Cyst)") and said(manifest, "labels that nothing names, 2")


def test_masks_whose_image_is_missing_are_set_apart(tmp_path: Path) -> None:
    decathlon(tmp_path, 4, 0)
    (tmp_path / "imagesTr/hippocampus_001.nii.gz").unlink()
    manifest = scan(tmp_path)
    assert len(rows_of(manifest)) == 3 and manifest.files["set apart"] == 1
    assert said(manifest, "1 masks belong to no image", "labelsTr/hippocampus_001.nii.gz")


def test_masks_of_another_size_are_left_out_of_pictures_and_moved_onto_volumes(tmp_path: Path) -> None:
    for k in range(4):
        picture(tmp_path / "a/images" / f"x{k}.png", None, seed=k)
        picture(tmp_path / "a/masks" / f"x{k}.png", (0, 1), (8, 8) if k else (4, 8), seed=k)
    manifest = scan(tmp_path / "a")
    rows = rows_of(manifest)
    assert [bool(row.mask) for row in rows.values()] == [False, True, True, True] and len(rows) == 4
    assert [(path, "4 x 8" in why and "8 x 8" in why) for path, why in manifest.rejected] == [("masks/x0.png", True)]
    for k in range(4):
        volume(tmp_path / "b/images" / f"x{k}.nii.gz", k)
        volume(tmp_path / "b/labels" / f"x{k}.nii.gz", k, (0, 1), SIZE if k else (3, 5, 4))
    manifest = scan(tmp_path / "b")
    assert all(row.mask for row in rows_of(manifest).values()) and not manifest.rejected
    assert said(manifest, "1 mask of another size", "4 x 5 x 3", "in mm")


def test_masks_that_cannot_be_read_are_left_out(tmp_path: Path) -> None:
    decathlon(tmp_path, 4, 0)
    path = tmp_path / "labelsTr/hippocampus_001.nii.gz"
    path.write_bytes(path.read_bytes()[:60])
    manifest = scan(tmp_path)
    rows = rows_of(manifest)
    assert len(rows) == 4 and not rows["imagesTr/hippocampus_001"].mask and manifest.files["left out"] == 1
    assert [name for name, _ in manifest.rejected] == ["labelsTr/hippocampus_001.nii.gz"]
    assert said(manifest, "3 of 4 images have a mask")


def test_odd_masks_are_said_with_an_example(tmp_path: Path) -> None:
    values: list[Any] = [(0, 255), (0,), (255,), (0, 3, 7), range(256), (0, 255)]
    for k, own in enumerate(values):
        picture(tmp_path / "images" / f"x{k}.png", None, (32, 32), seed=k)
        picture(tmp_path / "masks" / f"x{k}.png", own, (32, 32), seed=k)
    Picture.new("RGB", (32, 32), "red").save(tmp_path / "masks/x5.png")
    manifest = scan(tmp_path)
    assert all(row.mask for row in rows_of(manifest).values())
    assert said(manifest, "1 mask of one value, 0, masks/x1.png", "nothing is marked")
    assert said(manifest, "1 mask of one value, 1, masks/x2.png", "all is marked")
    assert said(manifest, "masks/x4.png", "different values", "JPEG") and said(manifest, "masks/x5.png", "3 channels")
    assert said(manifest, "labels that nothing names", "1, 3, 7")


@pytest.mark.parametrize("names", ["images labels", "images masks", "val_images val_labels", "x_image x_mask"])
@pytest.mark.parametrize("pack", [np.savez, np.savez_compressed])
def test_label_maps_in_the_file_of_their_images(tmp_path: Path, names: str, pack: Any) -> None:
    rng = np.random.default_rng(0)
    image, label = names.split()
    arrays = {
        image: rng.random((12, 9, 10)).astype(np.float32),
        label: rng.integers(0, 3, (12, 9, 10)).astype(np.uint8),
    }
    pack(tmp_path / "set.npz", **arrays)
    tell(tmp_path / "labels.json", {"lung": 1, "nodule": 2})
    manifest = scan(tmp_path)
    assert len(manifest.rows) == 12 and said(manifest, "12 of 12 images have a mask", "1 lung, 2 nodule")
    for row in manifest.rows:
        number = row.frame.partition("/")[2]
        assert (row.mask, row.mask_frame, row.label) == ("set.npz", f"{label}/{number}", "")
        np.testing.assert_array_equal(
            read_mask(tmp_path / row.mask, row.mask_frame).data[0], arrays[label][int(number)]
        )
    (own,) = {row.split for row in manifest.rows if row.split == "val"} if image == "val_images" else {"val"}
    rows = [row for row in manifest.rows if row.split == own]
    pairs = matched(rows, [row for row in side(manifest, "mask", "x") if row.split == own])
    assert [(a.frame.partition("/")[2], b.frame.partition("/")[2]) for a, b in pairs] == [
        (row.frame.partition("/")[2],) * 2 for row in rows
    ]


def test_labels_of_classes_in_an_npz_are_no_masks(tmp_path: Path) -> None:
    images = np.random.default_rng(0).random((12, 9, 10))
    np.savez(tmp_path / "set.npz", images=images, labels=np.arange(12).reshape(12, 1) % 2)
    assert {(row.mask, row.mask_frame) for row in scan(tmp_path).rows} == {("", "")}
