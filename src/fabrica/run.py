"""A run in memory: opened from a recipe, kept in checkpoints, restored from them, and its log."""

from __future__ import annotations

import copy
import logging
import math
from collections.abc import Callable, Mapping, Sequence
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
from fabrica.conditions import Teller, learned, load_words, save_words, teller
from fabrica.data import fingerprint
from fabrica.data.cache import build_cache, build_masks, resolve_codec, resolve_codecs
from fabrica.data.dataset import Dataset
from fabrica.data.degrade import scale
from fabrica.data.latents import encoded
from fabrica.data.pairs import Pairs
from fabrica.data.sources import BESIDE, MASK, categories_of, classes_of, mixed, open_source
from fabrica.device import default_device, uses_bf16
from fabrica.errors import FabricaError, UsageError, did_you_mean
from fabrica.folder import ALARMS, READER, RECIPE, WEIGHTS, WORDS, codec_config, codec_of
from fabrica.heldout import Judge, absent, judge
from fabrica.latent import keep_space, latents_key, open_space, open_text
from fabrica.likeness import seen
from fabrica.methods import Method, build, check_pace, named, networks
from fabrica.model import Model
from fabrica.nets.convolutions import exact
from fabrica.pretrained import Reader, keep_reader
from fabrica.recipe import CodecConfig, Recipe, TrainConfig
from fabrica.teacher import open_teacher, taught
from fabrica.track import COLUMNS, Log, csv_log, mlflow_log, read_log
from fabrica.watch import Watch, watch

Progress = Callable[[str, int, int], None]
Warn = Callable[[str], None]

TRAINING = "training"  # the folder inside the run's that holds its checkpoints
DATA = "data.npz"  # beside these: what data the run began with
LOG = "log.csv"


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
    folder: Path
    fabric: Fabric
    method: Method
    averaged: Method
    optimisers: dict[str, Optimizer]
    data: Dataset | Pairs
    heldout: Dataset | Pairs
    scored: str  # what `judge` measures, "" where there is none
    judge: Judge | None
    watch: Watch | None
    state: State = field(default_factory=State)

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
    # what the method cannot take is refused before images are read, not an hour later
    recipe.data.classes, recipe.data.categories = list(classes_of(recipe.data)), categories_of(recipe.data)
    guide = open_teacher(recipe) if "teacher" in recipe.uses else None
    space = open_space(recipe, folder) if "autoencoder" in recipe.uses else None
    reader = open_text(recipe, folder) if "text" in recipe.uses else None
    known = space.compressor if space else None, taught(recipe, guide) if guide else None
    method = build(copy.deepcopy(recipe), *known)
    check_pace(method, recipe.sample.steps, "sample.steps is {steps}")
    _check_scale(recipe, method)
    _check_files(method)
    needs = getattr(method, "needs", ())
    resumed = has_kept(folder)
    for note in mixed(recipe.data):
        warn(note)
    data, heldout = _data(recipe, needs, resumed, getattr(method, "mends", False), progress, warn)
    masks = _masks(recipe, progress) if MASK in recipe.data.condition else ()
    if resumed:
        _check_same(folder, _sets(data, heldout, masks), recipe.data.condition, warn)
    sets = _sets(data, heldout, masks)
    if space:
        data, heldout = (_latents(space, *of, progress) for of in ((data, "train"), (heldout, "val")))
    told = guide.teller if guide else _teller(recipe, data, folder, reader)
    if isinstance(data, Dataset) and isinstance(heldout, Dataset):
        data.teller = heldout.teller = told
        if masks:
            data.masks, heldout.masks = masks
    notes = data.notes if isinstance(data, Pairs) else masks[0].meta.notes if masks else ()
    for note in filter(None, (absent(heldout), *notes)):
        warn(note)
    fabric = _fabric(recipe.train)
    torch.manual_seed(recipe.seed)
    method = build(recipe, *known)
    _check(recipe, method, fabric.world_size)
    scored, judged = judge(method, recipe, heldout, fabric.device)
    cast(nn.Module, method).to(fabric.device)
    averaged = ema.averaged_copy(cast(nn.Module, method), method.ships).to(fabric.device)
    optimisers: dict[str, Optimizer] = {}
    for player, names in method.players.items():
        for name in names:
            part = cast(nn.Module, method)
            part.set_submodule(name, fabric.setup_module(part.get_submodule(name)))
        optimisers[player] = fabric.setup_optimizers(_adamw(recipe.train, networks(method, names)))
    watched = watch(method, recipe, heldout, fabric.device) if "critic" in method.players else None
    run = Run(
        recipe, folder, fabric, method, cast(Method, averaged), optimisers, data, heldout, scored, judged, watched
    )
    if run.is_first:
        folder.mkdir(parents=True, exist_ok=True)
        if space:
            keep_space(space, folder)
        if reader:
            keep_reader(reader, folder / READER)
        elif "text" in recipe.data.condition:
            save_words(folder / WORDS, told)
        recipe.save(folder / RECIPE)
        if not (resumed and (folder / TRAINING / DATA).exists()):
            fingerprint.save(folder / TRAINING / DATA, sets, recipe.data.condition)
    return run


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


