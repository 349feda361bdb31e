"""Put a translator to work on files: a slice, a volume, a DICOM series, a folder of them, a manifest.

What is not like the training images, or is incomplete, is refused with the reason, before anything is written.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from fabrica import __version__, io
from fabrica.codec import Codec
from fabrica.data.find import contents
from fabrica.data.manifest_cache import load_manifest
from fabrica.data.tables import stem
from fabrica.errors import ReadError, UsageError
from fabrica.image import VOLUMES, Float32, Image
from fabrica.inference.out_of_distribution import compared, doubt
from fabrica.io.atomic import atomic
from fabrica.io.contact_sheet import Uint8, save_picture
from fabrica.model.model import Applied, Model
from fabrica.progress import Progress, part
from fabrica.recipe.held_out import useless

RESULT = "result.json"
CT_WINDOW = (250.0, 2500.0)  # centre and width in HU: air to dense bone, for previews
BEYOND = 1.25  # times the largest uncertainty of held-out images: flagged
KINDS = {"png": "png", "tiff": "tiff", "jpeg": "png", "npz": "npz"}  # of pictures and arrays, and what is written


@dataclass(frozen=True)
class Input:
    """One image to be: its place, and the name that its results take."""

    path: Path
    frame: str
    name: str


@dataclass
class Outcome:
    """What became of one input, as it stands in result.json; paths are relative to the folder of the results.

    uncertainty  mean over the body of the result, in its unit; uncertain: whether it is well above that of held-out
                 images of the training data, and so a reason not to rely on the result.
    refused      why nothing was made; "" where something was.
    overridden   what would have been a reason, without force.
    beside       contrast -> the file of what was seen beside the input.
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
    beside: dict[str, str] = field(default_factory=dict)


def apply(
    model: Model,
    source: str | Path,
    out: str | Path,
    *,
    beside: Mapping[str, str | Path] | None = None,
    direction: str = "a2b",
    uncertainty: bool = False,
    round_trip: bool = False,
    force: bool = False,
    as_: str = "",
    overlap: float = 0.5,
    progress: Progress | None = None,
) -> list[Outcome]:
    """Translate what lies at `source` into the folder `out`, with result.json and a preview of each image. What to
    mistrust the model for stands in result.json: see `cautions`.

    source       a file, a DICOM series, a folder of any of these, or a manifest.
    beside       contrast -> a file or DICOM series of the same patient, for a model that sees some beside the image;
                 for one image only.
    out          a folder; or, for one image, a file: then maps, preview and json stand beside it under its name.
    force        also what is unlike the training images, lacks slices, or holds values that are no numbers.
    as_          one of `fabrica.io.SUFFIXES`; "": as the source.
    direction, uncertainty, round_trip, overlap   see `Model.apply`. Maps are NIfTI, floats on the source's grid.

    One image that is refused is a UsageError; of several the others are made, and `Outcome.refused` says why.
    Raises ReadError for what cannot be read, UsageError for an output folder that holds results already.
    """
    model.way(direction)  # what the model cannot do is refused before files are opened
    model.check_beside(beside or {})
    inputs, unreadable = _inputs(Path(source))
    place = _Place.of(Path(out), as_, len(inputs))
    choices: dict[str, Any] = {"direction": direction, "uncertainty": uncertainty, "round_trip": round_trip}
    choices |= {"overlap": overlap, "beside": _beside(beside or {}, Path(source), len(inputs))}
    outcomes = [Outcome(str(path), refused=f"{path}: {why}") for path, why in unreadable]
    for done, each in enumerate(inputs, start=1):
        outcomes.append(Outcome(str(each.path / each.frame if each.frame else each.path)))
        outcomes[-1].beside = {name: str(path) for name, path in (beside or {}).items()}
        try:
            _translate(model, each, place, outcomes[-1], force, choices, progress)
        except (ReadError, UsageError) as error:
            if len(inputs) == 1:
                raise
            outcomes[-1] = Outcome(outcomes[-1].input, refused=str(error))
        if progress and len(inputs) > 1:
            progress("images", done, len(inputs))
    _write_json(model, direction, place, outcomes)
    return outcomes


def cautions(model: Model, direction: str = "a2b") -> list[str]:
    """What is to be known of all results of this model before one relies on any, a sentence each."""
    found = [useless(model.recipe, direction), compared(model.way(direction))]
    return [sentence for sentence in found if sentence]


