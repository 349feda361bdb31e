"""Diffusion on the latents of an autoencoder: it learns on what was encoded once, samples images, and needs nothing but
its own folder."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import fabrica
from fabrica.data.augment import Changes
from fabrica.data.cache import build_cache
from fabrica.data.latents import encoded
from fabrica.data.levels import LANDMARKS, landmarks, usual
from fabrica.errors import UsageError
from fabrica.image import Float32
from fabrica.io.contact_sheet import PLANES
from fabrica.methods.diffusion import Diffusion
from fabrica.methods.noise import seeded
from fabrica.model.tasks import task_of
from fabrica.recipe.codecs import codec_of
from fabrica.recipe.found import load_found
from fabrica.recipe.load import load_recipe
from fabrica.recipe.schema import Recipe, SampleConfig
from fabrica.training.loop import train
from fabrica.training.run import open_run
from tests.shipped import shipped

pytestmark = pytest.mark.usefixtures("few_held_out")

SMALL = ["data.size=32", "data.count=48", "data.batch=8", "train.minutes=0", "train.warmup=2", "train.log_every=1"]
CODER = ["method.channels=[8,16]", "method.norm_groups=8", "method.adversarial=0", "method.features=0"]
DENOISER = ["method.channels=[8,16]", "method.head_channels=16", "method.norm_groups=8", "sample.steps=3"]
RECIPES = [name for name, recipe in shipped().items() if "autoencoder" in recipe.uses]


@pytest.fixture(scope="module")
def coder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("coder") / "coder"
    return train(load_recipe("autoencoder-chest", [*SMALL, *CODER, "train.steps=20", "train.lr=5e-3"]), folder)


def tiny(coder: Path, *overrides: str, name: str = "latent-chest") -> Recipe:
    return load_recipe(name, [*SMALL, *DENOISER, f"uses.autoencoder={coder}", "train.steps=4", *overrides])


@pytest.fixture(scope="module")
def run(coder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose original autoencoder is gone."""
    folder = tmp_path_factory.mktemp("latent")
    gone = shutil.copytree(coder, folder / "gone")
    train(tiny(gone), folder / "run")
    shutil.rmtree(gone)
    return folder / "run"


def test_every_recipe_on_latents_names_an_autoencoder_that_ships() -> None:
    assert RECIPES
    for name in RECIPES:
        recipe = load_recipe(name)
        own = load_recipe(Path(recipe.uses["autoencoder"]).name)
        assert (own.data.size, own.data.fit, own.data.source) == (
            recipe.data.size,
            recipe.data.fit,
            recipe.data.source,
        )


def test_the_folder_is_all_it_takes(run: Path) -> None:
    model = fabrica.load(run, device="cpu")
    one = model.sample_array(5, seed=3)
    assert one.shape == (5, 1, 32, 32) and float(np.abs(one).max()) <= 1
    np.testing.assert_array_equal(one, fabrica.load(run, device="cpu").sample_array(5, seed=3))
    apart = np.concatenate([model.sample_array(1, seed=3 + k) for k in range(5)])
    np.testing.assert_allclose(one, apart, atol=0.05)  # bf16 kernels differ slightly with the batch size
    assert float(np.abs(one[0] - one[1]).mean()) > 1e-3
    assert model.sample(1)[0].data.max() > 500  # in physical units
    assert "latents of the autoencoder" in (run / "README.md").read_text()
    (run / "autoencoder" / "weights.safetensors").rename(run / "away")
    with pytest.raises(UsageError, match=r"autoencoder is not a model folder: it has no weights\.safetensors"):
        fabrica.load(run)
    (run / "away").rename(run / "autoencoder" / "weights.safetensors")


