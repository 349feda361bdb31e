"""A model that is told a mask: images and masks stay aligned, and what is drawn lies where the mask has it."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

import fabrica
from fabrica import io
from fabrica.cli.main import app, main
from fabrica.conditioning.masks import laid_out
from fabrica.data.augment import Changes
from fabrica.data.manifest import Manifest, Row
from fabrica.data.masks import as_labels
from fabrica.errors import UsageError
from fabrica.evaluation.synthesis.mask_adherence import explained
from fabrica.image import Float32, Image
from fabrica.methods.diffusion import Diffusion
from fabrica.phantoms.chest.chest import chest
from fabrica.recipe.conditions import Mask
from fabrica.recipe.load import load_recipe
from fabrica.recipe.schema import Recipe
from fabrica.training.batches import batch_at
from fabrica.training.loop import train
from fabrica.training.run import open_run

pytestmark = pytest.mark.usefixtures("few_held_out")

SIDE = 16
NET = [
    *("method.channels=[16,16]", "method.attention=[false,false]", "method.head_channels=16", "method.norm_groups=8"),
    *("method.patch=1", "method.mask_width=8", "sample.steps=4", "train.minutes=0", "train.log_every=50"),
    *("data.condition=mask", "sample.guidance=1"),
]
TINY = [*NET, "data.size=16", "data.count=16", "data.batch=8", "train.steps=4", "train.validate_every=2"]
QUICK = ["train.warmup=10", "train.checkpoint_every=1000", "train.sample_every=1000", "train.validate_every=50"]


def square(row: int, column: int) -> Float32:
    """A square of 6 x 6 pixels, (1, 16, 16): 1 inside."""
    values = np.zeros((1, SIDE, SIDE), np.float32)
    values[:, row : row + 6, column : column + 6] = 1
    return values


LEFT, RIGHT = (Image(square(5, column), unit="label") for column in (1, 9))


def picture(values: Float32, top: float) -> Image:
    return Image(values, unit="arbitrary", origin={"range": (0, top), "step": 1.0})


@pytest.fixture(scope="module")
def squares(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Bright squares on noise, and masks of black and white (0, 255) of them; two images have no mask."""
    return drawn(tmp_path_factory.mktemp("squares"), 0, "train")


def drawn(home: Path, seed: int, most: str) -> Path:
    """The manifest of 40 squares, a fifth of them for validation, the others in the split `most`."""
    rng = np.random.default_rng(seed)
    rows = []
    for k in range(40):
        where = square(*rng.integers(0, SIDE - 6, 2))
        values = np.rint(40 + 150 * where + 10 * rng.standard_normal(where.shape)).astype(np.float32)
        io.write(picture(values, 255), home / f"{k}.png")
        io.write(picture(255 * where, 255), home / f"{k}-mask.png")
        split = "val" if k % 5 == 0 else most
        mask = "" if k in (1, 2) else f"{k}-mask.png"
        rows.append(Row(f"{k}", f"p{k}", f"{k}.png", split=split, mask=mask))
    Manifest(rows, home).save(home / "manifest.csv")
    return home / "manifest.csv"


def of_squares(squares: Path, *overrides: str) -> Recipe:
    return load_recipe("ddpm-chest", [*TINY, *QUICK, f"data.source={squares}", *overrides])


