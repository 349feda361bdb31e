"""Cases: images of any size with their label maps, at the spacing that a plan names, in a folder of the cache.

Each case is read a part at a time, so that neither its size nor how many there are costs memory.
"""

from __future__ import annotations

import hashlib
import json
from array import array
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fabrica import geometry
from fabrica.codec import ABSENT, Codec
from fabrica.data import sides
from fabrica.data import standardise as standard
from fabrica.data.augment import Int64
from fabrica.data.cache import once
from fabrica.data.dataset import SCALE, marks_of
from fabrica.data.label_names import renumbered
from fabrica.data.manifest_cache import cache_home
from fabrica.data.planning import ignored
from fabrica.data.sample import AUXILIARY, UNLABELLED, Sample
from fabrica.data.sources import Source, open_source
from fabrica.data.standardise import at_spacing, inner_size
from fabrica.errors import FabricaError, UsageError
from fabrica.geometry import faced, oriented, resample
from fabrica.image import Float32, Image, name
from fabrica.io.masks import labelled
from fabrica.io.uneven import evenly
from fabrica.progress import Count
from fabrica.recipe.plan import Plan
from fabrica.recipe.schema import DataConfig

FORMAT = 1  # raised when the layout of a folder changes
UNKNOWN = 255  # in label maps: nobody has said
PLACES = 2_000  # voxels of each class of a case that are remembered, to draw patches around
IMAGES, LABELS, META, PLACED = "images.i16", "labels.u8", "meta.json", "places.npy"

Uint8 = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Meta:
    """What a folder says of its cases.

    ids       of the cases; sizes: (D, H, W) of each, D = 1 for pictures.
    channels  of the images, all contrasts together; labelled: whether they have label maps.
    modality, spacing, extent, notes, cut   as `fabrica.data.dataset.Meta` has them.
    reach     the network value that the largest stored number stands for.
    undrawn   of each case the classes that nobody drew in it: what is background there may be one of them.
    marks     two sums of each case's stored values with random signs, see `Dataset.marks`.
    contrasts that each case has in its channels, one after the other, as many of them each; absent: of each case, which
              ones it has not: they are ABSENT throughout.
    """

    ids: list[str]
    sizes: list[list[int]]
    channels: int
    labelled: bool
    modality: str
    spacing: list[float]
    extent: list[float]
    notes: list[str]
    reach: float
    marks: list[list[int]]
    undrawn: list[list[int]]
    contrasts: int
    absent: list[list[int]]
    cut: float = 0.0


