"""axe-core, of the npm registry, finds no fault on the readers' page: all kinds and states, both languages, a phone."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import pytest

from tests.serving.http.browser import CHROMIUM, Browser, browser
from tests.serving.study.driven import opened, waits
from tests.serving.study.made import arms, config_of, study
from tests.serving.study.served import served

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600), pytest.mark.skipif(not CHROMIUM, reason="needs Chromium")]

PACKAGE = "axe-core@4.10.3"
SHA256 = "880970c081707360e64f34cea25ff91892f5bc95675b0776925b9709dd8a68bb"  # of axe.min.js
KEYS = {"clarity": "3", "preference": "1", "real-or-synthetic": "s2", "detection": "l2"}


@pytest.fixture(scope="module")
def axe(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Its source, of exactly this version; skips where npm or the registry is out of reach."""
    place, npm = tmp_path_factory.mktemp("axe"), shutil.which("npm")
    if not npm:
        pytest.skip("needs npm, which brings axe-core")
    try:
        packed = subprocess.run([npm, "pack", PACKAGE, "--silent"], cwd=place, capture_output=True, timeout=120)
    except subprocess.TimeoutExpired:
        pytest.skip("the npm registry does not answer")
    if packed.returncode:
        pytest.skip("the npm registry cannot be reached")
    with tarfile.open(next(place.glob("*.tgz"))) as archive:
        file = archive.extractfile("package/axe.min.js")
        assert file is not None
        source = file.read()
    assert hashlib.sha256(source).hexdigest() == SHA256
    return source.decode()


def faults(page: Browser, axe: str, where: str) -> list[Any]:
    page.evaluate(axe + ";0")
    found = page.evaluate(
        "axe.run(document).then((r) => r.violations.map((v) => [v.id, v.impact, v.nodes.map((n) => n.html)]))"
    )
    return [[where, *each] for each in found]


@pytest.mark.parametrize("kind", KEYS)
def test_no_fault(kind: str, axe: str, tmp_path: Path) -> None:
    arms(tmp_path, 3)
    lines = ["case,truth,left,top,right,bottom", "case00,1,8,8,20,20", "case01,0,,,,", "case02,1,,,,"]
    (tmp_path / "truth.csv").write_text("\n".join(lines))
    case = "degraded/case00" if kind == "real-or-synthetic" else "case00"
    more = {"truth": "truth.csv"} if kind == "detection" else {}
    made = study(tmp_path, config_of(kind, readers=["A"], training={case: []}, title="Chest", **more))
    found: list[Any] = []
    with served(made, tmp_path / "log") as server, browser() as page:
        opened(page, server.link("A"))
        found += faults(page, axe, "practice")
        for key in KEYS[kind]:
            page.key(key)
        waits(page, "feedback")
        found += faults(page, axe, "feedback")
        page.evaluate("document.getElementById('next').click()")
        waits(page, "ready")
        page.evaluate("document.querySelector('details').open = true")
        found += faults(page, axe, "reading, with keys")
        page.evaluate("document.getElementById('language').click()")
        found += faults(page, axe, "Chinese")
        page.key("p")
        waits(page, "paused")
        found += faults(page, axe, "paused")
        opened(page, server.link("A"), 390, 780, phone=True)
        found += faults(page, axe, "phone")
        while page.evaluate("document.body.dataset.state") != "done":
            waits(page, "ready")
            for key in KEYS[kind]:
                page.key(key)
            page.until("['ready', 'done'].includes(document.body.dataset.state)")
        found += faults(page, axe, "done")
        page.open(server.url)
        waits(page, "token")
        found += faults(page, axe, "without a link")
    assert found == []
