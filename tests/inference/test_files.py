"""From files to files: what goes in comes out on its own grid, with its maps; what should not be translated is not."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import pytest
from PIL import Image as Picture

from fabrica import io
from fabrica.codec import Codec
from fabrica.errors import UsageError
from fabrica.image import Float32, Image
from fabrica.inference.files import apply
from fabrica.inference.translation import Way
from fabrica.inference.translator import Deployed
from fabrica.model.model import Model
from fabrica.phantoms.head.head import head
from fabrica.recipe.found import Fingerprint
from fabrica.recipe.schema import DataConfig
from tests.real import DATA

Made = Callable[..., Model]


@pytest.fixture
def ct(tmp_path: Path) -> Path:
    """A volume of a head in HU as a DICOM series."""
    io.write(head(3, 48, 6, contrasts=["CT"]).images["CT"], tmp_path / "series", as_="dicom")
    return tmp_path / "series"


def test_every_voxel_of_a_dicom_series_comes_back_within_one_hu(unchanged: Made, ct: Path, tmp_path: Path) -> None:
    (outcome,) = apply(unchanged(), ct, tmp_path / "out")
    before, after = io.read(ct), io.read(tmp_path / "out" / outcome.output)
    assert outcome.output == "series" and after.unit == "HU"
    assert float(np.abs(after.data - before.data).max()) <= 1.0
    assert np.allclose(after.affine, before.affine)
    source = [pydicom.dcmread(path) for path in sorted(ct.iterdir())]
    result = [pydicom.dcmread(path) for path in sorted((tmp_path / "out" / "series").iterdir())]
    for old, new in zip(source, result, strict=True):
        assert new.FrameOfReferenceUID == old.FrameOfReferenceUID and new.StudyInstanceUID == old.StudyInstanceUID
        assert new.SeriesInstanceUID != old.SeriesInstanceUID and new.ImageType[0] == "DERIVED"
        assert [item.ReferencedSOPInstanceUID for item in new.SourceImageSequence] == [old.SOPInstanceUID]
        assert new.SyntheticData == "YES" and "MR to CT" in new.DerivationDescription


def test_every_voxel_of_a_nifti_comes_back_within_one_hu(unchanged: Made, tmp_path: Path) -> None:
    image = head(3, 48, 6, contrasts=["CT"]).images["CT"]
    io.write(image, tmp_path / "ct.nii.gz")
    apply(unchanged(), tmp_path / "ct.nii.gz", tmp_path / "sct.nii.gz")
    after = io.read(tmp_path / "sct.nii.gz")
    assert float(np.abs(after.data - image.data).max()) <= 1.0
    assert np.allclose(after.affine, image.affine, atol=1e-4)
    assert json.loads((tmp_path / "sct.json").read_text())["results"][0]["output"] == "sct.nii.gz"
    assert (tmp_path / "sct-preview.png").is_file()


@pytest.mark.skipif(not DATA.is_dir(), reason=f"no real images at {DATA}; set FABRICA_DATA to run this test")
def test_every_voxel_of_a_real_ct_comes_back_within_one_hu(unchanged: Made, tmp_path: Path) -> None:
    folder = DATA / "ct_mr_totalsegmentator"
    for k, source in enumerate((folder / "example_ct_dicom", folder / "example_ct.nii.gz")):
        before, out = io.read(source), tmp_path / str(k)
        (outcome,) = apply(unchanged(size=[256, 256]), source, out, overlap=0.25)
        after = io.read(out / outcome.output)
        assert float(np.abs(after.data - np.clip(before.data, -1024, 3071)).max()) <= 1.0
        assert np.allclose(after.affine, before.affine, atol=1e-3)


def test_maps_and_flags_stand_beside_the_result(unchanged: Made, ct: Path, tmp_path: Path) -> None:
    trusting = unchanged(seen=Fingerprint(uncertainty=1e-9))  # held-out images were certain to the last digit
    (outcome,) = apply(trusting, ct, tmp_path / "out", uncertainty=True)
    told = json.loads((tmp_path / "out" / "result.json").read_text())
    assert told["model"] == "unchanged" and told["direction"] == "a2b"
    (result,) = told["results"]
    assert result["uncertain"] is True and result["uncertainty"] > 0
    spread = io.read(tmp_path / "out" / outcome.uncertainty_map)
    assert spread.size == io.read(ct).size and float(spread.data.min()) >= 0
    doubting = unchanged(seen=Fingerprint(uncertainty=1.0))
    assert apply(doubting, ct, tmp_path / "again", uncertainty=True)[0].uncertain is False


def test_a_folder_of_several_kinds_gives_each_its_own_kind(unchanged: Made, ct: Path, tmp_path: Path) -> None:
    image = io.read(ct)
    folder = tmp_path / "many"
    io.write(image, folder.joinpath("volume.nii.gz") if folder.mkdir() is None else folder)
    io.write(image, folder / "series", as_="dicom")
    io.write(Image(image.data[:, 2], image.affine, "HU", {"modality": "CT"}), folder / "slice.dcm")
    outcomes = apply(unchanged(), folder, tmp_path / "out")
    assert sorted(outcome.output for outcome in outcomes) == ["series", "slice.dcm", "volume.nii.gz"]
    for outcome in outcomes:
        after = io.read(tmp_path / "out" / outcome.output)
        assert float(np.abs(after.data - io.read(Path(outcome.input)).data).max()) <= 1.0


def test_volume_formats_and_their_volumes_give_results_of_their_own_kind(unchanged: Made, tmp_path: Path) -> None:
    image = head(3, 48, 6, contrasts=["CT"]).images["CT"]
    folder = tmp_path / "many"
    folder.mkdir()
    for name in ("a.mha", "b.nrrd", "c.mgz", "d.nii.gz"):
        io.write(image, folder / name)
    two = np.stack([image.data[0], image.data[0] + 1]).T.astype(np.float32)
    nibabel.save(nibabel.Nifti1Image(two, image.affine), folder / "e.nii")  # type: ignore[attr-defined]
    outcomes = apply(unchanged(), folder, tmp_path / "out")
    names = ["a.mha", "b.nrrd", "c.mgz", "d.nii.gz", "e_volume=1.nii.gz", "e_volume=2.nii.gz"]
    assert [outcome.output for outcome in outcomes] == names
    for k, name in enumerate(names):
        after = io.read(tmp_path / "out" / name)
        assert float(np.abs(after.data - image.data).max()) <= 1.0 + (k == 5)
        assert np.allclose(after.affine, image.affine, atol=1e-3) and after.origin["synthetic"]
    apply(unchanged(), folder / "a.mha", tmp_path / "one.mhd")
    assert np.array_equal(io.read(tmp_path / "one.mhd").data, io.read(tmp_path / "out" / "a.mha").data)


def test_what_is_unlike_training_is_refused_and_nothing_is_written(unchanged: Made, ct: Path, tmp_path: Path) -> None:
    picky = unchanged(seen=Fingerprint("MR", [], [100.0, 120.0]))
    with pytest.raises(UsageError, match=r"its modality is CT, and MR in training; its field of view is 2\d\d mm"):
        apply(picky, ct, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    (outcome,) = apply(picky, ct, tmp_path / "out", force=True)
    assert outcome.overridden[0] == "its modality is CT, and MR in training"


def test_of_several_images_the_others_are_made(unchanged: Made, ct: Path, tmp_path: Path) -> None:
    image = io.read(ct)
    for name, modality in (("one", "CT"), ("two", "MR")):
        io.write(image.with_data(image.data, origin={"modality": modality}), tmp_path / "in" / name, as_="dicom")
    outcomes = apply(unchanged(seen=Fingerprint("CT")), tmp_path / "in", tmp_path / "out")
    assert [bool(outcome.refused) for outcome in outcomes] == [False, True]
    assert "its modality is MR" in outcomes[1].refused and not (tmp_path / "out" / "two").exists()


def test_a_series_with_a_missing_slice_and_values_that_are_no_numbers_are_refused(
    unchanged: Made, ct: Path, tmp_path: Path
) -> None:
    (ct / "0003.dcm").unlink()
    with pytest.raises(UsageError, match="1 of its slices are missing"):
        apply(unchanged(), ct, tmp_path / "out")
    broken = np.zeros((32, 32), np.float32)
    broken[2, 3] = np.nan
    nibabel.save(nibabel.Nifti1Image(broken[..., None], np.eye(4)), tmp_path / "broken.nii")  # type: ignore[attr-defined]
    np.savez(tmp_path / "broken.npz", images=broken[None])
    for name in ("broken.nii", "broken.npz"):
        with pytest.raises(UsageError, match="1 of its values are no numbers"):
            apply(unchanged(), tmp_path / name, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_ct_made_of_ct_is_shown_in_one_window(unchanged: Made, tmp_path: Path) -> None:
    """What gives back its input must look like it."""
    values = np.linspace(-1000, 1000, 32 * 32, dtype=np.float32).reshape(1, 32, 32)
    image = Image(values, unit="HU", origin={"modality": "CT", "window": (40.0, 400.0)})
    io.write(image, tmp_path / "ct.dcm")
    hu = Codec("window", -1024.0, 3071.0, "HU")
    apply(unchanged(codec=hu, codec_b=hu, a="CT of another scanner"), tmp_path / "ct.dcm", tmp_path / "out", force=True)
    shown = np.asarray(Picture.open(tmp_path / "out" / "ct-preview.png").convert("L")).astype(int)
    source, result = shown[:, :32], shown[:, 32:]
    assert np.abs(source - result).max() <= 1 and source.min() == 0 and source.max() == 255


def test_a_folder_in_which_nothing_was_made_is_no_obstacle(unchanged: Made, ct: Path, tmp_path: Path) -> None:
    for k in range(2):
        (tmp_path / "in").mkdir(exist_ok=True)
        (tmp_path / "in" / f"{k}.png").write_bytes(b"no picture")
    (tmp_path / "in" / "short.mha").write_bytes(b"ObjectType = Image\n")
    outcomes = apply(unchanged(), tmp_path / "in", tmp_path / "out")
    assert len(outcomes) == 3 and all(outcome.refused for outcome in outcomes)
    assert "without ElementDataFile" in outcomes[0].refused and (tmp_path / "out" / "result.json").exists()
    apply(unchanged(), ct, tmp_path / "out")
    with pytest.raises(UsageError, match="already holds results"):
        apply(unchanged(), ct, tmp_path / "out")


def test_results_are_never_mixed(unchanged: Made, ct: Path, tmp_path: Path) -> None:
    apply(unchanged(), ct, tmp_path / "out")
    with pytest.raises(UsageError, match="already holds results"):
        apply(unchanged(), ct, tmp_path / "out")
    (tmp_path / "out" / "result.json").unlink()
    with pytest.raises(UsageError, match="already holds files"):
        apply(unchanged(), ct, tmp_path / "out")


@pytest.mark.parametrize(
    ("source", "words"),
    [("nowhere", "nothing at"), ("empty", "no image in"), ("text", "no image in")],
)
def test_nothing_to_translate_is_said_in_one_line(unchanged: Made, tmp_path: Path, source: str, words: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "a.txt").write_text("no image")
    with pytest.raises(UsageError, match=words) as caught:
        apply(unchanged(), tmp_path / source, tmp_path / "out")
    assert "\n" not in str(caught.value)


SEG, LABEL_MAP = "1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.66.7"


def tissues(windows: Float32) -> Float32:
    """Air, soft tissue and bone of windows (B, 1, *W) in HU of -1024 to 3071, as one-hot channels (B, 3, *W)."""
    hu = (windows[:, :1] + 1) / 2 * 4095 - 1024
    classes = np.where(hu > 300, 2, np.where(hu > -300, 1, 0))
    return np.concatenate([np.where(classes == k, 1.0, -1.0) for k in range(3)], axis=1).astype(np.float32)


@pytest.mark.parametrize(
    ("as_", "out", "output", "kind"),
    [
        ("", "out", "series.dcm", SEG),
        ("dicom", "out", "series.dcm", SEG),
        ("seg", "out", "series.dcm", SEG),
        ("seg-labelmap", "out", "series.dcm", LABEL_MAP),
        ("seg-labelmap", "made.dcm", "made.dcm", LABEL_MAP),
        ("", "made.dcm", "made.dcm", SEG),
        ("nifti", "out", "series.nii.gz", ""),
    ],
)
def test_a_label_map_of_a_dicom_series_is_a_segmentation(
    ct: Path, tmp_path: Path, as_: str, out: str, output: str, kind: str
) -> None:
    hu, labels = Codec("window", -1024.0, 3071.0, "HU"), Codec("label", unit="label", classes=3)
    data = DataConfig(a="CT", b="mask", paired=True, size=[32, 32], fit="exact")
    way = Way(tissues, hu, labels, data, Fingerprint("CT"), "SEG", model="tissues")
    (outcome,) = apply(Deployed("tissues", "0" * 12, {"a2b": way}), ct, tmp_path / out, as_=as_)
    image, folder = io.read(ct), tmp_path / out if out == "out" else tmp_path
    assert outcome.output == output
    found = io.read_mask(folder / output, grid=image)
    assert np.array_equal(found.data, np.where(image.data > 300, 2, np.where(image.data > -300, 1, 0)))
    if kind:
        dataset = pydicom.dcmread(folder / output)
        assert dataset.SOPClassUID == kind and dataset.SegmentSequence[-1].SegmentAlgorithmName == "tissues"
    with pytest.raises(UsageError, match="seg is for label maps"):
        apply(Deployed("ct", "0" * 12, {"a2b": replace(way, target=hu)}), ct, tmp_path / "other", as_="seg")
