"""The base, as `pip install` without extras brings it: images are read, scanned, translated and written where PyTorch,
MONAI and all that belongs to training are not installed."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import numpy as np
import pytest

import fabrica
from fabrica.data.manifest import Manifest
from fabrica.phantoms import head
from tests.command import call
from tests.handmade import handmade, handmade_synthesiser
from tests.serving.http.started import started

SOURCE = Path(str(fabrica.__file__)).parents[1]
ABSENT = ("torch", "monai", "lightning_fabric", "safetensors", "matplotlib", "jinja2", "einops", "skimage")


def needed(name: str, found: set[str]) -> set[str]:
    """The distribution and all that it requires, without extras."""
    try:
        requires = distribution(name).requires or []
    except PackageNotFoundError:  # for another system or Python
        return found
    found.add(re.sub(r"[-_.]+", "-", name).lower())
    for line in requires:
        other = re.sub(r"[-_.]+", "-", re.split(r"[^A-Za-z0-9._-]", line)[0]).lower()
        if "extra ==" not in line and other not in found:
            needed(other, found)
    return found


def linked(place: Path, *names: str) -> Path:
    """A folder of links to these packages and all that they require, and to nothing else."""
    found: set[str] = set()
    for name in names:
        needed(name, found)
    for name in found - {"fabrica-imaging"}:
        for file in distribution(name).files or []:
            top = file.parts[0]
            target = place / top
            if top != ".." and not target.exists():
                target.symlink_to(Path(str(distribution(name).locate_file(top))))
    return place


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return linked(tmp_path_factory.mktemp("base"), "fabrica-imaging")


@pytest.fixture(scope="session")
def with_runtime(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The base with the extra `runtime`."""
    pytest.importorskip("onnxruntime", reason="needs onnxruntime")
    return linked(tmp_path_factory.mktemp("runtime"), "fabrica-imaging", "onnxruntime")


