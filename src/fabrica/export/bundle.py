"""A trained model as a bundle of MONAI: configs, models, docs. Its networks are plain ones of MONAI, so that nothing of
this house is needed to run it: what MONAI does otherwise goes into the weights (`fabrica.nets.conventions`).
"""

from __future__ import annotations

import copy
import io
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import torch
from monai.networks.nets import AutoencoderKL, DiffusionModelUNet
from torch import Tensor, nn

from fabrica.bundle import METADATA, found
from fabrica.bundle.networks import LEVELS, OBJECTIVES, SCHEDULES
from fabrica.bundle.opening import SECTION, Output, Section
from fabrica.errors import UsageError
from fabrica.export.bundle_text import configuration, metadata, readme
from fabrica.methods.autoencoder import Autoencoder
from fabrica.methods.diffusion import Diffusion
from fabrica.model.model import Model
from fabrica.nets.conventions import later, negated, rescaled
from fabrica.recipe.found import Found
from fabrica.recipe.schema import Recipe


@dataclass(frozen=True)
class Part:
    """A network of MONAI: the arguments of its class, and its weights."""

    arguments: dict[str, Any]
    weights: dict[str, Tensor]


def write(model: Model, folder: Path) -> None:
    """Write the bundle; UsageError for a model that cannot be one, OSError for a full disk."""
    method: object = model.method
    if found(model.folder):
        raise UsageError(f"{model.folder} is a bundle already; copy it")
    if not isinstance(method, Diffusion | Autoencoder):
        raise UsageError(f"{model.name} is a {model.method_name}; bundles are for diffusion and autoencoders")
    if model.codec.kind == "label":
        raise UsageError(f"{model.name} makes label maps, and a bundle's images are grey values; none can be one yet")
    space = method.space if isinstance(method, Diffusion) else method
    if space and cast(Autoencoder, space).noise_shape:
        raise UsageError(
            f"{model.name} draws detail, which MONAI's AutoencoderKL does not know; train an autoencoder with "
            "method.detail=false"
        )
    coder = _coder(cast(Autoencoder, space)) if space else None
    denoiser = _denoiser(method) if isinstance(method, Diffusion) else None
    scheduler = _scheduler(method, model.recipe.sample.clip) if isinstance(method, Diffusion) else None
    section = _section(
        model.recipe, model.found, cast(Autoencoder | None, space), method.config.patch if denoiser else 1
    )
    networks = {
        "autoencoder": coder.arguments if coder else None,
        "denoiser": denoiser.arguments if denoiser else None,
        "scheduler": scheduler,
    }
    texts = {
        METADATA: _json({**metadata(section, networks), SECTION: asdict(section)}),
        "configs/inference.json": _json(configuration(section, networks, model.codec.span, model.affine)),
        "docs/README.md": readme(section, bool(denoiser)),
    }
    for name, text in texts.items():
        _put(folder / name, text.encode())
    files = {"autoencoder.pt": coder, "model.pt": denoiser} if denoiser else {"model.pt": coder}
    for name, part in files.items():
        if part:
            stream = io.BytesIO()
            torch.save(part.weights, stream)
            _put(folder / "models" / name, stream.getvalue())


def _section(recipe: Recipe, found: Found, space: Autoencoder | None, patch: int) -> Section:
    return Section(
        name=recipe.name,
        about=recipe.about,
        size=list(recipe.data.size),
        fit=recipe.data.fit,
        patch=patch,
        autoencoder_patch=space.config.patch if space else 1,
        precision=recipe.train.precision,
        codec=found.codec,
        output=Output(found.modality, list(found.spacing), list(found.size)),
        sample=recipe.sample,
    )


