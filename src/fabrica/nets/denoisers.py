"""The denoiser of diffusion: MONAI's U-Net, told t and what is known of the image; of a mask place by place.

A mask enters by spatially adaptive normalisation (SPADE: Park et al. 2019), in the decoder alone: the encoder sees the
noisy image, the decoder what is to be where (as Wang et al. 2022, Semantic Image Synthesis via Diffusion Models).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from monai.networks.nets import DiffusionModelUNet
from monai.networks.nets.spade_diffusion_model_unet import SPADEDiffusionModelUNet
from torch import nn

from fabrica.errors import UsageError
from fabrica.nets.device import default_device
from fabrica.nets.upsampling import doubled
from fabrica.recipe.conditions import Condition, Mask


class Wanted(Protocol):
    """What a denoiser is built from: see `fabrica.methods.diffusion.Diffusion.Config`."""

    patch: int
    channels: list[int]
    attention: list[bool]
    res_blocks: int
    head_channels: int
    norm_groups: int
    context_width: int
    mask_width: int


def denoiser(config: Wanted, shape: Sequence[int], classes: int, conditions: Mapping[str, Condition]) -> nn.Module:
    """forward(x (B, C * patch**dims, *S / patch), t (B,), class_labels, context, seg) -> the like of x, of images of
    this shape (C, *S).

    class_labels (B,) where there are `classes`, the number behind the last one for the learned null. Of `conditions` a
    mask is seg, see `fabrica.conditioning.masks.laid_out`; of the rest, see
    `fabrica.nets.conditions.ConditionEmbedding`, context is the context, and class_labels the gist."""
    dims = len(shape) - 1
    said = [what for what in conditions.values() if not isinstance(what, Mask)]
    mask = next((what for what in conditions.values() if isinstance(what, Mask)), None)
    arguments = {
        "spatial_dims": dims,
        "in_channels": shape[0] * config.patch**dims,
        "out_channels": shape[0] * config.patch**dims,
        "channels": config.channels,
        "attention_levels": config.attention,
        "num_res_blocks": config.res_blocks,
        "num_head_channels": config.head_channels,
        "norm_num_groups": config.norm_groups,
        "num_class_embeds": classes + 1 if classes or said else None,
        "with_conditioning": bool(said),
        "cross_attention_dim": config.context_width if said else None,
        "use_flash_attention": default_device().type == "cuda",  # on a processor its backward pass is slow
    }
    if mask is None:
        net = DiffusionModelUNet(**arguments)
    else:
        seen = {"label_nc": mask.classes + 1, "spade_intermediate_channels": config.mask_width}
        net = SPADEDiffusionModelUNet(**arguments, **seen)
    doubled(net)
    if said:  # MONAI adds to the embedding of t what stands here
        net.class_embedding = nn.Linear(len(said) * config.context_width, 4 * config.channels[0])
    return net  # type: ignore[no-any-return]  # MONAI's types are not followed


def check(config: Wanted, shape: Sequence[int], what: str) -> None:
    """UsageError for values that do not go together, or with images (C, *S) of this shape; `what` has that size."""
    if len(config.attention) != len(config.channels):
        raise UsageError(
            f"method.attention has {len(config.attention)} entries and method.channels {len(config.channels)}; "
            "give one for each level"
        )
    factor = config.patch * 2 ** (len(config.channels) - 1)
    if any(side % factor for side in shape[1:]):
        fitting = [max(factor, round(side / factor) * factor) for side in shape[1:]]
        remedy = f"e.g. data.size={fitting}" if what == "data.size" else "take another size, or fewer method.channels"
        raise UsageError(f"{what} {list(shape[1:])} does not fit; this network takes multiples of {factor}, {remedy}")
    deepest = [side // factor for side in shape[1:]]
    if len(deepest) == 3 and min(deepest) < 4:  # bf16 gradients of smaller 3-D convolutions are not finite (torch 2.13)
        raise UsageError(
            f"{what} {list(shape[1:])} leaves {deepest} voxels at the deepest level; it needs 4 a side: "
            "take larger volumes, fewer method.channels or a smaller method.patch"
        )
    uneven = [width for width in config.channels if width % config.norm_groups]
    if uneven:
        raise UsageError(
            f"method.channels {uneven} are not multiples of method.norm_groups {config.norm_groups}; "
            "change one of the two"
        )
    for width, attends in zip(config.channels, [*config.attention[:-1], True], strict=True):  # the middle attends
        if attends and width % config.head_channels:
            raise UsageError(
                f"method.channels {width} is not a multiple of method.head_channels {config.head_channels}"
            )
    for key in ("context_width", "mask_width"):
        if getattr(config, key) < 1:
            raise UsageError(f"method.{key} is {getattr(config, key)}; expected at least 1")
