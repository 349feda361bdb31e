"""Learning to work in INT8: the same model folder, resumed bit for bit, and as many bits as it says when exported."""

from __future__ import annotations

from pathlib import Path

import pytest
from safetensors.torch import load_file

import fabrica
from fabrica.errors import UsageError
from fabrica.phantoms.head.head import head
from fabrica.recipe.folder import WEIGHTS
from fabrica.recipe.load import load_recipe
from fabrica.recipe.schema import Recipe
from fabrica.training.loop import train
from tests.command import call

pytestmark = pytest.mark.usefixtures("few_held_out", "few_asked")
TINY = ["data.size=32", "data.crop=32", "data.batch=4", "data.count=12", "method.size=tiny", "method.unshuffle=2"]
STEPS = ["train.steps=8", "train.minutes=0", "train.validate_every=2", "train.checkpoint_every=6", "train.log_every=1"]


def recipe(*more: str) -> Recipe:
    return load_recipe("nafnet-lowdose", [*TINY, *STEPS, *more])


def stop(row: dict[str, float]) -> None:
    if row.get("step") == 7:
        raise InterruptedError


@pytest.mark.slow
def test_a_run_that_learns_int8_goes_on_as_if_it_had_never_stopped(tmp_path: Path) -> None:
    whole = train(recipe("quantise=int8"), tmp_path / "whole")
    with pytest.raises(InterruptedError):
        train(recipe("quantise=int8"), tmp_path / "cut", report=stop)
    cut = train(None, tmp_path / "cut", resume=True)
    assert (whole / WEIGHTS).read_bytes() == (cut / WEIGHTS).read_bytes()
    plain = train(recipe(), tmp_path / "plain")
    of_plain, of_whole = (load_file(folder / WEIGHTS) for folder in (plain, whole))
    assert of_plain.keys() == of_whole.keys()
    assert any((of_plain[name] != weights).any() for name, weights in of_whole.items())


@pytest.mark.slow
def test_it_is_exported_in_int8_and_applied(tmp_path: Path) -> None:
    pytest.importorskip("onnxscript", reason="needs onnxscript")
    folder = train(recipe("quantise=int8"), tmp_path / "run")
    done = call("export", folder, "--to", "onnx", "--precision", "int8", "-o", tmp_path / "int8")
    assert done.returncode == 0, done.stderr
    assert "| int8 |" in done.stdout and "| passed |" in done.stdout and "Collecting" not in done.stdout
    call("export", folder, "--to", "onnx", "-o", tmp_path / "fp32")
    lower, full = ((tmp_path / name / "a2b.onnx").stat().st_size for name in ("int8", "fp32"))
    assert lower < 0.5 * full and (tmp_path / "int8" / "precision.png").is_file()
    fabrica.write(head(3, 32, 3, contrasts=["CT"]).images["CT"], tmp_path / "ct", as_="dicom")
    done = call("apply", tmp_path / "int8", tmp_path / "ct", "-o", tmp_path / "out", "--force")
    assert done.returncode == 0, done.stderr
    done = call("apply", tmp_path / "int8", tmp_path / "ct", "-o", tmp_path / "not", "--precision", "fp32")
    assert done.returncode == 2 and "was exported in int8" in done.stderr
    done = call("export", folder, "--to", "onnx", "--precision", "bf16", "-o", tmp_path / "bf16")
    assert done.returncode == 2 and "ONNX Runtime has no bf16 on processors" in done.stderr
    done = call("export", folder, "--to", "onnx", "--precision", "int8", "--calibrate", tmp_path, "-o", tmp_path / "no")
    assert done.returncode == 2 and "--calibrate" in done.stderr and done.stderr.count("\n") == 1


def test_what_does_not_apply_learns_no_int8(tmp_path: Path) -> None:
    few = ["data.source=phantom:chest", "data.count=8", "data.size=32", "train.steps=1", "quantise=int8"]
    with pytest.raises(UsageError, match="quantise is int8, which is for what translates, restores or segments"):
        train(load_recipe("mlp-xray", few), tmp_path / "run")
    with pytest.raises(UsageError, match="quantise is 'int4'; expected int8, or nothing"):
        recipe("quantise=int4")
