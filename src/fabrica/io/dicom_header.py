"""What the header of a DICOM file says, as text, in one look: fast where files are as usual, by pydicom where not.

Folders of 100,000 files are indexed by a few dozen of each header's elements. pydicom makes an object of every element
of every sequence it meets, which takes milliseconds a file and far more for multi-frame objects; here the elements that
nobody asks for are stepped over (PS3.5 section 7), and whatever is unusual is left to pydicom.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from struct import Struct
from typing import Any, Final

from pydicom.charset import decode_bytes
from pydicom.datadict import dictionary_VR, keyword_for_tag, tag_for_keyword
from pydicom.dataset import Dataset
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
)

from fabrica.io.budget import DEFAULT_BUDGET
from fabrica.io.dicom_file import PIXEL_KEYWORDS, UNDEFINED_LENGTH, opened
from fabrica.io.packed import as_path

Values = dict[str, str]
Raw = dict[int, Any]  # tag -> (VR, begin, length), or of a sequence that is wanted a list of such

WANTED = (
    "SpecificCharacterSet", "ImageType", "SOPClassUID", "SOPInstanceUID", "AcquisitionDate", "SeriesDate",
    "SeriesTime", "AcquisitionTime", "AcquisitionDateTime", "ContentTime", "Modality", "ConversionType",
    "Manufacturer", "SeriesDescription", "PatientID", "PatientSex", "PatientAge", "PatientWeight",
    "BodyPartExamined", "ScanningSequence", "SequenceName", "SliceThickness", "KVP", "RepetitionTime", "EchoTime",
    "InversionTime", "EchoNumbers", "SpacingBetweenSlices", "ProtocolName", "TriggerTime", "NominalInterval",
    "FlipAngle", "ViewPosition", "FrameTime", "ConvolutionKernel", "EffectiveEchoTime", "DiffusionBValue",
    "DiffusionGradientOrientation", "DiffusionDirectionality", "ComplexImageComponent", "FrameType",
    "NominalCardiacTriggerDelayTime", "NominalPercentageOfCardiacPhase", "ASLContext", "StudyInstanceUID",
    "SeriesInstanceUID", "SeriesNumber", "AcquisitionNumber", "InstanceNumber", "ImagePositionPatient",
    "ImageOrientationPatient", "TemporalPositionIdentifier", "TemporalPositionIndex", "StackID",
    "InStackPositionNumber", "DimensionIndexValues", "FrameAcquisitionDateTime", "FrameAcquisitionNumber",
    "SamplesPerPixel", "PhotometricInterpretation", "NumberOfFrames", "FrameIncrementPointer", "Rows", "Columns",
    "PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing", "BitsAllocated", "BitsStored",
    "PixelRepresentation", "PixelPaddingValue", "PixelPaddingRangeLimit", "RescaleIntercept", "RescaleSlope",
    "RescaleType", "Units", "DecayCorrection", "GridFrameOffsetVector", "DoseGridScaling", "DoseUnits",
    "BurnedInAnnotation", "PhaseNumber", "AcquisitionContrast", "TemporalPositionTimeOffset", "EnergyWindowNumber",
    "NumberOfSlices", "ActualCardiacTriggerDelayTime", "FrameReferenceTime", "FrameReferenceDateTime", "ImageIndex",
    "CorrectedImage", "DerivationDescription", "ImageComments", "FrameComments", "ReconstructionDiameter",
    "FilterType", "ScanOptions", "ContrastBolusAgent", "ContrastBolusAgentNumber", "InversionTimes",
    "VelocityEncodingDirection", "VelocityEncodingMinimumValue", "NominalPercentageOfRespiratoryPhase",
    "NominalRespiratoryTriggerDelayTime", "EnergyWindowVector", "DetectorVector", "PhaseVector", "RotationVector",
    "RRIntervalVector", "TimeSlotVector", "SliceVector", "AngularViewVector", "TimeSliceVector",
)  # fmt: skip
"""Keywords of what is asked of a header; `Header.values` holds those that are there."""

PRIVATE = {
    ("SIEMENS MR HEADER", 0x0019, 0x0A): "SiemensMosaicImages",
    ("SIEMENS MR HEADER", 0x0019, 0x0C): "SiemensBValue",
    ("SIEMENS MR HEADER", 0x0019, 0x0E): "SiemensDirection",
    ("SIEMENS MR HEADER", 0x0051, 0x0B): "SiemensMatrix",
    ("SIEMENS CSA HEADER", 0x0029, 0x10): "SiemensCSA",
    ("Philips Imaging DD 001", 0x2001, 0x03): "PhilipsBValue",
    ("Philips MR Imaging DD 001", 0x2005, 0xB0): "PhilipsDirectionRL",
    ("Philips MR Imaging DD 001", 0x2005, 0xB1): "PhilipsDirectionAP",
    ("Philips MR Imaging DD 001", 0x2005, 0xB2): "PhilipsDirectionFH",
    ("Philips MR Imaging DD 001", 0x2005, 0x11): "PhilipsImageType",
    ("GEMS_PARM_01", 0x0043, 0x39): "GEBValue",
    ("GEMS_PARM_01", 0x0043, 0x2F): "GEImageType",
    ("GEMS_ACQU_01", 0x0019, 0xBB): "GEDirectionX",
    ("GEMS_ACQU_01", 0x0019, 0xBC): "GEDirectionY",
    ("GEMS_ACQU_01", 0x0019, 0xBD): "GEDirectionZ",
    ("GEMS_PETD_01", 0x0009, 0x0D): "GEScanDateTime",
    ("Image Private Header", 0x0065, 0x09): "UIHBValue",
    ("Image Private Header", 0x0065, 0x37): "UIHDirection",
    ("Image Private Header", 0x0065, 0x50): "UIHImages",
    ("Philips PET Private Group", 0x7053, 0x00): "PhilipsSUVFactor",
    ("Philips PET Private Group", 0x7053, 0x09): "PhilipsActivityFactor",
}
"""(private creator, group, element) -> our name of it."""

MACROS = (
    "PlanePositionSequence", "PlanePositionVolumeSequence", "PlaneOrientationSequence",
    "PlaneOrientationVolumeSequence", "PixelMeasuresSequence", "FrameContentSequence", "MRImageFrameTypeSequence",
    "CTImageFrameTypeSequence", "PETFrameTypeSequence", "XRay3DFrameTypeSequence", "MREchoSequence",
    "MRDiffusionSequence", "DiffusionGradientDirectionSequence", "PixelValueTransformationSequence",
    "CardiacSynchronizationSequence", "MRTimingAndRelatedParametersSequence", "TemporalPositionSequence",
    "CTXRayDetailsSequence", "CTReconstructionSequence", "MRArterialSpinLabelingSequence", "MRModifierSequence",
    "MRVelocityEncodingSequence", "ContrastBolusUsageSequence", "RespiratorySynchronizationSequence",
    "UnassignedSharedConvertedAttributesSequence", "UnassignedPerFrameConvertedAttributesSequence",
)  # fmt: skip
"""Sequences of a functional group whose elements say something of a frame."""

_SHARED: Final = 0x52009229
_PER_FRAME: Final = 0x52009230
_UIH_TILES: Final = 0x00651051
_DETECTORS: Final = 0x00540022  # where slices of nuclear medicine lie
_DIMENSIONS: Final = 0x00209222
_ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
_LONG = {b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV", b"SQ"}
_SHORT = {b"AE", b"AS", b"AT", b"CS", b"DA", b"DS", b"DT", b"FL", b"FD", b"IS", b"LO", b"LT", b"PN", b"SH", b"SL",
          b"SS", b"ST", b"TM", b"UI", b"UL", b"US"}  # fmt: skip
_PLAIN = _SHORT - {b"AT", b"FL", b"FD", b"SL", b"SS", b"UL", b"US"}  # text
_BLANK = " \0\r\n\t"
_NUMBERS = {"US": "H", "SS": "h", "UL": "L", "SL": "l", "FL": "f", "FD": "d", "SV": "q", "UV": "Q"}
_KEYWORD_OF: Final = {tag: keyword for keyword in WANTED if (tag := tag_for_keyword(keyword)) is not None}
_MACRO_TAGS: Final = frozenset(tag for keyword in MACROS if (tag := tag_for_keyword(keyword)) is not None)
_POINTER: Final = 0x00209165  # DimensionIndexPointer
_TAKEN: Final = frozenset((*_KEYWORD_OF, _POINTER))
_PRIVATE_GROUPS = frozenset(group for _, group, _ in PRIVATE)
_HEAD = Struct("<HH2sH").unpack_from
_LENGTH = Struct("<L").unpack_from
_TAG_AND_LENGTH = Struct("<HHL").unpack_from
_FIRST = 2**17  # bytes of a file that hold most headers
_MOST = 2**26  # bytes of a file that are looked at for the rest of one


@dataclass(slots=True)
class Header:
    """What one file says, in text: several values are joined by a backslash, as DICOM has them.

    values      keyword (or name of `PRIVATE`) -> text, of the elements that are there and not empty.
    shared, of_frames  the same from the functional groups of a multi-frame object: for all frames, for each.
    tiles       the same of each tile of a UIH montage.
    dimensions  the tags (hexadecimal) that DimensionIndexValues count, in their order.
    frames      how many: NumberOfFrames, at least 1; 0 of a file without pixels.
    pixels      keyword of the element that holds them, "" without; `length` in bytes (2**32 - 1: encapsulated), which
                begin at byte `begin` of the file (-1 where only pydicom knows).
    csa         Siemens' own header, where the file is a mosaic.
    syntax      TransferSyntaxUID.
    size        of the file in bytes.
    """

    path: Path
    values: Values
    shared: Values = field(default_factory=dict)
    of_frames: tuple[Values, ...] = ()
    tiles: tuple[Values, ...] = ()
    dimensions: tuple[str, ...] = ()
    frames: int = 0
    pixels: str = ""
    length: int = 0
    begin: int = -1
    csa: bytes = b""
    syntax: str = ""
    size: int = 0

    def get(self, keyword: str) -> str:
        """The text of a file-wide element, "" where there is none."""
        return self.values.get(keyword, "")

    def frame(self, index: int) -> Mapping[str, str]:
        """All that is said of one frame (from 0): by itself, for all frames, by the file, in this order."""
        if not self.of_frames and not self.shared:
            return self.values
        own = self.of_frames[index] if index < len(self.of_frames) else {}
        return {**self.values, **self.shared, **own}


class _UnusualError(Exception):
    """Something that is left to pydicom."""


def read_header(path: Path | str, budget: int = DEFAULT_BUDGET) -> Header:
    """The header of a DICOM file; the pixels are not touched. Raises ReadError for what is no DICOM file."""
    path = as_path(path)
    try:
        with path.open("rb") as file:
            size = path.stat().st_size
            data = file.read(_FIRST)
            found = parsed(path, data, size)
            if found is None and _FIRST < size <= _MOST:  # a header of more than usual
                found = parsed(path, data + file.read(), size)
    except OSError:
        found = None  # pydicom says it in its own way
    return found or by_pydicom(path, budget)


def parsed(path: Path, data: bytes, size: int) -> Header | None:
    """`parse`, or None where the file is left to pydicom."""
    try:
        return parse(path, data, size)
    except _UnusualError:
        return None


def parse(path: Path, data: bytes, size: int) -> Header:
    """The header in the first bytes of a file, little endian and not deflated, up to its pixels; the file's end counts
    only where `data` is all of it. Raises _UnusualError for any other."""
    if data[128:132] != b"DICM":
        raise _UnusualError
    try:
        meta, position = _elements(data, 132, len(data), False, frozenset(), until=0x00030000)
        syntax = (
            _text(data, "UI", meta[0x00020010][1], meta[0x00020010][2], "ascii").rstrip(". ")
            if 0x00020010 in meta
            else ""
        )
        if syntax in ("", DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian):
            raise _UnusualError
        implicit = syntax == ImplicitVRLittleEndian
        raw, _ = _elements(data, position, len(data), implicit, _MACRO_TAGS)
        return _read(path, data, size, syntax, implicit, raw)
    except _UnusualError:
        raise
    except Exception as problem:  # bytes that lie fail in many ways, and pydicom has seen more of them
        raise _UnusualError from problem


def _read(path: Path, data: bytes, size: int, syntax: str, implicit: bool, raw: Raw) -> Header:
    pixel = next((tag for tag in PIXEL_KEYWORDS if tag in raw), 0)
    if not pixel and len(data) < size:
        raise _UnusualError
    found = Header(path, {}, syntax=syntax, size=size)
    charset = _charsets(data, raw)
    found.values = _values(data, raw, charset, implicit)
    if pixel:
        _, begin, length = raw[pixel]
        found.pixels, found.begin, found.length = PIXEL_KEYWORDS[pixel], begin, length
    found.shared = next(iter(_of_items(data, raw.get(_SHARED, ()), charset, implicit)), {})
    found.of_frames = tuple(_of_items(data, raw.get(_PER_FRAME, ()), charset, implicit))
    found.tiles = tuple(_of_items(data, raw.get(_UIH_TILES, ()), charset, implicit))
    for detector in _of_items(data, raw.get(_DETECTORS, ()), charset, implicit):
        found.values = {**detector, **found.values}
    dims = [item.get(_POINTER) for item in raw.get(_DIMENSIONS, ())]
    found.dimensions = tuple("{:04X}{:04X}".format(*Struct("<HH").unpack_from(data, d[1])) for d in dims if d)
    return _completed(found)


def by_pydicom(path: Path, budget: int = DEFAULT_BUDGET) -> Header:
    """The same, by pydicom: slower, and for all that it can open."""
    with opened(path, budget, header_only=True) as file:
        dataset = file.dataset
        found = Header(path, _of_dataset(dataset), size=path.stat().st_size)
        found.syntax = str(dataset.file_meta.get("TransferSyntaxUID") or "")
        if file.pixels is not None:
            found.pixels, found.length = file.pixels.keyword, file.pixels.length
        shared = dataset.get("SharedFunctionalGroupsSequence") or []
        found.shared = _flat(shared[0]) if len(shared) else {}
        found.of_frames = tuple(_flat(item) for item in dataset.get("PerFrameFunctionalGroupsSequence") or [])
        if _UIH_TILES in dataset and dataset[_UIH_TILES].VR == "SQ":
            found.tiles = tuple(_flat(item) for item in dataset[_UIH_TILES].value)
        for detector in dataset.get("DetectorInformationSequence") or []:
            found.values = {**_flat(detector), **found.values}
        pointers = [item.get("DimensionIndexPointer") for item in dataset.get("DimensionIndexSequence") or []]
        found.dimensions = tuple(f"{pointer:08X}" for pointer in pointers if pointer is not None)
        return _completed(found)


def _completed(found: Header) -> Header:
    count = found.get("NumberOfFrames")
    found.frames = 0 if not found.pixels else max(1, int(count)) if count.isdigit() else 1
    csa = found.values.pop("SiemensCSA", "")
    found.csa = (
        csa.encode("latin-1") if "MOSAIC" in found.get("ImageType") or "SiemensMosaicImages" in found.values else b""
    )
    return found


def _elements(
    data: bytes, position: int, stop: int, implicit: bool, macros: frozenset[int], until: int = 0
) -> tuple[Raw, int]:
    """The wanted elements from `position` to `stop`, the end of the item, the pixels, or tag `until`; and where it
    ended. Without `macros` nothing but group 2 is wanted."""
    found: Raw = {}
    creators: dict[int, str] = {}
    quick = bool(macros) and not implicit
    while position + 8 <= stop:
        group, element, vr, length = _HEAD(data, position)
        tag = group << 16 | element
        if quick and vr in _SHORT and not group & 1:  # most elements are such
            if tag in _TAKEN:
                found[tag] = vr, position + 8, length
            position += 8 + length
            continue
        if until and tag >= until:
            return found, position
        if group == 0xFFFE:
            if tag == _ITEM_END:
                return found, position + 8
            raise _UnusualError
        if implicit:
            length, begin = _LENGTH(data, position + 4)[0], position + 8
        elif vr in _SHORT:
            begin = position + 8
        elif vr in _LONG:
            length, begin = _LENGTH(data, position + 8)[0], position + 12
        else:
            raise _UnusualError
        if group == 0x7FE0 and tag in PIXEL_KEYWORDS:
            found[tag] = vr, begin, length
            return found, begin
        undefined = length == UNDEFINED_LENGTH
        end = begin if undefined else begin + length
        if end > stop:
            raise _UnusualError
        if undefined or tag in macros or tag in _TOP:
            if vr == b"UN" and not implicit:  # a sequence in implicit VR within explicit VR
                raise _UnusualError
            inner = macros if tag in macros or tag in _TOP else _NOTHING
            items, end = _sequence(data, begin, stop if undefined else end, implicit, inner)
            if tag in macros or tag in _TOP:
                found[tag] = items
        elif group & 1:
            if group in _PRIVATE_GROUPS and macros:
                if 0x10 <= element <= 0xFF:
                    creators[tag] = data[begin:end].decode("latin-1").strip(" \0")
                else:
                    name = PRIVATE.get((creators.get(group << 16 | element >> 8, ""), group, element & 0xFF))
                    if name:
                        found[tag] = vr, begin, length
                        found.setdefault(0, {})[tag] = name
        elif (macros and tag in _TAKEN) or tag == 0x00020010:
            found[tag] = vr, begin, length
        position = end
    if position > stop:
        raise _UnusualError
    return found, position


_NOTHING: frozenset[int] = frozenset()
_TOP = frozenset({_SHARED, _PER_FRAME, _UIH_TILES, _DETECTORS, _DIMENSIONS})


def _sequence(data: bytes, position: int, stop: int, implicit: bool, macros: frozenset[int]) -> tuple[list[Raw], int]:
    """The items of a sequence, and where it ends."""
    items: list[Raw] = []
    while position + 8 <= stop:
        group, element, length = _TAG_AND_LENGTH(data, position)
        tag, position = group << 16 | element, position + 8
        if tag == _SEQUENCE_END:
            return items, position
        if tag != _ITEM:
            raise _UnusualError
        if length != UNDEFINED_LENGTH and position + length > stop:
            raise _UnusualError
        if length != UNDEFINED_LENGTH and not macros:
            position += length
            continue
        item, position = _elements(
            data, position, stop if length == UNDEFINED_LENGTH else position + length, implicit, macros
        )
        items.append(item)
    return items, position


def _of_items(data: bytes, items: Any, charset: list[str], implicit: bool) -> list[Values]:
    """Items with all that stands in their macros, flat: the first mention of a keyword counts."""
    found = []
    for item in items:
        flat: Values = {}
        pending = [item]
        while pending:
            raw = pending.pop(0)
            flat = {**_values(data, raw, charset, implicit), **flat}
            pending += [inner for tag in raw if tag in _MACRO_TAGS for inner in raw[tag][:1]]
        found.append(flat)
    return found


def _values(data: bytes, raw: Raw, charset: list[str], implicit: bool) -> Values:
    names = raw.get(0, {})
    values: Values = {}
    for tag, where in raw.items():
        keyword = _KEYWORD_OF.get(tag) or names.get(tag)
        if keyword is None or not isinstance(where, tuple):
            continue
        vr, begin, length = where
        if vr in _PLAIN and not implicit:
            value = data[begin : begin + length]
            if value.isascii() and b"\\" not in value:
                if text := value.decode("ascii").strip(_BLANK):
                    values[keyword] = text
                continue
        kind = vr.decode("latin-1")
        if implicit or kind == "UN":
            kind = _GUESSED.get(keyword, "LO") if tag in names else dictionary_VR(tag)
        text = _text(data, kind, begin, length, charset)
        if text:
            values[keyword] = text
    return values


_GUESSED = {
    "SiemensMosaicImages": "US", "SiemensBValue": "IS", "SiemensDirection": "FD", "SiemensMatrix": "LO",
    "SiemensCSA": "OB", "PhilipsBValue": "FL", "PhilipsDirectionRL": "FL", "PhilipsDirectionAP": "FL",
    "PhilipsDirectionFH": "FL", "PhilipsImageType": "CS", "GEBValue": "IS", "GEImageType": "SS", "GEDirectionX": "DS",
    "GEDirectionY": "DS", "GEDirectionZ": "DS", "GEScanDateTime": "DT", "UIHBValue": "FD", "UIHDirection": "FD",
    "UIHImages": "DS", "PhilipsSUVFactor": "DS", "PhilipsActivityFactor": "DS",
}  # fmt: skip
"""VR of private elements whose file does not say it (implicit VR, or UN)."""


def _text(data: bytes, kind: str, begin: int, length: int, charset: Any) -> str:
    value = data[begin : begin + length]
    kind = "US" if kind.startswith("US or") else kind
    if kind in _NUMBERS:
        code = _NUMBERS[kind]
        count = length // Struct("<" + code).size
        return "\\".join(_number(v) for v in Struct(f"<{count}{code}").unpack_from(value))
    if kind == "AT":
        return "\\".join("{:04X}{:04X}".format(*Struct("<HH").unpack_from(value, k)) for k in range(0, length - 3, 4))
    if kind in ("OB", "OW"):
        return value.decode("latin-1")
    if value.isascii() or charset == "ascii":
        text = value.decode("ascii", "replace")
    else:
        try:
            text = decode_bytes(value, charset, {ord(c) for c in "\\\n\r\t\f"})
        except (LookupError, ValueError):
            text = value.decode("latin-1")
    return (
        "\\".join(part.strip(_BLANK) for part in text.split("\\")).strip("\\ ") if "\\" in text else text.strip(_BLANK)
    )


def _number(value: float) -> str:
    return str(value) if isinstance(value, int) else f"{value:.17g}"


def _charsets(data: bytes, raw: Raw) -> list[str]:
    """Python's names of the character sets, as pydicom has them."""
    from pydicom.charset import convert_encodings

    if 0x00080005 not in raw:
        return ["iso8859"]
    _, begin, length = raw[0x00080005]
    names = data[begin : begin + length].decode("ascii", "replace").split("\\")
    try:
        return list(convert_encodings([name.strip(" \0") for name in names]))
    except Exception:  # an unknown name: pydicom warns or raises, and Latin-1 can read any byte
        return ["iso8859"]