def test_it_learns_on_latents_of_unit_scale_encoded_once(coder: Path) -> None:
    model = fabrica.load(coder, device="cpu")
    images = build_cache(model.recipe.data, codec_of(model.found.codec), "train")
    asked: list[int] = []

    def encode(part: Float32) -> Float32:
        asked.append(len(part))
        return 100 * model.encode(part)  # far beyond [-1, 1]

    latents = encoded(images, encode, "test")
    assert sum(asked) == len(latents) == len(images) and latents.ids[7] == images.ids[7]
    np.testing.assert_allclose(latents.read([5, 2]) / 100, model.encode(images.read([5, 2])), atol=2e-2)
    assert encoded(images, encode, "test").folder == latents.folder and sum(asked) == len(images)
    assert encoded(images, encode, "other").folder != latents.folder
    whole = latents.read(range(len(latents))) / 100
    assert 0.95 < float(whole.std()) < 1.05 and float(np.abs(whole).max()) > 1.5


def test_latents_are_not_clipped(coder: Path) -> None:
    space = fabrica.load(coder, device="cpu").method
    config = Diffusion.Config("x0", channels=[8, 16], attention=[False, False], head_channels=16, norm_groups=8)
    method = Diffusion(config, (1, 32, 32), space=space)
    far = 2.5 * torch.sign(torch.randn(2, *space.latent_shape, generator=torch.Generator().manual_seed(0)))
    method.predicted = lambda *_: far  # type: ignore[method-assign]  # a network that knows the answer
    with torch.no_grad():
        drawn = method.sample(seeded([1, 2]), {}, SampleConfig(), torch.device("cpu"))
        torch.testing.assert_close(drawn, space.decoded(far))
        assert not torch.allclose(drawn, space.decoded(far.clamp(-1, 1)), atol=1e-3)


def test_grey_levels_are_held_before_what_lies_beyond_is_cut_off(run: Path, tmp_path: Path) -> None:
    """Else all of that would be white, as no image of training is."""
    folder = shutil.copytree(run, tmp_path / "run")
    found = load_found(folder / "found.yaml")
    levels = [[-1.0] * len(LANDMARKS), [*np.linspace(-0.9, 0.5, len(LANDMARKS) - 1).tolist(), 1.0]]
    replace(found, levels=levels).save(folder / "found.yaml")
    model = fabrica.load(folder, device="cpu")
    decoded = model.method.space.decoded
    model.method.space.decoded = lambda *given, **more: 3 * decoded(*given, **more) + 2.5  # nearly all of it beyond 1
    made = model.sample_array(4)
    assert made.max() == 1 and made.min() >= -1 and (made == 1).mean() < 0.01
    free = replace(model, recipe=replace(model.recipe, sample=replace(model.recipe.sample, levels=False)))
    assert (free.sample_array(4) == 1).mean() > 0.3


def test_a_resumed_run_is_bit_exact_with_the_copy_alone(coder: Path, tmp_path: Path) -> None:
    straight, stopped = tmp_path / "straight", tmp_path / "stopped"
    gone = shutil.copytree(coder, tmp_path / "gone")
    train(tiny(coder, "train.decay=constant"), straight)
    train(tiny(gone, "train.decay=constant", "train.steps=2"), stopped)
    shutil.rmtree(gone)
    train(load_recipe(stopped / "recipe.yaml", ["train.steps=4"]), stopped, resume=True)
    assert (straight / "weights.safetensors").read_bytes() == (stopped / "weights.safetensors").read_bytes()


def test_labels_are_kept_and_a_report_is_written(coder: Path, tmp_path: Path) -> None:
    recipe = tiny(coder, "data.condition=label", "data.count=64")
    folder = train(recipe, tmp_path / "run", warn=lambda note: None)  # rare findings are not held out
    model = fabrica.load(folder, device="cpu")
    assert len(model.found.classes) > 1
    assert model.sample_array(2, conditions={"label": model.found.classes[1]}).shape == (2, 1, 32, 32)
    assert fabrica.evaluate(model, out=tmp_path / "report", n=16, steps_curve=()).page.exists()


