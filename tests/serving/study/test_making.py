"""Studies made of files: what is shown is right and tells no arm; what would tell it, and what lacks, is refused."""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

import fabrica
from fabrica.errors import FabricaError, UsageError
from fabrica.image import Image
from fabrica.phantoms.chest.chest import chest
from fabrica.phantoms.head.head import head
from fabrica.serving.study.config import parsed
from fabrica.serving.study.folder import Study, open_study
from fabrica.serving.study.making import new
from fabrica.serving.study.sources import Truth
from tests.handmade import handmade
from tests.serving.study.made import KEY, SIZE, arms, config_of, no_model, study

PNG, NIFTI, DICOM = "as-png", "as-nifti", "as-dicom"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("study")
    arms(home)
    return home


@pytest.fixture(scope="module")
def twins(tmp_path_factory: pytest.TempPathFactory) -> Study:
    """A study whose three arms are the same pictures in three formats: whatever of it tells an arm is no picture."""
    home = tmp_path_factory.mktemp("twins")
    for case in range(20):
        image = chest(case % 6, SIZE).image
        values = np.clip(image.data + case, 0, 4095).astype(np.float32)
        flat = Image(values, origin={"range": (0, 4095), "step": 1.0, "modality": "DX", "patient": f"Doe^{case}"})
        for arm, kind, suffix in ((PNG, "png", ".png"), (NIFTI, "npz", ".npz"), (DICOM, "dicom", ".dcm")):
            (home / arm).mkdir(exist_ok=True)
            fabrica.write(flat, home / arm / f"patient{case:02d}{suffix}", as_=kind)
    names = (PNG, NIFTI, DICOM)
    return study(home, config_of("clarity", names, washout=5, repeats=3, catch=["patient07"], training=["patient03"]))


def test_the_same_pictures_are_the_same_bytes(twins: Study) -> None:
    by_case: dict[str, set[str]] = {}
    for image in twins.images:
        by_case.setdefault(image.case, set()).add(image.sha256)
    assert len(twins.images) == 60 and len(by_case) == 20
    assert all(len(hashes) == 1 for hashes in by_case.values())


def features(twins: Study) -> Iterator[tuple[str, list[float]]]:
    """Whatever can be measured of the files that are shown, and of the orders, but for the pictures."""
    files = {file.name: file for file in (twins.folder / "shown" / "images").iterdir()}
    listed = [file.name for file in (twins.folder / "shown" / "images").iterdir()]
    yield "name", [int(i.file, 16) / 16**20 for i in twins.images]
    yield "first letter", [int(i.file[0], 16) for i in twins.images]
    yield "last letter", [int(i.file[-1], 16) for i in twins.images]
    yield "size", [files[i.file].stat().st_size for i in twins.images]
    yield "blocks", [files[i.file].stat().st_blocks for i in twins.images]
    yield "modified", [files[i.file].stat().st_mtime_ns for i in twins.images]
    yield "changed", [files[i.file].stat().st_ctime_ns for i in twins.images]
    yield "inode", [files[i.file].stat().st_ino for i in twins.images]
    yield "place in the folder", [listed.index(i.file) for i in twins.images]
    yield "mode", [files[i.file].stat().st_mode for i in twins.images]
    for offset in (0, 1, SIZE * SIZE, -1):
        yield f"byte {offset}", [files[i.file].read_bytes()[offset] for i in twins.images]


def test_nothing_that_is_shown_tells_the_arm(twins: Study) -> None:
    arm_of = [image.arm for image in twins.images]
    for name, values in features(twins):
        groups = [[v for v, arm in zip(values, arm_of, strict=True) if arm == one] for one in twins.config.names]
        p = 1.0 if len(set(values)) == 1 else stats.kruskal(*groups).pvalue
        assert p > 1e-3, name
    sizes = {file.stat().st_size for file in (twins.folder / "shown" / "images").iterdir()}
    times = {file.stat().st_mtime for file in (twins.folder / "shown" / "images").iterdir()}
    assert sizes == {4096} and len(times) == 1


