"""What is judged, and against what: synthetic images from a model or a folder, real images by split."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np
import numpy.typing as npt

from fabrica import io
from fabrica.codec import Codec
from fabrica.conditions import Asked, Known, Teller, described
from fabrica.data.cache import build_cache, build_masks, resolve_codec
from fabrica.data.dataset import Dataset
from fabrica.data.find import walk
from fabrica.data.manifest import Manifest
from fabrica.data.masks import Given
from fabrica.data.sources import ALL, MASK, NO_PICTURES, PHANTOM, every_picture, load_manifest
from fabrica.errors import FabricaError, UsageError
from fabrica.evaluation.memorisation import GRIDS, shrunk
from fabrica.image import Float32, Image
from fabrica.io.dicom_mark import is_dicom
from fabrica.recipe import DataConfig
from fabrica.track import read_log

if TYPE_CHECKING:
    from fabrica.model import Model

Int = npt.NDArray[np.int64]
Progress = Callable[[str, int, int], None]

MOST_BYTES = 2**30  # held-out or synthetic images in memory; more are drawn at random down to this
MOST_TRAIN = 50_000  # training images searched for copies
MOST_CLASSES = 20
PICTURES = (*io.VOLUME_SUFFIXES, ".gz", ".png", ".jpg", ".jpeg", ".tif", ".tiff", ".npz")
LOOKED = 16  # synthetic images looked at to learn their scale
BLOCK = 256


@dataclass(frozen=True, eq=False)
class Drawn:
    """Synthetic images float32 (N, C, *S) in [-1, 1]. labels: places in Sets.classes. seconds: for all. known: what
    each was told, and by a text perhaps, see `Sets.asked`; masks: those that were told. given: of fixed images, how
    many there are in all."""

    images: Float32
    names: Sequence[str]
    labels: Int | None = None
    seconds: float | None = None
    known: Sequence[Known] = ()
    masks: Sequence[Given] = ()
    given: int = 0


@dataclass(frozen=True, eq=False)
class Subject:
    """What is judged: a model, or else fixed images, of which `unread` more could not be read. `config` and `codec` are
    those of the real images."""

    name: str
    line: str
    source: str
    against: str
    config: DataConfig
    codec: Codec
    facts: Sequence[tuple[str, str]]
    notes: Sequence[str] = ()
    model: Model | None = None
    fixed: Drawn | None = None
    unread: int = 0
    log: Sequence[Mapping[str, float]] = ()

    @property
    def window(self) -> str:
        """How the grey scale is to be read."""
        if self.codec.kind == "window":
            unit = "" if self.codec.unit == "arbitrary" else f" {self.codec.unit}"
            return f"black is {self.codec.low:g}{unit}, white is {self.codec.high:g}{unit}"
        if self.codec.kind == "percentile":
            return f"black and white are percentiles {self.codec.low:g} and {self.codec.high:g} of each image"
        return "one grey for each label"

    def draw(self, n: int, sets: Sets, seed: int, tell: Progress, steps: int | None = None) -> Drawn:
        """n synthetic images: by the model, told what held-out images are told, the classes as frequent as there; or
        those there are."""
        if self.fixed is not None:
            kept = _some(len(self.fixed.images), n, np.random.default_rng(seed))
            labels = None if self.fixed.labels is None else self.fixed.labels[kept]
            names = [self.fixed.names[k] for k in kept]
            return Drawn(self.fixed.images[kept], names, labels, given=self.fixed.given)
        assert self.model is not None  # a subject has one or the other
        told, known, labels = sets.asked(self.model.teller, n, seed)
        began = time.perf_counter()
        images = self.model.sample_array(n, seed=seed, told=told, steps=steps, progress=tell, warn=lambda note: None)
        seconds = time.perf_counter() - began
        masks = cast(list[Given], told.get(MASK, []))
        return Drawn(images, [f"seed {seed + k}" for k in range(n)], labels, seconds, known, masks)


@dataclass(frozen=True, eq=False)
class Sets:
    """Real images: `heldout` float32 (N, C, *S) in [-1, 1] in memory, the others on disk.

    train      the train split of what is judged against, None if it has none: these stand in for synthetic images.
    memory     what the model was trained on, None if it is not there: this is searched for copies, at the places
               `searched`. The same as train unless a model is judged against other data than its own.
    spacing    mm between pixel centres of the held-out images, in the order of S; () if not known.
    masks      the label maps (1, *S) of the held-out images, for a model that is told masks; () for others.
    """

    heldout: Float32
    heldout_names: Sequence[str]
    labels: Int | None
    classes: Sequence[str]
    split: str
    train: Dataset | None
    memory: Dataset | None
    searched: Int
    notes: Sequence[str] = ()
    known: Sequence[Known] = ()
    spacing: Sequence[float] = ()
    masks: Sequence[Given] = ()

    def asked(self, teller: Teller, n: int, seed: int) -> tuple[dict[str, Asked], Sequence[Known], Int | None]:
        """What n synthetic images are told: what held-out images are, one after the other in random order, or only
        their classes, then as frequent as there; what is known of these; and their labels. Of images that are told
        a text all is known that is known of the held-out ones, since it may say that; of others what they are told."""
        rng = np.random.default_rng(seed)
        if set(teller.names) <= {"label"}:
            if not teller.names or self.labels is None:
                return {}, (), None
            labels = rng.permutation(spread(self.labels, len(self.classes), n))
            names = [self.classes[k] for k in labels]
            return {"label": names}, [{"label": name} for name in names], labels
        places = np.concatenate([rng.permutation(len(self.known)) for _ in range(-(-n // len(self.known)))])[:n]
        known = [self.known[k] for k in places]
        if "text" not in teller.names:
            known = [{name: one[name] for name in teller.names if name in one} for one in known]
        return self.told(teller, places), known, None if self.labels is None else self.labels[places]

    def told(self, teller: Teller, places: Sequence[int] | Int) -> dict[str, Asked]:
        """All that is known of the held-out images at these places, as far as a model can be told it."""
        told: dict[str, Asked] = {
            name: [teller.legible(name, self.known[k].get(name, "")) for k in places]
            for name in teller.names
            if name != MASK
        }
        return told | ({MASK: [self.masks[k] for k in places]} if MASK in teller.names else {})

    def reference(self, n: int, seed: int) -> tuple[Float32, Int | None, Sequence[Known]]:
        """At most n training images, their labels, and all that is known of each, drawn at random, classes as frequent
        as held out."""
        if self.train is None:
            return self.heldout[:0], None, ()
        order = np.random.default_rng(seed).permutation(len(self.train))
        if self.labels is None or self.train.labels is None:
            chosen = np.sort(order[:n])
            return self.train.read(chosen), None, [self.train.known(int(k)) for k in chosen]
        wanted = np.bincount(spread(self.labels, len(self.classes), n), minlength=len(self.classes))
        found = self.train.labels[order]
        chosen = np.sort(np.concatenate([order[found == k][:count] for k, count in enumerate(wanted)]))
        known = [self.train.known(int(k)) for k in chosen]
        return self.train.read(chosen), self.train.labels[chosen], known

    def small(self, images: Float32) -> Float32:
        """Images at the largest size that the search for copies looks at."""
        return shrunk(images, GRIDS[images.ndim - 2][0])

    def memory_small(self, tell: Progress) -> Float32:
        """The training images that are searched, each at the size of `small`."""
        parts = []
        for start in range(0, len(self.searched), BLOCK):
            parts.append(self.small(self._read(self.searched[start : start + BLOCK])))
            tell("reading training images", min(start + BLOCK, len(self.searched)), len(self.searched))
        return np.concatenate(parts)

    def memory_images(self, places: Sequence[int]) -> Float32:
        """Full-size training images (N, C, *S) at these places of `searched`."""
        return self._read(self.searched[list(places)])

    def memory_name(self, place: int) -> str:
        """The id of the training image at this place of `searched`."""
        assert self.memory is not None  # nothing is searched without
        return self.memory.ids[int(self.searched[place])]

    def _read(self, indices: Int) -> Float32:
        assert self.memory is not None  # nothing is searched without
        return self.memory.read(indices)


def spread(labels: Int, classes: int, n: int) -> Int:
    """n labels, sorted, as frequent as in `labels` (N,), by largest remainders."""
    share = np.bincount(labels, minlength=classes) / len(labels) * n
    counts = np.floor(share).astype(np.int64)
    order = np.argsort(counts - share, kind="stable")
    counts[order[: n - int(counts.sum())]] += 1
    return np.repeat(np.arange(classes), counts)


def open_subject(model: Model | Path | str, against: str | Path | None, tell: Progress) -> Subject:
    """A Model, the model in a folder, or a folder or manifest of synthetic images.

    Raises UsageError for images without `against`, and for anything that is none of these.
    """
    from fabrica.folder import RECIPE
    from fabrica.model import Model

    model = opened(model)
    if isinstance(model, Model):
        return _of_model(model, against)
    path = Path(model)
    if against is None:
        raise UsageError(f"{path} holds images, not a model (no {RECIPE}); name the real ones: --against MANIFEST")
    return _of_images(path, str(against), tell)


def opened(model: Model | Path | str, warn: Callable[[str], None] | None = None) -> Model | Path | str:
    """The model in a folder or a bundle; what is a Model, or neither of these, as it is. warn: see `load`."""
    from fabrica import bundle
    from fabrica.folder import RECIPE
    from fabrica.model import Model, load

    if isinstance(model, Model) or not ((Path(model) / RECIPE).exists() or bundle.found(Path(model))):
        return model
    return load(model, warn=warn)


def _of_model(model: Model, against: str | Path | None) -> Subject:
    from fabrica.folder import ALARMS
    from fabrica.methods import Synthesiser

    recipe = model.recipe
    if not (against or recipe.data.source):  # a bundle's
        raise UsageError(f"{model.folder} does not say what it was trained on; name the real ones: --against MANIFEST")
    config = replace(recipe.data, source=str(against) if against else recipe.data.source, size=list(model.size))
    size = " × ".join(str(side) for side in config.size)
    facts = [
        ("about", recipe.about),
        ("method", str(recipe.method.get("name", ""))),
        ("images", f"{config.channels} channel{'s' * (config.channels > 1)}, {size}"),
        ("trained on", recipe.data.source),
        ("told about each image", described(recipe) or "nothing"),
        ("sampling", _sampling(model) if isinstance(model.method, Synthesiser) else ""),
        ("weights", model.hash),
    ]
    return Subject(
        name=model.name,
        line=f"A model judged against held-out images of {config.source}",
        source=str(model.folder),
        against=config.source,
        config=config,
        codec=model.codec,
        facts=[(name, value) for name, value in facts if value],
        notes=alarms(model.folder / ALARMS),
        model=model,
        log=read_log(model.folder / "log.csv"),
    )


def _sampling(model: Model) -> str:
    """How images are made, by default: of the recipe's values those that mean something to the method."""
    settings, choices = model.recipe.sample, model.choices
    said = f"{settings.sampler}, {settings.steps} steps" if "steps" in choices else "one pass"
    if "guidance" in choices and model.recipe.data.condition:
        said += f", guidance {settings.guidance:g}"
    if "truncation" in choices and settings.truncation:
        said += f", latents within {settings.truncation:g} SD (truncation)"
    return said