def _translate(
    model: Model,
    each: Input,
    place: _Place,
    outcome: Outcome,
    force: bool,
    choices: dict[str, Any],
    progress: Progress | None,
) -> None:
    image = io.read(each.path, each.frame)
    outcome.overridden = _reasons(model, image, choices["direction"])
    for name, other in choices["beside"].items():
        outcome.overridden += [f"of {name} beside it, {flaw}" for flaw in _flaws(other)]
    if outcome.overridden and not force:
        why = "; ".join(outcome.overridden)
        raise UsageError(f"{outcome.input} is not for model {model.name}: {why}; --force translates it anyway")
    suffix = place.suffix(each, image)
    found = model.apply(image, progress=part(progress, each.name), **choices)
    preview = _preview(image, found)
    del image  # a large volume need not lie beside its result while that is written
    _write(model, choices["direction"], found, place, each, suffix, outcome)
    save_picture(preview, place.folder / f"{place.name(each)}-preview.png")


def _inputs(source: Path) -> tuple[list[Input], list[tuple[Path, str]]]:
    """What there is to translate, each with a name of its own, and (file, reason) of what cannot be read. Raises
    UsageError where there is nothing."""
    if not source.exists():
        raise UsageError(f"nothing at {source} to translate; expected an image, a DICOM series, a folder or a manifest")
    unreadable: list[tuple[Path, str]] = []
    if source.is_file() and source.suffix.lower() in (".csv", ".parquet"):
        manifest = load_manifest(str(source))
        rows = [row for row in manifest.rows if row.split or not row.kind] or manifest.rows  # as of a folder
        found = [(manifest.file(row), row.frame, row.id) for row in rows]
    else:
        looked = contents(source)
        if looked.rejected and not looked.items:
            raise ReadError(f"{looked.rejected[0][0]}: {looked.rejected[0][1]}")
        unreadable = looked.rejected
        home = source if source.is_dir() else source.parent
        found = [(item.path, item.frame, _name(item.path, item.frame, home)) for item in looked.items]
    if not found:
        raise UsageError(
            f"no image in {source}; expected DICOM, NIfTI, MetaImage, NRRD, MGH, PNG/TIFF/JPEG, npz or zip"
        )
    return [Input(path, frame, name.replace("/", "_")) for path, frame, name in found], unreadable


def _beside(given: Mapping[str, str | Path], source: Path, count: int) -> dict[str, Image]:
    """What stands beside the one input, read."""
    if given and (count != 1 or source.suffix.lower() in (".csv", ".parquet")):
        raise UsageError(
            f"{source} holds {count} image{'s' * (count != 1)}, and beside (--beside) says what belongs to a single "
            "one; give an image or a DICOM series"
        )
    images = {}
    for name, path in given.items():
        found, _ = _inputs(Path(path))
        if len(found) != 1:
            raise UsageError(f"{path} holds {len(found)} images; expected one, the {name} of {source}")
        images[name] = io.read(found[0].path, found[0].frame)
    return images


def _name(path: Path, frame: str, home: Path) -> str:
    where = path.relative_to(home).as_posix()
    bare = path.resolve().name if where == "." else stem(where)
    return "_".join(filter(None, (bare, stem(frame))))


def _reasons(model: Model, image: Image, direction: str) -> list[str]:
    """Why this image should not be translated."""
    if "positions" in image.origin and len(model.recipe.data.size) == 3:
        return [*_flaws(image), "its slices are uneven, and the model works on volumes"]
    return _flaws(image) or model.unlike(image, direction)


def _flaws(image: Image) -> list[str]:
    """What the image lacks, a phrase each."""
    reasons = []
    if missing := int(image.origin.get("missing", 0)):
        reasons.append(f"{missing} of its slices are missing")
    if strange := int(image.origin.get("nan", 0)) or int((~np.isfinite(image.data.sum(axis=-1))).sum()):
        reasons.append(f"{strange} of its values are no numbers")
    return reasons


@dataclass(frozen=True)
class _Place:
    """Where results go: a folder, each under its name; or one file."""

    folder: Path
    file: str = ""
    kind: str = ""

    @staticmethod
    def of(out: Path, as_: str, count: int) -> _Place:
        if as_:
            io.suffix_of(as_)
        known = kind if (kind := io.kind_of(out)) in io.SUFFIXES else ""
        if known and not out.is_dir():
            if count > 1:
                raise UsageError(f"{count} images cannot go to one file {out}; give a folder")
            if as_ and as_ != known:
                raise UsageError(f"{out} and --as {as_} say different things; leave one out")
            return _Place(out.parent, out.name, known)
        if _holds_results(out):
            raise UsageError(f"{out} already holds results; choose another folder")
        return _Place(out, "", as_)

    def name(self, each: Input) -> str:
        return stem(self.file) if self.file else each.name

    def suffix(self, each: Input, image: Image) -> str:
        """The ending of the result's file, "" for a folder of DICOM slices; UsageError where some lie there."""
        kind = self.kind or _kind(image, each.path)
        suffix = io.suffix_of(kind, len(image.size))
        target = self.folder / (self.file or each.name + suffix)
        if not suffix and target.is_dir() and any(target.iterdir()):
            raise UsageError(f"{target} already holds files; choose another folder, so that no two series mix")
        return suffix


