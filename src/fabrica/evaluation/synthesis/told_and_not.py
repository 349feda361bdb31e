"""What a model that is told labels, or findings of chest phantoms, changes in an image for them: the same seeds, told
another thing. `fabrica explain` shows more of it, and scores it."""

from __future__ import annotations

from fabrica.evaluation.explanation.differences import comparisons, drawn
from fabrica.evaluation.explanation.lesions import of_phantoms
from fabrica.evaluation.explanation.pictures import differences
from fabrica.evaluation.subject import Subject
from fabrica.inference.synthesis import Synthesises
from fabrica.io.contact_sheet import Uint8

SEEDS, MOST = 3, 4  # of each, and how many labels or findings


def pictures(subject: Subject, seed: int) -> list[tuple[str, Uint8]]:
    """(what is told instead of what, a sheet of both and their differences); [] of models that are told neither."""
    model: object = subject.model
    if not isinstance(model, Synthesises):
        return []
    names = model.encoder.names
    if not ("label" in names or ("text" in names and of_phantoms(model))):
        return []
    asked = comparisons(model, SEEDS, seed)[:MOST]
    found = [drawn(model, each, SEEDS, seed, warn=lambda note: None) for each in asked]
    return [(one.comparison.name, differences(one, None)) for one in found]
