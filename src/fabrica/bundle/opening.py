"""A bundle of MONAI's model zoo opened as a model of this house: an autoencoder, diffusion on its latents, or diffusion
on pixels. Nothing in the bundle is run: its configuration is read as plain values (`config`), its networks come from a
table and its weights are loaded as tensors alone (`networks`).

What MONAI does otherwise goes into the weights, once (`fabrica.nets.conventions`): it counts times from 0, volumes are
(x, y, z), rectified flow goes the other way. Values that a network sees or gives otherwise than in [-1, 1] are moved on
its border, and the scale of latents is one number for all channels.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple, cast

from monai.networks.nets import DiffusionModelUNet

from fabrica.bundle import METADATA
from fabrica.bundle.config import Config, read
from fabrica.bundle.networks import Network, networks, noise_levels, positive
from fabrica.bundle.spans import Spread
from fabrica.errors import UsageError
from fabrica.methods import Compressor, Method, build
from fabrica.methods.autoencoder import Autoencoder
from fabrica.methods.diffusion import Diffusion
from fabrica.nets.autoencoder import Decoder, Encoder
from fabrica.nets.conventions import axes_reversed, later, negated
from fabrica.nets.framing import OURS, Span
from fabrica.recipe.found import Found
from fabrica.recipe.load import typed
from fabrica.recipe.schema import FITS, CodecConfig, DataConfig, Recipe, SampleConfig, TrainConfig

INFERENCE = ("configs/inference.json", "configs/inference.yaml", "configs/inference.yml")
SECTION = "fabrica"  # of metadata.json
UNIT = (0.0, 1.0)
SPACE = {"autoencoder": "the bundle's"}  # as Recipe.uses


@dataclass(frozen=True)
class Output:
    """Of the images that are made: DICOM's letters, mm between pixel centres in array order, and the middle part of the
    size that they really fill."""

    modality: str = ""
    spacing: list[float] = field(default_factory=list)
    size: list[int] = field(default_factory=list)


@dataclass
class Section:
    """What MONAI has no words for, in the metadata of a bundle that this house wrote.

    size, fit   of the images, in array order, and how others are brought to it.
    patch, autoencoder_patch    pixels along the side of what the denoiser and the autoencoder see as one.
    """

    name: str = ""
    about: str = ""
    size: list[int] = field(default_factory=list)
    fit: str = "pad"
    patch: int = 1
    autoencoder_patch: int = 1
    precision: str = "fp32"
    codec: CodecConfig = field(default_factory=CodecConfig)
    output: Output = field(default_factory=Output)
    sample: SampleConfig = field(default_factory=SampleConfig)


class Opened(NamedTuple):
    """What is in a bundle. `hash` is the start of the SHA-256 of its weights."""

    recipe: Recipe
    found: Found
    method: Method
    hash: str


def opened(folder: Path, warn: Callable[[str], None]) -> Opened:
    """The model in a bundle, on the CPU; UsageError or FabricaError, one line, for what it cannot be. warn: called with
    one sentence on what the bundle does not say of its images."""
    metadata, config = read(folder / METADATA), _inference(folder)
    own = typed(Section, metadata.plain(SECTION), f"{SECTION}.") if SECTION in metadata else None
    coder, denoiser = networks(folder, config)
    nets = [each for each in (coder, denoiser) if each]
    section = own or _supposed(folder, metadata, config, nets, warn)
    dims = nets[0].arguments["spatial_dims"]
    _check(section, dims, metadata.path)
    if dims == 3 and not own:
        for each in nets:
            axes_reversed(each.net)
    span = OURS if own else (float(section.codec.low or 0), float(section.codec.high or 0))
    recipe = _recipe(section, nets[0], section.autoencoder_patch if coder else section.patch)
    found = _found(section, recipe)
    space = _autoencoder(coder, recipe, found, section, _scale(config, nets), span) if coder else None
    method = _diffusion(denoiser, recipe, found, section, config, space, span) if denoiser else space
    assert method is not None  # one of the two networks is there, see `networks`
    name = "diffusion" if denoiser else "autoencoder"
    found = replace(found, method={"name": name, **asdict(method.config)}, uses=SPACE if denoiser and space else {})
    digest = hashlib.sha256(b"".join(each.digest for each in nets)).hexdigest()[:12]
    return Opened(recipe, found, method, digest)


def _check(section: Section, dims: int, path: Path) -> None:
    output, one = section.output, [1.0] * dims
    said = {"size": section.size, "output.size": output.size or one, "output.spacing": output.spacing or one}
    for name, sides in said.items():
        if len(sides) != dims or min(sides) <= 0:
            raise UsageError(f"{path}: {name} of images is {sides}, and the networks are {dims}-D; correct one")
    if min(section.patch, section.autoencoder_patch) < 1:
        raise UsageError(f"{path}: patches are {section.patch} and {section.autoencoder_patch}; expected 1 or more")
    if section.fit not in FITS:
        raise UsageError(f"{path}: fit is {section.fit!r}; expected one of {', '.join(FITS)}")


def _inference(folder: Path) -> Config:
    for name in INFERENCE:
        if (folder / name).is_file():
            return read(folder / name)
    raise UsageError(f"{folder} has no {INFERENCE[0]}, which says what its networks are; expected a bundle of the zoo")


def _supposed(
    folder: Path, metadata: Config, config: Config, nets: list[Network], warn: Callable[[str], None]
) -> Section:
    """What a bundle of others says of its images, and what is taken where it says nothing, with a warning."""
    images = _images(metadata, nets[0])
    span, spacing = _numbers(images.get("value_range")), _numbers(_or_none(config, "spacing"))
    size = _size(config, images, nets)
    if len(size) == 3:  # (x, y, z)
        size, spacing = size[::-1], spacing[::-1]
    unsaid = []
    if len(span) != 2 or not span[0] < span[1]:
        span, unsaid = list(UNIT), ["the range of its images, taken as [0, 1]"]
    if len(spacing) != len(size):
        spacing, unsaid = [], [*unsaid, "their spacing, taken as 1 mm"]
    if unsaid:
        warn(f"{folder} does not say {', nor '.join(unsaid)}")
    return Section(
        name=str(metadata.values.get("name") or folder.resolve().name),
        about=str(metadata.values.get("description", "")),
        size=size,
        codec=CodecConfig("window", span[0], span[1]),
        output=Output(spacing=spacing),
        sample=SampleConfig(clip=noise_levels(config).clip)
        if isinstance(nets[-1].net, DiffusionModelUNet)
        else SampleConfig(),
    )


def _images(metadata: Config, network: Network) -> Mapping[str, Any]:
    """What the metadata say of the images; {} where they speak of latents alone."""
    for key in ("autoencoder_data_format", "network_data_format"):
        if key in metadata:
            outputs = metadata.values[key].get("outputs") if isinstance(metadata.values[key], dict) else None
            images = next(iter(outputs.values()), None) if isinstance(outputs, dict) else None
            if isinstance(images, dict) and images.get("num_channels") == network.arguments["out_channels"]:
                return images
    return {}


def _size(config: Config, images: Mapping[str, Any], nets: list[Network]) -> list[int]:
    """Of images, in the bundle's order: of the latents that are drawn, or as the metadata say."""
    factor = 2 ** (len(nets[0].arguments["channels"]) - 1)
    latents = _numbers(_or_none(config, "latent_shape"))[1:] if len(nets) == 2 else []
    size = [side * factor for side in latents] or _numbers(images.get("spatial_shape"))
    if not size or any(side != int(side) for side in size):
        raise UsageError(
            f"{config.path} says no size: expected latent_shape of whole numbers, or in {METADATA} the "
            "spatial_shape of images; write it there"
        )
    return [int(side) for side in size]


