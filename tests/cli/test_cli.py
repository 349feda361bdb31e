"""The command line as a stranger uses it: exit codes, one clear line, nothing heavy imported for --help."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Pillow

import fabrica
from fabrica import io
from fabrica.cli.bars import training_bar
from fabrica.cli.main import app
from fabrica.data.manifest import Manifest
from fabrica.errors import UsageError
from fabrica.io.contact_sheet import image_grid
from fabrica.phantoms.head.head import head
from fabrica.recipe.load import load_recipe
from fabrica.training.loop import train
from tests.command import CLI, alone, call

pytestmark = pytest.mark.usefixtures("few_asked")


def complains(done: subprocess.CompletedProcess[str], code: int, *words: str) -> None:
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    assert len(lines) == 1 and lines[0].startswith("fabrica: "), done.stderr
    for word in words:
        assert word in lines[0]


def test_help_imports_neither_torch_nor_monai() -> None:
    script = (
        "import sys; sys.argv = ['fabrica', '--help']\n"
        "from fabrica.cli.main import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "heavy = [m for m in ('torch', 'monai', 'numpy', 'pydicom', 'matplotlib') if m in sys.modules]\n"
        "print('HEAVY', heavy)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert "HEAVY []" in done.stdout, done.stdout + done.stderr
    assert "scan" in done.stdout and "evaluate" in done.stdout


def test_wrong_use_exits_with_two() -> None:
    complains(alone("train", "ddpm-chst"), 2, "did you mean ddpm-chest?")
    complains(call("train", "ddpm-chest", "train.stps=1"), 2, "did you mean steps?")
    complains(call("train"), 2, "found 0 recipe names")
    complains(call("sample", "nowhere"), 2, "not a model folder")
    complains(call("explode"), 2, "explode")
    complains(call("sample", "nowhere", "--as", "gif"), 2, "--as gif")  # before anything is loaded
    complains(call("sample", "nowhere", "--seed", "-1"), 2, "--seed")


def test_training_without_data_does_not_look_into_the_folder_it_stands_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("broken.png").write_text("not an image")
    complains(call("train", "ddpm-xray", "-o", "run"), 2, "the recipe has no data")


def test_without_a_command_the_help_is_shown() -> None:
    done = alone()
    assert done.returncode == 0 and "Usage: " in done.stdout and "evaluate" in done.stdout and done.stderr == ""


def test_folders_without_images_say_what_was_found(tmp_path: Path) -> None:
    complains(call("scan", tmp_path, "-o", tmp_path / "m.csv"), 1, "no image")
    (tmp_path / "notes.txt").write_text("not an image")
    complains(call("scan", tmp_path, "-o", tmp_path / "m.csv"), 1, ".txt")
    complains(call("scan", tmp_path / "missing", "-o", tmp_path / "m.csv"), 2, "missing")
    assert not (tmp_path / "m.csv").exists()


def test_scan_names_the_first_damaged_files_and_counts_the_others(tmp_path: Path) -> None:
    assert call("phantom", "chest", "-n", 1, "--size", 16, "-o", tmp_path / "data").returncode == 0
    for k in range(23):
        (tmp_path / "data" / f"broken{k:02d}.png").write_text("not an image")
    done = call("scan", tmp_path / "data", "-o", tmp_path / "m.csv")
    lines = done.stderr.splitlines()
    assert done.returncode == 0 and sum("broken" in line for line in lines) == 20
    assert lines[-1] == "left out 3 more; --json lists all of them" and "23 left out" in done.stdout


@pytest.mark.skipif(sys.platform == "darwin", reason="macOS takes no such names")
def test_a_message_is_one_line_whatever_bytes_a_name_holds(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    Path(os.fsdecode(os.fsencode(tmp_path / "d") + b"/r\xf6\n\x1b[1mx.png")).write_bytes(b"broken")
    done = call("scan", tmp_path / "d", "-o", tmp_path / "m.csv")
    complains(done, 1, r"r\xf6\n\x1b[1mx.png cannot be read: damaged")


def test_a_manifest_naming_missing_files_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_text("id,patient,path,split\na,p,gone.png,train\nb,q,lost.png,val\n")
    complains(call("train", "ddpm-chest", "--data", tmp_path / "m.csv", "-o", tmp_path / "run"), 2, "gone.png")


def test_recipes_are_listed_for_machines_and_people() -> None:
    rows = json.loads(call("recipes", "--json").stdout)
    assert {"name", "method", "task", "cost", "score"} <= set(rows[0])
    assert "ddpm-chest" in call("recipes").stdout


def test_phantoms_to_manifest_to_scan(tmp_path: Path) -> None:
    assert call("phantom", "chest", "-n", "12", "--size", "32", "-o", tmp_path / "p").returncode == 0
    done = call("scan", tmp_path / "p", "--json", "-o", tmp_path / "m.csv")
    summary = json.loads(done.stdout)
    assert sum(summary["images"].values()) >= 12 and summary["rejected"] == []


@pytest.fixture(scope="module")
def gan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An MLP GAN after four steps."""
    home = tmp_path_factory.mktemp("gan")
    (home / "tiny.yaml").write_text(
        "name: tiny\nmethod: {name: mlp-gan}\ndata: {source: 'phantom:chest', size: 32, count: 64, batch: 16}\n"
        "train: {steps: 4, validate_every: 4}\n"
    )
    return train(load_recipe(home / "tiny.yaml"), home / "run")


