"""A run in memory: opened from a recipe, kept in checkpoints, restored from them, and its log."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer

from fabrica.conditioning.dataset import Conditioned
from fabrica.conditioning.encoder import ConditionEncoder, condition_encoder
from fabrica.conditioning.vocabulary import learned, load_words, save_words
from fabrica.data import fingerprint
from fabrica.data.classes import categories_of, classes_of
from fabrica.data.dataset import Dataset
from fabrica.data.sample import MASK
from fabrica.data.sources import mixed
from fabrica.errors import FabricaError, UsageError
from fabrica.inference.synthesis import check_pace
from fabrica.methods import Method, Teacher, Translator, Turn, build, checked, named, networks
from fabrica.methods.knowledge import Lesson
from fabrica.model.compression import CompressionModel
from fabrica.model.task import Task
from fabrica.model.tasks import task_of
from fabrica.model.translation import TranslationModel
from fabrica.nets.quantise import prepare
from fabrica.progress import Progress, Warn
from fabrica.recipe.folder import ALARMS, FOUND, RECIPE, WEIGHTS, WORDS, read_log
from fabrica.recipe.found import Found, found_in
from fabrica.recipe.schema import Recipe, TrainConfig
from fabrica.text.frozen_encoder import FrozenEncoder
from fabrica.training import ema
from fabrica.training.checkpoint import has_checkpoint, load_checkpoint, save_checkpoint
from fabrica.training.checks import check, check_files, check_scale
from fabrica.training.devices import open_fabric
from fabrica.training.frozen import keep_space, keep_text, open_space, open_text
from fabrica.training.gan_monitor import GanMonitor, open_monitor
from fabrica.training.log import COLUMNS, LOG, Log, alarm, csv_log, mlflow_log
from fabrica.training.resolve import (
    Opened,
    cut_off,
    decide_codecs,
    decide_few,
    decide_plan,
    encode_latents,
    open_cases,
    open_images,
    open_sides,
)
from fabrica.training.selection import Judge, judge
from fabrica.training.teacher import lesson_of, open_teacher, taught

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
    data: Any  # what methods of its task learn from: Conditioned, or Pairs
    heldout: Any
    scored: str  # what `judge` measures, "" where there is none
    judge: Judge | None
    monitor: GanMonitor | None
    lesson: Lesson | None = None
    state: State = field(default_factory=State)

    @property
    def task(self) -> Task[Any, Any]:
        return task_of(self.method)

    def turns(self, batch: dict[str, Tensor], rng: torch.Generator) -> Iterator[Turn]:
        """The method's turns, those of a student with what its teacher says."""
        if self.lesson:
            return self.lesson.turns(cast(Translator, self.method), batch, rng)
        return self.method.turns(batch, rng)

    @property
    def batch(self) -> int:
        """Images a step, over all processes together."""
        return self.found.data(self.recipe.data).batch

    @property
    def is_first(self) -> bool:
        """Only the first of several processes writes files."""
        return bool(self.fabric.is_global_zero)


def has_kept(folder: Path) -> bool:
    """Whether a run in this folder has kept anything to go on from."""
    return has_checkpoint(folder / TRAINING) or (folder / WEIGHTS).exists()


def open_run(recipe: Recipe, folder: Path, progress: Progress | None, warn: Warn) -> Run:
    """What cannot be is refused before all images are read, not an hour later."""
    if not recipe.data.source:
        raise UsageError("the recipe has no data; give a manifest or a folder with --data")
    resumed = has_kept(folder)
    recipe, few = decide_few(recipe)
    found = _begun(recipe, folder) if resumed else replace(Found.asked(recipe), few=few)
    data = found.data(recipe.data)
    found = replace(found, classes=list(classes_of(data)), categories=categories_of(data))
    uses, found = _opened(recipe, found, folder)
    checked(recipe, found)
    for note in mixed(recipe.data):
        warn(note)
    # label maps have as many channels as classes; other networks can be refused before any image is looked at
    codecs_first = bool(recipe.data.a) or MASK in recipe.data.condition
    planned = named(found.method).plans
    if planned and not resumed:
        found = decide_plan(recipe, found, progress)
    elif codecs_first and not resumed and not uses.translator:
        found = decide_codecs(recipe, found)
    torch.manual_seed(recipe.seed)
    method = build(recipe, found, uses.space.method if uses.space else None, uses.teacher)
    lesson = lesson_of(recipe, found, method, uses.translator) if uses.translator else None
    if not codecs_first and not resumed:
        found = decide_codecs(recipe, found)
    found = replace(found, method={"name": found.method["name"], **asdict(method.config)})
    check_pace(method.paces, recipe.sample.steps, "sample.steps is {steps}")
    check_scale(recipe, method)
    check_files(method)
    check(recipe, found.data(recipe.data).batch, method, recipe.train.devices)
    if planned:
        opened = open_cases(recipe, found, method.needs, progress)
    elif recipe.data.a:
        opened = open_sides(recipe, found, method.needs, progress)
    else:
        opened = open_images(recipe, found, progress)
    found = opened.found
    if resumed:
        _check_same(folder, opened.sets, recipe.data.condition, warn)
    cut = cut_off(recipe, found, opened.train) if recipe.data.a and not resumed and not planned else []
    for note in filter(None, (*cut, *opened.notes)):
        warn(note)
    train, heldout = opened[:2] if recipe.data.a else _conditioned(recipe, opened, uses, folder, progress)
    fabric = open_fabric(recipe.train)
    scored, judged = judge(method, recipe, found, heldout, fabric.device)
    if recipe.quantise:
        method.ranges = nn.ModuleList(prepare(method.get_submodule(name)) for name in method.ships)
    method.to(fabric.device)
    averaged = ema.averaged_copy(method, method.ships).to(fabric.device)
    optimisers: dict[str, Optimizer] = {}
    for player, names in method.players.items():
        for name in names:
            method.set_submodule(name, fabric.setup_module(method.get_submodule(name)))
        optimisers[player] = fabric.setup_optimizers(_adamw(recipe.train, networks(method, names)))
    watching = open_monitor(method, recipe, found, heldout, fabric.device) if "critic" in method.players else None
    run = Run(
        recipe, found, folder, fabric, method, averaged, optimisers, train, heldout, scored, judged, watching, lesson
    )
    if run.is_first:
        _keep_beginning(run, uses, opened.sets, resumed)
    return run


