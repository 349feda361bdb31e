"""Folders as they lie, scanned: patients whole, pairs whole, masks set apart, and what cannot be known is said."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image as Picture
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

import fabrica
from fabrica.data.manifest import Manifest, Row
from fabrica.data.mixtures import mixtures
from fabrica.data.scan import scan
from fabrica.data.sources import mixed, open_source
from fabrica.errors import UsageError
from fabrica.recipe.load import load_recipe
from fabrica.recipe.schema import DataConfig
from fabrica.training.loop import train
from tests.draws import draws

Draw = Callable[..., Path]
SLICES = 5


def picture(path: Path, value: int) -> None:
    """A small picture that differs for each value. Not by `fabrica.io.write`, which waits for the disk."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Picture.fromarray(np.full((4, 4), value % 65536, np.uint16)).save(path)


def used(manifest: Manifest) -> list[Row]:
    return [row for row in manifest.rows if row.split]


def whole(manifest: Manifest, of: Callable[[Row], str]) -> bool:
    """Whether no two splits share what `of` gives."""
    splits: dict[str, set[str]] = defaultdict(set)
    for row in used(manifest):
        splits[of(row)].add(row.split)
    return all(len(found) == 1 for found in splits.values())


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=draws(15), deadline=None)
@given(
    layout=st.sampled_from(
        ["{p}/slice_{k:02}", "{p}/mr/{k}", "{p}_slice_{k:02}", "train/{p}/{k}", "images/{p}_{k:03}", "HGG/{p}/{k}"]
    ),
    patient=st.sampled_from(["P{:03}", "sub-{:02}", "Case_{:04}", "TCGA_CS_{}_1996", "patient{:03}", "{:08}"]),
    numbers=st.lists(st.integers(1, 9999), min_size=4, max_size=7, unique=True),
    seed=st.integers(0, 99),
)
def test_a_patient_is_never_torn(
    tmp_path_factory: pytest.TempPathFactory, layout: str, patient: str, numbers: list[int], seed: int
) -> None:
    folder = tmp_path_factory.mktemp("set")
    for number in numbers:
        for k in range(SLICES):
            picture(folder / (layout.format(p=patient.format(number), k=k) + ".png"), 6 * number + k)
    manifest = scan(folder, seed=seed)
    owner = {patient.format(number) for number in numbers}
    assert len({row.patient for row in manifest.rows}) == len(owner)
    assert all(any(row.patient in name and name in row.path for name in owner) for row in manifest.rows)
    assert whole(manifest, lambda row: row.patient)
    assert not {row.label for row in manifest.rows} & owner
    assert any("patients are" in note for note in manifest.notes)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=10, deadline=None)
@given(
    sides=st.sampled_from([("mr", "ct"), ("A", "B"), ("LOW", "HIGH"), ("INPUT", "TARGET"), ("noisy", "clean")]),
    lone=st.sets(st.integers(0, 11), max_size=3),
    seed=st.integers(0, 99),
)
def test_a_pair_is_never_torn(
    tmp_path_factory: pytest.TempPathFactory, sides: tuple[str, str], lone: set[int], seed: int
) -> None:
    folder = tmp_path_factory.mktemp("set")
    for n, side in enumerate(sides):
        for k in range(12):
            if n == 0 or k not in lone:
                picture(folder / side / f"{k:03}.png", 20 * k + n)
    manifest = scan(folder, seed=seed)
    assert whole(manifest, lambda row: Path(row.path).name)
    assert not any(row.label for row in manifest.rows)
    assert {row.domain.lower() for row in manifest.rows} == {side.lower() for side in sides}
    assert sum(bool(row.pair) for row in manifest.rows) == 2 * (12 - len(lone))


@pytest.mark.parametrize("spelling", ["mr"])
def test_domains_found_by_folders_train_a_translator(tmp_path: Path, draw: Draw, spelling: str) -> None:
    """Two steps of pix2pix on MR/ and ct/ as they lie, whichever way the recipe spells them."""
    for n, side in enumerate(("MR", "ct")):
        for k in range(12):
            draw(f"{side}/{k}.png", seed=20 * n + k, size=(32, 32))
    scan(tmp_path).save(tmp_path / "m.csv")
    overrides = [f"data.source={tmp_path / 'm.csv'}", f"data.a={spelling}", "data.b=ct", "data.size=32", "data.batch=2",
                 "train.steps=2", "train.minutes=0", "train.validate_every=1000", "train.log_every=1",
                 "method.width=8", "method.levels=3", "method.critic_width=8", "data.slices=all"]  # fmt: skip
    folder = train(load_recipe("pix2pix-head", overrides), tmp_path / "run")
    assert fabrica.load(folder, device="cpu").recipe.data.paired


