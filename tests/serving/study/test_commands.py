"""The commands as docs/study.md shows them, on its own config, and what they say when something is wrong."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fabrica.errors import UsageError
from fabrica.serving.study.config import load_config
from fabrica.serving.study.folder import Placed, open_study
from fabrica.serving.study.making import new
from tests.command import call
from tests.serving.study.made import arms, no_model
from tests.serving.study.simulated import answer_all

DOCS = (Path(__file__).parents[3] / "docs" / "study.md").read_text(encoding="utf-8")
QUALITY = {"degraded": 2, "restored": 4, "reference": 4}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    home = tmp_path_factory.mktemp("docs")
    arms(home, 10, tuple(QUALITY))
    (config,) = re.findall(r"^```yaml\n(.*?)^```", DOCS, re.MULTILINE | re.DOTALL)
    (home / "study.yaml").write_text(config)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        yield home


def commands() -> list[list[str]]:
    return [line.split("#")[0].split()[1:] for line in DOCS.splitlines() if line.startswith("    fabrica study")]


def test_what_the_docs_show(place: Path) -> None:
    power, made, _, evaluated, *_ = commands()  # it is served in test_serving.py
    done = call(*power, "--studies", "50")
    assert done.returncode == 0 and re.search(r"readers and \d+ cases reach 0.8", done.stdout), done.stderr
    done = call(*made)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("study: 30 images in 3 arms, 3 readers of 32 trials each")
    again = call(*made, "--json")
    assert again.returncode == 0 and json.loads(again.stdout)["made"] is False
    study = open_study(place / "study")
    links = list(csv.DictReader((place / "study" / "key" / "links.csv").read_text().splitlines()))
    (code,) = re.findall(r"^```python\n(.*?)^```", DOCS, re.MULTILINE | re.DOTALL)
    exec(compile(code, "docs/study.md", "exec"), {"token": links[0]["token"]})
    with study.answers() as answers:
        assert [row.answer for row in answers.rows()] == [{"score": 4}] and len({link["link"] for link in links}) == 3
        answers.undo(answers.reader_of(links[0]["token"]) or "", request="2")

    def say(reader: str, trial: Placed) -> dict[str, Any]:
        return {"score": QUALITY[trial.arms[0]] + (ord(reader) + int(trial.case[-1])) % 2}

    answer_all(study, say)
    done = call(*evaluated)
    assert done.returncode == 0, done.stderr
    assert "The mean score of restored less that of degraded is +2.00" in done.stdout
    assert "restored as good as reference" in done.stdout and (place / "report" / "report.html").stat().st_size > 50_000


def test_a_changed_config_is_refused(place: Path) -> None:
    text = (place / "study.yaml").read_text()
    (place / "changed.yaml").write_text(text.replace("margin: 0.5", "margin: 1.5"))
    if not (place / "study").exists():
        assert call("study", "new", "study.yaml", "-o", "study").returncode == 0
        answer_all(open_study(place / "study"), lambda reader, trial: {"score": 3})
    done = call("study", "new", "changed.yaml", "-o", "study")
    assert done.returncode == 2 and "the config was changed since (margin)" in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("new", "nothing.yaml"), "no config at nothing.yaml"),
        (("results", "nothing"), "no study at nothing"),
        (("power", "clarity", "--effect", "0.5", "--readers", "few"), "expected whole numbers"),
        (("power", "taste", "--effect", "0.5"), "no kind 'taste'"),
    ],
)
def test_wrong_use_is_one_line(words: tuple[str, ...], said: str, place: Path) -> None:
    done = call("study", *words)
    assert done.returncode == 2 and said in done.stderr and done.stderr.count("\n") == 1


def test_every_key_of_the_docs_table_is_one(place: Path) -> None:
    rows = re.findall(r"^\| (`.*?) \|", DOCS, re.MULTILINE)
    keys = {key for row in rows for key in re.findall(r"`(\w+)`", row)}
    known = load_config(place / "study.yaml")
    assert keys >= {"scale", "confidence", "window"} and all(hasattr(known, key) for key in keys)
    with pytest.raises(UsageError, match=r"and no study"):
        new(known, place, place / "degraded", no_model)
