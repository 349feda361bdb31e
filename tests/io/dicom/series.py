"""DICOM series out of a ground truth: volumes whose every value and place is known, as scanners write them.

A `Grid` says where the slices of a volume lie (LPS, as DICOM does), a `Truth` what a reader should find there. The
writers know the habits of vendors; none of them knows anything of how Fabrica reads.
"""

from __future__ import annotations

import hashlib
import math
import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence as Items
from pydicom.uid import (
    UID,
    CTImageStorage,
    EnhancedCTImageStorage,
    EnhancedMRImageStorage,
    ExplicitVRLittleEndian,
    MRImageStorage,
    PositronEmissionTomographyImageStorage,
    RLELossless,
)

from fabrica.image import Image

Array = np.ndarray[Any, Any]
LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0])
CLASSES = {"MR": MRImageStorage, "CT": CTImageStorage, "PT": PositronEmissionTomographyImageStorage}
PLANES = {
    "axial": ((1, 0, 0), (0, 1, 0)),
    "sagittal": ((0, 1, 0), (0, 0, -1)),
    "coronal": ((1, 0, 0), (0, 0, -1)),
    "prone": ((-1, 0, 0), (0, -1, 0)),
    "feet first": ((-1, 0, 0), (0, 1, 0)),
}


def uid(*parts: object) -> UID:
    """A UID that repeats: the same for the same parts."""
    return UID("2.25." + str(int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:15])))


# ---------------------------------------------------------------- where things lie


@dataclass(frozen=True)
class Grid:
    """The slices of a volume in LPS, mm.

    along_w, along_h  unit vectors of growing column and row index.
    spacing           (between rows, between columns).
    places            (D, 3): the centre of the first pixel of each slice.
    """

    along_w: Array
    along_h: Array
    spacing: tuple[float, float]
    places: Array

    @property
    def normal(self) -> Array:
        return np.cross(self.along_w, self.along_h)

    @property
    def orientation(self) -> list[float]:
        return [*map(float, self.along_w), *map(float, self.along_h)]

    def moved(self, by: Sequence[float] | Array) -> Grid:
        return replace(self, places=self.places + np.asarray(by, float))

    def at(self, wanted: Sequence[int]) -> Grid:
        return replace(self, places=self.places[list(wanted)])


def turned(angles: Sequence[float]) -> Array:
    """A rotation by three angles in degrees, about x, y, z."""
    matrix = np.eye(3)
    for axis, angle in enumerate(angles):
        c, s = math.cos(math.radians(angle)), math.sin(math.radians(angle))
        a, b = [k for k in range(3) if k != axis]
        step = np.eye(3)
        step[[a, a, b, b], [a, b, a, b]] = c, -s, s, c
        matrix = step @ matrix
    return matrix


def grid(
    depth: int = 4,
    between: float = 3.0,
    *,
    plane: str = "axial",
    angles: Sequence[float] = (0, 0, 0),
    spacing: tuple[float, float] = (1.5, 2.0),
    origin: Sequence[float] = (-20.0, 10.0, 35.0),
    offsets: Sequence[float] | None = None,
    tilt: float = 0.0,
) -> Grid:
    """Slices one behind the other. `between` may be negative (against the normal); `offsets` along the normal come
    before it; `tilt` shifts each slice along its columns by that share of its way, as a tilted gantry does."""
    w, h = (turned(angles) @ np.array(v, float) for v in PLANES[plane])
    steps = np.arange(depth) * between if offsets is None else np.asarray(offsets, float)
    normal = np.cross(w, h) + tilt * h
    return Grid(w, h, spacing, np.asarray(origin, float) + steps[:, None] * normal)


# ---------------------------------------------------------------- what should be read


@dataclass(frozen=True)
class Truth:
    """One volume: values (D, H, W) as a reader should give them, and where they lie."""

    values: Array
    grid: Grid
    about: dict[str, Any] = field(default_factory=dict)


