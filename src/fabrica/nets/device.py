"""Which device, and in which precision."""

from __future__ import annotations

from contextlib import AbstractContextManager

import torch

from fabrica.errors import UsageError

PRECISIONS = ("auto", "fp32", "bf16")


def default_device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def uses_bf16(precision: str, device: torch.device) -> bool:
    """Whether networks run in bfloat16. "auto": where the processor computes in it, rather than emulating it
    (AVX512-bf16 or AMX, CUDA from Ampere on); there training is two to six times as fast as in float32."""
    if precision not in PRECISIONS:
        raise UsageError(f"train.precision is {precision!r}; expected one of {', '.join(PRECISIONS)}")
    if precision != "auto":
        return precision == "bf16"
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def autocast(precision: str, device: torch.device) -> AbstractContextManager[object]:
    """The context in which a network runs in the chosen precision."""
    return torch.autocast(device.type, torch.bfloat16, enabled=uses_bf16(precision, device))
