"""Label maps from whatever holds masks: volumes, pictures, DICOM SEG and RTSTRUCT, folders of one file an organ."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

import fabrica.io as io
from fabrica.errors import ReadError, UsageError
from fabrica.image import MOST_LABELS, Float32, Image, name
from fabrica.io.budget import DEFAULT_BUDGET
from fabrica.io.grids import on_grid

WHOLE = 1e-3  # how far from a whole number a label may be stored
HALF = 0.5  # of a probability: what belongs
SHARED = 1e-3  # of the smaller of two organs: so many voxels may both have
WHITE = (255, 65535)  # of black and white
SHADES = 32  # as many different values of a picture that has white are greys, not labels
MOST = 1024  # different values: more are an image
CLEAR = 0.99  # of a JPEG's pixels are nearly black or white
_ENDINGS = (*io.VOLUME_SUFFIXES, ".png", ".jpg", ".jpeg", ".tif", ".tiff")
_OF_PLACE = ("format", "patient", "dicom", "grid", "shape", "frames", "positions", "stored", "nifti")


def read_mask(path: str | Path, frame: str = "", grid: Image | None = None, budget: int = DEFAULT_BUDGET) -> Image:
    """Any file of masks as one label map: Image (1, *S), unit "label", whole numbers with 0 for the background; what
    they are called stands in origin["labels"], where that is known.

    frame  as of `fabrica.io.read`; of a DICOM SEG "segment=2,segment=5" (these alone), of an RTSTRUCT "roi=Liver", of a
           folder the files in it that are one mask, 1 to n in their order: "left/x.png|right/x.png".
    grid   an image of the same patient: the mask is laid on its voxels, the nearest in mm, and may be written as
           DICOM beside it. An RTSTRUCT needs one. What says that it was drawn on another series is refused.

    Numbers are those of the file, whatever they skip: of a SEG those of its segments, of an RTSTRUCT and of a folder of
    one file an organ 1 to n, by ROINumber and by name. Black and white (0 and 255) is 0 and 1. Values from 0 to 1 are
    the probability of one class, which is there from 0.5 on; fractional segments and shades of grey likewise.
    Raises ReadError, in one line, for values that are no labels, for masks that overlap, and for what `read` refuses;
    UsageError for masks that cannot be laid on the grid.
    """
    path = Path(path)
    mask = _read(path, frame, grid, budget)
    return mask if grid is None else _laid(mask, grid)


def mask_labels(path: str | Path) -> dict[int, str]:
    """Label -> name of what `read_mask` would read, by headers and names of files alone; {} where they do not say."""
    path = Path(path)
    if path.is_dir():
        return {k: organ(file) for k, file in enumerate(_organs(path), start=1)}
    kind = io.format_of(path)
    if kind == "nrrd":
        from fabrica.io.nrrd import nrrd_labels

        return nrrd_labels(path)
    if kind != "dicom":
        return {}
    from fabrica.io.dicom.header import read_header
    from fabrica.io.dicom.kinds import STRUCTURES
    from fabrica.io.dicom.segments import names_of

    header = read_header(path)
    if header.get("SOPClassUID") == STRUCTURES:
        from fabrica.io.dicom.structures import region_names

        return region_names(path)
    return names_of(header)


def organ(path: Path) -> str:
    """What a file of one organ says by its name that it holds: "liver" of liver.nii.gz."""
    lower = path.name.lower()
    return next((path.name[: -len(suffix)] for suffix in _ENDINGS if lower.endswith(suffix)), path.stem)


def _read(path: Path, frame: str, grid: Image | None, budget: int) -> Image:
    if path.is_dir():
        if "|" in frame:
            return _merged(path, [path / name for name in frame.split("|")], budget)
        if organs := _organs(path):
            if frame:
                raise ReadError(f"{path}: a folder of one file an organ, found frame {frame!r}; leave the frame out")
            return _merged(path, organs, budget)
        return _of_folder(path, frame, grid, budget)
    kind = io.format_of(path)
    if kind == "dicom" and (found := _drawn(path, frame, grid, budget)):
        return found
    image = io.read(path, frame, budget)
    return _black_and_white(image) if kind == "jpeg" else labelled(image)


def _drawn(path: Path, frame: str, grid: Image | None, budget: int) -> Image | None:
    """A SEG or RTSTRUCT; None for other DICOM files."""
    from fabrica.io.dicom.header import read_header
    from fabrica.io.dicom.kinds import SEGMENTATIONS, STRUCTURES

    header = read_header(path, budget)
    if header.get("SOPClassUID") in SEGMENTATIONS:
        from fabrica.io.dicom.label_maps import read_label_map

        return read_label_map(header, frame, budget, grid)
    if header.get("SOPClassUID") != STRUCTURES:
        return None
    if grid is None:
        raise UsageError(
            f"{path}: contours (RTSTRUCT), which have no voxels; give the image that they lie on as the grid"
        )
    from fabrica.io.dicom.structures import read_structures

    return read_structures(path, frame, budget, grid)


def _of_folder(path: Path, frame: str, grid: Image | None, budget: int) -> Image:
    """The one SEG or RTSTRUCT among the DICOM files of a folder, else the image that these are."""
    from fabrica.io.dicom.header import read_header
    from fabrica.io.dicom.kinds import SEGMENTATIONS, STRUCTURES
    from fabrica.io.dicom.mark import is_dicom

    files = [file for file in sorted(path.iterdir()) if file.is_file() and not file.name.startswith(".")]
    headers = {file: read_header(file, budget) for file in files if is_dicom(file)}
    drawn = [file for file, header in headers.items() if header.get("SOPClassUID") in (*SEGMENTATIONS, STRUCTURES)]
    if len(drawn) > 1:
        names = ", ".join(file.name for file in drawn[:4]) + (", ..." if len(drawn) > 4 else "")
        raise ReadError(f"{path}: {len(drawn)} segmentations or structure sets, expected one; name the file: {names}")
    if drawn and (found := _drawn(drawn[0], frame, grid, budget)):
        return found
    return labelled(io.read(path, frame, budget))


def _laid(mask: Image, grid: Image) -> Image:
    """The mask on the voxels of an image, and with its place in the patient and in its files, so that it may be written
    as what lies there."""
    found = on_grid(mask, grid, labels=True)
    kept = {key: value for key, value in found.origin.items() if key not in _OF_PLACE}
    return replace(found, origin={**kept, **{key: grid.origin[key] for key in _OF_PLACE if key in grid.origin}})


def labelled(image: Image) -> Image:
    """An image that was read as one label map (1, *S). Raises ReadError for values that are no labels."""
    what = f"mask {name(image)}"
    if image.channels != 1:
        raise ReadError(
            f"{what} has {image.channels} channels; expected one of whole numbers: number its colours or classes"
        )
    values, notes = image.data, list(image.origin.get("notes", ()))
    low, high = float(values.min(initial=0)), float(values.max(initial=0))
    if low < -WHOLE or high > MOST_LABELS + WHOLE:
        raise ReadError(f"{what} has values from {low:g} to {high:g}; expected labels from 0 to {MOST_LABELS}")
    count, part = _counted(values)
    if part is not None and high > 1 + WHOLE:
        raise ReadError(
            f"{what} has values between whole numbers, such as {part:.6g}; expected labels, or one probability "
            "from 0 to 1: labels must not be interpolated, resample them to the nearest"
        )
    white = high in WHITE
    # FreeSurfer's volumes have some 45 labels up to 255
    soft = part is not None or (white and count >= SHADES and image.origin.get("format") == "raster")
    if soft or (white and count == 2):
        values = (values >= HALF * (high if white else 1.0)).astype(np.float32)
    elif count > MOST:
        raise ReadError(f"{what} has {count:,} different values; expected labels, at most {MOST}: is it an image?")
    else:
        values = np.rint(values)
    if soft:
        notes.append("shades between nothing and one label: what is at least half belongs")
    kept = {key: value for key, value in image.origin.items() if key != "window"}
    origin: dict[str, Any] = {**kept, "range": (0.0, float(values.max(initial=0))), "step": 1.0}
    if notes:
        origin["notes"] = tuple(notes)
    return replace(image.with_data(values), unit="label", origin=origin)


def _counted(values: Float32) -> tuple[int, float | None]:
    """How many different whole numbers there are, with 0, and a value that is none; slice by slice, for the sake of
    memory."""
    seen = np.zeros(MOST_LABELS + 2, np.bool_)
    seen[0] = True
    for index in np.ndindex(values.shape[: values.ndim - 2]):
        rounded = np.rint(values[index])
        off = np.abs(values[index] - rounded) > WHOLE
        if off.any():
            return 0, float(values[index][off].flat[0])
        seen[rounded.astype(np.int32)] = True
    return int(seen.sum()), None


def _black_and_white(image: Image) -> Image:
    """A JPEG, whose values are not quite what was stored: black and white alone can be told. Raises ReadError."""
    if image.channels == 1 and ((image.data < 64) | (image.data > 191)).mean() > CLEAR:
        note = "black and white of a JPEG: what is at least half belongs"
        origin = {**image.origin, "notes": (*image.origin.get("notes", ()), note)}
        return labelled(image.with_data((image.data >= 128).astype(np.float32), origin=origin))
    raise ReadError(
        f"mask {name(image)} is a JPEG, which does not keep labels; expected black and white, or PNG: export it again"
    )


def _organs(folder: Path) -> list[Path]:
    """The volumes and pictures in a folder, by name; [] where there are none."""
    found = [
        file for file in folder.iterdir() if file.name.lower().endswith(_ENDINGS) and not file.name.startswith(".")
    ]
    return sorted((file for file in found if file.is_file()), key=organ)


def _merged(folder: Path, files: Sequence[Path], budget: int) -> Image:
    """One label map of files of one organ each, numbered from 1 in their order."""
    called = [file.relative_to(folder).as_posix() for file in files]
    if len(files) > MOST_LABELS:
        raise ReadError(f"{folder}: {len(files)} files; expected one an organ, at most {MOST_LABELS}")
    first: Image | None = None
    labels: npt.NDArray[Any] = np.zeros(0, np.uint8)
    notes: list[str] = []
    for k, file in enumerate(files, start=1):
        image = _read(file, "", None, budget)
        if first is None:
            first, labels = image, np.zeros(image.data.shape, np.uint8 if len(files) < 256 else np.uint16)
        if image.size != first.size or not np.allclose(image.affine, first.affine, atol=1e-3):
            raise ReadError(
                f"{folder}: {called[k - 1]} has other voxels than {called[0]} ({_shape(image)} and {_shape(first)}, or "
                "another place); expected masks of one image"
            )
        inside = image.data > 0
        if len(several := np.unique(image.data[inside])) > 1:
            raise ReadError(
                f"{folder}: {called[k - 1]} has {len(several)} labels; expected one organ a file, or the file itself "
                "as the mask"
            )
        notes += [f"{called[k - 1]}: {note}" for note in image.origin.get("notes", ())]
        _check_overlap(folder, called, k, labels, inside, notes)
        labels[inside] = k
    assert first is not None
    origin = {key: value for key, value in first.origin.items() if key not in ("notes", "labels")}
    origin |= {"path": str(folder), "range": (0.0, float(labels.max(initial=0)))}
    names = [organ(file) for file in files]
    origin["labels"] = dict(enumerate(names if len(set(names)) == len(names) else called, start=1))
    if notes:
        origin["notes"] = tuple(notes)
    return first.with_data(labels.astype(np.float32), origin=origin)


def _check_overlap(
    folder: Path,
    called: Sequence[str],
    k: int,
    labels: npt.NDArray[Any],
    inside: npt.NDArray[np.bool_],
    notes: list[str],
) -> None:
    """Raise ReadError where the organ of file k has voxels of another, but for a few, which a note tells."""
    shared = np.bincount(labels[inside])
    for other in range(1, len(shared)):
        if not shared[other]:
            continue
        count, smaller = int(shared[other]), min(int((labels == other).sum()), int(inside.sum()))
        names = f"{called[other - 1]} and {called[k - 1]}"
        if count > SHARED * smaller:
            raise ReadError(
                f"{folder}: {names} overlap in {count} voxels, {count / smaller:.1%} of the smaller, and a voxel of a "
                "label map has one label; take those apart that are wanted"
            )
        notes.append(f"{names} overlap in {count} voxels, which are {called[k - 1]}'s")


def _shape(image: Image) -> str:
    return " x ".join(str(n) for n in image.size)
