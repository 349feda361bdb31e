"""The fastest way to run a model: what is tried, what is kept, in how many threads, within which budget."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fabrica
from fabrica import runtime
from fabrica.data.sources import open_source
from fabrica.errors import FabricaError, UsageError
from fabrica.export import timing
from fabrica.export.budget import parsed
from fabrica.export.optimise import TRIALS, optimise
from fabrica.export.work import Work
from fabrica.model.loading import load
from fabrica.runtime import folder as place
from fabrica.runtime import session
from tests.command import call
from tests.export.test_graphs import BLURRED, RESIDUAL, trained
from tests.handmade import handmade, sealed

for package in ("onnx", "onnxruntime", "openvino"):
    pytest.importorskip(package, reason=f"needs {package}")
pytestmark = pytest.mark.usefixtures("few_held_out")

DATA = {**BLURRED, "source": "phantom:head", "count": 8}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A residual U-Net of random weights, of images made worse."""
    return trained(tmp_path_factory.mktemp("optimised") / "model", RESIDUAL, DATA).folder


@pytest.fixture(autouse=True, scope="module")
def few_rounds() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(timing, "ROUNDS", 1)
        yield


@pytest.mark.parametrize(
    ("text", "unit", "most"),
    [("200ms", "ms", 200), ("0.2s", "ms", 200), ("20MB", "MB", 20), (" 1.5 gb", "MB", 1500), (".5kB", "MB", 0.0005)],
)
def test_a_budget_is_a_time_or_a_size(text: str, unit: str, most: float) -> None:
    budget = parsed(text)
    assert budget.unit == unit and budget.most == pytest.approx(most)
    just, more = (most, most * 1.001)
    assert budget.holds(just, 1e9) == (unit == "ms") and budget.holds(1e9, just) == (unit == "MB")
    assert not budget.holds(more, more)


@pytest.mark.parametrize("text", ["200", "ms", " ", "-5ms", "0ms", "0.0MB", "1e3ms", "20 MiB", "nan s", "٣ms", "1s2"])
def test_what_is_no_budget_is_refused_in_one_line(folder: Path, tmp_path: Path, text: str) -> None:
    done = call("optimise", folder, "-o", tmp_path / "out", f"--budget={text}")
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert "expected a time for an image or a size above 0, e.g. 200ms, 0.2s or 20MB" in done.stderr


