"""Results as files: image, maps, and what became of each input in result.json."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from fabrica import __version__, io
from fabrica.codec import Codec
from fabrica.image import Float32, Image
from fabrica.inference.out_of_distribution import uncertainty_in_body
from fabrica.inference.refusal import cautions
from fabrica.inference.translation import Way
from fabrica.inference.translator import Applied, Translates
from fabrica.io.atomic import atomic
from fabrica.recipe.card import MARK

BEYOND = 1.25  # times the largest uncertainty of held-out images: flagged


@dataclass
class Outcome:
    """What became of one input, as it stands in result.json; paths are relative to the folder of the results.

    uncertainty  mean over the body of the result, in its unit; uncertain: whether it is well above that of held-out
                 images of the training data, and so a reason not to rely on the result.
    refused      why nothing was made; "" where something was.
    overridden   what would have been a reason, without force.
    auxiliary    contrast -> the file of what was seen beside the input. contrast: which of several the input is, where
                 it is not the model's first.
    """

    input: str
    output: str = ""
    uncertainty_map: str = ""
    uncertainty: float | None = None
    uncertain: bool | None = None
    round_trip_map: str = ""
    round_trip: float | None = None
    refused: str = ""
    overridden: list[str] = field(default_factory=list)
    auxiliary: dict[str, str] = field(default_factory=dict)
    contrast: str = ""


def write_result(
    found: Applied,
    model: Translates,
    way: Way,
    target: Path,
    name: str,
    kind: str,
    outcome: Outcome,
    record: Mapping[str, str] | None = None,
) -> None:
    """Write result and maps, and note in the outcome what is known of them.

    target   where the result goes; the maps lie beside it, their names begin with `name`. kind: its format.
    record   more for DICOM: "uid_content" and "created" (see `fabrica.io.dicom.write.write_dicom`), and "note", which
             the description says, too.
    """
    made_by: dict[str, Any] = {
        "software": "Fabrica",
        "version": __version__,
        "model": model.name,
        "model_hash": model.hash,
    }
    target.parent.mkdir(parents=True, exist_ok=True)
    drawn = way.target.kind == "label"  # what was seen in the patient, and no synthetic image of one
    said = f"{way.name}, {'segmented' if drawn else 'translated'}"
    further: dict[str, Any] = dict(record or {}) if kind in ("dicom", *io.SEGMENTATIONS) else {}
    if note := further.pop("note", ""):
        said = f"{said}, {note}"
    if way.data.phantoms:
        said = f"{MARK}: {said}"
    io.write(found.result, target, as_=kind, translated=not drawn, description=said, **made_by, **further)
    outcome.output = target.name
    if found.uncertainty is not None:
        doubted, half = _mean_uncertainty(found.result, found.uncertainty, way.target)
        outcome.uncertainty = doubted * half
        outcome.uncertain = bool(way.seen.uncertainty) and doubted > BEYOND * way.seen.uncertainty
        outcome.uncertainty_map = f"{name}-uncertainty.nii.gz"
        _write_map(found.uncertainty, target.parent / outcome.uncertainty_map, f"{way.name}, uncertainty", made_by)
    if found.round_trip is not None:
        outcome.round_trip = float(found.round_trip.data.mean())
        outcome.round_trip_map = f"{name}-round-trip.nii.gz"
        _write_map(found.round_trip, target.parent / outcome.round_trip_map, f"{way.name} and back, error", made_by)


def _mean_uncertainty(result: Image, uncertainty: Image, target: Codec) -> tuple[float, float]:
    """The mean uncertainty in the body in network values, and how much in the result's unit 1 of these is.

    Slice by slice, so that a large volume needs no further copy.
    """
    low, high = target.span
    half = (high - low) / 2
    pairs = zip(_slices(result.data), _slices(uncertainty.data), strict=True)
    return uncertainty_in_body(
        ((target.scaled(made, (low, high)), spread / half) for made, spread in pairs), target
    ), half


def _slices(data: Float32) -> list[Float32]:
    """(C, H, W) or (C, D, H, W) as slices (C, H, W)."""
    return [data] if data.ndim == 3 else [data[:, k] for k in range(data.shape[1])]


def _write_map(image: Image, path: Path, description: str, made_by: dict[str, Any]) -> None:
    origin = {key: value for key, value in image.origin.items() if key not in ("stored", "step")}  # stored as floats
    io.write(image.with_data(image.data, origin=origin), path, translated=True, description=description, **made_by)


def write_outcomes(model: Translates, way: Way, path: Path, outcomes: Sequence[Outcome]) -> None:
    """Write what became of all inputs as JSON, with what is to be known of the model."""
    known: dict[str, Any] = {"fabrica": __version__, "model": model.name, "model_hash": model.hash}
    known |= {"direction": way.direction, "cautions": cautions(way)}
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic(path) as temporary:
        results = [asdict(outcome) for outcome in outcomes]
        text = json.dumps({**known, "results": results}, indent=2, ensure_ascii=False)
        temporary.write_text(text + "\n", encoding="utf-8")