@pytest.fixture(scope="session")
def with_serving(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The base with the extras `runtime` and `serve`."""
    pytest.importorskip("onnxruntime", reason="needs onnxruntime")
    names = ("fabrica-imaging", "onnxruntime", "prometheus-client", "python-multipart", "starlette", "uvicorn")
    return linked(tmp_path_factory.mktemp("serve"), *names)


def run(base: Path, code: str, *arguments: object) -> str:
    """What Python prints that sees the base alone."""
    start = f"import sys; sys.path[1:1] = [{str(SOURCE)!r}, {str(base)!r}]\n"
    command = [sys.executable, "-I", "-S", "-c", start + code, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_nothing_of_training_is_there(base: Path) -> None:
    code = f"from importlib.util import find_spec; print([name for name in {ABSENT} if find_spec(name)])"
    assert run(base, code).strip() == "[]"


@pytest.mark.parametrize("command", [["--help"], ["scan", "--help"], ["apply", "--help"], ["recipes"], ["version"]])
def test_the_command_line_answers(base: Path, command: list[str]) -> None:
    assert run(base, "from fabrica.cli.main import main; main()", *command)


def test_phantoms_are_written_and_scanned(base: Path, tmp_path: Path) -> None:
    cli = "from fabrica.cli.main import main; main()"
    run(base, cli, "phantom", "head", "-n", 1, "--size", 32, "--slices", 4, "-o", tmp_path / "heads")
    (tmp_path / "heads" / "manifest.csv").unlink()
    run(base, cli, "scan", tmp_path / "heads", "-o", tmp_path / "m.csv")
    assert len(Manifest.load(tmp_path / "m.csv").rows) >= 6  # one of each contrast


def test_training_says_what_is_missing(base: Path, tmp_path: Path) -> None:
    start = f"import sys; sys.path[1:1] = [{str(SOURCE)!r}, {str(base)!r}]\n"
    code = start + "from fabrica.cli.main import main; main()"
    command = [sys.executable, "-I", "-S", "-c", code, "train", "ddpm-chest", "-o", str(tmp_path / "run")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1 and done.stderr.count("\n") == 1
    assert "torch is not installed" in done.stderr and "pip install 'fabrica-imaging[train]'" in done.stderr


STUDY = """
import sys
from pathlib import Path
from fabrica.cli.main import main
from fabrica.serving.study.folder import open_study
home = Path(sys.argv[1])
sys.argv[1:] = ["study", "new", str(home / "c.yaml"), "-o", str(home / "study")]
main()
with open_study(home / "study").answers() as answers:
    (reader,) = answers.readers
    answers.answer(reader, answers.next_trial(reader), {"score": 3}, seconds=1, request="a")
    print(answers.verify() == "")
sys.argv[1:] = ["study", "results", str(home / "study")]
sys.stderr = sys.stdout
main()
"""


def test_a_reader_study_is_made_and_answered(base: Path, tmp_path: Path) -> None:
    """And its page says what it needs."""
    for arm in ("a", "b"):
        (tmp_path / arm).mkdir()
        fabrica.write(head(3, 32, contrasts=["T1"]).images["T1"], tmp_path / arm / "one.nii.gz")
    arms = "[{name: a, images: a}, {name: b, images: b}]"
    (tmp_path / "c.yaml").write_text(f"kind: clarity\nreaders: [A]\narms: {arms}\n")
    start = f"import sys; sys.path[1:1] = [{str(SOURCE)!r}, {str(base)!r}]\n"
    command = [sys.executable, "-I", "-S", "-c", start + STUDY, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1 and "True" in done.stdout.splitlines(), done.stdout + done.stderr
    assert "pip install 'fabrica-imaging[study]'" in done.stdout.splitlines()[-1]


APPLY = """
from fabrica.codec import Codec
from fabrica.inference.files import apply
from fabrica.inference.translation import Way
from fabrica.inference.translator import Deployed
from fabrica.recipe.found import Fingerprint
from fabrica.recipe.schema import DataConfig

hu = Codec("window", -1024.0, 3071.0, "HU")
data = DataConfig(a="MR", b="CT", paired=True, size=[32, 32], fit="exact")
way = Way(lambda windows: windows[:, :1], hu, hu, data, Fingerprint("CT"), "CT", model="unchanged")
(outcome,) = apply(Deployed("unchanged", "0" * 12, {"a2b": way}), sys.argv[1], sys.argv[2], uncertainty=True)
print(outcome.output)
picky = Way(way.net, hu, hu, data, Fingerprint("MR"), "CT", model="picky")
try:
    apply(Deployed("picky", "0" * 12, {"a2b": picky}), sys.argv[1], sys.argv[2] + "-not")
except Exception as error:
    print(error)
"""


def test_a_series_is_translated_refused_and_written(base: Path, tmp_path: Path) -> None:
    """By a network of plain numpy: what runs it is not the wing's business."""
    fabrica.write(head(3, 48, 6, contrasts=["CT"]).images["CT"], tmp_path / "ct", as_="dicom")
    output, refusal = run(base, APPLY, tmp_path / "ct", tmp_path / "out").splitlines()
    before, after = fabrica.read(tmp_path / "ct"), fabrica.read(tmp_path / "out" / output)
    assert after.unit == "HU" and np.allclose(after.affine, before.affine, atol=1e-3)
    assert float(np.abs(after.data - np.clip(before.data, -1024, 3071)).max()) <= 1.0
    result = json.loads((tmp_path / "out" / "result.json").read_text())
    assert result["model"] == "unchanged" and result["results"][0]["uncertainty_map"]
    assert "its modality is CT, and MR in training" in refusal


def test_an_exported_model_is_applied(with_runtime: Path, tmp_path: Path) -> None:
    """From scanner files to scanner files, in an environment without PyTorch: the files are the same, bit for bit."""
    fabrica.write(head(3, 48, 6, contrasts=["CT"]).images["CT"], tmp_path / "ct", as_="dicom")
    model = handmade(tmp_path / "model")
    words = ["apply", model, tmp_path / "ct", "--uncertainty", "-o"]
    run(with_runtime, "from fabrica.cli.main import main; main()", *words, tmp_path / "out")
    assert call(*words, tmp_path / "with").returncode == 0
    one, other = (fabrica.read(tmp_path / name / "ct") for name in ("out", "with"))
    assert np.array_equal(one.data, other.data) and one.unit == "HU"
    maps = [(tmp_path / name / "ct-uncertainty.nii.gz").read_bytes() for name in ("out", "with")]
    assert maps[0] == maps[1]
    results = [json.loads((tmp_path / name / "result.json").read_text()) for name in ("out", "with")]
    assert results[0] == results[1] and results[0]["model"] == "handmade"


def test_an_exported_model_draws(with_runtime: Path, tmp_path: Path) -> None:
    """In an environment without PyTorch: every file is the same as where it is installed, bit for bit."""
    model = handmade_synthesiser(tmp_path / "model")
    words = ["sample", model, "-n", 3, "--seed", 4, "--label", "ill", "--guidance", 3, "--as"]
    for kind in ("nifti", "dicom"):
        code = "from fabrica.cli.main import main; main()"
        run(with_runtime, code, *words, kind, "-o", tmp_path / f"out-{kind}")
        assert call(*words, kind, "-o", tmp_path / f"with-{kind}").returncode == 0
        files = sorted((tmp_path / f"out-{kind}").iterdir())
        assert len(files) == 5 and {"manifest.csv", "preview.png"} <= {each.name for each in files}
        for each in files:
            assert each.read_bytes() == (tmp_path / f"with-{kind}" / each.name).read_bytes(), each.name


def test_exported_models_are_explained(with_runtime: Path, tmp_path: Path) -> None:
    """Maps, arrays and figures are the same; the page needs more."""
    fabrica.write(head(3, 48, contrasts=["CT"]).images["CT"], tmp_path / "ct.nii.gz")
    parts = ["explain", handmade(tmp_path / "model"), tmp_path / "ct.nii.gz", "--at", "20,24", "-o"]
    labels = ["explain", handmade_synthesiser(tmp_path / "drawing"), "-n", 2, "-o"]
    for name, words in (("parts", parts), ("labels", labels)):
        run(with_runtime, "from fabrica.cli.main import main; main()", *words, tmp_path / name)
        assert call(*words, tmp_path / f"with-{name}").returncode == 0
        files, more = ({path.name for path in (tmp_path / each).iterdir()} for each in (name, f"with-{name}"))
        assert more - files == {"report.html"} and files < more
        for each in files:
            if not each.endswith(".npz"):
                assert (tmp_path / name / each).read_bytes() == (tmp_path / f"with-{name}" / each).read_bytes(), each


def test_an_exported_model_is_served(with_serving: Path, tmp_path: Path) -> None:
    """By processes none of which has PyTorch: the file is the one that `apply` writes."""
    fabrica.write(head(3, 48, contrasts=["CT"]).images["CT"], tmp_path / "ct.dcm")
    model = handmade(tmp_path / "model")
    code = f"import sys; sys.path[1:1] = [{str(SOURCE)!r}, {str(with_serving)!r}]\n"
    code += "from fabrica.cli.main import main; main()"
    command = [sys.executable, "-I", "-S", "-c", code, "serve", str(model), "--port", "0"]
    with started(command) as server, server.client() as client:
        answer = client.post("v1/apply", content=(tmp_path / "ct.dcm").read_bytes())
    assert answer.status_code == 200, answer.text
    (tmp_path / "got.dcm").write_bytes(answer.content)
    run(
        with_serving,
        "from fabrica.cli.main import main; main()",
        "apply",
        model,
        tmp_path / "ct.dcm",
        "-o",
        tmp_path / "o",
    )
    made = next((tmp_path / "o").glob("*.dcm"))
    assert np.array_equal(fabrica.read(tmp_path / "got.dcm").data, fabrica.read(made).data)


def test_an_exported_model_says_what_runs_it(base: Path, tmp_path: Path) -> None:
    fabrica.write(head(3, 32, 2, contrasts=["CT"]).images["CT"], tmp_path / "ct", as_="dicom")
    code = "from fabrica.cli.main import main\ntry:\n    main()\nexcept SystemExit as ended:\n    print(ended.code)"
    printed = run(base, f"sys.stderr = sys.stdout\n{code}", "apply", handmade(tmp_path / "model"), tmp_path / "ct")
    assert printed.splitlines() == [
        "fabrica: onnxruntime is not installed; this command needs it: pip install 'fabrica-imaging[runtime]'",
        "1",
    ]


def test_the_card_of_a_model_is_written(base: Path) -> None:
    code = (
        "from dataclasses import replace\n"
        "from fabrica.recipe.card import card, translation\nfrom fabrica.recipe.found import Found, HeldOutError\n"
        "from fabrica.recipe.load import load_recipe\n"
        "recipe = load_recipe('nafnet-lowdose')\n"
        "found = replace(Found.asked(recipe), held_out_b=HeldOutError('mae', 'HU', 10, 20, 30, 8, 8, 5, 12))\n"
        "print(card(recipe, found, translation(recipe, found, ['a2b']), 1_000_000, 'the last'))"
    )
    assert "held-out error 10 HU" in run(base, code)
