"""The networks and the noise levels that a bundle's configuration defines, of a small table of classes; the weights are
loaded as tensors alone."""

from __future__ import annotations

import hashlib
import inspect
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from monai.networks.nets import AutoencoderKL, DiffusionModelUNet
from torch import Tensor, nn

from fabrica.bundle.config import Config
from fabrica.errors import FabricaError, UsageError, did_you_mean
from fabrica.nets.conventions import matched
from fabrica.nets.upsampling import doubled

# A class may be named alone, or by its module in MONAI or in MONAI Generative, which it came from.
NETWORKS = {
    "AutoencoderKL": ("networks.nets.autoencoderkl", AutoencoderKL),
    "DiffusionModelUNet": ("networks.nets.diffusion_model_unet", DiffusionModelUNet),
}
SCHEDULERS = {
    "DDPMScheduler": "networks.schedulers.ddpm",
    "DDIMScheduler": "networks.schedulers.ddim",
    "PNDMScheduler": "networks.schedulers.pndm",
    "RFlowScheduler": "networks.schedulers.rectified_flow",
}
PACKAGES = ("monai", "generative")
DEFINITIONS = ("autoencoder_def", "diffusion_def", "diffusion_unet_def", "network_def")  # as the zoo calls networks
SCHEDULER_KEYS = ("noise_scheduler", "scheduler")
OLDER = {"num_channels": "channels", "use_checkpointing": "use_checkpoint", "beta_schedule": "schedule"}
SCHEDULES = {"linear_beta": "linear", "scaled_linear_beta": "scaled-linear", "cosine": "cosine"}
OLDER_SCHEDULES = {"linear": "linear", "scaled_linear": "scaled-linear"}
OBJECTIVES = {"epsilon": "epsilon", "sample": "x0", "v_prediction": "v"}
LEVELS = 1000
AUTOENCODER_FILES = ("autoencoder.pt", "model_autoencoder.pt", "autoencoder.pth")
DENOISER_FILES = ("model.pt", "diffusion_model.pt", "diffusion.pt", "diffusion_model.pth")
AUTOENCODER_PATHS = ("load_autoencoder_path", "trained_autoencoder_path")
DENOISER_PATHS = ("load_diffusion_path", "trained_diffusion_path")
NESTED = ("state_dict", "model", "model_state_dict", "unet_state_dict", "autoencoder_state_dict")


@dataclass(frozen=True)
class Network:
    """A network with its weights, on the CPU. arguments: of its class, defaults included. digest: SHA-256 of its file.
    scale: the scale factor of latents that stands beside its weights, or None."""

    net: nn.Module
    arguments: Mapping[str, Any]
    digest: bytes
    scale: float | None


@dataclass(frozen=True)
class Definition:
    key: str
    cls: type[nn.Module]
    arguments: Mapping[str, Any]


def networks(folder: Path, config: Config) -> tuple[Network | None, Network | None]:
    """The autoencoder and the denoiser of a bundle, each where it has one."""
    found: dict[type[nn.Module], Definition] = {}
    for key in DEFINITIONS:
        if key in config:
            definition = _definition(config, key)
            found.setdefault(definition.cls, definition)
    if not found:
        raise UsageError(f"{config.path} defines no network; expected one of {', '.join(DEFINITIONS)}")
    coder, denoiser = found.get(AutoencoderKL), found.get(DiffusionModelUNet)
    names = AUTOENCODER_FILES if denoiser else (*AUTOENCODER_FILES, "model.pt")
    return (
        _opened(coder, _file(folder, config, AUTOENCODER_PATHS, names), config) if coder else None,
        _opened(denoiser, _file(folder, config, DENOISER_PATHS, DENOISER_FILES), config) if denoiser else None,
    )


