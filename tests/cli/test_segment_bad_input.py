"""What users have instead of images with fitting masks: one clear line, or a right result, and nothing lost."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from PIL import Image as Picture
from torch import Tensor

from fabrica.methods.segment import Segment
from tests.command import call
from tests.data.test_scan_dicom import GRID, segmentation, structures
from tests.data.test_scan_drawn import named_structures
from tests.io.dicom import series as make
from tests.training.test_training_segment import SMALL, TINY, volumes

pytestmark = pytest.mark.usefixtures("few_asked")

Change = Callable[[Any], Any]
SHIFT = np.array([[0, 0, 0, 500.0], *[[0.0] * 4] * 3])


def changed(data: Path, change: Change = lambda v: v, which: Any = range(8), moved: Change = lambda a: a) -> Path:
    """The label maps with these numbers, with other values or in another place."""
    for k in which:
        path = data / f"labelsTr/case{k:02d}.nii.gz"
        labels = nib.load(path)
        values = change(np.asarray(labels.dataobj))
        nib.Nifti1Image(values, moved(labels.affine)).to_filename(path)
    return data


def trained(data: Path, run: Path, *more: str) -> CompletedProcess[str]:
    return call("train", "segment", "--data", data, "-o", run, *TINY, *SMALL, "train.steps=1", *more)


def one_line(said: CompletedProcess[str]) -> str:
    """The one line that a command has failed with."""
    assert said.returncode in (1, 2), said.stdout + said.stderr
    lines = [line for line in said.stderr.splitlines() if line.strip()]
    assert len(lines) == 1 and lines[0].startswith("fabrica: ") and "Traceback" not in said.stderr
    return lines[0]


def table(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.read_text().splitlines()))


def splits(data: Path, out: Path) -> dict[int, str]:
    assert call("scan", data, "-o", out).returncode == 0
    return {int(Path(row["path"]).name[4:6]): row["split"] for row in table(out)}


def test_masks_elsewhere_in_the_patient(tmp_path: Path) -> None:
    data = changed(volumes(tmp_path / "data", 8), moved=lambda a: a + SHIFT, which=[3])
    assert "case03.nii.gz" in (said := one_line(trained(data, tmp_path / "run"))) and "lie apart" in said
    assert not (tmp_path / "run").exists()


def test_masks_on_another_grid_are_laid_on_the_image(tmp_path: Path) -> None:
    """Twice as fine and stored from the other end: the same voxels in the same place."""
    whole = volumes(tmp_path / "whole", 8)
    fine = changed(
        volumes(tmp_path / "data", 8),
        lambda v: v.repeat(2, 0).repeat(2, 1).repeat(2, 2)[::-1],
        moved=lambda a: a @ np.diag([-0.5, 0.5, 0.5, 1]),
    )
    for k in range(8):  # the first voxel's middle, from the other end
        path = fine / f"labelsTr/case{k:02d}.nii.gz"
        labels = nib.load(path)
        affine = labels.affine.copy()
        affine[:3, 3] = [(labels.shape[0] - 1) * 0.5 - 0.25, -0.25, -0.25]
        nib.Nifti1Image(np.asarray(labels.dataobj), affine).to_filename(path)
    for data, name in ((whole, "a"), (fine, "b")):
        assert trained(data, tmp_path / name).returncode == 0
        assert call("evaluate", tmp_path / name, "-o", tmp_path / f"report-{name}").returncode == 0
    one, other = (table(tmp_path / f"report-{name}/scores.csv") for name in "ab")
    assert [row["volume"] for row in one] == [row["volume"] for row in other]


def test_pictures_and_masks_of_other_sizes(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for k in range(6):
        for folder, size in (("images", (20, 20)), ("masks", (20, 20) if k else (10, 10))):
            path = tmp_path / "data" / folder / f"x{k}y.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            values = rng.integers(0, 255, size) if folder == "images" else np.tri(*size, k=2)
            Picture.fromarray(values.astype(np.uint8)).save(path)
    said = call("scan", tmp_path / "data", "-o", tmp_path / "manifest.csv")
    assert "masks/x0y.png" in said.stderr + said.stdout and "expected one size" in said.stderr + said.stdout
    assert trained(tmp_path / "data", tmp_path / "run", "data.size=[16,16]").returncode == 0


def test_labels_that_skip_numbers_stay(tmp_path: Path) -> None:
    data = changed(volumes(tmp_path / "data", 8), lambda v: np.where(v == 5, 4000, v.astype(np.int16)))
    assert trained(data, tmp_path / "run").returncode == 0
    assert call("apply", tmp_path / "run", data / "imagesTr", "-o", tmp_path / "made").returncode == 0
    made = [np.unique(np.asarray(nib.load(path).dataobj)) for path in sorted((tmp_path / "made").glob("*.nii.gz"))]
    assert len(made) == 8 and set(np.concatenate(made)) <= {0, 2, 4000}


def test_one_empty_mask_is_a_case_and_all_are_an_error(tmp_path: Path) -> None:
    data = volumes(tmp_path / "data", 8)
    changed(data, lambda v: v * 0, [next(k for k, s in splits(data, tmp_path / "m.csv").items() if s == "train")])
    assert "nothing is marked" in (said := call("scan", data, "-o", tmp_path / "m.csv")).stdout + said.stderr
    assert trained(data, tmp_path / "run").returncode == 0
    assert "all 6 training images are empty" in one_line(trained(changed(data, lambda v: v * 0), tmp_path / "other"))


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_a_class_that_a_split_lacks_is_said(tmp_path: Path, split: str) -> None:
    data = volumes(tmp_path / "data", 8)
    without = [k for k, of in splits(data, tmp_path / "m.csv").items() if of == split]
    changed(data, lambda v: np.where(v == 5, 0, v), without)
    said = trained(data, tmp_path / "run")
    assert said.returncode == 0 and "Warning" not in said.stderr
    report = call("evaluate", tmp_path / "run", "-o", tmp_path / "report")
    assert report.returncode == 0 and "Warning" not in report.stderr
    told, judged = said.stdout + said.stderr, " ".join(report.stdout.split())
    if split == "val":
        assert "no held-out image shows label 5" in told
    elif split == "test":
        assert "label 5: never present" in judged.lower()
    else:
        assert "1 of 1 label maps of split val hold the label 5, which no training image has" in told
        assert "labels that the model never learned, 5" in judged


def test_held_out_images_without_anything_measure_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a network that finds nothing either: a false alarm would be measured, as a Dice of 0."""

    def nothing(self: Segment, images: Tensor, direction: str) -> Tensor:
        signs = torch.tensor([1.0, -1.0, -1.0]).reshape(1, 3, 1, 1, 1)
        return signs.expand(len(images), 3, *images.shape[2:])

    monkeypatch.setattr(Segment, "translate", nothing)
    data = volumes(tmp_path / "data", 8)
    changed(data, lambda v: v * 0, [k for k, of in splits(data, tmp_path / "m.csv").items() if of != "train"])
    said = trained(data, tmp_path / "run")
    assert said.returncode == 0 and "Warning" not in said.stderr
    assert "held-out Dice not measured: none of 1 images shows what is learned" in said.stdout
    report = call("evaluate", tmp_path / "run", "-o", tmp_path / "report")
    assert report.returncode == 0 and "nothing was judged" in report.stdout


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda v: v.astype(np.float32) * 0.37, "values between whole numbers, such as 0.74"),
        (lambda v: v.astype(np.int16) - 1, "values from -1 to 4; expected labels"),
    ],
)
def test_values_that_are_no_labels(tmp_path: Path, change: Change, said: str) -> None:
    data = changed(volumes(tmp_path / "data", 8), change, [1])
    told = one_line(trained(data, tmp_path / "run"))
    assert said in told and "case01.nii.gz" in told


