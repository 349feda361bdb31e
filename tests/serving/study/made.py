"""Small studies of phantoms, as tests make them."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np

import fabrica
from fabrica.phantoms.chest.chest import chest
from fabrica.serving.study.config import parsed
from fabrica.serving.study.folder import Study, open_study
from fabrica.serving.study.making import new

KEY = bytes(range(32))
SIZE = 32


def no_model(folder: Path) -> Any:
    raise AssertionError(f"{folder}: this study has no model")


def arms(
    home: Path, cases: int = 12, names: tuple[str, ...] = ("degraded", "reference"), seed: int = 0, side: int = SIZE
) -> None:
    """A folder of PNG for each arm under `home`, the same phantoms: with noise of its own in all but the reference."""
    drawn = [chest(case, side).image for case in range(min(cases, 6))]
    for case in range(cases):
        image = drawn[case % 6]
        for i, name in enumerate(names):
            (home / name).mkdir(parents=True, exist_ok=True)
            noise = np.random.default_rng([seed, case, i]).normal(
                0, 0 if name == "reference" else 200, image.data.shape
            )
            noisy = np.clip(np.rint(image.data + noise + case), 0, 4095).astype(np.float32)
            fabrica.write(image.with_data(noisy), home / name / f"case{case:02d}.png")


def config_of(kind: str, names: tuple[str, ...] = ("degraded", "reference"), **more: Any) -> dict[str, Any]:
    """Plain values of a config."""
    truths = {"truth": "real"}, {"truth": "synthetic"}
    found: list[dict[str, Any]] = [{"name": name, "images": name} for name in names]
    if kind == "real-or-synthetic":
        found = [{**arm, **truths[i > 0]} for i, arm in enumerate(found)]
    return {"kind": kind, "arms": found, "readers": 3, **more}


def study(home: Path, config: Mapping[str, Any], name: str = "study") -> Study:
    assert new(parsed(dict(config)), home, home / name, no_model, key=KEY)
    return open_study(home / name)


class Clock:
    """A second a call."""

    def __init__(self) -> None:
        self.time = datetime(2026, 1, 1, tzinfo=UTC)

    def __call__(self) -> datetime:
        self.time += timedelta(seconds=1)
        return self.time