class Cases:
    """Images float32 (C, D, H, W) in [-1, 1] and label maps uint8 (D, H, W) of class numbers, UNKNOWN where nobody has
    said, in a folder written by `build_cases`."""

    labels = None  # no class belongs to a whole image

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.meta = Meta(**json.loads((folder / META).read_text(encoding="utf-8")))
        self.ids = self.meta.ids
        voxels = np.array([int(np.prod(size)) for size in self.meta.sizes])
        self._first = np.concatenate([[0], np.cumsum(voxels)])
        expected = {IMAGES: 2 * self.meta.channels, **({LABELS: 1} if self.meta.labelled else {})}
        for file, width in expected.items():
            if (found := (folder / file).stat().st_size) != width * self._first[-1]:
                raise FabricaError(f"{folder} is damaged: {file} has {found} bytes; delete it")
        self._places: npt.NDArray[np.int32] = np.load(folder / PLACED)

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def modality(self) -> str:
        return self.meta.modality

    @property
    def spacing(self) -> tuple[float, ...]:
        return tuple(self.meta.spacing)

    @property
    def marks(self) -> Int64:
        return np.array(self.meta.marks, dtype=np.int64).reshape(-1, 2)

    @property
    def shape(self) -> tuple[int, ...]:
        """(C, values): of all cases together, by which they are known again."""
        return self.meta.channels, int(self._first[-1])

    def size(self, k: int) -> tuple[int, ...]:
        """(D, H, W) of case k."""
        return tuple(self.meta.sizes[k])

    def places(self, k: int) -> dict[int, npt.NDArray[np.int32]]:
        """Class number -> some of its voxels (n, 3) in case k, for every class but the background that it shows."""
        own = self._places[self._places[:, 0] == k]
        return {int(label): own[own[:, 1] == label, 2:] for label in np.unique(own[:, 1])}

    def image(self, k: int, first: Sequence[int] = (), size: Sequence[int] = ()) -> Float32:
        """The part of case k that begins at `first` (D, H, W) and is of this size; all of it without."""
        scale = np.float32(self.meta.reach / SCALE)
        mapped = self._mapped(IMAGES, "<i2", k, self.meta.channels)
        values = np.asarray(mapped[(slice(None), *_part(first, size))], dtype=np.float32) * scale
        for contrast in self.meta.absent[k]:
            values[self.channels_of(contrast)] = ABSENT
        return values

    def channels_of(self, contrast: int) -> slice:
        """Which channels of an image show this contrast; 0 is side a."""
        each = self.meta.channels // self.meta.contrasts
        return slice(contrast * each, (contrast + 1) * each)

    def label(self, k: int, first: Sequence[int] = (), size: Sequence[int] = ()) -> Uint8:
        """Of the label map."""
        return np.array(self._mapped(LABELS, "u1", k, 1)[0][_part(first, size)])

    def read(self, indices: Sequence[int] | Int64) -> Float32:
        """One case (1, C, *S), whole, side a alone; pictures without their depth."""
        (k,) = indices
        values = self.image(int(k))[self.channels_of(0)]
        return values[None, :, 0] if values.shape[1] == 1 else values[None]

    def _mapped(self, file: str, kind: str, k: int, channels: int) -> npt.NDArray[Any]:
        """Mapped for one look: pages that stayed mapped would count as memory."""
        width = np.dtype(kind).itemsize * channels
        return np.memmap(
            self.folder / file, kind, "r", int(self._first[k]) * width, (channels, *self.size(k)), order="C"
        )


def _part(first: Sequence[int], size: Sequence[int]) -> tuple[slice, ...]:
    return tuple(slice(k, k + n) for k, n in zip(first, size, strict=True)) or (slice(None),) * 3


@dataclass(frozen=True)
class _Inputs:
    """What cases are made of: images and what lies beside them with their codecs, and their label maps."""

    images: Source
    codec: Codec
    auxiliary: Sequence[tuple[Source, Codec]]
    labels: Source | None

    @property
    def reach(self) -> float:
        return max(codec.reach for codec in (self.codec, *(codec for _, codec in self.auxiliary)))


def build_cases(
    config: DataConfig,
    codec: Codec,
    plan: Plan,
    split: str,
    *,
    auxiliary: Sequence[Codec] = (),
    with_labels: bool = True,
    progress: Count | None = None,
) -> Cases:
    """The images of one split with their label maps (sides a and b), or, not `with_labels`, those that have none; built
    once and kept in the cache.

    Images are encoded by the codec, turned as networks see them (see `fabrica.data.standardise`) and brought to the
    plan's spacing, label maps by whose share of a voxel is largest. The contrasts of `config.auxiliary`, each with its
    codec of `auxiliary`, are laid on the image's voxels and follow as channels; those that are not there are ABSENT.
    Raises as `fabrica.data.cache.build_cache`.
    """
    side = "a" if with_labels else UNLABELLED
    others = [open_source(config, split, AUXILIARY + name, of=side) for name in config.auxiliary]
    labels = open_source(config, split, "b") if with_labels else None
    inputs = _Inputs(open_source(config, split, side), codec, list(zip(others, auxiliary, strict=True)), labels)
    home = cache_home() / "datasets" / _key(inputs, plan, config)
    return once(home, lambda folder: _write(inputs, plan, config, folder, progress), Cases)


def _key(inputs: _Inputs, plan: Plan, config: DataConfig) -> str:
    code = b"".join(Path(str(m.__file__)).read_bytes() for m in (standard, geometry, sides))
    told = {
        "format": FORMAT,
        "code": hashlib.sha256(code + Path(__file__).read_bytes()).hexdigest(),
        "images": inputs.images.fingerprint(),
        "auxiliary": [(source.fingerprint(), asdict(codec)) for source, codec in inputs.auxiliary],
        "labels": inputs.labels.fingerprint() if inputs.labels else "",
        "split": inputs.images.split,
        "codec": asdict(inputs.codec),
        "plan": [plan.spacing, plan.size if not plan.spacing else len(plan.size), plan.numbers, plan.names],
        "fit": config.fit,
        "channels": config.channels,
    }
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:32]


