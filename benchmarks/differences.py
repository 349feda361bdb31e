"""What files say, and in what two of them differ: to the last bit, but for times and versions."""

from __future__ import annotations

import csv
import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open

LEFT_OUT = ("seconds", "images_per_s", "milliseconds_per_image", "seconds_per_image", "fabrica", "version")  # keys
TEXTS = (".md", ".yaml", ".txt")


def leaves(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """(name, array or plain value) of all that is nested in it, but for what is LEFT_OUT."""
    if isinstance(value, dict):
        for key, inner in value.items():
            if key not in LEFT_OUT:
                yield from leaves(inner, f"{name}.{key}" if name else str(key))
    elif isinstance(value, list | tuple):
        for k, inner in enumerate(value):
            yield from leaves(inner, f"{name}[{k}]")
    elif isinstance(value, torch.Tensor):
        wide = value.float() if value.dtype == torch.bfloat16 else value  # NumPy has no bfloat16
        yield f"{name} ({str(value.dtype).removeprefix('torch.')})", wide.numpy()
    else:
        yield name, value


def content(path: Path) -> dict[str, Any]:
    """What a file says, by name."""
    if path.suffix == ".safetensors":
        with safe_open(path, "pt") as file:
            return dict(leaves({"metadata": file.metadata(), **{key: file.get_tensor(key) for key in file.keys()}}))  # noqa: SIM118
    if path.suffix == ".pt":
        return dict(leaves(torch.load(path, map_location="cpu", weights_only=True)))
    if path.suffix == ".npz":
        with np.load(path) as arrays:
            return dict(leaves(dict(arrays)))
    if path.suffix == ".json":
        return dict(leaves(json.loads(path.read_text(encoding="utf-8"))))
    if path.suffix == ".csv":
        with path.open(encoding="utf-8", newline="") as file:
            return dict(leaves(list(csv.DictReader(file))))
    if path.suffix in TEXTS:
        return dict(leaves(path.read_text(encoding="utf-8").splitlines(), "line"))
    data = path.read_bytes()
    return {"": gzip.decompress(data) if path.suffix == ".gz" else data}


def apart(one: Any, other: Any) -> str:
    """How two values differ; "" where they are the same to the last bit."""
    if isinstance(one, np.ndarray) and isinstance(other, np.ndarray):
        if (one.dtype, one.shape) != (other.dtype, other.shape):
            return f"{one.dtype} {one.shape} before, {other.dtype} {other.shape} now"
        if one.tobytes() == other.tobytes():
            return ""
        numbers = np.issubdtype(one.dtype, np.number)
        return f"up to {np.abs(one.astype(float) - other.astype(float)).max():.3g} apart" if numbers else "differs"
    if type(one) is type(other) and (one == other or (one != one and other != other)):
        return ""
    return "other bytes" if isinstance(one, bytes) else f"{str(one)[:60]!r} before, {str(other)[:60]!r} now"
