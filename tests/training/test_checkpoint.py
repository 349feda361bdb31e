"""Checkpoints must survive a full disk, a kill between two renames, and damage."""

from pathlib import Path

import pytest
import torch

from fabrica.errors import FabricaError
from fabrica.training.checkpoint import NAME, PREVIOUS, load_checkpoint, save_checkpoint
from tests.command import full_disk


def test_previous_is_kept_and_used_when_the_newest_is_damaged(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, {"step": 1})
    save_checkpoint(tmp_path, {"step": 2, "w": torch.arange(3)})
    assert load_checkpoint(tmp_path)["step"] == 2
    whole = (tmp_path / NAME).read_bytes()
    (tmp_path / NAME).write_bytes(whole[: len(whole) // 2])
    assert load_checkpoint(tmp_path)["step"] == 1
    (tmp_path / PREVIOUS).unlink()
    with pytest.raises(FabricaError, match="no usable checkpoint"):
        load_checkpoint(tmp_path)


def test_a_kill_between_the_two_renames_loses_nothing(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, {"step": 1})
    (tmp_path / NAME).rename(tmp_path / PREVIOUS)
    torch.save({"step": 2}, tmp_path / "checkpoint.next.pt")
    assert load_checkpoint(tmp_path)["step"] == 2


def test_a_full_disk_keeps_the_old_checkpoint(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, {"step": 1})
    with full_disk(100_000), pytest.raises(FabricaError, match="--resume"):
        save_checkpoint(tmp_path, {"step": 2, "w": torch.zeros(1_000_000)})
    assert load_checkpoint(tmp_path)["step"] == 1
    assert [p.name for p in tmp_path.iterdir()] == [NAME]


def test_a_checkpoint_cannot_execute_code(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple:
            return (Path.touch, (tmp_path / "executed",))

    torch.save({"step": Evil()}, tmp_path / NAME)
    with pytest.raises(FabricaError, match="no usable checkpoint"):
        load_checkpoint(tmp_path)
    assert not (tmp_path / "executed").exists()