def _definition(config: Config, key: str) -> Definition:
    values = config.plain(key)
    if not isinstance(values, dict):
        raise UsageError(
            f"{config.path}: {key} is {str(values)[:60]!r}; expected a class by its _target_, with arguments"
        )
    name, generative = _class_of(
        config, key, values.pop("_target_", ""), {k: home for k, (home, _) in NETWORKS.items()}
    )
    cls: type[nn.Module] = NETWORKS[name][1]
    known = inspect.signature(cls)
    arguments = {OLDER.get(str(k), str(k)): v for k, v in values.items()}
    for argument in arguments:
        if argument not in known.parameters:
            raise UsageError(
                f"{config.path}: {key} has {argument!r}, and {name} has no such argument"
                f"{did_you_mean(argument, known.parameters)}"
            )
    if generative:
        arguments["include_fc"] = False  # it had the weights of a projection behind attention, and never used them
    try:
        full = known.bind(**arguments)
    except TypeError as error:
        raise UsageError(f"{config.path}: {key} does not make a {name}: {error}") from error
    full.apply_defaults()
    if name == "DiffusionModelUNet" and (full.arguments["with_conditioning"] or full.arguments["num_class_embeds"]):
        raise UsageError(
            f"{config.path}: {key} is told something beside the noise (with_conditioning or num_class_embeds); only "
            "unconditional bundles can be opened"
        )
    return Definition(key, cls, full.arguments)


def _class_of(config: Config, key: str, target: object, known: Mapping[str, str]) -> tuple[str, bool]:
    """The name of a known class, and whether it is that of MONAI Generative."""
    package, _, name = str(target).rpartition(".")
    home = known.get(name, "")
    homes = {f"{each}.{part}": each for each in PACKAGES for part in (home, home.rpartition(".")[0])} | {"": "monai"}
    if name not in known or package not in homes:
        raise UsageError(
            f"{config.path}: {key} is of class {str(target)[:80]!r}; expected {' or '.join(known)} of monai, as no "
            "other code is run"
        )
    return name, homes[package] == "generative"


def _file(folder: Path, config: Config, keys: Sequence[str], names: Sequence[str]) -> Path:
    """Where a network's weights are: as the configuration says, if that is a path, or by the zoo's usual names."""
    told = [config.text(key) for key in keys]
    tried = [*(text for text in told if text), *(f"models/{name}" for name in names)]
    for each in tried:
        path = folder / each
        if path.is_file() and path.resolve().is_relative_to(folder.resolve()):
            return path
    larger = any((folder / f"large_files.{end}").is_file() for end in ("yml", "yaml", "json"))
    remedy = f"python -m monai.bundle download_large_files --bundle_path {folder}" if larger else "get the bundle again"
    raise UsageError(f"{folder} has no weights: no {tried[0]}; expected a file of tensors: {remedy}")


def _opened(definition: Definition, path: Path, config: Config) -> Network:
    """The network with its weights. It is made without any (on the device "meta"), so that what does not fit the file
    costs no memory."""
    kind = definition.cls.__name__
    try:
        with torch.device("meta"):
            net = definition.cls(**{**definition.arguments, **_CHECKPOINT.get(kind, {})})
    except Exception as error:  # MONAI raises many types for arguments that do not go together
        raise UsageError(f"{config.path}: {definition.key} does not make a {kind}: {_line(error)}") from error
    held, scale = _tensors(path)
    given, wanted = matched(held, net.state_dict()), net.state_dict()
    for name in sorted(wanted.keys() | given.keys()):
        ours, theirs = (list(each[name].shape) if name in each else "nothing" for each in (wanted, given))
        if ours != theirs:
            raise FabricaError(
                f"{path} does not fit {definition.key} of {config.path}: {name} is {theirs}, expected {ours}; get the "
                "bundle again"
            )
    net.load_state_dict({name: w.to(torch.float32, copy=True) for name, w in given.items()}, assign=True)
    doubled(net)
    return Network(net.eval().requires_grad_(False), definition.arguments, _digest(path), scale)


