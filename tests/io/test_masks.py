"""Masks of every kind as label maps: volumes, pictures, folders of one file an organ; names; what is no label map."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fabrica import io as fio
from fabrica.errors import FabricaError, ReadError
from fabrica.image import Image
from fabrica.io import mask_labels, read_mask
from fabrica.phantoms.head.head import head
from tests.draws import draws
from tests.real import DATA

Array = np.ndarray[Any, Any]
AFFINE = np.array([[-1.5, 0, 0, 40], [0, -1.5, 0, 50], [0, 0, 3.0, -20], [0, 0, 0, 1.0]])
NAMES = {1: "liver", 2: "Milz, groß", 5: "kidney\\left"}
VOLUMES = (".nii", ".nii.gz", ".mha", ".mhd", ".nrrd", ".nhdr", ".mgz")


def label_map(numbers: tuple[int, ...] = (1, 2, 5), size: tuple[int, ...] = (5, 7, 6), seed: int = 0) -> Image:
    rng = np.random.default_rng(seed)
    data = rng.choice([0, *numbers], (1, *size)).astype(np.float32)
    data.flat[: len(numbers)] = numbers
    return Image(data, AFFINE, "label", {"labels": NAMES})


def saved(values: Array, path: Path) -> Path:
    """Values (D, H, W) as floats, or as they are, in a NIfTI that says nothing of labels."""
    import nibabel

    nifti = nibabel.Nifti1Image(values.T, AFFINE)
    nibabel.save(nifti, path)
    return path


# ---------------------------------------------------------------- out and in again


@pytest.mark.parametrize("suffix", VOLUMES)
@pytest.mark.parametrize("numbers", [(1, 2, 5), (255,), (3, 300), (65535,), ()])
def test_labels_and_their_names_survive_every_volume_format(
    tmp_path: Path, suffix: str, numbers: tuple[int, ...]
) -> None:
    image = label_map(numbers)
    fio.write(image, tmp_path / f"a{suffix}")
    found = read_mask(tmp_path / f"a{suffix}")
    expected = np.minimum(image.data, 1) if numbers in ((255,), (65535,)) else image.data  # black and white
    assert np.array_equal(found.data, expected) and np.allclose(found.affine, AFFINE, atol=1e-5)
    assert found.unit == "label" and found.origin["labels"] == NAMES
    assert found.origin["range"] == (0, expected.max()) and found.origin["step"] == 1
    stored = np.dtype(found.origin["stored"]["dtype"])
    smallest = np.uint8 if max(numbers, default=0) < 256 else np.uint16
    assert stored == smallest or (suffix == ".mgz" and smallest == np.uint16 and stored == np.int32)
    assert (found.origin["stored"]["slope"], found.origin["stored"]["inter"]) == (1, 0)


@pytest.mark.parametrize(
    "stored", [{"dtype": "<i2", "slope": 0.5, "inter": -1024.0}, {"dtype": "<f4", "slope": 1.0, "inter": 0.0}]
)
def test_a_label_map_of_an_image_is_stored_as_labels_and_not_as_the_image_was(
    tmp_path: Path, stored: dict[str, Any]
) -> None:
    image = label_map()
    fio.write(image.with_data(image.data, origin={"format": "nifti", "stored": stored}), tmp_path / "a.nii.gz")
    found = read_mask(tmp_path / "a.nii.gz")
    assert found.origin["stored"] == {"dtype": "|u1", "slope": 1.0, "inter": 0.0} and np.array_equal(
        found.data, image.data
    )


@pytest.mark.parametrize("suffix", [".png", ".tif", ".npz"])
def test_pictures_of_labels(tmp_path: Path, suffix: str) -> None:
    image = label_map(size=(9, 11))
    fio.write(image, tmp_path / f"a{suffix}")
    found = read_mask(tmp_path / f"a{suffix}", "" if suffix != ".npz" else fio.frames(tmp_path / "a.npz")[0])
    assert np.array_equal(found.data, image.data) and found.unit == "label"
    assert suffix == ".npz" or found.origin["labels"] == NAMES


@pytest.mark.parametrize(("top", "bits"), [(255, 8), (65535, 16)])
def test_white_is_1(tmp_path: Path, top: int, bits: int) -> None:
    data = np.random.default_rng(0).choice([0.0, top], (1, 9, 11)).astype(np.float32)
    fio.write(Image(data, origin={"range": (0, top)}), tmp_path / "a.png", bits=bits)
    assert np.array_equal(read_mask(tmp_path / "a.png").data, data / top)


@pytest.mark.parametrize("labels", [[0], [0, 7], [0, 200], [0, 1, 255], [4]])
def test_whole_numbers_stay_what_they_are(tmp_path: Path, labels: list[int]) -> None:
    values = np.random.default_rng(0).choice(labels, (4, 5, 6)).astype(np.int16)
    assert np.array_equal(read_mask(saved(values, tmp_path / "a.nii")).data[0], values)


def test_names_of_3d_slicer(tmp_path: Path) -> None:
    """As it writes a .seg.nrrd: some segments named, one label without a name, another of a second layer."""
    fio.write(label_map().with_data(label_map().data, origin={}), tmp_path / "a.nrrd")
    head, _, voxels = (tmp_path / "a.nrrd").read_bytes().partition(b"\n\n")
    said = {"Segment0_Name": "liver", "Segment0_LabelValue": "1", "Segment0_Layer": "0", "Segment0_Color": "1 0 0",
            "Segment1_Name": "a\\nb", "Segment1_LabelValue": "5", "Segment1_Layer": "0",
            "Segment2_Name": "other layer", "Segment2_LabelValue": "2", "Segment2_Layer": "1",
            "Segmentation_MasterRepresentation": "Binary labelmap"}  # fmt: skip
    lines = [line for line in head.split(b"\n") if not line.startswith(b"Fabrica")]
    lines += [f"{key}:={value}".encode() for key, value in said.items()]
    path = tmp_path / "b.seg.nrrd"
    path.write_bytes(b"\n".join(lines) + b"\n\n" + voxels)
    found = read_mask(path)
    assert found.origin["labels"] == {1: "liver", 5: "a\nb"} == mask_labels(path)
    assert fio.read(path).unit == "label" and np.array_equal(found.data, label_map().data)


def test_names_stay_with_the_labels() -> None:
    image = label_map()
    assert image.with_data(image.data * 0).origin["labels"] == NAMES


# ---------------------------------------------------------------- on another image's voxels


def test_on_a_finer_grid(tmp_path: Path) -> None:
    image = label_map()
    fio.write(image, tmp_path / "a.nii.gz")
    affine = AFFINE.copy()
    affine[:, :2] /= 2
    affine[:3, 3] -= affine[:3, 0] / 2 + affine[:3, 1] / 2
    grid = Image(np.zeros((1, 5, 14, 12), np.float32), affine, "HU", {"format": "nifti", "path": "ct.nii"})
    found = read_mask(tmp_path / "a.nii.gz", grid=grid)
    assert np.array_equal(found.data, image.data.repeat(2, 2).repeat(2, 3)) and np.array_equal(found.affine, affine)
    assert found.origin["labels"] == NAMES and found.unit == "label"


def test_what_lies_on_an_image_is_written_beside_it(tmp_path: Path) -> None:
    """A NIfTI drawn on a DICOM series becomes a segmentation of that patient and series."""
    scan = head(3, 32, 5, contrasts=["CT"]).images["CT"]
    fio.write(scan, tmp_path / "ct", as_="dicom")
    ct = fio.read(tmp_path / "ct")
    mask = scan.with_data((scan.data > 100).astype(np.float32), unit="label", origin={"labels": {1: "bone"}})
    fio.write(mask, tmp_path / "mask.nii.gz")
    found = read_mask(tmp_path / "mask.nii.gz", grid=ct)
    [path] = fio.write(found, tmp_path / "seg.dcm")
    again = read_mask(path, grid=ct)
    assert np.array_equal(again.data, mask.data) and again.origin["labels"] == {1: "bone"}
    [path] = fio.write(again, tmp_path / "again.dcm")
    dataset, source = pydicom.dcmread(path), ct.origin["dicom"][0]
    assert dataset.PatientID == source.PatientID
    assert dataset.ReferencedSeriesSequence[0].SeriesInstanceUID == source.SeriesInstanceUID
    [path] = fio.write(read_mask(path), tmp_path / "alone.dcm")  # which still says what it was drawn on
    assert np.array_equal(read_mask(path, grid=ct).data, mask.data)


# ---------------------------------------------------------------- what is no label map


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ([0, 1, 1.5], "values between whole numbers, such as 1.5"),
        ([0, -1, 1], "values from -1 to 1; expected labels from 0"),
        ([0, 70000], "values from 0 to 70000"),
        ([0, 0.25, 254.75], "values between whole numbers"),
    ],
)
def test_values_that_are_no_labels_are_refused(tmp_path: Path, values: list[float], reason: str) -> None:
    data = np.resize(np.array(values, np.float32), (3, 4, 5))
    with pytest.raises(ReadError, match=reason) as error:
        read_mask(saved(data, tmp_path / "a.nii"))
    assert "\n" not in str(error.value) and "a.nii" in str(error.value)


def test_a_probability_is_there_from_a_half_on(tmp_path: Path) -> None:
    data = np.random.default_rng(0).uniform(0, 1, (3, 4, 5)).astype(np.float32)
    data[0, 0, 0] = 0.5
    found = read_mask(saved(data, tmp_path / "a.nii"))
    assert np.array_equal(found.data[0], data >= 0.5)
    assert any("at least half belongs" in note for note in found.origin["notes"])


def test_labels_that_a_scale_has_rounded_are_whole(tmp_path: Path) -> None:
    data = (np.random.default_rng(0).choice([0, 1, 5], (3, 4, 5)) + 2e-4).astype(np.float32)
    assert np.array_equal(read_mask(saved(data, tmp_path / "a.nii")).data[0], np.rint(data))


def test_soft_edges_of_a_picture_are_greys_and_many_labels_of_a_volume_are_labels(tmp_path: Path) -> None:
    greys = np.linspace(0, 255, 99).round().reshape(1, 9, 11).astype(np.float32)
    fio.write(Image(greys, origin={"range": (0, 255)}), tmp_path / "a.png")
    found = read_mask(tmp_path / "a.png")
    assert np.array_equal(found.data, greys >= 127.5) and any("at least half" in note for note in found.origin["notes"])
    numbers = np.resize(np.append(np.arange(0, 250, 5), 255), (4, 5, 6)).astype(np.uint8)  # as of FreeSurfer's aseg
    assert np.array_equal(read_mask(saved(numbers, tmp_path / "a.nii")).data[0], numbers)


def test_a_jpeg_is_black_and_white_or_nothing(tmp_path: Path) -> None:
    h, w = np.ogrid[:48, :48]
    box = ((h - 22) ** 2 + (w - 25) ** 2 < 130)[None] * np.float32(255)
    fio.write(Image(box, origin={"range": (0, 255)}), tmp_path / "a.jpg")
    assert len(np.unique(fio.read(tmp_path / "a.jpg").data)) > 2
    assert np.array_equal(read_mask(tmp_path / "a.jpg").data, box / 255)
    fio.write(Image(box / 85, origin={"range": (0, 255)}), tmp_path / "b.jpg")  # labels 0 and 3: black
    assert not read_mask(tmp_path / "b.jpg").data.any()
    fio.write(Image(np.linspace(0, 255, 2304).reshape(1, 48, 48).astype(np.float32)), tmp_path / "c.jpg", clip=True)
    with pytest.raises(ReadError, match="is a JPEG, which does not keep labels"):
        read_mask(tmp_path / "c.jpg")


def test_an_image_is_no_mask(tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(0, 4000, (10, 20, 30)).astype(np.int16)
    with pytest.raises(ReadError, match="different values; expected labels, at most 1024: is it an image"):
        read_mask(saved(values, tmp_path / "mr.nii"))


def test_colours_are_refused(tmp_path: Path) -> None:
    data = np.random.default_rng(0).choice([0.0, 255.0], (3, 9, 11)).astype(np.float32)
    fio.write(Image(data, origin={"range": (0, 255)}), tmp_path / "a.png")
    with pytest.raises(ReadError, match="3 channels; expected one of whole numbers"):
        read_mask(tmp_path / "a.png")


# ---------------------------------------------------------------- one file an organ


def organs(folder: Path, parts: dict[str, Array], suffix: str = ".nii.gz") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, part in parts.items():
        fio.write(Image(part[None].astype(np.float32), AFFINE, "label"), folder / f"{name}{suffix}")
    return folder


@settings(max_examples=draws(15), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    names=st.lists(
        st.sampled_from(["liver", "spleen", "lung_left", "lung_right", "a.b", "Z"]), min_size=1, unique=True
    ),
    suffix=st.sampled_from([".nii.gz", ".nrrd", ".mha"]),
    seed=st.integers(0, 10**6),
)
def test_a_folder_is_merged_in_the_order_of_names(
    tmp_path_factory: pytest.TempPathFactory, names: list[str], suffix: str, seed: int
) -> None:
    labels = np.random.default_rng(seed).integers(0, len(names) + 1, (4, 5, 6))
    ordered = sorted(names)
    folder = organs(tmp_path_factory.mktemp("case"), {n: labels == ordered.index(n) + 1 for n in names}, suffix)
    (folder / "statistics.json").write_text("{}")
    (folder / ".hidden.nii.gz").write_text("")
    found = read_mask(folder)
    assert np.array_equal(found.data[0], labels) and np.allclose(found.affine, AFFINE)
    assert found.origin["labels"] == dict(enumerate(ordered, start=1)) == mask_labels(folder)


def test_an_organ_that_is_not_there_is_listed(tmp_path: Path) -> None:
    part = np.zeros((4, 5, 6))
    part[1, 2, 3] = 255
    found = read_mask(organs(tmp_path, {"a": part * 0, "b": part}))
    assert found.data.max() == 2 and found.data.sum() == 2 and found.origin["labels"] == {1: "a", 2: "b"}


def test_left_and_right_lungs_as_pictures(tmp_path: Path) -> None:
    left = np.zeros((1, 8, 10), np.float32)
    left[:, 2:6, 1:4] = 255
    for name, data in (("left lung", left), ("right lung", left[:, :, ::-1])):
        fio.write(Image(np.ascontiguousarray(data), origin={"range": (0, 255)}), tmp_path / f"{name}.png")
    found = read_mask(tmp_path)
    assert np.array_equal(found.data, (left + 2 * left[:, :, ::-1]) / 255)


def test_organs_that_overlap_are_refused_unless_by_a_few_voxels(tmp_path: Path) -> None:
    a, b = np.zeros((10, 20, 20)), np.zeros((10, 20, 20))
    a[:, :10], b[:, 10:] = 1, 1  # 2000 voxels each
    b[0, 9, :2] = 1
    found = read_mask(organs(tmp_path / "few", {"a": a, "b": b}))
    assert np.array_equal(found.data[0], np.where(b > 0, 2, a))
    assert "a.nii.gz and b.nii.gz overlap in 2 voxels, which are b.nii.gz's" in found.origin["notes"]
    b[0, 9, :3] = 1
    with pytest.raises(ReadError, match=r"a.nii.gz and b.nii.gz overlap in 3 voxels, 0.1% of the smaller") as error:
        read_mask(organs(tmp_path / "many", {"a": a, "b": b}))
    assert "\n" not in str(error.value)


def test_a_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    part = np.zeros((4, 5, 6))
    part[1] = 1
    several = organs(tmp_path / "several", {"a": part, "b": np.arange(120).reshape(4, 5, 6) % 3})
    with pytest.raises(ReadError, match=r"b.nii.gz has 2 labels; expected one organ a file"):
        read_mask(several)
    with pytest.raises(ReadError, match="leave the frame out"):
        read_mask(several, "a")
    other = organs(tmp_path / "other", {"a": part, "b": part[:, :, :-1]})
    with pytest.raises(ReadError, match=r"b.nii.gz has other voxels than a.nii.gz \(4 x 5 x 5 and 4 x 5 x 6"):
        read_mask(other)
    (tmp_path / "empty").mkdir()
    with pytest.raises(FabricaError):
        read_mask(tmp_path / "empty")


# ---------------------------------------------------------------- real data


@pytest.mark.skipif(not (DATA / "ct_mr_totalsegmentator").is_dir(), reason=f"no TotalSegmentator set at {DATA}")
def test_what_totalsegmentator_makes_of_a_series() -> None:
    home = DATA / "ct_mr_totalsegmentator"
    ct = fio.read(home / "example_ct_dicom")
    mask = read_mask(home / "example_seg_dicom.nii.gz", grid=ct)
    plain = fio.read(home / "example_seg_dicom.nii.gz")
    assert mask.data.shape == ct.data.shape and np.array_equal(mask.affine, ct.affine)
    assert np.array_equal(np.unique(mask.data), np.unique(plain.data)) and mask.data.max() > 64
    assert (ct.data[mask.data == 0].mean()) < ct.data[mask.data > 0].mean()  # air around organs


@pytest.mark.skipif(not (DATA / "mri_hippocampus_msd").is_dir(), reason=f"no hippocampus set at {DATA}")
def test_labels_of_the_decathlon() -> None:
    masks = sorted((DATA / "mri_hippocampus_msd").rglob("labels*/*.nii*"))
    assert masks
    for path in masks[:3]:
        mask = read_mask(path)
        assert mask.unit == "label" and set(np.unique(mask.data)) <= {0, 1, 2}
