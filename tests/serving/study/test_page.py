"""The page on which readers answer, in a browser: by keys, by touch, in both languages."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from fabrica.serving.study.folder import Placed
from fabrica.serving.study.readings import load
from fabrica.serving.study.results import analysed
from tests.serving.http.browser import CHROMIUM, Browser, browser
from tests.serving.study.driven import in_order, opened, typed, waits
from tests.serving.study.made import arms, config_of, study
from tests.serving.study.served import served

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not CHROMIUM, reason="needs Chromium")]

PICTURES = os.environ.get("FABRICA_PICTURES", "")  # a folder that keeps what documents show
CASES = 4
NAMELESS = """[...document.querySelectorAll("button, input, canvas, [role=group], progress, summary")]
    .filter((e) => e.checkVisibility())
    .filter((e) => !(e.getAttribute("aria-label") || e.textContent || [...(e.labels ?? [])].map((l) => l.textContent)
        .join("")).trim()).map((e) => e.outerHTML)"""
"""Controls that are seen and have no name."""
WAIT = "new Promise((done) => setTimeout(done, 1000))"
SEEN = """Object.defineProperty(document, "visibilityState", {value: "STATE", configurable: true});
    document.dispatchEvent(new Event("visibilitychange"));"""
"""Another tab before this one, or this one again."""
LOST = """(() => {
    const before = window.fetch;
    window.fetch = (...words) => before(...words).then(() => {
        window.fetch = before;
        throw new TypeError("the connection ended");
    });
})()"""
"""The next answer of the server does not arrive."""
NARROW = "document.documentElement.scrollWidth <= innerWidth"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place: Path = tmp_path_factory.mktemp("page")
    arms(place, CASES + 1)
    arms(place / "fine", CASES + 1, side=256)  # what documents show
    rows = [f"case{c:02d},{c % 2},{'8,8,20,20' if c % 2 else ',,,'}" for c in range(CASES + 1)]
    (place / "truth.csv").write_text("\n".join(["case,truth,left,top,right,bottom", *rows]))
    return place


@pytest.fixture
def page(chromium: Browser) -> Browser:
    chromium.complaints = []
    return chromium


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with browser() as found:
        yield found


def kept(page: Browser, name: str, tmp_path: Path) -> None:
    page.picture(Path(PICTURES or tmp_path) / f"study-{name}.png")


def score(reader: str, trial: Placed) -> int:
    """What is typed: the reference better by a point in even cases and by two in odd ones."""
    case = int(trial.case[-2:])
    return 2 + (trial.arms[0] == "reference") * (1 + case % 2) + (reader == "B")


def test_what_is_typed_is_what_the_statistics_say(page: Browser, home: Path, tmp_path: Path) -> None:
    more = {"readers": ["A", "B"], "training": {"case00": [2]}, "title": "Chest radiographs, restored"}
    made = study(home / "fine", config_of("clarity", **more), "clarity")
    with served(made, tmp_path / "log") as server:
        for name in ("A", "B"):
            opened(page, server.link(name))
            trials = in_order(made, name)
            assert trials[0].part == "training" and not page.evaluate("document.getElementById('practice').hidden")
            typed(page, "3")
            waits(page, "feedback")
            assert "2 poor" in page.evaluate("document.getElementById('right').textContent")
            kept(page, "practice", tmp_path)
            page.key("4")  # answers nothing by now
            page.evaluate("document.getElementById('next').click()")
            waits(page, "ready")
            for number, trial in enumerate(trials[1:]):
                if number == 1:
                    typed(page, "5")
                    page.key("u")
                    page.until("document.getElementById('bar').value === 2 && document.body.dataset.state === 'ready'")
                if number == 2:  # on another device
                    opened(page, server.link(name), 390, 780, phone=True)
                    kept(page, f"phone-{name}", tmp_path)
                    assert page.evaluate(NARROW) and page.evaluate(NAMELESS) == []
                if number == 3:
                    opened(page, server.link(name))
                    kept(page, "clarity", tmp_path)
                    assert page.evaluate(NAMELESS) == []
                typed(page, str(score(name, trial)))
            waits(page, "done")
        kept(page, "done", tmp_path)
        assert all(each.startswith(server.url) for each in page.requests)
        assert page.complaints == []
    with made.answers() as answers:
        assert answers.verify() == ""
        rows = answers.rows()
        found = analysed(load(made, answers))
    assert sum(row.kind == "undo" for row in rows) == 2 and all(0 < row.seconds < 60 for row in rows if row.answer)
    (gap,) = [row for row in found.rows if row.key == "score_difference"]
    assert abs(gap.estimate.value) == pytest.approx(np.mean([1 + case % 2 for case in range(1, CASES + 1)]))


def test_time_stops_when_nobody_looks_and_lesions_are_marked(page: Browser, home: Path, tmp_path: Path) -> None:
    config = config_of("detection", readers=["A"], truth="truth.csv", mark="box", training={"case01": []})
    made = study(home, config, "detection")
    with served(made, tmp_path / "log") as server:
        began = time.monotonic()
        opened(page, server.link("A"))
        page.evaluate(SEEN.replace("STATE", "hidden"))
        page.evaluate(WAIT)
        page.evaluate(SEEN.replace("STATE", "visible"))
        page.key("p")
        waits(page, "paused")
        page.key("l")
        assert page.evaluate("document.getElementById('trial').hidden")
        page.evaluate(WAIT)
        page.key("p")
        waits(page, "ready")
        page.evaluate("document.querySelector('canvas').focus()")
        for key in ["ArrowLeft"] * 4 + ["ArrowUp"] * 4:
            page.key(key)
        enter = {"key": "Enter", "windowsVirtualKeyCode": 13}
        for _ in range(2):
            page.tell("Input.dispatchKeyEvent", type="rawKeyDown", **enter)
            for key in ["ArrowRight"] * 8 + ["ArrowDown"] * 8:
                page.key(key)
        typed(page, "4")
        took = time.monotonic() - began
        waits(page, "feedback")
        kept(page, "detection", tmp_path)
        page.evaluate("document.getElementById('language').click()")
        kept(page, "chinese", tmp_path)
        assert page.evaluate("document.documentElement.lang") == "zh-CN" and page.evaluate(NAMELESS) == []
        page.evaluate("document.getElementById('language').click()")
        page.evaluate("document.getElementById('next').click()")
        waits(page, "ready")
        box = page.evaluate(
            "(b => [b.left, b.top, b.width, b.height])(document.querySelector('canvas').getBoundingClientRect())"
        )
        middle = box[0] + box[2] / 2, box[1] + box[3] / 2
        page.drag(middle, (middle[0] + 40, middle[1] + 30))
        assert page.evaluate("document.getElementById('marks').textContent").endswith("1")
        page.evaluate("(window.before = 1, location.reload())")
        page.until("window.before === undefined && document.body?.dataset.state === 'ready'", 30)
        assert page.evaluate("document.getElementById('marks').textContent").endswith("1")  # not answered, not lost
        page.key("n")
        assert page.evaluate("document.getElementById('marks').textContent").endswith("0")
        typed(page, "2")
        assert page.complaints == []  # before the server ends, whom the page asks for the images that follow
    with made.answers() as answers:
        first, second = answers.rows()
    assert 0 < first.seconds < took - 2 and first.answer["says"] == "lesion" and first.answer["confidence"] == 4
    assert first.answer["marks"] == [[0, 12, 12, 20, 20]]
    assert second.answer == {"says": "none", "confidence": 2, "marks": []}


@pytest.mark.parametrize(("kind", "keys"), [("preference", ["0", "2"]), ("real-or-synthetic", ["s3", "r1"])])
def test_other_kinds(page: Browser, home: Path, tmp_path: Path, kind: str, keys: list[str]) -> None:
    made = study(home, config_of(kind, readers=["A"]), kind)
    with served(made, tmp_path / "log") as server:
        opened(page, server.link("A"))
        for each in keys:
            page.key("1") if kind != "preference" else page.key("9")  # nothing is chosen yet, or nothing is there
            for first in each[:-1]:
                page.key(first)
            kept(page, kind, tmp_path)
            assert page.evaluate(NAMELESS) == []
            typed(page, each[-1])
        page.evaluate(LOST)
        for each in keys[0]:
            page.key(each)
        waits(page, "failed")
        assert "Not stored yet" in page.evaluate("document.getElementById('error').textContent")
        kept(page, "lost", tmp_path)
        page.evaluate("document.getElementById('again').click()")
        page.until("document.getElementById('bar').value === 3")
        assert page.complaints == []
    with made.answers() as answers:
        given = [row.answer for row in answers.rows()]
    expected: dict[str, list[dict[str, object]]] = {
        "preference": [{"choice": 0}, {"choice": 2}],
        "real-or-synthetic": [{"says": "synthetic", "confidence": 3}, {"says": "real", "confidence": 1}],
    }
    assert given == [*expected[kind], expected[kind][0]]
