"""The page, in a browser: images in, looked at, and out again, and nothing asked of any other machine."""

from __future__ import annotations

import os
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Pillow

import fabrica
from fabrica.evaluation.explanation import explain
from fabrica.geometry import as_seen
from fabrica.image import Array
from fabrica.phantoms.head.head import head
from fabrica.runtime import opened
from tests.serving.http.browser import CHROMIUM, Browser, browser
from tests.serving.http.started import Server

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not CHROMIUM, reason="needs Chromium")]

PICTURES = os.environ.get("FABRICA_PICTURES", "")  # a folder that keeps what documents show
SHOWN = """(async () => {
    for (let k = 0; k < 2; k++) await new Promise(requestAnimationFrame);
    const small = document.createElement("canvas"), from = document.getElementById("canvas");
    const side = Math.min(from.width, from.height);
    small.width = small.height = 32;
    small.getContext("2d").imageSmoothingQuality = "high";
    small.getContext("2d").drawImage(
        from, (from.width - side) / 2, (from.height - side) / 2, side, side, 0, 0, 32, 32);
    return [...small.getContext("2d").getImageData(0, 0, 32, 32).data];
})()"""
"""The middle of the canvas as 32 x 32 pixels, when it has the size that the page has given it."""


@pytest.fixture(scope="module")
def page() -> Iterator[Browser]:
    with browser() as found:
        yield found