def test_orders_tell_no_arm(twins: Study) -> None:
    for reader in {trial.reader for trial in twins.trials}:
        own = [trial for trial in twins.trials if trial.reader == reader and trial.part == "reading"]
        groups = [[trial.place for trial in own if trial.arms == (arm,)] for arm in twins.config.names]
        assert stats.kruskal(*groups).pvalue > 1e-3
        names = [[int(trial.trial, 16) / 16**20 for trial in own if trial.arms == (arm,)] for arm in twins.config.names]
        assert stats.kruskal(*names).pvalue > 1e-3


def test_no_word_of_the_truth_is_shown(twins: Study) -> None:
    words = [
        *twins.config.names,
        "patient",
        "Doe",
        ".png",
        ".npz",
        ".dcm",
        "PNG",
        "DICM",
        "catch",
        "repeat",
        "training",
    ]
    words += [str(twins.folder.parent), "reference", KEY.hex(), *twins.config.readers]
    for file in (twins.folder / "shown").rglob("*"):
        text = file.name.encode() + (file.read_bytes() if file.is_file() else b"")
        assert not [word for word in words if word.encode() in text], file
    keys = set()
    for file in (twins.folder / "shown" / "readers").iterdir():
        for trial in json.loads(file.read_text())["trials"]:
            keys |= {frozenset(trial), *(frozenset(image) for image in trial["images"])}
    assert keys == {frozenset({"trial", "practice", "images"}), frozenset({"file", "shape", "aspect"})}
    assert (twins.folder / "key").stat().st_mode & 0o077 == 0
    assert all(file.stat().st_mode & 0o077 == 0 for file in (twins.folder / "key").iterdir())


def test_a_reader_is_told_of_his_own_trials_alone(twins: Study) -> None:
    readers = {trial.reader for trial in twins.trials}
    assert len(readers) == 3
    for reader in readers:
        own = json.loads((twins.folder / "shown" / "readers" / f"{reader}.json").read_text())["trials"]
        told = twins.told(reader)
        assert [t["trial"] for t in told] == [t["trial"] for t in own] and len(told) == 3 * 18 + 3 + 1 + 1
        assert not [image.file for image in twins.images if image.file in json.dumps(told)]
        for trial in own:
            assert twins.image(reader, trial["trial"], 0).name == trial["images"][0]["file"]
            for other, place in ((reader, 1), (reader, -1), *((r, 0) for r in readers - {reader})):
                with pytest.raises(UsageError):
                    twins.image(other, trial["trial"], place)
    with pytest.raises(UsageError):
        twins.image(reader, "../../key/secret", 0)


def test_what_is_shown_is_what_was_there(place: Path) -> None:
    made = study(place, config_of("clarity", window=[2000, 4000], bits=12), "values")
    for image in made.images:
        source = fabrica.read(place / image.arm / f"{image.case}.png").data[0].astype(np.float64)
        wanted = np.rint(np.clip(source, 0, 4000) * (4095 / 4000))
        assert np.array_equal(made.pixels(image.file)[0, :, :, 0], wanted)


def test_volumes_are_turned_and_all_slices_are_shown(tmp_path: Path) -> None:
    volume = head(0, 24, 5, contrasts=["T1"]).images["T1"]
    turned = volume.data[:, ::-1, :, ::-1]
    shift = volume.affine @ np.array([[-1, 0, 0, 23], [0, 1, 0, 0], [0, 0, -1, 4], [0, 0, 0, 1.0]])
    for arm, image in (("a", volume), ("b", Image(np.ascontiguousarray(turned), shift, volume.unit, volume.origin))):
        (tmp_path / arm).mkdir()
        fabrica.write(image, tmp_path / arm / "h.nii.gz")
        fabrica.write(image.with_data(image.data * 0.5), tmp_path / arm / "i.nii.gz")
    made = study(tmp_path, config_of("preference", ("a", "b"), bits=10))
    one, two = ({i.case: made.pixels(i.file) for i in made.images if i.arm == arm} for arm in "ab")
    assert one["h"].shape == (5, 24, 24, 1)
    assert all(np.array_equal(one[case], two[case]) for case in one)
    assert not np.array_equal(one["h"][0], one["h"][4])


