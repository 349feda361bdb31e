"""What a recipe leaves to the data, decided from the training images; the data themselves, opened."""

from __future__ import annotations

from collections.abc import Sequence

from fabrica.data.cache import build_cache, build_masks, resolve_codec, resolve_codecs
from fabrica.data.dataset import Dataset
from fabrica.data.latents import encoded
from fabrica.data.pairs import Pairs
from fabrica.data.sample import BESIDE, MASK
from fabrica.data.sources import open_source
from fabrica.errors import UsageError
from fabrica.methods import named
from fabrica.model.model import Model
from fabrica.progress import Progress, Warn, part
from fabrica.recipe.codecs import codec_config, codec_of
from fabrica.recipe.schema import CodecConfig, Recipe
from fabrica.training.fingerprint import seen
from fabrica.training.frozen import latents_key


def open_data(
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


def open_masks(recipe: Recipe, progress: Progress | None) -> tuple[Dataset, Dataset]:
    """The masks of both splits, as label maps whose codec the recipe then holds."""
    codec = resolve_codec(recipe.data, recipe.codec_mask, MASK)
    recipe.codec_mask = codec_config(codec)
    train, val = (
        build_masks(recipe.data, codec, split, part(progress, f"caching {split} masks")) for split in ("train", "val")
    )
    return train, val


def encode_latents(space: Model, images: Dataset | Pairs, split: str, progress: Progress | None) -> Dataset:
    """What diffusion sees of these images where it works on latents."""
    assert isinstance(images, Dataset)  # what translates uses no autoencoder: see `build`
    return encoded(images, space.encode, latents_key(space), part(progress, f"encoding {split} images"))


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
        build_cache(recipe.data, codec, split, progress=part(progress, f"caching {split} images{of}"), side=side)
        for split in ("train", "val")
    )
    return data, heldout


def _fill_output(recipe: Recipe, data: Dataset) -> None:
    recipe.output.modality = recipe.output.modality or data.modality
    recipe.output.spacing = recipe.output.spacing or list(data.spacing)
    recipe.output.size = list(data.content)
