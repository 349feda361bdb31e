"""The one training loop. A method yields (player, loss); everything else is done here: precision, gradients,
clipping, accumulation, averaged weights, validation, logging, checkpoints, resuming.

Every random choice of a step is a function of (seed, step, process), so a resumed run continues bit for bit.
"""

from __future__ import annotations

import logging
import math
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import cast

import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins import Precision
from lightning_fabric.strategies import DDPStrategy
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer

from fabrica import ema
from fabrica.checkpoint import has_checkpoint, load_checkpoint, save_checkpoint
from fabrica.data.cache import build_cache, resolve_codec
from fabrica.data.dataset import Dataset, prefetch
from fabrica.data.sources import open_source
from fabrica.device import default_device, uses_bf16
from fabrica.errors import FabricaError, UsageError, did_you_mean
from fabrica.heldout import Judge, absent, judge
from fabrica.methods import Method, build, networks
from fabrica.model import RECIPE, WEIGHTS, codec_config, codec_of, save_model, save_samples
from fabrica.recipe import Recipe, TrainConfig, load_recipe
from fabrica.track import COLUMNS, Log, csv_log, mlflow_log, read_log
from fabrica.watch import Watch

Report = Callable[[dict[str, float]], None]
Progress = Callable[[str, int, int], None]
Warn = Callable[[str], None]
Batch = dict[str, Tensor]

TRAINING = "training"  # the folder inside the run's that holds its checkpoints
LOG = "log.csv"
SCORES = {"val_loss": "held-out loss", "frd": "held-out FRD", "kid": "held-out KID"}


@dataclass
class State:
    """What a run knows of itself, beside weights and optimisers."""

    step: int = 0
    seconds: float = 0.0
    best_score: float = math.inf
    best_step: int = 0


@dataclass
class Meter:
    """What happened since the last log row. Time spent on validation and pictures is not counted as training."""

    steps: int = 0
    images: int = 0
    seconds: float = 0.0
    sums: dict[str, float] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    largest: dict[str, float] = field(default_factory=dict)

    def turn(self, player: str, loss: float, grad_norm: float, seen: Mapping[str, float]) -> None:
        for key, value in {f"loss_{player}": loss, **seen}.items():
            self.sums[key] = self.sums.get(key, 0.0) + value
            self.counts[key] = self.counts.get(key, 0) + 1
        for key in ("grad_norm", f"grad_norm_{player}"):
            self.largest[key] = max(self.largest.get(key, 0.0), grad_norm)

    def step(self, images: int, seconds: float) -> None:
        self.steps += 1
        self.images += images
        self.seconds += seconds

    def row(self) -> dict[str, float]:
        """loss_PLAYER and what was seen (means over turns), loss (their sum), grad_norm and grad_norm_PLAYER (the
        largest), images_per_s."""
        means = {key: total / self.counts[key] for key, total in self.sums.items()}
        loss = sum(value for key, value in means.items() if key.startswith("loss_"))
        return {"loss": loss, **means, **self.largest, "images_per_s": self.images / max(self.seconds, 1e-9)}


@dataclass
class Run:
    """A run in memory: the method in training, its averaged twin, one optimiser a player."""

    recipe: Recipe
    folder: Path
    fabric: Fabric
    method: Method
    averaged: Method
    optimisers: dict[str, Optimizer]
    data: Dataset
    scored: str
    judge: Judge
    watch: Watch | None
    state: State = field(default_factory=State)

    @property
    def is_first(self) -> bool:
        """Only the first of several processes writes files."""
        return bool(self.fabric.is_global_zero)


