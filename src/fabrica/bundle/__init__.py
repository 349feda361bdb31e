"""Bundles of MONAI's model zoo. Whether a folder is one is seen without MONAI, which most models do not need and which
takes ten seconds to import; `fabrica.bundle.opening` opens it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fabrica.bundle.opening import Opened

METADATA = "configs/metadata.json"


def found(folder: Path) -> bool:
    """Whether the folder is a bundle."""
    return (folder / METADATA).is_file()


def opened(folder: Path, warn: Callable[[str], None]) -> Opened:
    """The model in a bundle: see `fabrica.bundle.opening.opened`."""
    from fabrica.bundle import opening

    return opening.opened(folder, warn)
