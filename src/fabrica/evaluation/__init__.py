"""Judge models and synthetic images: scores with intervals, what stands beside them, and one page that says it all."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fabrica.model.model import Model
    from fabrica.report.scores import Report

# Loaded on first use, so that the numpy-only modules of this package do not pull in torch.
_DOORS = {
    "Report": "fabrica.report.scores",
    "ScoreRow": "fabrica.report.scores",
    "scores_table": "fabrica.report.scores",
}
__all__ = ["Report", "ScoreRow", "evaluate", "scores_table"]


def evaluate(
    model: Model | Path | str,
    against: str | Path | None = None,
    out: str | Path = "report",
    *,
    versus: Model | Path | str | None = None,
    n: int | None = None,
    split: str = "test",
    extractor: str = "radiomic",
    seed: int = 0,
    steps_curve: Sequence[int] | None = None,
    guidances: Sequence[float] | None = None,
    utility: bool = False,
    paint: bool = False,
    repeats: int | None = None,
    train_steps: int | None = None,
    progress: Callable[[str, int, int], None] | None = None,
    warn: Callable[[str], None] | None = None,
) -> Report:
    """Score a model, or synthetic images, against held-out real ones; write out/report.html and out/scores.json.

    model      a Model, a model folder or a bundle, or a folder or manifest of synthetic images.
    against    a manifest, folder or phantom source of real images; None: what the model was trained on.
    versus     of models that translate or segment: a second one, judged on the same test images by paired tests.
    n          how many images: to synthesise, or to translate. None: see the three modules below.
    split      the real images to compare with; val stands in, with a warning, where test is empty.
    extractor  what distances between sets are measured on: see `fabrica.metrics.extractors.extractor`.
    steps_curve  of diffusion: also measure at these numbers of sampler steps.
    guidances  of diffusion told by text on chest phantoms: strengths of guidance at which to measure how far it obeys.
    utility    measure instead what the images are worth to a segmenter or a classifier that learns from them, by
               `repeats` networks for each mix of `train_steps` steps: see `fabrica.evaluation.utility.evaluate`.
    progress   called with (what, done, total).
    warn       called with one sentence on what a bundle does not say; None: `warnings.warn`.

    What makes images of noise is judged by `fabrica.evaluation.synthesis.evaluate`, what translates by
    `fabrica.evaluation.translation.evaluate`, what compresses by
    `fabrica.evaluation.compression.evaluate`. Raises UsageError.

    >>> import fabrica
    >>> from fabrica.recipe.load import load_recipe
    >>> changes = ["data.source=phantom:chest", "data.count=64", "data.size=32", "train.steps=2"]
    >>> model = fabrica.load(fabrica.train(load_recipe("mlp-xray", changes), "model"))
    >>> report = fabrica.evaluate(model, out="report")
    >>> report.page.name, report.scores["n_synthetic"]
    ('report.html', 64)
    """
    from fabrica.errors import UsageError
    from fabrica.evaluation.subject import opened
    from fabrica.model.model import Model
    from fabrica.model.tasks import TASKS, task_of

    model = opened(model, warn)
    if utility:
        if versus is not None or steps_curve or guidances or n is not None:
            raise UsageError("utility (--utility) trains segmenters or classifiers; leave out versus, n, curves")
        from fabrica.evaluation.utility import evaluate as worth

        return worth.evaluate(
            model,
            against,
            out,
            split=split,
            seed=seed,
            paint=paint,
            repeats=worth.REPEATS if repeats is None else repeats,
            steps=worth.STEPS if train_steps is None else train_steps,
            progress=progress,
        )
    if paint or repeats is not None or train_steps is not None:
        raise UsageError("paint, repeats and train_steps are of utility (--utility); add it, or leave them out")
    task = task_of(model.method) if isinstance(model, Model) else TASKS["synthesis"]  # images that are there already
    own: dict[str, Any] = {"versus": versus, "steps_curve": steps_curve, "guidances": guidances}
    evaluation = import_module(task.evaluation)
    if versus is not None and "versus" not in evaluation.OPTIONS:
        raise UsageError(
            "versus (--versus) compares two models that translate or segment; judge other models one by one"
        )
    if steps_curve and "steps_curve" not in evaluation.OPTIONS:
        raise UsageError(f"a model that {task.verb} has no sampler steps; leave the steps curve (--curve) out")
    options = {name: own[name] for name in evaluation.OPTIONS}
    report: Report = evaluation.evaluate(
        model, against, out, n=n, split=split, extractor=extractor, seed=seed, progress=progress, **options
    )
    return report


def __getattr__(name: str) -> Any:
    if name in _DOORS:
        return getattr(import_module(_DOORS[name]), name)
    raise AttributeError(f"module 'fabrica.evaluation' has no attribute {name!r}")