def test_the_fastest_is_kept_and_is_what_apply_takes(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = call("optimise", folder, "-o", out, "--budget", "1000s")
    assert done.returncode == 0, done.stderr
    said = json.loads((out / TRIALS).read_text())
    best, trials = said["trials"][said["best"]], said["trials"]
    ways = {(each["runtime"], each["precision"]) for each in trials}
    assert {("onnx", "fp32"), ("onnx", "fp16"), ("openvino", "fp32"), ("pytorch", "fp32"), ("onnx", "int8")} <= ways
    timed = [each for each in trials if each["file"] is not None]
    assert all(each["tried"]["passed"] and 0 < each["network"] < each["file"] for each in timed)
    assert best["file"] == min(each["file"] for each in timed) and best["within"]
    table = [line for line in done.stdout.splitlines() if line.startswith("|")]
    assert len(table) == 2 + len(trials) and table[0].endswith("| gate | within 1000s |")
    assert table[2 + said["best"]].startswith(f"| **{best['runtime']}** | **{best['precision']}** |")
    assert table[0] in (out / "README.md").read_text() and (out / "optimised.png").read_bytes().startswith(b"\x89PNG")
    held_out = next(open_source(load(folder).data, "val", "a").samples([0])).image
    fabrica.write(held_out, tmp_path / "given.dcm", synthetic=True)
    done = call("apply", out, tmp_path / "given.dcm", "-o", tmp_path / "made.dcm")
    assert done.returncode == 0, done.stderr
    call("apply", folder, tmp_path / "given.dcm", "-o", tmp_path / "exact.dcm", "--precision", "fp32")
    made, exact = (fabrica.read(tmp_path / f"{name}.dcm").data for name in ("made", "exact"))
    assert np.abs(made - exact).mean() < 5  # HU of 4095: what a precision loses that passes


def test_beyond_the_budget_the_fastest_is_named_and_kept(folder: Path, tmp_path: Path) -> None:
    done = call("optimise", folder, "-o", tmp_path / "out", "--budget", "1kB")
    assert done.returncode == 1 and done.stderr.splitlines()[-1].startswith(
        "fabrica: nothing that passes the gate is within 1kB: the fastest, random, "
    )
    assert "and the smallest, random, " in done.stderr and "allow more, or name a smaller --student" in done.stderr
    said = json.loads((tmp_path / "out" / TRIALS).read_text())
    assert not any(each["within"] for each in said["trials"])
    assert said["trials"][said["best"]]["file"] == min(each["file"] or 1e9 for each in said["trials"])


def test_a_student_is_judged_beside_its_teacher_and_one_of_something_else_refused(folder: Path, tmp_path: Path) -> None:
    twin, other = tmp_path / "twin", tmp_path / "other"
    shutil.copytree(folder, twin)
    trained(other, RESIDUAL, DATA, seed=5)
    stranger = trained(tmp_path / "stranger", RESIDUAL, {**DATA, "b": "T1"})
    work = Work(load(folder, device="cpu"))
    with pytest.raises(UsageError, match=r"stranger is no student of random: its sides are others, .* uses\.teacher="):
        optimise(work, tmp_path / "none", students={"stranger": stranger})
    only = {"onnx": ("fp32",)}
    with pytest.MonkeyPatch.context() as patch:  # one way is enough to tell who passes
        patch.setattr("fabrica.export.optimise.TARGETS", {"cpu": tuple(only)})
        patch.setattr("fabrica.export.candidates.PRECISIONS", only["onnx"])
        patch.setattr("fabrica.export.candidates.BY_PYTORCH", ())
        students = {"twin": load(twin, device="cpu"), "other": load(other, device="cpu")}
        result = optimise(work, tmp_path / "out", students=students)
    passed = {each.model: each.tried.passed for each in result.trials}
    assert passed == {"random": True, "twin": True, "other": False}  # other weights are another answer
    lost = {each.model: each.tried for each in result.trials}
    assert lost["twin"].psnr == pytest.approx(0, abs=1e-3) and lost["twin"].off < 0.5  # HU
    assert result.table()[0].startswith("| model | runtime |") and result.best.model in ("random", "twin")
    assert len([each for each in result.trials if each.model == "other"]) == 1  # and is not tried in other ways


@pytest.mark.parametrize(("recorded", "cores", "expected"), [(0, 2, 2), (1, 2, 1), (2, 2, 2), (64, 2, 2), (3, 1, 1)])
def test_threads_are_recorded_and_never_more_than_cores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recorded: int, cores: int, expected: int
) -> None:
    from fabrica.runtime import onnx

    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(cores)), raising=False)
    package, asked = onnx.imported(), []

    class Noted(package.InferenceSession):  # type: ignore[misc, name-defined]
        def __init__(self, graph: bytes, options: Any, **choices: Any) -> None:
            asked.append(options.intra_op_num_threads)
            super().__init__(graph, options, **choices)

    monkeypatch.setattr(package, "InferenceSession", Noted)
    model = runtime.opened(sealed(handmade(tmp_path / "model"), threads=recorded))
    assert model.run("a2b", np.zeros((1, 1, 8, 8), dtype=np.float32)).shape == (1, 1, 8, 8)
    assert asked == [expected] == [session.threads(recorded)]


def test_threads_that_are_none_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FabricaError, match=r"says -1 threads, expected 0 \(all\) or more; export it again"):
        place.load(sealed(handmade(tmp_path / "model"), threads=-1))


def test_without_a_gpu_or_tensorrt_one_line_says_so(folder: Path, tmp_path: Path) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("a GPU is here")
    for words in (["export", "--to", "tensorrt"], ["optimise", "--target", "gpu"]):
        verb, *options = words
        done = call(verb, folder, *options, "-o", tmp_path / "out")
        assert done.returncode == 2 and done.stderr.count("\n") == 1 and not (tmp_path / "out").exists()
        assert "tensorrt is not installed" in done.stderr or "needs an NVIDIA GPU" in done.stderr, done.stderr
        assert ("take --to onnx or openvino" in done.stderr) and ("take --target cpu" in done.stderr) == (
            verb == "optimise"
        )


def test_what_apply_does_not_take_is_not_optimised(tmp_path: Path) -> None:
    gan = trained(tmp_path / "gan", {"name": "dcgan", "width": 8}, {"size": [32, 32]})
    done = call("optimise", gan.folder, "-o", tmp_path / "out")
    assert done.returncode == 2 and "what is optimised restores, translates or segments" in done.stderr
    done = call("optimise", gan.folder, "-o", tmp_path / "out", "--target", "abacus")
    assert done.returncode == 2 and "no target 'abacus'; expected one of cpu, gpu" in done.stderr
