"""Every command in README.md and README.zh.md runs: one after the other in one folder, as a reader would, on phantoms,
with trainings cut to two steps of small networks. Commands are read from the files, so that a new one is run, too."""

from __future__ import annotations

import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import fabrica
from fabrica.phantoms.chest.chest import chest
from fabrica.phantoms.head.head import head
from fabrica.recipe.load import load_recipe
from tests.command import call

pytestmark = pytest.mark.usefixtures("few_held_out", "few_asked")

HOME = Path(__file__).parents[2]
ENGLISH, CHINESE = HOME / "README.md", HOME / "README.zh.md"

NOT_RUN = {
    "git clone <this repository> fabrica && cd fabrica": "the repository is here, and its address not known",
    "python3 -m venv .venv && . .venv/bin/activate": "an environment is what the tests run in",
    "pip install -c constraints.txt '.[all]'": "installs from the network; `make` does it on every fresh machine",
    "make demo": "makes an environment of its own, then runs fabrica demo, which is run below",
    "make bench": "takes hours",
    "fabrica optimise runs/lowdose --budget 200ms -o fast": "minutes; no test promises a time: tests/export",
    "fabrica node runs/lowdose --send-to ARCHIVE@10.0.0.5:104": "serves until it is stopped: tests/serving/node",
    "fabrica serve runs/lowdose": "serves until it is stopped; tests/serving/http starts servers",
    "fabrica study serve study": "serves until it is stopped; tests/serving/study starts servers",
    "fabrica scan": "the verb's name in a table of benchmarks",
}

SMALL = "data.size=32 train.steps=2 train.minutes=0 train.validate_every=2 sample.steps=2"
TINY = "method.channels=[8,16] method.attention=[false,false] method.head_channels=8 method.norm_groups=8"
HEADS = "data.size=48 data.count=8 train.steps=2 train.minutes=0 train.validate_every=2"
CUT = {  # how a command begins -> what is added: later values of a recipe and later options win
    "fabrica train ddpm-xray": f"{SMALL} {TINY}",
    "fabrica train ddpm-chest": f"{SMALL} {TINY} data.count=64",
    "fabrica train --resume": "train.steps=4",
    "fabrica train strong-head": f"{HEADS} method.width=2 method.critic_width=4",
    "fabrica train nafnet-lowdose": f"{HEADS} data.crop=32",
    "fabrica train segment": f"{SMALL} method.width=2 data.batch=4",
    "fabrica apply runs/organs": "--force",
    "fabrica apply lowdose-ct": "--force",
    "fabrica train autoencoder-chest": f"{SMALL} data.count=64",
    "fabrica train latent-text-chest": f"{SMALL} data.count=64",
    "fabrica explain runs/text": "-n 2",
    "fabrica explain runs/lowdose": "--at 24,24,1 --window 16",
    "fabrica evaluate runs/xray": "-n 20 --curve 2",
    "fabrica evaluate runs/t1-ct": "-n 4",
    "fabrica evaluate runs/lowdose": "-n 2",
    "fabrica evaluate RUN": "-n 16",
    "fabrica study power": "--studies 50",
    "fabrica demo": "--minutes 0.01 -n 180 --size 16",
}
SLOW = ("fabrica demo --minutes 30",)  # its four steps are run one by one above, and by the tests of the command line


