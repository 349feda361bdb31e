"""Devices and precision of a run."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import AbstractContextManager

import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins import Precision
from lightning_fabric.strategies import DDPStrategy
from torch import Tensor, nn

from fabrica.nets.convolutions import exact
from fabrica.nets.device import default_device, uses_bf16
from fabrica.recipe.schema import TrainConfig


def open_fabric(config: TrainConfig) -> Fabric:
    device = default_device()
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)  # it announces its precision on stderr
    precision = [Bf16(device.type)] if uses_bf16(config.precision, device) else None
    # the statistics of batch norm are each process's own: sent around between two forward passes of one turn,
    # they would change under the first one's gradients
    strategy = DDPStrategy(broadcast_buffers=False) if config.devices > 1 else "auto"
    fabric = Fabric(accelerator=device.type, devices=config.devices, plugins=precision, strategy=strategy)
    fabric.launch()
    return fabric


class Bf16(Precision):  # type: ignore[misc]  # Fabric's types are not followed
    """Networks compute in bfloat16 and answer in float32. Fabric's own does the same, and forbids the gradients
    inside a loss that gradient penalties are made of."""

    precision = "bf16-mixed"

    def __init__(self, device_type: str) -> None:
        self.device_type = device_type

    def convert_module(self, module: nn.Module) -> nn.Module:
        exact(module)
        return module

    def forward_context(self) -> AbstractContextManager[object]:
        return torch.autocast(self.device_type, torch.bfloat16)

    def convert_output(self, data: Tensor | Sequence[Tensor]) -> Tensor | list[Tensor]:
        return data.float() if isinstance(data, Tensor) else [one.float() for one in data]
