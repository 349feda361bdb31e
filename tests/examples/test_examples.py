"""The scripts in examples/: each runs, cut short and small, and makes what its header promises."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import numpy as np
import pydicom
import pytest
from PIL import Image as Picture

import fabrica
from fabrica.data.degrade import degraded
from fabrica.errors import UsageError
from fabrica.methods import METHODS
from fabrica.phantoms.head.head import head
from fabrica.recipe.folder import read_log
from fabrica.recipe.load import load_recipe

pytestmark = pytest.mark.usefixtures("few_held_out", "few_asked")

EXAMPLES = Path(__file__).parents[2] / "examples"


def example(name: str, monkeypatch: pytest.MonkeyPatch, **constants: int) -> ModuleType:
    """The script as a module, with other constants."""
    spec = spec_from_file_location(f"examples_{name}", EXAMPLES / f"{name}.py")
    assert spec and spec.loader
    module = module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)  # where dataclasses look for their annotations
    spec.loader.exec_module(module)
    for key, value in constants.items():
        assert hasattr(module, key)
        monkeypatch.setattr(module, key, value)
    return module


def promised(module: ModuleType, out: Path) -> dict[str, list[Path]]:
    """What the header says will be there -> what is. It says how to start, and how long it takes, too."""
    before, _, after = (module.__doc__ or "").partition("Then there are, in ")
    assert f"python examples/{Path(module.__file__ or '').name} " in before
    assert re.search(r"steps\s+take\s+\w+\s+minutes", before)
    patterns = [p for names in re.findall(r"^    (\S.*?)  ", after, re.MULTILINE) for p in names.split(", ")]
    return {pattern: sorted(out.glob(pattern.rstrip("/"))) for pattern in patterns}


def shows_something(path: Path) -> bool:
    """Whether a file or DICOM series is an image that is not of one grey value."""
    return float(fabrica.read(path).data.std()) > 0


def test_all_of_them_are_tested() -> None:
    tested = set(re.findall(r'example\("(\w+)"', Path(__file__).read_text()))
    assert tested == {path.stem for path in EXAMPLES.glob("*.py")} and len(tested) >= 5


def test_own_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out"
    module = example("own_data", monkeypatch, SIZE=16, PHANTOMS=180)
    for name, value in {"LEAST": 20, "CURVE": (2,)}.items():  # synthetic images in the report, and sampler steps
        monkeypatch.setattr(f"fabrica.evaluation.synthesis.evaluate.{name}", value)
    module.main(["--steps", "2", "-o", str(out)])
    found = promised(module, out)
    assert all(found.values()) and set(found) == {"manifest.csv", "model/", "samples/*.dcm", "report/report.html"}
    assert len(found["samples/*.dcm"]) == 16 and all(map(shows_something, found["samples/*.dcm"]))
    assert all(pydicom.dcmread(path).SyntheticData == "YES" for path in found["samples/*.dcm"])
    scores = json.loads((out / "report" / "scores.json").read_text())
    assert scores["n_real"] == 20 and scores["frechet"]["value"] > 0


def test_mr_to_ct(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out"
    module = example("mr_to_ct", monkeypatch, SIZE=48, PHANTOMS=10, SLICES=3)
    module.main(["--steps", "2", "-o", str(out)])
    found = promised(module, out)
    assert all(found.values()) and set(found) == {"model/", "result/", "report/report.html"}
    made = fabrica.read(out / "result")
    assert made.unit == "HU" and made.origin["modality"] == "CT" and made.data.shape == (1, 3, 48, 48)
    assert shows_something(out / "result")
    (test,) = [row for row in fabrica.scan(out / "data").rows if row.split == "test" and row.domain == "MR"]
    source = pydicom.dcmread(next((out / "data" / test.path).glob("*.dcm")))
    slices = [pydicom.dcmread(path) for path in (out / "result").iterdir()]
    assert {each.PatientID for each in slices} == {source.PatientID} and slices[0].SyntheticData == "YES"
    assert "mae" in (out / "report" / "scores.json").read_text()
    with pytest.raises(SystemExit, match="2"):
        module.main([str(out / "phantoms" / "MR"), "-o", str(tmp_path / "no")])  # without CT


@pytest.mark.parametrize("own", [False, True])
def test_denoise_dicom(own: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out, arguments = tmp_path / "out", []
    module = example("denoise_dicom", monkeypatch, SIZE=48, CROP=32, PHANTOMS=8, SLICES=3)
    if own:
        for seed in range(10):
            good = head(seed, 48, 3, contrasts=["CT"]).images["CT"]
            fabrica.write(good, tmp_path / "good" / f"{seed}", as_="dicom")
        noisy = degraded(good, [{"name": "low-dose", "dose": 0.25}], seed=0)
        fabrica.write(noisy, tmp_path / "noisy", as_="dicom")
        arguments = [str(tmp_path / "noisy"), "--good", str(tmp_path / "good")]
    module.main([*arguments, "--steps", "2", "-o", str(out)])
    found = promised(module, out)
    assert all(found.values()) and set(found) == {"model/", "result/", "before-after.png"}
    source = fabrica.read(tmp_path / "noisy" if own else out / "phantom")
    made = fabrica.read(out / "result")
    assert made.unit == "HU" and made.data.shape == source.data.shape and np.allclose(made.affine, source.affine)
    assert np.corrcoef(made.data.ravel(), source.data.ravel())[0, 1] > 0.9  # the head itself is still there
    assert shows_something(out / "result") and np.asarray(Picture.open(out / "before-after.png")).std() > 10


def test_text_to_radiograph(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out"
    module = example("text_to_radiograph", monkeypatch, SIZE=32, PHANTOMS=64)
    module.main(["--steps", "2", "--prompt", "The heart is enlarged.", "-o", str(out)])
    found = promised(module, out)
    assert all(found.values()) and set(found) == {"autoencoder/", "model/", "samples/*.png", "samples.png"}
    assert len(found["samples/*.png"]) == 8 and all(map(shows_something, found["samples/*.png"]))
    assert np.asarray(Picture.open(out / "samples.png")).std() > 10


def test_own_method(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out"
    module = example("own_method", monkeypatch, PHANTOMS=128)
    try:
        module.main(["--steps", "20", "-o", str(out)])
        found = promised(module, out)
        assert all(found.values()) and set(found) == {"model/", "samples/*.png"}
        assert len(found["samples/*.png"]) == 16 and all(map(shows_something, found["samples/*.png"]))
        model = fabrica.load(out / "model")  # in this process the name is known
        assert model.method_name == "vae" and type(model.method) is module.VAE
        again, kept = model.sample(1, seed=3)[0].data, fabrica.read(found["samples/*.png"][3]).data
        assert np.abs(again - kept).max() <= 1
        assert np.isfinite([row["val_loss"] for row in read_log(out / "model" / "log.csv") if "val_loss" in row]).all()
    finally:
        METHODS.pop("vae", None)
    with pytest.raises(UsageError, match=r"^no method 'vae'; .* \(one of your own: put its class into .*METHODS first"):
        fabrica.load(out / "model")
    with pytest.raises(UsageError, match="one of your own"):
        fabrica.train(load_recipe("mlp-xray", ["data.source=phantom:chest", "method.name=vea"]), tmp_path / "no")


def test_the_method_has_sixty_lines() -> None:
    """Blank ones, imports and words about it apart."""
    tree = ast.parse((EXAMPLES / "own_method.py").read_text())
    words = [node for node in ast.walk(tree) if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)]
    parts = [(node.lineno, node.end_lineno or 0) for node in words]
    parts += [(n.lineno, n.end_lineno or 0) for n in tree.body if isinstance(n, ast.Import | ast.ImportFrom)]
    lines = (EXAMPLES / "own_method.py").read_text().splitlines()
    code = [k for k, line in enumerate(lines, 1) if line.strip() and not any(a <= k <= b for a, b in parts)]
    assert len(code) <= 60


@pytest.mark.slow
@pytest.mark.parametrize("name", [path.stem for path in sorted(EXAMPLES.glob("*.py"))])
def test_it_says_how_to_use_it(name: str) -> None:
    done = subprocess.run([sys.executable, EXAMPLES / f"{name}.py", "--help"], capture_output=True, text=True)
    assert done.returncode == 0 and "--steps" in done.stdout, done.stderr