def _teller(recipe: Recipe, data: Dataset | Pairs, folder: Path, reader: Reader | None) -> Teller:
    """What says what networks are told; of a run that goes on in `folder`, with the vocabulary there."""
    if "text" not in recipe.data.condition:
        return teller(recipe)
    if reader:
        return teller(recipe, reader=reader)
    assert isinstance(data, Dataset)  # what translates is told nothing: see `build`
    resumed = (folder / RECIPE).is_file() and (folder / WORDS).is_file()
    return teller(recipe, *(load_words(folder / WORDS) if resumed else learned(recipe, data.texts)))


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


def _check_scale(recipe: Recipe, method: Method) -> None:
    """UsageError for a network that makes images finer by another factor than the data were made coarser."""
    finer, coarser = getattr(method.config, "scale", None), scale(recipe.data.degrade)
    if finer not in (None, coarser):
        raise UsageError(
            f"method.scale is {finer} and data.degrade makes images {coarser} times smaller; both must be the same, "
            f"e.g. data.degrade=[{{name: downsample, factor: {finer}}}]"
        )


def _check_files(method: Method) -> None:
    """UsageError for a file that the method is to learn with and that is not there."""
    for key in getattr(method, "files", ()):
        path = getattr(method.config, key)
        if path and not Path(path).is_file():
            raise UsageError(
                f"method.{key}: there is no file {path}; nothing is downloaded: put it there, or leave it out"
            )


def _adamw(config: TrainConfig, nets: list[nn.Module]) -> Optimizer:
    betas = (config.betas[0], config.betas[1])
    parameters = [p for net in nets for p in net.parameters()]
    return AdamW(parameters, config.lr, betas, weight_decay=config.weight_decay, fused=True)


def _data(
    recipe: Recipe, needs: Sequence[str], resumed: bool, mends: bool, progress: Progress | None, warn: Warn
) -> tuple[Dataset | Pairs, Dataset | Pairs]:
    """The train split, and the val split that decides which weights are kept.

    Fills in what the recipe left to the data: codecs, classes, modality and spacing of what is written.
    """
    if recipe.data.a:
        return _sides(recipe, needs, resumed, mends, progress, warn)
    recipe.codec = _resolved(recipe, recipe.codec, "")
    data, heldout = _splits(recipe, recipe.codec, "", progress)
    _fill_output(recipe, data)
    return data, heldout


def _masks(recipe: Recipe, progress: Progress | None) -> tuple[Dataset, Dataset]:
    """The masks of both splits, as label maps whose codec the recipe then holds."""
    codec = resolve_codec(recipe.data, recipe.codec_mask, MASK)
    recipe.codec_mask = codec_config(codec)
    train, val = (
        build_masks(recipe.data, codec, split, _named(progress, f"caching {split} masks")) for split in ("train", "val")
    )
    return train, val


def _latents(space: Model, images: Dataset | Pairs, split: str, progress: Progress | None) -> Dataset:
    """What diffusion sees of these images where it works on latents."""
    assert isinstance(images, Dataset)  # what translates uses no autoencoder: see `build`
    return encoded(images, space.encode, latents_key(space), _named(progress, f"encoding {split} images"))


def _sides(
    recipe: Recipe, needs: Sequence[str], resumed: bool, mends: bool, progress: Progress | None, warn: Warn
) -> tuple[Pairs, Pairs]:
    """Both sides of a translation and what is beside a; fills in what images have in common, too.

    mends   whether b is a made better."""
    if not resumed:  # else as it was decided when the run began
        a, b, shared = resolve_codecs(recipe.data, recipe.codec, recipe.codec_b, mends)
        recipe.codec, recipe.codec_b = codec_config(a), codec_config(b)
        recipe.data.scale = "one" if shared else "two"
    recipe.codecs_beside = [_resolved(recipe, chosen, BESIDE + name) for name, chosen in recipe.beside]
    others = [(BESIDE + name, codec) for name, codec in recipe.beside]
    sides = [("a", recipe.codec), ("b", recipe.codec_b), *others]
    of_a, of_b, *beside = (_splits(recipe, codec, side, progress) for side, codec in sides)
    codecs = codec_of(recipe.codec), codec_of(recipe.codec_b)
    for note in () if resumed else _cut(recipe, (of_a[0], of_b[0]), mends):
        warn(note)
    recipe.seen_a, recipe.seen_b = (seen(*of, codec) for of, codec in zip((of_a, of_b), codecs, strict=True))
    _fill_output(recipe, of_b[0])
    train, val = (
        Pairs(a, b, recipe.data.paired, codecs, "body" in needs, rest)
        for a, b, *rest in zip(of_a, of_b, *beside, strict=True)
    )
    return train, val


