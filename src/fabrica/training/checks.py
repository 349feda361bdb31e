"""What can only be refused once method and data are there."""

from __future__ import annotations

from pathlib import Path

from fabrica.data.resolution import scale
from fabrica.errors import UsageError, did_you_mean
from fabrica.methods import Method, Translator
from fabrica.recipe.schema import Recipe


def check(recipe: Recipe, batch: int, method: Method, processes: int) -> None:
    """UsageError for what can only be known once the method is there."""
    config, name = recipe.train, recipe.method["name"]
    if recipe.quantise and not isinstance(method, Translator):
        raise UsageError(
            f"quantise is {recipe.quantise}, which is for what translates, restores or segments, and {name} does not; "
            "leave it out"
        )
    for player in set(config.lr_of) - set(method.players):
        raise UsageError(f"train.lr_of: {name} has no player {player!r}{did_you_mean(player, method.players)}")
    share = batch // (config.accumulate * processes)
    if share < 1:
        raise UsageError(
            f"data.batch {batch} cannot be shared by {processes} processes with train.accumulate {config.accumulate}"
        )
    least = method.least_batch
    if share < least:
        raise UsageError(
            f"data.batch {batch} leaves {share} a process and turn; {name} normalises over the batch "
            f"and needs {least}: take data.batch={batch * -(-least // share)} or more"
        )


def check_scale(recipe: Recipe, method: Method) -> None:
    """UsageError for a network that makes images finer by another factor than the data were made coarser."""
    finer, coarser = getattr(method.config, "scale", None), scale(recipe.data.degrade)
    if finer not in (None, coarser):
        raise UsageError(
            f"method.scale is {finer} and data.degrade makes images {coarser} times smaller; both must be the same, "
            f"e.g. data.degrade=[{{name: downsample, factor: {finer}}}]"
        )


def check_files(method: Method) -> None:
    """UsageError for a file that the method is to learn with and that is not there."""
    for key in method.files:
        path = getattr(method.config, key)
        if path and not Path(path).is_file():
            raise UsageError(
                f"method.{key}: there is no file {path}; nothing is downloaded: put it there, or leave it out"
            )