@pytest.fixture(scope="module")
def run(squares: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    notes: list[str] = []
    folder = tmp_path_factory.mktemp("mask") / "run"
    recipe = of_squares(squares, "train.steps=60", "train.lr=5e-3", "data.batch=16", "train.ema=0.9")
    made = train(recipe, folder, warn=notes.append)
    assert notes == ["2 of 32 images have no mask: kept, without it"]
    return made


def inside(images: Float32, mask: Image) -> float:
    """How much brighter images are inside a mask than outside, in [-1, 1]."""
    where = np.broadcast_to(mask.data > 0, images.shape)
    return float(images[where].mean() - images[~where].mean())


def test_the_square_is_drawn_where_the_mask_has_it(run: Path) -> None:
    model = fabrica.load(run, device="cpu")
    assert (model.found.codec_mask.kind, model.found.codec_mask.classes) == ("label", 2)
    each = model.sample_array(8, conditions={"mask": [LEFT] * 4 + [RIGHT] * 4})
    assert inside(each[:4], LEFT) > 0.7 and inside(each[4:], RIGHT) > 0.7
    assert np.abs(inside(each[:4], RIGHT)) < 0.5 and np.abs(inside(each[4:], LEFT)) < 0.5
    one = model.sample_array(2, conditions={"mask": LEFT}, batch=1)
    np.testing.assert_allclose(one, each[:2], atol=0.05)  # bf16 kernels differ slightly with the batch size


def test_without_a_mask_it_says_so_and_draws_the_null(run: Path) -> None:
    model = fabrica.load(run, device="cpu")
    with pytest.warns(UserWarning, match="draws what a mask shows, and there is none"):
        free = model.sample_array(2)
    quiet = {"warn": lambda note: None}
    assert np.array_equal(free, model.sample_array(2, conditions={"mask": [None, None]}, **quiet))
    assert not np.array_equal(free, model.sample_array(2, conditions={"mask": LEFT}))
    some = model.sample_array(2, conditions={"mask": [None, LEFT]})
    np.testing.assert_allclose(some[:1], free[:1], atol=1e-5)
    background = Image(np.zeros((1, SIDE, SIDE), np.float32), unit="label")
    assert not np.array_equal(free, model.sample_array(2, conditions={"mask": background})), (
        "an empty mask says something"
    )


def test_guidance_strengthens_the_mask(run: Path) -> None:
    model = fabrica.load(run, device="cpu")
    once, strong = (model.sample_array(2, conditions={"mask": LEFT}, guidance=g) for g in (1.0, 3.0))
    assert not np.array_equal(once, strong)
    quiet = {"warn": lambda note: None}
    assert np.array_equal(model.sample_array(1, guidance=3.0, **quiet), model.sample_array(1, **quiet))


def test_masks_of_other_sizes_are_brought_to_the_models(run: Path) -> None:
    model = fabrica.load(run, device="cpu")
    larger = Image(LEFT.data.repeat(2, 1).repeat(2, 2), unit="label")
    assert np.array_equal(*(model.sample_array(1, conditions={"mask": mask}) for mask in (LEFT, larger)))


def test_what_is_no_mask_of_the_model_is_refused(run: Path) -> None:
    model = fabrica.load(run, device="cpu")
    volume = Image(np.zeros((1, 4, 16, 16), np.float32), unit="label")
    for mask, message in (
        (volume, "the mask is 3-D, and the model draws 2-D images"),
        (Image(LEFT.data * 5, unit="label"), "the mask has the label 5; the model knows 0 to 1: leave others out"),
        (Image(-LEFT.data), "values below 0"),
        (Image(LEFT.data.repeat(3, 0)), "3 channels"),
        (picture(np.arange(256, dtype=np.float32).reshape(1, 16, 16), 255), "values up to 255"),
        ([LEFT], "1 masks for 2 images"),
        (LEFT.data, "a mask is a ndarray|expected"),
    ):
        with pytest.raises(UsageError, match=message):
            model.sample_array(2, conditions={"mask": mask})
    with pytest.raises(UsageError, match="is told no text of an image"):
        model.sample_array(1, conditions={"text": "a heart", "mask": LEFT})


@pytest.mark.parametrize("changes", [Changes(), Changes(flip=True, jitter=3), Changes(turn=20.0, bend=1.0, crop=8)])
def test_masks_change_as_their_images_do(squares: Path, tmp_path: Path, changes: Changes) -> None:
    data = open_run(of_squares(squares), tmp_path / "run", None, lambda note: None).data
    batch = batch_at(data, 0, 30, seed=3, changes=changes)
    mask, image = batch["mask"], batch["image"]
    assert mask.shape == (30, 2, *image.shape[2:]) and mask.dtype == torch.float32
    known = mask.flatten(1).any(dim=1)
    assert known.sum() in (28, 29, 30) and torch.equal(mask[known].sum(dim=1), torch.ones_like(image[known, 0]))
    bright = image[known, 0] > 0
    agree = (bright == (mask[known, 1] > 0)).float().mean()
    assert agree > (0.97 if changes.turn else 0.999)


def test_phantoms_come_with_their_organs_and_a_run_goes_on_where_it_was(tmp_path: Path) -> None:
    words = [*TINY, *QUICK, "data.condition=[mask,text,sex]", "text.tokens=300", "text.context=32", "text.layers=1"]
    words += ["method.context_width=12", "data.flip=true", "train.decay=constant", "train.validate_every=2"]
    whole = train(load_recipe("ddpm-chest", words), tmp_path / "whole")
    half = train(load_recipe("ddpm-chest", [*words, "train.steps=2"]), tmp_path / "half")
    saved = (half / "recipe.yaml").read_text()
    (half / "recipe.yaml").write_text(saved.replace("  steps: 2\n  minutes", "  steps: 4\n  minutes"))
    train(None, half, resume=True)
    assert (half / "weights.safetensors").read_bytes() == (whole / "weights.safetensors").read_bytes()
    model = fabrica.load(whole, device="cpu")
    assert model.found.codec_mask.classes == 7, "all organs, though few phantoms are looked at"
    mask = chest(3, 16).organs
    told = {"mask": mask, "text": "There is a left effusion."}
    both = model.sample_array(1, conditions=told, guidance=2.0)
    for less in ("mask", "text"):
        rest = {name: value for name, value in told.items() if name != less}
        assert not np.array_equal(both, model.sample_array(1, conditions=rest, guidance=2.0, warn=lambda note: None))


def test_latents_are_told_the_mask_at_full_size(tmp_path: Path) -> None:
    size = ["data.size=32", "data.count=16", "data.batch=8", "train.minutes=0", "train.steps=2"]
    coder = ["method.channels=[8,16]", "method.norm_groups=8", "method.adversarial=0", "method.features=0"]
    train(load_recipe("autoencoder-chest", [*size, *coder]), tmp_path / "coder")
    more = [*NET, *size, f"uses.autoencoder={tmp_path / 'coder'}"]
    recipe = load_recipe("latent-chest", more)
    data = open_run(recipe, tmp_path / "open", None, lambda note: None).data
    batch = batch_at(data, 0, 4, seed=0)
    assert batch["mask"].shape == (4, 7, 32, 32) and batch["image"].shape[2:] != (32, 32)
    model = fabrica.load(train(load_recipe("latent-chest", more), tmp_path / "run"), device="cpu")
    mask = chest(3, 32).organs
    told, free = model.sample_array(1, conditions={"mask": mask}), model.sample_array(1, warn=lambda note: None)
    assert told.shape == (1, 1, 32, 32) and not np.array_equal(told, free)


def test_volumes_are_told_their_masks(tmp_path: Path) -> None:
    rows = []
    for k in range(6):
        labels = Image(np.full((1, 8, 16, 16), 0, np.float32), np.diag([2.0, 2.0, 3.0, 1.0]), "label")
        labels.data[:, 2:6, 4:12, 2 + k : 8 + k] = 2
        io.write(labels.with_data(labels.data * 40 + 5, unit="arbitrary"), tmp_path / f"{k}.nii.gz")
        io.write(labels, tmp_path / f"{k}-mask.nii.gz")
        split = "val" if k < 2 else "train"
        rows.append(Row(f"{k}", f"p{k}", f"{k}.nii.gz", split=split, modality="MR", mask=f"{k}-mask.nii.gz"))
    Manifest(rows, tmp_path).save(tmp_path / "manifest.csv")
    volume = [*NET, "data.size=[8,16,16]", f"data.source={tmp_path / 'manifest.csv'}", "data.batch=2"]
    recipe = load_recipe("ddpm-chest", [*volume, "train.steps=2", "train.validate_every=2"])
    model = fabrica.load(train(recipe, tmp_path / "run"), device="cpu")
    assert model.found.codec_mask.classes == 3
    told, free = model.sample_array(1, conditions={"mask": labels}), model.sample_array(1, warn=lambda note: None)
    assert told.shape == (1, 1, 8, 16, 16) and not np.array_equal(told, free)
    app(
        [
            "sample",
            str(model.folder),
            "-n",
            "1",
            "--mask",
            str(tmp_path / "0-mask.nii.gz"),
            "--as",
            "nifti",
            "-o",
            str(tmp_path / "out"),
        ],
        standalone_mode=False,
    )
    (row,) = Manifest.load(tmp_path / "out" / "manifest.csv").rows
    seen, made = io.read(tmp_path / "out" / row.mask), io.read(tmp_path / "out" / row.path)
    assert seen.size == made.size and np.allclose(seen.affine, made.affine) and seen.data.max() == 2


def test_the_network_sees_shares_and_an_own_channel_for_no_mask() -> None:
    mask = torch.zeros(3, 2, 4, 4)
    mask[:2, 0, :, :1] = mask[:2, 1, :, 1:] = 1  # the last one is not known
    seen = laid_out(mask, torch.tensor([False, True, False]), [2, 2])
    assert seen.shape == (3, 3, 2, 2)
    torch.testing.assert_close(seen[0, :, 0], torch.tensor([[0.5, 0.0], [0.5, 1.0], [0.0, 0.0]]))
    null = torch.tensor([0.0, 0.0, 1.0]).view(3, 1, 1).expand(3, 2, 2)
    assert torch.equal(seen[1], null) and torch.equal(seen[2], null)


def test_the_null_is_learned() -> None:
    config = Diffusion.Config(
        channels=[8, 16], attention=[False, False], head_channels=8, norm_groups=8, label_drop=1.0, mask_width=4
    )
    method = Diffusion(config, (1, 8, 8), conditions={"mask": Mask(2, (8, 8))})
    batch = {"image": torch.randn(4, 1, 8, 8), "mask": torch.ones(4, 2, 8, 8) / 2}
    for name, w in method.denoiser.named_parameters():
        if "conv2" in name or "out.2" in name:  # they begin at 0, and nothing goes back through them
            torch.nn.init.normal_(w)
    next(iter(method.turns(batch, torch.Generator().manual_seed(0)))).loss.backward()
    weights = {k: w for k, w in method.denoiser.named_parameters() if "mlp_shared.conv.weight" in k}
    assert weights
    for w in weights.values():
        assert w.grad is not None and not w.grad[:, :2].any() and w.grad[:, 2].any()


def test_how_far_an_image_follows_a_mask_is_its_share_of_the_variance() -> None:
    rng = np.random.default_rng(0)
    flat = LEFT.data[None] * 2 - 1
    noise = rng.standard_normal((1, 1, SIDE, SIDE)).astype(np.float32)
    noise -= noise.mean()
    one, half, none, unknown = explained(np.concatenate([flat, flat + noise, noise, flat]), [LEFT, LEFT, LEFT, None])
    assert one == pytest.approx(1) and none < 0.05 and math.isnan(unknown)
    variance = float(flat.var())
    assert half == pytest.approx(variance / (variance + noise.var()), abs=0.12)


def test_black_and_white_is_a_mask_of_two_labels() -> None:
    assert np.array_equal(as_labels(picture(LEFT.data * 255, 255)).data, LEFT.data)
    assert np.array_equal(as_labels(Image(LEFT.data * 6)).data, LEFT.data * 6)


def test_the_command_line_takes_a_mask_and_keeps_it_beside_the_images(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    io.write(picture(np.tile(RIGHT.data, (1, 1, 1)) * 255, 255), tmp_path / "right.png")
    words = ["sample", str(run), "-n", "2", "--mask", str(tmp_path / "right.png"), "-o", str(tmp_path / "out")]
    app(words, standalone_mode=False)
    manifest = Manifest.load(tmp_path / "out" / "manifest.csv")
    (mask,) = {row.mask for row in manifest.rows}
    assert len(manifest.rows) == 2 and np.array_equal(io.read(tmp_path / "out" / mask).data, RIGHT.data)
    app([*words[:4], "-o", str(tmp_path / "free")], standalone_mode=False)
    assert "draws what a mask shows, and there is none" in capsys.readouterr().err
    io.write(picture(RIGHT.data * 3, 255), tmp_path / "strange.png")
    monkeypatch.setattr("sys.argv", ["fabrica", "sample", str(run), "--mask", str(tmp_path / "strange.png")])
    with pytest.raises(SystemExit) as ended:
        main()
    said = capsys.readouterr().err
    assert ended.value.code == 2 and said.count("\n") == 1 and "the model knows 0 to 1" in said


def test_the_report_says_how_far_images_follow_their_masks(run: Path, tmp_path: Path) -> None:
    others = drawn(tmp_path, 1, "test")
    report = fabrica.evaluate(run, others, tmp_path / "report", n=24, steps_curve=[])
    row = next(row for row in report.rows if row.key == "mask_explained")
    assert row.real is not None and row.real > 0.9 and row.value > 2 * row.baselines["another"]
    assert "What it draws for a mask" in report.page.read_text()


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["codec_mask.kind=window"], "codec_mask.kind is window; masks are label maps"),
        (["data.where={id: '1'}"], "no image in split val|no training image of .* has one"),
    ],
)
def test_recipes_that_cannot_be_are_refused(squares: Path, overrides: list[str], message: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=message):
        open_run(of_squares(squares, *overrides), tmp_path / "run", None, lambda note: None)


def test_methods_that_see_no_mask_and_data_without_one_are_refused(squares: Path, tmp_path: Path) -> None:
    recipe = load_recipe("dcgan-chest", ["data.condition=mask", "data.size=32"])
    with pytest.raises(UsageError, match=r"dcgan cannot be told mask; set data\.condition=label, or take"):
        open_run(recipe, tmp_path / "run", None, lambda note: None)
    bare = Manifest.load(squares)
    for row in bare.rows:
        row.mask = ""
    bare.save(tmp_path / "bare.csv")
    with pytest.raises(UsageError, match=r"no training image of .* has one: name its file in a column `mask`"):
        open_run(of_squares(tmp_path / "bare.csv"), tmp_path / "run", None, lambda note: None)
