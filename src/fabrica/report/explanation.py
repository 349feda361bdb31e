"""The page of an explanation: what moved an image that a model has made."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fabrica.report.charts import png_uri
from fabrica.report.report import filled


def explanation_page(
    title: str, how: str, sections: Sequence[Any], scores: Sequence[Any], about: Sequence[tuple[str, str]]
) -> str:
    """The whole page.

    sections   each with a title, pictures (caption, uint8 (H, W, 3)), and facts (name, value).
    scores     of maps against where findings truly lie: see `fabrica.evaluation.explanation.lesions.Score`.
    about      (name, value) of the model.
    """
    head = {"title": title, "subject": "", "report": {"verdict": how, "warnings": []}}
    return filled("explanation.html.jinja", **head, sections=sections, scores=scores, about=about, uri=png_uri)
