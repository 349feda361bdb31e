"""The command line as a stranger uses it: exit codes, one clear line, nothing heavy imported for --help."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

CLI = [sys.executable, "-m", "fabrica"]


def call(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*CLI, *map(str, arguments)], capture_output=True, text=True, timeout=120)


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
        "from fabrica.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "heavy = [m for m in ('torch', 'monai', 'numpy', 'pydicom', 'matplotlib') if m in sys.modules]\n"
        "print('HEAVY', heavy)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert "HEAVY []" in done.stdout, done.stdout + done.stderr
    assert "scan" in done.stdout and "evaluate" in done.stdout


def test_wrong_use_exits_with_two() -> None:
    complains(call("train", "ddpm-chst"), 2, "did you mean ddpm-chest?")
    complains(call("train", "ddpm-chest", "train.stps=1"), 2, "did you mean steps?")
    complains(call("train"), 2, "found 0 recipe names")
    complains(call("sample", "nowhere"), 2, "not a model folder")
    complains(call("explode"), 2, "explode")
    complains(call("sample", "nowhere", "--as", "gif"), 2, "--as gif")  # before anything is loaded
    complains(call("sample", "nowhere", "--seed", "-1"), 2, "--seed")


def test_without_a_command_the_help_is_shown() -> None:
    done = call()
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
    assert lines[-1] == "left out 3 more; --json lists all of them" and "23 files left out" in done.stdout


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


def test_the_demo_runs_from_phantoms_to_report(tmp_path: Path) -> None:
    done = subprocess.run([*CLI, "demo", "-o", str(tmp_path), "--minutes", "0.3"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "report/report.html").stat().st_size > 50_000
    assert len(list((tmp_path / "dicom").glob("*.dcm"))) == 16


def test_the_public_verbs_are_functions_even_after_their_modules_are_loaded() -> None:
    import fabrica
    import fabrica.evaluation
    import fabrica.training

    for verb in ("read", "write", "scan", "train", "load", "evaluate"):
        assert callable(getattr(fabrica, verb)), verb
