"""Where training images come from: a manifest, a folder scanned on the fly, or phantoms drawn on the fly."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import astuple, dataclass
from functools import lru_cache
from pathlib import Path

from fabrica import io
from fabrica.data import find, layouts, tables
from fabrica.data import scan as scanning
from fabrica.data import split as splitting
from fabrica.data.manifest import Manifest, Row
from fabrica.errors import FabricaError, UsageError, did_you_mean
from fabrica.image import Image
from fabrica.recipe import DataConfig

PHANTOM = "phantom:"
# far from the seeds of phantoms written to a folder, and from one another
FIRST_SEED = {"train": 1_000_000_000, "val": 2_000_000_000, "test": 3_000_000_000}


@dataclass(frozen=True)
class Sample:
    """One source image with what is said of it."""

    id: str
    image: Image
    label: str = ""
    text: str = ""
    modality: str = ""


@dataclass(frozen=True)
class Source:
    """The images of one split: rows of a manifest, or `count` phantoms."""

    config: DataConfig
    split: str
    manifest: Manifest | None
    count: int

    def samples(self, chosen: range | list[int] | None = None) -> Iterator[Sample]:
        """Read or draw the images, one at a time; `chosen` picks some by number.

        Raises ReadError for files that cannot be read."""
        numbers = range(self.count) if chosen is None else chosen
        for k in numbers:
            yield _read(self.manifest, self.manifest.rows[k]) if self.manifest else self._draw(k)

    def fingerprint(self) -> str:
        """Changes when any image would."""
        if self.manifest is None:
            return f"{self.config.source} {self.count} {self.split} {_phantom_code()}"
        digest = hashlib.sha256(str(self.manifest.root.absolute()).encode())
        stamps: dict[str, tuple[int, int]] = {}
        for row in self.manifest.rows:
            if row.path not in stamps:
                stat = self.manifest.file(row).stat()
                stamps[row.path] = (stat.st_size, stat.st_mtime_ns)
            digest.update(json.dumps([*astuple(row), *stamps[row.path]]).encode())
        return digest.hexdigest()

    def _draw(self, k: int) -> Sample:
        from fabrica.phantoms.chest import chest
        from fabrica.phantoms.head import head

        _, kind, *contrast = self.config.source.split(":")
        seed, size = FIRST_SEED[self.split] + k, max(self.config.size[-2:])
        if kind == "chest":
            drawn = chest(seed, size)
            return Sample(f"chest-{seed}", drawn.image, drawn.label, drawn.text, "DX")
        slices = self.config.size[0] if len(self.config.size) == 3 else None
        patient = head(seed, size, slices, contrasts=contrast)
        image = patient.images[contrast[0]]
        label = "tumour" if patient.labels["tumour"] else "healthy"
        return Sample(f"head-{seed}", image, label, "", str(image.origin.get("modality", "")))


def open_source(config: DataConfig, split: str) -> Source:
    """The images of this split that the recipe asks for.

    Raises UsageError for sources that do not exist, splits without images, patients in two splits.
    """
    if config.source.startswith(PHANTOM):
        _check_phantom(config)
        count = config.count if split == "train" else max(64, config.count // 10)
        return Source(config, split, None, count)
    if "split" in config.where:
        raise UsageError("data.where cannot choose the split; each use of the data has its own")
    whole = load_manifest(config.source)
    chosen = whole.select(split=split, **config.where)
    if not chosen.rows:
        there = ", ".join(f"{s} {len(whole.select(split=s).rows)}" for s in ("train", "val", "test"))
        where = "".join(f", {key} = {value}" for key, value in config.where.items())
        raise UsageError(
            f"{config.source} has no image in split {split}{where}; it has {there} in all: "
            "scan more patients, or change the split or data.where"
        )
    return Source(config, split, chosen, len(chosen.rows))


def classes_of(config: DataConfig) -> tuple[str, ...]:
    """The names of labels 0, 1, ... under `condition: label`; () without a condition.

    Raises UsageError for images without label, labels that are no class, classes without training image.
    """
    if config.condition != "label":
        return ()
    if config.source.startswith(PHANTOM):
        return tuple(config.classes) or phantom_labels(config.source)
    rows = load_manifest(config.source).select(**config.where).rows
    found = {row.label for row in rows if row.split == "train"}
    classes = tuple(config.classes) or tuple(sorted(found - {""}))
    check_labels({(row.label, row.id) for row in rows if row.split}, classes)
    for name in classes:
        if name not in found:
            raise UsageError(f"class {name!r} has no training image in {config.source}; leave it out of data.classes")
    if not classes:
        raise UsageError(f"{config.source} has no labels; leave data.condition empty, or scan with --labels")
    return classes


def check_labels(found: set[tuple[str, str]], classes: tuple[str, ...]) -> None:
    """Raise UsageError for the first (label, id) whose label is no class."""
    strangers = sorted((label, id_) for label, id_ in found if label not in classes)
    if not strangers:
        return
    label, id_ = strangers[0]
    if not label:
        raise UsageError(
            f"{sum(not label for label, _ in strangers)} images have no label, the first is {id_}; "
            "with data.condition=label every image needs one: leave them out with data.where"
        )
    raise UsageError(f"label {label!r} of {id_} is no class{did_you_mean(label, classes)}")


def load_manifest(source: str) -> Manifest:
    """The manifest at this path, checked; a folder's own manifest.csv, else a scan of the folder.

    A scan is kept in the cache until a file of the folder changes. Raises UsageError.
    """
    path = Path(source)
    if not path.exists():
        raise UsageError(f"no data at {source}; expected a manifest, a folder of images, or phantom:chest")
    if path.is_dir() and _is_manifest(path / "manifest.csv"):
        path = path / "manifest.csv"
    if path.is_file() and path.suffix.lower() in (".csv", ".parquet"):
        return _load_checked(path, path.stat().st_mtime_ns)
    return _scan_kept(path)


def cache_home() -> Path:
    """FABRICA_CACHE, else ~/.cache/fabrica."""
    chosen = os.environ.get("FABRICA_CACHE")
    return Path(chosen) if chosen else Path.home() / ".cache" / "fabrica"


def phantom_labels(source: str) -> tuple[str, ...]:
    """All labels that a phantom source can give, sorted."""
    from fabrica.phantoms.chest import FINDINGS

    if source.split(":")[1] == "chest":
        return tuple(sorted(("normal", *FINDINGS)))
    return ("healthy", "tumour")


def _read(manifest: Manifest, row: Row) -> Sample:
    image = io.read(manifest.file(row), row.frame)
    return Sample(row.id, image, row.label, row.text, row.modality or str(image.origin.get("modality", "")))


def _check_phantom(config: DataConfig) -> None:
    _, kind, *contrast = config.source.split(":")
    if kind not in ("chest", "head") or len(contrast) != (kind == "head"):
        raise UsageError(f"no phantom {config.source!r}; expected phantom:chest or phantom:head:T1 (T2, FLAIR, ...)")
    if kind == "chest" and len(config.size) == 3:
        raise UsageError(f"data.size is {config.size} and a chest phantom is 2-D; give [H, W]")
    if config.where:
        raise UsageError(f"data.where chooses rows of a manifest, and {config.source} has none; leave it empty")
    if not 1 <= config.count <= 100_000_000:
        raise UsageError(f"data.count is {config.count}; expected 1 to 100,000,000 phantoms")


@lru_cache(maxsize=8)
def _load_checked(path: Path, stamp: int) -> Manifest:
    manifest = Manifest.load(path)
    manifest.check()
    return manifest


def _is_manifest(path: Path) -> bool:
    try:
        Manifest.load(path)
    except FabricaError:
        return False
    return True


def _scan_kept(folder: Path) -> Manifest:
    """The manifest of a scan, from the cache where neither files, nor tables, nor the code have changed."""
    root = folder if folder.is_dir() else folder.parent
    files = [Path(home, name) for home, _, names in os.walk(folder) for name in names] or [folder]
    digest = hashlib.sha256(str(folder.absolute()).encode())
    for path in sorted({*files, *root.glob("*.csv"), *root.absolute().parent.glob("*.csv")}):
        stat = path.lstat()
        digest.update(f"{path} {stat.st_size} {stat.st_mtime_ns}\n".encode())
    for code in (find, layouts, scanning, splitting, tables):
        digest.update(Path(str(code.__file__)).read_bytes())
    kept = cache_home() / "scans" / f"{digest.hexdigest()[:32]}.csv"
    if not kept.is_file():
        scanning.scan(folder).save(kept)
    return _load_checked(kept, kept.stat().st_mtime_ns)


@lru_cache(maxsize=1)
def _phantom_code() -> str:
    """A hash of the code that draws phantoms: when it changes, so do the images."""
    from fabrica import phantoms

    digest = hashlib.sha256()
    for path in sorted(Path(str(phantoms.__file__)).parent.glob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()
