"""Graphs run by each runtime: the same numbers, nothing written into the home, nobody told."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from fabrica.errors import FabricaError, UsageError
from fabrica.runtime import onnx, openvino
from fabrica.runtime.session import threads
from tests.handmade import handmade, handmade_graph, handmade_net

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


HOME = """
import sys
import numpy as np
from pathlib import Path
from fabrica import runtime
from fabrica.runtime import openvino
runtime.opened(sys.argv[1]).run("a2b", np.zeros((1, 1, 8, 8), dtype=np.float32))
try:
    openvino.imported().Core()
except ModuleNotFoundError:
    pass
print("torch" in sys.modules, "openvino_telemetry.main" in sys.modules, len(list(Path.home().iterdir())))
"""


def test_nothing_is_written_into_the_home_and_nobody_is_told(tmp_path: Path) -> None:
    """Both packages would otherwise leave an identifier there when they are imported, and report to their makers."""
    home = tmp_path / "home"
    home.mkdir(mode=0o500)
    places = {name: str(home) for name in ("HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME")}
    environment = {**os.environ, **places, "PYTHONDONTWRITEBYTECODE": "1"}
    environment.pop("ORT_DISABLE_TELEMETRY", None)
    command = [sys.executable, "-c", HOME, str(handmade(tmp_path / "model"))]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert done.stdout.split() == ["False", "False", "0"], done.stderr
