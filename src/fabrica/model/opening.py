"""A model opened, whatever it is: the name of one that ships, or the folder of one that was trained or exported, or a
MONAI bundle."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from fabrica import bundle, runtime
from fabrica.errors import UsageError
from fabrica.recipe.folder import RECIPE
from fabrica.runtime import ready

Warn = Callable[[str], None]


def load(model: str | Path, *, device: Any = None, precision: str = "", warn: Warn | None = None) -> Any:
    """The model of this name (see `fabrica models`) or in this folder: what translates is a `Translates`, what
    synthesises a `Synthesises`, both of `fabrica.inference`. Executes nothing from the folder. PyTorch is needed for a
    model folder and for a bundle, and for none that was exported.

    device      of a trained model, "cpu", "cuda" ...; None: the fastest.
    precision   that its networks compute in, "fp32", "fp16" or "bf16"; "": as it was trained or exported.
    warn        called with a sentence on what a bundle does not say, and on a folder that bears the name of a model
                that ships; None: `warnings.warn`.

    Raises UsageError if there is no model, FabricaError if what lies there does not fit together.

    >>> import fabrica
    >>> from fabrica.recipe.load import load_recipe
    >>> changes = ["data.source=phantom:chest", "data.count=64", "data.size=32", "train.steps=2"]
    >>> model = fabrica.load(fabrica.train(load_recipe("mlp-xray", changes), "model"))
    >>> images = model.sample(2, seed=0)
    >>> images[0].data.shape, images[0].origin["seed"], images[1].origin["seed"]
    ((1, 32, 32), 0, 1)
    """
    folder = ready.place(model, warn)
    if runtime.found(folder):
        if device is not None and str(device) != "cpu":
            raise UsageError(f"{model} is an exported model, which runs on processors; leave device {device} out")
        return runtime.opened(folder, precision)
    from fabrica.model.loading import load as load_trained

    found = load_trained(folder, device=device, warn=warn)
    return found.computing_in(precision) if precision else found


def judged(given: str | Path, warn: Warn | None = None) -> Any:
    """The model that is meant, to be judged: a `fabrica.model.model.Model`, or one that was exported and synthesises.
    What holds no model, but images perhaps, as it is given."""
    folder = ready.place(given, warn)
    if runtime.found(folder):
        from fabrica.model.exported import as_trained

        return as_trained(runtime.opened(folder))
    if not (bundle.found(folder) or (folder / RECIPE).exists()):
        return given
    from fabrica.model.loading import load as load_trained

    return load_trained(folder, warn=warn)
