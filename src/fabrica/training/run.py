"""A run in memory: opened from a recipe, kept in checkpoints, restored from them, and its log."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import nn
from torch.optim import AdamW, Optimizer

from fabrica.conditioning.dataset import Conditioned
from fabrica.conditioning.encoder import ConditionEncoder, condition_encoder
from fabrica.conditioning.vocabulary import learned, load_words, save_words
from fabrica.data import fingerprint
from fabrica.data.classes import categories_of, classes_of
from fabrica.data.dataset import Dataset
from fabrica.data.pairs import Pairs
from fabrica.data.sample import MASK
from fabrica.data.sources import mixed
from fabrica.errors import FabricaError, UsageError
from fabrica.methods import Method, build, check_pace, networks
from fabrica.model.task import Task
from fabrica.model.tasks import task_of
from fabrica.progress import Progress, Warn
from fabrica.recipe.folder import ALARMS, FOUND, READER, RECIPE, WEIGHTS, WORDS, read_log
from fabrica.recipe.found import Found, found_in
from fabrica.recipe.schema import Recipe, TrainConfig
from fabrica.text.frozen_encoder import Reader, keep_reader
from fabrica.training import ema
from fabrica.training.checkpoint import has_checkpoint, load_checkpoint, save_checkpoint
from fabrica.training.checks import check, check_files, check_scale
from fabrica.training.devices import open_fabric
from fabrica.training.frozen import keep_space, open_space, open_text
from fabrica.training.gan_monitor import Watch, watch
from fabrica.training.log import COLUMNS, LOG, Log, alarm, csv_log, mlflow_log
from fabrica.training.resolve import cut_off, decide_codecs, encode_latents, open_data, open_masks
from fabrica.training.selection import Judge, absent, judge
from fabrica.training.teacher import open_teacher, taught

TRAINING = "training"  # the folder inside the run's that holds its checkpoints
DATA = "data.npz"  # beside these: what data the run began with


@dataclass
class State:
    """What a run knows of itself, beside weights and optimisers."""

    step: int = 0
    seconds: float = 0.0
    best_score: float = math.inf
    best_step: int = 0


@dataclass
class Run:
    """A run in memory: the method in training, its averaged twin, one optimiser a player."""

    recipe: Recipe
    found: Found
    folder: Path
    fabric: Fabric
    method: Method
    averaged: Method
    optimisers: dict[str, Optimizer]
    data: Conditioned | Pairs
    heldout: Conditioned | Pairs
    scored: str  # what `judge` measures, "" where there is none
    judge: Judge | None
    watch: Watch | None
    state: State = field(default_factory=State)

    @property
    def task(self) -> Task[Any, Any]:
        return task_of(self.method)

    @property
    def is_first(self) -> bool:
        """Only the first of several processes writes files."""
        return bool(self.fabric.is_global_zero)


def has_kept(folder: Path) -> bool:
    """Whether a run in this folder has kept anything to go on from."""
    return has_checkpoint(folder / TRAINING) or (folder / WEIGHTS).exists()


def open_run(recipe: Recipe, folder: Path, progress: Progress | None, warn: Warn) -> Run:
    if not recipe.data.source:
        raise UsageError("the recipe has no data; give a manifest or a folder with --data")
    resumed = has_kept(folder)
    found = _begun(recipe, folder) if resumed else Found.asked(recipe)
    chosen = found.data(recipe.data)
    found = replace(found, classes=list(classes_of(chosen)), categories=categories_of(chosen))
    guide, space, reader = None, None, None
    if "teacher" in recipe.uses:
        guide, found = open_teacher(recipe, found)
    if "autoencoder" in found.uses:
        space, found = open_space(recipe, found, folder)
    if "text" in found.uses:
        reader, found = open_text(found, folder)
    for note in mixed(recipe.data):
        warn(note)
    if not resumed:
        found = decide_codecs(recipe, found)
    fabric = open_fabric(recipe.train)
    torch.manual_seed(recipe.seed)
    method = build(recipe, found, space.method if space else None, taught(found, guide) if guide else None)
    found = replace(found, method={"name": found.method["name"], **asdict(method.config)})
    # what the method cannot take is refused before all images are read, not an hour later
    check_pace(method, recipe.sample.steps, "sample.steps is {steps}")
    check_scale(recipe, method)
    check_files(method)
    check(recipe, method, fabric.world_size)
    images, held, found = open_data(recipe, found, method, progress)
    masks = open_masks(recipe, found, progress) if MASK in recipe.data.condition else ()
    sets = _sets(images, held, masks)
    if resumed:
        _check_same(folder, sets, recipe.data.condition, warn)
    notes = list(images.notes) if isinstance(images, Pairs) else list(masks[0].meta.notes) if masks else []
    if isinstance(images, Pairs) and not resumed:
        notes = [*cut_off(recipe, found, images), *notes]
    if space:
        images, held = (encode_latents(space, *of, progress) for of in ((images, "train"), (held, "val")))
    told = guide.encoder if guide else _encoder(recipe, found, images, folder, reader)
    data, heldout = (
        one if isinstance(one, Pairs) else Conditioned(one, told, masks[k] if masks else None)
        for k, one in enumerate((images, held))
    )
    for note in filter(None, (absent(heldout), *notes)):
        warn(note)
    scored, judged = judge(method, recipe, found, heldout, fabric.device)
    method.to(fabric.device)
    averaged = ema.averaged_copy(method, method.ships).to(fabric.device)
    optimisers: dict[str, Optimizer] = {}
    for player, names in method.players.items():
        for name in names:
            method.set_submodule(name, fabric.setup_module(method.get_submodule(name)))
        optimisers[player] = fabric.setup_optimizers(_adamw(recipe.train, networks(method, names)))
    watched = watch(method, recipe, found, heldout, fabric.device) if "critic" in method.players else None
    run = Run(recipe, found, folder, fabric, method, averaged, optimisers, data, heldout, scored, judged, watched)
    if run.is_first:
        folder.mkdir(parents=True, exist_ok=True)
        if space:
            keep_space(space, folder)
        if reader:
            keep_reader(reader, folder / READER)
        elif "text" in recipe.data.condition:
            save_words(folder / WORDS, told)
        recipe.save(folder / RECIPE)
        found.save(folder / FOUND)
        if not (resumed and (folder / TRAINING / DATA).exists()):
            fingerprint.save(folder / TRAINING / DATA, sets, recipe.data.condition)
    return run


def _begun(recipe: Recipe, folder: Path) -> Found:
    """What a run that goes on had decided when it began; the recipe says again what may change: its method's values."""
    return replace(found_in(folder)[1], method=recipe.method, uses=recipe.uses)


