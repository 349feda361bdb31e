"""Manifests: loaded, or scanned from a folder once and kept."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

from fabrica import io
from fabrica.data import scan as scanning
from fabrica.data import tables
from fabrica.data.manifest import Manifest
from fabrica.errors import FabricaError, UsageError
from fabrica.io.atomic import atomic


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
    digest = hashlib.sha256(os.fsencode(folder.absolute()))
    for path in sorted({*files, *tables.tables_near(root)}):
        stat = path.lstat()
        digest.update(f"{path} {stat.st_size} {stat.st_mtime_ns}\n".encode(errors="surrogateescape"))
    digest.update(_scan_code().encode())
    kept = cache_home() / "scans" / f"{digest.hexdigest()[:32]}.csv"
    said = kept.with_suffix(".json")  # what a manifest's file does not hold
    if not (kept.is_file() and said.is_file()):
        found = scanning.scan(folder)
        found.save(kept)
        with atomic(said) as temporary:
            temporary.write_text(json.dumps({"notes": found.notes, "rejected": found.rejected}), encoding="utf-8")
    return _load_kept(kept, kept.stat().st_mtime_ns)


@lru_cache(maxsize=8)
def _load_kept(kept: Path, stamp: int) -> Manifest:
    told = json.loads(kept.with_suffix(".json").read_text(encoding="utf-8"))
    rejected = [(path, reason) for path, reason in told["rejected"]]
    return replace(_load_checked(kept, stamp), notes=told["notes"], rejected=rejected)


@lru_cache(maxsize=1)
def _scan_code() -> str:
    """A hash of the code that finds and reads images: when it changes, so may a scan."""
    homes = (Path(__file__).parent, Path(str(io.__file__)).parent)
    return hashed(path for home in homes for path in home.rglob("*.py"))


def hashed(files: Iterable[Path]) -> str:
    digest = hashlib.sha256()
    for path in sorted(files):
        digest.update(path.read_bytes())
    return digest.hexdigest()
