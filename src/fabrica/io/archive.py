"""Many images in one file: MedMNIST-like .npz, zip archives of pictures, and Fabrica's own .npz of one image.

Any frame is reached without reading the others: stored arrays by seeking (which leaves their checksum unverified),
pictures one by one; a deflated array has to be inflated whole, so the last one is kept. Arrays of Python objects
are never unpickled.
"""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from fabrica.errors import ReadError
from fabrica.image import UNITS, Array, Image
from fabrica.io.atomic import atomic
from fabrica.io.budget import DEFAULT_BUDGET, check
from fabrica.io.guard import decoding
from fabrica.io.marks import from_text, origin_from, to_text
from fabrica.io.members import STORED, Member, Stamp, data_begins, directory, is_hidden, stamp_of, unpack
from fabrica.io.pixels import number_range
from fabrica.io.raster import SUFFIXES, decode_raster

_OWN = {"data", "affine", "unit"}
_LARGEST_NPY_HEADER = 16_384
_SMALLEST_SIDE = 8  # a table of labels (N, 14) is not an image
_LABEL_WORDS = ("label", "target", "class", "mask")


@dataclass(frozen=True)
class Stack:
    """An array of an .npz: its header, without its values. `frames` is 0 where the array is one single image."""

    member: Member
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    fortran: bool
    begin: int
    frames: int


def npz_frames(path: Path, budget: int = DEFAULT_BUDGET) -> list[str]:
    """The images of an .npz: "train_images/0", ... in the file's order; [""] for Fabrica's own."""
    with decoding(path, "an .npz"):
        stacks = _stacks(stamp_of(path))
        if set(stacks) >= _OWN:
            return [""]
        count = sum(max(0, stack.frames) for stack in stacks.values())
        check(100 * count, budget, f"a list of {count:,} frames", path)
        names: list[str] = []
        for key, stack in stacks.items():
            if not _is_label(key) and stack.frames >= 0:
                names += [f"{key}/{i}" for i in range(stack.frames)] if stack.frames else [key]
        return names


def npz_labels(path: str | Path, budget: int = DEFAULT_BUDGET) -> dict[str, Array]:
    """The arrays of an .npz whose key says label, target, class or mask: {"train_labels": (N, 1), ...}."""
    path = Path(path)
    with decoding(path, "an .npz"):
        stamp = stamp_of(path)
        labels = {key: stack for key, stack in _stacks(stamp).items() if _is_label(key)}
        check(sum(s.member.size for s in labels.values()), budget, f"{len(labels)} label arrays", path)
        return {key: _values(unpack(path, stack.member), stack) for key, stack in labels.items()}


def read_npz(path: Path, frame: str = "", budget: int = DEFAULT_BUDGET) -> Image:
    """One image of an .npz.

    frame  "key/17", or "key" where the array is one image, or "" for Fabrica's own and for a file of one image.
    Arrays understood: (N, H, W), (N, H, W, 1|3|4), (N, 1|3, H, W), (N, D, H, W), (N, D, H, W, 1|3),
    (N, 1|3, D, H, W), and a single (H, W) or (H, W, 3). Raises ReadError for anything else.
    """
    with decoding(path, "an .npz"):
        stamp = stamp_of(path)
        stacks = _stacks(stamp)
        if set(stacks) >= _OWN and frame == "":
            return _read_own(path, stacks, budget)
        if frame == "":
            frame = _only(npz_frames(path, budget), path, "images")
        key, index = _address(path, frame, stacks)
        samples = _frame(stamp, stacks[key], index, budget)
        origin: dict[str, Any] = {"path": str(path), "frame": frame, "format": "npz"}
        return Image(_channels_first(samples), origin=origin | number_range(samples.dtype))


def write_npz(image: Image, path: Path, marks: dict[str, str]) -> None:
    """Write data, affine, unit and what a codec may trust of origin (range, step) as .npz, whole or not at all."""
    trusted = {key: image.origin[key] for key in ("range", "step") if key in image.origin}
    arrays: dict[str, Any] = {
        "data": image.data,
        "affine": image.affine,
        "unit": np.array(image.unit),
        "origin": np.array(json.dumps(trusted)),
        "marks": np.array(to_text(marks)),
    }
    with atomic(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, **arrays)


