"""The garbage collector rests while a verb imports, and is afterwards as it was."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from fabrica.cli.importing import importing


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    yield
    gc.enable()


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The name of a module of a thousand lists that refer to themselves, which can be imported."""
    (tmp_path / "of_many_objects.py").write_text(
        "import gc\ncollects = gc.isenabled()\nkept = [[] for _ in range(1000)]\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    yield "of_many_objects"
    sys.modules.pop("of_many_objects", None)


@pytest.mark.parametrize("collects", [True, False])
def test_the_collector_rests_and_is_afterwards_as_it_was(collects: bool, package: str) -> None:
    if not collects:
        gc.disable()
    frozen = gc.get_freeze_count()
    with importing():
        module = __import__(package)
    assert gc.isenabled() == collects and not module.collects
    assert gc.get_freeze_count() >= frozen + 1000
    assert not any(each is module.kept for each in gc.get_objects()), "it is not looked through any more"


def test_where_nothing_is_imported_nothing_is_set_aside() -> None:
    gc.collect()
    frozen = gc.get_freeze_count()
    with importing():
        import json  # noqa: F401
    assert gc.isenabled() and gc.get_freeze_count() <= frozen


@pytest.mark.parametrize("error", [ModuleNotFoundError("No module", name="torch"), KeyboardInterrupt()])
def test_whatever_goes_wrong_passes_and_the_collector_is_on_again(error: BaseException) -> None:
    with pytest.raises(type(error)) as raised, importing():
        raise error
    assert raised.value is error and gc.isenabled()
