"""Graphs run by each runtime: the same numbers, nothing written into the home, nobody told."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

import fabrica
from fabrica.errors import FabricaError, UsageError
from fabrica.phantoms.head.head import head
from fabrica.runtime import onnx, openvino
from fabrica.runtime.session import threads
from tests.handmade import as_openvino, handmade, handmade_graph, handmade_net, handmade_synthesiser

IMAGES = np.random.default_rng(0).uniform(-1, 1, (2, 1, 21, 34)).astype(np.float32)


@pytest.fixture(scope="module")
def of_openvino(tmp_path_factory: pytest.TempPathFactory) -> list[bytes]:
    """The handmade graph and its weights."""
    pytest.importorskip("openvino", reason="needs openvino")
    package, path = openvino.imported(), tmp_path_factory.mktemp("openvino") / "a2b.xml"
    read = package.Core().read_model(handmade_graph().SerializeToString())
    package.save_model(read, path, compress_to_fp16=False)
    return [path.read_bytes(), path.with_suffix(".bin").read_bytes()]


def test_both_runtimes_give_what_numpy_gives(of_openvino: list[bytes]) -> None:
    by_onnx = onnx.session("a2b.onnx", [handmade_graph().SerializeToString()], ["images"])
    by_openvino = openvino.session("a2b.xml", of_openvino, ["images"])
    for net in (by_onnx, by_openvino):
        np.testing.assert_allclose(net(IMAGES), handmade_net(IMAGES), atol=1e-6)
        assert net.shapes == ((-1, 1, -1, -1),)
    first = by_openvino(IMAGES)
    by_openvino(-IMAGES)
    np.testing.assert_allclose(first, handmade_net(IMAGES), atol=1e-6)  # a result is its caller's own


def test_openvino_computes_in_the_precision_that_is_asked(of_openvino: list[bytes]) -> None:
    exact = handmade_net(IMAGES)
    coarse = 0
    for precision in ("fp16", "bf16"):
        try:
            made = openvino.session("a2b.xml", of_openvino, ["images"], precision)(IMAGES)
        except UsageError as error:
            assert f"and not in {precision}; take --precision fp32" in str(error)
            continue
        np.testing.assert_allclose(made, exact, atol=2e-2)
        assert made.dtype == np.float32
        coarse += 1
    plain = openvino.session("a2b.xml", of_openvino, ["images"], "fp32")(IMAGES)
    assert np.abs(plain - exact).max() < 1e-6  # whatever the processor would rather compute in


@pytest.mark.parametrize("graph", [b"", b"<?xml version='1.0'?><net/>", b"onnx", b"<?xml version='1.0'?><net name='"])
def test_bytes_that_are_no_graph_of_openvino_are_refused(of_openvino: list[bytes], graph: bytes) -> None:
    with pytest.raises(FabricaError, match=r"a2b\.xml is not the graph of an exported model") as caught:
        openvino.session("a2b.xml", [graph, of_openvino[1]], ["images"])
    assert "\n" not in str(caught.value)


def test_weights_that_are_cut_short_are_refused(of_openvino: list[bytes]) -> None:
    with pytest.raises(FabricaError, match=r"a2b\.xml is not the graph of an exported model"):
        openvino.session("a2b.xml", [of_openvino[0], of_openvino[1][:8]], ["images"])


@pytest.mark.parametrize(("asked", "most"), [("1", 1), ("100000", 10**6), ("", 10**6), ("none", 10**6)])
def test_threads_are_those_of_the_process(monkeypatch: pytest.MonkeyPatch, asked: str, most: int) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", asked)
    assert 1 <= threads() <= min(most, os.cpu_count() or 1)


WORK = """
import sys
from pathlib import Path
from fabrica.cli.main import main
home, (out, image, *models) = Path.home(), sys.argv[1:]
for k, model in enumerate(models):
    applies = "denoiser" not in (Path(model) / "exported.yaml").read_text()
    words = ["apply", model, image, "--force"] if applies else ["sample", model, "-n", "2", "--as", "nifti"]
    sys.argv[1:] = [*words, "-o", f"{out}/{k}"]
    try:
        main()
    except SystemExit as ended:
        assert not ended.code, ended.code
print("torch" in sys.modules, "openvino_telemetry.main" in sys.modules, len(list(home.iterdir())))
"""


@pytest.mark.parametrize("how", ["a home that keeps what is written", "a home read-only, and no network"])
def test_nothing_is_written_into_the_home_and_nobody_is_told(tmp_path: Path, how: str) -> None:
    """Both packages would otherwise leave an identifier there when they are imported, and report to their makers."""
    home, alone = tmp_path / "home", ["unshare", "-rmn", "sh", "-c"] if "no network" in how else []
    home.mkdir()
    if alone and subprocess.run(["unshare", "-rmn", "true"], capture_output=True).returncode:
        pytest.skip("unshare is not allowed here")
    models = [handmade(tmp_path / "applied"), handmade_synthesiser(tmp_path / "sampled")]
    if find_spec("openvino"):
        models += [as_openvino(shutil.copytree(model, tmp_path / f"{model.name}-openvino")) for model in models]
    fabrica.write(head(3, 32, contrasts=["CT"]).images["CT"], tmp_path / "ct.nii.gz")
    places = {name: str(home) for name in ("HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME")}
    environment = {**os.environ, **places, "PYTHONDONTWRITEBYTECODE": "1"}
    environment.pop("ORT_DISABLE_TELEMETRY", None)
    command = [sys.executable, "-c", WORK, *map(str, (tmp_path / "out", tmp_path / "ct.nii.gz", *models))]
    command = [*alone, f"mount -t tmpfs -o ro none {home} && exec {shlex.join(command)}"] if alone else command
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert done.stdout.splitlines()[-1:] == ["False False 0"], done.stderr
    made = [len([*(tmp_path / "out" / str(k)).iterdir()]) for k in range(len(models))]
    assert min(made) >= 2  # a result and what is said of it; pictures and their manifest