def train(
    recipe: Recipe | str | Path | None,
    folder: str | Path,
    *,
    resume: bool = False,
    report: Report | None = None,
    progress: Progress | None = None,
    warn: Warn | None = None,
) -> Path:
    """Train a recipe into a model folder and return the folder.

    recipe    a Recipe, the name of a shipped one, or a path; None with resume: the run's own.
    resume    continue the run in `folder` from its last checkpoint, bit for bit as if it had never stopped.
              Without it, a folder that already holds a run is refused, so that nothing is overwritten.
    report    called with each row of the log, and "done" from 0 to 1 of the budget.
    progress  called with (what, done, total) while the data are prepared.
    warn      called with one sentence when a GAN collapses or stops learning, or the held-out images lack a class;
              None: `warnings.warn`. The sentences stand in the model card, too.

    Raises UsageError for recipes that cannot run, FabricaError for a loss that is not a number or a full disk.
    """
    folder = Path(folder)
    if resume:
        if not (folder / RECIPE).is_file():
            raise UsageError(f"{folder} holds no run to resume: it has no {RECIPE}")
        recipe = recipe if isinstance(recipe, Recipe) else load_recipe(folder / RECIPE)
    elif (folder / RECIPE).exists():
        raise UsageError(f"{folder} already holds a run; continue it with --resume, or choose another folder")
    if recipe is None:
        raise UsageError("no recipe given; `fabrica recipes` lists those that ship")
    warn = warn or warnings.warn
    run = _open(recipe if isinstance(recipe, Recipe) else load_recipe(recipe), folder, progress, warn)
    if resume and (has_checkpoint(folder / TRAINING) or (folder / WEIGHTS).exists()):
        _restore(run)  # a run that was stopped before it kept anything starts from the beginning
    if run.watch and run.state.step:
        run.watch.rows = read_log(folder / LOG)
    _loop(run, _log(run) if run.is_first else None, report, warn)
    return folder


def _open(recipe: Recipe, folder: Path, progress: Progress | None, warn: Warn) -> Run:
    data, heldout = _data(recipe, progress)
    if note := absent(heldout):
        warn(note)
    fabric = _fabric(recipe.train)
    torch.manual_seed(recipe.seed)
    method = build(recipe)
    _check(recipe, method, fabric.world_size)
    scored, judged = judge(method, recipe, heldout, fabric.device)
    averaged = ema.averaged_copy(cast(nn.Module, method), method.ships).to(fabric.device)
    optimisers: dict[str, Optimizer] = {}
    for player, names in method.players.items():
        for name in names:
            setattr(method, name, fabric.setup_module(getattr(method, name)))
        optimisers[player] = fabric.setup_optimizers(_adamw(recipe.train, networks(method, names)))
    watch = Watch(recipe, heldout, fabric.device) if len(method.players) > 1 else None
    run = Run(recipe, folder, fabric, method, cast(Method, averaged), optimisers, data, scored, judged, watch)
    if run.is_first:
        folder.mkdir(parents=True, exist_ok=True)
        recipe.save(folder / RECIPE)
    return run


def _fabric(config: TrainConfig) -> Fabric:
    device = default_device()
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)  # it announces its precision on stderr
    precision = [Bf16(device.type)] if uses_bf16(config.precision, device) else None
    # the statistics of batch norm are each process's own: sent around between two forward passes of one turn,
    # they would change under the first one's gradients
    strategy = DDPStrategy(broadcast_buffers=False) if config.devices > 1 else "auto"
    fabric = Fabric(accelerator=device.type, devices=config.devices, plugins=precision, strategy=strategy)
    fabric.launch()
    return fabric


class Bf16(Precision):
    """Networks compute in bfloat16 and answer in float32. Fabric's own does the same, and forbids the gradients
    inside a loss that gradient penalties are made of."""

    precision = "bf16-mixed"

    def __init__(self, device_type: str) -> None:
        self.device_type = device_type

    def forward_context(self) -> AbstractContextManager[object]:
        return torch.autocast(self.device_type, torch.bfloat16)

    def convert_output(self, data: Tensor) -> Tensor:
        return data.float()


def _check(recipe: Recipe, method: Method, processes: int) -> None:
    """UsageError for what can only be known once the method is there."""
    config, name = recipe.train, recipe.method["name"]
    for player in set(config.lr_of) - set(method.players):
        raise UsageError(f"train.lr_of: {name} has no player {player!r}{did_you_mean(player, method.players)}")
    share = recipe.data.batch // (config.accumulate * processes)
    if share < 1:
        raise UsageError(
            f"data.batch {recipe.data.batch} cannot be shared by {processes} processes "
            f"with train.accumulate {config.accumulate}"
        )
    least = getattr(method, "least_batch", 1)
    if share < least:
        raise UsageError(
            f"data.batch {recipe.data.batch} leaves {share} a process and turn; {name} normalises over the batch "
            f"and needs {least}: take data.batch={recipe.data.batch * -(-least // share)} or more"
        )


def _adamw(config: TrainConfig, nets: list[nn.Module]) -> Optimizer:
    betas = (config.betas[0], config.betas[1])
    parameters = [p for net in nets for p in net.parameters()]
    return AdamW(parameters, config.lr, betas, weight_decay=config.weight_decay, fused=True)