@pytest.fixture(scope="module")
def series(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place: Path = tmp_path_factory.mktemp("series") / "ct"
    fabrica.write(head(3, 128, 5, contrasts=["CT"]).images["CT"], place, as_="dicom")
    return place


def shown(page: Browser) -> Array:
    """(32, 32, 3), 0 to 255."""
    return np.array(page.evaluate(SHOWN), np.float64).reshape(32, 32, 4)[..., :3]


def worked(page: Browser, button: str) -> None:
    page.evaluate("document.body.dataset.state = 'asked'")
    page.evaluate(f"document.getElementById('{button}').click()")
    page.until("['done', 'failed'].includes(document.body.dataset.state)")


def text(page: Browser, name: str) -> str:
    return str(page.evaluate(f"(e => e.value ?? e.textContent)(document.getElementById('{name}'))"))


def only_own(page: Browser, server: Server) -> bool:
    """Whether the page asked its own server, and nobody else."""
    asked = page.requests
    return bool(asked) and all(each.startswith((server.url, f"blob:{server.url}", "data:")) for each in asked)


def applied(page: Browser, server: Server, series: Path, model: str = "hand", why: bool = False, **screen: int) -> None:
    page.open(server.url, **screen)  # type: ignore[arg-type]
    page.until("document.body.dataset.state === 'ready'")
    page.evaluate(f"(e => {{ e.value = '{model}'; e.onchange(); }})(document.getElementById('model'))")
    page.choose_files("#files", sorted(series.iterdir()))
    page.until("!document.getElementById('apply').disabled")
    if not page.evaluate("document.getElementById('doubt').checked"):
        page.evaluate("document.getElementById('doubt').click()")
    page.evaluate(f"document.getElementById('why').checked = {str(why).lower()}")
    worked(page, "apply")


def grey(volume: fabrica.Image, k: int, centre: float, width: float) -> Array:
    """Slice k from the feet, as radiologists look at it, in this window and 32 x 32."""
    plane = as_seen(volume.data, volume.affine, "LPS")[0, k]
    side = plane.shape[0] // 32
    levels = np.clip((plane - centre + width / 2) / width * 255, 0, 255)
    found: Array = levels.reshape(32, side, 32, side).mean((1, 3))
    return found


def alike(one: Array, other: Array) -> float:
    return float(np.corrcoef(one.ravel(), other.ravel())[0, 1])


def test_a_series_is_shown_as_it_is(page: Browser, server: Server, series: Path, tmp_path: Path) -> None:
    applied(page, server, series)
    assert page.evaluate("document.body.dataset.state") == "done", text(page, "error")
    volume, at = fabrica.read(series), (700.0, 400.0)
    page.key("2")
    for key, k in (("", 2), ("ArrowDown", 3), ("End", 4), ("Home", 0)):
        if key:
            page.key(key)
        assert text(page, "where") == f"Slice {k + 1} of 5"
        wanted, seen = grey(volume, k, 40, 80), shown(page)[..., 0]
        assert alike(seen, wanted) > 0.95 and abs(seen.mean() - wanted.mean()) < 8, k
        assert alike(seen, wanted) > max(alike(seen[::-1], wanted), alike(seen[:, ::-1], wanted))  # as it lies
    page.wheel(at, 120)
    page.until("document.getElementById('where').value === 'Slice 2 of 5'")
    page.drag(at, (at[0] + 150, at[1] - 60))  # 150 to the right: wider by half; 60 up: lower by a fifth of the width
    assert (float(text(page, "centre")), float(text(page, "width"))) == pytest.approx((40 - 16, 120), rel=0.02)
    assert alike(shown(page)[..., 0], grey(volume, 1, 24, 120)) > 0.95
    assert "before" in text(page, "value") and "HU" in text(page, "value")
    page.key("r")
    assert float(text(page, "width")) == 80
    assert only_own(page, server) and not page.complaints
    page.key("1")
    page.key("ArrowDown")
    assert page.picture(Path(PICTURES or tmp_path) / "serving-page.png").stat().st_size > 10_000


def test_before_and_after_difference_and_uncertainty_differ(page: Browser, server: Server, series: Path) -> None:
    applied(page, server, series)
    views = {}
    for key in "2345":
        page.key(key)
        views[key] = shown(page)
    for one, other in (("2", "3"), ("2", "4"), ("3", "5"), ("4", "5")):
        assert np.abs(views[one] - views[other]).mean() > 0.5, (one, other)
    assert np.ptp(views["2"], axis=2).max() == 0  # grey
    assert min(np.ptp(views[key], axis=2).max() for key in "45") > 20  # colours
    page.key("1")
    half = shown(page)[..., 0]
    np.testing.assert_allclose(half[:, :13], views["2"][:, :13, 0], atol=1)
    np.testing.assert_allclose(half[:, 19:], views["3"][:, 19:, 0], atol=1)
    middle = page.evaluate(
        "(r => [r.left + r.width / 2, r.top + r.height / 2])(document.getElementById('canvas').getBoundingClientRect())"
    )
    page.drag((middle[0], middle[1]), (middle[0] + 2000, middle[1]))
    np.testing.assert_allclose(shown(page)[:, :28, 0], views["2"][:, :28, 0], atol=1)
    assert float(text(page, "width")) == 80  # the line was moved, and no window
    for _ in range(50):
        page.key("ArrowLeft")
    np.testing.assert_allclose(shown(page)[:, 4:, 0], views["3"][:, 4:, 0], atol=1)
    assert not page.complaints


def test_what_moved_the_result_lies_where_it_does(
    page: Browser, server: Server, series: Path, folder: Path, tmp_path: Path
) -> None:
    """Over the image itself, on the slice that was explained, as the command has it."""
    explain(opened(folder / "hand"), series, tmp_path)
    wanted = fabrica.read(tmp_path / "result-occlusion.nii.gz")
    planes = as_seen(wanted.data, wanted.affine, "LPS")[0]
    k = int(planes.sum((1, 2)).argmax())
    applied(page, server, series, why=True)
    assert text(page, "where") == f"Slice {k + 1} of 5"
    page.key("2")
    before = shown(page)
    page.key("6")
    assert page.evaluate("document.querySelector('#modes [aria-checked=true]').textContent") == "Occlusion"
    laid = shown(page) - before
    red, moved = laid[..., 0] - laid[..., 2], planes[k].reshape(32, 4, 32, 4).mean((1, 3))
    assert alike(red, moved) > 0.1 + max(0.5, alike(red[::-1], moved), alike(red[:, ::-1], moved))
    page.drag((700.0, 400.0), (701.0, 400.0))
    assert "occlusion" in text(page, "value")
    page.key("v")
    page.until("document.getElementById('volume').dataset.shown === 'Occlusion'")
    assert not page.complaints and only_own(page, server)


def test_labels_lie_over_an_image_in_its_own_window(page: Browser, small: Server, series: Path) -> None:
    page.open(small.url)
    page.until("document.body.dataset.state === 'locked'")
    page.evaluate(f"document.getElementById('token').value = '{small.token}'")
    page.evaluate("document.getElementById('entry').requestSubmit()")
    page.until("document.body.dataset.state === 'ready'")
    page.evaluate("(e => { e.value = 'organs'; e.onchange(); })(document.getElementById('model'))")
    page.choose_files("#files", sorted(series.iterdir()))
    page.until("!document.getElementById('apply').disabled")
    worked(page, "apply")
    assert (text(page, "centre"), text(page, "width")) == ("40", "80"), text(page, "error")
    page.key("2")
    before, volume = shown(page), fabrica.read(series)
    assert alike(before[..., 0], grey(volume, 2, 40, 80)) > 0.95 and np.ptp(before, axis=2).max() == 0
    page.key("3")
    assert np.ptp(shown(page), axis=2).max() > 20  # their colours
    page.complaints = [each for each in page.complaints if "401" not in each]  # which browsers tell by themselves
    assert not page.complaints


def pixels(page: Browser, name: str, path: Path) -> Array:
    """An element of the page as it is on the screen, (H, W, 3)."""
    where = f"document.getElementById('{name}').getBoundingClientRect()"
    place = page.evaluate(f"(r => [r.x, r.y, r.right, r.bottom])({where})")
    with Pillow.open(page.picture(path)) as picture:
        return np.asarray(picture.convert("RGB").crop([round(side) for side in place]), np.float64)


def test_volumes_are_seen_from_all_sides(page: Browser, server: Server, series: Path, tmp_path: Path) -> None:
    """By niivue, which is fetched when the first is asked for, and from this server alone."""
    applied(page, server, series, width=1000, height=560)
    assert not [each for each in page.requests if "niivue" in each]
    seen = {}
    modes = ("Before | after", "Before", "After", "Difference", "Uncertainty")
    for key, mode in zip("v2345", modes, strict=True):
        page.key(key)
        page.until(f"document.getElementById('volume').dataset.shown === '{mode}'")
        page.evaluate("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
        seen[key] = pixels(page, "volume", tmp_path / "volume.png")[:280, :600]  # it is some pixels less high at times
    assert [each for each in page.requests if each == f"{server.url}page/niivue.js"] and only_own(page, server)
    for one, other in (("2", "3"), ("2", "4"), ("3", "5"), ("4", "5")):
        assert np.abs(seen[one] - seen[other]).mean() > 0.2, (one, other)
    grey, bright = np.ptp(seen["2"], axis=2) < 8, seen["2"].max(2) > 60
    assert (grey & bright).mean() > 0.05  # the image; the crosshair is amber
    assert (np.ptp(seen["5"], axis=2) > 60).mean() > (np.ptp(seen["2"], axis=2) > 60).mean() + 0.01
    if PICTURES:
        page.key("4")
        page.until("document.getElementById('volume').dataset.shown === 'Difference'")
        page.picture(Path(PICTURES) / "serving-volume.png")
    page.key("ArrowDown")
    assert text(page, "where") == "Slice 4 of 5"
    page.key("v")
    assert page.evaluate("document.getElementById('volumes').hidden && document.activeElement.id") == "canvas"
    assert not page.complaints


def test_a_volume_lies_as_its_slices_say(page: Browser, server: Server, tmp_path: Path) -> None:
    page.open(server.url)
    numbers = np.random.default_rng(0).integers(0, 65535, (2, 3, 4))
    of = "{ width: 4, height: 3, depth: 2, spacing: [5, 2, 1], step: 0.5, low: -10, numbers: new Uint16Array(%s) }"
    file = f"import('/page/volume.js').then((all) => all.nifti({of % numbers.ravel().tolist()}).arrayBuffer())"
    made = page.evaluate(f"{file}.then((bytes) => [...new Uint8Array(bytes)])")
    (tmp_path / "volume.nii").write_bytes(bytes(made))
    found = fabrica.read(tmp_path / "volume.nii")
    np.testing.assert_allclose(as_seen(found.data, found.affine, "LPS")[0], numbers * 0.5 - 10)
    assert sorted(found.spacing) == [1, 2, 5]


def test_without_webgl_there_are_slices(page: Browser, server: Server, series: Path) -> None:
    off = """const old = HTMLCanvasElement.prototype.getContext;
        HTMLCanvasElement.prototype.getContext = function (kind, ...more) {
            return kind === "webgl2" ? null : old.call(this, kind, ...more);
        };"""
    number = page.tell("Page.addScriptToEvaluateOnNewDocument", source=off)["identifier"]
    try:
        applied(page, server, series)
        assert page.evaluate("document.getElementById('solid').hidden") and shown(page).max() > 50
        page.key("v")
        assert page.evaluate("document.getElementById('volumes').hidden")
    finally:
        page.tell("Page.removeScriptToEvaluateOnNewDocument", identifier=number)


def test_the_result_is_downloaded(page: Browser, server: Server, series: Path, tmp_path: Path) -> None:
    applied(page, server, series)
    page.tell("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(tmp_path))
    page.evaluate("document.getElementById('save').click()")
    archive = tmp_path / "hand-result.zip"
    for _ in range(200):
        if archive.exists() and archive.stat().st_size:
            break
        time.sleep(0.05)
    with zipfile.ZipFile(archive) as opened:
        assert opened.testzip() is None and not [name for name in opened.namelist() if name.startswith("view/")]
        opened.extractall(tmp_path / "got")
    slices = list((tmp_path / "got").rglob("*.dcm"))
    assert len(slices) == 5 and fabrica.read(slices[0].parent).unit == "HU"
    assert list((tmp_path / "got").rglob("*-uncertainty.nii.gz"))


def test_a_refusal_is_said(page: Browser, server: Server, series: Path) -> None:
    applied(page, server, series, model="mr")
    assert page.evaluate("document.body.dataset.state") == "failed"
    assert "its modality is CT, and MR in training" in text(page, "error")
    page.complaints = [each for each in page.complaints if "422" not in each]  # which browsers tell by themselves
    assert not page.complaints


def test_a_phone_has_room_for_it(page: Browser, server: Server, series: Path, tmp_path: Path) -> None:
    applied(page, server, series, width=390, height=780, phone=True)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert page.evaluate("document.getElementById('canvas').clientWidth > 300")
    page.picture(tmp_path / "phone.png")


def test_words_and_a_token(page: Browser, small: Server, tmp_path: Path) -> None:
    page.open(small.url)
    page.until("document.body.dataset.state === 'locked'")
    for word in ("wrong-but-of-some-length", small.token):
        page.evaluate(f"document.getElementById('token').value = '{word}'")
        page.evaluate("document.querySelector('#entry button').click()")
        page.until("document.body.dataset.state !== 'locked' || document.getElementById('error').textContent")
    page.until("document.body.dataset.state === 'ready'")
    page.evaluate("(e => { e.value = 'noise'; e.onchange(); })(document.getElementById('model'))")
    assert page.evaluate("!document.getElementById('words').hidden && document.getElementById('images').hidden")
    for name, value in (("prompt", "Effusion."), ("label", "effusion"), ("count", "3"), ("seed", "5")):
        page.evaluate(f"document.getElementById('{name}').value = '{value}'")
    worked(page, "sample")
    assert text(page, "where") == "Image 2 of 3", text(page, "error")
    assert "knows none of these words" in text(page, "notes")
    first = shown(page)
    page.key("ArrowDown")
    assert text(page, "where") == "Image 3 of 3" and np.abs(shown(page) - first).mean() > 10
    assert page.evaluate("document.getElementById('modes').hidden")
    page.picture(tmp_path / "words.png")
    compares(page)
    assert only_own(page, small)
    page.complaints = [each for each in page.complaints if "401" not in each]
    assert not page.complaints


def compares(page: Browser) -> None:
    """What the same seeds give when told something else is shown beside it, as a difference too; that of others is
    not."""
    drawn = shown(page)
    page.evaluate("document.getElementById('label').value = 'normal'")
    worked(page, "sample")
    modes = "[...document.getElementById('modes').children].map((each) => each.textContent)"
    assert page.evaluate(modes) == ["Before | after", "Before", "After", "Difference"]
    page.evaluate("(e => { e.value = 2; e.oninput(); })(document.getElementById('slice'))")
    seen = {}
    for key in "234":
        page.key(key)
        seen[key] = shown(page)
    assert np.abs(seen["2"] - drawn).mean() < 2 and text(page, "where") == "Image 3 of 3"
    moved = np.abs(seen["3"] - seen["2"]).mean(-1)
    coloured = np.abs(seen["4"] - seen["4"].mean(-1, keepdims=True)).mean(-1)
    assert moved.mean() > 1 and alike(coloured, moved) > 0.3  # and where more has changed, more colour is laid
    for change in ("document.getElementById('seed').value = 6", "document.getElementById('beside').click()"):
        page.evaluate(change)
        worked(page, "sample")
        assert page.evaluate("document.getElementById('modes').hidden")


def test_other_contrasts_have_fields_of_their_own(page: Browser, small: Server, tmp_path: Path) -> None:
    """For the model that sees them, and for no other; what is given there is what it sees."""
    images = head(5, 128, 4, contrasts=["T1", "T2"]).images
    for name, image in images.items():
        fabrica.write(image, tmp_path / name, as_="dicom")
    page.open(small.url)
    page.until("document.body.dataset.state === 'locked'")
    page.evaluate(f"document.getElementById('token').value = '{small.token}'")
    page.evaluate("document.querySelector('#entry button').click()")
    page.until("document.body.dataset.state === 'ready'")
    fields = "[...document.querySelectorAll('[data-contrast]')].map((each) => each.dataset.contrast)"
    for model, wanted in (("organs", []), ("contrasts", ["T2", "FLAIR"])):
        page.evaluate(f"(e => {{ e.value = '{model}'; e.onchange(); }})(document.getElementById('model'))")
        assert page.evaluate(fields) == wanted
    page.choose_files("[data-contrast=T2] input", sorted((tmp_path / "T2").iterdir()))
    page.until("document.querySelector('[data-contrast=T2] span').textContent.startsWith('4 files')")
    assert page.evaluate("document.getElementById('apply').disabled")  # there is no image yet
    page.choose_files("#files", sorted((tmp_path / "T1").iterdir()))
    page.until("!document.getElementById('apply').disabled")
    worked(page, "apply")
    assert page.evaluate("document.body.dataset.state") == "done", text(page, "error")
    assert "without FLAIR" in text(page, "notes") and "without T2" not in text(page, "notes")
    seen = []
    for key in "23":
        page.key(key)
        seen.append(shown(page)[..., 0])
    own = [grey(images[name], 2, float(text(page, "centre")), float(text(page, "width"))) for name in ("T1", "T2")]
    assert alike(seen[0], own[0]) > 0.95 and alike(seen[1], own[1]) > 0.95 and alike(seen[1], own[0]) < 0.9
    page.picture(Path(PICTURES or tmp_path) / "serving-contrasts.png")
    page.complaints = [each for each in page.complaints if "401" not in each]
    assert only_own(page, small) and not page.complaints


def test_the_policy_lets_nothing_out(page: Browser, server: Server) -> None:
    """Whatever a script in the page might try: another host is not asked, and no code of elsewhere is run."""
    page.open(server.url)
    page.requests = []
    tried = "fetch('http://127.0.0.1:9/').then(() => 'out', () => 'kept in')"
    assert page.evaluate(tried) == "kept in"
    page.evaluate("document.body.append(Object.assign(new Image(), {src: 'http://127.0.0.1:9/x.png'}))")
    page.evaluate("document.body.insertAdjacentHTML('beforeend', '<p onclick=\"document.title = 1\" id=x>')")
    page.evaluate("document.getElementById('x').click()")
    assert page.evaluate("document.title") == "Fabrica"
    page.until("true")
    assert len([each for each in page.complaints if "Content Security Policy" in each]) >= 3
    page.complaints = []
