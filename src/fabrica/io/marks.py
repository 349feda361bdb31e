"""What Fabrica writes beside the pixels of formats without a medical header: that they are synthetic, and where.

PNG keeps the marks as tEXt chunks, TIFF as ImageDescription, JPEG as a comment, NIfTI as a header extension; all
as lines "Keyword=value" in plain ASCII. Nothing in them comes from a patient's header but geometry, unit, and what the
labels of a label map are called.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from fabrica.errors import UsageError
from fabrica.image import UNITS, Image

PLACE = "Fabrica"
"""The keyword of geometry, unit, window and the names of labels, as JSON."""

_KEYWORDS = {
    "software": "Software",
    "version": "Version",
    "model": "Model",
    "model_hash": "ModelHash",
    "seed": "Seed",
    "description": "Description",
}
_IGNORED = ("uid_seed", "uid_content", "created")  # for DICOM alone


def is_synthetic(image: Image) -> bool:
    """Whether the image is marked as synthetic, or was derived from one that is."""
    if image.origin.get("synthetic"):
        return True
    return any(str(source.get("SyntheticData", "")) == "YES" for source in image.origin.get("dicom", ()))


def marks(image: Image, synthetic: bool, provenance: Mapping[str, Any], translated: bool = False) -> dict[str, str]:
    """Keyword -> value of everything to write beside the pixels.

    translated  synthetic, but of a patient: without this mark a DICOM copy would be given to nobody.
    provenance  software, version, model, model_hash, seed, description: what `write` was given.
    Raises UsageError for a name that no writer knows.
    """
    unknown = [name for name in provenance if name not in _KEYWORDS and name not in _IGNORED]
    if unknown:
        raise UsageError(f"write() does not know {unknown[0]!r}; expected one of {', '.join(_KEYWORDS)}")
    found: dict[str, str] = {}
    if synthetic:
        found |= {"SyntheticData": "YES", "Software": "Fabrica"}
    if translated:
        found["Translated"] = "YES"
    for name, keyword in _KEYWORDS.items():
        if provenance.get(name) not in (None, ""):
            found[keyword] = _plain(provenance[name])
    found[PLACE] = json.dumps(_place(image), separators=(",", ":"))
    return found


def to_text(found: Mapping[str, str]) -> str:
    """Marks as lines "Keyword=value"."""
    return "\n".join(f"{keyword}={value}" for keyword, value in found.items())


def from_text(text: str) -> dict[str, str]:
    """The reverse of `to_text`; lines without "=" (another program's comment) are passed over."""
    pairs = (line.partition("=") for line in text.splitlines())
    return {keyword: value for keyword, sign, value in pairs if sign and keyword.isalnum()}


def origin_from(found: Mapping[str, str]) -> dict[str, Any]:
    """The keys of Image.origin that marks give back: synthetic, translated, model, seed, window, modality, labels."""
    origin: dict[str, Any] = {}
    if found.get("SyntheticData") == "YES":
        origin["synthetic"] = True
        if found.get("Translated") == "YES":
            origin["translated"] = True
        origin |= {name: found[_KEYWORDS[name]] for name in ("model", "model_hash") if _KEYWORDS[name] in found}
        if found.get("Seed", "").isdecimal():
            origin["seed"] = int(found["Seed"])
    place = place_from(found)
    window = place.get("window")
    if isinstance(window, list) and len(window) == 2 and all(isinstance(v, int | float) for v in window):
        origin["window"] = (float(window[0]), float(window[1]))
    if isinstance(place.get("modality"), str):
        origin["modality"] = place["modality"]
    named = place.get("labels")
    if isinstance(named, dict) and all(k.isdecimal() and isinstance(v, str) for k, v in named.items()):
        origin["labels"] = {int(k): v for k, v in named.items()}
    return origin


def place_from(found: Mapping[str, str]) -> dict[str, Any]:
    """Geometry and unit as written by `marks`: affine (4 x 4 array), unit, channels, dimensions; {} if absent.

    The text comes from a file, so anything unsound in it is dropped.
    """
    try:
        place = json.loads(found.get(PLACE, "{}"))
        affine = np.asarray(place.pop("affine"), np.float64).reshape(4, 4)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return {}
    if not np.isfinite(affine).all() or place.get("unit") not in UNITS:
        return {}
    return {**place, "affine": affine}


def _place(image: Image) -> dict[str, Any]:
    place: dict[str, Any] = {
        "affine": [float(v) for v in image.affine.ravel()],
        "unit": image.unit,
        "channels": image.channels,
        "dimensions": len(image.size),
    }
    if "window" in image.origin:
        place["window"] = [float(v) for v in image.origin["window"]]
    if isinstance(image.origin.get("modality"), str):
        place["modality"] = image.origin["modality"]
    if image.unit == "label" and image.origin.get("labels"):
        place["labels"] = {str(number): name for number, name in image.origin["labels"].items()}
    return place


def _plain(value: object) -> str:
    """One line of ASCII."""
    return " ".join(str(value).split()).encode("ascii", "backslashreplace").decode("ascii")