def zip_frames(path: Path) -> list[str]:
    """The pictures in a zip archive, by name, sorted."""
    with decoding(path, "a zip archive"):
        return list(_pictures(stamp_of(path)))


def holds_picture(path: Path, frame: str = "") -> bool:
    """Whether there are pictures in a zip archive, or the one of this name."""
    with decoding(path, "a zip archive"):
        pictures = _pictures(stamp_of(path))
    return frame in pictures if frame else bool(pictures)


@lru_cache(maxsize=8)
def _pictures(stamp: Stamp) -> dict[str, None]:
    """Their names in order, and quick to look one up: as `directory`, for all of the reads of an archive."""
    return dict.fromkeys(sorted(name for name in directory(stamp) if _is_picture(name)))


def read_zip(path: Path, frame: str = "", budget: int = DEFAULT_BUDGET) -> Image:
    """The picture named `frame` in a zip archive; "" where it holds a single one."""
    with decoding(path, "a zip archive"):
        members = directory(stamp_of(path))
        if frame == "":
            frame = _only(list(_pictures(stamp_of(path))), path, "pictures")
        if frame not in members:
            raise ReadError(f"{path}: no member {frame!r} among {len(members)}; list them with fabrica.io.frames")
        member = members[frame]
        check(member.size, budget, f"member {frame}", path)
        image = decode_raster(io.BytesIO(unpack(path, member)), path / frame, budget)
        image.origin.update(path=str(path), frame=frame)
        return image


def is_npz(path: Path) -> bool:
    """Whether a zip archive holds NumPy arrays rather than pictures."""
    with decoding(path, "a zip archive"):
        return _holds_arrays(stamp_of(path))


@lru_cache(maxsize=8)
def _holds_arrays(stamp: Stamp) -> bool:
    return any(name.endswith(".npy") for name in directory(stamp))


@lru_cache(maxsize=8)
def _stacks(stamp: Stamp) -> dict[str, Stack]:
    """The headers of all arrays of an .npz, by key."""
    path = Path(stamp[0])
    return {
        name.removesuffix(".npy"): _read_header(path, member)
        for name, member in directory(stamp).items()
        if name.endswith(".npy")
    }


def _read_header(path: Path, member: Member) -> Stack:
    head = io.BytesIO(unpack(path, member, first=_LARGEST_NPY_HEADER))
    version = np.lib.format.read_magic(head)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, fortran, dtype = read(head)
    if not dtype.hasobject and head.tell() + int(np.prod(shape, dtype=object)) * dtype.itemsize != member.size:
        raise ValueError(f"{member.name} declares shape {shape} of {dtype}, which is not its size")
    return Stack(member, shape, dtype, bool(fortran), head.tell(), _count(shape, dtype))


def _count(shape: tuple[int, ...], dtype: np.dtype[Any]) -> int:
    """Images in an array of this shape: N for a stack of them, 0 for one alone, -1 for no image at all."""
    if dtype.kind not in "buif" or len(shape) not in (2, 3, 4, 5):
        return -1
    colour_last = len(shape) > 2 and shape[-1] in (1, 3, 4)
    alone = len(shape) - colour_last == 2
    space = shape[: len(shape) - colour_last]
    sides = space if alone else space[1:]
    if len(sides) == 4 and sides[0] in (1, 3):  # channels first
        sides = sides[1:]
    if len(sides) > 3 or min(sides[-2:]) < _SMALLEST_SIDE or 0 in sides:
        return -1
    return 0 if alone else shape[0]


def _channels_first(samples: Array) -> Any:
    """One frame (H, W), (H, W, C), (D, H, W), (C, H, W) ... -> float32 (C, *S)."""
    if samples.ndim > 2 and samples.shape[-1] in (1, 3, 4):
        samples = np.moveaxis(samples, -1, 0)
    elif samples.ndim == 2 or samples.shape[0] not in (1, 3):
        samples = samples[None]
    return np.ascontiguousarray(samples, dtype=np.float32)