@pytest.fixture(scope="module")
def diffusion(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A diffusion model of two steps that takes labels."""
    overrides = [
        *("method.channels=[8,16]", "method.attention=[false,false]", "method.head_channels=8", "method.norm_groups=8"),
        *("data.size=16", "data.count=64", "data.batch=8", "data.condition=label"),
        *("train.steps=2", "train.minutes=0", "train.validate_every=2", "sample.steps=2"),
    ]
    return train(load_recipe("ddpm-chest", overrides), tmp_path_factory.mktemp("diffusion") / "run")


def fabrica_(*arguments: object) -> None:
    """The command line without a new process; wrong use is raised."""
    app([str(word) for word in arguments], standalone_mode=False)


def tiles(picture: Path, count: int) -> list[np.ndarray]:
    """The images of a sheet of tiles of 96 pixels with gaps of 2, eight in a row."""
    sheet = np.asarray(Pillow.open(picture)).astype(int)
    corners = [(k // 8 * 98, k % 8 * 98) for k in range(count)]
    return [sheet[top : top + 96, left : left + 96] for top, left in corners]


@pytest.mark.parametrize("which", ["gan", "diffusion"])
def test_an_interpolation_begins_and_ends_with_the_samples_of_its_seeds(
    which: str, tmp_path: Path, request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]
) -> None:
    run = request.getfixturevalue(which)
    model = fabrica.load(run)
    choices = ["--label", model.found.classes[-1], "--steps", 3] if which == "diffusion" else ["--truncation", 1]
    fabrica_("sample", run, "--interpolate", 3, 8, "--frames", 10, "-o", tmp_path, *choices)
    strip, gif = tmp_path / "interpolation-3-8.png", tmp_path / "interpolation-3-8.gif"
    assert str(strip) in (said := capsys.readouterr().out) and str(gif) in said
    found = tiles(strip, 10)
    for seed, frame in ((3, found[0]), (8, found[-1])):
        fabrica_("sample", run, "-n", 1, "--seed", seed, "-o", tmp_path / "samples", *choices)
        image = fabrica.read(*(tmp_path / "samples").glob(f"{model.hash}-{seed:06d}*.png"))
        alone = image_grid(model.codec.encode(image)[None]).astype(int)
        np.testing.assert_allclose(frame, alone, atol=3)  # bf16 kernels differ slightly with the batch size
    assert np.abs(found[0] - found[-1]).max() > 6
    assert np.asarray(Pillow.open(strip)).shape == (96 + 2 + 96, 8 * 98 - 2)
    with Pillow.open(gif) as moving:
        assert moving.n_frames == 10 + 8  # there, and back without the two ends


def test_samples_can_be_looked_at_on_one_sheet_which_is_no_image_itself(
    gan: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, out = fabrica.load(gan), tmp_path / "samples"
    fabrica_("sample", gan, "-n", 10, "--seed", 3, "-o", out)
    assert "on one sheet: preview.png" in capsys.readouterr().out
    found = tiles(out / "preview.png", 10)
    for k, row in enumerate(sorted(Manifest.load(out / "manifest.csv").rows, key=lambda row: row.id)):
        alone = image_grid(model.codec.encode(fabrica.read(out / row.path))[None])
        np.testing.assert_allclose(found[k].astype(int), alone, atol=1)
    (out / "manifest.csv").unlink()
    fabrica_("scan", out, "-o", tmp_path / "found.csv")
    assert "1 file not looked into: 1 preview" in " ".join(capsys.readouterr().out.split())
    assert len(Manifest.load(tmp_path / "found.csv").rows) == 10


def test_truncation_makes_samples_more_alike(gan: Path) -> None:
    wide, narrow = (fabrica.load(gan).sample_array(16, truncation=limit).std(0).mean() for limit in (0, 0.1))
    assert narrow < 0.3 * wide


def test_interpolation_refuses_what_it_has_no_use_for(gan: Path, tmp_path: Path) -> None:
    two = ("--interpolate", 1, 2)
    for words, message in (
        ((*two, "-n", 4, "--as", "png"), "-n, --as cannot stand beside --interpolate"),
        ((*two, "--seed", 0), "--seed cannot stand"),
        (("--frames", 4), "--frames cannot stand without --interpolate"),
        ((*two, "--frames", 1), "asked for 1 frames; expected at least 2"),
        (("--interpolate", 1, -2), "expected two seeds from 0"),
        ((*two, "--steps", 3), "has no steps; it has truncation"),
        ((*two, "--label", "normal"), "is told no label"),
        (("--truncation", -1), "asked for truncation -1"),
    ):
        with pytest.raises(UsageError, match=re.escape(message)):
            fabrica_("sample", gan, "-o", tmp_path / "out", *words)
    assert not (tmp_path / "out").exists()


ROW = {"step": 500.0, "done": 0.25, "loss": 1.5, "images_per_s": 200.0}
PLAYERS = {"real_accuracy": 0.85, "fake_accuracy": 0.8, "grad_norm_critic": 1.21, "grad_norm_generator": 0.3}


def test_training_of_a_gan_is_told_line_by_line_to_a_file(capsys: pytest.CaptureFixture[str]) -> None:
    with training_bar() as (report, warn):
        report(ROW | PLAYERS | {"ms_ssim": 0.314})
        report(ROW | PLAYERS | {"step": 600.0, "done": 0.3, "frd": 55.12})
        warn("the samples [all of them] are alike; " + "lower train.lr " * 10)
        report(ROW | PLAYERS | {"step": 700.0, "done": 0.35})
        report(ROW | PLAYERS | {"step": 800.0, "done": 0.4, "frd": 1234.5, "ms_ssim": 0.9})
    assert capsys.readouterr().err.splitlines() == [
        " 30%  step 600 FRD 55.1 critic 85/80 % grad 1.2/0.3 MS-SSIM 0.31 200/s",
        "fabrica: warning: the samples [all of them] are alike; " + "lower train.lr " * 9 + "lower train.lr ",
        " 40%  step 800 FRD 1234 critic 85/80 % grad 1.2/0.3 MS-SSIM 0.90 200/s",
    ]


def test_the_opponent_of_a_critic_has_any_name(capsys: pytest.CaptureFixture[str]) -> None:
    others = {key: value for key, value in PLAYERS.items() if key != "grad_norm_generator"}
    with training_bar() as (report, _):
        report(ROW | others | {"grad_norm_autoencoder": 0.5, "grad_norm": 9.0, "val_loss": 0.0312})
    assert capsys.readouterr().err == " 25%  step 500 held-out 0.0312 critic 85/80 % grad 1.2/0.5 200/s\n"


def test_training_with_a_loss_is_told_as_before(capsys: pytest.CaptureFixture[str]) -> None:
    with training_bar() as (report, _):
        report(ROW | {"val_loss": 0.0312})
        report(ROW)
    assert capsys.readouterr().err == " 25%  step 500 loss 1.5000 held-out 0.0312 200 images/s\n"


def test_the_bar_of_a_gan_fits_eighty_columns_and_warnings_stand_above_it(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"TTY_COMPATIBLE": "1", "COLUMNS": "80", "TERM": "xterm", "NO_COLOR": "1"}.items():
        monkeypatch.setenv(name, value)
    with training_bar() as (report, warn):
        report(ROW | PLAYERS | {"step": 10_000.0, "real_accuracy": 1.0, "frd": 1234.5, "ms_ssim": 0.9})
        warn("the samples are alike")
    lines = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", capsys.readouterr().err).replace("\r", "\n").splitlines()
    assert "step 10000 FRD 1234 critic 100/80 % grad 1.2/0.3 MS-SSIM 0.90 200/s" in lines[-1]
    assert all(len(line) <= 80 for line in lines)
    assert any(line.strip() == "fabrica: warning: the samples are alike" for line in lines[:-1])


@pytest.mark.slow
def test_ctrl_c_says_that_it_stopped_and_fails(tmp_path: Path) -> None:
    command = [*CLI, "phantom", "chest", "-n", "100000", "--size", "16", "-o", str(tmp_path / "data")]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        while not (tmp_path / "data").exists():
            assert process.poll() is None
            time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=60)
    assert process.returncode == 1 and "Traceback" not in stderr
    assert stderr.splitlines()[-1].endswith("fabrica: stopped; what had been saved is kept")


def test_a_file_in_place_of_a_folder_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("a file")
    complains(call("phantom", "chest", "-n", 1, "--size", 16, "-o", tmp_path / "data"), 1, "data/images cannot be used")


@pytest.fixture(scope="module")
def translator(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CycleGAN of heads that has hardly learned anything."""
    folder = tmp_path_factory.mktemp("runs") / "translator"
    tiny = ["data.count=8", "data.size=32", "method.width=2", "method.blocks=1", "method.critic_width=4"]
    short = ["train.steps=2", "train.minutes=0", "train.validate_every=2", "train.precision=fp32"]
    train(load_recipe("cyclegan-head", [*tiny, *short]), folder)
    return folder


def test_a_head_goes_from_dicom_to_dicom_and_back(translator: Path, tmp_path: Path) -> None:
    io.write(head(9, 32, 4, contrasts=["T1"]).images["T1"], tmp_path / "mr", as_="dicom")
    more = ("--uncertainty", "--round-trip", "--json", "--force")
    done = call("apply", translator, tmp_path / "mr", "-o", tmp_path / "ct", *more)
    assert done.returncode == 0, done.stderr
    (told,) = json.loads(done.stdout)
    made = fabrica.read(tmp_path / "ct" / told["output"])
    assert made.unit == "HU" and made.origin["modality"] == "CT" and made.size == (4, 32, 32)
    assert {path.name for path in (tmp_path / "ct").iterdir()} == {
        "mr",
        "mr-preview.png",
        "mr-uncertainty.nii.gz",
        "mr-round-trip.nii.gz",
        "result.json",
    }
    back = call("apply", translator, tmp_path / "ct" / "mr", "-o", tmp_path / "back", "--direction", "b2a", "--force")
    errors = [line for line in back.stderr.splitlines() if line.startswith("fabrica:") and "warning" not in line]
    assert back.returncode == 0 and not errors, back.stderr
    assert fabrica.read(tmp_path / "back" / "mr").origin["modality"] == "MR"


def test_models_are_used_for_what_they_are(translator: Path, gan: Path, tmp_path: Path) -> None:
    io.write(head(9, 32, contrasts=["CT"]).images["CT"], tmp_path / "ct.nii.gz")
    complains(call("sample", translator, "-o", tmp_path / "a"), 2, "translates images", "fabrica apply")
    complains(call("apply", gan, tmp_path / "ct.nii.gz", "-o", tmp_path / "b"), 2, "makes images of noise")
    complains(call("apply", translator, tmp_path / "ct.nii.gz", "-o", tmp_path / "c"), 2, "its modality is CT, and MR")
    complains(call("apply", translator, tmp_path / "ct.nii.gz", "-o", tmp_path / "c", "--direction", "a2c"), 2, "a2c")
    complains(call("train", "cut-head", "data.a=T1", "data.b=T1"), 2, "from what to what")
    complains(call("train", "pix2pix-head", "data.paired=false"), 2, "learns from pairs")
    assert not list(tmp_path.glob("[abc]"))


def test_models_are_explained(diffusion: Path, translator: Path, gan: Path, tmp_path: Path) -> None:
    done = call("explain", diffusion, "--label", "nodule", "-n", 2, "-o", tmp_path / "label", "--json")
    assert done.returncode == 0, done.stderr
    (one,) = json.loads(done.stdout)["comparisons"]
    assert one["name"] == "nodule instead of normal" and one["score"]["finding"] == "nodule"
    done = call("explain", diffusion, "-n", 1, "-o", tmp_path / "all")
    assert done.returncode == 0 and done.stdout.count(" instead of normal: mean |difference|") == 6
    complains(call("explain", gan, "-o", tmp_path / "a"), 2, "told nothing of an image")
    io.write(head(9, 32, 3, contrasts=["T1"]).images["T1"], tmp_path / "mr", as_="dicom")
    words = ("--at", "16,16,1", "--force", "--window", 8)
    done = call("explain", translator, tmp_path / "mr", "-o", tmp_path / "head", *words)
    assert done.returncode == 0, done.stderr
    (part,) = json.loads((tmp_path / "head" / "explanation.json").read_text())["parts"]
    along = part["gradients"]
    assert along["gap"] == pytest.approx(abs(along["sum"] - along["expected"]))
    assert ("NOT complete" in done.stdout) is not along["complete"], "a network that has learned nothing may be steep"
    for name in ("occlusion", "contribution", "gradients"):
        found = fabrica.read(tmp_path / "head" / f"result-{name}.nii.gz")
        assert found.size == (3, 32, 32) and np.flatnonzero(np.abs(found.data).sum((0, 2, 3))).tolist() == [1]
    complains(call("explain", translator, tmp_path / "mr", "-o", tmp_path / "b", "--direction", "a2c"), 2, "a2c")
    assert not list(tmp_path.glob("[ab]"))


@pytest.mark.slow
def test_the_demo_runs_from_phantoms_to_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"LEAST": 20, "CURVE": (2,)}.items():  # synthetic images in the report, and sampler steps
        monkeypatch.setattr(f"fabrica.evaluation.synthesis.evaluate.{name}", value)
    done = call("demo", "-o", tmp_path, "--minutes", 0.02, "-n", 160, "--size", 16)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "report/report.html").stat().st_size > 50_000
    assert len(list((tmp_path / "dicom").glob("*.dcm"))) == 16
    assert load_recipe(tmp_path / "model/recipe.yaml").data.size == [16, 16]


def test_the_public_verbs_are_functions_even_after_their_modules_are_loaded() -> None:
    import fabrica
    import fabrica.evaluation
    import fabrica.evaluation.explanation
    import fabrica.training.loop

    for verb in ("read", "write", "scan", "train", "load", "evaluate", "explain"):
        assert callable(getattr(fabrica, verb)), verb