def _flat(item: Dataset) -> Values:
    """An item of functional groups, flat, as `_of_items`."""
    values: Values = {}
    pending = [item]
    while pending:
        dataset = pending.pop(0)
        values = {**_of_dataset(dataset), **values}
        for keyword in MACROS:
            inner = dataset.get(keyword)
            if inner:
                pending.append(inner[0])
    return values


def _of_dataset(dataset: Dataset) -> Values:
    values: Values = {}
    for tag, keyword in _KEYWORD_OF.items():
        if tag in dataset:
            _add(values, keyword, dataset, tag)
    for (creator, group, element), name in PRIVATE.items():
        if any(tag.group == group for tag in dataset.keys()):  # noqa: SIM118
            try:
                tag = dataset.private_block(group, creator).get_tag(element)
            except KeyError:
                continue
            if tag in dataset:
                _add(values, name, dataset, tag)
    return values


def _add(values: Values, name: str, dataset: Dataset, tag: Any) -> None:
    try:
        item = dataset[tag]
        text = as_text(item.value, "AT" if item.VR == "AT" else _GUESSED.get(name, "") if item.VR == "UN" else "")
    except Exception:  # one element that cannot be read must not cost the others
        return
    if text:
        values[name] = text


def as_text(value: Any, kind: str = "") -> str:
    """A pydicom value as text, several joined by a backslash."""
    if value is None:
        return ""
    if isinstance(value, bytes):
        return _text(value, kind or "LO", 0, len(value), ["iso8859"]) if kind else value.decode("latin-1")
    if kind == "AT":
        several = [value] if isinstance(value, int) else list(value)
        return "\\".join(f"{int(v):08X}" for v in several)
    if isinstance(value, str) or not hasattr(value, "__iter__"):
        original = getattr(value, "original_string", None)  # of a decimal or integer string
        plain = original if isinstance(original, str) else value
        return _number(plain) if isinstance(plain, float) else str(plain).strip(" \0\r\n\t")
    return "\\".join(as_text(v) for v in value).strip("\\ ")


def name_of(tag: str) -> str:
    """The keyword of a tag in hexadecimal, itself where it has none."""
    return keyword_for_tag(int(tag, 16)) or tag