def _data(recipe: Recipe, progress: Progress | None) -> tuple[Dataset, Dataset]:
    """The train split, and the val split that decides which weights are kept.

    Fills in what the recipe left to the data: codec, classes, modality and spacing of what is written.
    """
    if not recipe.data.source:
        raise UsageError("the recipe has no data; give a manifest or a folder with --data")
    if recipe.codec.kind == "auto":
        recipe.codec = codec_config(resolve_codec(recipe.data, recipe.codec))
    codec = codec_of(recipe.codec)
    open_source(recipe.data, "val")  # a data set without held-out images is refused before the train images are read
    data = build_cache(recipe.data, codec, "train", progress=_named(progress, "caching train images"))
    if recipe.data.condition == "label":
        recipe.data.classes = list(data.classes)
    heldout = build_cache(recipe.data, codec, "val", progress=_named(progress, "caching val images"))
    recipe.output.modality = recipe.output.modality or data.modality
    recipe.output.spacing = recipe.output.spacing or list(data.spacing)
    recipe.output.size = list(data.content)
    return data, heldout


def _named(progress: Progress | None, what: str) -> Callable[[int, int], None] | None:
    return (lambda done, total: progress(what, done, total)) if progress else None


def _loop(run: Run, log: Log | None, report: Report | None, warn: Warn) -> None:
    config, state = run.recipe.train, run.state
    started = time.monotonic() - state.seconds
    batches = _batches(run)
    meter = Meter()
    while (done := _done(run)) < 1.0:
        began = time.monotonic()
        micro = [next(batches) for _ in range(config.accumulate)]
        pace = _pace(config, state.step, done)
        _step(run, micro, pace, meter)
        _average(run)
        state.step += 1
        state.seconds = time.monotonic() - started
        meter.step(run.recipe.data.batch, time.monotonic() - began)
        row: dict[str, float] = {}
        ended = _done(run) >= 1.0
        if ended or state.step % config.validate_every == 0:
            row[run.scored] = _validate_and_keep(run)
        if run.watch and state.step % config.watch_every == 0:
            row["ms_ssim"] = _diversity(run)
        if ended or row or state.step % config.log_every == 0:
            row |= {"step": state.step, "seconds": state.seconds, "lr": pace * config.lr, **meter.row()}
            row["images"] = state.step * run.recipe.data.batch
            meter = Meter()
            for sentence in run.watch.see(row) if run.watch else ():
                warn(sentence)
            if log:
                log(row)
            if report:
                report({**row, "done": _done(run)})
        _milestones(run, ended)


def _milestones(run: Run, ended: bool) -> None:
    config, step = run.recipe.train, run.state.step
    if not run.is_first:
        return
    if ended or step % config.checkpoint_every == 0:
        _checkpoint(run)
    if ended or step % config.sample_every == 0:
        save_samples(run.folder, run.averaged, run.recipe, run.fabric.device, step=None if ended else step)


def _batches(run: Run) -> Iterator[Batch]:
    config, fabric = run.recipe.train, run.fabric
    share = run.recipe.data.batch // (config.accumulate * fabric.world_size)
    for batch in prefetch(
        run.data,
        start=run.state.step * config.accumulate,
        batch=share,
        seed=run.recipe.seed,
        rank=fabric.global_rank,
        world=fabric.world_size,
        flip=run.recipe.data.flip,
    ):
        yield {key: value.to(fabric.device, non_blocking=True) for key, value in batch.items()}


def _done(run: Run) -> float:
    """How much of the budget is spent, 0 to 1: of the steps or the minutes, whichever ends first."""
    config, state = run.recipe.train, run.state
    by_steps = state.step / config.steps if config.steps else 0.0
    by_time = state.seconds / (60 * config.minutes) if config.minutes else 0.0
    done = max(by_steps, by_time)
    # clocks differ between processes; all must stop at the same step
    return float(run.fabric.broadcast(done)) if config.minutes and run.fabric.world_size > 1 else done


def _pace(config: TrainConfig, step: int, done: float) -> float:
    """The share of the learning rate, 0 to 1: linear warm-up, then constant or a half cosine over the budget."""
    warm = min(1.0, (step + 1) / config.warmup) if config.warmup else 1.0
    decay = 0.5 * (1 + math.cos(math.pi * min(done, 1.0))) if config.decay == "cosine" else 1.0
    return warm * decay


