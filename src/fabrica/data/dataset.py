"""Dataset: standardised images on the disk, and the order in which training sees them."""

from __future__ import annotations

import json
import os
import weakref
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from fabrica.data.augment import Changes, Int64, changed
from fabrica.data.metadata import ABOUT
from fabrica.errors import FabricaError
from fabrica.image import Float32

SCALE = 32767  # [-1, 1] is stored as int16: a step of 1/32767, finer than 12-bit detectors
ANY_SEED = 0xFFFF_FFFF_FFFF_FFFF  # negative ones too
AVERAGED = 512  # images in the mean one
FREE = "float16"  # latents know no such limits, and are stored as they are
IMAGES, LABELS, MARKS, META = "images.i16", "labels.npy", "marks.npy", "meta.json"


class Strings:
    """Many short texts in one file, read one at a time, so that 100,000 of them cost no memory."""

    def __init__(self, folder: Path, name: str) -> None:
        self._offsets = np.load(folder / f"{name}.npy", mmap_mode="r")
        self._file = os.open(folder / f"{name}.txt", os.O_RDONLY)
        weakref.finalize(self, os.close, self._file)

    def __len__(self) -> int:
        return len(self._offsets) - 1

    def __getitem__(self, index: int) -> str:
        if not 0 <= index < len(self):
            raise IndexError(index)
        start, stop = int(self._offsets[index]), int(self._offsets[index + 1])
        return os.pread(self._file, stop - start, start).decode()

    def __iter__(self) -> Iterator[str]:
        return (self[k] for k in range(len(self)))


@dataclass(frozen=True)
class Meta:
    """What a dataset says of itself.

    shape     (C, *S).
    classes   the names of labels 0, 1, ...; () without condition.
    modality  the commonest one, DICOM's letters; "" if not known.
    spacing   mm between pixel centres, median over the images, in the order of S; () if not known.
    content   the middle part of S, (H, W) or (D, H, W), outside of which every image is only padding.
    extent    smallest and largest field of view in mm, the longer side of each image in the plane; () if not known.
    notes     what had to be left out or changed.
    stored    int16, a share of SCALE; or FREE.
    reach     of int16: the network value that SCALE stands for.
    cut       the share of the images' values that the codec cut off, 0 to 1.
    """

    count: int
    shape: tuple[int, ...]
    classes: tuple[str, ...]
    modality: str
    spacing: tuple[float, ...]
    content: tuple[int, ...]
    extent: tuple[float, ...] = ()
    notes: tuple[str, ...] = ()
    stored: str = "int16"
    reach: float = 1.0
    cut: float = 0.0


class Dataset:
    """Images as float32 (C, *S) in [-1, 1], beyond it where their codec does not clip, or their latents, in a folder
    written by `Writer`.

    Images are read at their place in one file as they are asked for (pread), never mapped or kept, so that
    memory does not grow with the number of images; the system's page cache makes it fast. Safe between threads.
    """

    def __init__(self, folder: Path) -> None:
        raw: dict[str, Any] = json.loads((folder / META).read_text(encoding="utf-8"))
        self.folder = folder
        told: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in raw.items()}
        self.meta = Meta(**told)
        self.labels: Int64 | None = np.load(folder / LABELS) if self.classes else None
        self.ids = Strings(folder, "ids")
        self.texts = Strings(folder, "texts")
        self.abouts = Strings(folder, "abouts")
        self._stride = 2 * int(np.prod(self.shape))
        size = (folder / IMAGES).stat().st_size
        if size != self._stride * len(self) or len(self.ids) != len(self):
            raise FabricaError(f"{folder} is damaged: {size} bytes for {len(self)} images; delete it")
        self._file = os.open(folder / IMAGES, os.O_RDONLY)
        weakref.finalize(self, os.close, self._file)

    def __len__(self) -> int:
        return self.meta.count

    @property
    def marks(self) -> Int64:
        """(N, 2): what each image is known by, sums of its stored values with random signs. Another image has other
        sums; another processor's rounding moves them by no more than `fabrica.data.fingerprint` allows."""
        found: Int64 = np.load(self.folder / MARKS)
        return found

    @property
    def shape(self) -> tuple[int, ...]:
        """(C, *S) of one image."""
        return self.meta.shape

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of labels 0, 1, ...; () without condition."""
        return self.meta.classes

    @property
    def modality(self) -> str:
        """DICOM's letters, "" if not known."""
        return self.meta.modality

    @property
    def spacing(self) -> tuple[float, ...]:
        """Median mm between pixel centres in the order of S; () if not known."""
        return self.meta.spacing

    @property
    def content(self) -> tuple[int, ...]:
        """The middle part of S outside of which every image is only padding."""
        return self.meta.content

    def read(self, indices: Sequence[int] | Int64) -> Float32:
        """The images at these indices: float32 (B, C, *S) in [-1, 1]."""
        raw = np.empty((len(indices), *self.shape), dtype=self.meta.stored)
        for row, index in zip(raw, indices, strict=True):
            if not 0 <= index < len(self):
                raise IndexError(f"image {index} of {len(self)}")
            if os.preadv(self._file, [row], int(index) * self._stride) != self._stride:
                raise FabricaError(f"{self.folder} has been cut short; delete it, and it is built again")
        unit = 1 if self.meta.stored == FREE else self.meta.reach / SCALE
        found: Float32 = np.multiply(raw, np.float32(unit), dtype=np.float32)
        return found

    def batch(self, seed: int, positions: Int64, changes: Changes) -> dict[str, npt.NDArray[Any]]:
        """The images at these positions of the endless stream, see `order`: "image" float32 (B, C, *S) in [-1, 1],
        changed, "index" int64 (B,) and, where images have one, "label" int64 (B,)."""
        indices = order(len(self), seed, positions)
        labels = {} if self.labels is None else {"label": self.labels[indices]}
        return {"image": changed(self.read(indices), seed, positions, changes), "index": indices, **labels}

    def about(self, index: int) -> tuple[str, ...]:
        """What is known of an image, one value for each of ABOUT; () where nothing was asked."""
        return tuple(self.abouts[index].split("\t")) if self.abouts[index] else ()

    def known(self, index: int) -> dict[str, str]:
        """All that is known of an image."""
        found = dict(zip(ABOUT, self.about(index), strict=False))
        label = "" if self.labels is None else self.classes[self.labels[index]]
        return {**found, "label": label, "text": self.texts[index]}