def alarms(path: Path) -> list[str]:
    """What training warned of, a line each, e.g. "step 450: the generator has collapsed"."""
    if not path.is_file():
        return []
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    return [f"during training, {line}" for line in lines if line.strip()]


def _of_images(path: Path, against: str, tell: Progress) -> Subject:
    whole = load_manifest(str(path))
    manifest = every_picture(whole)
    if not manifest.rows:
        raise UsageError(f"no image in {path} to judge; it lists {len(whole.rows)} of other kinds, such as masks")
    looked = [io.read(manifest.file(row), row.frame) for row in manifest.rows[:LOOKED]]
    classes = _common_classes(manifest, against)
    config = DataConfig(
        source=against,
        size=list(looked[0].size),
        channels=looked[0].channels,
        condition=["label"] if classes else [],
        classes=classes,
    )
    codec = resolve_codec(config)
    own, note = _own_codec(looked, codec)
    fixed = _all_images(replace(config, source=str(path), condition=[], classes=[]), own, manifest, classes, tell)
    return Subject(
        name=path.name or str(path),
        line=f"{len(fixed.images)} images judged against held-out images of {against}",
        source=str(path),
        against=against,
        config=config,
        codec=codec,
        facts=(),
        notes=[*([note] if note else []), *_not_judged(path, whole, manifest), *_fewer(fixed, manifest)],
        fixed=fixed,
        unread=len(whole.rejected),
    )