def _cut(recipe: Recipe, train: tuple[Dataset, Dataset], mends: bool) -> list[str]:
    """What is to be said before training of values that codecs cut off, and of sides that have no common scale."""
    data, notes = recipe.data, []
    if mends and data.scale == "two" and "label" not in (recipe.codec.kind, recipe.codec_b.kind):
        ranges = " and ".join(
            f"{name} {_span(codec)}" for name, codec in ((data.a, recipe.codec), (data.b, recipe.codec_b))
        )
        notes.append(f"the sides have codecs of their own, {ranges}; if grey values mean the same, set data.scale=one")
    both_ways = "b2a" in getattr(named(recipe), "directions", ())
    for section, name, codec, side in (
        ("codec", data.a, recipe.codec, train[0]),
        ("codec_b", data.b, recipe.codec_b, train[1]),
    ):
        passed_on = codec.clip is False and data.one_scale
        if not side.meta.cut or passed_on or (section == "codec" and not both_ways):
            continue
        keep = f"{section}.kind=window {section}.low=... {section}.high=..."
        keep = f"{section}.kind=percentile {section}.low=0 {section}.high=100" if codec.kind == "percentile" else keep
        notes.append(
            f"results end at the limits of {name!r}, {_span(codec)}, beyond which {_share(side.meta.cut)} of its "
            f"values lie; {keep} keeps them"
        )
    return notes


def _span(codec: CodecConfig) -> str:
    what = "percentiles " if codec.kind == "percentile" else ""
    return f"{what}{codec.low:g} to {codec.high:g}" + (f" {codec.unit}" if codec.unit != "arbitrary" else "")


def _share(share: float) -> str:
    return f"{100 * share:.1f} %" if share >= 5e-4 else f"{1e6 * share:.3g} in a million"


def _resolved(recipe: Recipe, chosen: CodecConfig, side: str) -> CodecConfig:
    """The codec of one side, with what the recipe left open decided from its training images."""
    if chosen.kind != "auto" and (chosen.kind != "percentile" or chosen.default_limits):
        return chosen
    found = codec_config(resolve_codec(recipe.data, chosen, side))
    if side.startswith(BESIDE) and found.kind == "label":
        raise UsageError(f"data.beside: {side.removeprefix(BESIDE)} holds labels; leave it out, for grey values alone")
    return found


def _splits(recipe: Recipe, resolved: CodecConfig, side: str, progress: Progress | None) -> tuple[Dataset, Dataset]:
    """The train and the val split, of one side of a translation, in this codec."""
    codec, of = codec_of(resolved), f" of {side.removeprefix(BESIDE)}" if side else ""
    open_source(recipe.data, "val", side)  # a data set without held-out images is refused before train images are read
    data, heldout = (
        build_cache(recipe.data, codec, split, progress=_named(progress, f"caching {split} images{of}"), side=side)
        for split in ("train", "val")
    )
    return data, heldout


def _fill_output(recipe: Recipe, data: Dataset) -> None:
    recipe.output.modality = recipe.output.modality or data.modality
    recipe.output.spacing = recipe.output.spacing or list(data.spacing)
    recipe.output.size = list(data.content)


def _named(progress: Progress | None, what: str) -> Callable[[int, int], None] | None:
    return (lambda done, total: progress(what, done, total)) if progress else None


def save_run(run: Run) -> None:
    owned = [name for names in run.method.players.values() for name in names]
    # what no player owns has memories of its own
    children = [name for name, _ in cast(nn.Module, run.method).named_children()]
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
            cast(nn.Module, run.method).get_submodule(name).load_state_dict(weights)
        for name, weights in saved["averaged"].items():
            cast(nn.Module, run.averaged).get_submodule(name).load_state_dict(weights)
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


def alarm(step: int, sentence: str) -> str:
    """A line of alarms.txt."""
    return f"step {step}: {sentence}"


def open_log(run: Run) -> Log:
    columns = [*COLUMNS, *filter(None, [run.scored]), *getattr(run.method, "shows", ())]
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
