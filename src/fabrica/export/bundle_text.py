"""What a bundle's files say: metadata, the configuration that runs it, and the page for people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import einops
import monai
import numpy as np
import torch

from fabrica import __version__
from fabrica.bundle.opening import Section
from fabrica.image import Float64
from fabrica.nets.patches import patterns
from fabrica.recipe.card import COMPRESSED, SYNTHETIC
from fabrica.recipe.schema import CodecConfig

SCHEMA = "https://github.com/Project-MONAI/MONAI-extra-test-data/releases/download/0.8.1/meta_schema_20240725.json"
STEPS = 50
TIMES = [0, 1000]
Networks = Mapping[str, Mapping[str, Any] | None]  # "autoencoder", "denoiser": arguments; "scheduler": a definition


def metadata(section: Section, networks: Networks) -> dict[str, Any]:
    """metadata.json but for the section of this house."""
    coder, denoiser = networks["autoencoder"], networks["denoiser"]
    images = _images(section, coder or denoiser or {}, section.autoencoder_patch if coder else section.patch)
    formats = {"network_data_format": images}
    if denoiser:
        factor = _factor(coder, section.autoencoder_patch)
        seen = [-(-side // factor) // section.patch for side in section.size]
        noise = _tensor("latent" if coder else "image", denoiser["in_channels"], seen, [])
        times = {**_tensor("timesteps", 1, [], TIMES), "type": "timesteps"}
        formats = {"autoencoder_data_format": images} if coder else {}
        formats["network_data_format"] = {"inputs": {"image": noise, "timesteps": times}, "outputs": {"pred": noise}}
    return {
        "schema": SCHEMA,
        "version": "1.0.0",
        "changelog": {"1.0.0": f"exported by Fabrica {__version__}"},
        "monai_version": monai.__version__,
        "pytorch_version": torch.__version__.partition("+")[0],
        "numpy_version": np.__version__,
        "required_packages_version": {"einops": einops.__version__, "nibabel": "5.3.0"},
        "name": section.name,
        "task": "Image synthesis by diffusion" if denoiser else "Image compression by an autoencoder",
        "description": section.about or section.name,
        "authors": "not stated",
        "copyright": "not stated",
        "intended_use": "Research. Not for diagnosis.",
        **formats,
    }


def _factor(told: Mapping[str, Any] | None, patch: int) -> int:
    """What the sides of images are multiples of to the network of these arguments; 1 where there is none."""
    return patch * 2 ** (len(told["channels"]) - 1) if told else 1


def _images(section: Section, told: Mapping[str, Any], patch: int) -> dict[str, Any]:
    factor = _factor(told, patch)
    sides = [-(-side // factor) * factor // patch for side in section.size]
    image = _tensor("image", told["in_channels"], sides, [-1, 1])
    image["modality"] = section.output.modality or "n/a"
    return {"inputs": {"image": image}, "outputs": {"pred": image}}


def _tensor(kind: str, channels: int, shape: list[int], values: list[int]) -> dict[str, Any]:
    return {
        "type": "image",
        "format": kind,
        "num_channels": channels,
        "spatial_shape": shape,
        "dtype": "float32",
        "value_range": values,
        "is_patch_data": False,
        "channel_def": {str(k): kind for k in range(channels)},
    }


def configuration(section: Section, networks: Networks, span: tuple[float, float], affine: Float64) -> dict[str, Any]:
    """inference.json. Everything that defines the model is a plain value; expressions only run it. span, affine: of the
    images that the model makes."""
    head = {
        "imports": [
            "$import nibabel",
            "$import numpy as np",
            "$import torch",
            "$from einops import rearrange",
            "$from pathlib import Path",
        ],
        "bundle_root": ".",
        "model_dir": "$@bundle_root + '/models'",
        "output_dir": "$@bundle_root + '/output'",
        "dataset_dir": "",
        "dataset": "",
        "evaluator": "",
        "device": "$torch.device('cuda:0' if torch.cuda.is_available() else 'cpu')",
        "low": span[0],
        "high": span[1],
        "affine": affine.tolist(),
    }
    use = _drawn(section, networks) if networks["denoiser"] else _compressed(section, networks)
    return head | use | _written(len(section.size))


def _drawn(section: Section, networks: Networks) -> dict[str, Any]:
    """Of noise: for a seed the image that this house draws with the sampler ddim, as many steps and uniform spacing,
    but for clipped estimates of x_0, after which MONAI keeps the noise it had."""
    coder, denoiser = networks["autoencoder"], networks["denoiser"] or {}
    patch, dims = section.patch, len(section.size)
    factor = _factor(coder, section.autoencoder_patch)
    sides = [-(-side // factor) for side in section.size]
    normal = "np.random.Generator(np.random.PCG64(@seed)).standard_normal([1] + @latent_shape, dtype=np.float32)"
    noise = f"torch.from_numpy({normal}).to(@device)"  # see fabrica.diffusion.noise
    shape = [denoiser["in_channels"] // patch**dims, *sides]
    values: dict[str, Any] = {"seed": 0, "num_inference_steps": STEPS, "latent_shape": shape}
    values |= _kept(section, [side * factor for side in sides])
    needed = ["@load_diffusion"]
    if coder:
        values |= _network("autoencoder", "autoencoder_def", "autoencoder.pt", "AutoencoderKL", coder)
        values["scale_factor"] = 1.0
        needed.append("@load_autoencoder")
    values |= _network("diffusion", "network_def", "model.pt", "DiffusionModelUNet", denoiser)
    drawn = "input_noise=@noise, diffusion_model=@diffusion, scheduler=@noise_scheduler, verbose=False"
    whole = _folded("@drawn", patch, dims, back=True)
    if coder:
        decoded = f"@autoencoder.decode_stage_2_outputs({whole} / @scale_factor).detach()"
        whole = _folded(decoded, section.autoencoder_patch, dims, back=True)
    return values | {
        "network": "$(@network_def.register_forward_pre_hook(lambda net, given, named: (given, {'timesteps': "
        "torch.zeros(len(given[0]), device=given[0].device), **named}), with_kwargs=True), @network_def)[1]",
        "noise_scheduler": {**(networks["scheduler"] or {}), "_requires_": needed},
        "set_timesteps": _steps(networks["scheduler"] or {}),
        "noise": f"${_folded(noise, patch, dims)}",
        "inferer": {
            "_target_": "monai.inferers.DiffusionInferer",
            "_requires_": "@set_timesteps",
            "scheduler": "@noise_scheduler",
        },
        "drawn": f"$@inferer.sample({drawn})",
        "sample": f"${whole}",
    }


def _steps(scheduler: Mapping[str, Any]) -> str:
    """MONAI's DDIM steps down by 1000 // num_inference_steps levels, and visits others. Here it visits those, from the
    last level down to the image: some more than asked for where that is no divisor, and no noise is left."""
    told = "@noise_scheduler.set_timesteps(num_inference_steps=@num_inference_steps)"
    if "Flow" in scheduler["_target_"]:
        return f"${told}"
    times = "torch.arange(999, -1, -(1000 // @num_inference_steps))"
    return f"$({told}, setattr(@noise_scheduler, 'timesteps', {times}))"


def _kept(section: Section, made: list[int]) -> dict[str, list[int]]:
    """Where the image lies in what is made: what the autoencoder had padded is cut off, then what `data.fit` had, which
    is not always the middle of the whole."""
    size = section.output.size or section.size
    starts = [(m - s) // 2 + (s - k) // 2 for m, s, k in zip(made, section.size, size, strict=True)]
    return {"size": size, "starts": starts}


def _compressed(section: Section, networks: Networks) -> dict[str, Any]:
    """Of an image of any size, padded as by `fabrica.nets.framing`: what the autoencoder leaves of it."""
    coder = networks["autoencoder"] or {}
    dims, patch = len(section.size), section.autoencoder_patch
    back = ", ".join(str(axis) for axis in (0, *range(dims, 0, -1)))
    flat = ".squeeze(-1)" if dims == 2 else ""  # a single slice is (1, W, H, 1)
    seen = "@padder(((@loaded - @low) / (@high - @low)).clamp(0, 1) * 2 - 1)[None].to(@device)"
    return {
        **(_percentiles(section.codec) if section.codec.kind == "percentile" else {}),
        **_network("autoencoder", "autoencoder_def", "model.pt", "AutoencoderKL", coder),
        "network_def": "@autoencoder_def",
        "network": "$torch.nn.Sequential(@autoencoder_def.encoder, @autoencoder_def.quant_conv_mu, "
        "@autoencoder_def.post_quant_conv, @autoencoder_def.decoder)",
        "input_file": "",
        "loader": {"_target_": "LoadImage", "image_only": True, "ensure_channel_first": True},
        "read": "$@loader(@input_file)",
        "affine": "$@read.affine",  # the image is given back where it lay
        "loaded": f"$@read.as_tensor(){flat}.permute({back})",
        "size": "$@loaded.shape[1:]",
        "starts": "$[(large - side) // 2 for large, side in zip(@sample.shape[2:], @size)]",
        "padder": {"_target_": "DivisiblePad", "k": _factor(coder, patch), "mode": "edge"},
        "inferer": {"_target_": "monai.inferers.SimpleInferer", "_requires_": "@load_autoencoder"},
        "image_seen": f"${_folded(seen, patch, dims)}",
        "drawn": "$@inferer(@image_seen, @autoencoder.reconstruct).detach()",
        "sample": f"${_folded('@drawn', patch, dims, back=True)}",
    }


def _percentiles(codec: CodecConfig) -> dict[str, str]:
    """Black and white of each image: see `fabrica.codec.Codec.limits`."""
    high = f"float(np.percentile(@loaded, {codec.high}))"
    return {
        "low": f"$float(np.percentile(@loaded, {codec.low}))",
        "high": f"${high} if {high} > @low else @low + 1",
    }


def _network(name: str, key: str, file: str, cls: str, told: Mapping[str, Any]) -> dict[str, Any]:
    return {
        key: {"_target_": f"monai.networks.nets.{cls}", **told},
        f"load_{name}_path": f"$@model_dir + '/{file}'",
        f"load_{name}": f"$@{key}.load_state_dict(torch.load(@load_{name}_path, 'cpu', weights_only=True))",
        name: f"$@{key}.to(@device).eval()",
    }


def _written(dims: int) -> dict[str, Any]:
    """The image as NIfTI: in physical units, without padding, (x, y, z)."""
    inner = "(slice(None), *[slice(start, start + side) for start, side in zip(@starts, @size)])"
    back = ", ".join(str(axis) for axis in range(dims, -1, -1))  # (x, y, z, channel)
    deep = "[:, :, None]" if dims == 2 else ""
    return {
        "image": f"$(@sample[0][{inner}].clamp(-1, 1) + 1) / 2 * (@high - @low) + @low",
        "create_output_dir": "$Path(@output_dir).mkdir(exist_ok=True)",
        "placed": f"$nibabel.Nifti1Image(@image.permute({back}){deep}.squeeze(-1).cpu().numpy(), np.array(@affine))",
        "run": ["@create_output_dir", "$nibabel.save(@placed, @output_dir + '/image.nii.gz')"],
    }


def _folded(expression: str, patch: int, dims: int, back: bool = False) -> str:
    """The expression of `fabrica.nets.patches.pixel_unshuffle`, or of the way back."""
    if patch == 1:
        return expression
    image, channels, sides = patterns(dims, patch)
    way = f"{channels} -> {image}" if back else f"{image} -> {channels}"
    told = ", ".join(f"{name}={side}" for name, side in sides.items())
    return f"rearrange({expression}, '{way}', {told})"


def readme(section: Section, draws: bool) -> str:
    """docs/README.md."""
    what = "python -m monai.bundle run --config_file configs/inference.json"
    what += " --seed 0" if draws else " --input_file FILE.nii.gz"
    size = " x ".join(str(side) for side in section.output.size or section.size)
    return f"""# {section.name}

{section.about}

Images of {size}, {section.codec.kind} codec, {section.codec.unit}. Exported by Fabrica {__version__}.

In this folder, with MONAI, fire and nibabel installed, one image as NIfTI into `output`:

    {what}

Its networks are plain ones of MONAI, verified by

    cd configs
    python -m monai.bundle verify_metadata --meta_file metadata.json --filepath schema.json
    python -m monai.bundle verify_net_in_out network --meta_file metadata.json --config_file inference.json

Authors, copyright and licence are not stated: they belong to whoever trained the model, and the data may bind them.
Fill them in before you share the bundle.

{SYNTHETIC if draws else COMPRESSED}"""
