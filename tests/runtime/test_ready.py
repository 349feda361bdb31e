"""Models by name: those that ship, and two made by hand in their place, to be damaged."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fabrica
from fabrica.errors import FabricaError, UsageError
from fabrica.phantoms.head.head import head
from fabrica.recipe.card import MARK, OF_PHANTOMS
from fabrica.recipe.found import found_in
from fabrica.runtime import RECORD, ready
from fabrica.runtime.folder import digest
from fabrica.serving.http.models import ready as warmed
from tests.command import call
from tests.handmade import handmade, handmade_synthesiser

PLACES = re.compile(r"(?<![\w.])/(work|tmp|home|root|Users|mnt|var|opt)\b")  # of a machine


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where models ship from, with two, and an empty folder to work in."""
    (place := tmp_path / "ready").mkdir()
    for name, make in (("drawn-ct", handmade_synthesiser), ("smooth-ct", handmade)):
        make(place / name)
    lines = [f"{digest((place / name / RECORD).read_bytes())}  {name}/{RECORD}" for name in ("drawn-ct", "smooth-ct")]
    (place / ready.SUMS).write_text("\n".join(lines))
    (tmp_path / "here").mkdir()
    monkeypatch.setattr(ready, "HOME", place)
    monkeypatch.chdir(tmp_path / "here")
    return place


def test_a_name_is_a_model_and_a_path_goes_first(home: Path) -> None:
    notes: list[str] = []
    assert ready.place("drawn-ct", notes.append) == home / "drawn-ct" and not notes
    Path("drawn-ct").mkdir()
    assert ready.place("drawn-ct", notes.append) == Path("drawn-ct")
    assert ready.place(Path("drawn-ct").resolve(), notes.append).is_absolute()
    assert len(notes) == 1 and "drawn-ct is taken from this folder" in notes[0]
    for given, said in (
        ("smoth-ct", "smoth-ct is not a model folder, and no ready model 'smoth-ct'; did you mean smooth-ct?"),
        ("runs/smooth-ct", "runs/smooth-ct is not a model folder: nothing is there; expected one, or a name of"),
    ):
        with pytest.raises(UsageError, match=re.escape(said)):
            ready.place(given)


def truncated(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-1])