def truths(count: int, where: Grid | Sequence[Grid], size: tuple[int, int] = (6, 8), seed: int = 0) -> list[Truth]:
    """Volumes of noise: no two slices alike, so that a slice in another's place is seen."""
    rng = np.random.default_rng([seed, count])
    grids = [where] * count if isinstance(where, Grid) else list(where)
    return [Truth(rng.integers(0, 4000, (len(g.places), *size)).astype(np.int16), g) for g in grids]


def places(image: Image) -> Array:
    """(D, 3) RAS+ mm: where the first voxel of each slice of an image lies."""
    depth = image.data.shape[1] if image.data.ndim == 4 else 1
    if "positions" in image.origin:
        found = np.asarray(image.origin["positions"])
        assert found.shape == (depth, 3) and found.dtype == np.float64
        return found
    return np.stack([(image.affine @ [0, 0, k, 1])[:3] for k in range(depth)])


def equal(image: Image, truth: Truth, tolerance: float = 1e-3, rtol: float = 1e-6) -> str:
    """ "" where an image is the truth: each slice's values, place and directions; else what differs, in words."""
    slices = image.data if image.data.ndim == 4 else image.data[:, None]
    if slices.shape != (1, *truth.values.shape):
        return f"shape {image.data.shape}, expected {truth.values.shape}"
    rows, columns = truth.grid.spacing
    plane = LPS_TO_RAS @ np.stack([truth.grid.along_w * columns, truth.grid.along_h * rows], axis=1)
    if (off := float(np.abs(image.affine[:3, :2] - plane).max())) > tolerance:
        return f"directions in the plane are {off:.4g} off"
    wanted, found = truth.grid.places @ LPS_TO_RAS, places(image)
    far = np.linalg.norm(found[:, None] - wanted[None], axis=2)
    nearest = far.argmin(axis=0)
    if sorted(nearest) != list(range(len(wanted))):
        return f"slices lie at {found.round(3).tolist()}, expected {wanted.round(3).tolist()}"
    if far.min(axis=0).max() > tolerance:
        return f"a slice is {far.min(axis=0).max():.4g} mm from its place"
    if not np.allclose(slices[0, nearest], truth.values, rtol=rtol, atol=1e-4):
        wrong = [k for k, n in enumerate(nearest) if not np.allclose(slices[0, n], truth.values[k], rtol=rtol)]
        return f"values of slices {wrong} differ"
    return ""


def compared(images: Iterable[Image], wanted: Iterable[Truth], **how: float) -> list[str]:
    """[] where each truth is one image and each image a truth; else what is wrong."""
    left, problems = list(images), []
    for number, truth in enumerate(wanted):
        said = [equal(image, truth, **how) for image in left]
        if "" in said:
            del left[said.index("")]
        else:
            problems.append(f"volume {number} {truth.about or ''}: {'; '.join(dict.fromkeys(said)) or 'no image left'}")
    if left:
        problems.append(f"{len(left)} images more than there are volumes: {[image.data.shape for image in left]}")
    return problems


# ---------------------------------------------------------------- single files

Attributes = Mapping[Any, Any]


def plane(pixels: Array, where: Grid, k: int = 0, modality: str = "MR", **attributes: Any) -> Dataset:
    """The object of one slice: (H, W) stored values. See `put` for attributes; None leaves one out."""
    dataset = Dataset()
    dataset.SOPClassUID = CLASSES.get(modality, MRImageStorage)
    dataset.Modality, dataset.PatientID, dataset.PatientName = modality, "P1", "Sample^Anna"
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = uid("study"), uid("series")
    dataset.FrameOfReferenceUID, dataset.SeriesNumber = uid("frame of reference"), 3
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL" if modality == "CT" else "M"]
    dataset.ImagePositionPatient = [round(float(v), 8) for v in where.places[k]]
    dataset.ImageOrientationPatient = [round(v, 10) for v in where.orientation]
    dataset.PixelSpacing, dataset.SliceThickness = list(where.spacing), 2.5
    store(dataset, pixels)
    if modality == "CT":
        dataset.RescaleSlope, dataset.RescaleIntercept = 1, 0
    put(dataset, attributes)
    return dataset