def test_images_are_what_results_are_to_resemble(coder: Path, tmp_path: Path) -> None:
    """Grey levels that are usual are those of the images, not of their latents, and a score compares with images."""
    recipe = tiny(coder, "data.count=160", "train.keep=frd", "train.validate_every=2", "train.monitor_every=2")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fabrica.data.sources.HELD_OUT", 32)  # the fewest for a score
        run = open_run(recipe, tmp_path / "opened", None, lambda note: None)
        folder = train(recipe, tmp_path / "run")
    target = task_of(run.method).judged(run.heldout)
    assert target.read([0]).shape == (1, 1, 32, 32) and run.data.batch(0, np.arange(2), Changes())["image"].shape[1] > 1
    images = build_cache(run.found.data(recipe.data), codec_of(run.found.codec), "train")
    assert fabrica.load(folder).found.levels == usual(landmarks(images.read(range(160))))


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["data.size=48"], "data.size is [48, 48], and the autoencoder in"),
        (["data.channels=3"], "set data.channels=1"),
        (["data.fit=crop"], "data.fit is crop"),
        (["codec.kind=window", "codec.low=0", "codec.high=9"], "codec is not that of the autoencoder"),
        (["data.flip=true"], "data.flip changes images"),
        (["uses.autoencoder=/nowhere"], "/nowhere is not a model folder"),
        (["uses={autoencoder: ''}"], "uses.autoencoder is empty"),
        (["uses.critic=x"], "no use 'critic'"),
        (
            ["method.channels=[8,8,8,8,16]", "method.attention=[false,false,false,false,false]"],
            "size of latents [8, 8] does not fit; this network takes multiples of 16, take another size",
        ),
    ],
)
def test_what_does_not_fit_is_one_line(coder: Path, overrides: list[str], message: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError) as refused:
        train(tiny(coder, *overrides), tmp_path / "run")
    assert message in str(refused.value) and "\n" not in str(refused.value)
    assert not (tmp_path / "run").exists()


def test_other_methods_and_other_models_are_refused(coder: Path, run: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="dcgan works on pixels"):
        train(load_recipe("dcgan-chest", [*SMALL, f"uses.autoencoder={coder}", "train.steps=1"]), tmp_path / "gan")
    with pytest.raises(UsageError, match=r"holds latent-chest \(diffusion\), no autoencoder"):
        train(tiny(run), tmp_path / "run")
    (tmp_path / "taken" / "autoencoder").mkdir(parents=True)
    with pytest.raises(UsageError, match="is there already, where a copy of"):
        train(tiny(coder), tmp_path / "taken")


HEADS = ["data.source=phantom:head:T1", "data.size=[16,16,24]", "data.count=24", "data.batch=4", "train.minutes=0"]


@pytest.mark.slow
def test_volumes_from_recipe_to_report(tmp_path: Path) -> None:
    """Both methods on heads of 16 x 16 x 24: two steps each, a sample, and what the reports show of them."""
    brief = [*HEADS, "train.warmup=1", "train.steps=2", "train.validate_every=2"]
    small = [*CODER, "method.patch=1", "method.latent_channels=3"]
    space = train(load_recipe("autoencoder-hippocampus", [*brief, *small]), tmp_path / "space")
    recipe = load_recipe("latent-hippocampus", [*brief, *DENOISER, f"uses.autoencoder={space}"])
    model = fabrica.load(train(recipe, tmp_path / "run"), device="cpu")
    (image,) = model.sample(1)
    assert image.size == (16, 16, 24) and len(set(image.spacing)) > 1  # heads are not cubes
    np.testing.assert_allclose(image.spacing, model.found.spacing)
    page = fabrica.evaluate(space, out=tmp_path / "rebuilt", n=3).page.read_text()
    assert all(f"{what}, {view}" in page for what in ("source", "rebuilt") for view in PLANES)
    page = fabrica.evaluate(model, out=tmp_path / "drawn", n=16, steps_curve=()).page.read_text()
    assert "axial, coronal and sagittal middle planes" in page
