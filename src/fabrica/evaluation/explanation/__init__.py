"""What moved an image that a model has made: maps, scores where the truth is known, and a page. Nothing here needs
PyTorch but integrated gradients, of which the model itself is asked."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from fabrica import io
from fabrica.errors import UsageError
from fabrica.evaluation.explanation.differences import Difference, comparisons, drawn
from fabrica.evaluation.explanation.lesions import Score, Truth, scored, truth
from fabrica.evaluation.explanation.parts import explained
from fabrica.evaluation.explanation.writing import Explanation, write_differences, write_parts
from fabrica.image import Image, name
from fabrica.inference.refusal import refusals
from fabrica.inference.seeing import seen
from fabrica.inference.synthesis import Synthesises
from fabrica.progress import Progress

__all__ = ["Explanation", "explain"]

SEEDS, RADIUS = 16, 2


def explain(
    model: Any,
    source: Image | str | Path | None = None,
    out: str | Path = "explanation",
    *,
    conditions: Mapping[str, Any] | None = None,
    instead: Sequence[str] | None = None,
    word: str | None = None,
    finding: str | None = None,
    n: int | None = None,
    seed: int | None = None,
    steps: int | None = None,
    guidance: float | None = None,
    class_: str | None = None,
    at: Sequence[int] | None = None,
    radius: int | None = None,
    region: Image | None = None,
    direction: str | None = None,
    force: bool | None = None,
    window: int | None = None,
    stride: int | None = None,
    fill: str | None = None,
    gradients: bool | None = None,
    progress: Progress | None = None,
    warn: Callable[[str], None] | None = None,
) -> Explanation:
    """Explain what a model makes, into a folder with report.html, explanation.json, maps and arrays.

    model    one that makes images of noise (`Synthesises`), or that translates, restores or segments (`Translates`),
             trained or exported.
    source   of the latter an Image, or a file or DICOM series; None: of noise.

    Of noise, images are drawn of the same seeds that are told something and something else:
    conditions, instead, word, finding   see `fabrica.evaluation.explanation.differences.comparisons`.
    n, seed  how many seeds, and the first. steps, guidance: as in `sample_array`.

    Of an image, parts of it are hidden, and gradients integrated:
    class_, window, stride, fill   see `fabrica.evaluation.explanation.parts.explained`.
    at, radius, region   where the result is asked about: see `fabrica.inference.seeing.seen`.
    direction, force     as in `fabrica apply`. gradients: None: where the model has them.

    warn     called with a sentence; None: `warnings.warn`. Raises UsageError.
    """
    of_noise = {
        "--label, --prompt": conditions,
        "--instead": instead,
        "--word": word,
        "--finding": finding,
        "-n": n,
        "--seed": seed,
        "--steps": steps,
        "--guidance": guidance,
    }
    of_image = {
        "IN": source,
        "--class": class_,
        "--at": at,
        "--radius": radius,
        "--region": region,
        "--direction": direction,
        "--force": force or None,
        "--window": window,
        "--stride": stride,
        "--fill": fill,
        "--no-gradients": gradients,
    }
    folder, tell = Path(out), warn or warnings.warn
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder} is a file; name a folder with -o")
    if isinstance(model, Synthesises):
        _refuse(model, "makes images of noise", of_image, "models that are applied to an image")
        return _of_noise(
            model,
            folder,
            n=SEEDS if n is None else n,
            seed=seed or 0,
            asked={"conditions": conditions, "instead": instead or (), "word": word or "", "finding": finding or ""},
            settings={"steps": steps, "guidance": guidance},
            progress=progress,
            warn=tell,
        )
    way = model.way(direction or "a2b")
    _refuse(model, "is applied to images", of_noise, "models that make images of noise")
    if source is None:
        raise UsageError(f"model {model.name} makes {way.name}; say of which image: fabrica explain MODEL IN")
    image = source if isinstance(source, Image) else io.read(source)
    if (reasons := refusals(image, way)) and not force:
        raise UsageError(
            f"{name(image)} is not for model {model.name}: {'; '.join(reasons)}; --force explains it anyway"
        )
    able = hasattr(model, "gradient")
    if gradients and not able:
        raise UsageError(f"model {model.name} was exported and has no gradients; leave them out")
    found = explained(
        seen(image, way, at=at or (), region=region, radius=RADIUS if radius is None else radius),
        class_=class_ or "",
        window=window or 0,
        stride=stride or 0,
        fill=fill or "mean",
        gradient=partial(model.gradient, direction=direction or "a2b") if able and gradients is not False else None,
        progress=progress,
    )
    more = {"direction": direction or "a2b", "at": list(at) if at else None}
    return write_parts(model, found, name(image), folder, more)


def quiet(note: str) -> None:
    """Nothing is said."""


def _of_noise(
    model: Synthesises,
    out: Path,
    *,
    n: int,
    seed: int,
    asked: Mapping[str, Any],
    settings: Mapping[str, Any],
    progress: Progress | None,
    warn: Callable[[str], None],
) -> Explanation:
    if n < 1:
        raise UsageError(f"asked for {n} seeds; expected at least 1")
    given = {key: value for key, value in settings.items() if value is not None}
    found: list[Difference] = []
    known: list[tuple[Truth, Score] | None] = []
    for each in comparisons(model, n, seed, **asked):
        said = {"warn": quiet if each.finding else warn}  # reports are as those in training
        one = drawn(model, each, n, seed, progress, **said, **given)
        found.append(one)
        if not each.finding:
            known.append(None)
            continue
        true = truth(each.finding, n, seed, model.size[0], stated="text" in each.told)
        known.append((true, scored(each.finding, abs(one.maps), one.of_seeds, true)))
    return write_differences(model, found, known, out, {"n": n, "seed": seed, **given})


def _refuse(model: Any, does: str, others: Mapping[str, object], what: str) -> None:
    if named := [key for key, value in others.items() if value is not None]:
        raise UsageError(f"model {model.name} {does}; {', '.join(named)} is for {what}: leave it out")