def _holds_results(out: Path) -> bool:
    """Whether images were made into this folder; where all were refused, nothing is lost by trying again."""
    try:
        return any(result["output"] for result in json.loads((out / RESULT).read_text(encoding="utf-8"))["results"])
    except FileNotFoundError:
        return False
    except (OSError, ValueError, KeyError, TypeError):
        return True  # some other file of that name


def _kind(image: Image, path: Path) -> str:
    if image.origin.get("format") in ("dicom", *VOLUMES):
        return str(image.origin["format"])
    kind = KINDS.get(io.format_of(path), "png") if path.is_file() else "png"
    return "nifti" if len(image.size) == 3 and kind == "png" else kind


def _write(
    model: Model, direction: str, found: Applied, place: _Place, each: Input, suffix: str, outcome: Outcome
) -> None:
    """Write result and maps, and what is known of them into the outcome."""
    name = place.name(each)
    kind = place.kind or _kind(found.result, each.path)
    which = f"{model.recipe.data.a} to {model.recipe.data.b}"
    if direction == "b2a":
        which = f"{model.recipe.data.b} to {model.recipe.data.a}"
    made_by: dict[str, Any] = {
        "software": "Fabrica",
        "version": __version__,
        "model": model.name,
        "model_hash": model.hash,
    }
    target = place.folder / (place.file or name + suffix)
    place.folder.mkdir(parents=True, exist_ok=True)
    io.write(found.result, target, as_=kind, translated=True, description=f"{which}, translated", **made_by)
    outcome.output = target.name
    if found.uncertainty is not None:
        way = model.way(direction)
        doubted, half = _doubt(found.result, found.uncertainty, way.target)
        outcome.uncertainty = doubted * half
        outcome.uncertain = bool(way.seen.doubt) and doubted > BEYOND * way.seen.doubt
        outcome.uncertainty_map = f"{name}-uncertainty.nii.gz"
        _write_map(found.uncertainty, place.folder / outcome.uncertainty_map, f"{which}, uncertainty", made_by)
    if found.round_trip is not None:
        outcome.round_trip = float(found.round_trip.data.mean())
        outcome.round_trip_map = f"{name}-round-trip.nii.gz"
        _write_map(found.round_trip, place.folder / outcome.round_trip_map, f"{which} and back, error", made_by)


def _doubt(result: Image, uncertainty: Image, target: Codec) -> tuple[float, float]:
    """The mean uncertainty in the body in network values, and how much in the result's unit 1 of these is.

    Slice by slice, so that a large volume needs no further copy.
    """
    low, high = target.span
    half = (high - low) / 2
    pairs = zip(_slices(result.data), _slices(uncertainty.data), strict=True)
    return doubt(((target.scaled(made, (low, high)), spread / half) for made, spread in pairs), target), half


def _slices(data: Float32) -> list[Float32]:
    """(C, H, W) or (C, D, H, W) as slices (C, H, W)."""
    return [data] if data.ndim == 3 else [data[:, k] for k in range(data.shape[1])]


def _write_map(image: Image, path: Path, description: str, made_by: dict[str, Any]) -> None:
    origin = {key: value for key, value in image.origin.items() if key not in ("stored", "step")}  # stored as floats
    io.write(image.with_data(image.data, origin=origin), path, translated=True, description=description, **made_by)


def _write_json(model: Model, direction: str, place: _Place, outcomes: list[Outcome]) -> None:
    known: dict[str, Any] = {"fabrica": __version__, "model": model.name, "model_hash": model.hash}
    known |= {"direction": direction, "cautions": cautions(model, direction)}
    results: list[dict[str, Any]] = [asdict(outcome) for outcome in outcomes]
    place.folder.mkdir(parents=True, exist_ok=True)
    path = place.folder / (f"{stem(place.file)}.json" if place.file else RESULT)
    with atomic(path) as temporary:
        text = json.dumps({**known, "results": results}, indent=2, ensure_ascii=False)
        temporary.write_text(text + "\n", encoding="utf-8")


def _preview(image: Image, found: Applied) -> Uint8:
    """The middle slices of source, result and maps side by side, maps from 0 to nearly their largest value; CT made
    of CT in one window, the source's own."""
    own = image.origin.get("window") if image.unit == "HU" else None
    window = (own or CT_WINDOW) if found.result.unit == "HU" else None
    tiles = [io.to_display(image, window if image.unit == "HU" else None), io.to_display(found.result, window)]
    for each in (found.uncertainty, found.round_trip):
        if each is not None:
            brightest = float(np.quantile(each.data, 0.999)) or 1.0
            tiles.append(io.to_display(each, (brightest / 2, brightest)))
    finer = len(tiles[1]) // len(tiles[0])  # of a model that adds resolution
    tiles[0] = tiles[0].repeat(finer, 0).repeat(finer, 1)
    return np.concatenate(tiles, axis=1)
