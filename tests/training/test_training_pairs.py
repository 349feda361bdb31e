"""A first training on one's own pairs: CT as NIfTI that knows no unit, one codec for both sides, nothing cut off, and
what the model is worth beside doing nothing."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import yaml

import fabrica
from fabrica import io
from fabrica.data.codecs import resolve_codec, resolve_codecs
from fabrica.data.manifest import Manifest, Row
from fabrica.data.sources import looks_hounsfield
from fabrica.inference.files import apply
from fabrica.recipe.found import HeldOutError, load_found
from fabrica.recipe.held_out import useless, worth
from fabrica.recipe.load import load_recipe
from fabrica.recipe.schema import CodecConfig, DataConfig, Recipe
from fabrica.training.loop import train

pytestmark = pytest.mark.usefixtures("few_asked")

SIDE, DEPTH = 32, 3
TINY = [
    "data.a=input",
    "data.b=target",
    "data.degrade=[]",
    "data.size=32",
    "data.crop=32",
    "data.batch=4",
    "train.steps=2",
    "train.minutes=0",
    "train.validate_every=1000",
    "method.size=tiny",
]


def trunk(seed: int) -> np.ndarray:
    """HU (D, H, W): air, a trunk of soft tissue, and a spine of 1300 HU."""
    rng, (y, x) = np.random.default_rng(seed), np.ogrid[:SIDE, :SIDE]
    size, up, left = rng.uniform(7, 12), *rng.uniform(13, 19, 2)
    body = (y - up) ** 2 + ((x - left) / 1.2) ** 2 < size**2
    spine = (y - up - 4) ** 2 + (x - left) ** 2 < 3
    plane = np.where(spine, 1300.0, np.where(body, rng.uniform(20, 60), -1000.0))
    return np.repeat(plane[None], DEPTH, 0) + rng.normal(0, 3, (DEPTH, SIDE, SIDE))


def save(values: np.ndarray, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nibabel.Nifti1Image(np.rint(values).astype(np.int16).T, np.diag([10.0, 10.0, 3.0, 1.0]))
    nibabel.save(image, path)


def pairs(folder: Path, scale: float = 1.0, offset: float = 0.0, noise: float = 40) -> Path:
    """Five patients in INPUT and TARGET as the field lays them out: three to train, one held out, one to test."""
    splits = ("train", "train", "train", "val", "test")
    for k in range(len(splits)):
        clean = trunk(k)
        noisy = clean + np.random.default_rng(100 + k).normal(0, noise, clean.shape)
        save(noisy, folder / "INPUT" / f"p{k}.nii.gz")
        save(clean * scale + offset, folder / "TARGET" / f"p{k}.nii.gz")
    manifest = fabrica.scan(folder)
    for row in manifest.rows:
        row.patient = Path(row.path).name.split(".")[0]
        row.split = splits[int(row.patient[1:])]
    manifest.save(folder / "pairs.csv")
    return folder / "pairs.csv"


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pairs(tmp_path_factory.mktemp("pairs"))


@pytest.fixture(scope="module")
def trained(table: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """The model of five volumes after two steps that change nothing, and what was said."""
    said: list[str] = []
    folder = train(own(table, "train.lr=0"), tmp_path_factory.mktemp("own") / "run", warn=said.append)
    return folder, said


def own(table: Path, *overrides: str) -> Recipe:
    return load_recipe("nafnet-lowdose", [*TINY, f"data.source={table}", *overrides])


def test_both_sides_of_ct_in_nifti_share_the_window_of_hounsfield(trained: tuple[Path, list[str]]) -> None:
    model = fabrica.load(trained[0], device="cpu")
    assert model.codec == model.codec_b and model.found.scale == "one"
    assert (model.codec.kind, model.codec.low, model.codec.high, model.codec.unit) == ("window", -1024, 3071, "HU")
    assert not model.codec.clip


def test_what_five_volumes_are_worth_is_said_everywhere(trained: tuple[Path, list[str]], tmp_path: Path) -> None:
    """The network has learnt nothing: it gives back what it gets."""
    folder, said = trained
    model = fabrica.load(folder, device="cpu")
    found = model.found.held_out_b
    assert (found.measure, found.unit, found.cases) == ("mae", "HU", 1)
    truth = found.nothing
    assert truth is not None and 28 < truth < 36  # the mean size of noise of 40 HU: 40 * sqrt(2 / pi)
    assert found.mean is not None and found.mean > truth and found.error == pytest.approx(truth, rel=0.02)
    assert len(said) == 1 and "no better than doing nothing" in said[0] and "do not use it" in said[0]
    card = (folder / "README.md").read_text()
    assert "against" in card and "so few say little of others" in card and "no better than doing nothing" in card
    save(trunk(9), tmp_path / "in.nii.gz")
    apply(model, tmp_path / "in.nii.gz", tmp_path / "out.nii.gz", force=True)
    cautions = json.loads((tmp_path / "out.json").read_text())["cautions"]
    assert any("no better than doing nothing" in caution for caution in cautions)


def test_values_beyond_the_limits_are_in_the_result(trained: tuple[Path, list[str]], tmp_path: Path) -> None:
    model = fabrica.load(trained[0], device="cpu")
    given = trunk(9)
    given[:, 4:6, 4:6] = 20_000  # metal, on the extended scale
    given[:, 20:22, 4:6] = -2000
    save(given, tmp_path / "metal.nii.gz")
    image = io.read(tmp_path / "metal.nii.gz")
    made = model.apply(image).result
    np.testing.assert_allclose(made.data, image.data, atol=1)


@pytest.mark.parametrize("kind", ["percentile", "window"])
def test_no_narrow_codec_cuts_bone(kind: str, table: Path, tmp_path: Path) -> None:
    low, high = {"percentile": (5, 90), "window": (-160, 240)}[kind]
    narrow = [f"codec.kind={kind}", f"codec.low={low}", f"codec.high={high}", "train.lr=0"]
    model = fabrica.load(train(own(table, *narrow), tmp_path / "run", warn=lambda note: None), device="cpu")
    assert model.codec == model.codec_b and model.codec.kind == kind
    image = io.read(table.parent / "INPUT" / "p4.nii.gz")
    np.testing.assert_allclose(model.apply(image).result.data, image.data, atol=1)


def test_a_longer_training_is_better_than_doing_nothing(tmp_path: Path) -> None:
    """With noise that hides what is air: CT is known by the clean side."""
    table = pairs(tmp_path / "noisy", noise=200)
    network = ["method.network=redcnn", "method.width=8", "train.precision=fp32"]
    longer = [*network, "train.steps=120", "train.warmup=5", "train.lr=5e-3", "train.ema=0.8"]
    said: list[str] = []
    model = fabrica.load(train(own(table, *longer), tmp_path / "run", warn=said.append), device="cpu")
    found = model.found.held_out_b
    assert model.codec.unit == "HU"
    assert found.nothing is not None and found.error < 0.9 * found.nothing and said == []
    known = model.found.held_out_b
    assert worth(known).startswith("held-out error ") and not useless(known)


def test_sides_of_other_ranges_keep_codecs_of_their_own_and_this_is_said(tmp_path: Path) -> None:
    table = pairs(tmp_path, 0.02, 100)
    said: list[str] = []
    model = fabrica.load(train(own(table), tmp_path / "run", warn=said.append), device="cpu")
    assert model.codec != model.codec_b and model.found.scale == "two"
    assert any("codecs of their own" in note and "data.scale=one" in note for note in said)
    assert model.found.held_out_b.nothing is None  # the input is no answer on another scale


def without(values: dict[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in values.items() if key != name}


def test_a_model_from_before_cuts_as_it_did(trained: tuple[Path, list[str]], tmp_path: Path) -> None:
    """Their recipes say nothing of it, and hold what was found."""
    asked, found = load_recipe(trained[0] / "recipe.yaml"), load_found(trained[0] / "found.yaml")
    codecs = {name: without(asdict(getattr(found, name)), "clip") for name in ("codec", "codec_b")}
    known = {"seen_a": without(asdict(found.fingerprint_a), "uncertainty"), "found_b": asdict(found.held_out_b)}
    older = {**asdict(asked), **codecs, **known, "data": without(asdict(asked.data), "scale"), "method": found.method}
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "recipe.yaml").write_text(yaml.safe_dump(older))
    (tmp_path / "old" / "weights.safetensors").write_bytes((trained[0] / "weights.safetensors").read_bytes())
    model = fabrica.load(tmp_path / "old", device="cpu")
    assert model.codec.clip and model.found.scale == "auto" and not model.way("a2b").restores
    given = trunk(9)
    given[:, 4:6, 4:6] = 20_000
    save(given, tmp_path / "metal.nii.gz")
    image = io.read(tmp_path / "metal.nii.gz")
    np.testing.assert_allclose(model.apply(image).result.data, np.clip(image.data, -1024, 3071), atol=1)


@pytest.fixture(scope="module")
def modalities(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """CT, another CT, and MR of four patients."""
    folder = tmp_path_factory.mktemp("modalities")
    rows = []
    for k in range(4):
        ct = trunk(k)
        each = {"CT": ct, "CT2": ct + 30, "MR": np.abs(ct + 1000) * 0.7}
        for name, values in each.items():
            save(values, folder / name / f"p{k}.nii.gz")
            rows.append(Row(f"p{k}", f"p{k}", f"{name}/p{k}.nii.gz", "", "train" if k < 3 else "val", "", name))
    Manifest(rows, folder).save(folder / "set.csv")
    return folder / "set.csv"


@pytest.mark.parametrize(
    ("a", "b", "restores", "shared"),
    [("CT", "CT2", False, True), ("MR", "CT", False, False), ("MR", "MR", True, True), ("MR", "CT", True, False)],
)
def test_who_shares_a_codec(modalities: Path, a: str, b: str, restores: bool, shared: bool) -> None:
    config = DataConfig(str(modalities), a, b, True, size=[32, 32], fit="exact")
    one, other, same = resolve_codecs(config, CodecConfig(), CodecConfig(), restores)
    assert same is shared and (one == other) is shared and one.clip is not restores
    assert other.unit == ("HU" if b.startswith("CT") else "arbitrary")
    assert resolve_codec(config, CodecConfig(), "b").kind == other.kind


def test_hounsfield_units_are_recognised_by_air_and_water() -> None:
    rng = np.random.default_rng(0)
    ct = trunk(0).astype(np.float32)
    assert looks_hounsfield(ct) and looks_hounsfield(ct + rng.normal(0, 40, ct.shape).astype(np.float32))
    padded = ct.copy()
    padded[:, :4] = -2000
    assert looks_hounsfield(padded)
    phase = rng.uniform(-4096, 4095, ct.shape).astype(np.float32)
    for other in (ct + 1024, -ct, ct / 1000, phase, rng.normal(0, 500, ct.shape), np.zeros_like(ct)):
        assert not looks_hounsfield(np.asarray(other, np.float32))


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (HeldOutError(), ""),
        (HeldOutError("mae", "HU", 10, 20, 30, 8, 8, 5, 12), ""),
        (HeldOutError("mae", "HU", 21, 20, 30, 8, 8, -3, 1), "no better than doing nothing"),
        (HeldOutError("mae", "HU", 19, 20, 30, 8, 8, -3, 5), "hardly better than doing nothing"),
        (HeldOutError("mae", "HU", 31, None, 30, 8, 8, -3, 1), "no better than the mean target"),
        (HeldOutError("frd", "", 9, 8, None, 40, 40), "no better than doing nothing"),
    ],
)
def test_a_useless_model_is_called_that(found: HeldOutError, said: str) -> None:
    assert said in useless(found) and bool(said) == bool(useless(found))
