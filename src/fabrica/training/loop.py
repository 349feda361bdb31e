"""The one training loop. A method yields turns, each a player and its loss; everything else is done here: precision,
gradients, clipping, accumulation, averaged weights, validation, logging, checkpoints, resuming.

Every random choice of a step is a function of (seed, step, process), so a resumed run continues bit for bit.
"""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import torch
from torch import Tensor, nn

from fabrica.data.augment import changes_of
from fabrica.data.dataset import Dataset, evenly
from fabrica.errors import FabricaError, UsageError
from fabrica.io.contact_sheet import save_picture
from fabrica.methods import networks
from fabrica.model.loading import load
from fabrica.model.saving import save_card, save_model
from fabrica.nets import quantise
from fabrica.nets.device import uses_bf16
from fabrica.progress import Progress, Warn
from fabrica.recipe.folder import ALARMS, FOUND, RECIPE
from fabrica.recipe.held_out import useless
from fabrica.recipe.load import load_recipe
from fabrica.recipe.plan import table
from fabrica.recipe.schema import Recipe, TrainConfig
from fabrica.training import ema
from fabrica.training.batches import prefetch
from fabrica.training.log import Log, alarm
from fabrica.training.run import Run, has_kept, open_log, open_run, restore_run, save_run

Report = Callable[[dict[str, float]], None]
Batch = dict[str, Tensor]

MEASURED = 512  # training images whose latents say what scale they have
FEW = 100  # steps after which no network shows anything
SCORES = {"val_loss": "held-out loss", "frd": "held-out FRD", "kid": "held-out KID"}


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


