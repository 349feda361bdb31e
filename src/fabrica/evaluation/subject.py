"""What is judged, and against what: synthetic images from a model or a folder, real images by split."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np

from fabrica import io
from fabrica.codec import Codec
from fabrica.conditioning.encoder import Known
from fabrica.conditioning.masks import Given
from fabrica.data.codecs import resolve_codec
from fabrica.data.find import walk
from fabrica.data.manifest import Manifest
from fabrica.data.manifest_cache import load_manifest
from fabrica.data.sample import ALL, MASK, NO_PICTURES, PHANTOM
from fabrica.data.sources import every_picture
from fabrica.errors import UsageError
from fabrica.evaluation.sets import Int, Sets, cached, room, some
from fabrica.image import Float32, Image
from fabrica.io.dicom.mark import is_dicom
from fabrica.progress import Progress
from fabrica.recipe.card import described
from fabrica.recipe.folder import read_log
from fabrica.recipe.schema import DataConfig

if TYPE_CHECKING:
    from fabrica.model.model import Model


MOST_CLASSES = 20
PICTURES = (*io.VOLUME_SUFFIXES, ".gz", ".png", ".jpg", ".jpeg", ".tif", ".tiff", ".npz")
LOOKED = 16  # synthetic images looked at to learn their scale


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
            kept = some(len(self.fixed.images), n, np.random.default_rng(seed))
            labels = None if self.fixed.labels is None else self.fixed.labels[kept]
            names = [self.fixed.names[k] for k in kept]
            return Drawn(self.fixed.images[kept], names, labels, given=self.fixed.given)
        assert self.model is not None  # a subject has one or the other
        conditions, known, labels = sets.asked(self.model.encoder, n, seed)
        began = time.perf_counter()
        images = self.model.sample_array(
            n, seed=seed, conditions=conditions, steps=steps, progress=tell, warn=lambda note: None
        )
        seconds = time.perf_counter() - began
        masks = cast(list[Given], conditions.get(MASK, []))
        return Drawn(images, [f"seed {seed + k}" for k in range(n)], labels, seconds, known, masks)


def open_subject(model: Model | Path | str, against: str | Path | None, tell: Progress) -> Subject:
    """A Model, the model in a folder, or a folder or manifest of synthetic images.

    Raises UsageError for images without `against`, and for anything that is none of these.
    """
    from fabrica.recipe.folder import RECIPE

    model = opened(model)
    if not isinstance(model, str | Path):
        return _of_model(model, against)
    path = Path(model)
    if against is None:
        raise UsageError(f"{path} holds images, not a model (no {RECIPE}); name the real ones: --against MANIFEST")
    return _of_images(path, str(against), tell)


def opened(model: Model | Path | str, warn: Callable[[str], None] | None = None) -> Model | Path | str:
    """The model of this name or in a folder, to be judged; what is one, or holds none, as it is. warn: see `load`."""
    from fabrica.model.opening import judged

    return judged(model, warn) if isinstance(model, str | Path) else model


def _of_model(model: Model, against: str | Path | None) -> Subject:
    from fabrica.recipe.folder import ALARMS

    recipe = model.recipe
    if not (against or recipe.data.source):  # a bundle's
        raise UsageError(f"{model.folder} does not say what it was trained on; name the real ones: --against MANIFEST")
    config = replace(model.data, source=str(against) if against else recipe.data.source, size=list(model.size))
    size = " × ".join(str(side) for side in config.size)
    facts = [
        ("about", recipe.about),
        ("method", model.method_name),
        ("images", f"{config.channels} channel{'s' * (config.channels > 1)}, {size}"),
        ("trained on", recipe.data.source),
        ("told about each image", described(recipe, model.found) or "nothing"),
        ("sampling", model.sampling),
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
        known = {(judged.root / each).resolve() for row in whole.rows for each in (row.path, *row.mask_files) if each}
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
    found = cached(config, codec, ALL, tell)
    kept = some(len(found), room(found.shape), np.random.default_rng(0))
    names = [found.ids[int(k)] for k in kept]
    labels = None
    if classes:
        label = {row.id: row.label for row in manifest.rows}
        labels = np.array([classes.index(label[name.rsplit("#", 1)[0]]) for name in names])
    return Drawn(found.read(kept), names, labels, given=len(found))