def _step(run: Run, micro: list[Batch], pace: float, meter: Meter) -> None:
    """One step of every player, noted in the meter.

    Each micro-batch has its own generator of turns. They advance together, one turn at a time, so that the graph
    of one micro-batch is freed before the next is built.
    """
    seed = run.recipe.seed * 1_000_003 + run.state.step
    torch.manual_seed(seed)  # what is drawn inside networks: dropout
    first = run.fabric.global_rank * len(micro)
    generators = [run.method.turns(batch, _generator(seed, first + k)) for k, batch in enumerate(micro)]
    while True:
        total = 0.0
        for k, turns in enumerate(generators):
            turn = next(turns, None)
            if turn is None:
                return
            if k == 0:
                run.optimisers[turn.player].zero_grad(set_to_none=True)
            run.fabric.backward(turn.loss / len(micro))
            total += float(turn.loss.detach()) / len(micro)
        norm = _clip(run, turn.player)
        if not math.isfinite(total + norm):
            raise FabricaError(_nan_message(run, turn.player, total, norm, micro))
        for group in run.optimisers[turn.player].param_groups:
            group["lr"] = pace * _rate(run.recipe.train, turn.player)
        run.optimisers[turn.player].step()
        meter.turn(turn.player, total, norm, turn.seen)


def _rate(config: TrainConfig, player: str) -> float:
    return config.lr_of.get(player, config.lr)


def _generator(seed: int, stream: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed * 4096 + stream)


def _clip(run: Run, player: str) -> float:
    parameters = [p for net in networks(run.method, run.method.players[player]) for p in net.parameters()]
    return float(nn.utils.clip_grad_norm_(parameters, run.recipe.train.clip or math.inf, foreach=True))


def _nan_message(run: Run, player: str, loss: float, norm: float, micro: list[Batch]) -> str:
    ids = [run.data.ids[int(i)] for batch in micro for i in batch["index"]]
    shown = ", ".join(ids[:4]) + (f" and {len(ids) - 4} more" if len(ids) > 4 else "")
    best = run.state.best_step
    bf16 = uses_bf16(run.recipe.train.precision, run.fabric.device)
    wider = ", or set train.precision=fp32" if bf16 else ""  # bf16 kernels fail on volumes of very few voxels
    kept = f"the best weights (step {best}) are kept in {run.folder}" if best else "no weights were kept yet"
    return (
        f"training stopped at step {run.state.step}: {player} has loss {loss:.4g} and gradient norm {norm:.4g} on "
        f"images {shown}; {kept}; look at these images, or lower train.lr ({_rate(run.recipe.train, player):g}){wider}"
    )


def _average(run: Run) -> None:
    decay = ema.warmed(run.recipe.train.ema, run.state.step) if run.recipe.train.ema else 0.0
    ships = run.method.ships
    for kept, new in zip(networks(run.averaged, ships), networks(run.method, ships), strict=True):
        ema.update(kept, new, decay)


def _validate_and_keep(run: Run) -> float:
    """The score of the averaged weights on held-out images; they are written to the model folder if it is the best."""
    state = run.state
    with run.fabric.autocast():
        score = run.judge(run.averaged)
    if score < state.best_score:
        state.best_score, state.best_step = score, state.step
        if run.is_first:
            kept = f"average at step {state.step}, {SCORES[run.scored]} {score:.4g}"
            save_model(run.folder, run.averaged, run.recipe, kept=kept)
    return score


def _diversity(run: Run) -> float:
    assert run.watch is not None  # see the call
    with run.fabric.autocast():
        return run.watch.diversity(run.averaged)


def _checkpoint(run: Run) -> None:
    names = [name for player in run.method.players.values() for name in player]
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


def _restore(run: Run) -> None:
    saved = load_checkpoint(run.folder / TRAINING)
    try:
        for name, weights in saved["networks"].items():
            getattr(run.method, name).load_state_dict(weights)
        for name, weights in saved["averaged"].items():
            getattr(run.averaged, name).load_state_dict(weights)
        for player, state in saved["optimisers"].items():
            run.optimisers[player].load_state_dict(state)
    except (RuntimeError, KeyError, AttributeError) as error:
        reason = str(error).strip().splitlines()[0]
        raise FabricaError(f"the checkpoint in {run.folder} does not fit the recipe: {reason}") from error
    run.state = State(**saved["state"])


def _log(run: Run) -> Log:
    columns = [*COLUMNS, run.scored]
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