def train(
    recipe: Recipe | str | Path | None,
    folder: str | Path,
    *,
    resume: bool = False,
    report: Report | None = None,
    progress: Progress | None = None,
    warn: Warn | None = None,
    say: Warn | None = None,
) -> Path:
    """Train a recipe into a model folder and return the folder.

    recipe    a Recipe, the name of a shipped one, or a path; None with resume: the run's own.
    resume    continue the run in `folder` from its last checkpoint, bit for bit as if it had never stopped.
              Without it, a folder that already holds a run is refused, so that nothing is overwritten.
    report    called with each row of the log, and "done" from 0 to 1 of the budget.
    progress  called with (what, done, total) while the data are prepared.
    warn      called with one sentence when a GAN collapses or stops learning, or the held-out images lack a class;
              None: `warnings.warn`. What went wrong stands in alarms.txt beside the weights, too.

    say       called, before it trains, with the plan of a segmenter as a table, and with what was chosen for a
              translator that has few pairs; both stand in found.yaml, too.

    Raises UsageError for recipes that cannot run, FabricaError for a loss that is not a number or a full disk.

    >>> import fabrica
    >>> from fabrica.recipe.load import load_recipe
    >>> changes = ["data.source=phantom:chest", "data.count=64", "data.size=32", "train.steps=2"]
    >>> folder = fabrica.train(load_recipe("mlp-xray", changes), "model")
    >>> sorted(path.name for path in folder.iterdir() if path.is_file())
    ['README.md', 'found.yaml', 'log.csv', 'recipe.yaml', 'samples.png', 'weights.safetensors']
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
    goes_on = resume and has_kept(folder)
    run = open_run(recipe if isinstance(recipe, Recipe) else load_recipe(recipe), folder, progress, warn)
    for told in (table(run.found.plan) if run.found.plan.size else "", run.found.few):
        if told and say and run.is_first and not goes_on:
            say(told)
    if goes_on:
        restore_run(run)  # a run that was stopped before it kept anything starts from the beginning
    _loop(run, open_log(run) if run.is_first else None, report, warn)
    if not run.state.best_step:
        raise FabricaError(
            f"no weights were kept in {folder}: {SCORES.get(run.scored, 'the score')} was never a number, though the "
            "training loss was; look at the held-out images, lower train.lr, or set train.precision=fp32 or "
            "train.keep=last"
        )
    if said := _too_soon(run):
        warn(said)
    if run.is_first:
        _conclude(run, warn)
    return folder


def _loop(run: Run, log: Log | None, report: Report | None, warn: Warn) -> None:
    config, state = run.recipe.train, run.state
    started = time.monotonic() - state.seconds
    batches = _batches(run)
    meter = Meter()
    while (done := _done(run)) < 1.0:
        began = time.monotonic()
        micro = [next(batches) for _ in range(config.accumulate)]
        pace = _pace(config, state.step, done)
        if run.recipe.quantise:
            quantise.pace(run.method.get_submodule("ranges"), done)
        if run.lesson:
            run.lesson.done = done
        _step(run, micro, pace, meter)
        _average(run)
        state.step += 1
        state.seconds = time.monotonic() - started
        meter.step(run.batch, time.monotonic() - began)
        row: dict[str, float] = {}
        ended = _done(run) >= 1.0
        if ended or state.step % config.validate_every == 0:
            score = _validate_and_keep(run)
            row |= {run.scored: score} if run.scored else {}
        if run.monitor and run.monitor.diversity and state.step % config.monitor_every == 0:
            with run.fabric.autocast():
                row["ms_ssim"] = run.monitor.diversity(run.averaged)
        if ended or row or state.step % config.log_every == 0:
            row |= {"step": state.step, "seconds": state.seconds, "lr": pace * config.lr, **meter.row()}
            row["images"] = state.step * run.batch
            meter = Meter()
            for sentence in run.monitor.see(row) if run.monitor and run.is_first else ():
                _alarm(run, sentence, warn)
            if log:
                log(row)
            if report:
                report({**row, "done": _done(run)})
        _milestones(run, ended)


def _too_soon(run: Run) -> str:
    """What to say where the minutes were over before anything could be learned; "" where they were not."""
    config, state = run.recipe.train, run.state
    if state.step >= FEW or not config.minutes or state.seconds < 60 * config.minutes:
        return ""
    pace = state.step * run.batch / state.seconds
    return (
        f"{state.step} steps were made in {config.minutes:g} minutes, at {pace:.2g} images/s: too few to learn from; "
        f"give it more time: fabrica train --resume -o {run.folder} train.minutes=MORE"
    )


def _alarm(run: Run, sentence: str, warn: Warn) -> None:
    """Say it, and leave it beside the weights for whoever uses or judges them later."""
    line = alarm(run.state.step, sentence)
    with (run.folder / ALARMS).open("a", encoding="utf-8") as file:
        file.write(f"{line}\n")
    best = f"the weights of step {run.state.best_step} are kept" if run.state.best_step else "no weights are kept yet"
    warn(f"{line}; {best}")


def _milestones(run: Run, ended: bool) -> None:
    config, step = run.recipe.train, run.state.step
    if not run.is_first:
        return
    if ended or step % config.checkpoint_every == 0:
        save_run(run)
    if ended or step % config.sample_every == 0:
        _picture(run, run.folder / "samples.png" if ended else run.folder / "samples" / f"step-{step:07d}.png")


def _picture(run: Run, path: Path) -> None:
    with run.fabric.autocast():
        sheet = run.task.preview(run.averaged, run.recipe, run.found, run.heldout, run.fabric.device)
    path.parent.mkdir(exist_ok=True)
    save_picture(sheet, path)


def _conclude(run: Run, warn: Warn) -> None:
    """What the kept weights are worth, said where they are no better than what needs no model."""
    opened = cache(lambda: load(run.folder, device=run.fabric.device))
    found = run.task.concluded(run.found, opened, run.data, run.heldout)
    if found == run.found:
        return
    run.found = found
    for known in (run.found.held_out_b, run.found.held_out_a):
        if said := useless(known):
            warn(said)
    run.found.save(run.folder / FOUND)
    save_card(run.folder, opened().method, run.recipe, run.found, kept=_kept(run))


def _batches(run: Run) -> Iterator[Batch]:
    config, fabric = run.recipe.train, run.fabric
    share = run.batch // (config.accumulate * fabric.world_size)
    for batch in prefetch(
        run.data,
        start=run.state.step * config.accumulate,
        batch=share,
        seed=run.recipe.seed,
        rank=fabric.global_rank,
        world=fabric.world_size,
        changes=changes_of(run.recipe.data),
    ):
        yield {key: value.to(fabric.device, non_blocking=True) for key, value in batch.items()}


def _done(run: Run) -> float:
    """How much of the budget is spent, 0 to 1: of steps or minutes, whichever ends first; 1 where patience has."""
    config, state = run.recipe.train, run.state
    if config.patience and state.best_step and state.step - state.best_step > config.patience * config.validate_every:
        return 1.0
    by_steps = state.step / config.steps if config.steps else 0.0
    by_time = state.seconds / (60 * config.minutes) if config.minutes else 0.0
    done = min(max(by_steps, by_time), 1.0)
    # clocks differ between processes; all must stop at the same step
    return float(run.fabric.broadcast(done)) if config.minutes and run.fabric.world_size > 1 else done


def _pace(config: TrainConfig, step: int, done: float) -> float:
    """The share of the learning rate, 0 to 1: linear warm-up, then what `decay` says over the budget."""
    warm = min(1.0, (step + 1) / config.warmup) if config.warmup else 1.0
    decay = {
        "cosine": 0.5 * (1 + math.cos(math.pi * done)),
        "linear": min(1.0, 2 - 2 * done),
        "constant": 1.0,
    }[config.decay]
    return warm * decay


def _step(run: Run, micro: list[Batch], pace: float, meter: Meter) -> None:
    """One step of every player, noted in the meter.

    Each micro-batch has its own generator of turns. They advance together, one turn at a time, so that the graph
    of one micro-batch is freed before the next is built.
    """
    seed = run.recipe.seed * 1_000_003 + run.state.step
    torch.manual_seed(seed)  # what is drawn inside networks: dropout
    first = run.fabric.global_rank * len(micro)
    run.method.step = run.state.step
    generators = [run.turns(batch, _generator(seed, first + k)) for k, batch in enumerate(micro)]
    while True:
        total, turn = 0.0, None
        for k, turns in enumerate(generators):
            turn = next(turns, None)
            if turn is None:
                return
            if k == 0:
                run.optimisers[turn.player].zero_grad(set_to_none=True)
            run.fabric.backward(turn.loss / len(micro))
            total += float(turn.loss.detach()) / len(micro)
        assert turn is not None  # there is at least one micro-batch
        norm = _clip(run, turn.player)
        if not math.isfinite(total + norm):
            raise FabricaError(_nan_message(run, turn.player, total, norm, micro))
        for group in run.optimisers[turn.player].param_groups:
            group["lr"] = pace * _rate(run.recipe.train, turn.player)
        run.optimisers[turn.player].step()
        meter.turn(turn.player, total, norm, turn.metrics)


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
    wider = ", or set train.precision=fp32" if bf16 else ""
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
    """The score of the averaged weights on held-out images; they are written to the model folder if it is the best, or
    if the last ones are wanted. What learns to work in INT8 is compared only once it does."""
    state, keep = run.state, run.recipe.train.keep
    with run.fabric.autocast():
        score = run.judge(run.averaged) if run.judge else math.nan
    settled = not run.recipe.quantise or quantise.settled(run.method.get_submodule("ranges"))
    if score < state.best_score or not settled or (run.method.keep if keep == "auto" else keep) == "last":
        state.best_score, state.best_step = score if settled else math.inf, state.step
        with run.fabric.autocast():
            run.task.before_keeping(run.averaged, run.data, lambda data: _some(run, data))
        if run.is_first:
            save_model(run.folder, run.averaged, run.recipe, run.found, kept=_kept(run))
    return score


def _kept(run: Run) -> str:
    """Which weights are kept, for the card."""
    score = f"{SCORES[run.scored]} {run.state.best_score:.4g}" if run.scored else "not judged"
    return f"average at step {run.state.best_step}, {score}"


def _some(run: Run, data: Dataset) -> Iterator[Tensor]:
    """Some training images, evenly spread, in batches on the run's device."""
    chosen = evenly(len(data), MEASURED)
    size = max(1, run.batch)
    for k in range(0, len(chosen), size):
        yield torch.from_numpy(data.read(chosen[k : k + size])).to(run.fabric.device)
