"""Restoration from recipe to restored file: every recipe trains, both sides stay one image, apply keeps the scale."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
import pytest
import torch
from PIL import Image as Picture

import fabrica
from fabrica import io
from fabrica.data.cache import build_cache
from fabrica.data.manifest import Manifest, Row
from fabrica.data.sources import open_source
from fabrica.errors import FabricaError, UsageError
from fabrica.inference.files import apply
from fabrica.methods.restore import Restore
from fabrica.phantoms.chest.chest import chest
from fabrica.phantoms.head.head import head
from fabrica.recipe.codecs import codec_of
from fabrica.recipe.folder import read_log
from fabrica.recipe.load import load_recipe
from fabrica.recipe.schema import Recipe
from fabrica.training.loop import train
from tests.shipped import shipped

pytestmark = pytest.mark.usefixtures("few_held_out", "few_asked")

TINY = [
    "data.size=32",
    "data.crop=32",
    "data.batch=4",
    "data.count=12",
    "train.steps=2",
    "train.minutes=0",
    "train.validate_every=1000",
    "train.log_every=1",
]
NETWORKS = {
    "restore": ["method.size=tiny", "method.width=8", "method.critic_width=8"],
    "srgan": ["method.width=8", "method.blocks=1", "method.critic_width=8", "method.pretrain=1"],
}
RESTORERS = [name for name, recipe in shipped().items() if recipe.task == "restore" and "teacher" not in recipe.uses]


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """40 radiographs to train, 32 held out and 4 to test, of 12 bits: discs with an edge."""
    folder = tmp_path_factory.mktemp("discs")
    rng, rows = np.random.default_rng(0), []
    y, x = np.ogrid[:32, :32]
    for k in range(76):
        centre, radius = rng.uniform(10, 22, 2), rng.uniform(4, 9)
        disc = 3000 * ((y - centre[0]) ** 2 + (x - centre[1]) ** 2 <= radius**2) + 20 * y + 200
        Picture.fromarray(disc.astype(np.uint16)).save(folder / f"{k}.png")
        split = "train" if k < 40 else "val" if k < 72 else "test"
        rows.append(Row(f"{k}", f"p{k}", f"{k}.png", "", split, "OT"))
    Manifest(rows, folder).save(folder / "set.csv")
    return folder / "set.csv"


def tiny(name: str, table: Path, *overrides: str) -> Recipe:
    """A shipped recipe with its smallest network, on the table unless it restores heads."""
    recipe = load_recipe(name)
    own = [] if on_heads(recipe) else [f"data.source={table}"]
    return load_recipe(name, [*TINY, *NETWORKS[recipe.method["name"]], *own, *overrides])


def on_heads(recipe: Recipe) -> bool:
    return recipe.data.source == "phantom:head"


def noisy(table: Path, *overrides: str) -> Recipe:
    """Images without a scale of their own, and the noise of MR."""
    scale = ["codec.kind=percentile", "codec.low=0", "codec.high=100"]
    return tiny("nafnet-xray", table, "data.degrade=[{name: rician, sigma: 0.1}]", *scale, *overrides)


@pytest.mark.parametrize("name", RESTORERS)
def test_every_recipe_of_restoration_takes_two_steps(name: str, table: Path, heads: Path, tmp_path: Path) -> None:
    own = [f"data.source={heads}"] if on_heads(load_recipe(name)) else []
    folder = train(tiny(name, table, *own), tmp_path / "run")
    rows = read_log(folder / "log.csv")
    assert rows[-1]["step"] == 2 and np.isfinite([row["loss"] for row in rows]).all()
    assert (folder / "samples.png").stat().st_size > 0
    model = fabrica.load(folder, device="cpu")
    source = open_source(model.recipe.data, "val", "a")
    sample = next(source.samples([0])).image
    made = model.apply(sample).result
    assert made.size == sample.size and made.unit == sample.unit and bool(np.isfinite(made.data).all())
    assert made.origin == sample.origin and "degraded" in made.origin  # the same image, better


def test_both_sides_are_one_image_in_one_scale(table: Path) -> None:
    recipe = noisy(table)
    given = [sample.image.data for sample in open_source(recipe.data, "val", "a").samples([0, 1])]
    truth = [sample.image.data for sample in open_source(recipe.data, "val", "b").samples([0, 1])]
    again = [sample.image.data for sample in open_source(recipe.data, "val", "a").samples([1])]
    np.testing.assert_array_equal(given[1], again[0])  # noise belongs to the image, not to the order of reading
    for one, other in zip(given, truth, strict=True):
        assert 0.02 < float((one - other).std()) / float(other.max()) < 0.3
    codec = codec_of(recipe.codec.__class__("percentile", 0, 100, default_limits=[0.0, 1.0]))
    a, b = (build_cache(recipe.data, codec, "val", side=side).read([0, 1]) for side in "ab")
    for k in range(2):
        low, high = codec.limits(given[k])
        np.testing.assert_allclose((b[k] + 1) / 2 * (high - low) + low, np.clip(truth[k], low, high), atol=1e-3 * high)
        np.testing.assert_allclose((a[k] + 1) / 2 * (high - low) + low, given[k], atol=1e-3 * high)


def test_images_of_another_scale_come_back_in_their_own(table: Path, tmp_path: Path) -> None:
    model = fabrica.load(train(noisy(table), tmp_path / "run"), device="cpu")
    image = head(7, 48, contrasts=["T1"]).images["T1"]
    for gain in (1.0, 300.0):
        louder = image.with_data(image.data * np.float32(gain))
        found = model.apply(louder).result.data
        # after two steps the network hardly changes an image
        assert float(np.abs(found - louder.data).mean()) < 0.05 * float(louder.data.max())


def test_a_finer_image_lies_where_the_coarse_one_does(table: Path, tmp_path: Path) -> None:
    model = fabrica.load(train(tiny("srgan-xray", table), tmp_path / "run"), device="cpu")
    coarse = next(open_source(model.recipe.data, "test", "b").samples([0])).image
    affine = np.array([[-0.5, 0, 0, 20.0], [0, -0.4, 0, 30.0], [0, 0, 1, 0], [0, 0, 0, 1]])
    coarse = coarse.with_data(coarse.data, affine=affine)
    fine = model.apply(coarse).result
    assert fine.size == (64, 64) and fine.spacing == pytest.approx((0.2, 0.25))
    first = [fine.affine @ [x, y, 0, 1] for x in (0, 1) for y in (0, 1)]
    np.testing.assert_allclose(np.mean(first, axis=0), coarse.affine @ [0, 0, 0, 1], atol=1e-9)
    means = fine.data.reshape(1, 32, 2, 32, 2).mean((2, 4))
    assert float(np.abs(means - coarse.data).mean()) < 0.05 * 3000

    io.write(chest(0, 48).image, tmp_path / "coarse.dcm", synthetic=True)
    apply(model, tmp_path / "coarse.dcm", tmp_path / "out", force=True)
    given, made = (pydicom.dcmread(path) for path in (tmp_path / "coarse.dcm", tmp_path / "out" / "coarse.dcm"))
    assert (made.Rows, made.Columns) == (96, 96)
    assert [float(mm) for mm in made.PixelSpacing] == pytest.approx([float(mm) / 2 for mm in given.PixelSpacing])
    assert made.SOPInstanceUID != given.SOPInstanceUID and made.PatientID == given.PatientID
    with Picture.open(tmp_path / "out" / "coarse-preview.png") as preview:
        assert preview.size == (192, 96)  # before, each pixel four times, and after


def test_a_run_ends_when_it_gets_no_better(table: Path, tmp_path: Path) -> None:
    stuck = ["train.steps=60", "train.validate_every=4", "train.patience=3", "train.lr=0", "train.warmup=0"]
    folder = train(tiny("nafnet-xray", table, *stuck, "train.ema=0"), tmp_path / "run")
    assert read_log(folder / "log.csv")[-1]["step"] == 4 + 3 * 4 + 1


@pytest.mark.parametrize(("target", "kept"), [("clean", 2), ("self", 6)])
def test_without_clean_images_the_last_weights_are_kept(table: Path, tmp_path: Path, target: str, kept: int) -> None:
    """What noisy pixels say of the weights is not worth more than the steps made since."""
    stuck = ["train.steps=6", "train.validate_every=2", "train.lr=0", "train.warmup=0", "train.ema=0"]
    folder = train(
        noisy(table, *stuck, f"method.target={target}"), tmp_path / "run"
    )  # no step is better than the first
    assert f"average at step {kept}," in (folder / "README.md").read_text()


def test_a_run_that_kept_nothing_says_so(table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Restore, "validation", lambda self, batch, rng: torch.full((len(batch["a"]),), torch.nan))
    with pytest.raises(FabricaError, match=r"no weights were kept in .*: held-out loss was never a number") as refused:
        train(tiny("nafnet-xray", table), tmp_path / "run")
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["data.degrade=[]"], "data.a=degraded and data.degrade belong together"),
        (["data.a=T1"], "data.a=degraded and data.degrade belong together"),
        (["data.paired=false"], "set data.paired=true"),
        (["data.crop=64"], "data.crop is 64 and data.size [32, 32]; a crop must fit into the image"),
        (["data.b=T1"], "low-dose"),
        (["data.degrade=[{name: low-dos}]"], "did you mean low-dose?"),
        (["data.degrade=[{name: low-dose, photons: -5}]"], "photons"),
        (["method.context=1"], "context"),
    ],
)
def test_what_cannot_run_is_one_line_and_leaves_nothing(
    overrides: list[str], message: str, table: Path, tmp_path: Path
) -> None:
    with pytest.raises(UsageError) as refused:
        train(tiny("nafnet-lowdose", table, *overrides), tmp_path / "run")
    assert message in str(refused.value) and "\n" not in str(refused.value)
    assert not (tmp_path / "run").exists()


def test_the_scale_of_the_network_must_be_that_of_the_data(table: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"method.scale is 4 and data.degrade makes images 2 times smaller"):
        train(tiny("srgan-xray", table, "method.scale=4"), tmp_path / "run")


def test_results_stay_within_what_the_image_declares(table: Path, tmp_path: Path) -> None:
    """Unsigned pixels hold nothing below zero, whatever a network of two steps answers."""
    model = fabrica.load(train(tiny("nafnet-xray", table), tmp_path / "run"), device="cpu")
    model.method.network = torch.nn.Hardtanh(-9, -3)  # type: ignore[attr-defined]  # far below black
    image = next(open_source(model.recipe.data, "test", "b").samples([0])).image
    low, high = image.origin["range"]
    made = model.apply(image).result.data
    assert not model.codec.clip and low <= float(made.min()) and float(made.max()) <= high
