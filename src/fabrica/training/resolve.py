"""What a recipe leaves to the data, decided from the training images; the data themselves, opened."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from fabrica.codec import Codec
from fabrica.data import planning
from fabrica.data.cache import build_cache, build_masks
from fabrica.data.cases import Cases, build_cases
from fabrica.data.codecs import resolve_codec, resolve_codecs
from fabrica.data.contrasts import contrasts
from fabrica.data.dataset import Dataset
from fabrica.data.label_names import overlapping, renumbered, together
from fabrica.data.latents import encoded
from fabrica.data.pairs import Pairs
from fabrica.data.patches import Patches
from fabrica.data.sample import AUXILIARY, MASK
from fabrica.data.sources import open_source
from fabrica.errors import UsageError
from fabrica.io.masks import labelled
from fabrica.methods import named
from fabrica.model.compression import CompressionModel
from fabrica.progress import Progress, part
from fabrica.recipe.codecs import codec_config, codec_of
from fabrica.recipe.few import few_laid, told
from fabrica.recipe.found import Found, plan_in
from fabrica.recipe.plan import Plan, laid
from fabrica.recipe.schema import CodecConfig, DataConfig, FewConfig, Recipe
from fabrica.training.fingerprint import fingerprint
from fabrica.training.frozen import latents_key


def decide_few(recipe: Recipe) -> tuple[Recipe, str]:
    """The recipe, with its values for few pairs laid in where its training pairs are few, and what is to be said of
    that; "" where they are not, or where the recipe has no such values."""
    if not recipe.data.paired or recipe.few == FewConfig():
        return replace(recipe, few=FewConfig()), ""
    source = open_source(recipe.data, "train", "a")
    rows = source.manifest.rows if source.manifest else []
    patients = len({row.patient or row.id for row in rows}) if rows else source.count
    # of volumes that are learned slice by slice, nobody knows how many slices they have before they are read
    volumes = recipe.data.depth or any(row.dims == "3" for row in rows)
    pairs = 0 if volumes and len(recipe.data.size) == 2 else source.count
    said = told(recipe.few, patients, pairs)
    return (few_laid(recipe) if said else replace(recipe, few=FewConfig())), said


def decide_codecs(recipe: Recipe, found: Found) -> Found:
    """The codecs, and whether grey values of both sides mean the same, decided from a look at some training images."""
    data = found.data(recipe.data)
    if MASK in data.condition:
        found = replace(found, codec_mask=codec_config(resolve_codec(data, found.codec_mask, MASK)))
    if not data.a:
        return replace(found, codec=_resolved(data, found.codec, ""))
    a, b, shared = resolve_codecs(data, found.codec, found.codec_b, named(found.method).mends)
    auxiliary = [
        _resolved(data, chosen, AUXILIARY + name)
        for name, chosen in zip(data.auxiliary, found.codecs_auxiliary, strict=True)
    ]
    scale = "one" if shared else "two"
    return replace(found, codec=codec_config(a), codec_b=codec_config(b), scale=scale, codecs_auxiliary=auxiliary)


class Opened(NamedTuple):
    """Data to learn from and to judge by.

    sets    all that either is made of, by name, as it is known again when a run goes on.
    notes   what was left out or changed, a sentence each.
    found   with what is known of the images that are to be made.
    masks   of both splits, where networks are told them.
    """

    train: Any
    heldout: Any
    sets: dict[str, Dataset]
    notes: list[str]
    found: Found
    masks: tuple[Dataset | None, Dataset | None] = (None, None)


def open_sides(recipe: Recipe, found: Found, needs: Sequence[str], progress: Progress | None) -> Opened:
    """Both sides of a translation and what is auxiliary to a, as `Pairs`; found are modality, spacing, size, and what
    the images of each side have in common."""
    data = found.data(recipe.data)
    others = [(AUXILIARY + name, codec) for name, codec in zip(data.auxiliary, found.codecs_auxiliary, strict=True)]
    sides = [("a", found.codec), ("b", found.codec_b), *others]
    names = ["a", "b", *(f"beside {k + 1}" for k in range(len(others)))]  # as runs of before have kept them
    splits = [_splits(data, codec, side, progress) for side, codec in sides]
    of_a, of_b, *auxiliary = splits
    codecs = codec_of(found.codec), codec_of(found.codec_b)
    one, other = (fingerprint(*of, codec) for of, codec in zip((of_a, of_b), codecs, strict=True))
    train, val = (
        Pairs(a, b, data.paired, codecs, "body" in needs, rest)
        for a, b, *rest in zip(of_a, of_b, *auxiliary, strict=True)
    )
    sets = {
        f"{which} images ({name})": split[k]
        for k, which in enumerate(("training", "held-out"))
        for name, split in zip(names, splits, strict=True)
    }
    found = replace(_of_output(recipe, found, of_b[0]), fingerprint_a=one, fingerprint_b=other)
    return Opened(train, val, sets, list(train.notes), found)


def open_images(recipe: Recipe, found: Found, progress: Progress | None) -> Opened:
    """Images as `Dataset`, and their masks; found are modality, spacing, size."""
    train, heldout = _splits(found.data(recipe.data), found.codec, "", progress)
    sets, found = {"training images": train, "held-out images": heldout}, _of_output(recipe, found, train)
    if MASK not in recipe.data.condition:
        return Opened(train, heldout, sets, [absent(heldout)], found)
    masks = _masks(recipe, found, progress)
    sets |= dict(zip(("training masks", "held-out masks"), masks, strict=True))
    return Opened(train, heldout, sets, [absent(heldout), *masks[0].meta.notes], found, masks)


def absent(heldout: Dataset) -> str:
    """A sentence about a class that the held-out images lack, so that nothing judges it; "" if all are there."""
    labels = heldout.labels
    missing = [name for k, name in enumerate(heldout.classes) if labels is not None and not (labels == k).any()]
    if not missing:
        return ""
    return f"no held-out image shows {', '.join(missing)}: the weights are chosen without it; label or split anew"


def _masks(recipe: Recipe, found: Found, progress: Progress | None) -> tuple[Dataset, Dataset]:
    """The masks of both splits, as label maps."""
    codec, data = codec_of(found.codec_mask), found.data(recipe.data)
    train, val = (
        build_masks(data, codec, split, part(progress, f"caching {split} masks")) for split in ("train", "val")
    )
    return train, val


def encode_latents(space: CompressionModel, images: Dataset, split: str, progress: Progress | None) -> Dataset:
    """What diffusion sees of these images where it works on latents."""
    return encoded(images, space.encode, latents_key(space), part(progress, f"encoding {split} images"))


def cut_off(recipe: Recipe, found: Found, train: Pairs) -> list[str]:
    """What is to be said before training of values that codecs cut off, and of sides that have no common scale."""
    data, notes = found.data(recipe.data), []
    cls = named(found.method)
    mends, both_ways = cls.mends, "b2a" in cls.directions
    if mends and data.scale == "two" and "label" not in (found.codec.kind, found.codec_b.kind):
        ranges = " and ".join(
            f"{name} {_span(codec)}" for name, codec in ((data.a, found.codec), (data.b, found.codec_b))
        )
        notes.append(f"the sides have codecs of their own, {ranges}; if grey values mean the same, set data.scale=one")
    for section, name, codec, side in (
        ("codec", data.a, found.codec, train.a),
        ("codec_b", data.b, found.codec_b, train.b),
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


def _resolved(data: DataConfig, chosen: CodecConfig, side: str, common: bool = True) -> CodecConfig:
    """The codec of one side, with what the recipe left open decided from its training images: see `resolve_codec`."""
    if chosen.kind != "auto" and (chosen.kind != "percentile" or chosen.default_limits):
        return chosen
    decided = codec_config(resolve_codec(data, chosen, side, common))
    if side.startswith(AUXILIARY) and decided.kind == "label":
        raise UsageError(
            f"data.auxiliary: {side.removeprefix(AUXILIARY)} holds labels; leave it out, for grey values alone"
        )
    return decided


def _splits(data: DataConfig, decided: CodecConfig, side: str, progress: Progress | None) -> tuple[Dataset, Dataset]:
    """The train and the val split, of one side of a translation, in this codec."""
    codec, of = codec_of(decided), f" of {side.removeprefix(AUXILIARY)}" if side else ""
    open_source(data, "val", side)  # a data set without held-out images is refused before train images are read
    train, heldout = (
        build_cache(data, codec, split, progress=part(progress, f"caching {split} images{of}"), side=side)
        for split in ("train", "val")
    )
    return train, heldout


def _of_output(recipe: Recipe, found: Found, data: Dataset) -> Found:
    asked = recipe.output
    modality, spacing = asked.modality or data.modality, asked.spacing or list(data.spacing)
    return replace(found, modality=modality, spacing=spacing, size=list(data.content))


def decide_plan(recipe: Recipe, found: Found, progress: Progress | None) -> Found:
    """The plan of a segmenter, and its codecs, from all training images and their label maps."""
    seen, why = contrasts(recipe.data)
    found = replace(found, plan=replace(found.plan, contrasts=seen))
    data, count = found.data(recipe.data), part(progress, "looking at training images")
    labels = open_source(data, "train", "b")
    sources = {side: open_source(data, "train", side) for side in ("a", *(AUXILIARY + name for name in seen[1:]))}
    used = plan_in(Path(found.uses["plan"])) if "plan" in found.uses else None
    names = together(labels.names(k) for k in range(labels.count))
    known = {n: name for n, name in zip(used.numbers, used.names, strict=True) if name} if used else names
    looks: dict[str, list[planning.Look]] = {side: [] for side in sources}
    every = zip(labels.samples(), *(source.samples() for source in sources.values()), strict=True)
    for k, (label, *samples) in enumerate(every):
        drawn = renumbered(labelled(label.image), labels.names(k), known)
        for own, sample in zip(looks.values(), samples, strict=True):
            own += [] if sample.absent else [planning.looked(sample.image, drawn)]
        if count:
            count(k + 1, labels.count)
    width = int(found.method.get("width", 0)) or named(found.method).Config.width
    asked = recipe.data
    regions = asked.regions or overlapping(labels.columns())
    given: dict[str, Any] = {"size": asked.size, "spacing": asked.spacing, "batch": asked.batch}
    if used:
        source = found.uses["plan"]
        plan = planning.adopted(used, looks["a"], source=source, names=names, regions=asked.regions, **given)
    else:
        plan = planning.planned(looks["a"], names=names, regions=regions, width=width, **given)
    plan = replace(plan, contrasts=seen, reasons={**plan.reasons, **({"contrasts": why} if why else {})})
    chosen = [found.codec, *(found.codecs_auxiliary or [CodecConfig() for _ in seen[1:]])]
    codec, *others = (
        _planned_codec(data, one, side, own) for one, (side, own) in zip(chosen, looks.items(), strict=True)
    )
    numbers, overlap = tuple(laid(plan.regions) or plan.numbers), tuple(map(tuple, plan.regions.values()))
    codec_b = codec_config(Codec("label", classes=len(numbers), unit="label", numbers=numbers, regions=overlap))
    return replace(found, plan=plan, codec=codec, codec_b=codec_b, codecs_auxiliary=others, scale="two")


def _planned_codec(data: DataConfig, chosen: CodecConfig, side: str, looks: Sequence[planning.Look]) -> CodecConfig:
    """That of one contrast: in HU, what is labelled says which values matter; otherwise each image has its own
    percentiles, so that what is labelled is found whether a radiograph has 8 bits or 12."""
    if chosen.kind == "auto" and (window := planning.window(looks)):
        chosen = CodecConfig("window", *window, "HU")
    return _resolved(data, chosen, side, common=False)


def unshown(heldout: Cases, plan: Plan) -> str:
    """A sentence about labels that the held-out images lack, so that nothing judges them; "" if all are there."""
    shown = {k for case in range(len(heldout)) for k in heldout.places(case)}
    missing = [plan.names[k] or f"label {plan.numbers[k]}" for k in range(1, len(plan.numbers)) if k not in shown]
    if not missing:
        return ""
    return f"no held-out image shows {', '.join(missing)}: the weights are chosen without it; split anew, or add images"


def open_cases(recipe: Recipe, found: Found, needs: Sequence[str], progress: Progress | None) -> Opened:
    """Patches of images and of their label maps; found are modality and what the images have in common."""
    data, codec, plan = found.data(recipe.data), codec_of(found.codec), found.plan
    auxiliary = [codec_of(each) for each in found.codecs_auxiliary]
    open_source(data, "val", "a")
    train, val = (
        build_cases(data, codec, plan, split, auxiliary=auxiliary, progress=part(progress, f"caching {split} images"))
        for split in ("train", "val")
    )
    one = fingerprint(train, val, codec)  # type: ignore[arg-type]
    found = replace(found, modality="SEG", spacing=list(plan.spacing), size=plan.size, fingerprint_a=one)
    sets = {"training images": train, "held-out images": val}
    unlabelled, notes = None, [*dict.fromkeys([*train.meta.notes, *val.meta.notes, unshown(val, plan)])]
    if found.method.get("unlabelled"):
        told = part(progress, "caching unlabelled images")
        unlabelled = build_cases(data, codec, plan, "train", auxiliary=auxiliary, with_labels=False, progress=told)
        if not len(unlabelled):
            raise UsageError(
                "method.unlabelled is set, and every training image has a label map; leave it out, or add images "
                "without"
            )
        sets["unlabelled images"] = unlabelled
        notes = [f"{len(unlabelled)} training images have no label map: the critic alone says what is learned of them"]
    patches, held_out = Patches(train, plan, data.context, unlabelled), Patches(val, plan, data.context)
    return Opened(patches, held_out, sets, notes, found)  # type: ignore[arg-type]