def _or_none(config: Config, key: str) -> Any:
    try:
        return config.plain(key)
    except UsageError:
        return None


def _numbers(value: Any) -> list[float]:
    """The value, if it is a list of numbers; else []."""
    numbers = isinstance(value, list) and all(isinstance(v, int | float) and not isinstance(v, bool) for v in value)
    return list(value) if numbers else []


def _recipe(section: Section, images: Network, patch: int) -> Recipe:
    seen, given = (images.arguments[name] for name in ("in_channels", "out_channels"))
    channels, left = divmod(int(seen), patch ** len(section.size))
    if seen != given or left:
        raise UsageError(
            f"{section.name} sees {seen} channels and gives {given}; only networks that see what they give can be "
            "opened, unconditional ones"
        )
    return Recipe(
        name=section.name,
        about=section.about or "From a MONAI bundle",
        data=DataConfig(size=section.size, channels=channels, fit=section.fit),
        train=TrainConfig(precision=section.precision),
        sample=section.sample,
    )


def _found(section: Section, recipe: Recipe) -> Found:
    output = section.output
    found = replace(Found.asked(recipe), codec=section.codec, modality=output.modality, spacing=output.spacing)
    return replace(found, size=output.size or section.size)


def _scale(config: Config, nets: list[Network]) -> float:
    """What latents are multiplied by before diffusion; 1 where nothing is said."""
    beside = next((each.scale for each in reversed(nets) if each.scale is not None), None)
    if beside is not None:
        return beside
    return positive(config.plain("scale_factor"), config.path) if "scale_factor" in config else 1.0