def _put(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def _json(values: Mapping[str, Any]) -> str:
    return json.dumps(values, indent=4, ensure_ascii=False) + "\n"


def _coder(method: Autoencoder) -> Part:
    """The two halves as one AutoencoderKL, whose latents have mean 0 and standard deviation 1."""
    encoder, decoder, config = cast(Any, method.encoder), cast(Any, method.decoder), method.config
    if encoder.past:
        raise UsageError(
            "an autoencoder with method.shortcut=true cannot be a bundle: means go past its networks, and MONAI's "
            "AutoencoderKL has no way for them; train it with method.shortcut=false"
        )
    dims = len(method.shape) - 1
    channels = method.shape[0] * config.patch**dims
    levels = len(config.channels)
    arguments = {
        "spatial_dims": dims,
        "in_channels": channels,
        "out_channels": channels,
        "channels": list(config.channels),
        "num_res_blocks": config.res_blocks,
        "attention_levels": [False] * levels,
        "latent_channels": config.latent_channels,
        "norm_num_groups": config.norm_groups,
        "with_encoder_nonlocal_attn": config.attention,
        "with_decoder_nonlocal_attn": config.attention,
        "use_flash_attention": True,
    }
    parts = {
        "encoder": encoder.layers,
        "quant_conv_mu": encoder.means,
        "quant_conv_log_sigma": encoder.log_variances,
        "post_quant_conv": decoder.enter,
        "decoder": decoder.layers,
    }
    with torch.device("meta"):
        whole = AutoencoderKL(**cast(Any, arguments))
    whole.load_state_dict(
        {f"{name}.{key}": w.clone() for name, part in parts.items() for key, w in _weights(part).items()}, assign=True
    )
    rescaled(whole, encoder.mean.cpu(), encoder.std.cpu())
    return Part(arguments, _weights(whole))


def _denoiser(method: Diffusion) -> Part:
    net, config = cast(Any, method.denoiser), method.config
    if type(net) is not DiffusionModelUNet or net.num_class_embeds is not None or net.with_conditioning:
        raise UsageError(
            "a model that is told labels, text or masks cannot be a bundle yet; train one without data.condition"
        )
    dims = len(method.shape) - 1
    channels = method.shape[0] * config.patch**dims
    arguments = {
        "spatial_dims": dims,
        "in_channels": channels,
        "out_channels": channels,
        "channels": list(config.channels),
        "attention_levels": list(config.attention),
        "num_res_blocks": config.res_blocks,
        "num_head_channels": config.head_channels,
        "norm_num_groups": config.norm_groups,
        "use_flash_attention": True,
    }
    twin = copy.deepcopy(net).cpu()
    negated(twin) if config.objective == "flow" else later(twin, 1)
    return Part(arguments, _weights(twin))


def _weights(part: nn.Module) -> dict[str, Tensor]:
    return {name: w.detach().cpu().contiguous() for name, w in part.state_dict().items()}


def _scheduler(method: Diffusion, clip: bool) -> dict[str, Any]:
    """MONAI's scheduler for the method's noise levels; UsageError for levels that it does not know."""
    config = method.config
    if (config.objective == "flow") != (config.schedule == "flow"):
        raise UsageError(
            f"objective {config.objective} on the {config.schedule} schedule cannot be a bundle: MONAI's rectified "
            "flow is one of both; train with method.objective=flow method.schedule=flow, or neither"
        )
    plain = {"zero_terminal_snr": False, "shift": 1.0} | ({} if config.schedule == "flow" else {"levels": LEVELS})
    for name, wanted in plain.items():
        if getattr(config, name) != wanted:
            raise UsageError(
                f"method.{name} is {getattr(config, name)}, and MONAI's schedulers know nothing like it; a model "
                f"trained with method.{name}={str(wanted).lower()} can be a bundle"
            )
    if config.schedule == "flow":
        flow = {"_target_": "monai.networks.schedulers.RFlowScheduler", "num_train_timesteps": LEVELS}
        return {**flow, "use_discrete_timesteps": False}
    betas = method.schedule.betas
    return {
        "_target_": "monai.networks.schedulers.DDIMScheduler",
        "num_train_timesteps": LEVELS,
        "schedule": _monais(SCHEDULES, config.schedule),
        **({"beta_start": betas[0], "beta_end": betas[1]} if betas else {}),
        "prediction_type": _monais(OBJECTIVES, config.objective),
        "clip_sample": clip and not method.space,
    }


def _monais(known: Mapping[str, str], ours: str) -> str:
    return next(theirs for theirs, name in known.items() if name == ours)