def _not_judged(path: Path, whole: Manifest, judged: Manifest) -> list[str]:
    """What lies among the images given and is not judged, a sentence a reason."""
    notes = []
    if whole.rejected:
        first, why = whole.rejected[0]
        one = len(whole.rejected) == 1
        many = "1 file given could" if one else f"{len(whole.rejected)} files given could"
        notes.append(f"{many} not be read and {'is' if one else 'are'} not judged, the first is {first}: {why}")
    if others := len(whole.rows) - len(judged.rows):
        kinds = ", ".join(sorted({row.kind for row in whole.rows if row.kind in NO_PICTURES}))
        notes.append(f"{others} of the files given are no pictures ({kinds}) and are not judged")
    if path.is_dir() and (path / "manifest.csv").is_file():
        known = {(judged.root / each).resolve() for row in whole.rows for each in (row.path, row.mask) if each}
        files = [file for file in walk(path) if not ({file.resolve(), file.parent.resolve()} & known)]
        if strangers := [file for file in files if file.suffix.lower() in PICTURES or is_dicom(file)]:
            notes.append(
                f"{len(strangers)} images in {path} are not in its manifest.csv and are not judged, the first is "
                f"{strangers[0].name}; to judge them, scan the folder: fabrica scan {path} -o OTHER.csv"
            )
    return notes


