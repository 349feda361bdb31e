"""What a process that works does with a task: images translated or made, files written, graphs run."""

from __future__ import annotations

import errno
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np

from fabrica import io
from fabrica.errors import FabricaError, UsageError
from fabrica.image import Image
from fabrica.inference.files import apply
from fabrica.inference.refusal import cautions
from fabrica.inference.results import Outcome
from fabrica.inference.seeing import seen
from fabrica.inference.translator import contrasts_beside
from fabrica.progress import Progress
from fabrica.serving.http import tensors
from fabrica.serving.http.archives import packed, unpacked
from fabrica.serving.http.models import Ready, Samples
from fabrica.serving.http.tasks import Apply, Infer, Inferred, Made, Refused, Sample
from fabrica.serving.http.views import view

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG)
MEDIA = {
    ".dcm": "application/dicom",
    ".gz": "application/gzip",
    ".png": "image/png",
    ".tif": "image/tiff",
    ".tiff": "image/tiff",
    ".zip": "application/zip",
}
SUFFIX = {"dicom": ".dcm", "jpeg": ".jpg", "tiff": ".tif", "metaimage": ".mha", "zip": ".zip", "npz": ".npz"}


def inferred(ready: Ready, tasks: Sequence[Infer]) -> list[Inferred]:
    """Calls of one graph as a single one."""
    try:
        made = ready.graphs[tasks[0].graph](*tensors.together(tasks))
    except MemoryError:
        raise
    except Exception as error:  # runtimes raise what they like for sizes that a network cannot see
        shape = list(tasks[0].inputs[0].shape[1:])
        raise Refused(
            400, f"graph {tasks[0].graph} of model {ready.served.name} takes no {shape} as one image"
        ) from error
    return tensors.apart(tasks, made)


def applied(ready: Ready, task: Apply, progress: Progress) -> Made:
    """The images of a task translated: one file for one, an archive of the same kind for more."""
    out = task.folder / "out"
    with _told(task.folder):
        unpacking = _Unpacking(task.largest)
        source = unpacking.source(task.uploaded, task.folder / "series")
        beside = {
            name: unpacking.source(files, task.folder / "series-beside" / files[0].parent.name)
            for name, files in task.beside.items()
        }
        outcomes = apply(ready.model, source, out, auxiliary=beside, progress=progress, **task.choices)
        done = [each for each in outcomes if not each.refused]
        if not done:
            raise Refused(422, _plain("; ".join(each.refused for each in outcomes), task.folder))
        way = ready.model.way(str(task.choices.get("direction", "a2b")))
        notes = [*cautions(way), *(_plain(each.refused, task.folder) for each in outcomes if each.refused)]
        notes += [
            f"without {name} beside the image; it may be sent, too"
            for name in contrasts_beside(way.data.a, way.data.auxiliary, str(task.choices.get("contrast", "")))
            if name not in beside
        ]
        files, images = _files(out, done), dict[str, Image]()
        if task.view or task.explain:
            images = _views(source, out, done[0], bool(ready.served.labels))
        if task.explain:
            try:
                images["occlusion"] = _explained(ready, images["before"], task, progress)
                files += _inside(task.folder / "explanation", task.folder)
            except UsageError as error:  # nothing that could be explained: the result stands
                notes.append(f"not explained: {_plain(str(error), task.folder)}")
        if task.view:
            files += _drawn(images, task.folder)
        elif len(files) == 1 and source.is_file() and source.suffix != ".zip":
            return Made(files[0][1], MEDIA.get(files[0][1].suffix, "application/octet-stream"), tuple(notes))
        (task.folder / "about.json").write_text(json.dumps(_about(ready, outcomes, task.folder, notes)), "utf-8")
        files.append(("result.json", task.folder / "about.json"))
        return Made(packed(files, task.folder / "result.zip"), MEDIA[".zip"], tuple(notes))


def sampled(ready: Ready, task: Sample, progress: Progress) -> Made:
    """Synthetic images: one file, or an archive of as many as were asked for."""
    notes = [*ready.served.cautions]
    model = cast(Samples, ready.model)
    with _told(task.folder):
        kind = task.kind or ("nifti" if len(ready.served.size) == 3 else "png")
        suffix = io.suffix_of(kind, len(ready.served.size))
        images = model.sample(
            task.n,
            seed=task.seed,
            conditions=task.conditions,
            progress=progress,
            warn=notes.append,
            **task.choices,
        )
        files: list[tuple[str, Path]] = []
        for k, image in enumerate(images):
            target = task.folder / f"{ready.served.name}-{task.seed + k:06d}{suffix}"
            io.write(
                image, target, as_=kind, synthetic=True, model=model.name, model_hash=model.hash, seed=task.seed + k
            )
            files += _inside(target, task.folder)
        if task.view:
            files += _drawn({f"view-{k}": image for k, image in enumerate(images)}, task.folder)
        elif len(files) == 1:
            return Made(files[0][1], MEDIA.get(files[0][1].suffix, "application/octet-stream"), tuple(notes))
        return Made(packed(files, task.folder / "result.zip"), MEDIA[".zip"], tuple(notes))


