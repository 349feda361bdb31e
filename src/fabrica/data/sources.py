"""Where training images come from: a manifest, a folder scanned on the fly, or phantoms drawn on the fly."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import astuple, dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np

from fabrica import io
from fabrica.data import degradations, degrade, sides
from fabrica.data.degrade import degraded
from fabrica.data.label_names import labels_in
from fabrica.data.manifest import Manifest, Row
from fabrica.data.manifest_cache import hashed, load_manifest
from fabrica.data.masks import as_labels
from fabrica.data.metadata import ABOUT, about
from fabrica.data.mixtures import mixtures
from fabrica.data.phantom_source import check_phantom, phantom_code
from fabrica.data.sample import ALL, AUXILIARY, FIRST_SEED, MASK, NO_PICTURES, PHANTOM, UNLABELLED, Sample
from fabrica.errors import UsageError
from fabrica.image import Float32, Image
from fabrica.io.grids import on_grid
from fabrica.phantoms import mri
from fabrica.physics import kspace, radiography, tomography
from fabrica.recipe.schema import DataConfig

PHYSICS = (degrade, degradations, kspace, mri, radiography, tomography)  # the code that makes images worse
TELLS_UNIT = ("dicom", "phantom", "synthetic", "raster")  # formats that say so where values are HU
HELD_OUT = 64  # phantoms in each split other than train, or more
LOOKED = 2**20  # values looked at for a unit
BELOW_AIR = -1150.0  # HU: air is -1000, and noise


@dataclass(frozen=True)
class Source:
    """The images of one split: rows of a manifest, or `count` phantoms; of a translation, those of one side.

    side   "a", "b", or "" where nothing is translated. To restore, a is b after `config.degrade`, with noise that
           depends on the split and the image's number alone; BESIDE and a name for a contrast beside a; MASK for what
           images are told.
    grid   b of pairs: the rows of a, on whose voxels the images are laid; beside a: those of b to restore, else of a;
           of MASK: the images.
    absent beside a, and of MASK: which images there are none of.
    notes  what had to be left out.
    """

    config: DataConfig
    split: str
    manifest: Manifest | None
    count: int
    side: str = ""
    grid: Sequence[Row] = ()
    notes: Sequence[str] = ()
    absent: frozenset[int] = frozenset()

    def samples(self, chosen: range | list[int] | None = None) -> Iterator[Sample]:
        """Read or draw the images, one at a time; `chosen` picks some by number.

        Raises ReadError for files that cannot be read."""
        numbers = range(self.count) if chosen is None else chosen
        for k in numbers:
            sample = self._draw(k) if self.manifest is None else self._row(self.manifest, k)
            if self.side == "a" and self.config.restores:
                worse = degraded(sample.image, self.config.degrade, FIRST_SEED[self.split] + k)
                sample = replace(sample, image=worse)
            yield sample

    @property
    def which(self) -> str:
        """What the recipe calls this side: a domain, "mask", "image"; "" where nothing is translated. To restore, both
        sides are b."""
        if self.side == MASK:
            return MASK
        if self.side.startswith(AUXILIARY):
            return self.side.removeprefix(AUXILIARY)
        a = self.config.b if self.config.restores else self.config.a
        if self.side == UNLABELLED:
            return a
        return {"a": a, "b": self.config.b}.get(self.side, "")

    def _row(self, manifest: Manifest, k: int) -> Sample:
        row = manifest.rows[k]
        if self.which == MASK and k not in self.absent and _only_mask(manifest.file(row)):
            grid = _read(manifest, self.grid[k]).image if self.grid else None
            sample = Sample(
                row.id, io.read_mask(manifest.file(row), row.frame, grid), row.label, row.text, row.modality
            )
            return self._mask(sample, manifest, k) if self.side == MASK else sample
        sample = _read(manifest, row)
        if self.side == MASK:
            return self._mask(sample, manifest, k)
        if k in self.absent:
            empty = sample.image.with_data(np.zeros_like(sample.image.data))
            return replace(sample, image=empty, absent=True)
        if not self.grid:
            return sample
        grid = _read(manifest, self.grid[k]).image
        return replace(sample, image=on_grid(sample.image, grid, self.which == "mask"))

    def _mask(self, sample: Sample, manifest: Manifest, k: int) -> Sample:
        """The label map of image k on its voxels, and of its kind, so that both are standardised alike."""
        if k in self.absent:
            empty = Image(np.zeros_like(sample.image.data[:1]), sample.image.affine, "label", sample.image.origin)
            return replace(sample, image=empty, absent=True)
        grid = _read(manifest, self.grid[k]).image
        labels = on_grid(as_labels(sample.image), grid, labels=True)
        origin = {**labels.origin, "format": grid.origin.get("format", "")}
        return replace(sample, image=labels.with_data(labels.data, affine=grid.affine, origin=origin))

    def names(self, k: int) -> dict[int, str]:
        """What the numbers of label map k are called, as far as the manifest says."""
        return labels_in(self.manifest.rows[k].mask_labels) if self.manifest else {}

    def columns(self) -> list[str]:
        """What the manifest says of the numbers of all label maps, as it says it."""
        return [row.mask_labels for row in self.manifest.rows] if self.manifest else []

    def organs(self, k: int) -> bool:
        """Whether label map k is a folder of one file an organ: what has no file there was not drawn."""
        return self.manifest is not None and self.manifest.file(self.manifest.rows[k]).is_dir()

    def fingerprint(self) -> str:
        """Changes when any image would."""
        worse = f"{self.config.degrade} {_physics_code()}" if self.side == "a" and self.config.restores else ""
        if self.manifest is None:
            drawn = f"{self.which} {self.config.depth} {self._first()}" if self.side else str(self.config.depth)
            return f"{self.config.source} {self.count} {self.split} {drawn} {phantom_code()} {worse}"
        told = f"{self.manifest.root.absolute()} {len(self.grid)} {self.which == 'mask'} {worse}"
        told += f" {sorted(self.absent)}" if self.absent else ""
        digest = hashlib.sha256(told.encode(errors="surrogateescape"))
        stamps: dict[str, list[int]] = {}
        for row in (*self.manifest.rows, *self.grid):
            several = row.frame if "|" in row.frame else ""
            which = f"{row.path} {several}"
            if which not in stamps:
                path = self.manifest.file(row)
                files = [path / name for name in several.split("|")] if several else io.files_of(path)
                stats = [file.stat() for file in (sorted(path.iterdir()) if path.is_dir() and not several else files)]
                stamps[which] = [number for stat in stats for number in (stat.st_size, stat.st_mtime_ns)]
            digest.update(json.dumps([*astuple(row), *stamps[which]]).encode())
        return digest.hexdigest()

    def _first(self) -> int:
        """The seed of the first phantom. The sides of a translation without pairs show other patients."""
        return FIRST_SEED[self.split] + (500_000_000 if self.side == "b" and not self.config.paired else 0)

    def _draw(self, k: int) -> Sample:
        from fabrica.phantoms.chest.chest import chest
        from fabrica.phantoms.head.head import head

        _, kind, *contrast = self.config.source.split(":")
        seed, size = self._first() + k, max(self.config.size[-2:])
        if kind == "chest":
            drawn = chest(seed, size)
            said, image = tuple(about(drawn.labels).values()), drawn.organs if self.side == MASK else drawn.image
            return Sample(f"chest-{seed}", image, drawn.label, drawn.text, "DX", about=said)
        slices = self.config.size[0] if len(self.config.size) == 3 else self.config.depth or None
        wanted, _, scanner = (self.which or contrast[0]).partition("@")
        patient = head(seed, size, slices, contrasts=[] if wanted == "mask" else [wanted], scanner=scanner or "A")
        image = patient.tissue if wanted == "mask" else patient.images[wanted]
        label = "tumour" if patient.labels["tumour"] else "healthy"
        return Sample(f"head-{seed}", image, label, "", str(image.origin.get("modality", "")))


def open_source(config: DataConfig, split: str, side: str = "", of: str = "a") -> Source:
    """The images of this split that the recipe asks for; of a translation, those of side "a" or "b", or of BESIDE and
    a contrast's name; of MASK, the label maps beside them; of UNLABELLED, those of a that have no pair. Split ALL: see
    `every_picture`. of: UNLABELLED for a contrast beside these.

    Raises UsageError for sources that do not exist, splits without images, patients in two splits.
    """
    degrade.check(config.degrade)
    if config.source.startswith(PHANTOM):
        check_phantom(config)
        count = config.count if split == "train" else max(HELD_OUT, config.count // 10)
        return Source(config, split, None, count, side)
    if "split" in config.where:
        raise UsageError("data.where cannot choose the split; each use of the data has its own")
    whole = load_manifest(config.source)
    if split == ALL:
        chosen = every_picture(whole)
        return Source(config, split, chosen, len(chosen.rows))
    chosen = whole.select(split=split, **config.where)
    if side and side != MASK:
        return _open_side(config, whole, chosen, split, side, of)
    if not chosen.rows:
        there = ", ".join(f"{s} {len(whole.select(split=s).rows)}" for s in ("train", "val", "test"))
        where = "".join(f", {key} = {value}" for key, value in config.where.items())
        raise UsageError(
            f"{config.source} has no image in split {split}{where}; it has {there} in all: "
            "scan more patients, or change the split or data.where"
        )
    if side == MASK:
        return _open_masks(config, chosen, split)
    return Source(config, split, chosen, len(chosen.rows))


def every_picture(manifest: Manifest) -> Manifest:
    """All rows that show something, whatever their split: what is to be judged is judged whole, copies and all."""
    rows = [row for row in manifest.rows if row.kind not in NO_PICTURES]
    missing = [row.path for row in rows if not manifest.file(row).exists()]
    if missing:
        raise UsageError(
            f"{len(missing)} images of the manifest are missing, the first is {manifest.root / missing[0]}"
        )
    return Manifest(rows, manifest.root, manifest.notes, manifest.rejected, manifest.files)


def mixed(config: DataConfig) -> list[str]:
    """How the training images that one network is to learn differ from one another, see `mixtures`."""
    if config.source.startswith(PHANTOM):
        return []
    rows = load_manifest(config.source).select(split="train", **config.where).rows
    sides_ = (config.a.casefold(), config.b.casefold())
    of_sides = [row for row in rows if row.domain.casefold() in sides_] if config.a else []
    return mixtures(of_sides or rows)


def _open_masks(config: DataConfig, images: Manifest, split: str) -> Source:
    """The masks of these images, in their order. Images that have none are kept: the network learns to do without."""
    absent = frozenset(k for k, row in enumerate(images.rows) if not row.mask)
    if split == "train" and len(absent) == len(images.rows):
        raise UsageError(
            f"data.condition names mask, and no training image of {config.source} has one: name its file in a column "
            "`mask` of the manifest, or leave mask out"
        )
    own = [
        row if k in absent else replace(row, path=row.mask, frame=row.mask_frame) for k, row in enumerate(images.rows)
    ]
    Manifest([row for k, row in enumerate(own) if k not in absent], images.root).check()
    notes = [f"{len(absent)} of {len(own)} images have no mask: kept, without it"] * bool(absent)
    return Source(config, split, Manifest(own, images.root), len(own), MASK, images.rows, notes, absent)


def _open_side(config: DataConfig, whole: Manifest, chosen: Manifest, split: str, side: str, of: str) -> Source:
    """One side of a translation. Pairs come in the order of a; what has no partner is left out with a note."""
    found = {}
    for each, which in (("a", config.b if config.restores else config.a), ("b", config.b)):
        sides.side(whole, which, config.source)  # a side that is nowhere is told from one that has none in this split
        try:
            found[each] = sides.side(chosen, which, f"split {split} of {config.source}")
        except UsageError as error:
            raise UsageError(f"{error}; scan more patients, or split anew") from error
        if which == "mask":
            Manifest(found[each], whole.root).check()  # `load_manifest` has looked for the images only
    if side.startswith(AUXILIARY) and config.restores:
        return _open_auxiliary(config, whole, found["b"], split, side)
    if config.restores:
        return Source(
            config, split, Manifest(found[side], whole.root), len(found[side]), side, notes=mixtures(found[side])
        )
    if not config.paired:
        rows = list({(row.path, row.frame): row for row in found[side]}.values())  # several images may share a mask
        return Source(config, split, Manifest(rows, whole.root), len(rows), side)
    pairs = sides.matched(found["a"], found["b"])
    if not pairs:
        raise UsageError(
            f"no image of {config.a!r} in split {split} of {config.source} has a partner among {config.b!r}: give both "
            "the same id, or name the other's path in a column `pair`"
        )
    if UNLABELLED in (side, of):
        of_pairs = {(row.path, row.frame) for row, _ in pairs}
        rows = [row for row in found["a"] if (row.path, row.frame) not in of_pairs]
        if side == UNLABELLED or not rows:
            return Source(config, split, Manifest(rows, whole.root), len(rows), side)
        return _open_auxiliary(config, whole, rows, split, side, needed=False)
    if side.startswith(AUXILIARY):
        return _open_auxiliary(config, whole, [a for a, _ in pairs], split, side)
    every, used = ({(row.path, row.frame) for row in rows} for rows in (found["a"], [a for a, _ in pairs]))
    alone = len(every - used)
    notes = [f"{alone} of {len(every)} images of {config.a!r} have no pair in {config.b!r}: left out"] * (alone > 0)
    rows = [pair["ab".index(side)] for pair in pairs]
    grid = [a for a, _ in pairs] if side == "b" else []
    return Source(config, split, Manifest(rows, whole.root), len(rows), side, grid, notes)


def _open_auxiliary(
    config: DataConfig, whole: Manifest, of: list[Row], split: str, side: str, needed: bool = True
) -> Source:
    """A contrast beside these images (to restore: b, else a), in their order. Images that have none are kept: the
    network learns to do without. needed: some training image must have one."""
    name, which = side.removeprefix(AUXILIARY), config.b if config.restores else config.a
    others = [row for row in sides.side(whole, name, config.source) if row.split == split]
    own = {(row.path, row.frame): other for row, other in sides.matched(of, others)}
    rows = [own.get((row.path, row.frame), row) for row in of]  # the image itself stands in for none: it has the grid
    absent = frozenset(k for k, row in enumerate(of) if (row.path, row.frame) not in own)
    if split == "train" and needed and not own:
        raise UsageError(
            f"no image of {which!r} in split train of {config.source} has one of {name!r} beside it: give both the "
            "same patient or id, or name the other's path in a column `pair`; or leave it out of data.auxiliary"
        )
    note = f"{len(absent)} of {len(of)} images of {which!r} have no {name!r} beside them: kept, without it"
    notes = [note] * bool(absent)
    return Source(config, split, Manifest(rows, whole.root), len(rows), side, of, notes, absent)


def looks_hounsfield(values: Float32) -> bool:
    """Whether grey values without a unit are HU: there is air near -1000, hardly anything below it but padding, and
    soft tissue around water."""
    some = values.reshape(-1)[:: 1 + values.size // LOOKED]
    lowest = some.min()
    some = some[some > lowest] if lowest < BELOW_AIR else some  # what pads: -2000, -3024 ...
    if not len(some):
        return False

    def share(low: float, high: float) -> float:
        return float(((some >= low) & (some <= high)).mean())

    return bool(share(-np.inf, BELOW_AIR) < 0.01 and share(BELOW_AIR, -900) > 0.02 and share(-200, 300) > 0.05)


def _only_mask(path: Path) -> bool:
    """Whether a file, or a folder of one file an organ, can be read as a label map alone: DICOM's SEG and RTSTRUCT."""
    return path.is_dir() or io.format_of(path) == "dicom"


def _read(manifest: Manifest, row: Row) -> Sample:
    image = io.read(manifest.file(row), row.frame)
    modality = row.modality or str(image.origin.get("modality", ""))
    if image.unit == "arbitrary" and image.origin.get("format") not in TELLS_UNIT and modality in ("CT", "OT", ""):
        said = modality == "CT" and bool(image.data.min() < 0)  # without negative values it was shifted
        image = replace(image, unit="HU") if said or looks_hounsfield(image.data) else image
    return Sample(row.id, image, row.label, row.text, modality, about=tuple(getattr(row, name) for name in ABOUT))


@lru_cache(maxsize=1)
def _physics_code() -> str:
    """The same of the code that makes images worse."""
    return hashed(Path(str(module.__file__)) for module in PHYSICS)