def store(dataset: Dataset, pixels: Array) -> None:
    """Pixels (H, W), (F, H, W) of 8 or 16 bits, or (H, W, 3) of 8 bits as RGB."""
    colour = pixels.dtype == np.uint8 and pixels.shape[-1] == 3
    dataset.Rows, dataset.Columns = pixels.shape[-3:-1] if colour else pixels.shape[-2:]
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = (3, "RGB") if colour else (1, "MONOCHROME2")
    if colour:
        dataset.PlanarConfiguration = 0
    dataset.BitsAllocated = dataset.BitsStored = 8 * pixels.dtype.itemsize
    dataset.HighBit = dataset.BitsStored - 1
    dataset.PixelRepresentation = int(pixels.dtype.kind == "i")
    data = pixels.tobytes()
    dataset.PixelData = data + b"\0" * (len(data) % 2)
    dataset["PixelData"].VR = "OB" if pixels.dtype.itemsize == 1 else "OW"


def put(dataset: Dataset, attributes: Attributes) -> Dataset:
    """Set attributes: keyword -> value (None: left out); (group, creator, element, VR) -> value is a private one."""
    for name, value in attributes.items():
        if not isinstance(name, str):
            group, creator, element, vr = name
            dataset.private_block(group, creator, create=True).add_new(element, vr, value)
        elif value is None:
            if name in dataset:
                delattr(dataset, name)
        else:
            setattr(dataset, name, value)
    return dataset