def test_colours_and_pixels_that_are_not_square(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for arm in ("a", "b"):
        (tmp_path / arm).mkdir()
        colour = Image(rng.integers(0, 256, (3, 8, 12)).astype(np.float32), origin={"range": (0, 255)})
        fabrica.write(colour, tmp_path / arm / "c.png")
    made = study(tmp_path, config_of("preference", ("a", "b")))
    for image in made.images:
        read = fabrica.read(tmp_path / image.arm / "c.png").data
        assert np.array_equal(np.moveaxis(made.pixels(image.file)[0], -1, 0), read)
    flat, spacing = np.zeros((1, 8, 12), np.float32), np.diag([0.5, 2.0, 1.0, 1.0])
    flat[0, 2:5] = 100
    for arm, affine in (("d", spacing), ("e", spacing), ("f", np.diag([0.5, 0.5, 1.0, 1.0]))):
        (tmp_path / arm).mkdir()
        fabrica.write(Image(flat, affine, "HU", {"modality": "CT"}), tmp_path / arm / "c.dcm")
    made = study(tmp_path, config_of("preference", ("d", "e"), window=[50, 100]), "tall")
    assert set(made.aspects.values()) == {4.0}
    refused(tmp_path, config_of("preference", ("d", "f"), window=[50, 100]), "pixels 1 times as high as wide in arm f")


def test_made_again_it_is_the_same_and_tokens_are_new(place: Path) -> None:
    config = parsed(config_of("clarity", repeats=2))
    tokens = []
    for name in ("one", "two"):
        assert new(config, place, place / name, no_model, key=KEY)
        tokens.append((place / name / "key" / "links.csv").read_text())
    one, two = open_study(place / "one"), open_study(place / "two")
    assert one.trials == two.trials and one.images == two.images and tokens[0] != tokens[1]
    assert new(config, place, place / "other", no_model)
    assert not {t.trial for t in open_study(place / "other").trials} & {t.trial for t in one.trials}
    assert not new(config, place, place / "one", no_model)  # it is there


def test_what_is_told_after_practice_names_no_arm(place: Path) -> None:
    training = {"case00": ["reference"], "case01": ["reference", ""], "case02": []}
    made = study(place, config_of("preference", training=training), "practised")
    told = {(t.case, t.arms): made.feedback[t.trial]["right"] for t in made.trials if t.part == "training"}
    assert {order for _, order in told} == {("degraded", "reference"), ("reference", "degraded")}
    for (case, order), right in told.items():
        best = order.index("reference") + 1
        assert right == {"case00": [best], "case01": [best, 0], "case02": []}[case]


def test_who_answers_while_it_is_made_anew_loses_nothing(place: Path) -> None:
    config = parsed(config_of("clarity"))
    assert new(config, place, place / "meanwhile", no_model)

    def answered(phase: str, done: int, total: int) -> None:
        if phase == "writing images" and done == total:
            with open_study(place / "meanwhile").answers() as answers:
                reader = next(iter(answers.readers))
                answers.answer(reader, answers.trials[reader][0], {"score": 3}, seconds=1, request="a")

    with pytest.raises(UsageError, match="has 1 answers"):
        new(replace(config, seed=1), place, place / "meanwhile", no_model, progress=answered)
    with open_study(place / "meanwhile").answers() as answers:
        assert len(answers.rows()) == 1


def test_nobody_can_answer_between_the_last_look_and_the_exchange(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config, out = parsed(config_of("clarity")), place / "exchanged"
    assert new(config, place, out, no_model)
    move, moved = Path.rename, []

    def rename(path: Path, to: Path) -> Path:
        if path == out:
            other = sqlite3.connect(out / "answers.sqlite", timeout=0)
            with pytest.raises(sqlite3.OperationalError, match="locked"):
                other.execute("BEGIN IMMEDIATE")
            other.close()
            moved.append(to)
        return move(path, to)

    monkeypatch.setattr(Path, "rename", rename)
    assert new(replace(config, seed=1), place, out, no_model) and len(moved) == 1
    assert open_study(out).config.seed == 1


def test_pixels_that_differ_too_little_to_be_seen_tell_no_arm_by_numbers(tmp_path: Path) -> None:
    for arm, height in (("a", 1.0), ("b", 1.006)):
        (tmp_path / arm).mkdir()
        for case in range(4):
            values = np.random.default_rng(case).integers(0, 4095, (1, SIZE, SIZE)).astype(np.float32)
            affine = np.diag([1.0, height, 1.0, 1.0])
            fabrica.write(Image(values[:, None], affine=affine), tmp_path / arm / f"case{case}.nii.gz")
    made = study(tmp_path, config_of("clarity", ("a", "b")))
    assert len(set(made.aspects.values())) == 1


def test_a_config_may_change_until_somebody_answers(place: Path) -> None:
    config = parsed(config_of("clarity"))
    assert new(config, place, place / "late", no_model)
    assert new(replace(config, seed=1), place, place / "late", no_model)
    made = open_study(place / "late")
    with made.answers() as answers:
        (reader, *_) = answers.readers
        answers.answer(reader, answers.trials[reader][0], {"score": 3}, seconds=1, request="a")
    with pytest.raises(UsageError, match=r"has 1 answers, and the config was changed since \(seed\)"):
        new(config, place, place / "late", no_model)
    assert not new(replace(config, seed=1), place, place / "late", no_model)
    with open_study(place / "late").answers() as answers:
        assert len(answers.rows()) == 1


def test_a_damaged_study_is_one_line(place: Path, tmp_path: Path) -> None:
    shutil.copytree(study(place, config_of("clarity"), "whole").folder, tmp_path / "damaged")
    (tmp_path / "damaged" / "shown" / "study.json").write_text('{"image": {}}')
    with pytest.raises(FabricaError, match="the study is damaged"):
        open_study(tmp_path / "damaged")


@pytest.mark.parametrize(
    ("file", "said"),
    [
        ("config.yaml", "config.yaml was changed since the study was made"),
        ("trials.csv", "was changed since the study was made"),
        ("truth.csv", "was changed since the study was made"),
    ],
)
def test_an_edited_key_is_refused(file: str, said: str, place: Path, tmp_path: Path) -> None:
    if not (place / "edited").exists():
        study(place, config_of("clarity"), "edited")
    shutil.copytree(place / "edited", tmp_path / "edited")
    path = tmp_path / "edited" / "key" / file
    text = path.read_text().replace("degraded,", "reference,", 1).replace("seed: 0", "seed: 3")
    path.write_text(text + ("case00,1,[]\n" if file == "truth.csv" else ""))
    with pytest.raises(FabricaError) as raised:
        open_study(tmp_path / "edited")
    assert said in str(raised.value) and "\n" not in str(raised.value)


def refused(home: Path, config: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError) as raised:
        new(parsed(config), home, home / "refused", no_model)
    assert said in str(raised.value) and "\n" not in str(raised.value)
    assert not (home / "refused").exists() and not list(home.glob(".refused*"))


def test_what_would_tell_the_arms_is_refused(tmp_path: Path) -> None:
    def written(arm: str, data: np.ndarray[Any, Any], suffix: str = ".dcm", unit: str = "HU", **origin: Any) -> None:
        (tmp_path / arm).mkdir(exist_ok=True)
        for case in ("c1", "c2"):
            image = Image(np.asarray(data, np.float32), unit=unit, origin={"modality": "CT", **origin})
            fabrica.write(image, tmp_path / arm / f"{case}{suffix}")

    rng = np.random.default_rng(0)
    grey = rng.integers(0, 200, (1, 16, 16)).astype(np.float32)
    written("a", grey, window=(40.0, 400.0))
    written("small", grey[:, :8, :8], window=(40.0, 400.0))
    written("bright", grey, window=(50.0, 300.0))
    written("counts", grey, ".npz", unit="arbitrary")
    written("coarse", np.round(grey / 40) * 40, window=(40.0, 400.0))
    (tmp_path / "few").mkdir()
    shutil.copy(tmp_path / "a" / "c1.dcm", tmp_path / "few")
    refused(
        tmp_path, config_of("clarity", ("a", "small")), "case c1 has 8 × 8 pixels in arm small, and 16 × 16 in arm a"
    )
    refused(tmp_path, config_of("clarity", ("a", "bright")), "state one for all, window: [centre, width]")
    refused(tmp_path, config_of("clarity", ("a", "counts")), "unit: HU in arm a, arbitrary in arm counts")
    refused(tmp_path, config_of("clarity", ("a", "coarse")), "grey values of arm coarse lie 40 apart")
    refused(
        tmp_path, config_of("clarity", ("a", "few")), "arm few lacks the image of 1 cases, the first is c2, which arm a"
    )
    refused(tmp_path, config_of("clarity", ("a", "nowhere")), "nothing at")
    refused(tmp_path, config_of("real-or-synthetic", ("a", "small")), "sizes would tell the arms")
    refused(
        tmp_path, config_of("clarity", ("a", "a2"), catch=["c9"], arms=[{"name": "a", "images": "a"}]), "no case 'c9'"
    )
    assert new(parsed(config_of("clarity", ("a", "bright"), window=[40, 400])), tmp_path, tmp_path / "one", no_model)
    (tmp_path / "few" / "c2.dcm").write_bytes((tmp_path / "a" / "c2.dcm").read_bytes()[:300])
    refused(tmp_path, config_of("clarity", ("a", "few")), "c2.dcm")


def test_a_folder_that_is_no_study_is_left_alone(place: Path) -> None:
    with pytest.raises(UsageError, match=r"and no study; choose another folder"):
        new(parsed(config_of("clarity")), place, place / "degraded", no_model)
    with pytest.raises(UsageError, match=r"no study at"):
        open_study(place / "degraded")


def test_manifests_are_matched_by_patient(place: Path, tmp_path: Path) -> None:
    for arm in ("degraded", "reference"):
        rows = [f"{arm}-{i},p{i},{place / arm}/case{i:02d}.png,{'test' if i < 3 else 'train'}" for i in range(6)]
        (tmp_path / f"{arm}.csv").write_text("\n".join(["id,patient,path,split", *rows]))
    listed = [{"name": arm, "images": f"{arm}.csv", "where": {"split": "test"}} for arm in ("degraded", "reference")]
    made = study(tmp_path, config_of("clarity", arms=listed))
    assert {image.case for image in made.images} == {"p0", "p1", "p2"} and len(made.images) == 6


def test_real_and_synthetic_images_are_cases_of_their_own(place: Path) -> None:
    made = study(place, config_of("real-or-synthetic", training=["reference/case01"]), "turing")
    assert len(made.images) == 24 and all(t.arms == ("image",) for t in made.trials)
    assert {t.case for t in made.trials if t.part == "reading"} >= {"degraded/case01", "reference/case00"}
    feedback = json.loads((made.folder / "key" / "feedback.json").read_text())
    assert len(feedback) == 3 and all(each == {"right": ["synthetic"]} for each in feedback.values())


def test_the_truth_of_a_detection_comes_of_a_table_or_of_masks(place: Path, tmp_path: Path) -> None:
    (tmp_path / "masks").mkdir()
    rows = ["case,truth,left,top,right,bottom"]
    for case in range(12):
        mask = np.zeros((1, SIZE, SIZE), np.float32)
        if case % 2:
            mask[0, 5:9, 3 : 5 + case] = 1
            mask[0, 20:22, 20:22] = 2
            rows += [f"case{case:02d},1,3,5,{5 + case},9", f"case{case:02d},1,20,20,22,22"]
        else:
            rows.append(f"case{case:02d},no,,,,")
        fabrica.write(Image(mask, unit="label", origin={"range": (0, 255)}), tmp_path / "masks" / f"case{case:02d}.png")
    (tmp_path / "truth.csv").write_text("\n".join(rows))
    listed = [{"name": arm, "images": str(place / arm)} for arm in ("degraded", "reference")]
    tables = study(tmp_path, config_of("detection", arms=listed, truth="truth.csv", training=["case01"]), "table")
    masks = study(tmp_path, config_of("detection", arms=listed, truth="masks"), "masked")
    assert tables.truth == masks.truth and len(tables.truth) == 12
    assert tables.truth["case03"] == Truth(True, ((0, 3, 5, 8, 9), (0, 20, 20, 22, 22)))
    feedback = json.loads((tables.folder / "key" / "feedback.json").read_text())
    assert all(
        each == {"right": ["lesion"], "boxes": [[0, 3, 5, 6, 9], [0, 20, 20, 22, 22]]} for each in feedback.values()
    )
    (tmp_path / "bad.csv").write_text("\n".join(rows).replace("case03,1,3,5,8,9", "case03,1,3,5,99,9"))
    refused(tmp_path, config_of("detection", arms=listed, truth="bad.csv"), "lies outside the image of 32 × 32 × 1")
    for line, said in (
        ("case01,perhaps,,,,", "says 'perhaps'"),
        ("case02,1,3,5,2,9", "a box that is empty"),
        ("case02,1,3,5,,9", "a box of"),
        ("case02,1,,,,\ncase02,0,,,,", "contradicts"),
        ("case02,1,,,,", "says nothing of 11 cases"),
    ):
        (tmp_path / "bad.csv").write_text(f"{rows[0]}\n{line}\n")
        refused(tmp_path, config_of("detection", arms=listed, truth="bad.csv"), said)


class Drawing:
    """What a model that synthesises is asked for."""

    name, hash = "drawing", "0" * 12

    def sample(self, n: int, *, seed: int) -> list[Image]:
        return [replace(chest(seed + k, SIZE).image, origin={}) for k in range(n)]


def test_models_draw_and_translate(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime", reason="needs onnxruntime")
    from fabrica import runtime

    handmade(tmp_path / "model")
    (tmp_path / "ct").mkdir()
    for case in range(3):
        fabrica.write(head(case, 32, contrasts=["CT"]).images["CT"], tmp_path / "ct" / f"h{case}.dcm")
    listed = [{"name": "before", "images": "ct"}, {"name": "after", "model": "model", "of": "before"}]
    config = parsed(config_of("preference", arms=listed, window=[40, 400]))
    assert new(config, tmp_path, tmp_path / "made", runtime.opened, key=KEY)
    made = open_study(tmp_path / "made")
    assert sum("by handmade" in image.source for image in made.images) == 3
    drawn = [
        {"name": "real", "images": "ct", "truth": "real"},
        {"name": "s", "model": "m", "count": 3, "truth": "synthetic"},
    ]
    for case in range(3):
        fabrica.write(replace(chest(9 + case, SIZE).image, origin={}), tmp_path / "ct" / f"h{case}.npz")
        (tmp_path / "ct" / f"h{case}.dcm").unlink()
    (tmp_path / "m").mkdir()
    config = parsed(config_of("real-or-synthetic", arms=drawn))
    assert new(config, tmp_path, tmp_path / "turing", lambda folder: Drawing(), key=KEY)
    assert {t.case for t in open_study(tmp_path / "turing").trials} == {f"real/h{i}" for i in range(3)} | {
        f"s/000{i}" for i in range(3)
    }