def _fewer(fixed: Drawn, manifest: Manifest) -> list[str]:
    """A sentence where not all images that were given fit in memory."""
    if len(fixed.images) >= fixed.given:
        return []
    return [f"{len(fixed.images)} of the {fixed.given} images given are judged, drawn at random, to fit in memory"]


def _common_classes(synthetic: Manifest, against: str) -> list[str]:
    """The classes of the real images if all images of both sides have one of them, else none."""
    if against.startswith(PHANTOM):
        return []
    real = [row for row in load_manifest(against).rows if row.split]
    trained = {row.label for row in real if row.split == "train"}
    labels = {row.label for row in (*real, *synthetic.rows)}
    return sorted(trained) if labels <= trained - {""} and 1 < len(trained) <= MOST_CLASSES else []


def _own_codec(looked: Sequence[Image], real: Codec) -> tuple[Codec, str]:
    """The real images' codec, unless the synthetic ones are plainly stored on another scale; then a note says so."""
    declared = looked[0].origin.get("range")
    if real.kind != "window" or real.unit == "HU" or declared is None:
        return real, ""
    low, high = (float(v) for v in declared)
    if (low, high) == (0.0, 65535.0):  # 16-bit files often hold fewer bits
        top = max(float(image.data.max()) for image in looked)
        high = next(float(2**bits - 1) for bits in range(8, 17) if top <= 2**bits - 1)
    eight_bits = tuple(declared) == (0, 255) and real.high != 255
    if low >= real.low and high <= real.high and not eight_bits:
        return real, ""
    note = (
        f"the synthetic images are stored from {low:g} to {high:g}, the real ones are read from {real.low:g} to "
        f"{real.high:g}; each set is read on its own scale"
    )
    return replace(real, low=low, high=high), note


def _all_images(config: DataConfig, codec: Codec, manifest: Manifest, classes: Sequence[str], tell: Progress) -> Drawn:
    """Every picture of a manifest, whatever its split; at random down to what fits in memory."""
    found = _cached(config, codec, ALL, tell)
    kept = _some(len(found), room(found.shape), np.random.default_rng(0))
    names = [found.ids[int(k)] for k in kept]
    labels = None
    if classes:
        label = {row.id: row.label for row in manifest.rows}
        labels = np.array([classes.index(label[name.rsplit("#", 1)[0]]) for name in names])
    return Drawn(found.read(kept), names, labels, given=len(found))