@dataclass(frozen=True)
class Uses:
    """What a run works with that was trained before: an autoencoder, an encoder of text, a teacher that draws and what
    that is told of images, or one that translates."""

    space: CompressionModel | None = None
    frozen_encoder: FrozenEncoder | None = None
    teacher: Teacher | None = None
    told: ConditionEncoder | None = None
    translator: TranslationModel | None = None


def _opened(recipe: Recipe, found: Found, folder: Path) -> tuple[Uses, Found]:
    uses = Uses()
    if "teacher" in recipe.uses:
        model, found = open_teacher(recipe, found)
        if isinstance(model, TranslationModel):
            uses = replace(uses, translator=model)
        else:
            uses = replace(uses, teacher=taught(found, model), told=model.encoder)
    if "autoencoder" in found.uses:
        space, found = open_space(recipe, found, folder)
        uses = replace(uses, space=space)
    if "text" in found.uses:
        frozen_encoder, found = open_text(found, folder)
        uses = replace(uses, frozen_encoder=frozen_encoder)
    return uses, found


def _conditioned(
    recipe: Recipe, opened: Opened, uses: Uses, folder: Path, progress: Progress | None
) -> tuple[Conditioned, Conditioned]:
    """Images, their latents where networks see these, and what networks are told of each; of both splits."""
    told = uses.told or _encoder(recipe, opened.found, opened.train, folder, uses.frozen_encoder)
    train, heldout = (
        Conditioned(images, told, masks, encode_latents(uses.space, images, split, progress) if uses.space else None)
        for images, masks, split in zip(opened[:2], opened.masks, ("train", "val"), strict=True)
    )
    return train, heldout


def _keep_beginning(run: Run, uses: Uses, sets: Mapping[str, Dataset], resumed: bool) -> None:
    """Write what a run began with into its folder."""
    run.folder.mkdir(parents=True, exist_ok=True)
    if uses.space:
        keep_space(uses.space, run.folder)
    if uses.frozen_encoder:
        keep_text(uses.frozen_encoder, run.folder)
    elif "text" in run.recipe.data.condition:
        save_words(run.folder / WORDS, run.data.encoder)
    run.recipe.save(run.folder / RECIPE)
    run.found.save(run.folder / FOUND)
    if not (resumed and (run.folder / TRAINING / DATA).exists()):
        fingerprint.save(run.folder / TRAINING / DATA, sets, run.recipe.data.condition)


def _begun(recipe: Recipe, folder: Path) -> Found:
    """What a run that goes on had decided when it began; the recipe says again what may change: its method's values."""
    return replace(found_in(folder)[1], method=recipe.method, uses=recipe.uses)


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
    recipe: Recipe, found: Found, data: Dataset, folder: Path, frozen_encoder: FrozenEncoder | None
) -> ConditionEncoder:
    """What says what networks are told; of a run that goes on in `folder`, with the vocabulary there."""
    if "text" not in recipe.data.condition:
        return condition_encoder(recipe, found)
    if frozen_encoder:
        return condition_encoder(recipe, found, frozen_encoder=frozen_encoder)
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
    if run.monitor:
        _replay(run, run.monitor)


def _replay(run: Run, monitor: GanMonitor) -> None:
    """Show the watch the rows up to the checkpoint, and leave the alarms that they raised."""
    lines = []
    for row in read_log(run.folder / LOG):
        if row["step"] <= run.state.step:
            lines += [alarm(int(row["step"]), sentence) for sentence in monitor.see(row)]
    if run.is_first and (lines or (run.folder / ALARMS).exists()):
        (run.folder / ALARMS).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def open_log(run: Run) -> Log:
    columns = [*COLUMNS, *filter(None, [run.scored]), *run.method.logged]
    if run.monitor:
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
