"""What --help says: each option in its panel, with what it does, on a terminal of any width."""

import re
import subprocess
import sys

import pytest

from fabrica.cli.main import app

PANELS = {
    "sample": {
        "Arguments": "model",
        "What to draw": "--label --prompt --age --sex --view --mask",
        "From an image": "--from --strength --redraw",
        "How": "--steps --sampler --guidance --rescale --truncation --seed --precision",
        "Two seeds": "--interpolate --frames",
        "Output": "--out -n --as",
        "Options": "--help",
    },
    "evaluate": {
        "Arguments": "model",
        "What to judge": "--against --versus -n",
        "What to measure": "--extractor --curve --guidances --seed",
        "What synthetic images are worth": "--utility --paint --repeats --train-steps",
        "Output": "--out --json",
        "Options": "--help",
    },
    "explain": {
        "Arguments": "model IN",
        "Of images of noise": "--label --prompt --age --sex --view --mask --word --instead --finding -n --seed --steps "
        "--guidance",
        "Of an image": "--class --at --radius --region --direction --force",
        "How parts are hidden": "--window --stride --fill --no-gradients",
        "How": "--precision",
        "Output": "--out --json",
        "Options": "--help",
    },
}
ENTRY = re.compile(r"  (?:-o, )?(?P<name>-[\w-]+|[a-z]+|[A-Z]+) (?:<.*?>|[A-Z,\[\] ]+?)? {2,}(?P<said>\S.*)")


def helped(verb: str, columns: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> str:
    monkeypatch.setenv("COLUMNS", str(columns))
    app([verb, "--help"], standalone_mode=False)
    return capsys.readouterr().out


@pytest.mark.parametrize("columns", [80, 120])
@pytest.mark.parametrize("verb", PANELS)
def test_each_option_stands_in_its_panel(
    verb: str, columns: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shown = helped(verb, columns, monkeypatch, capsys)
    found: dict[str, list[str]] = {}
    panel = ""
    for line in shown.splitlines():
        if re.fullmatch(r"\w[\w ]*:", line):
            panel = line[:-1]
            found[panel] = []
        elif entry := ENTRY.match(line):
            found[panel].append(entry["name"])
    assert found == {name: options.split() for name, options in PANELS[verb].items()}
    assert columns - 20 < max(len(line) for line in shown.splitlines()) <= columns


@pytest.mark.parametrize("verb", PANELS)
def test_each_help_says_what_happens_without_the_option(
    verb: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shown = helped(verb, 120, monkeypatch, capsys)
    entries = re.split(r"\n(?=  \S)", shown.split("Arguments:\n")[1])
    assert len(entries) == sum(len(options.split()) for options in PANELS[verb].values())
    switches = "help|json|interpolate|utility|paint|force|no-gradients"  # what is off unless it is given
    for entry in entries:
        switch = re.match(rf" *--({switches}) ", entry)
        assert switch or "[default:" in entry or "[required]" in entry, entry


def test_every_option_of_every_verb_is_explained(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    app(["--help"], standalone_mode=False)
    verbs = re.findall(r"^  ([a-z]+) {2,}\S", capsys.readouterr().out.split("Commands:")[1], re.MULTILINE)
    assert {"scan", "train", "sample", "apply", "evaluate", "export"} < set(verbs)
    for verb in verbs:
        lines = helped(verb, 80, monkeypatch, capsys).splitlines()
        for line, following in zip(lines, [*lines[1:], ""], strict=True):
            if re.match(r"  -|  [a-zA-Z]+ <", line):
                said = re.search(r"\S  +(\S.*)", line) or re.match(r" {10,}\S", following)
                assert said, f"{verb}: {line}"
                assert len(line) > 32 or re.search(r"\S  +\S", line), f"{verb}: below {line}, though there is room"


def test_help_of_a_verb_imports_nothing_heavy() -> None:
    script = (
        "import sys; sys.argv = ['fabrica', 'sample', '--help']\n"
        "from fabrica.cli.main import main\n"
        "main()\n"
        "print('HEAVY', [m for m in ('torch', 'monai', 'numpy', 'pydicom', 'rich') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert "HEAVY []" in done.stdout, done.stdout + done.stderr
