"""A folder that fills up: each image once, when it is complete, whatever happens meanwhile."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fabrica import io, runtime
from fabrica.errors import UsageError
from fabrica.image import Image
from fabrica.inference.results import Outcome
from fabrica.inference.translator import Translates
from fabrica.inference.watch import LEFT_OUT, MOST, WORKING, Done, Watch
from fabrica.phantoms.head.head import head
from tests.handmade import handmade

QUIET = 5.0
START = 2e9  # after all times of files here


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Translates:
    return runtime.opened(handmade(tmp_path_factory.mktemp("exported") / "model"))


@pytest.fixture(scope="module")
def ct() -> Image:
    return head(3, 32, 4, contrasts=["CT"]).images["CT"]


@pytest.fixture
def inbox(tmp_path: Path) -> Path:
    (tmp_path / "in").mkdir()
    return tmp_path / "in"


def watching(model: Translates, inbox: Path, **choices: Any) -> Watch:
    return Watch(model, inbox, inbox.parent / "out", QUIET, choices)


def looked(watch: Watch, now: float) -> list[Done]:
    with watch.alone():
        return list(watch.look(now))


def made(inbox: Path) -> list[str]:
    out = inbox.parent / "out"
    return sorted(path.name for path in out.iterdir() if path.name != LEFT_OUT and not path.name.startswith("."))


def at(path: Path, seconds: float) -> None:
    os.utime(path, (seconds, seconds))


def test_a_file_is_taken_once_it_is_quiet_and_once_only(model: Translates, ct: Image, inbox: Path) -> None:
    io.write(ct, inbox / "a.nii.gz")
    at(inbox / "a.nii.gz", START)
    watch = watching(model, inbox)
    assert [looked(watch, START + k) for k in (0, QUIET - 1)] == [[], []]
    (done,) = looked(watch, START + QUIET)
    assert done.source == str(inbox / "a.nii.gz") and done.name.startswith("a-") and not done.refused
    assert looked(watch, START + 99) == [] and made(inbox) == [done.name]
    told = json.loads((inbox.parent / "out" / done.name / "result.json").read_text())
    assert told["source"] == done.source and told["sha256"].startswith(done.name.removeprefix("a-"))
    assert told["results"][0]["input"] == done.source and told["model"] == "handmade"
    assert io.read(inbox.parent / "out" / done.name / "a.nii.gz").size == ct.size
    assert looked(watching(model, inbox), START + 999) == []  # another process, later
    assert not list((inbox.parent / "out" / WORKING).iterdir())


def test_what_grows_is_waited_for_and_what_is_renamed_in_is_not(model: Translates, ct: Image, inbox: Path) -> None:
    io.write(ct, inbox.parent / "whole.nii.gz")
    content = (inbox.parent / "whole.nii.gz").read_bytes()
    watch = watching(model, inbox)
    for k in range(1, 9):
        (inbox / "slow.nii.gz").write_bytes(content[: k * len(content) // 8])
        at(inbox / "slow.nii.gz", START + 3 * k)
        assert looked(watch, START + 3 * k) == []
    (inbox.parent / "whole.nii.gz").rename(inbox / "moved.nii.gz")
    at(inbox / "moved.nii.gz", START)
    (inbox / "later.nii.gz.part").write_bytes(content)
    at(inbox / "later.nii.gz.part", START)
    names = [done.source for done in looked(watch, START + 25)]
    assert names == [str(inbox / "moved.nii.gz")]  # at the first look at it; of the other one a second is over
    assert [done.source for done in looked(watch, START + 40)] == [str(inbox / "slow.nii.gz")]
    assert len(made(inbox)) == 2


def test_a_series_is_one_image_and_waits_for_its_last_slice(model: Translates, ct: Image, inbox: Path) -> None:
    """Slices renamed in one by one, of two series in one folder; one comes late, and the series is made anew."""
    for name in ("one", "two"):
        io.write(ct.with_data(ct.data + (name == "two")), inbox.parent / name, as_="dicom")
    slices = sorted((inbox.parent / "one").iterdir())
    others = sorted((inbox.parent / "two").iterdir())
    watch = watching(model, inbox, force=True)
    for k, path in enumerate(slices[:-1]):
        at(path, 1e9)
        path.rename(inbox / f"one-{path.name}")
        others[k].rename(inbox / f"two-{path.name}")
        assert looked(watch, START + k) == []
    others[-1].rename(inbox / "two-last.dcm")
    assert looked(watch, START + 4) == []
    (first,) = looked(watch, START + 8)  # quiet since second 2; the other since second 4
    (second,) = looked(watch, START + 9)
    assert "series" in first.source and first.source != second.source
    volumes = [inbox.parent / "out" / each.name / "series" for each in (first, second)]
    assert [len(list(volume.iterdir())) for volume in volumes] == [3, 4]
    slices[-1].rename(inbox / "one-last.dcm")
    assert looked(watch, START + 20) == []
    (again,) = looked(watch, START + 25)
    assert again.name != first.name and len(list((inbox.parent / "out" / again.name / "series").iterdir())) == 4
    for path in inbox.iterdir():  # inputs that are cleared away make no new image of what is left
        path.unlink()
        assert looked(watch, START + 99) == []


def test_what_cannot_be_used_is_kept_apart_with_one_line_and_not_tried_again(
    model: Translates, ct: Image, inbox: Path
) -> None:
    io.write(ct, inbox / "good.nii.gz")
    (inbox / "bad.nii.gz").write_bytes((inbox / "good.nii.gz").read_bytes()[:500])
    (inbox / "bad.dcm").write_bytes(b"no image at all")
    (inbox / "notes.txt").write_text("nothing for a model")
    np.savez(inbox / "strange.npz", image=np.full((1, 8, 8), np.nan, dtype=np.float32))
    for path in inbox.iterdir():
        at(path, START)
    watch = watching(model, inbox)
    found = {Path(done.source).name: done.refused for done in looked(watch, START + 60)}
    assert set(found) == {"good.nii.gz", "bad.nii.gz", "bad.dcm", "strange.npz"} and not found.pop("good.nii.gz")
    for name, said in found.items():
        assert said and "\n" not in said and name in said and WORKING not in said, said
    notes = sorted((inbox.parent / "out" / LEFT_OUT).iterdir())
    assert len(notes) == 3 and {json.loads(note.read_text())["refused"] for note in notes} == set(found.values())
    assert looked(watch, START + 99) == [] and looked(watching(model, inbox), START + 99) == []
    shutil.copyfile(inbox / "good.nii.gz", inbox / "bad.nii.gz")  # mended: it is another file
    at(inbox / "bad.nii.gz", START + 100)
    (mended,) = looked(watch, START + 199)
    assert mended.source.endswith("bad.nii.gz") and not mended.refused and len(made(inbox)) == 2


class Ends:
    """A model that ends the process, as an error of outside code would, or a stop."""

    name, hash = "ends", "0"

    def __init__(self, model: Translates, error: BaseException) -> None:
        self.model, self.error = model, error

    def way(self, direction: str = "a2b") -> Any:
        from dataclasses import replace

        def net(_: object) -> Any:
            raise self.error

        return replace(self.model.way(direction), net=net)


def test_a_stop_is_not_the_images_fault_and_a_crash_is_after_a_few(model: Translates, ct: Image, inbox: Path) -> None:
    io.write(ct, inbox / "a.nii.gz")
    at(inbox / "a.nii.gz", START)
    out = inbox.parent / "out"
    for _ in range(2 * MOST):
        with pytest.raises(KeyboardInterrupt):
            looked(watching(Ends(model, KeyboardInterrupt()), inbox), START + 9)  # type: ignore[arg-type]
        assert made(inbox) == [] and not list((out / WORKING).iterdir())
    (wrong,) = looked(watching(Ends(model, ZeroDivisionError("x")), inbox), START + 9)  # type: ignore[arg-type]
    assert "unexpected ZeroDivisionError: x" in wrong.refused
    shutil.rmtree(out)
    for _ in range(MOST):
        with pytest.MonkeyPatch.context() as patch:  # what a kill leaves behind
            patch.setattr("fabrica.inference.watch.shutil.rmtree", lambda *_, **__: None)
            with pytest.raises(KeyboardInterrupt):
                looked(watching(Ends(model, KeyboardInterrupt()), inbox), START + 9)  # type: ignore[arg-type]
        assert made(inbox) == []
        for left in (out / WORKING).glob("*/[io]*"):
            shutil.rmtree(left)
    (given_up,) = looked(watching(model, inbox), START + 9)
    assert "has brought the process down 3 times" in given_up.refused and made(inbox) == []


def test_what_changes_while_it_is_read_is_made_when_it_is_whole(model: Translates, ct: Image, inbox: Path) -> None:
    io.write(ct, inbox / "a.nii.gz")
    at(inbox / "a.nii.gz", START)
    watch = watching(model, inbox)

    class Grows(Ends):
        def way(self, direction: str = "a2b") -> Any:
            at(inbox / "a.nii.gz", START + 8)
            return self.model.way(direction)

    watch.model = Grows(model, ValueError())  # type: ignore[assignment]
    assert looked(watch, START + 9) == [] and made(inbox) == []
    watch.model = model
    assert looked(watch, START + 10) == []
    assert len(looked(watch, START + 99)) == 1 == len(made(inbox))


def test_two_at_once_and_folders_within_one_another_are_refused(model: Translates, inbox: Path) -> None:
    watch = watching(model, inbox)
    with watch.alone(), pytest.raises(UsageError, match="another process watches"), watching(model, inbox).alone():
        pass
    for source, out in ((inbox, inbox / "out"), (inbox / "sub", inbox), (inbox, inbox)):
        source.mkdir(exist_ok=True)
        with pytest.raises(UsageError, match="lie within one another"):
            Watch(model, source, out, QUIET, {})
    with pytest.raises(UsageError, match="is no folder"):
        Watch(model, inbox / "none", inbox.parent / "out", QUIET, {})


EVENTS = st.lists(
    st.one_of(
        st.tuples(st.just("write"), st.integers(0, 3), st.integers(0, 2)),
        st.tuples(st.just("remove"), st.integers(0, 3), st.just(0)),
        st.tuples(st.just("look"), st.integers(1, 7), st.just(0)),
        st.tuples(st.just("start"), st.just(0), st.just(0)),
    ),
    max_size=25,
)


@given(events=EVENTS)
@settings(max_examples=60, deadline=None)
def test_whatever_comes_and_goes_each_content_is_made_exactly_once(
    events: list[tuple[str, int, int]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Files written, changed, removed, and the process started anew, in any order: no name and content twice, and all
    that lies there in the end."""
    home = tmp_path_factory.mktemp("any")
    inbox, now, calls = home / "in", START, list[str]()
    inbox.mkdir()

    def applied(model: Translates, source: Path, out: Path, **_: object) -> list[Outcome]:
        (path,) = source.iterdir()
        calls.append(f"{path.name} {path.read_text()}")
        out.mkdir()
        (out / "result.json").write_text('{"results": []}')
        return [Outcome(str(path), "made.png")]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fabrica.inference.watch.apply", applied)
        model = Ends(None, ValueError())  # type: ignore[arg-type]
        watch = watching(model, inbox)  # type: ignore[arg-type]
        for what, number, content in events:
            path = inbox / f"{number}.png"
            if what == "write":
                path.write_text("x" * (content + 1))
                at(path, now)
            elif what == "remove":
                path.unlink(missing_ok=True)
            elif what == "start":
                watch = watching(model, inbox)  # type: ignore[arg-type]
            else:
                now += number
                looked(watch, now)
        looked(watch, now)
        looked(watch, now + 2 * QUIET)
    assert len(calls) == len(set(calls)) == len(made(inbox))
    assert {f"{path.name} {path.read_text()}" for path in inbox.iterdir()} <= set(calls)