def save(dataset: Dataset, path: Path, rle: bool = False, instance: object = None) -> Path:
    """Write a Part 10 file; its instance UID is that of its content, or of `instance`."""
    dataset.SOPInstanceUID = uid(instance) if instance is not None else uid("instance", dataset.to_json())
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = dataset.SOPClassUID, dataset.SOPInstanceUID
    dataset.file_meta = meta
    if rle:
        dataset.compress(RLELossless, encoding_plugin="pydicom", generate_instance_uid=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    dataset.save_as(path, enforce_file_format=True)
    return path


def hashed(*parts: object) -> str:
    """A file name that says nothing: its order is none."""
    return hashlib.sha1(repr(parts).encode()).hexdigest()[:12]


# What tells volumes apart: (volume, slice, volumes, slices) -> attributes. Each as some scanner or export has it.
Teller = Callable[[int, int, int, int], dict[Any, Any]]

DIRECTIONS = ((0, 0, 0), (1, 0, 0), (0, 0.6, 0.8), (0, 0, 1))
_B = (0, 1000, 1000, 2000)


def _clock(seconds: float) -> str:
    return f"10{int(seconds // 60):02d}{seconds % 60:09.6f}"


TELLERS: dict[str, Teller] = {
    "echo": lambda v, k, n, d: {"EchoTime": 10 + 20 * v, "EchoNumbers": v + 1},
    "echo time alone": lambda v, k, n, d: {"EchoTime": [4.92, 7.38, 9.84][v]},
    "echo number alone": lambda v, k, n, d: {"EchoNumbers": v + 1},
    "image type": lambda v, k, n, d: {"ImageType": ["ORIGINAL", "PRIMARY", "MPRI"[v], "ND"]},
    "philips image type": lambda v, k, n, d: {
        "ImageType": ["ORIGINAL", "PRIMARY", f"{'MPRI'[v]}_FFE", "MPRI"[v], "FFE"]
    },
    "complex component": lambda v, k, n, d: {
        "ComplexImageComponent": ["MAGNITUDE", "PHASE", "REAL", "IMAGINARY"][v],
        "ImageType": ["ORIGINAL", "PRIMARY", "OTHER"],
    },
    "acquisition": lambda v, k, n, d: {"AcquisitionNumber": v + 1},
    "temporal position": lambda v, k, n, d: {"TemporalPositionIdentifier": v + 1, "NumberOfTemporalPositions": n},
    "trigger time": lambda v, k, n, d: {"TriggerTime": round(v * 2000 + k * 2000 / d, 3)},
    "cardiac phase": lambda v, k, n, d: {"TriggerTime": v * 33.5, "CardiacNumberOfImages": n},
    "acquisition time": lambda v, k, n, d: {"AcquisitionTime": _clock(2.0 * v + 2.0 * k / d)},
    "content time": lambda v, k, n, d: {"ContentTime": _clock(30.0 * v + k), "AcquisitionTime": None},
    "b value": lambda v, k, n, d: {
        "DiffusionBValue": float((0, 500, 1000)[v]),
        **({"DiffusionGradientOrientation": [0.0, 0.0, 1.0]} if v else {}),
    },
    "direction": lambda v, k, n, d: {
        "DiffusionBValue": float(_B[v]),
        "DiffusionGradientOrientation": [float(x) for x in DIRECTIONS[v]],
    },
    "siemens diffusion": lambda v, k, n, d: {
        "Manufacturer": "SIEMENS",
        (0x19, "SIEMENS MR HEADER", 0x0C, "IS"): _B[v],
        **({(0x19, "SIEMENS MR HEADER", 0x0E, "FD"): [float(x) for x in DIRECTIONS[v]]} if v else {}),
    },
    "ge diffusion": lambda v, k, n, d: {
        "Manufacturer": "GE MEDICAL SYSTEMS",
        (0x43, "GEMS_PARM_01", 0x39, "IS"): [1000000000 + _B[v] if v else 0, 8, 0, 0],
        (0x19, "GEMS_ACQU_01", 0xBB, "DS"): DIRECTIONS[v][0],
        (0x19, "GEMS_ACQU_01", 0xBC, "DS"): DIRECTIONS[v][1],
        (0x19, "GEMS_ACQU_01", 0xBD, "DS"): DIRECTIONS[v][2],
    },
    "philips diffusion": lambda v, k, n, d: {
        "Manufacturer": "Philips Medical Systems",
        (0x2001, "Philips Imaging DD 001", 0x03, "FL"): float(_B[v]),
        (0x2005, "Philips MR Imaging DD 001", 0xB0, "FL"): float(DIRECTIONS[v][0]),
        (0x2005, "Philips MR Imaging DD 001", 0xB1, "FL"): float(DIRECTIONS[v][1]),
        (0x2005, "Philips MR Imaging DD 001", 0xB2, "FL"): float(DIRECTIONS[v][2]),
    },
    "energy": lambda v, k, n, d: {"KVP": (80, 140, 100)[v], "Manufacturer": "SIEMENS"},
    "ge map": lambda v, k, n, d: {
        "Manufacturer": "GE MEDICAL SYSTEMS",
        "ImageType": ["ORIGINAL", "PRIMARY", "OTHER"],
        (0x43, "GEMS_PARM_01", 0x2F, "SS"): v,  # magnitude, phase, real, imaginary
    },
    "inversion": lambda v, k, n, d: {"InversionTime": 100 + 400 * v},
    "flip angle": lambda v, k, n, d: {"FlipAngle": 5 + 15 * v},
    "reference time": lambda v, k, n, d: {"FrameReferenceTime": 1000.0 * v + 500},
    "image index": lambda v, k, n, d: {"ImageIndex": v * d + k + 1},
    "description": lambda v, k, n, d: {"SeriesDescription": f"{40 + 10 * v} keV"},
    "comments": lambda v, k, n, d: {"ImageComments": f"{10 * v}%"},
    "diameter": lambda v, k, n, d: {"ReconstructionDiameter": 300 + 0.5 * v},
    "corrections": lambda v, k, n, d: {"CorrectedImage": ["DECY", "ATTN", "SCAT"][: v + 1]},
    "repetition time": lambda v, k, n, d: {"RepetitionTime": 500 + v},
    "kernel": lambda v, k, n, d: {"ConvolutionKernel": ("B20f", "B70f", "B40f")[v]},
    "instance alone": lambda v, k, n, d: {},
}
CT_ONLY = {"energy", "kernel"}


NUMBERINGS: dict[str, Callable[[int, int, int, int], Any]] = {
    "volume by volume": lambda v, k, n, d: v * d + k + 1,
    "slice by slice": lambda v, k, n, d: k * n + v + 1,
    "backwards": lambda v, k, n, d: n * d - v * d - k,
    "restarting": lambda v, k, n, d: k + 1,
    "all 0": lambda v, k, n, d: 0,
    "blank": lambda v, k, n, d: "",
    "none": lambda v, k, n, d: None,
    "anyhow": lambda v, k, n, d: (7919 * (v * d + k) + 13) % 1009,
}
RANKED = ("volume by volume", "slice by slice")  # numberings that tell volumes apart by themselves


def classic(
    folder: Path,
    volumes: Sequence[Truth],
    *,
    tell: str | Sequence[str] = "instance alone",
    numbering: str = "volume by volume",
    modality: str = "MR",
    jitter: float = 0.0,
    rle: bool = False,
    folders: int = 1,
    name: Callable[[int, int], str] = lambda v, k: hashed(v, k) + ".dcm",
    **attributes: Any,
) -> list[Path]:
    """Volumes as one series, a file a slice. `jitter`: how far (mm) later volumes lie off the first along the normal.

    With several tellers the volumes are a table of two rows: the first teller takes the half, the second the rest.
    """
    tellers = [tell] if isinstance(tell, str) else list(tell)
    paths = []
    for v, truth in enumerate(volumes):
        depth, count = len(truth.grid.places), len(volumes)
        for k in range(depth):
            told: dict[Any, Any] = {}
            for place, part in enumerate(tellers):
                ways = 2 if len(tellers) > 1 else count
                index = v if len(tellers) == 1 else (v // 2 if place == 0 else v % 2)
                told |= TELLERS[part](index, k, ways, depth)
            where = truth.grid.moved(truth.grid.normal * jitter * v) if jitter else truth.grid
            dataset = plane(truth.values[k], where, k, modality)
            put(dataset, {**told, "InstanceNumber": NUMBERINGS[numbering](v, k, count, depth), **attributes})
            home = folder / f"part{(v * depth + k) % folders}" if folders > 1 else folder
            paths.append(save(dataset, home / name(v, k), rle, instance=(v, k, modality)))
    return paths


def copied(path: Path, name: str) -> Path:
    """The same object once more, under another name."""
    target = path.with_name(name)
    target.write_bytes(path.read_bytes())
    return target


# ---------------------------------------------------------------- Siemens mosaics


def csa2(tags: Mapping[str, tuple[str, Sequence[str]]]) -> bytes:
    """A CSA header of the second kind ("SV10"): name -> (VR, values as text)."""
    out = [b"SV10\x04\x03\x02\x01", struct.pack("<II", len(tags), 77)]
    for name, (vr, values) in tags.items():
        items = max(6, len(values))
        out.append(struct.pack("<64si4siii", name.encode(), len(values), vr.encode(), 0, items, 77))
        for k in range(items):
            data = values[k].encode() + b"\0" if k < len(values) else b""
            out.append(struct.pack("<4i", len(data), len(data), 77, len(data)))
            out.append(data + b"\0" * (-len(data) % 4))
    return b"".join(out)


def mosaic(
    truth: Truth,
    *,
    csa: bool = True,
    count_tag: bool = True,
    matrix_tag: bool = True,
    **attributes: Any,
) -> Dataset:
    """One volume of evenly spaced slices as tiles of one picture, as Siemens scanners write EPI.

    Where the slices run against the normal of their plane, only the CSA header can say so.
    """
    depth, rows, columns = truth.values.shape
    side = math.ceil(math.sqrt(depth))
    montage = np.zeros((side * rows, side * columns), truth.values.dtype)
    for k, tile in enumerate(truth.values):
        r, c = divmod(k, side)
        montage[r * rows : (r + 1) * rows, c * columns : (c + 1) * columns] = tile
    where = truth.grid
    step = where.places[1] - where.places[0] if depth > 1 else where.normal * 3
    between = float(np.linalg.norm(step))
    corner = where.places[0] - where.along_w * where.spacing[1] * (montage.shape[1] - columns) / 2
    corner = corner - where.along_h * where.spacing[0] * (montage.shape[0] - rows) / 2
    header: dict[Any, Any] = {
        "Manufacturer": "SIEMENS",
        "ImageType": ["ORIGINAL", "PRIMARY", "M", "ND", "MOSAIC"],
        "SpacingBetweenSlices": between,
        "SliceThickness": between,
    }
    if count_tag:
        header[0x19, "SIEMENS MR HEADER", 0x0A, "US"] = depth
    if matrix_tag:
        header[0x51, "SIEMENS MR HEADER", 0x0B, "LO"] = f"{rows}*{columns}"
    if csa:
        normal = [f"{v:.8f}" for v in step / between]
        header[0x29, "SIEMENS CSA HEADER", 0x10, "OB"] = csa2(
            {
                "NumberOfImagesInMosaic": ("US", [str(depth)]),
                "SliceNormalVector": ("FD", normal),
                "AcquisitionMatrixText": ("SH", [f"{rows}*{columns}"]),
                "ImageOrientationPatient": ("DS", [f"{v:.8f}" for v in where.orientation]),
            }
        )
        header[0x29, "SIEMENS CSA HEADER", 0x08, "CS"] = "IMAGE NUM 4"
    return put(plane(montage, replace(where, places=corner[None])), {**header, **attributes})


# ---------------------------------------------------------------- enhanced multi-frame


@dataclass(frozen=True)
class Frame:
    """One frame of an enhanced object: pixels, place, and its functional groups (sequence -> keyword -> value)."""

    pixels: Array
    where: Grid
    k: int
    groups: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    index: tuple[int, ...] = ()


def _group(values: Mapping[str, Any]) -> Items:
    return Items([put(Dataset(), values)])


def enhanced(
    frames: Sequence[Frame],
    *,
    modality: str = "MR",
    positions: bool = True,
    shared_plane: bool = True,
    **attributes: Any,
) -> Dataset:
    """Frames as one enhanced object, in the order given. `index` of the frames becomes DimensionIndexValues."""
    first = frames[0]
    dataset = plane(first.pixels, first.where, first.k, modality)
    for keyword in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SliceThickness"):
        delattr(dataset, keyword)
    for keyword in ("RescaleSlope", "RescaleIntercept"):
        if keyword in dataset:
            delattr(dataset, keyword)
    dataset.SOPClassUID = EnhancedCTImageStorage if modality == "CT" else EnhancedMRImageStorage
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "VOLUME" if modality == "CT" else "M", "NONE"]
    store(dataset, np.stack([frame.pixels for frame in frames]))
    dataset.NumberOfFrames = len(frames)
    common = Dataset()
    common.PixelMeasuresSequence = _group({"PixelSpacing": list(first.where.spacing), "SliceThickness": 3})
    if shared_plane:
        common.PlaneOrientationSequence = _group({"ImageOrientationPatient": first.where.orientation})
    if modality == "CT":
        common.PixelValueTransformationSequence = _group(
            {"RescaleSlope": 1, "RescaleIntercept": 0, "RescaleType": "HU"}
        )
    each = []
    for frame in frames:
        groups = Dataset()
        if positions:
            at = [round(float(v), 8) for v in frame.where.places[frame.k]]
            groups.PlanePositionSequence = _group({"ImagePositionPatient": at})
        if not shared_plane:
            groups.PlaneOrientationSequence = _group({"ImageOrientationPatient": frame.where.orientation})
        content = {**({"DimensionIndexValues": list(frame.index)} if frame.index else {})}
        content |= frame.groups.get("FrameContentSequence", {})
        if content:
            groups.FrameContentSequence = _group(content)
        for name, values in frame.groups.items():
            if name != "FrameContentSequence":
                setattr(groups, name, _group(values))
        each.append(groups)
    dataset.SharedFunctionalGroupsSequence = Items([common])
    dataset.PerFrameFunctionalGroupsSequence = Items(each)
    return put(dataset, attributes)


FRAME_TELLERS: dict[str, tuple[tuple[int, int] | None, Callable[[int], dict[str, dict[str, Any]]]]] = {
    "time": (
        (0x00209128, 0x00209111),
        lambda v: {"FrameContentSequence": {"TemporalPositionIndex": v + 1}},
    ),
    "echo": ((0x00189082, 0x00189114), lambda v: {"MREchoSequence": {"EffectiveEchoTime": 10.0 + 20 * v}}),
    "part": (
        (0x00089208, 0x00189226),
        lambda v: {
            "MRImageFrameTypeSequence": {
                "FrameType": ["ORIGINAL", "PRIMARY", "MPRI"[v], "NONE"],
                "ComplexImageComponent": ["MAGNITUDE", "PHASE", "REAL", "IMAGINARY"][v],
            }
        },
    ),
    "b value": (
        (0x00189087, 0x00189117),
        lambda v: {"MRDiffusionSequence": {"DiffusionBValue": float(1000 * v), "DiffusionDirectionality": "ISOTROPIC"}},
    ),
    "cardiac phase": (
        (0x00209153, 0x00189118),
        lambda v: {"CardiacSynchronizationSequence": {"NominalCardiacTriggerDelayTime": 40.0 * v}},
    ),
    "stack": ((0x00209056, 0x00209111), lambda v: {"FrameContentSequence": {"StackID": str(v + 1)}}),
    "reference time": (
        (0x00189151, 0x00209111),
        lambda v: {"FrameContentSequence": {"FrameReferenceDateTime": f"2020010110{v:02d}30.5"}},
    ),
    "inversion times": ((0x00189079, 0x00189115), lambda v: {"MRModifierSequence": {"InversionTimes": [100.0 + v]}}),
    "velocity": (
        (0x00189090, 0x00189197),
        lambda v: {"MRVelocityEncodingSequence": {"VelocityEncodingDirection": [float(v == i) for i in range(3)]}},
    ),
    "contrast": (
        (0x00189337, 0x00189341),
        lambda v: {"ContrastBolusUsageSequence": {"ContrastBolusAgentNumber": v + 1}},
    ),
    "respiratory phase": (
        (0x00209245, 0x00209253),
        lambda v: {"RespiratorySynchronizationSequence": {"NominalPercentageOfRespiratoryPhase": 10.0 * v}},
    ),
}


def frames_of(
    volumes: Sequence[Truth],
    tell: str = "time",
    *,
    indexed: bool = True,
    told: bool = True,
    order: str = "volume by volume",
) -> list[Frame]:
    """The frames of volumes in a file's order ("volume by volume", "slice by slice", "backwards").

    `indexed`: with DimensionIndexValues (slice, volume). `told`: with what tells them apart in the functional groups.
    """
    made = []
    for v, truth in enumerate(volumes):
        for k in range(len(truth.grid.places)):
            groups = {name: dict(values) for name, values in (FRAME_TELLERS[tell][1](v) if told else {}).items()}
            content = groups.setdefault("FrameContentSequence", {})
            if tell != "stack":
                content["StackID"] = "1"
            content["InStackPositionNumber"] = k + 1
            made.append((v, k, Frame(truth.values[k], truth.grid, k, groups, (k + 1, v + 1) if indexed else ())))
    keys = {
        "volume by volume": lambda item: (item[0], item[1]),
        "slice by slice": lambda item: (item[1], item[0]),
        "backwards": lambda item: (-item[0], -item[1]),
    }
    return [frame for _, _, frame in sorted(made, key=keys[order])]


def dimensions(tell: str) -> dict[str, Any]:
    """DimensionIndexSequence for frames indexed by (slice, what tells them apart)."""
    pointers = [(0x00209057, 0x00209111), FRAME_TELLERS[tell][0]]
    items = []
    for pointer, group in filter(None, pointers):
        item = Dataset()
        item.DimensionIndexPointer, item.FunctionalGroupPointer = pointer, group
        item.DimensionOrganizationUID = uid("dimensions")
        items.append(item)
    return {"DimensionIndexSequence": Items(items)}
