"""The log of a run: the CSV a person opens, and MLflow as it really stores it."""

from pathlib import Path

import pytest

from fabrica.recipe.folder import read_log
from fabrica.training.log import COLUMNS, csv_log, mlflow_log

ROW = {"step": 5, "seconds": 1.5, "loss": 0.25, "images_per_s": 90.0}


def test_rows_come_back_and_those_after_a_resume_point_are_dropped(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    log = csv_log(path)
    for step in (5, 10, 15):
        log({**ROW, "step": step})
    assert path.read_text().splitlines()[0].split(",") == list(COLUMNS)
    assert read_log(path)[0] == ROW
    csv_log(path, resume_at=10)({**ROW, "step": 11})
    assert [row["step"] for row in read_log(path)] == [5, 10, 11]
    csv_log(path)
    assert read_log(path) == []


def test_a_log_has_the_columns_it_is_given_and_empty_cells_are_left_out(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    log = csv_log(path, ["step", "loss_critic", "frd"])
    log({"step": 5, "loss_critic": 0.5, "loss": 9.0})
    log({"step": 10, "loss_critic": 0.25, "frd": 120.0})
    assert path.read_text().splitlines()[0] == "step,loss_critic,frd"
    wanted = [{"step": 5, "loss_critic": 0.5}, {"step": 10, "loss_critic": 0.25, "frd": 120.0}]
    assert read_log(path) == wanted
    csv_log(path, ["step", "loss_critic", "frd"], resume_at=10)
    assert read_log(path) == wanted


@pytest.mark.slow
def test_mlflow_keeps_metrics_and_parameters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mlflow = pytest.importorskip("mlflow", reason="MLflow is an extra: pip install 'fabrica-imaging[track]'")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    log = mlflow_log("run", {"train.lr": 1e-4}, tmp_path)
    log(ROW)
    log({**ROW, "step": 10, "loss": 0.125})
    run = mlflow.active_run()
    mlflow.end_run()
    kept = mlflow.tracking.MlflowClient().get_run(run.info.run_id)
    assert kept.data.params["train.lr"] == "0.0001"
    assert kept.data.metrics["loss"] == 0.125 and "step" not in kept.data.metrics
