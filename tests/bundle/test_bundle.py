"""Bundles of MONAI: those of others opened, ours written, verified and run by MONAI itself, and nothing executed."""

from __future__ import annotations

import json
import logging
import resource
import runpy
import shutil
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser, run, verify_metadata, verify_net_in_out
from monai.networks.nets import AutoencoderKL, DiffusionModelUNet
from monai.networks.schedulers import DDIMScheduler
from torch import Tensor, nn

import fabrica
from fabrica import io
from fabrica.cli.main import app
from fabrica.data.manifest import Manifest, Row
from fabrica.diffusion import ddim
from fabrica.errors import FabricaError, UsageError
from fabrica.export import export
from fabrica.image import Image
from fabrica.methods import build
from fabrica.methods.autoencoder import Autoencoder
from fabrica.methods.diffusion import Diffusion
from fabrica.methods.noise import seeded
from fabrica.model.loading import load_autoencoder
from fabrica.model.model import Model
from fabrica.model.saving import save_model
from fabrica.nets import slabs
from fabrica.nets.conventions import matched
from fabrica.recipe.found import Found, load_found
from fabrica.recipe.load import load_recipe
from fabrica.recipe.schema import CodecConfig, DataConfig, OutputConfig, Recipe, SampleConfig, TrainConfig
from fabrica.training.frozen import open_space
from fabrica.training.teacher import open_teacher

CODER: dict[str, Any] = {
    "in_channels": 1,
    "out_channels": 1,
    "latent_channels": 3,
    "channels": [8, 16],
    "num_res_blocks": 1,
    "attention_levels": [False, False],
    "norm_num_groups": 8,
}
DENOISER: dict[str, Any] = {
    "in_channels": 3,
    "out_channels": 3,
    "channels": [8, 16],
    "num_res_blocks": [1, 2],
    "attention_levels": [False, True],
    "num_head_channels": [0, 8],
    "norm_num_groups": 8,
    "resblock_updown": True,
}
BETAS: dict[str, Any] = {"schedule": "scaled_linear_beta", "beta_start": 0.0015, "beta_end": 0.0195}
SCALE = 0.8


def lively(net: nn.Module, seed: int = 0) -> Any:
    """With weights that do something: MONAI's last convolution is zero at first."""
    rng = torch.Generator().manual_seed(seed)
    for weight in net.parameters():
        weight.data = 0.15 * torch.randn(weight.shape, generator=rng)
    return net.eval().requires_grad_(False)


def zoo(folder: Path, dims: int = 2, denoiser: bool = True, **changes: Any) -> tuple[Any, Any]:
    """A bundle as those of the model zoo, of two networks or of the autoencoder alone, and its networks."""
    coder_net = lively(AutoencoderKL(spatial_dims=dims, **CODER))
    denoiser_net = lively(DiffusionModelUNet(spatial_dims=dims, **DENOISER), 1)
    latents = [16, 24] if dims == 2 else [8, 10, 12]
    config: dict[str, Any] = {
        "imports": ["$import torch", "$raise_if_this_is_run()"],
        "bundle_root": ".",
        "model_dir": "$@bundle_root + '/models'",
        "spatial_dims": dims,
        "sizes": {"latent": [3, *latents]},
        "autoencoder_def": {
            "_target_": "monai.networks.nets.AutoencoderKL",
            **CODER,
            "spatial_dims": "@spatial_dims",
        },
        "load_autoencoder_path": "$@model_dir + '/first_stage.pt'",
        "latent_shape": "@sizes#latent",
        "device": "$torch.device('cpu')",
    }
    if denoiser:
        config |= {
            "network_def": {
                "_target_": "monai.networks.nets.diffusion_model_unet.DiffusionModelUNet",
                **DENOISER,
                "spatial_dims": "@spatial_dims",
            },
            "scale_factor": SCALE,
            "noise_scheduler": {
                "_target_": "monai.networks.schedulers.DDIMScheduler",
                "_requires_": ["@load_diffusion"],
                "num_train_timesteps": 1000,
                **BETAS,
                "clip_sample": False,
            },
            "sample": "$@sampler.sampling_fn(@noise)",
        }
    for key, value in changes.items():
        if isinstance(value, dict) and isinstance(config.get(key), dict):
            config[key] = config[key] | value
        else:
            config[key] = value
    image = {"num_channels": 1, "spatial_shape": [side * 2 for side in latents], "value_range": [0, 1]}
    metadata = {"name": "Tiny", "network_data_format": {"outputs": {"pred": image}}}
    for name in ("configs", "models"):
        (folder / name).mkdir(parents=True)
    (folder / "configs/inference.json").write_text(json.dumps(config))
    (folder / "configs/metadata.json").write_text(json.dumps(metadata))
    torch.save(coder_net.state_dict(), folder / "models/first_stage.pt")
    if denoiser:
        torch.save({"epoch": 3, "state_dict": denoiser_net.state_dict()}, folder / "models/model.pt")
    return coder_net, denoiser_net