def test_fractions_of_one_label_are_probabilities(tmp_path: Path) -> None:
    data = changed(volumes(tmp_path / "data", 8), lambda v: np.where(v > 0, 0.75, 0.25).astype(np.float32))
    assert trained(data, tmp_path / "run").returncode == 0
    assert "numbers:\n  - 0\n  - 1\n" in (tmp_path / "run/found.yaml").read_text()


def dicom(home: Path, drawn: Callable[[str], Any]) -> Path:
    """Four patients with a series each, and what was drawn on it."""
    for number in range(4):
        uid = make.uid("ct", number)
        [truth] = make.truths(1, GRID, seed=number)
        make.classic(home / f"P{number}" / "ct", [truth], SeriesInstanceUID=uid, PatientID=f"P{number}",
                     StudyInstanceUID=f"{uid}.9", name=lambda v, k: f"{k}.dcm")  # fmt: skip
        (home / f"P{number}" / "drawn").mkdir()
        make.save(drawn(uid), home / f"P{number}" / "drawn" / "x.dcm")
    return home


def test_a_seg_of_another_series_is_no_mask(tmp_path: Path) -> None:
    data = dicom(tmp_path / "data", lambda uid: segmentation(make.uid("other")))
    told = call("scan", data, "-o", tmp_path / "m.csv")
    assert "the series that it was drawn on is not here" in told.stdout + told.stderr
    assert "no image of 'mask'" in one_line(trained(data, tmp_path / "run"))
    rows = table(tmp_path / "m.csv")
    for row in rows:  # named by hand
        row["mask"] = f"data/{Path(row['path']).parts[-2]}/drawn/x.dcm" if not row["kind"] else ""
    with (tmp_path / "hand.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    assert "drawn on" in (said := one_line(trained(tmp_path / "hand.csv", tmp_path / "run"))) and "series" in said


def test_a_structure_set_without_contours(tmp_path: Path) -> None:
    for name, drawn in (("none", structures), ("named", lambda uid: named_structures(uid, {1: "liver"}))):
        data = dicom(tmp_path / name, drawn)
        said = one_line(trained(data, tmp_path / "run"))
        assert "contour" in said or "no image of 'mask'" in said