def _write(inputs: _Inputs, plan: Plan, config: DataConfig, folder: Path, progress: Count | None) -> None:
    ids: list[str] = []
    sizes: list[list[int]] = []
    marks: list[list[int]] = []
    places: list[npt.NDArray[np.int32]] = []
    undrawn: list[list[int]] = []
    absent: list[list[int]] = []
    strange: Counter[int] = Counter()
    modalities: Counter[str] = Counter()
    extents = array("d")
    images, labels = inputs.images, inputs.labels
    beside = zip(*(source.samples() for source, _ in inputs.auxiliary), strict=True)
    with (folder / IMAGES).open("wb") as image_file, (folder / LABELS).open("wb") as label_file:
        for k, (sample, label, lacking) in enumerate(_pairs(images, labels, plan)):
            others = next(beside, ())
            values, classes = prepared(sample.image, label, inputs.codec, plan, config)
            stored = np.concatenate([values, *_beside(sample.image, others, inputs, values.shape, plan, config)])
            whole = np.rint(stored * np.float32(SCALE / inputs.reach))
            image_file.write(whole.astype("<i2").tobytes())
            known = [whole]
            if classes is not None:
                label_file.write(classes.tobytes())
                strange.update(_strange(label, labels, k, plan) if (classes == UNKNOWN).any() else ())
                places.append(_places(k, classes))
                known.append(classes[None] * np.float32(SCALE / UNKNOWN))
            ids.append(sample.id)
            undrawn.append(lacking)
            absent.append([n for n, other in enumerate(others, start=1) if other.absent])
            sizes.append(list(values.shape[1:]))
            marks.append(list(marks_of(np.concatenate([each.ravel() for each in known]))))
            modalities[sample.modality] += 1
            if sample.image.measured:
                extents.append(_extent(sample.image))
            if progress:
                progress(k + 1, images.count)
    np.save(folder / PLACED, np.concatenate(places) if places else np.empty((0, 5), dtype=np.int32))
    sources = [images, *(source for source, _ in inputs.auxiliary), *([labels] if labels else [])]
    unknown = [
        f"{count} of {len(ids)} label maps of split {images.split} hold the label {number}, which no training image "
        "has: nothing is learned of it, and its voxels are not judged"
        for number, count in sorted(strange.items())
    ]
    meta = Meta(
        ids,
        sizes,
        config.channels * (1 + len(inputs.auxiliary)),
        labels is not None,
        modalities.most_common(1)[0][0] if modalities else "",
        plan.spacing,
        [min(extents), max(extents)] if extents else [],
        list(dict.fromkeys([*(note for source in sources for note in source.notes), *unknown])),
        inputs.reach,
        marks,
        undrawn,
        1 + len(inputs.auxiliary),
        absent,
    )
    (folder / META).write_text(json.dumps(asdict(meta)), encoding="utf-8")


def _beside(
    image: Image,
    others: Sequence[Sample],
    inputs: _Inputs,
    shape: Sequence[int],
    plan: Plan,
    config: DataConfig,
) -> Iterator[Float32]:
    """Network values (C, D, H, W) of the contrasts beside an image, of this shape."""
    for other, (_, codec) in zip(others, inputs.auxiliary, strict=True):
        if other.absent:
            yield np.full(shape, ABSENT, dtype=np.float32)
        else:  # on the image's voxels, so turned like it, whatever its own file says
            yield prepared(image.with_data(other.image.data), None, codec, plan, config)[0]


def _pairs(images: Source, labels: Source | None, plan: Plan) -> Iterator[tuple[Sample, Image | None, list[int]]]:
    """Each image, its label map in the plan's numbers, and the classes that were not drawn."""
    if labels is None:
        yield from ((sample, None, []) for sample in images.samples())
        return
    for k, (sample, label) in enumerate(zip(images.samples(), labels.samples(), strict=True)):
        yield sample, *in_numbers(label.image, labels, k, plan)


