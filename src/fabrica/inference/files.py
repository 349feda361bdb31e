"""Put a translator to work on files: a slice, a volume, a DICOM series, a folder of them, a manifest.

What is not like the training images, or is incomplete, is refused with the reason, before anything is written.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fabrica import io
from fabrica.data.find import contents
from fabrica.data.manifest import Manifest, Row
from fabrica.data.sides import matched
from fabrica.data.tables import stem
from fabrica.errors import FabricaError, ReadError, UsageError
from fabrica.image import VOLUMES, Image
from fabrica.inference import translator
from fabrica.inference.preview import preview
from fabrica.inference.refusal import refusals
from fabrica.inference.results import Outcome, write_outcomes, write_result
from fabrica.inference.translation import Way
from fabrica.inference.translator import Translates
from fabrica.io.contact_sheet import PREVIEW, save_picture
from fabrica.progress import Progress, part
from fabrica.recipe.card import OF_PHANTOMS

RESULT = "result.json"
KINDS = {"png": "png", "tiff": "tiff", "jpeg": "png", "npz": "npz"}  # of pictures and arrays, and what is written


@dataclass(frozen=True)
class Input:
    """One image to be: its place, and the name that its results take."""

    path: Path
    frame: str
    name: str


def apply(
    model: Translates,
    source: str | Path,
    out: str | Path,
    *,
    auxiliary: Mapping[str, str | Path] | None = None,
    contrast: str = "",
    direction: str = "a2b",
    uncertainty: bool = False,
    round_trip: bool = False,
    mirror: bool = False,
    force: bool = False,
    as_: str = "",
    overlap: float = 0.5,
    record: Mapping[str, str] | None = None,
    progress: Progress | None = None,
) -> list[Outcome]:
    """Translate what lies at `source` into the folder `out`, with result.json and a preview of each image. What to
    mistrust the model for stands in it: see `fabrica.inference.refusal.cautions`.

    source       a file, a DICOM series, a folder of any of these, or a manifest.
    auxiliary    contrast -> a file or DICOM series of the same patient, for a model that sees some beside the image;
                 for one image only. Without it, a folder or a manifest that names this contrast and others of a patient
                 gives each image those that belong to it, as far as the model sees them.
    contrast     of models that segment: which of their contrasts the image is, where it is not the first.
    out          a folder; or, for one image, a file: then maps, preview and json stand beside it under its name.
    force        also what is unlike the training images, lacks slices, or holds values that are no numbers.
    as_          one of `fabrica.io.SUFFIXES`, of label maps also of `fabrica.io.SEGMENTATIONS`; "": as the source.
    record       more for the headers of DICOM results: see `fabrica.inference.results.write_result`.
    direction, uncertainty, round_trip, mirror, overlap   see `fabrica.inference.translator.apply`. Maps are NIfTI,
                 floats on the source's grid.

    One image that is refused is a UsageError; of several the others are made, and `Outcome.refused` says why.
    Raises ReadError for what cannot be read, UsageError for an output folder that holds results already.
    """
    way = model.way(direction)  # what the model cannot do is refused before files are opened
    translator.contrast_number(way, contrast)
    translator.check_auxiliary(way, auxiliary or {}, contrast)
    together = {} if auxiliary else _together(way, Path(source), contrast)
    inputs, unreadable = (list(together), []) if together else _inputs(Path(source))
    place = _Place.of(Path(out), as_, len(inputs), way.target.kind == "label")
    choices: dict[str, Any] = {"uncertainty": uncertainty, "round_trip": round_trip, "mirror": mirror}
    beside = _auxiliary(auxiliary or {}, Path(source), len(inputs))
    choices |= {"overlap": overlap, "contrast": contrast}
    record = dict(record or {})
    outcomes = [Outcome(str(path), refused=f"{path}: {why}") for path, why in unreadable]
    for done, each in enumerate(inputs, start=1):
        outcomes.append(Outcome(str(each.path / each.frame if each.frame else each.path), contrast=contrast))
        others = together.get(each, {})
        outcomes[-1].auxiliary = {name: str(path) for name, path in (auxiliary or {}).items()}
        outcomes[-1].auxiliary |= {name: str(other.path) for name, other in others.items()}
        try:
            read = beside or {name: io.read(other.path, other.frame) for name, other in others.items()}
            _translate(model, way, each, place, outcomes[-1], force, {**choices, "auxiliary": read}, record, progress)
        except (ReadError, UsageError) as error:
            if len(inputs) == 1:
                raise
            outcomes[-1] = Outcome(outcomes[-1].input, refused=str(error))
        if progress and len(inputs) > 1:
            progress("images", done, len(inputs))
    name = f"{stem(place.file)}.json" if place.file else RESULT
    write_outcomes(model, way, place.folder / name, outcomes)
    return outcomes


def _translate(
    model: Translates,
    way: Way,
    each: Input,
    place: _Place,
    outcome: Outcome,
    force: bool,
    choices: dict[str, Any],
    record: Mapping[str, str],
    progress: Progress | None,
) -> None:
    image = io.read(each.path, each.frame)
    outcome.overridden = refusals(image, way, choices["auxiliary"], choices["contrast"])
    if outcome.overridden and not force:
        why = "; ".join(outcome.overridden)
        what = f"model {model.name}{f', {OF_PHANTOMS}' if way.data.phantoms else ''}"
        raise UsageError(f"{outcome.input} is not for {what}: {why}; --force translates it anyway")
    suffix = place.suffix(each, image)
    found = translator.apply(image, way, progress=part(progress, each.name), **choices)
    shown, kind = preview(image, found), place.kind or _kind(found.result, each.path)
    del image  # a large volume need not lie beside its result while that is written
    target = place.folder / (place.file or place.name(each) + suffix)
    write_result(found, model, way, target, place.name(each), kind, outcome, record)
    save_picture(shown, place.folder / f"{place.name(each)}-{PREVIEW}")


def _inputs(source: Path) -> tuple[list[Input], list[tuple[Path, str]]]:
    """What there is to translate, each with a name of its own, and (file, reason) of what cannot be read. Raises
    UsageError where there is nothing."""
    if not source.exists():
        raise UsageError(f"nothing at {source} to translate; expected an image, a DICOM series, a folder or a manifest")
    unreadable: list[tuple[Path, str]] = []
    apart: Counter[str] = Counter()
    if source.is_file() and source.suffix.lower() in (".csv", ".parquet"):
        manifest = _manifest(source)
        rows = [row for row in manifest.rows if row.split or not row.kind] or manifest.rows  # as of a folder
        found = [(manifest.file(row), row.frame, row.id) for row in rows]
    else:
        looked = contents(source)
        if looked.rejected and not looked.items:
            raise ReadError(f"{looked.rejected[0][0]}: {looked.rejected[0][1]}")
        unreadable, apart = looked.rejected, looked.apart
        home = source if source.is_dir() else source.parent
        found = [(item.path, item.frame, _name(item.path, item.frame, home)) for item in looked.items]
    if not found:
        others = ", ".join(f"{count} {kind}" for kind, count in apart.most_common())
        what = f"no image in {source}{f', but {others}' if others else ''}"
        raise UsageError(f"{what}; expected DICOM, NIfTI, MetaImage, NRRD, MGH, PNG/TIFF/JPEG, npz or zip")
    return [Input(path, frame, name.replace("/", "_")) for path, frame, name in found], unreadable


def _manifest(source: Path) -> Manifest:
    from fabrica.data.manifest_cache import load_manifest  # a single file needs nothing of how folders are laid out

    return load_manifest(str(source))


def _together(way: Way, source: Path, contrast: str) -> dict[Input, dict[str, Input]]:
    """Of a folder or a manifest that names the contrasts of its images, those of the model's first one (or `contrast`),
    each with the others that belong to it; {} where nothing lies beside anything."""
    image, known = contrast or way.data.a, [way.data.a, *way.data.auxiliary]
    if len(known) < 2 or way.target.kind != "label":
        return {}
    if not (source.is_dir() or source.suffix.lower() in (".csv", ".parquet")):
        return {}
    try:
        manifest = _manifest(source)
    except FabricaError:  # what cannot be read is told image by image
        return {}
    rows = [row for row in manifest.rows if row.split or not row.kind]
    of = {name: [row for row in rows if row.domain == name] for name in known}
    if not of[image] or not any(each for name, each in of.items() if name != image):
        return {}

    def place(row: Row) -> Input:
        return Input(manifest.file(row), row.frame, row.id.replace("/", "_"))

    found: dict[Input, dict[str, Input]] = {place(row): {} for row in of[image]}
    for name in known:
        for row, other in matched(of[image], of[name]) if name != image else ():
            found[place(row)][name] = place(other)
    return found


def _auxiliary(given: Mapping[str, str | Path], source: Path, count: int) -> dict[str, Image]:
    """What stands beside the one input, read."""
    if given and (count != 1 or source.suffix.lower() in (".csv", ".parquet")):
        raise UsageError(
            f"{source} holds {count} image{'s' * (count != 1)}, and auxiliary (--auxiliary) says what belongs to one "
            "alone; give an image or a DICOM series"
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


@dataclass(frozen=True)
class _Place:
    """Where results go: a folder, each under its name; or one file. labels: they are label maps."""

    folder: Path
    file: str = ""
    kind: str = ""
    labels: bool = False

    @staticmethod
    def of(out: Path, as_: str, count: int, labels: bool = False) -> _Place:
        if as_:
            io.suffix_of(as_, labels=labels)
        known = kind if (kind := io.kind_of(out)) in io.SUFFIXES else ""
        if known and not out.is_dir():
            if count > 1:
                raise UsageError(f"{count} images cannot go to one file {out}; give a folder")
            if as_ and as_ != known and not (known == "dicom" and as_ in io.SEGMENTATIONS):
                raise UsageError(f"{out} and --as {as_} say different things; leave one out")
            return _Place(out.parent, out.name, as_ or known, labels)
        if _holds_results(out):
            raise UsageError(f"{out} already holds results; choose another folder")
        return _Place(out, "", as_, labels)

    def name(self, each: Input) -> str:
        return stem(self.file) if self.file else each.name

    def suffix(self, each: Input, image: Image) -> str:
        """The ending of the result's file, "" for a folder of DICOM slices; UsageError where some lie there."""
        kind = self.kind or _kind(image, each.path)
        suffix = io.suffix_of(kind, len(image.size), self.labels)
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
