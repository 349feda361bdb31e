"""What benchmarks found, in a file that is committed: each under its own name, beside what others found before."""

from __future__ import annotations

import json
import platform
from pathlib import Path
from typing import Any

import torch


def keep(path: Path, name: str, found: Any) -> None:
    """Write what was found under this name, and leave the rest of the file as it is."""
    everything = json.loads(path.read_text()) if path.exists() else {}
    everything[name] = found
    path.write_text(json.dumps(everything, indent=2) + "\n")


def machine() -> str:
    """What a figure of PyTorch's was measured on."""
    capability = torch.backends.cpu.get_cpu_capability()
    return f"{platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}, {capability}"