def test_masks_are_the_column_and_no_row_that_is_used(tmp_path: Path, draw: Draw) -> None:
    for c, name in enumerate(("benign", "malignant")):
        for k in range(6):
            draw(f"{name}/{name} ({k}).png", seed=10 * c + k)
            draw(f"{name}/{name} ({k})_mask.png", seed=50 + 10 * c + k, high=2)
    draw("benign/warning_label.png", seed=99)
    manifest = scan(tmp_path)
    rows = {row.path: row for row in used(manifest)}
    assert len(rows) == 13 and not any("_mask" in path for path in rows)
    assert rows["benign/benign (3).png"].mask == "benign/benign (3)_mask.png"
    assert {row.label for row in rows.values()} == {"benign", "malignant"} and not rows["benign/warning_label.png"].mask
    assert any("12 of 13 images have a mask" in note for note in manifest.notes)


def slice_of(path: Path, patient: str, study: str) -> None:
    ds, ds.file_meta = Dataset(), FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.SOPClassUID = ds.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.1"
    ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=[str(path)])
    ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.Modality, ds.PatientID = study, f"{study}.1", "CR", patient
    ds.Rows = ds.Columns = 8
    ds.SamplesPerPixel, ds.PhotometricInterpretation, ds.PixelRepresentation = 1, "MONOCHROME2", 0
    ds.BitsAllocated = ds.BitsStored = 16
    ds.HighBit = 15
    ds.PixelData = np.random.default_rng(len(study) + hash(study) % 999).integers(0, 999, (8, 8), np.uint16).tobytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    ds.save_as(path, enforce_file_format=True)


@pytest.mark.parametrize(("patient", "several"), [("ANON", True), ("0", True), ("Anonymous 1", True), ("H-4711", True)])
def test_one_stand_in_for_all_patients_is_said_with_the_way_out(tmp_path: Path, patient: str, several: bool) -> None:
    for k in range(6):
        slice_of(tmp_path / f"a{k}" / "1.dcm", patient, f"1.2.{k}")
    manifest = scan(tmp_path)
    assert {row.patient for row in manifest.rows} == {patient} and len({row.split for row in manifest.rows}) == 1
    notes = [note for note in manifest.notes if "6 studies name one patient" in note]
    assert len(notes) == 1 and repr(patient) in notes[0] and "--patient '^([^/]+)/'" in notes[0]
    said = scan(tmp_path, patient_regex="^([^/]+)/")
    assert {row.patient for row in said.rows} == {f"a{k}" for k in range(6)}
    assert not any("name one patient" in note for note in said.notes)


def test_a_patient_of_two_studies_among_others_is_no_stand_in(tmp_path: Path) -> None:
    for k in range(6):
        slice_of(tmp_path / f"{k}.dcm", f"H-{k // 2}", f"1.2.{k}")
    assert not any("name one patient" in note for note in scan(tmp_path).notes)


# --- names of any bytes

ODD = [b"r\xf6ntgen.png", b"new\nline.png", b'quo"te,comma.png', b"-dash.png", b" space .png", b"\xe2\x80\xa8.png",
       "Schädel;1.png".encode(), b"tab\t.png", b"back\\slash.png"]  # fmt: skip


