"""What phantom sources are asked: their labels and categories, what there is to draw, the code that draws."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from fabrica.data.manifest_cache import hashed
from fabrica.errors import UsageError, unknown
from fabrica.recipe.schema import DataConfig

PHANTOM_CATEGORIES = {"sex": ["F", "M"], "view": ["AP", "PA"]}


def phantom_labels(source: str) -> tuple[str, ...]:
    """All labels that a phantom source can give, sorted."""
    from fabrica.phantoms.chest.chest import FINDINGS

    if source.split(":")[1] == "chest":
        return tuple(sorted(("normal", *FINDINGS)))
    return ("healthy", "tumour")


def check_phantom(config: DataConfig) -> None:
    _, kind, *contrast = config.source.split(":")
    if config.a:
        _check_phantom_sides(config, kind, contrast)
    elif kind not in ("chest", "head") or len(contrast) != (kind == "head"):
        raise UsageError(f"no phantom {config.source!r}; expected phantom:chest or phantom:head:T1 (T2, FLAIR, ...)")
    if kind == "chest" and len(config.size) == 3:
        raise UsageError(f"data.size is {config.size} and a chest phantom is 2-D; give [H, W]")
    if config.where:
        raise UsageError(f"data.where chooses rows of a manifest, and {config.source} has none; leave it empty")
    if not 1 <= config.count <= 100_000_000:
        raise UsageError(f"data.count is {config.count}; expected 1 to 100,000,000 phantoms")


def _check_phantom_sides(config: DataConfig, kind: str, contrast: list[str]) -> None:
    from fabrica.phantoms.head.scan import CONTRASTS, MAGNETIC, SCANNERS

    if kind == "chest" and config.restores:
        if config.b != "image":
            raise UsageError(f"data.b is {config.b!r}; of chest phantoms it is image")
        if config.auxiliary:
            raise UsageError(f"data.auxiliary is {config.auxiliary}; chest phantoms have one contrast: leave it empty")
        return
    if kind != "head" or contrast:
        raise UsageError(f"data.source is {config.source}; phantoms to translate between are phantom:head")
    known = (*CONTRASTS, *(f"{contrast}@{scanner}" for contrast in MAGNETIC for scanner in SCANNERS))
    for which in (config.b,) if config.restores else (config.a, config.b):
        if which not in (*known, "mask"):
            raise unknown("contrast", which, (*known, "mask"))
    for which in config.auxiliary:
        if which not in known:
            raise unknown("contrast", which, known)


@lru_cache(maxsize=1)
def phantom_code() -> str:
    """A hash of the code that draws phantoms: when it changes, so do the images."""
    from fabrica import phantoms

    return hashed(Path(str(phantoms.__file__)).parent.rglob("*.py"))
