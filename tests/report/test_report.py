"""The page stands alone, says what the numbers say, and survives hostile names and full disks."""

from __future__ import annotations

import base64
import io
import json
import math
import resource
from collections import Counter
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Picture

from fabrica.errors import FabricaError
from fabrica.io.contact_sheet import image_grid
from fabrica.report.charts import Line, line_chart, png_uri, shown, training_charts, triptych
from fabrica.report.report import Exhibits, render, write_report
from fabrica.report.scores import ClassScore, CurvePoint, Pair, Report, ScoreRow, finite, scores_table

HOSTILE = '"><script>alert("x")</script>'
VOID = {"meta", "img", "br", "line", "circle", "use", "path", "link"}


class Page(HTMLParser):
    """The page as a browser takes it apart: tags, attributes, text; and whether every tag is closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.said: list[str] = []
        self.open: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.said.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.said).split())


def images(count: int, *size: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-1, 1, (count, 1, *size)).astype(np.float32)


def rows() -> list[ScoreRow]:
    return [
        ScoreRow("frechet", "Fréchet radiomic distance", 12.34, 11.0, 13.9, "lower", "How far.", 5.13),
        ScoreRow("kid_x1000", "KID × 1000", -0.21, -1.5, 0.9, "lower", "Kernels.", 0.07),
        ScoreRow("recall", "Recall", math.nan, None, None, "higher", "Share.", 0.93),
        ScoreRow("copy_rate", "Copies", 0.015, 0.005, 0.043, "lower", "Copies.", 0.01, percent=True),
        ScoreRow("milliseconds_per_image", "Milliseconds an image", 155.0, None, None, "lower", "Time."),
    ]


def exhibits(*size: int) -> Exhibits:
    real, fake = images(40, *size), images(40, *size, seed=1)
    log = [
        {"step": 25.0 * k, "loss": 1 / (k + 1)} | ({"val_loss": 1.1 / (k + 1)} if k % 4 == 0 else {}) for k in range(40)
    ]
    return Exhibits(
        title="ddpm-chest",
        subject="A model",
        real=real,
        synthetic=fake,
        window="black is 0, white is 4095",
        facts=[("method", "diffusion")],
        measured=[("seed", "0")],
        distance="Fréchet radiomic distance",
        pairs=[Pair(fake[0], real[0], "seed 0", HOSTILE, 0.31, copied=True)],
        control=[Pair(real[1], real[2], HOSTILE, "b", 0.4)],
        log=log,
        curve=[CurvePoint(2, 40.0, 36.0, 44.0, 0.02), CurvePoint(10, 12.3, 11.0, 13.9, 0.1)],
        classes=[ClassScore(HOSTILE, 40, 40, 20.5, 6.5), ClassScore("rare", 3, 3, None, None)],
    )


@pytest.fixture
def report(tmp_path: Path) -> Report:
    scores = {"n_synthetic": 40, "against": HOSTILE, "odd": [math.inf, {"x": math.nan}]}
    return write_report(tmp_path / "r", scores, rows(), ["40 images are few."], "At N = 40 …", exhibits(32, 32))


@pytest.fixture
def page(report: Report) -> Page:
    return Page(report.page.read_text(encoding="utf-8"))


def test_the_page_asks_for_nothing(page: Page) -> None:
    assert not {tag for tag, _ in page.tags} & {"script", "link", "iframe", "object", "embed", "base", "form"}
    for _, attributes in page.tags:
        for name in ("src", "href", "xlink:href", "srcset", "action", "poster", "data"):
            value = attributes.get(name) or ""
            assert value == "" or value.startswith(("data:image/png;base64,", "#"))
        assert not any(name.startswith("on") for name in attributes)


def test_no_address_anywhere(report: Report) -> None:
    text = report.page.read_text(encoding="utf-8")
    assert "://" not in text
    assert "@import" not in text
    assert all(part.startswith("#") for part in text.split("url(")[1:])


def test_every_tag_is_closed_and_every_id_is_unique(page: Page) -> None:
    assert page.open == []
    ids = Counter(a["id"] for _, a in page.tags if a.get("id"))
    assert max(ids.values()) == 1
    links = {a.get("href") or "" for _, a in page.tags}
    assert {link[1:] for link in links if link.startswith("#")} <= set(ids)


def test_every_picture_is_described(page: Page) -> None:
    pictures = [a for tag, a in page.tags if tag == "img"]
    assert len(pictures) == 4
    assert all(len(a["alt"] or "") > 20 for a in pictures)
    charts = [a for tag, a in page.tags if tag == "svg" and "aria-hidden" not in a]
    assert len(charts) == 2
    assert "40.0" in (charts[0]["aria-label"] or "")


def test_names_from_files_are_text_not_markup(report: Report, page: Page) -> None:
    assert "<script" not in report.page.read_text(encoding="utf-8")
    assert page.text.count('alert("x")') >= 3  # pair, control, class


def test_every_score_of_the_json_stands_on_the_page(report: Report, page: Page) -> None:
    scores = json.loads((report.page.parent / "scores.json").read_text(encoding="utf-8"))
    assert scores == report.scores
    for row in report.rows:
        kept = scores[row.key]
        assert kept["real"] == row.real
        for value in (kept["value"], kept["low"], kept["high"], kept["real"]):
            if value is not None:
                assert row.text(value).removesuffix(" %") in page.text
        assert row.name in page.text
        assert row.interval in page.text
    for sentence in (*report.warnings, report.verdict):
        assert sentence in page.text


def test_json_has_no_nan(report: Report) -> None:
    def refuse(word: str) -> None:
        raise AssertionError(word)

    text = (report.page.parent / "scores.json").read_text(encoding="utf-8")
    scores = json.loads(text, parse_constant=refuse)
    assert scores["recall"]["value"] is None
    assert scores["odd"] == [None, {"x": None}]
    assert finite({"a": (1, math.nan)}) == {"a": [1, None]}


def test_the_terminal_says_the_same(report: Report) -> None:
    lines = scores_table(report).splitlines()
    assert lines[0] == report.verdict
    header = next(line for line in lines if line.startswith("score"))
    body = [line for line in lines if line.startswith(tuple(row.name for row in report.rows))]
    assert len(body) == len(report.rows)
    assert {line.index("  " + row.better) for line, row in zip(body, report.rows, strict=True)} == {
        header.index("  better")
    }
    assert "12.3" in body[0] and "[11.0, 13.9]" in body[0] and "5.13" in body[0]
    assert lines[-1] == "warning: 40 images are few."


def test_volumes_and_colour_fit_the_page(report: Report) -> None:
    volumes = Page(render(report, exhibits(12, 16, 20)))
    assert "axial, coronal and sagittal" in volumes.text
    colour = exhibits(16, 16)
    colour = replace(colour, real=colour.real.repeat(3, 1), synthetic=colour.synthetic.repeat(3, 1))
    assert "axial" not in Page(render(report, colour)).text


def test_large_images_do_not_make_a_large_page(report: Report) -> None:
    assert len(render(report, exhibits(256, 256))) < 5_000_000


def test_sections_without_content_are_left_out(report: Report) -> None:
    bare = replace(exhibits(32, 32), pairs=(), control=(), log=(), curve=(), classes=(), facts=())
    text = Page(render(replace(report, warnings=()), bare)).text
    for heading in ("Does it copy", "Class by class", "The model", "Read this first", "sampler steps"):
        assert heading not in text


def test_a_full_disk_keeps_the_old_report(report: Report) -> None:
    before = {path.name: path.read_bytes() for path in report.page.parent.iterdir()}
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))  # every file ends at 100 bytes, as on a full disk
    try:
        with pytest.raises(FabricaError, match="nothing was changed"):
            write_report(report.page.parent, {}, rows(), [], "other", exhibits(32, 32))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert {path.name: path.read_bytes() for path in report.page.parent.iterdir()} == before


def test_a_file_in_the_way_is_one_readable_error(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("mine")
    with pytest.raises(FabricaError, match="choose another with -o"):
        write_report(tmp_path / "taken", {}, rows(), [], "", exhibits(32, 32))


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (131.4, "131"),
        (99.96, "100"),
        (12.34, "12.3"),
        (9.996, "10.0"),
        (1.2345, "1.23"),
        (-0.0004, "0.000"),
        (1e-9, "0.000"),
    ],
)
def test_three_digits(value: float, text: str) -> None:
    assert shown(value) == text


def decoded(uri: str) -> np.ndarray:
    return np.asarray(Picture.open(io.BytesIO(base64.b64decode(uri.removeprefix("data:image/png;base64,")))))


def test_png_uri_keeps_pixels_and_shrinks_wide_ones() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30), dtype=np.uint8)
    assert np.array_equal(decoded(png_uri(pixels)), pixels)
    assert decoded(png_uri(pixels, widest=15)).shape == (10, 15)


def test_the_difference_of_equal_images_is_black() -> None:
    one, other = images(2, 96, 96)
    third = slice(-96, None)
    assert triptych(one, one)[:, third].max() == 0
    assert triptych(one, other)[:, third].max() > 200


def test_charts_follow_the_page_and_carry_no_address() -> None:
    line = Line("a", [1, 2, 3], [0.1, 0.2, 0.5])
    chart = line_chart("x", [line, replace(line, dashed=True)], x="step", y="loss", alt=HOSTILE, log_y=True)
    assert "://" not in chart and "metadata" not in chart and "#0" not in chart
    assert "var(--first)" in chart and "currentColor" in chart
    assert "<script" not in chart
    assert chart == line_chart("x", [line, replace(line, dashed=True)], x="step", y="loss", alt=HOSTILE, log_y=True)


def gan_log(**more: float) -> list[dict[str, float]]:
    """FRD falls to 50 at step 300 and rises again; the critic recognises 80 % of real and 70 % of fake images."""
    seen = {"loss": 2.0, "real_accuracy": 0.8, "fake_accuracy": 0.7, **more}
    frd = {100.0: 400.0, 200.0: 90.0, 300.0: 50.0, 400.0: 60.0}
    return [{"step": step, "ms_ssim": 0.3 + step / 1000, "frd": value, **seen} for step, value in frd.items()]


def test_a_gan_shows_distance_critic_and_diversity_instead_of_its_losses() -> None:
    distance, critic, diversity = training_charts(gan_log(), real=0.35)
    assert "lowest 50.0 at step 300" in distance.svg and "50.0 at step 300" in distance.caption
    assert "real 80 %, synthetic 70 %" in critic.svg and "guessing" in critic.svg
    assert "from 0.400 to 0.700; among real images 0.350" in diversity.svg and "stroke-dasharray" in diversity.svg


def test_a_kernel_distance_is_told_times_a_thousand_as_in_the_scores() -> None:
    log = [{key: value for key, value in row.items() if key != "frd"} for row in gan_log(kid=0.0123)]
    assert "held-out KID × 1000: from 12.3 to 12.3" in training_charts(log, None)[0].svg


def test_diversity_without_real_images_has_no_dashed_line() -> None:
    for unknown in (None, math.nan):
        chart = training_charts(gan_log(), unknown)[-1]
        assert "real images" not in chart.svg and "stroke-dasharray" not in chart.svg


def test_a_diffusion_model_chosen_by_distance_shows_loss_and_distance() -> None:
    log = [{"step": row["step"], "loss": row["loss"], "frd": row["frd"]} for row in gan_log()]
    assert [chart.caption.split()[0] for chart in training_charts(log, None)] == ["Training", "How"]


def test_one_point_makes_no_curve() -> None:
    assert training_charts(gan_log()[:1], 0.5) == []
    assert training_charts([], None) == []


def test_the_page_of_a_gan_is_whole(report: Report) -> None:
    page = Page(render(report, replace(exhibits(32, 32), log=gan_log(kid=0.01), curve=())))
    ids = Counter(a["id"] for _, a in page.tags if a.get("id"))
    assert page.open == [] and max(ids.values()) == 1
    assert "Loss" not in page.text and "sampler steps" not in page.text
    assert "the weights that were kept" in page.text and "Steps and training" not in page.text


def test_volumes_stand_side_by_side_as_three_planes_of_square_pixels(report: Report) -> None:
    show = replace(exhibits(8, 16, 24), spacing=(3.0, 1.0, 1.0))
    page = Page(render(report, show))
    sheets = [a for tag, a in page.tags if tag == "img" and "Contact sheet" in str(a.get("alt"))]
    assert [str(a["alt"]).split()[:4] for a in sheets] == [["Contact", "sheet", "of", "6"]] * 2  # real and synthetic
    for sheet, volumes in zip(sheets, (show.real, show.synthetic), strict=True):
        pixels = decoded(str(sheet["src"]))
        assert np.array_equal(pixels, image_grid(volumes[:6], 1, spacing=show.spacing))
        assert pixels.shape[1] == 3 * pixels[: (pixels.shape[0] - 10) // 6].shape[0]  # three squares a row
    assert "axial, coronal and sagittal" in page.text and "right on the left" in page.text
    assert not np.array_equal(decoded(str(sheets[0]["src"])), image_grid(show.real[:6], 1))