def _some(count: int, most: int, rng: np.random.Generator) -> Int:
    """At most `most` of 0 .. count - 1, drawn at random, in order."""
    return np.sort(rng.permutation(count)[:most])


def room(shape: Sequence[int]) -> int:
    """How many images (C, *S) may be in memory at once."""
    return max(64, MOST_BYTES // (4 * int(np.prod(shape))))


def open_sets(subject: Subject, split: str, seed: int, tell: Progress) -> Sets:
    """The real images: held out, to stand in, and to search for copies.

    Raises UsageError where neither `split` nor val (for test) has images.
    """
    if split not in ("val", "test"):
        raise UsageError(f"split is {split!r}; expected test or val: training images are no fair judge")
    config, notes = subject.config, []
    used = split
    if not _has(config, split):
        used = "val" if split == "test" else "test"
        notes.append(
            f"{config.source} has no {split} images, so its {used} images are used"
            + ("; they also chose the weights, which flatters the scores a little" if used == "val" else "")
        )
    heldout = _cached(config, subject.codec, used, tell)
    rng = np.random.default_rng(seed)
    kept = _some(len(heldout), room(heldout.shape), rng)
    if len(kept) < len(heldout):
        notes.append(f"{len(kept)} of {len(heldout)} held-out images are used, drawn at random, to fit in memory")
    train = _cached(config, subject.codec, "train", tell) if _has(config, "train") else None
    memory, note = _memory(subject, train, tell)
    notes += [note] if note else []
    total = len(memory) if memory else 0
    searched = _some(total, MOST_TRAIN, rng)
    if len(searched) < total:
        notes.append(f"copies were looked for in {len(searched)} of {total} training images, drawn at random")
    return Sets(
        heldout=heldout.read(kept),
        heldout_names=[heldout.ids[int(k)] for k in kept],
        labels=None if heldout.labels is None else heldout.labels[kept],
        classes=heldout.classes,
        split=used,
        train=train,
        memory=memory,
        searched=searched,
        notes=notes,
        known=[heldout.known(int(k)) for k in kept],
        spacing=heldout.spacing,
        masks=_masks(subject, used, kept, tell) if MASK in config.condition else (),
    )


def _masks(subject: Subject, split: str, kept: Int, tell: Progress) -> list[Given]:
    """The label maps of these images of a split; None where there is none."""
    from fabrica.folder import codec_of

    assert subject.model is not None  # nothing else is told masks
    codec = codec_of(subject.model.recipe.codec_mask)
    found = build_masks(subject.config, codec, split, lambda done, total: tell(f"caching {split} masks", done, total))
    masks: list[Given] = []
    for k in kept:
        values = found.read([int(k)])[0]
        masks.append(Image(codec.decode(values), unit="label") if (values > 0).any() else None)
    return masks


def _memory(subject: Subject, train: Dataset | None, tell: Progress) -> tuple[Dataset | None, str]:
    """The images a model was trained on: its own, also when it is judged against others; and a note on that."""
    model = subject.model
    own = replace(model.recipe.data, size=list(model.size)) if model else subject.config
    if not own.source:  # a bundle's
        return None, "the model does not say what it was trained on"
    if own.source == subject.against or (
        PHANTOM not in own.source + subject.against and Path(own.source).resolve() == Path(subject.against).resolve()
    ):
        return train, ""
    try:
        memory = _cached(own, subject.codec, "train", tell)
    except FabricaError as error:
        return None, f"the model's own training images are not there ({error})"
    return memory, f"copies were looked for in the model's own training images, {own.source}"


def _has(config: DataConfig, split: str) -> bool:
    if config.source.startswith(PHANTOM):
        return True
    return bool(load_manifest(config.source).select(split=split, **config.where).rows)


def _cached(config: DataConfig, codec: Codec, split: str, tell: Progress) -> Dataset:
    return build_cache(config, codec, split, progress=lambda done, total: tell(f"caching {split} images", done, total))