def _sets(data: Dataset | Pairs, heldout: Dataset | Pairs, masks: Sequence[Dataset]) -> dict[str, Dataset]:
    """All that a run learns from and is judged by, by name."""
    found = dict(zip(("training masks", "held-out masks"), masks, strict=False))
    for name, each in (("training images", data), ("held-out images", heldout)):
        if isinstance(each, Pairs):
            sides = {"a": each.a, "b": each.b} | {f"beside {k + 1}": one for k, one in enumerate(each.beside)}
            found |= {f"{name} ({side})": one for side, one in sides.items()}
        else:
            found[name] = each
    return found


def _check_same(folder: Path, sets: Mapping[str, Dataset], told: Sequence[str], warn: Warn) -> None:
    """UsageError where a run would go on with other data than it began with."""
    path = folder / TRAINING / DATA
    other = fingerprint.differences(path, sets, told)
    if other is None:
        warn(f"{folder} does not say what data it began with, so whether these are the same is not known")
    elif other:
        raise UsageError(
            f"the data of {folder} are not those it began with: {'; '.join(other)}. Bring those back, train anew in "
            f"another folder, or delete {path} to go on with the data as they are now"
        )


def _encoder(
    recipe: Recipe, found: Found, data: Dataset | Pairs, folder: Path, reader: Reader | None
) -> ConditionEncoder:
    """What says what networks are told; of a run that goes on in `folder`, with the vocabulary there."""
    if "text" not in recipe.data.condition:
        return condition_encoder(recipe, found)
    if reader:
        return condition_encoder(recipe, found, reader=reader)
    assert isinstance(data, Dataset)  # what translates is told nothing: see `build`
    resumed = (folder / RECIPE).is_file() and (folder / WORDS).is_file()
    return condition_encoder(recipe, found, *(load_words(folder / WORDS) if resumed else learned(recipe, data.texts)))


