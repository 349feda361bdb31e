"""An exported model as those who judge models take one: a trained model whose networks are graphs."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from fabrica.errors import UsageError
from fabrica.inference.synthesis import Synthesises
from fabrica.methods import Translator, build
from fabrica.model.tasks import task_of
from fabrica.runtime.exported import DIRECTIONS, ExportedModel


def as_trained(exported: ExportedModel) -> Any:
    """What synthesises is taken as it is; of what translates, restores or segments the method is built anew, and its
    networks give way to the graphs. UsageError for another."""
    if isinstance(exported, Synthesises):
        return exported
    if not any(direction in exported.record.graphs for direction in DIRECTIONS):
        raise UsageError(
            f"{exported.folder} was exported as graphs that make no images; judge the model that it was made of"
        )
    method = build(exported.recipe, exported.found)
    assert isinstance(method, Translator)  # as its graphs say

    def translate(images: Tensor, direction: str) -> Tensor:
        return torch.from_numpy(exported.run(direction, images.numpy().astype(np.float32)))

    method.translate = translate  # type: ignore[method-assign]  # of this one alone
    place, recipe, found = exported.folder, exported.recipe, exported.found
    return task_of(method).model(place, recipe, found, method.eval(), torch.device("cpu"), exported.hash)