_CHECKPOINT = {"AutoencoderKL": {"use_checkpoint": False}}  # which saves memory in training alone


def _tensors(path: Path) -> tuple[Mapping[str, Tensor], float | None]:
    """The weights in a file, and the scale factor beside them."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            held = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch and pickle raise many types for files that hold something else
        raise FabricaError(
            f"{path} is damaged, or holds more than tensors, which is not run; expected weights saved by "
            f"torch.save of a state_dict ({type(error).__name__})"
        ) from error
    scale = held.get("scale_factor") if isinstance(held, dict) else None
    for key in NESTED:
        if isinstance(held, dict) and isinstance(held.get(key), dict):
            held = held[key]
    if not isinstance(held, dict) or not held or not all(isinstance(each, Tensor) for each in held.values()):
        raise FabricaError(f"{path} holds no state_dict; expected tensors by name, or these under {', '.join(NESTED)}")
    return held, None if scale is None else positive(scale, path)


def positive(value: Any, path: Path) -> float:
    """The scale factor that the file at `path` says; FabricaError for what is none."""
    try:
        number = float(value)
    except (TypeError, ValueError, RuntimeError):  # the last of a tensor of several
        number = 0.0
    if not 0 < number < float("inf"):
        raise FabricaError(f"{path}: scale_factor is {_line(value)}; expected a positive number")
    return number


def _digest(path: Path) -> bytes:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()


def _line(said: object) -> str:
    return (str(said).strip().splitlines() or [type(said).__name__])[0][:200]


@dataclass(frozen=True)
class Noise:
    """What a scheduler says of training: values of the method diffusion, and whether x_0 is clipped to [-1, 1]."""

    values: Mapping[str, Any]
    clip: bool


def noise_levels(config: Config) -> Noise:
    """The scheduler of a bundle; UsageError for one that has no equal here."""
    key = next((each for each in SCHEDULER_KEYS if each in config), "")
    if not key:
        raise UsageError(f"{config.path} says no noise levels; expected {' or '.join(SCHEDULER_KEYS)}")
    values = config.plain(key)
    if not isinstance(values, dict):
        raise UsageError(
            f"{config.path}: {key} is {str(values)[:60]!r}; expected a class by its _target_, with arguments"
        )
    name, _ = _class_of(config, key, values.pop("_target_", ""), SCHEDULERS)
    values = {OLDER.get(k, k): v for k, v in values.items()}
    expected: dict[str, Any] = {"num_train_timesteps": LEVELS}
    if name == "RFlowScheduler":
        _expect(config, key, values, expected)
        return Noise({"objective": "flow", "schedule": "flow"}, False)
    kind = _one_of(config, key, values, "schedule", "linear_beta", SCHEDULES | OLDER_SCHEDULES)
    objective = _one_of(config, key, values, "prediction_type", "epsilon", OBJECTIVES)
    _expect(config, key, values, expected | {"s": 0.008, "clip_sample_min": -1.0, "clip_sample_max": 1.0})
    ends = (
        {}
        if kind == "cosine"
        else {"beta_start": values.get("beta_start", 1e-4), "beta_end": values.get("beta_end", 0.02)}
    )
    clip = bool(values.get("clip_sample", name != "PNDMScheduler"))
    return Noise({"objective": objective, "schedule": kind, **ends}, clip)


def _one_of(
    config: Config, key: str, values: Mapping[str, Any], name: str, usual: str, known: Mapping[str, str]
) -> str:
    value = str(values.get(name, usual))
    if value not in known:
        raise UsageError(f"{config.path}: {key} has {name} {value!r}; expected one of {', '.join(known)}")
    return known[value]


def _expect(config: Config, key: str, values: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
    for name, wanted in expected.items():
        if values.get(name, wanted) != wanted:
            raise UsageError(f"{config.path}: {key} has {name} {values[name]}; only {wanted} can be opened")