def turned(x: Tensor) -> Tensor:
    """(x, y, z) of MONAI's readers <-> (z, y, x) of ours; pictures as they are."""
    return x if x.ndim == 4 else x.permute(0, 1, 4, 3, 2)


def opened(folder: Path) -> Model:
    return fabrica.load(folder, device="cpu")


@pytest.mark.filterwarnings("ignore:.*does not say their spacing")
@pytest.mark.parametrize("dims", [2, 3])
@torch.no_grad()
def test_a_bundle_samples_as_its_networks_do_in_monai(tmp_path: Path, dims: int) -> None:
    coder, denoiser = zoo(tmp_path / "b", dims)
    model = opened(tmp_path / "b")
    sample = replace(model.recipe.sample, spacing="uniform")
    model = replace(model, recipe=replace(model.recipe, sample=sample))
    size = (32, 48) if dims == 2 else (24, 20, 16)
    assert model.size == size and model.name == "Tiny"
    assert model.found.method["objective"] == "epsilon" and not model.recipe.sample.clip

    z = turned(seeded([5, 6])((3, *(side // 2 for side in size))))
    scheduler = DDIMScheduler(1000, clip_sample=False, **BETAS)
    scheduler.set_timesteps(10)
    for t in range(999, 0, -100):
        z, _ = scheduler.step(denoiser(z, timesteps=torch.tensor([t, t])), t, z)
    images = turned(coder.decode_stage_2_outputs(z / SCALE)).clamp(0, 1).numpy()
    drawn = model.sample_array(2, seed=5, sampler="ddim", steps=10)
    assert images.std() > 0.1
    np.testing.assert_allclose(drawn, images * 2 - 1, atol=1e-4)
    image = model.sample(1, seed=6, sampler="ddim", steps=10)[0]
    np.testing.assert_allclose(image.data, images[1], atol=1e-4)  # in the bundle's own units


@pytest.mark.filterwarnings("ignore:.*does not say their spacing")
@pytest.mark.parametrize("dims", [2, 3])
@torch.no_grad()
def test_an_autoencoder_alone_encodes_and_decodes_as_in_monai(tmp_path: Path, dims: int) -> None:
    coder, _ = zoo(tmp_path / "b", dims, denoiser=False)
    model = opened(tmp_path / "b")
    images = torch.rand(2, 1, *model.size, generator=torch.Generator().manual_seed(0))
    means = coder.encode(turned(images))[0]
    latents = model.encode((images * 2 - 1).numpy())
    np.testing.assert_allclose(latents, turned(means).numpy(), atol=1e-5)
    wanted = turned(coder.decode(means)).clamp(0, 1) * 2 - 1
    np.testing.assert_allclose(model.decode(latents), wanted.numpy(), atol=2e-5 if dims == 2 else 1e-4)


@pytest.mark.filterwarnings("ignore:.*does not say their spacing")
@pytest.mark.parametrize("dims", [2, 3])
def test_large_images_of_a_bundle_go_by_slabs(tmp_path: Path, dims: int, monkeypatch: pytest.MonkeyPatch) -> None:
    zoo(tmp_path / "b", dims, denoiser=False)  # whose images are from 0 to 1
    model = opened(tmp_path / "b")
    images = np.random.default_rng(0).uniform(-1, 1, (1, 1, *model.size)).astype(np.float32)
    latents = model.encode(images)
    made = model.decode(latents)
    monkeypatch.setattr(slabs, "LARGE", {"cpu": 0})
    monkeypatch.setattr(slabs, "SLAB", 2**12)
    np.testing.assert_allclose(model.encode(images), latents, atol=1e-4)
    np.testing.assert_allclose(model.decode(latents), made, atol=1e-4)
    assert made.std() > 0.1


@pytest.mark.parametrize("prediction", ["sample", "v_prediction"])
@torch.no_grad()
def test_diffusion_on_pixels_of_0_to_1_as_yaml(tmp_path: Path, prediction: str) -> None:
    told = {**DENOISER, "spatial_dims": 2, "in_channels": 1, "out_channels": 1}
    net = lively(DiffusionModelUNet(**told))
    scheduler = {"schedule": "linear_beta", "prediction_type": prediction, "clip_sample": False}
    (tmp_path / "configs").mkdir()
    (tmp_path / "models").mkdir()
    config = {
        "network_def": {"_target_": "DiffusionModelUNet", **told},
        "scheduler": {"_target_": "monai.networks.schedulers.ddpm.DDPMScheduler", **scheduler},
        "spacing": [0.5, 0.5],
    }
    (tmp_path / "configs/inference.yaml").write_text(json.dumps(config))  # which is YAML as well
    image = {"num_channels": 1, "spatial_shape": [16, 16], "value_range": [0, 1]}
    metadata = {"network_data_format": {"outputs": {"pred": image}}}
    (tmp_path / "configs/metadata.json").write_text(json.dumps(metadata))
    torch.save(net.state_dict(), tmp_path / "models/model.pt")
    model = opened(tmp_path)
    sample = replace(model.recipe.sample, spacing="uniform")
    model = replace(model, recipe=replace(model.recipe, sample=sample))
    ddim = DDIMScheduler(1000, **scheduler)
    ddim.set_timesteps(10)
    x = seeded([3])((1, 16, 16))
    for t in range(999, 0, -100):
        x, _ = ddim.step(net(x, timesteps=torch.tensor([t])), t, x)
    drawn = model.sample_array(1, seed=3, sampler="ddim", steps=10)
    np.testing.assert_allclose(drawn, x.clamp(0, 1).numpy() * 2 - 1, atol=1e-4)
    assert not model.recipe.sample.clip and abs(model.sample(1)[0].affine[0, 0]) == 0.5

    image = Image(np.random.default_rng(0).random((1, 16, 16)).astype(np.float32))
    if prediction == "v_prediction":  # which near t = 0 is that of the image, whatever the network
        near = model.sample_array(1, start=image, strength=0.01)
        assert np.abs(near - (image.data * 2 - 1)).mean() < 0.1
    upper = image.with_data(np.float32(np.arange(16) < 8)[:, None] * np.ones((1, 16, 16), np.float32))
    redrawn = model.sample_array(1, start=image, redraw=upper)[0]
    np.testing.assert_allclose(redrawn[:, 8:], image.data[:, 8:] * 2 - 1, atol=1e-5)
    assert np.abs(redrawn[:, :8] - (image.data[:, :8] * 2 - 1)).mean() > 0.1


def test_weights_of_monai_generative_find_their_places() -> None:
    """Its networks had a projection behind attention that they never used."""
    new = AutoencoderKL(2, **CODER | {"attention_levels": [False, True]}, include_fc=False).state_dict()
    old = {name.replace(".attn.", ".").replace(".postconv.", ".conv."): w for name, w in new.items()}
    assert old.keys() != new.keys()
    unused = {name.replace("to_q", "proj_attn"): w for name, w in old.items() if "to_q" in name}
    found = matched(old | unused, new)
    assert found.keys() == new.keys() and all(
        found[name] is old_w for name, old_w in zip(new, old.values(), strict=True)
    )
    with_projection = AutoencoderKL(2, **CODER | {"attention_levels": [False, True]})
    reference = AutoencoderKL(2, **CODER | {"attention_levels": [False, True]})
    reference.load_old_state_dict(dict(old | unused))
    given = matched(old | unused, with_projection.state_dict())
    for name, weight in reference.state_dict().items():
        assert torch.equal(given[name], weight), name


@pytest.mark.filterwarnings("ignore:.*does not say their spacing")
def test_a_bundle_of_monai_generative(tmp_path: Path) -> None:
    target = {"_target_": "generative.networks.nets.AutoencoderKL", "use_checkpointing": True}
    zoo(tmp_path / "b", denoiser=False, autoencoder_def=target)
    path = tmp_path / "b/configs/inference.json"
    config = json.loads(path.read_text())
    config["autoencoder_def"]["num_channels"] = config["autoencoder_def"].pop("channels")
    path.write_text(json.dumps(config))
    bare = lively(AutoencoderKL(2, **CODER, include_fc=False))
    old = {name.replace(".attn.", ".").replace(".postconv.", ".conv."): w for name, w in bare.state_dict().items()}
    old |= {name.replace("to_q", "proj_attn"): w for name, w in old.items() if "to_q" in name}
    torch.save(old, tmp_path / "b/models/first_stage.pt")
    images = np.random.default_rng(0).uniform(-1, 1, (1, 1, 32, 48)).astype(np.float32)
    wanted = bare.encode((torch.from_numpy(images) + 1) / 2)[0]
    np.testing.assert_allclose(opened(tmp_path / "b").encode(images), wanted.numpy(), atol=1e-5)


def test_what_a_bundle_does_not_say_is_said(tmp_path: Path) -> None:
    zoo(tmp_path / "b")
    (tmp_path / "b/configs/metadata.json").write_text("{}")
    with pytest.warns(UserWarning, match="does not say the range of its images, taken as .0, 1., nor their spacing"):
        assert opened(tmp_path / "b").codec.span == (0.0, 1.0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"size": [16]}, "size of images is [16], and the networks are 2-D"),
        ({"output": {"spacing": [1.0]}}, "output.spacing of images is [1.0], and"),
        ({"output": {"size": [8, 0]}}, "output.size of images is [8, 0], and"),
        ({"fit": "squeeze"}, "fit is 'squeeze'; expected one of pad, crop, stretch, exact"),
        ({"patch": 0}, "patches are 0 and 1; expected 1 or more"),
    ],
)
def test_what_a_bundle_of_ours_cannot_say(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    export(ours(tmp_path / "model", SHALLOW, [16, 16]), "bundle", tmp_path / "bundle")
    path = tmp_path / "bundle/configs/metadata.json"
    metadata = json.loads(path.read_text())
    path.write_text(json.dumps({**metadata, "fabrica": metadata["fabrica"] | changes}))
    with pytest.raises(UsageError) as refused:
        opened(tmp_path / "bundle")
    assert message in str(refused.value) and "\n" not in str(refused.value)


def test_the_command_says_so_in_a_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    zoo(tmp_path / "b")
    app(["sample", str(tmp_path / "b"), "-n", "1", "--steps", "1", "-o", str(tmp_path / "out")], standalone_mode=False)
    assert f"note: {tmp_path / 'b'} does not say their spacing, taken as 1 mm\n" in capsys.readouterr().err


def radiographs(folder: Path) -> Path:
    """A manifest of noise in train and test."""
    folder.mkdir()
    rng, rows = np.random.default_rng(0), []
    for k in range(40):
        values = np.rint(rng.uniform(0, 255, (1, 16, 16))).astype(np.float32)
        io.write(Image(values, origin={"range": (0, 255), "step": 1.0}), folder / f"{k}.png")
        rows.append(Row(id=str(k), patient=str(k), path=f"{k}.png", split="train" if k < 20 else "test"))
    Manifest(rows, folder).save(folder / "manifest.csv")
    return folder / "manifest.csv"


@pytest.mark.parametrize("method", ["diffusion", "autoencoder"])
def test_a_bundle_is_judged_as_any_model(tmp_path: Path, method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = ours(tmp_path / "model", SHALLOW if method == "diffusion" else LATENTS, [16, 16])
    export(model, "bundle", tmp_path / "bundle")
    real = radiographs(tmp_path / "real")
    monkeypatch.chdir(real.parent)  # what no source names must not be read
    words = ["evaluate", str(tmp_path / "bundle"), "-n", "16", "--curve", "", "-o", str(tmp_path / "report")]
    words = [word for word in words if method == "diffusion" or word not in ("--curve", "")]
    with pytest.raises(UsageError, match=r"bundle does not say what it was trained on; name the real ones: --against"):
        app(words, standalone_mode=False)
    app([*words, "--against", str(real)], standalone_mode=False)
    report = json.loads((tmp_path / "report/scores.json").read_text())
    assert report["model_hash"] == opened(tmp_path / "bundle").hash
    assert any("does not say what it was trained on" in said for said in report["warnings"])


class Boom:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return Path.touch, (self.path,)


SCRIPT = {"_target_": "scripts.nets.Mine", "channels": [8]}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"autoencoder_def": {"latent_channels": "$2 + 1"}},
            "autoencoder_def#latent_channels is the expression '$2 + 1'",
        ),
        ({"spatial_dims": "$__import__('os').system('touch ran')"}, "a bundle's code is never run"),
        ({"spatial_dims": "%other.json#dims"}, "spatial_dims is the expression '%other.json#dims'"),
        ({"spatial_dims": "@spatial_dims"}, "refers to itself"),
        ({"spatial_dims": "@nowhere"}, "has no 'nowhere'"),
        ({"autoencoder_def": SCRIPT}, "is of class 'scripts.nets.Mine'; expected AutoencoderKL or DiffusionModelUNet"),
        ({"network_def": {"_target_": "os.DiffusionModelUNet"}}, "no other code is run"),
        ({"network_def": "$scripts.make()"}, "network_def is the expression '$scripts.make()'"),
        ({"autoencoder_def": {"chanels": [8]}}, "has no such argument; did you mean channels?"),
        ({"autoencoder_def": {"norm_num_groups": 7}}, "does not make a AutoencoderKL"),
        ({"autoencoder_def": {"channels": [8, 24]}}, "expected [24]"),
        ({"autoencoder_def": {"attention_levels": [False, True]}}, "is nothing, expected"),
        ({"network_def": {"with_conditioning": True, "cross_attention_dim": 4}}, "only unconditional bundles"),
        ({"network_def": {"in_channels": 7}}, "conv_in.conv.weight"),
        ({"noise_scheduler": {"num_train_timesteps": 500}}, "num_train_timesteps 500; only 1000"),
        ({"noise_scheduler": {"schedule": "sigmoid_beta"}}, "schedule 'sigmoid_beta'; expected one of linear_beta"),
        ({"noise_scheduler": {"_target_": "scripts.Own"}}, "expected DDPMScheduler or DDIMScheduler"),
        ({"noise_scheduler": None}, "says no noise levels; expected noise_scheduler or scheduler"),
        ({"scale_factor": "$1 / torch.std(@z)"}, "scale_factor is the expression"),
        ({"scale_factor": 0}, "scale_factor is 0; expected a positive number"),
        ({"autoencoder_def": None, "network_def": None}, "defines no network"),
        ({"latent_shape": [3, 15, 24]}, "takes multiples of 2; found size [15, 24]"),
        ({"load_autoencoder_path": "models/gone.pt"}, "has no weights: no models/gone.pt"),
        ({"load_autoencoder_path": "../outside.pt"}, "has no weights: no ../outside.pt"),
    ],
)
@pytest.mark.filterwarnings("ignore:.*does not say their spacing")
def test_what_cannot_be_opened_is_one_line(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    zoo(tmp_path / "b", **changes)
    shutil.copy(tmp_path / "b/models/model.pt", tmp_path / "outside.pt")
    with pytest.raises(FabricaError) as refused:
        opened(tmp_path / "b")
    assert message in str(refused.value) and "\n" not in str(refused.value)


@pytest.mark.parametrize("legacy", [False, True])
def test_a_pickle_with_code_is_not_run(tmp_path: Path, legacy: bool) -> None:
    zoo(tmp_path / "b")
    held = {"conv": torch.zeros(1), "more": Boom(tmp_path / "ran")}
    torch.save(held, tmp_path / "b/models/model.pt", _use_new_zipfile_serialization=not legacy)
    with pytest.raises(FabricaError, match="holds more than tensors, which is not run"):
        opened(tmp_path / "b")
    assert not (tmp_path / "ran").exists()


@pytest.mark.filterwarnings("ignore:.*does not say their spacing")
def test_a_scale_beside_the_weights(tmp_path: Path) -> None:
    _, denoiser = zoo(tmp_path / "b")
    for scale in ("0.8 or so", [0.8], torch.tensor([0.8, 0.9]), float("nan")):
        torch.save({"state_dict": denoiser.state_dict(), "scale_factor": scale}, tmp_path / "b/models/model.pt")
        with pytest.raises(FabricaError, match=r"model\.pt: scale_factor is .*; expected a positive number") as refused:
            opened(tmp_path / "b")
        assert "\n" not in str(refused.value)
    torch.save({"state_dict": denoiser.state_dict(), "scale_factor": torch.tensor(0.5)}, tmp_path / "b/models/model.pt")
    assert float(cast(Any, opened(tmp_path / "b").method).space.encoder.std[0]) == 2


def test_damaged_files_are_one_line(tmp_path: Path) -> None:
    zoo(tmp_path / "b")
    (tmp_path / "b/models/model.pt").write_bytes(b"PK\x03\x04 not an archive")
    with pytest.raises(FabricaError, match=r"model\.pt is damaged"):
        opened(tmp_path / "b")
    torch.save({"epoch": 3}, tmp_path / "b/models/model.pt")
    with pytest.raises(FabricaError, match="holds no state_dict"):
        opened(tmp_path / "b")
    (tmp_path / "b/configs/inference.json").write_text("{'a': ")
    with pytest.raises(FabricaError, match=r"inference\.json is damaged"):
        opened(tmp_path / "b")
    (tmp_path / "b/configs/inference.json").unlink()
    with pytest.raises(UsageError, match=r"has no configs/inference\.json"):
        opened(tmp_path / "b")


NETS = {"channels": [8, 16], "norm_groups": 8}
PIXELS = {**NETS, "name": "diffusion", "attention": [False, True], "head_channels": 8}
LATENTS = {**NETS, "name": "autoencoder", "adversarial": 0.0, "features": 0.0, "latent_channels": 4, "res_blocks": 1}


HU = CodecConfig("window", -1000.0, 500.0, "HU")


def ours(
    folder: Path,
    method: dict[str, Any],
    size: list[int],
    space: dict[str, Any] | None = None,
    channels: int = 1,
    codec: CodecConfig = HU,
) -> Model:
    """A model of this house with lively weights, saved and opened; space: of the autoencoder that it works on."""
    coder = None
    if space:
        ours(folder / "autoencoder", space, size)
        coder = load_autoencoder(folder / "autoencoder", torch.device("cpu")).method
    recipe = Recipe(
        name="tiny",
        about="A test",
        method=dict(method),
        uses={"autoencoder": "autoencoder"} if space else {},
        data=DataConfig(size=size, channels=channels),
        codec=codec,
        output=OutputConfig("CT", [2.0, 0.7, 0.5][-len(size) :]),
        sample=SampleConfig(steps=5, sampler="ddim", spacing="uniform", clip=False),  # MONAI clips otherwise
        train=TrainConfig(precision="fp32"),
    )
    found = Found.asked(recipe)
    made = build(recipe, found, coder)
    for name in made.ships:
        lively(getattr(made, name), len(name))
    if isinstance(made, Autoencoder):
        cast(Tensor, made.encoder.mean).copy_(torch.tensor([0.3, -0.2, 0.1, 0.0]))
        cast(Tensor, made.encoder.std).copy_(torch.tensor([0.5, 2.0, 1.0, 0.7]))
    folder.mkdir(parents=True, exist_ok=True)
    found = replace(found, method={"name": method["name"], **asdict(made.config)})
    save_model(folder, made, recipe, found, kept="all")
    return opened(folder)


SHALLOW = {**PIXELS, "channels": [8], "attention": [True]}
VARIANTS = {
    "pixels": (PIXELS, [32, 24], None),
    "patches": ({**PIXELS, "patch": 2, "objective": "epsilon", "schedule": "linear"}, [32, 24], None),
    "flow": ({**PIXELS, "objective": "flow", "schedule": "flow", "patch": 2}, [16, 16], None),
    "latents": ({**PIXELS, "objective": "x0", "schedule": "scaled-linear"}, [32, 48], LATENTS),
    "volumes": ({**SHALLOW, "patch": 2}, [32, 32, 64], {**LATENTS, "patch": 2, "channels": [8, 8]}),
    "padded": (PIXELS, [30, 46], {**LATENTS, "attention": True, "patch": 2}),
}


def by_monai(folder: Path, what: str = "image", **changes: Any) -> Any:
    """What the exported configuration makes: the image, (C, *S) in physical units, or its affine."""
    parser = ConfigParser()
    parser.read_config(folder / "configs/inference.json")
    parser.update({"bundle_root": str(folder), **changes})
    return parser.get_parsed_content(what)


@pytest.mark.parametrize("name", VARIANTS)
def test_there_and_back(tmp_path: Path, name: str) -> None:
    """Exported, the model draws the same image of a seed by MONAI alone, and opened again."""
    method, size, space = VARIANTS[name]
    model = ours(tmp_path / "model", method, size, space)
    export(model, "bundle", tmp_path / "bundle")
    drawn = model.sample_array(2, seed=7)
    assert drawn.std() > 0.05
    back = opened(tmp_path / "bundle")
    np.testing.assert_allclose(back.sample_array(2, seed=7), drawn, atol=3e-4)
    image, again = model.sample(1)[0], back.sample(1)[0]
    np.testing.assert_array_equal(image.affine, again.affine)
    np.testing.assert_array_equal(image.affine, by_monai(tmp_path / "bundle", what="affine"))
    assert (again.unit, again.origin["modality"], back.recipe.sample) == ("HU", "CT", model.recipe.sample)

    made = by_monai(tmp_path / "bundle", seed=7, num_inference_steps=5)
    np.testing.assert_allclose(made, (drawn[0] + 1) * 750 - 1000, atol=0.3)  # of 1500 HU


def test_without_a_spacing_no_place_is_made_up(tmp_path: Path) -> None:
    ours(tmp_path / "model", SHALLOW, [16, 16])
    path = tmp_path / "model/found.yaml"
    replace(load_found(path), spacing=[]).save(path)
    model = opened(tmp_path / "model")
    export(model, "bundle", tmp_path / "bundle")
    np.testing.assert_array_equal(model.sample(1)[0].affine, np.eye(4))
    np.testing.assert_array_equal(model.affine, by_monai(tmp_path / "bundle", what="affine"))


@pytest.mark.parametrize("steps", [7, 300])
@torch.no_grad()
def test_steps_that_do_not_divide_the_levels_leave_no_noise(tmp_path: Path, steps: int) -> None:
    model = ours(tmp_path / "model", SHALLOW, [16, 16])
    export(model, "bundle", tmp_path / "bundle")
    times = [(k + 1) / 1000 for k in range(999, -1, -(1000 // steps))] + [0.0]
    method = cast(Diffusion, model.method)
    denoise = method.denoising({}, model.recipe.sample, 1, torch.device("cpu"))
    wanted = ddim(denoise, seeded([7])(method.shape), method.schedule, times)
    made = by_monai(tmp_path / "bundle", seed=7, num_inference_steps=steps)
    np.testing.assert_allclose(made, model.codec.decode(wanted[0].numpy()), atol=0.5)


@pytest.mark.parametrize(("data_size", "space"), [([32, 32], None), ([31, 34], LATENTS)])
def test_padding_of_fit_exact_is_cut_off(tmp_path: Path, data_size: list[int], space: dict[str, Any] | None) -> None:
    ours(tmp_path / "model", SHALLOW, data_size, space)
    recipe, found = tmp_path / "model/recipe.yaml", tmp_path / "model/found.yaml"
    load_recipe(recipe, ["data.fit=exact"]).save(recipe)
    replace(load_found(found), size=[28, 29]).save(found)
    model = opened(tmp_path / "model")
    export(model, "bundle", tmp_path / "bundle")
    wanted = model.sample(1, seed=3)[0].data
    assert wanted.shape == (1, 28, 29)
    np.testing.assert_allclose(by_monai(tmp_path / "bundle", seed=3, num_inference_steps=5), wanted, atol=0.3)
    back = opened(tmp_path / "bundle")
    assert back.size == (28, 29) and back.recipe.data.fit == "exact"


@pytest.mark.filterwarnings("ignore")  # LoadImage of MONAI warns of readers that are not installed
@pytest.mark.parametrize("size", [(31, 45), (32, 48), (64, 20), (21, 18, 26)])
def test_an_exported_autoencoder_takes_images_of_any_size(tmp_path: Path, size: tuple[int, ...]) -> None:
    model = ours(tmp_path / "model", {**LATENTS, "patch": 2}, [32, 48] if len(size) == 2 else [16, 16, 16])
    export(model, "bundle", tmp_path / "bundle")
    place = np.array([[-0.5, 0, 0, 20], [0, 0, 2, 30], [0, -0.7, 0, 40], [0, 0, 0, 1]])
    image = Image(np.random.default_rng(0).uniform(-1000, 500, (1, *size)).astype(np.float32), place, "HU")
    io.write(image, tmp_path / "in.nii.gz")
    values = model.codec.encode(fabrica.read(tmp_path / "in.nii.gz"))[None]
    wanted = model.codec.decode(model.decode(model.encode(values), size)[0])
    made = by_monai(tmp_path / "bundle", input_file=str(tmp_path / "in.nii.gz"))
    assert made.shape == (1, *size)
    np.testing.assert_allclose(made, wanted, atol=0.3)
    placed = by_monai(tmp_path / "bundle", what="placed", input_file=str(tmp_path / "in.nii.gz"))
    np.testing.assert_allclose(placed.affine, place, atol=1e-5)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("channels", [1, 3])
def test_an_exported_autoencoder_reads_each_image_by_its_percentiles(tmp_path: Path, channels: int) -> None:
    codec = CodecConfig("percentile", 1.0, 99.0, default_limits=[0.0, 1.0])
    model = ours(tmp_path / "model", LATENTS, [16, 16], channels=channels, codec=codec)
    export(model, "bundle", tmp_path / "bundle")
    values = np.random.default_rng(0).gamma(2, 300, (channels, 18, 21)).astype(np.float32)
    io.write(Image(values), tmp_path / "in.nii.gz")
    image = fabrica.read(tmp_path / "in.nii.gz")
    made = model.decode(model.encode(model.codec.encode(image)[None]), image.size)[0]
    wanted = model.codec.decode(made, model.codec.limits(image.data))
    given = {"input_file": str(tmp_path / "in.nii.gz"), "output_dir": str(tmp_path)}
    np.testing.assert_allclose(by_monai(tmp_path / "bundle", **given), wanted, atol=0.5)
    by_monai(tmp_path / "bundle", what="run", **given)
    made_by_monai = tmp_path / "image.nii.gz"  # its channels stand as volumes, as MONAI writes them
    frames = [fabrica.read(made_by_monai, frame).data for frame in io.frames(made_by_monai)]
    np.testing.assert_allclose(np.concatenate(frames), wanted, atol=0.5)


def test_label_maps_cannot_be_a_bundle(tmp_path: Path) -> None:
    model = ours(tmp_path / "model", SHALLOW, [16, 16], channels=3, codec=CodecConfig("label", 0, 2, "label", 3))
    with pytest.raises(UsageError, match="tiny makes label maps, and a bundle's images are grey values"):
        export(model, "bundle", tmp_path / "bundle")


def test_an_autoencoder_there_and_back(tmp_path: Path) -> None:
    model = ours(tmp_path / "model", {**LATENTS, "patch": 2}, [32, 48])
    export(model, "bundle", tmp_path / "bundle")
    back = opened(tmp_path / "bundle")
    images = np.random.default_rng(0).uniform(-1, 1, (2, 1, 32, 48)).astype(np.float32)
    latents = model.encode(images)
    np.testing.assert_allclose(back.encode(images), latents, atol=1e-5)
    np.testing.assert_allclose(back.decode(latents), model.decode(latents), atol=1e-5)
    state = torch.load(tmp_path / "bundle/models/model.pt", weights_only=True)
    AutoencoderKL(
        2,
        **{**CODER, "in_channels": 4, "out_channels": 4, "latent_channels": 4}
        | {"with_encoder_nonlocal_attn": False, "with_decoder_nonlocal_attn": False},
    ).load_state_dict(state)


TENSOR = {
    "type": "object",
    "required": ["type", "format", "num_channels", "spatial_shape", "dtype", "value_range"],
    "properties": {"spatial_shape": {"type": "array"}, "value_range": {"type": "array"}},
}
NETWORK = {
    "type": "object",
    "required": ["inputs", "outputs"],
    "properties": {key: {"type": "object", "additionalProperties": TENSOR} for key in ("inputs", "outputs")},
}
VERSIONS = ["schema", "version", "monai_version", "pytorch_version", "numpy_version"]
TEXTS = ["task", "description", "authors", "copyright"]
SCHEMA = {
    "type": "object",
    "required": [*VERSIONS, *TEXTS, "required_packages_version", "network_data_format"],
    "properties": {
        **{key: {"type": "string"} for key in (*VERSIONS, *TEXTS)},
        **{key: {"type": "object"} for key in ("required_packages_version", "changelog")},
    },
    "patternProperties": {"_data_format$": NETWORK},
}


@pytest.mark.filterwarnings("ignore")  # MONAI warns of the trust that its own reader puts into a bundle
@pytest.mark.skipif(not find_spec("jsonschema"), reason="MONAI verifies with jsonschema: extra dev")
@pytest.mark.parametrize("kind", ["latents", "patches", "autoencoder"])
def test_monai_verifies_and_runs_it(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The schema is asked for by URL; one that is there already is taken as it stands, so that no network is needed."""
    method, size, space = VARIANTS.get(kind, (LATENTS, [32, 48], None))
    model = ours(tmp_path / "model", method, size, space)
    export(model, "bundle", tmp_path / "bundle")
    (tmp_path / "schema.json").write_text(json.dumps(SCHEMA))
    monkeypatch.chdir(tmp_path / "bundle")
    metadata, config = "configs/metadata.json", "configs/inference.json"
    verify_metadata(meta_file=metadata, filepath=str(tmp_path / "schema.json"))
    verify_net_in_out("network", meta_file=metadata, config_file=config, device="cpu")
    given: dict[str, Any] = {"seed": 3, "num_inference_steps": 5}
    if kind == "autoencoder":
        image = Image(np.random.default_rng(0).uniform(-500, 500, (1, 32, 48)).astype(np.float32), np.eye(4), "HU")
        io.write(image, tmp_path / "in.nii.gz")
        given = {"input_file": str(tmp_path / "in.nii.gz")}
    run(config_file=config, **given)
    made = fabrica.read(next((tmp_path / "bundle/output").glob("*.nii.gz")))
    assert made.size == tuple(size)
    if kind == "autoencoder":
        values = model.codec.encode(fabrica.read(tmp_path / "in.nii.gz"))[None]
        wanted = model.codec.decode(model.decode(model.encode(values))[0])
    else:
        wanted = model.sample(1, seed=3)[0].data
        np.testing.assert_allclose(np.abs(np.diag(made.affine))[:2], [0.5, 0.7])
    np.testing.assert_allclose(made.data, wanted, atol=0.3)


@pytest.mark.skipif(not (find_spec("fire") and find_spec("jsonschema")), reason="needs fire and jsonschema: extra dev")
def test_monais_own_command_verifies_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`python -m monai.bundle`, in this process."""
    export(ours(tmp_path / "model", PIXELS, [16, 16]), "bundle", tmp_path / "bundle")
    files = ["--meta_file", "configs/metadata.json", "--config_file", "configs/inference.json"]
    said: list[logging.LogRecord] = []
    listening = logging.Handler()
    monkeypatch.setattr(listening, "emit", said.append)
    monkeypatch.setattr(logging.getLogger("monai.bundle.scripts"), "handlers", [listening])
    monkeypatch.chdir(tmp_path / "bundle")
    monkeypatch.setattr(sys, "argv", ["monai.bundle", "verify_net_in_out", "network", *files])
    runpy.run_module("monai.bundle", run_name="__main__")
    assert any("verified with no error" in record.getMessage() for record in said)


@pytest.mark.parametrize(
    ("method", "space", "message"),
    [
        ({**PIXELS, "levels": 500}, None, "method.levels is 500"),
        ({**PIXELS, "shift": 2.0}, None, "method.shift is 2.0"),
        ({**PIXELS, "zero_terminal_snr": True}, None, "can be a bundle"),
        ({**PIXELS, "schedule": "flow"}, None, "objective v on the flow schedule"),
        ({**LATENTS, "shortcut": True}, None, "train it with method.shortcut=false"),
        (PIXELS, {**LATENTS, "shortcut": True}, "train it with method.shortcut=false"),
        ({"name": "dcgan"}, None, "tiny is a dcgan; bundles are for diffusion and autoencoders"),
    ],
)
def test_what_cannot_be_a_bundle_is_one_line(
    tmp_path: Path, method: dict[str, Any], space: dict[str, Any] | None, message: str
) -> None:
    model = ours(tmp_path / "model", method, [32, 32], space)
    with pytest.raises(UsageError) as refused:
        export(model, "bundle", tmp_path / "bundle")
    assert message in str(refused.value) and "\n" not in str(refused.value)
    assert not (tmp_path / "bundle").exists()


@pytest.mark.parametrize("empty", [False, True])
def test_a_full_disk_leaves_nothing_behind(tmp_path: Path, empty: bool) -> None:
    model, home = ours(tmp_path / "model", PIXELS, [16, 16]), tmp_path / "home"
    out = home / "out"
    (out if empty else home).mkdir(parents=True)
    before = list(home.rglob("*"))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))  # the texts fit, the weights do not
    try:
        with pytest.raises(FabricaError, match=r"out: cannot be written \(.*\); nothing was changed"):
            export(model, "bundle", out)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list(home.rglob("*")) == before
    export(model, "bundle", out)
    assert opened(out).size == (16, 16) and {path.name for path in out.iterdir()} == {"configs", "docs", "models"}


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ours(tmp_path / "model", PIXELS, [16, 16])
    words = ["export", str(tmp_path / "model"), "-o", str(tmp_path / "out"), "--to"]
    with pytest.raises(UsageError, match="no export format 'bundel'; did you mean bundle"):
        app([*words, "bundel"], standalone_mode=False)
    app([*words, "bundle"], standalone_mode=False)
    assert "as bundle" in capsys.readouterr().out
    with pytest.raises(UsageError, match="is there already; choose another place with -o"):
        app([*words, "bundle"], standalone_mode=False)
    with pytest.raises(UsageError, match="is a MONAI bundle, which diffusion is not trained on"):
        latent = Recipe(uses={"autoencoder": str(tmp_path / "out")})
        open_space(latent, Found.asked(latent), tmp_path / "run")
    with pytest.raises(UsageError, match="is a MONAI bundle, from which no student learns"):
        student = Recipe(method={"name": "distill"}, uses={"teacher": str(tmp_path / "out")})
        open_teacher(student, Found.asked(student))
    with pytest.raises(UsageError, match="is a bundle already"):
        export(opened(tmp_path / "out"), "bundle", tmp_path / "again")