def commands(readme: Path) -> list[str]:
    """What a reader can type, in order: lines of indented blocks, without comments, and code within lines that begins
    with a program's name."""
    found = []
    text = re.sub(r"^```python\n.*?^```", "", readme.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    for line in text.splitlines():
        assert line.count("`") % 2 == 0, f"code that goes on in the next line would be overlooked: {line}"
        if line.startswith("    ") and line.strip():
            found.append(re.sub(r"\s+# .*", "", line).strip())
        else:
            found += re.findall(r"`((?:fabrica|make|python3?|pip) [^`]+)`", line)
    return found


def python_block(readme: Path) -> str:
    """The Python code, without comments."""
    (block,) = re.findall(r"^```python\n(.*?)^```", readme.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    return "\n".join(re.sub(r"\s+# .*", "", line) for line in block.splitlines())


COMMANDS = commands(ENGLISH)
RUN = list(dict.fromkeys(command for command in COMMANDS if command not in NOT_RUN))


def test_both_readmes_have_the_same_commands() -> None:
    assert commands(CHINESE) == COMMANDS and len(RUN) >= 15
    assert python_block(CHINESE) == python_block(ENGLISH)


def test_both_readmes_lead_to_each_other_and_to_files_that_are_there() -> None:
    for readme, other in ((ENGLISH, CHINESE), (CHINESE, ENGLISH)):
        text = readme.read_text(encoding="utf-8")
        assert f"]({other.name})" in text[:300]
        links = {link for link in re.findall(r"\]\(([^)#]+)[^)]*\)", text) if "://" not in link}
        assert not [link for link in links if not (HOME / link).exists()]
    links_of = [re.findall(r"\]\(((?:docs|examples)/[^)]+)\)", each.read_text("utf-8")) for each in (ENGLISH, CHINESE)]
    assert sorted(links_of[0]) == sorted(links_of[1])


def test_what_is_not_run_is_there() -> None:
    assert set(NOT_RUN) <= set(COMMANDS)
    for beginning in CUT:
        assert any(command.startswith(beginning) for command in RUN), beginning


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder in which all commands run, with what stands for a reader's own data."""
    home = tmp_path_factory.mktemp("reader")
    assert call("phantom", "chest", "-n", 200, "--size", 32, "-o", home / "FOLDER").returncode == 0
    for contrast in ("T1", "CT"):
        fabrica.write(head(7, 48, 3, contrasts=[contrast]).images[contrast], home / contrast, as_="dicom")
    fabrica.write(chest(7, 32).image, home / "chest.dcm")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        yield home


@pytest.fixture(scope="module")
def ran() -> dict[str, subprocess.CompletedProcess[str]]:
    """Command -> what became of it, of those that have run."""
    return {}


def ready(command: str) -> list[str]:
    """The command's words, with what stands for the reader's own data, and cut short."""
    added = next((more for beginning, more in CUT.items() if command.startswith(beginning)), "")
    own = {
        "RUN": "runs/autoencoder-chest",
        "SERIES": "T1" if "runs/t1-ct" in command else "chest.dcm" if "runs/organs" in command else "CT",
        "m.csv": "manifest.csv",
    }
    return [own.get(word, word) for word in shlex.split(f"{command} {added}")]


@pytest.mark.parametrize("command", [pytest.param(c, marks=pytest.mark.slow if c in SLOW else ()) for c in RUN])
def test_it_runs(command: str, place: Path, ran: dict[str, subprocess.CompletedProcess[str]]) -> None:
    for other in RUN[: RUN.index(command) + 1]:  # those before it make what it needs
        if other not in ran and (other == command or other not in SLOW):
            ran[other] = call(*ready(other)[1:])
    done, words = ran[command], ready(command)
    assert done.returncode == 0, f"{shlex.join(words)}: {done.stderr}"
    assert done.stdout
    if "-o" in words:
        made = place / words[words.index("-o") + 1]
        assert made.stat().st_size > 0 and (made.is_file() or any(made.iterdir()))


def test_what_was_drawn_can_be_seen(place: Path, ran: dict[str, subprocess.CompletedProcess[str]]) -> None:
    test_it_runs(RUN[-1], place, ran)
    drawn = [*place.glob("synthetic/*.dcm"), *place.glob("samples/*.png"), *place.glob("way/*.png")]
    assert len(drawn) == 64 + 16 + 1 + 1  # previews, too
    assert all(fabrica.read(path).data.std() > 0 for path in [*drawn, place / "ct" / "T1", place / "clear" / "CT"])


def test_the_python_code_runs(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train, evaluate = fabrica.train, fabrica.evaluate
    cut = CUT["fabrica train ddpm-chest"].split()
    monkeypatch.setattr(fabrica, "train", lambda name, out: train(load_recipe(name, cut), out), raising=False)
    monkeypatch.setattr(
        fabrica, "evaluate", lambda model, **choices: evaluate(model, n=16, steps_curve=(), **choices), raising=False
    )
    fabrica.write(chest(0, 32).image, place / "slice.dcm")
    values: dict[str, Any] = {}
    exec(python_block(ENGLISH), values)
    assert len(values["images"]) == 16 and fabrica.read("synthetic.dcm").data.std() > 0
    assert values["report"].scores["n_synthetic"] == 16
