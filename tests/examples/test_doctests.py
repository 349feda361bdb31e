"""The examples in the docstrings of the public verbs do what they say."""

import doctest
from pathlib import Path

import pytest

import fabrica

VERBS = ("read", "write", "scan", "train", "load", "evaluate")


@pytest.mark.parametrize("verb", VERBS)
def test_the_example_of_a_verb_runs(verb: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (found,) = doctest.DocTestFinder(recurse=False).find(getattr(fabrica, verb), verb)
    assert len(found.examples) >= 3
    runner = doctest.DocTestRunner(verbose=False)
    said: list[str] = []
    assert runner.run(found, out=said.append).failed == 0, "".join(said)