def _address(path: Path, frame: str, stacks: dict[str, Stack]) -> tuple[str, int | None]:
    """ "train_images/17" -> its key and index; index None for an array that is one image."""
    if frame in stacks and stacks[frame].frames == 0:
        return frame, None
    key, _, number = frame.rpartition("/")
    if key not in stacks or not number.isdecimal():
        images = ", ".join(key for key, stack in stacks.items() if stack.frames >= 0) or "none"
        raise ReadError(f"{path}: no frame {frame!r}; expected KEY/NUMBER, with KEY one of: {images}")
    stack = stacks[key]
    if stack.frames < 1:
        raise ReadError(f"{path}: {key} has shape {stack.shape} of {stack.dtype}; expected a stack of images")
    if int(number) >= stack.frames:
        raise ReadError(f"{path}: no frame {frame!r}; {key} holds 0 to {stack.frames - 1}")
    return key, int(number)


def _frame(stamp: Stamp, stack: Stack, index: int | None, budget: int) -> Array:
    path, member = Path(stamp[0]), stack.member
    whole = index is None or member.method != STORED or stack.fortran
    voxels = int(np.prod(stack.shape if index is None else stack.shape[1:], dtype=object))
    check(voxels * max(4, stack.dtype.itemsize) + (member.size if whole else 0), budget, f"array {member.name}", path)
    if whole:
        array = _inflated(stamp, stack)
        return array if index is None else array[index]
    assert index is not None
    nbytes = voxels * stack.dtype.itemsize
    with path.open("rb") as file:
        file.seek(data_begins(file, member) + stack.begin + index * nbytes)
        raw = file.read(nbytes)
    if len(raw) < nbytes:
        raise ValueError("the file is cut short")
    return np.frombuffer(raw, stack.dtype).reshape(stack.shape[1:])


@lru_cache(maxsize=2)  # images, and their label maps
def _inflated(stamp: Stamp, stack: Stack) -> Array:
    return _values(unpack(Path(stamp[0]), stack.member), stack)


def _values(raw: bytes, stack: Stack) -> Array:
    if stack.dtype.hasobject:
        raise ReadError(f"array {stack.member.name} holds Python objects, which could run code; save it as numbers")
    flat = np.frombuffer(raw, stack.dtype, offset=stack.begin)
    return flat.reshape(stack.shape, order="F" if stack.fortran else "C")


def _read_own(path: Path, stacks: dict[str, Stack], budget: int) -> Image:
    check(sum(stack.member.size for stack in stacks.values()), budget, "all arrays", path)
    arrays = {key: _values(unpack(path, stack.member), stack) for key, stack in stacks.items()}
    unit = str(arrays["unit"][()])
    if unit not in UNITS or arrays["affine"].shape != (4, 4):
        raise ReadError(f"{path}: unit {unit!r} and affine {arrays['affine'].shape}; expected an image Fabrica wrote")
    origin: dict[str, Any] = {"path": str(path), "format": "npz"}
    trusted = json.loads(str(arrays["origin"][()])) if "origin" in arrays else {}
    if "range" in trusted:
        origin["range"] = (float(trusted["range"][0]), float(trusted["range"][1]))
    if "step" in trusted:
        origin["step"] = float(trusted["step"])
    if "marks" in arrays:
        origin |= origin_from(from_text(str(arrays["marks"][()])))
    data = np.array(arrays["data"], dtype=np.float32)
    return Image(data, np.array(arrays["affine"], dtype=np.float64), unit, origin)


def _only(names: list[str], path: Path, what: str) -> str:
    if len(names) != 1:
        example = f"; name one, such as {names[0]!r}" if names else "; expected at least one"
        raise ReadError(f"{path}: holds {len(names)} {what}{example}")
    return names[0]


def _is_label(key: str) -> bool:
    return any(word in key.lower() for word in _LABEL_WORDS)


def _is_picture(name: str) -> bool:
    return name.lower().endswith(SUFFIXES) and not is_hidden(name)