@dataclass
class _Unpacking:
    """What was uploaded, as `apply` takes it. left: bytes that archives may still unpack to, all of a request."""

    left: int

    def source(self, files: Sequence[Path], series: Path) -> Path:
        """A file under a suffix that says what it is, or a folder: `series` of what an archive holds."""
        if len(files) != 1:
            return files[0].parent
        (path,) = files
        kind = io.format_of(path)
        if kind == "zip":
            series.mkdir(parents=True)
            self.left -= unpacked(path, series, largest=self.left)
            return series
        if not path.suffix:
            gzipped = kind in ("nifti", "mgh") and path.read_bytes()[:2] == b"\x1f\x8b"
            suffix = {"nifti": ".nii.gz", "mgh": ".mgz"} if gzipped else {"nifti": ".nii", "mgh": ".mgh"}
            path = path.rename(path.with_suffix(suffix.get(kind) or SUFFIX.get(kind, f".{kind}")))
        return path


class _told:
    """Around work on files: whatever goes wrong becomes one line for the client, without the server's folders."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, Refused) or error is None:
            return
        cause = error.__cause__ if isinstance(error, FabricaError) else error
        if isinstance(cause, OSError) and cause.errno in FULL:
            raise Refused(507, "the server has no room left to work in; nothing was changed", 60) from error
        if isinstance(error, FabricaError):  # of files that can be read, and whose headers cannot be written again, too
            raise Refused(422, _plain(str(error).partition("Traceback")[0], self.folder)) from error


def _plain(line: str, folder: Path) -> str:
    """A message for who sees neither the server's folders nor its command line."""
    said = line.replace("--force translates", "force=1 translates")
    beside = sorted([*folder.glob("beside/*"), *folder.glob("series-beside/*")], key=lambda place: -len(place.name))
    for place in (folder / "in", folder / "series", folder / "out", *beside):
        said = said.replace(f"{place}/", "").replace(str(place), "what was sent")
    said = said.replace(str(folder), "")
    return " ".join(said.split())[:600]


def _files(out: Path, outcomes: Sequence[Outcome]) -> list[tuple[str, Path]]:
    """All that was written of these, under names in an archive."""
    found = []
    for each in outcomes:
        for name in (each.output, each.uncertainty_map, each.round_trip_map):
            found += _inside(out / name, out) if name else []
    return found


def _inside(path: Path, home: Path) -> list[tuple[str, Path]]:
    """A file, or the files of a folder."""
    files = sorted(path.rglob("*")) if path.is_dir() else [path]
    return [(each.relative_to(home).as_posix(), each) for each in files if each.is_file()]


def _about(ready: Ready, outcomes: Sequence[Outcome], folder: Path, notes: Sequence[str]) -> dict[str, Any]:
    results = [
        {
            "output": each.output,
            "refused": _plain(each.refused, folder),
            "overridden": each.overridden,
            "auxiliary": sorted(each.auxiliary),
            "uncertainty": each.uncertainty,
            "uncertain": each.uncertain,
            "uncertainty_map": each.uncertainty_map,
            "round_trip_map": each.round_trip_map,
        }
        for each in outcomes
    ]
    known = {"model": ready.served.model, "model_hash": ready.served.hash, "notes": list(notes)}
    return {**known, "results": results}


def _views(source: Path, out: Path, outcome: Outcome, labels: bool) -> dict[str, Image]:
    """The first image before and after, and its map, as the page draws them."""
    path, frame = Path(outcome.input), ""
    while not path.exists() and path != source.parent:
        path, frame = path.parent, f"{path.name}/{frame}".rstrip("/")
    images = {"before": io.read(path, frame)}
    made = out / outcome.output
    images["after"] = io.read_mask(made, grid=images["before"]) if labels else io.read(made)
    if outcome.uncertainty_map:
        images["uncertainty"] = io.read(out / outcome.uncertainty_map)
    return images


def _explained(ready: Ready, image: Image, task: Apply, progress: Progress) -> Image:
    """By how much hiding each place changed the result, of label maps the class that it changed most; all of it, as
    `fabrica explain` writes it, lies in `explanation` afterwards. UsageError where there is nothing to explain."""
    from fabrica.evaluation.explanation.parts import explained  # as long to import as all else that a worker needs
    from fabrica.evaluation.explanation.writing import write_parts

    direction = str(task.choices.get("direction", "a2b"))
    found = explained(seen(image, ready.model.way(direction)), progress=progress)
    write_parts(ready.model, found, "the image", task.folder / "explanation", {"direction": direction})
    return found.seen.on_image(np.max([part.moved for part in found.parts], axis=0))


def _drawn(images: Mapping[str, Image], folder: Path) -> list[tuple[str, Path]]:
    found, said = [], {}
    for name, image in images.items():
        said[name], content = view(image)
        (folder / f"{name}.u16").write_bytes(content)
        found.append((f"view/{name}.u16", folder / f"{name}.u16"))
    (folder / "view.json").write_text(json.dumps(said), "utf-8")
    return [("view/view.json", folder / "view.json"), *found]
