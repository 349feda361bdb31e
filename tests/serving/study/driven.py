"""The page on which readers answer, as tests drive it."""

from __future__ import annotations

from fabrica.serving.study.folder import Placed, Study
from tests.serving.http.browser import Browser


def waits(page: Browser, state: str) -> None:
    page.until(f"document.body.dataset.state === '{state}'", 30)


def opened(page: Browser, url: str, width: int = 1200, height: int = 760, phone: bool = False) -> None:
    """As in a new tab: an address that differs after # alone would not load again."""
    page.tell("Page.navigate", url="about:blank")
    page.until("location.href === 'about:blank'")
    page.open(url, width, height, phone)
    waits(page, "ready")


def shown_now(page: Browser) -> int:
    """How many trials the reader has answered."""
    return int(page.evaluate("document.getElementById('bar').value"))


def typed(page: Browser, key: str) -> None:
    """A key that ends a trial."""
    before = shown_now(page)
    page.key(key)
    page.until(
        f"document.getElementById('bar').value > {before} && "
        "['ready', 'done', 'feedback'].includes(document.body.dataset.state)"
    )


def in_order(made: Study, name: str) -> list[Placed]:
    with made.answers() as answers:
        reader = next(r.reader for r in answers.readers.values() if r.name == name)
    return sorted((t for t in made.trials if t.reader == reader), key=lambda t: t.place)
