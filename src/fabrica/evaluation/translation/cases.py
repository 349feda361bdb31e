"""The test images of a translation, read one at a time: both sides on one grid where there are pairs, and the body."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from fabrica import io
from fabrica.data.body import body, threshold
from fabrica.data.sample import AUXILIARY, PHANTOM, Sample
from fabrica.data.sources import Source, open_source
from fabrica.errors import UsageError
from fabrica.image import Bools, Image
from fabrica.io.grids import on_grid
from fabrica.model.translation import TranslationModel
from fabrica.recipe.schema import DataConfig

SIDES = ("a", "b")


@dataclass(frozen=True, eq=False)
class Case:
    """One test image: `images` by side, "a" and "b" on one grid in physical units, or one of them where there are no
    pairs. body: bool (*S); declared: whether it is the manifest's mask, not what is brighter than air. beside: by
    contrast, what the patient has of those that the model sees beside a."""

    id: str
    patient: str
    images: Mapping[str, Image]
    body: Bools
    declared: bool
    auxiliary: Mapping[str, Image] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Cases:
    """Test images of a model: `sources` by side, `beside` by contrast in the same order, and which are judged."""

    model: TranslationModel
    sources: Mapping[str, Source]
    chosen: Sequence[int]
    auxiliary: Mapping[str, Source] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.chosen)

    def read(self, places: Sequence[int] | None = None) -> Iterator[Case]:
        """All of them, or those at these places, decoded one after the other."""
        wanted = [self.chosen[k] for k in (range(len(self)) if places is None else places)]
        samples = [source.samples(wanted) for source in self.sources.values()]
        others = {name: source.samples(wanted) for name, source in self.auxiliary.items()}
        for k, found in zip(wanted, zip(*samples, strict=True), strict=True):
            case = self._case(k, dict(zip(self.sources, found, strict=True)))
            auxiliary = {name: next(stream) for name, stream in others.items()}
            yield replace(case, auxiliary={name: s.image for name, s in auxiliary.items() if not s.absent})

    def _case(self, k: int, samples: Mapping[str, Sample]) -> Case:
        images = {side: sample.image for side, sample in samples.items()}
        first = next(iter(samples))
        manifest = self.sources[first].manifest
        seen = self._seen_body(images)
        given = self._declared(k, images)
        # a mask that covers little of the patient marks a lesion or an organ: it is no body mask
        declared = given is not None and 2 * int((given & seen).sum()) >= int(seen.sum())
        inside = given if given is not None and declared else seen
        patient = "" if manifest is None else manifest.rows[k].patient
        return Case(samples[first].id, patient or samples[first].id, images, inside, declared)

    def _seen_body(self, images: Mapping[str, Image]) -> Bools:
        """What is brighter than air, in b if it is an image: CT tells air from the patient best."""
        codecs = {"a": self.model.codec, "b": self.model.codec_b}
        for side in reversed(SIDES):
            if side in images and codecs[side].kind != "label":
                return body(codecs[side].encode(images[side]), threshold(codecs[side]))
        labels: Bools = next(iter(images.values())).data[0] > 0
        return labels if labels.any() else np.ones_like(labels)

    def _declared(self, k: int, images: Mapping[str, Image]) -> Bools | None:
        """The mask that the manifest names beside an image, on the grid of the case."""
        if any(source.which == "mask" for source in self.sources.values()):
            return None
        grid = next(iter(images.values()))
        for source in self.sources.values():
            if source.manifest is not None and (row := source.manifest.rows[k]).mask:
                path = source.manifest.file(replace(row, path=row.mask))
                image = (io.read_mask if path.is_dir() else io.read)(path, row.mask_frame)
                mask: Bools = on_grid(image, grid, labels=True).data[0] > 0
                return mask
        return None


@dataclass(frozen=True, eq=False)
class HeldOutCases:
    """What a translator is judged on. cases: by direction, the same for both where there are pairs."""

    config: DataConfig
    split: str
    cases: Mapping[str, Cases]
    paired: bool
    notes: Sequence[str]


def directions(model: TranslationModel) -> tuple[str, ...]:
    """ "a2b", and "b2a" where the model ships it."""
    return model.method.directions


def restores(model: TranslationModel, direction: str = "a2b") -> bool:
    """Whether this direction makes degraded images what they were, or one's own worse ones better."""
    data = model.data
    return direction == "a2b" and (data.restores or (data.one_scale and model.method.mends))


