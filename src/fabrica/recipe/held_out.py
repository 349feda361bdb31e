"""How good a translator is on held-out images, in words."""

from __future__ import annotations

from fabrica.recipe.found import HeldOutError

FEWEST = 6  # images or volumes: of fewer, an interval means little


def worth(known: HeldOutError) -> str:
    """The held-out error in a sentence, with what stands beside it; "" where nothing was measured."""
    if not known.measure:
        few = f"{known.images} images without pairs are too few to measure a held-out error"
        return few if known.images else ""
    if known.measure == "dice":
        if not known.cases:
            return f"held-out Dice not measured: none of {known.images} images shows what is learned"
        spread = "" if known.low is None or known.high is None else f" [{known.low:.3f}, {known.high:.3f}]"
        return f"held-out Dice {known.error:.3f}{spread} ({_how_many(known.cases)})"
    what = "held-out error" if known.measure == "mae" else "distance from held-out images (FRD)"
    beside = [
        f"{_figure(value, known.unit)} {name}"
        for name, value in ((_nothing(known), known.nothing), ("for the mean target", known.mean))
        if value is not None
    ]
    said = f"{what} {_figure(known.error, known.unit)}{', against ' * bool(beside)}{' and '.join(beside)}"
    said += f" ({_how_many(known.cases)})"
    if known.measure == "mae" and known.cases < FEWEST:
        return f"{said}; so few say little of others"
    if known.low is None or known.high is None:
        return said
    return f"{said}; better by {_figure(known.low, known.unit)} to {_figure(known.high, known.unit)}"


def _how_many(cases: int) -> str:
    return "1 image or volume" if cases == 1 else f"{cases} images or volumes"


def useless(known: HeldOutError) -> str:
    """A sentence where held-out images were served as well without the model; "" elsewhere."""
    others = [
        (v, n) for v, n in ((known.nothing, _nothing(known)), (known.mean, "for the mean target")) if v is not None
    ]
    if not known.measure or not others:
        return ""
    best, name = min(others)
    figures = f"{_figure(known.error, known.unit)}, and {_figure(best, known.unit)} {name}"
    what = "held-out error" if known.measure == "mae" else "distance from held-out images (FRD)"
    if known.error >= best:
        return f"the model is no better than {_instead(known, best)}: its {what} is {figures}; do not use it"
    if known.low is not None and known.low <= 0:
        return (
            f"the model is hardly better than {_instead(known, best)}: its {what} is {figures}, which chance explains"
        )
    return ""


def _nothing(known: HeldOutError) -> str:
    return "with nothing done" if known.measure == "mae" else "untranslated"


def _instead(known: HeldOutError, best: float) -> str:
    return "doing nothing" if best == known.nothing else "the mean target, the same for all"


def _figure(value: float, unit: str) -> str:
    return f"{value:.3g} {unit}".rstrip()