def _autoencoder(
    network: Network, recipe: Recipe, found: Found, section: Section, scale: float, span: Span
) -> Compressor:
    """The method around the network: built as any other, of narrow halves that then make room for the network's."""
    told, patch = network.arguments, section.autoencoder_patch
    levels, latents = len(told["channels"]), told["latent_channels"]
    narrow = {"channels": [8] * levels, "norm_groups": 8, "res_blocks": 1, "latent_channels": latents, "patch": patch}
    asked = {"name": "autoencoder", "adversarial": 0.0, "features": 0.0, **narrow}
    method = cast(Autoencoder, build(recipe, replace(found, method=asked)))
    net: Any = network.net
    method.encoder = Encoder(net, patch, method.factor, None, span)
    method.decoder = Decoder(net, patch, None, span)
    method.encoder.std.fill_(1 / scale)
    attention = bool(told["with_encoder_nonlocal_attn"])
    method.config = replace(method.config, **_wide(told), attention=attention)
    return method


def _diffusion(
    network: Network,
    recipe: Recipe,
    found: Found,
    section: Section,
    config: Config,
    space: Compressor | None,
    span: Span,
) -> Method:
    told, noise, net = network.arguments, noise_levels(config), cast(Any, network.net)
    shape = space.latent_shape if space else (recipe.data.channels, *section.size)
    channels = shape[0] * section.patch ** len(section.size)
    if (told["in_channels"], told["out_channels"]) != (channels, channels):
        raise UsageError(
            f"{config.path}: the denoiser sees {told['in_channels']} channels and gives {told['out_channels']}, "
            f"expected {channels} of both; only unconditional bundles can be opened"
        )
    factor = section.patch * 2 ** (len(told["channels"]) - 1)
    if any(side % factor for side in shape[1:]):
        raise UsageError(f"{config.path}: the denoiser takes multiples of {factor}; found size {list(shape[1:])}")
    negated(net) if noise.values["objective"] == "flow" else later(net, -1)
    narrow = {"channels": [8], "attention": [False], "head_channels": 8, "norm_groups": 8, "patch": section.patch}
    asked = {"name": "diffusion", **noise.values, **narrow}
    method = cast(Diffusion, build(recipe, replace(found, method=asked, uses=SPACE if space else {}), space))
    method.denoiser = net
    heads = told["num_head_channels"]
    heads = heads if isinstance(heads, int) else heads[-1]
    method.config = replace(method.config, **_wide(told), attention=list(told["attention_levels"]), head_channels=heads)
    return method if space or span == OURS else Spread(method, span)


def _wide(told: Mapping[str, Any]) -> dict[str, Any]:
    """What the methods' Configs can say of a network; that of several blocks, where levels differ, is the most."""
    blocks = told["num_res_blocks"]
    return {
        "channels": list(told["channels"]),
        "res_blocks": blocks if isinstance(blocks, int) else max(blocks),
        "norm_groups": told["norm_num_groups"],
    }