def learnt(model: TranslationModel, held_out: HeldOutCases, seed: int, n: int) -> tuple[Cases, str]:
    """At most n pairs that are not judged, and their split: val, else train; the judged ones where neither has any."""
    for split in ("val", "train"):
        if (
            split != held_out.split
            and has_sides(held_out.config, split)
            and (pair := _pairs(model, held_out.config, split)[0])
        ):
            return Cases(model, pair, _some(pair["a"].count, n, seed)), split
    judged = held_out.cases["a2b"]
    return replace(judged, chosen=judged.chosen[:n]), held_out.split


def open_cases(model: TranslationModel, against: str, split: str, n: int | None, seed: int) -> HeldOutCases:
    """The images of `split`, or of val with a note where test has none; at most n of them, drawn at random.

    Raises UsageError where neither has images of both sides.
    """
    if split not in ("val", "test"):
        raise UsageError(f"split is {split!r}; expected test or val: training images are no fair judge")
    if n is not None and n < 1:
        raise UsageError(f"asked for {n} test images; expected at least 1")
    config = replace(model.data, source=against)
    notes = []
    used = split
    if not has_sides(config, split):
        used = "val" if split == "test" and has_sides(config, "val") else split
    if used != split:
        notes.append(
            f"{against} has no {split} images of both sides, so its {used} images are used; they also chose "
            "the weights, which flatters the scores a little"
        )
    pair, note = _pairs(model, config, used)
    notes += [note] if note else []
    if pair:
        auxiliary, said = _auxiliary(config, used)
        notes += [*pair["a"].notes, *said]
        both = Cases(model, pair, _some(pair["a"].count, n, seed), auxiliary)
        return HeldOutCases(config, used, dict.fromkeys(directions(model), both), True, notes)
    alone = replace(config, paired=False)
    cases = {}
    for direction in directions(model):
        source = open_source(alone, used, direction[0])
        cases[direction] = Cases(model, {direction[0]: source}, _some(source.count, n, seed))
    return HeldOutCases(alone, used, cases, False, notes)


def has_sides(config: DataConfig, split: str) -> bool:
    """Whether this split has images of both sides."""
    try:
        return all(open_source(replace(config, paired=False), split, side).count for side in SIDES)
    except UsageError:
        return False


def _auxiliary(config: DataConfig, split: str) -> tuple[dict[str, Source], list[str]]:
    """What the model sees beside a, as far as it is there; and notes on what is not."""
    found, notes = dict[str, Source](), list[str]()
    for name in config.auxiliary:
        try:
            found[name] = open_source(config, split, AUXILIARY + name)
            notes += found[name].notes
        except UsageError as error:
            notes.append(f"{error}: the model does without")
    return found, notes


def _pairs(model: TranslationModel, config: DataConfig, split: str) -> tuple[dict[str, Source] | None, str]:
    """Both sides in the same order; or None, and why there are no pairs."""
    try:
        found = {side: open_source(replace(config, paired=True), split, side) for side in SIDES}
        next(Cases(model, found, [0]).read())
    except UsageError as error:
        if not has_sides(config, split):
            raise
        return None, f"there are no pairs, so no image can be compared with the true one ({error})"
    guessed = not config.paired and not config.source.startswith(PHANTOM)
    note = "the model did not learn from pairs; which test images belong together is read from the manifest"
    return found, note * guessed


def _some(count: int, n: int | None, seed: int) -> list[int]:
    order = np.random.default_rng(seed).permutation(count)[: count if n is None else n]
    return sorted(int(k) for k in order)