def _adamw(config: TrainConfig, nets: list[nn.Module]) -> Optimizer:
    betas = (config.betas[0], config.betas[1])
    parameters = [p for net in nets for p in net.parameters()]
    return AdamW(parameters, config.lr, betas, weight_decay=config.weight_decay, fused=True)


def save_run(run: Run) -> None:
    owned = [name for names in run.method.players.values() for name in names]
    # what no player owns has memories of its own
    children = [name for name, _ in run.method.named_children()]
    names = [*owned, *(name for name in children if not any(f"{o}.".startswith(f"{name}.") for o in owned))]
    save_checkpoint(
        run.folder / TRAINING,
        {
            "state": asdict(run.state),
            "networks": {n: net.state_dict() for n, net in zip(names, networks(run.method, names), strict=True)},
            "averaged": {
                n: net.state_dict()
                for n, net in zip(run.method.ships, networks(run.averaged, run.method.ships), strict=True)
            },
            "optimisers": {player: o.state_dict() for player, o in run.optimisers.items()},
        },
    )


def restore_run(run: Run) -> None:
    saved = load_checkpoint(run.folder / TRAINING)
    try:
        for name, weights in saved["networks"].items():
            run.method.get_submodule(name).load_state_dict(weights)
        for name, weights in saved["averaged"].items():
            run.averaged.get_submodule(name).load_state_dict(weights)
        for player, state in saved["optimisers"].items():
            run.optimisers[player].load_state_dict(state)
    except (RuntimeError, KeyError, AttributeError, ValueError) as error:  # optimisers raise ValueError
        reason = str(error).strip().splitlines()[0]
        raise FabricaError(f"the checkpoint in {run.folder} does not fit the recipe: {reason}") from error
    run.state = State(**saved["state"])
    if run.watch:
        _replay(run, run.watch)


def _replay(run: Run, watch: Watch) -> None:
    """Show the watch the rows up to the checkpoint, and leave the alarms that they raised."""
    lines = []
    for row in read_log(run.folder / LOG):
        if row["step"] <= run.state.step:
            lines += [alarm(int(row["step"]), sentence) for sentence in watch.see(row)]
    if run.is_first and (lines or (run.folder / ALARMS).exists()):
        (run.folder / ALARMS).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def open_log(run: Run) -> Log:
    columns = [*COLUMNS, *filter(None, [run.scored]), *run.method.logged]
    if run.watch:
        columns += [f"{what}_{player}" for what in ("loss", "grad_norm") for player in run.method.players]
        columns += ["real_accuracy", "fake_accuracy", "ms_ssim"]
    to_csv = csv_log(run.folder / LOG, columns, resume_at=run.state.step)
    if run.recipe.track != "mlflow":
        return to_csv
    values = {
        f"{section}.{key}": value
        for section, keys in asdict(run.recipe).items()
        for key, value in (keys.items() if isinstance(keys, dict) else [("", keys)])
    }
    to_mlflow = mlflow_log(run.recipe.name, values, run.folder)

    def log(row: Mapping[str, float]) -> None:
        to_csv(row)
        to_mlflow(row)

    return log
