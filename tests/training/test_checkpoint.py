"""Checkpoints must survive a full disk, a kill between two renames, and damage."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from fabrica.errors import FabricaError
from fabrica.training.checkpoint import NAME, PREVIOUS, load_checkpoint, save_checkpoint

FULL_DISK = """
import resource, signal, sys
from pathlib import Path
import torch
from fabrica.training.checkpoint import save_checkpoint
from fabrica.errors import FabricaError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # a write past the limit then fails as on a full disk
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    save_checkpoint(Path(sys.argv[1]), {"step": 2, "w": torch.zeros(1_000_000)})
except FabricaError as error:
    print(error)
    sys.exit(7)
"""


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
    done = subprocess.run([sys.executable, "-c", FULL_DISK, str(tmp_path)], capture_output=True, text=True)
    assert done.returncode == 7, done.stderr
    assert "--resume" in done.stdout
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