class Writer:
    """Writes a dataset image by image, in constant memory. Used as a context: it is whole when the block ends."""

    def __init__(self, folder: Path, stored: str = "int16", reach: float = 1.0) -> None:
        self.folder, self.stored, self.scale = folder, stored, SCALE / reach
        self.count = 0
        self._images = (folder / IMAGES).open("wb")
        self._texts = {name: (folder / f"{name}.txt").open("wb") for name in ("ids", "texts", "abouts")}
        self._offsets = {name: array("q", [0]) for name in self._texts}
        self.labels, self.marks = array("q"), array("q")
        self.shape: tuple[int, ...] = ()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for file in (self._images, *self._texts.values()):
            file.close()

    def add(self, values: Float32, id_: str, text: str, label: int, about: Sequence[str] = ()) -> None:
        """values (C, *S) in [-reach, reach], or latents; label -1 where there is none; about: as in ABOUT."""
        self.shape = values.shape
        whole = values if self.stored == FREE else np.rint(values * np.float32(self.scale))
        self._images.write(whole.astype(self.stored).tobytes())
        self.marks.extend(marks_of(whole) if self.stored != FREE else (0, 0))
        for name, value in (("ids", id_), ("texts", text), ("abouts", "\t".join(about))):
            blob = value.encode()
            self._texts[name].write(blob)
            self._offsets[name].append(self._offsets[name][-1] + len(blob))
        self.labels.append(label)
        self.count += 1

    def finish(self, meta: Meta) -> None:
        """Write what is known only at the end, and flush everything to the disk."""
        for name, offsets in self._offsets.items():
            np.save(self.folder / f"{name}.npy", np.asarray(offsets))
        np.save(self.folder / LABELS, np.asarray(self.labels))
        np.save(self.folder / MARKS, np.asarray(self.marks).reshape(-1, 2))
        (self.folder / META).write_text(json.dumps(asdict(meta)), encoding="utf-8")
        for file in (self._images, *self._texts.values()):
            file.flush()
        for path in self.folder.iterdir():
            descriptor = os.open(path, os.O_RDONLY)
            os.fsync(descriptor)
            os.close(descriptor)


def marks_of(whole: Float32) -> tuple[int, int]:
    """Two sums of whole numbers, each with random signs that depend on their number alone."""
    signs = _signs(whole.size)
    return int(whole.ravel() @ signs[0]), int(whole.ravel() @ signs[1])


@lru_cache(maxsize=4)
def _signs(count: int) -> npt.NDArray[np.float64]:
    return np.random.default_rng(count).integers(0, 2, (2, count)).astype(np.float64) * 2 - 1


def order(count: int, seed: int, positions: Int64) -> Int64:
    """Which of `count` images stands at each position of the endless stream."""
    epochs, places = np.divmod(positions, count)
    out = np.empty(len(positions), dtype=np.int64)
    for epoch in np.unique(epochs):
        chosen = epochs == epoch
        out[chosen] = _permutation(count, seed, int(epoch))[places[chosen]]
    return out


@lru_cache(maxsize=4)
def _permutation(count: int, seed: int, epoch: int) -> npt.NDArray[np.int64]:
    return np.random.default_rng([seed & ANY_SEED, epoch]).permutation(count)


def evenly(count: int, most: int) -> Int64:
    """The places of at most so many among `count`, from the first to the last."""
    return np.unique(np.linspace(0, count - 1, min(count, most)).astype(np.int64))


def mean_image(train: Dataset) -> Float32:
    """The mean of training images (of some of them, evenly spread), network values (C, *S)."""
    chosen = evenly(len(train), AVERAGED)
    total = np.zeros(train.shape, dtype=np.float64)
    for k in chosen:
        total += train.read([int(k)])[0]
    return (total / len(chosen)).astype(np.float32)
