"""The log of a run: a CSV always, MLflow beside it where the recipe says `track: mlflow`."""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from fabrica.errors import UsageError
from fabrica.recipe.folder import read_log

COLUMNS = ("step", "seconds", "images", "loss", "grad_norm", "lr", "images_per_s")
Log = Callable[[Mapping[str, float]], None]


def csv_log(path: Path, columns: Sequence[str] = COLUMNS, *, resume_at: int = 0) -> Log:
    """A function that appends a row with these columns of what it is given, leaving out the rest.

    Rows after step `resume_at` (of a killed run) are dropped."""
    kept = [row for row in read_log(path) if row["step"] <= resume_at] if resume_at else []
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(kept)

    def log(row: Mapping[str, float]) -> None:
        with path.open("a", newline="", encoding="utf-8") as file:
            csv.DictWriter(file, columns, extrasaction="ignore").writerow(row)

    return log


def mlflow_log(run_name: str, parameters: Mapping[str, Any], folder: Path) -> Log:
    """The same rows as metrics of an MLflow run, in $MLFLOW_TRACKING_URI or in a database beside the run."""
    try:
        import mlflow
    except ImportError as error:
        raise UsageError("track=mlflow needs MLflow; install it with: pip install 'fabrica-imaging[track]'") from error
    import os

    if "MLFLOW_TRACKING_URI" not in os.environ:
        mlflow.set_tracking_uri(f"sqlite:///{folder.resolve() / 'mlflow.db'}")
    mlflow.set_experiment("fabrica")
    mlflow.start_run(run_name=run_name)
    mlflow.log_params({key: str(value)[:500] for key, value in parameters.items()})

    def log(row: Mapping[str, float]) -> None:
        metrics = {key: float(value) for key, value in row.items() if key != "step"}
        mlflow.log_metrics(metrics, step=int(row["step"]))

    return log


LOG = "log.csv"


def alarm(step: int, sentence: str) -> str:
    """A line of alarms.txt."""
    return f"step {step}: {sentence}"