def test_names_of_any_bytes_are_scanned_saved_and_found_again(tmp_path: Path, draw: Draw) -> None:
    home = tmp_path / "set"
    for k, name in enumerate(ODD):
        target = os.path.join(os.fsencode(home), name)  # noqa: PTH118
        drawn = draw("x.png", seed=k)
        home.mkdir(exist_ok=True)
        try:
            os.rename(drawn, target)  # noqa: PTH104
        except OSError:
            pytest.skip("this file system takes no such names")
    done = subprocess.run(
        [sys.executable, "-m", "fabrica", "scan", str(home), "-o", str(tmp_path / "m.csv"), "--json"],
        capture_output=True,
        check=True,
        env={**os.environ, "LC_ALL": "C.UTF-8", "PYTHONIOENCODING": ""},
    )
    assert json.loads(done.stdout.decode())["images"]["train"] > 0
    manifest = Manifest.load(tmp_path / "m.csv")
    manifest.check()
    assert sorted(os.fsencode(row.path) for row in manifest.rows) == sorted(b"set/" + name for name in ODD)
    assert all(row.id.encode() and row.patient.encode() for row in manifest.rows)  # those are plain text
    source = open_source(DataConfig(str(tmp_path / "m.csv"), size=[16, 16]), "train")
    assert len(list(source.samples())) == source.count and source.fingerprint()
    with pytest.raises(UsageError, match=r"r\\xf6ntgen\.png is not UTF-8"):
        manifest.save(tmp_path / "m.parquet")


# --- what does not belong together


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"modality": ["CT", "CT", "MR"]}, "modality (2 CT, 1 MR): .*data.where.modality=CT"),
        ({"unit": ["HU", "arbitrary", "HU"]}, "unit (2 HU, 1 arbitrary): .*data.where.unit=HU"),
        ({"channels": ["3", "1", "3"]}, "colour (2 colour, 1 grey): .*data.where.channels=3"),
        ({"dims": ["2", "3", "3"]}, "dimensions (2 volumes, 1 single pictures): .*data.where.dims=3"),
        ({"modality": ["CT", "MR", "MR"], "unit": ["HU", "arbitrary", "arbitrary"]}, "modality (2 MR, 1 CT)"),
        ({"modality": ["CR", "DX", "DX"]}, ""),
        ({"modality": ["CT", "", "CT"], "channels": ["1", "1", ""]}, ""),
        ({"domain": ["mr", "ct", "ct"], "modality": ["MR", "CT", "CT"], "unit": ["arbitrary", "HU", "HU"]}, ""),
        ({"domain": ["b", "a", "a"], "channels": ["1", "1", "3"]}, "images of domain a are mixed in colour"),
        ({"split": ["", "train", "train"], "channels": ["3", "1", "1"]}, ""),
    ],
)
def test_mixed_sets_are_said_with_the_filter_that_parts_them(values: dict[str, list[str]], words: str) -> None:
    rows = [Row(**{"split": "train", **{name: column[k] for name, column in values.items()}}) for k in range(3)]
    said = mixtures(rows)
    assert len(said) == bool(words)
    for part in words.split(".*"):
        assert part in "".join(said)


def test_training_says_what_is_mixed_and_the_filter_parts_it(tmp_path: Path, draw: Draw) -> None:
    for k in range(12):
        draw(f"{k}.png", seed=k, size=(32, 32))
    for k in range(12, 16):
        colour = np.random.default_rng(k).integers(0, 255, (32, 32, 3), np.uint8)
        Picture.fromarray(colour).save(tmp_path / f"{k}.png")
    manifest = scan(tmp_path, fractions=(0.8, 0.2, 0))
    assert any("mixed in colour (12 grey, 4 colour)" in note for note in manifest.notes)
    manifest.save(tmp_path / "m.csv")
    tiny = [f"data.source={tmp_path / 'm.csv'}", "data.size=32", "data.batch=2", "train.steps=1", "train.minutes=0"]
    said: list[str] = []
    with pytest.raises(UsageError, match="3 channels"):
        train(load_recipe("ddpm-xray", tiny), tmp_path / "run", warn=said.append)
    assert any("data.where.channels=1" in sentence for sentence in said)
    config = load_recipe("ddpm-xray", [*tiny, "data.where.channels=1"]).data
    assert mixed(config) == [] and open_source(config, "train").count == sum(
        row.split == "train" and row.channels == "1" for row in manifest.rows
    )


def test_images_called_masks_of_no_image_are_said(tmp_path: Path) -> None:
    for k, name in enumerate(("t1_seg_gif.png", "t2.png", "other.png")):
        picture(tmp_path / "d" / name, k)
    manifest = scan(tmp_path / "d")
    assert len(manifest.rows) == 3
    assert any(note.startswith("1 images are called masks, t1_seg_gif.png for one") for note in manifest.notes)
    picture(tmp_path / "d" / "t2_seg.png", 9)
    (tmp_path / "d" / "t1_seg_gif.png").unlink()
    assert not any("called masks" in note for note in scan(tmp_path / "d").notes)