def flipped(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


@pytest.mark.parametrize("name", ["drawn-ct", "smooth-ct"])
@pytest.mark.parametrize("damage", [truncated, flipped, Path.unlink])
def test_a_changed_file_is_one_line(home: Path, name: str, damage: Callable[[Path], None], tmp_path: Path) -> None:
    kept = shutil.copytree(home / name, tmp_path / "kept")
    for file in sorted(kept.iterdir()):
        shutil.rmtree(home / name)
        shutil.copytree(kept, home / name)
        damage(home / name / file.name)
        with pytest.raises(FabricaError) as raised:
            fabrica.load(name)
        assert file.name in str(raised.value) and "\n" not in str(raised.value)
        assert "install" in str(raised.value) and "again" in str(raised.value)


def test_another_model_in_its_place_is_refused(home: Path) -> None:
    shutil.rmtree(home / "smooth-ct")
    shutil.copytree(home / "drawn-ct", home / "smooth-ct")  # whole in itself
    for command in (["sample", "smooth-ct"], ["models", "smooth-ct"], ["evaluate", "smooth-ct"]):
        done = call(*command)
        assert done.returncode == 1 and done.stderr.count("\n") == 1
        assert "the ready model smooth-ct is not the one that was shipped" in done.stderr


def test_a_name_works_wherever_a_folder_does(home: Path, tmp_path: Path) -> None:
    fabrica.write(head(3, 40, 3, contrasts=["CT"]).images["CT"], tmp_path / "ct", as_="dicom")
    done = call("sample", "drawn-ct", "-n", 2, "--label", "ill", "--as", "dicom", "-o", tmp_path / "drawn")
    assert done.returncode == 0 and len(list((tmp_path / "drawn").glob("*.dcm"))) == 2
    assert call("apply", "smooth-ct", tmp_path / "ct", "-o", tmp_path / "out").returncode == 0
    image = fabrica.read(tmp_path / "ct")
    wanted = fabrica.read(tmp_path / "out" / "ct").data
    np.testing.assert_allclose(fabrica.load("smooth-ct").apply(image).result.data, wanted, atol=1)

    from fabrica.serving.http.server import named

    assert named(["smooth-ct", "other=drawn-ct"]) == [("smooth-ct", home / "smooth-ct"), ("other", home / "drawn-ct")]
    for command, said in (
        (["export", "drawn-ct", "--to", "onnx", "-o", tmp_path / "again"], "drawn-ct is an exported model"),
        (["sample", "smooth-ct"], "makes no images of noise; use it with: fabrica apply"),
        (["apply", "drawn-ct", tmp_path / "ct"], "translates nothing; use it with: fabrica sample"),
        (["sample", "drawn-ct", "--label", "il"], "did you mean ill?"),
        (["sample", "drawn-ct", "--prompt", "a heart"], "the model is told no text of an image"),
        (["models", "drawn"], "no ready model 'drawn'; did you mean drawn-ct?"),
    ):
        done = call(*command)
        assert done.returncode == 2 and said in done.stderr and done.stderr.count("\n") == 1, done.stderr


def test_what_is_learned_from_phantoms_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import pydicom

    from fabrica.recipe import schema

    monkeypatch.setattr(schema.DataConfig, "phantoms", True)
    fabrica.write(head(3, 40, 3, contrasts=["CT"]).images["CT"], tmp_path / "ct", as_="dicom")
    done = call("apply", handmade(tmp_path / "model"), tmp_path / "ct", "-o", tmp_path / "out")
    assert done.returncode == 0 and OF_PHANTOMS in done.stderr
    assert OF_PHANTOMS in " ".join(json.loads((tmp_path / "out" / "result.json").read_text())["cautions"])
    drawn = handmade_synthesiser(tmp_path / "drawn")
    done = call("sample", drawn, "-n", 1, "--as", "dicom", "-o", tmp_path / "samples")
    assert done.returncode == 0 and OF_PHANTOMS in done.stderr
    for file in (*(tmp_path / "out" / "ct").glob("*.dcm"), *(tmp_path / "samples").glob("*.dcm")):
        header = pydicom.dcmread(file)
        assert MARK in header.SeriesDescription and MARK in header.DerivationDescription
    fabrica.write(head(3, 40, 3, contrasts=["T1"]).images["T1"], tmp_path / "mr", as_="dicom")
    done = call("apply", tmp_path / "model", tmp_path / "mr", "-o", tmp_path / "other")
    assert done.returncode == 2 and OF_PHANTOMS in done.stderr and done.stderr.count("\n") == 1


# ---- those that ship ----


NAMES = list(ready.sums())


def test_they_are_few_and_small() -> None:
    assert NAMES, "no model ships: python -m models"
    sizes = {name: ready.megabytes(ready.shipped(name)) for name in NAMES}
    assert max(sizes.values()) <= 10 and sum(sizes.values()) <= 40, sizes
    assert {each.name for each in ready.HOME.iterdir()} == {*NAMES, ready.SUMS}


@pytest.mark.parametrize("name", NAMES)
def test_each_says_what_it_is(name: str) -> None:
    folder = ready.shipped(name)
    recipe, _ = found_in(folder)
    card = call("models", name).stdout
    assert recipe.name == name and recipe.licence and recipe.credit
    for said in (recipe.licence, recipe.credit, recipe.about, "## Limits", "## Judged on images it has not seen"):
        assert said in card
    if recipe.data.phantoms:
        assert OF_PHANTOMS in card
    if recipe.task == "synthesise":
        assert re.search(r"copies of training images: \d+ of \d+", " ".join(card.split()))
    for file in folder.iterdir():
        assert not PLACES.search(file.read_bytes().decode("latin-1")), f"{file.name} names a place of a machine"


@pytest.mark.parametrize("name", NAMES)
def test_each_is_served(name: str) -> None:
    model: Any = fabrica.load(name)
    served = warmed(name, model).served  # each graph has been run then
    assert served.tasks[0] == ("sample" if model.record.draws.shape else "apply")
    assert any("phantoms" in caution for caution in served.cautions) == model.data.phantoms
    if "text" in served.conditions:
        one, two = model.sample(2, seed=3, conditions={"text": "Large left pleural effusion."})
        assert one.data.shape == (1, *model.size) and not np.array_equal(one.data, two.data)


def test_they_are_listed() -> None:
    rows = json.loads(call("models", "--json").stdout)
    assert [row["name"] for row in rows] == NAMES
    listed = call("models").stdout
    for row in rows:
        assert all(str(row[key]) in listed for key in ("name", "task", "about", "size", "licence", "trained_on"))
