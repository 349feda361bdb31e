"""Images to start from: changed as far as asked, kept where asked, by any sampler, in pixels and in latents."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest
import torch
from torch import Tensor

import fabrica
from fabrica import diffusion, io
from fabrica.cli.main import app
from fabrica.conditioning.encoder import UNCONDITIONAL
from fabrica.data.manifest import Manifest
from fabrica.errors import UsageError
from fabrica.image import Image
from fabrica.inference.synthesis import Synthesises
from fabrica.phantoms.chest.chest import chest
from fabrica.recipe.found import Found
from fabrica.recipe.load import load_recipe
from fabrica.training.loop import train

pytestmark = pytest.mark.usefixtures("few_held_out")

COSINE = diffusion.Schedule("cosine", 1000)
SMALL = [
    *("data.size=16", "data.count=16", "data.batch=8", "method.channels=[8,16]", "method.attention=[false,false]"),
    *("method.head_channels=8", "method.norm_groups=8", "sample.steps=4", "train.minutes=0", "train.steps=2"),
]


def gaussian(x_t: Tensor, t: float) -> Tensor:
    """The best estimate of x_0 where images are white noise of standard deviation 0.5."""
    alpha, sigma = (float(level) for level in COSINE.alpha_sigma(torch.tensor(t, dtype=torch.float64)))
    return alpha * 0.25 / (alpha * alpha * 0.25 + sigma * sigma) * x_t


@pytest.mark.parametrize("sampler", ["ddim", "dpmpp-2m", "heun", "unipc", "ddpm"])
def test_what_is_kept_stays_and_the_rest_is_a_sample(sampler: str) -> None:
    rng = torch.Generator().manual_seed(0)
    x_0, noise = torch.full((4000, 1, 1, 4), 0.7), torch.randn(4000, 1, 1, 4, generator=rng)
    keep = torch.tensor([True, True, False, False]).view(1, 1, 1, 4)
    found = diffusion.sample(
        gaussian,
        noise,
        COSINE,
        sampler=sampler,
        steps=60,
        noise=lambda: torch.randn(4000, 1, 1, 4, generator=rng),
        begin=diffusion.Begin(x_0, 1.0, keep),
    )
    torch.testing.assert_close(found[..., :2], x_0[..., :2], atol=2e-3, rtol=0)
    assert found[..., 2:].std().item() == pytest.approx(0.5, abs=0.03) and abs(found[..., 2:].mean().item()) < 0.03


@pytest.mark.parametrize("spacing", ["uniform", "log-snr"])
def test_the_weaker_the_closer(spacing: str) -> None:
    x_0 = torch.randn(1000, 1, 2, 2, generator=torch.Generator().manual_seed(1)) * 0.5
    noise = torch.randn(1000, 1, 2, 2, generator=torch.Generator().manual_seed(2))

    def moved(strength: float) -> float:
        begun = diffusion.Begin(x_0, strength)
        found = diffusion.sample(gaussian, noise, COSINE, steps=50, spacing=spacing, begin=begun)
        return math.sqrt(float((found - x_0).square().mean()))

    distances = [moved(strength) for strength in (0.02, 0.2, 0.5, 1.0)]
    assert distances == sorted(distances) and distances[0] < 0.05
    assert distances[-1] == pytest.approx(0.5 * math.sqrt(2), abs=0.05), "two images that have nothing in common"


def test_a_strength_that_there_is_not_is_refused() -> None:
    x = torch.zeros(1, 1, 2, 2)
    for strength in (0.0, 1.1, -1.0):
        with pytest.raises(UsageError, match="expected above 0"):
            diffusion.sample(gaussian, x, COSINE, begin=diffusion.Begin(x, strength))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(load_recipe("ddpm-chest", SMALL), tmp_path_factory.mktemp("start") / "run")


@pytest.fixture(scope="module")
def latent(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("start-latent")
    data = ["data.size=32", "data.count=16", "data.batch=8", "train.minutes=0", "train.steps=2"]
    coder = ["method.channels=[8,16]", "method.norm_groups=8", "method.adversarial=0", "method.features=0"]
    train(load_recipe("autoencoder-chest", [*data, *coder]), home / "coder")
    recipe = load_recipe("latent-chest", [*SMALL, *data, f"uses.autoencoder={home / 'coder'}"])
    return train(recipe, home / "run")


@pytest.mark.parametrize("kind", ["run", "latent"])
def test_a_model_draws_where_it_is_asked_to(kind: str, request: pytest.FixtureRequest) -> None:
    model = fabrica.load(request.getfixturevalue(kind), device="cpu")
    side = model.size[0]
    image = chest(5, side).image
    mask = np.zeros((1, side, side), np.float32)
    mask[:, side // 4 : side // 2 + 1, side // 3 : side // 2 + 3] = 1
    drawn = model.sample_array(2, start=image, redraw=image.with_data(mask))
    assert drawn.shape == (2, 1, side, side)
    seen = model.codec.encode(image)
    outside = np.broadcast_to(mask == 0, drawn[:1].shape[1:])
    for one in drawn:
        np.testing.assert_allclose(one[outside], seen[outside], atol=1e-5)
    apart = float(np.abs(drawn[0] - drawn[1])[mask > 0].max())
    assert apart > 1e-3, "each seed draws its own"
    alone = model.sample_array(1, seed=1, start=image, redraw=image.with_data(mask))
    np.testing.assert_allclose(alone, drawn[1:], atol=0.1 * apart)  # kernels differ slightly with the batch size
    weak = model.sample_array(1, start=image, strength=0.05)
    strong = model.sample_array(1, start=image, strength=1.0)
    space = getattr(model.method, "space", None)
    with torch.no_grad():
        kept = seen if space is None else space.decode(space.encode(torch.from_numpy(seen[None]))).numpy()[0]
    assert np.abs(weak - kept).mean() < np.abs(strong - kept).mean()


def test_images_of_another_size_are_brought_to_the_models(run: Path) -> None:
    model = fabrica.load(run, device="cpu")
    image = chest(5, 40).image
    assert model.sample_array(1, start=image).shape == (1, 1, 16, 16)


def test_wrong_use_is_explained(run: Path) -> None:
    model = fabrica.load(run, device="cpu")
    model = replace(model, recipe=replace(model.recipe, data=replace(model.recipe.data, fit="crop")))
    image = chest(5, 16).image
    volume = Image(np.zeros((1, 4, 16, 16), np.float32), image.affine, "arbitrary", {})
    empty = image.with_data(np.zeros((1, 16, 16), np.float32))
    wide, aside = (image.with_data(np.zeros((1, 16, 64), np.float32)) for _ in range(2))
    aside.data[..., 0] = 1
    for choices, message in (
        ({"strength": 0.5}, "are for an image to start from"),
        ({"redraw": image}, "are for an image to start from"),
        ({"start": image, "strength": 0.0}, "expected above 0"),
        ({"start": volume}, "the image is 3-D, and the model draws 2-D ones"),
        ({"start": image, "redraw": chest(5, 20).image}, r"the mask has shape \(1, 20, 20\); expected \(1, 16, 16\)"),
        ({"start": image, "redraw": empty}, "the mask is empty"),
        ({"redraw": aside, "start": wide}, "the mask lies outside of what the model sees"),
    ):
        with pytest.raises(UsageError, match=message):
            model.sample_array(1, **choices)
    recipe = load_recipe("modern-xray")
    known = {"recipe": recipe, "found": Found.asked(recipe), "encoder": UNCONDITIONAL, "choices": ("truncation",)}
    gan = type("GAN", (Synthesises,), {**known, "paces": (), "edits": False})()
    with pytest.raises(UsageError, match="modern-gan makes images of noise, and not of others"):
        gan.sample_array(1, start=image)


def test_the_command_line_takes_files(run: Path, tmp_path: Path) -> None:
    image = chest(5, 16).image
    io.write(image, tmp_path / "image.png")
    mask = np.zeros((1, 16, 16), np.float32)
    mask[:, :8] = 255
    io.write(Image(mask, image.affine, "arbitrary", {"range": (0, 255)}), tmp_path / "mask.png")
    words = [
        "sample",
        str(run),
        "-n",
        "1",
        "--from",
        str(tmp_path / "image.png"),
        "--redraw",
        str(tmp_path / "mask.png"),
    ]
    app([*words, "--as", "npz", "-o", str(tmp_path / "out")], standalone_mode=False)
    made = io.read(next((tmp_path / "out").glob("*.npz")))
    given = io.read(tmp_path / "image.png")
    np.testing.assert_allclose(made.data[:, 8:], given.data[:, 8:], atol=1.0)
    assert np.abs(made.data[:, :8] - given.data[:, :8]).max() > 20


def test_what_is_drawn_from_a_patient_stays_the_patients(run: Path, tmp_path: Path) -> None:
    """Outside of the mask it shows the patient's own pixels: to call it an image of nobody would give them away."""
    source = chest(5, 40).image
    io.write(source, tmp_path / "chest.dcm", model="phantom", seed=5)
    patient = io.read(tmp_path / "chest.dcm").origin["patient"]
    words = ["sample", str(run), "-n", "2", "--from", str(tmp_path / "chest.dcm"), "--strength", "0.3"]
    app([*words, "--as", "dicom", "-o", str(tmp_path / "out")], standalone_mode=False)
    first, second = (pydicom.dcmread(path) for path in sorted((tmp_path / "out").glob("*.dcm")))
    given = pydicom.dcmread(tmp_path / "chest.dcm")
    for made in (first, second):
        assert made.PatientID == given.PatientID and made.StudyInstanceUID == given.StudyInstanceUID
        assert made.SyntheticData == "YES" and made.ImageType[0] == "DERIVED"
        assert made.SourceImageSequence[0].ReferencedSOPInstanceUID == given.SOPInstanceUID
    assert first.SOPInstanceUID != second.SOPInstanceUID
    rows = Manifest.load(tmp_path / "out" / "manifest.csv").rows
    assert {row.patient for row in rows} == {patient}
    made = io.read(tmp_path / "out" / rows[0].path)
    assert made.spacing == pytest.approx([side * 40 / 16 for side in source.spacing], rel=1e-3)
    app([*words, "--as", "dicom", "-o", str(tmp_path / "out")], standalone_mode=False)
    assert len(Manifest.load(tmp_path / "out" / "manifest.csv").rows) == 2, "the same again"