def in_numbers(label: Image, labels: Source, k: int, plan: Plan) -> tuple[Image, list[int]]:
    """The label map that is number k of a source in the plan's numbers, and the classes that were not drawn in it."""
    names = {number: name for number, name in zip(plan.numbers, plan.names, strict=True) if name}
    own = labels.names(k)
    lacking = set(names.values()) - set(own.values()) if labels.organs(k) else set()
    return renumbered(labelled(label), own, names), [c for c, name in enumerate(plan.names) if name in lacking]


def prepared(
    image: Image, labels: Image | None, codec: Codec, plan: Plan, config: DataConfig
) -> tuple[Float32, Uint8 | None]:
    """Network values (C, D, H, W) of an image, and class numbers (D, H, W) of its label map on the same grid."""
    if image.channels != config.channels:
        raise UsageError(
            f"{name(image)} has {image.channels} channels; expected {config.channels} (data.channels): leave it out "
            "(data.where), convert it, or set data.channels"
        )
    if labels is not None and labels.size != image.size:
        raise UsageError(f"{name(image)} is {image.size} and its label map {labels.size}; expected the same voxels")
    limits = codec.limits(image.data)
    image, spacing = _turned(image, plan)
    values = codec.scaled(image.data, limits)
    values = values[:, None] if values.ndim == 3 else values
    dims = len(plan.size)
    size = values.shape[1:][-dims:]
    if plan.spacing:
        wanted = at_spacing(size, spacing, plan.spacing)
    else:
        wanted = list(inner_size(size, plan.size, config.fit, spacing))
    wanted = [*values.shape[1 : 4 - dims], *wanted]
    values = resample(values, wanted)
    if labels is None:
        return values, None
    turned = _turned(labels, plan)[0].data
    return values, classes_at(turned[:, None] if turned.ndim == 3 else turned, wanted, plan.numbers)


def _turned(image: Image, plan: Plan) -> tuple[Image, tuple[float, ...]]:
    """The image as networks see it, and its mm along the plan's axes (() where it knows none)."""
    order = "RAS" if len(plan.size) == 3 else "LPS"
    image = oriented(evenly(image), order) if len(image.size) == 3 else faced(image)
    return image, image.spacing[-len(plan.size) :] if image.measured else ()


def classes_at(labels: Float32, size: Sequence[int], numbers: Sequence[int]) -> Uint8:
    """A label map (1, D, H, W) of label numbers as class numbers (D, H, W) of another size: the class with the largest
    share of each voxel. Numbers that are not known are UNKNOWN."""
    found = np.full(labels.shape[1:], UNKNOWN, dtype=np.uint8)
    for k, number in enumerate(numbers):
        found[labels[0] == number] = k
    if tuple(size) == found.shape:
        return found
    best, most = np.full(tuple(size), UNKNOWN, dtype=np.uint8), np.zeros(tuple(size), dtype=np.float32)
    for k in np.unique(found):
        share = resample((found == k)[None].astype(np.float32), size)[0]
        more = share > most
        best[more], most[more] = k, share[more]
    return best


def _strange(label: Image | None, labels: Source | None, k: int, plan: Plan) -> set[int]:
    """The numbers in a label map that the plan does not know, but those that are called "ignore"."""
    if label is None or labels is None:
        return set()
    other = label.data[~np.isin(label.data, plan.numbers)]
    return {int(number) for number in np.unique(other)} - ignored(labels.names(k))


def _places(k: int, classes: Uint8) -> npt.NDArray[np.int32]:
    """(n, 5): case, class and voxel of up to PLACES voxels of each class but the background."""
    draw, rows = np.random.default_rng(k), []
    for label in np.setdiff1d(np.unique(classes), (0, UNKNOWN)):
        where = np.flatnonzero(classes == label)
        where = where if len(where) <= PLACES else draw.choice(where, PLACES, replace=False)
        voxels = np.stack(np.unravel_index(where, classes.shape), axis=1)
        rows.append(np.column_stack([np.full(len(voxels), k), np.full(len(voxels), label), voxels]))
    return np.concatenate(rows).astype(np.int32) if rows else np.empty((0, 5), dtype=np.int32)


def _extent(image: Image) -> float:
    axes = geometry.turn(image.affine, "RAS")[0][1:] if len(image.size) == 3 else (1, 2)
    return max(image.size[axis - 1] * image.spacing[axis - 1] for axis in axes)
