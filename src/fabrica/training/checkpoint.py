"""Checkpoints that survive a kill and a full disk: written whole or not at all, the previous one kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from fabrica.errors import FabricaError
from fabrica.io.atomic import atomic

NAME, PREVIOUS, NEXT = "checkpoint.pt", "checkpoint.previous.pt", "checkpoint.next.pt"


def save_checkpoint(folder: Path, state: dict[str, Any]) -> None:
    """Write `state` (tensors, numbers, strings, nested) to folder/checkpoint.pt.

    The new file is complete on disk before the old one is renamed to checkpoint.previous.pt, so at every moment
    at least one whole checkpoint exists. Raises FabricaError when the disk is full; nothing is lost then.
    """
    folder.mkdir(parents=True, exist_ok=True)
    current = folder / NAME
    fresh = folder / NEXT
    try:
        with atomic(fresh) as temporary:
            torch.save(state, temporary)
        if current.exists():
            current.replace(folder / PREVIOUS)
        fresh.replace(current)
    except (OSError, RuntimeError, FabricaError) as error:  # torch reports a short write as RuntimeError
        fresh.unlink(missing_ok=True)
        raise FabricaError(
            f"checkpoint not written to {folder}: {error}; the previous one is kept, "
            "free some space and run again with --resume"
        ) from error


def has_checkpoint(folder: Path) -> bool:
    """Whether a checkpoint was ever written to `folder`, whole or not."""
    return any((folder / name).exists() for name in (NEXT, NAME, PREVIOUS))


def load_checkpoint(folder: Path) -> dict[str, Any]:
    """The newest whole checkpoint in `folder`, on the CPU; executes no code from the file."""
    problems = []
    # checkpoint.next.pt exists only if the run died between two renames; it is whole, and the newest
    for name in (NEXT, NAME, PREVIOUS):
        path = folder / name
        if not path.exists():
            continue
        try:
            return dict(torch.load(path, map_location="cpu", weights_only=True))
        except Exception as error:  # whatever a damaged file raises, the previous checkpoint is tried
            problems.append(f"{name}: {type(error).__name__}")
    found = "; ".join(problems) if problems else "none there"
    raise FabricaError(f"no usable checkpoint in {folder} ({found}); train anew in another folder")
