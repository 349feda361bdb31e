"""What the header of a DICOM file says, as text, in one look: fast where files are as usual, by pydicom where not.

Folders of 100,000 files are indexed by a few dozen of each header's elements. pydicom makes an object of every element
of every sequence it meets, which takes milliseconds a file and far more for multi-frame objects; here the elements that
nobody asks for are stepped over (PS3.5 section 7), and whatever is unusual is left to pydicom.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from struct import Struct
from typing import Any, BinaryIO, Final

from fabrica.io.budget import DEFAULT_BUDGET
from fabrica.io.dicom.mark import LONG_VR, PIXEL_KEYWORDS, SHORT_VR, UNDEFINED_LENGTH
from fabrica.io.packed import as_path

Values = dict[str, str]
Raw = dict[int, Any]  # tag -> (VR, begin, length), or of a sequence that is wanted a list of such

WANTED = {
    "SpecificCharacterSet": 0x00080005, "ImageType": 0x00080008, "SOPClassUID": 0x00080016,
    "SOPInstanceUID": 0x00080018, "AcquisitionDate": 0x00080022, "SeriesDate": 0x00080021, "SeriesTime": 0x00080031,
    "AcquisitionTime": 0x00080032, "AcquisitionDateTime": 0x0008002A, "ContentTime": 0x00080033,
    "Modality": 0x00080060, "ConversionType": 0x00080064, "Manufacturer": 0x00080070,
    "SeriesDescription": 0x0008103E, "PatientID": 0x00100020, "PatientSex": 0x00100040, "PatientAge": 0x00101010,
    "PatientWeight": 0x00101030, "BodyPartExamined": 0x00180015, "ScanningSequence": 0x00180020,
    "SequenceName": 0x00180024, "SliceThickness": 0x00180050, "KVP": 0x00180060, "RepetitionTime": 0x00180080,
    "EchoTime": 0x00180081, "InversionTime": 0x00180082, "EchoNumbers": 0x00180086,
    "SpacingBetweenSlices": 0x00180088, "ProtocolName": 0x00181030, "TriggerTime": 0x00181060,
    "NominalInterval": 0x00181062, "FlipAngle": 0x00181314, "ViewPosition": 0x00185101, "FrameTime": 0x00181063,
    "ConvolutionKernel": 0x00181210, "EffectiveEchoTime": 0x00189082, "DiffusionBValue": 0x00189087,
    "DiffusionGradientOrientation": 0x00189089, "DiffusionDirectionality": 0x00189075,
    "ComplexImageComponent": 0x00089208, "FrameType": 0x00089007, "NominalCardiacTriggerDelayTime": 0x00209153,
    "NominalPercentageOfCardiacPhase": 0x00209241, "ASLContext": 0x00189257, "StudyInstanceUID": 0x0020000D,
    "SeriesInstanceUID": 0x0020000E, "SeriesNumber": 0x00200011, "AcquisitionNumber": 0x00200012,
    "InstanceNumber": 0x00200013, "ImagePositionPatient": 0x00200032, "ImageOrientationPatient": 0x00200037,
    "TemporalPositionIdentifier": 0x00200100, "TemporalPositionIndex": 0x00209128, "StackID": 0x00209056,
    "InStackPositionNumber": 0x00209057, "DimensionIndexValues": 0x00209157, "FrameAcquisitionDateTime": 0x00189074,
    "FrameAcquisitionNumber": 0x00209156, "SamplesPerPixel": 0x00280002, "PhotometricInterpretation": 0x00280004,
    "NumberOfFrames": 0x00280008, "FrameIncrementPointer": 0x00280009, "Rows": 0x00280010, "Columns": 0x00280011,
    "PixelSpacing": 0x00280030, "ImagerPixelSpacing": 0x00181164, "NominalScannedPixelSpacing": 0x00182010,
    "BitsAllocated": 0x00280100, "BitsStored": 0x00280101, "PixelRepresentation": 0x00280103,
    "PixelPaddingValue": 0x00280120, "PixelPaddingRangeLimit": 0x00280121, "RescaleIntercept": 0x00281052,
    "RescaleSlope": 0x00281053, "RescaleType": 0x00281054, "Units": 0x00541001, "DecayCorrection": 0x00541102,
    "GridFrameOffsetVector": 0x3004000C, "DoseGridScaling": 0x3004000E, "DoseUnits": 0x30040002,
    "BurnedInAnnotation": 0x00280301, "PhaseNumber": 0x00200015, "AcquisitionContrast": 0x00089209,
    "TemporalPositionTimeOffset": 0x0020930D, "EnergyWindowNumber": 0x00540308, "NumberOfSlices": 0x00540081,
    "ActualCardiacTriggerDelayTime": 0x00209252, "SegmentationType": 0x00620001, "SegmentNumber": 0x00620004,
    "SegmentLabel": 0x00620005, "ReferencedSegmentNumber": 0x0062000B, "FrameReferenceTime": 0x00541300,
    "FrameReferenceDateTime": 0x00189151, "ImageIndex": 0x00541330, "CorrectedImage": 0x00280051,
    "DerivationDescription": 0x00082111, "ImageComments": 0x00204000, "FrameComments": 0x00209158,
    "ReconstructionDiameter": 0x00181100, "FilterType": 0x00181160, "ScanOptions": 0x00180022,
    "ContrastBolusAgent": 0x00180010, "ContrastBolusAgentNumber": 0x00189337, "InversionTimes": 0x00189079,
    "VelocityEncodingDirection": 0x00189090, "VelocityEncodingMinimumValue": 0x00189091,
    "NominalPercentageOfRespiratoryPhase": 0x00209245, "NominalRespiratoryTriggerDelayTime": 0x00209255,
    "EnergyWindowVector": 0x00540010, "DetectorVector": 0x00540020, "PhaseVector": 0x00540030,
    "RotationVector": 0x00540050, "RRIntervalVector": 0x00540060, "TimeSlotVector": 0x00540070,
    "SliceVector": 0x00540080, "AngularViewVector": 0x00540090, "TimeSliceVector": 0x00540100,
}  # fmt: skip

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

MACROS = {
    "PlanePositionSequence": 0x00209113, "PlanePositionVolumeSequence": 0x0020930E,
    "PlaneOrientationSequence": 0x00209116, "PlaneOrientationVolumeSequence": 0x0020930F,
    "PixelMeasuresSequence": 0x00289110, "FrameContentSequence": 0x00209111, "MRImageFrameTypeSequence": 0x00189226,
    "CTImageFrameTypeSequence": 0x00189329, "PETFrameTypeSequence": 0x00189751,
    "XRay3DFrameTypeSequence": 0x00189504, "MREchoSequence": 0x00189114, "MRDiffusionSequence": 0x00189117,
    "DiffusionGradientDirectionSequence": 0x00189076, "PixelValueTransformationSequence": 0x00289145,
    "CardiacSynchronizationSequence": 0x00189118, "MRTimingAndRelatedParametersSequence": 0x00189112,
    "TemporalPositionSequence": 0x00209310, "CTXRayDetailsSequence": 0x00189325,
    "CTReconstructionSequence": 0x00189314, "MRArterialSpinLabelingSequence": 0x00189251,
    "MRModifierSequence": 0x00189115, "MRVelocityEncodingSequence": 0x00189197,
    "ContrastBolusUsageSequence": 0x00189341, "RespiratorySynchronizationSequence": 0x00209253,
    "UnassignedSharedConvertedAttributesSequence": 0x00209170,
    "UnassignedPerFrameConvertedAttributesSequence": 0x00209171, "SegmentIdentificationSequence": 0x0062000A,
}  # fmt: skip
"""Sequences of a functional group whose elements say something of a frame."""

_SHARED: Final = 0x52009229
_PER_FRAME: Final = 0x52009230
UIH_TILES: Final = 0x00651051
_DETECTORS: Final = 0x00540022  # where slices of nuclear medicine lie
_DIMENSIONS: Final = 0x00209222
_SEGMENTS: Final = 0x00620002
_ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
_BLANK = " \0\r\n\t"
_REPEATED = 96  # bytes of a value that is likely to come again
_NUMBERS = {"US": "H", "SS": "h", "UL": "L", "SL": "l", "FL": "f", "FD": "d", "SV": "q", "UV": "Q"}
KEYWORD_OF: Final = {tag: keyword for keyword, tag in WANTED.items()}
_MACRO_TAGS: Final = frozenset(MACROS.values())
_CHARACTER_SET: Final = 0x00080005
_POINTER: Final = 0x00209165  # DimensionIndexPointer
_TAKEN: Final = frozenset((*KEYWORD_OF, _POINTER))
_PRIVATE_GROUPS = frozenset(group for _, group, _ in PRIVATE)
_IMPLICIT = "1.2.840.10008.1.2"
_UNUSUAL_SYNTAXES = ("1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.2")  # deflated, big endian
_HEAD = Struct("<HH2sH").unpack_from
_LENGTH = Struct("<L").unpack_from
_TAG_AND_LENGTH = Struct("<HHL").unpack_from
_FIRST = 2**17  # bytes of a file that hold most headers
MOST = 2**26  # bytes of a file that are looked at in one piece


@dataclass(slots=True)
class Header:
    """What one file says, in text: several values are joined by a backslash, as DICOM has them.

    values      keyword (or name of `PRIVATE`) -> text, of the elements that are there and not empty.
    shared, of_frames  the same from the functional groups of a multi-frame object: for all frames, for each.
    tiles       the same of each tile of a UIH montage.
    segments    the same of each item of a segmentation's SegmentSequence.
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
    segments: tuple[Values, ...] = ()
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
    """The header of a DICOM file; the pixels are not touched. Raises ReadError for what is no DICOM file, or promises
    far more frames than it holds."""
    from fabrica.io.dicom.promised import check_frames

    path = as_path(path)
    try:
        with path.open("rb") as file:
            _, found = begun(path, file, path.stat().st_size)
    except OSError:
        found = None  # pydicom says it in its own way
    if found is None:
        from fabrica.io.dicom.unusual import by_pydicom

        found = by_pydicom(path, budget)
    check_frames(found)
    return found


def begun(path: Path, file: BinaryIO, size: int, first: int = _FIRST) -> tuple[bytes, Header | None]:
    """The first bytes of a file of this size, as many as its header takes, and the header in them; None where that is
    left to pydicom."""
    data = file.read(min(first, size))  # no more: what is asked for is allocated
    found = _parsed(path, data, size)
    rest = min(size, MOST) - len(data)
    if found is None and rest > 0 and data[128:132] == b"DICM":  # a header of more than usual
        data += file.read(rest)
        found = _parsed(path, data, size)
    return data, found


def _parsed(path: Path, data: bytes, size: int) -> Header | None:
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
        syntax = _syntax(data, meta)
        if syntax in ("", *_UNUSUAL_SYNTAXES):
            raise _UnusualError
        implicit = syntax == _IMPLICIT
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
    _, begin, length = raw.get(_CHARACTER_SET, (b"", 0, 0))
    charset = data[begin : begin + length]
    found.values = _values(data, raw, charset, implicit)
    if pixel:
        _, begin, length = raw[pixel]
        found.pixels, found.begin, found.length = PIXEL_KEYWORDS[pixel], begin, length
    found.shared = next(iter(_of_items(data, raw.get(_SHARED, ()), charset, implicit)), {})
    found.of_frames = tuple(_of_items(data, raw.get(_PER_FRAME, ()), charset, implicit))
    found.tiles = tuple(_of_items(data, raw.get(UIH_TILES, ()), charset, implicit))
    found.segments = tuple(_of_items(data, raw.get(_SEGMENTS, ()), charset, implicit))
    for detector in _of_items(data, raw.get(_DETECTORS, ()), charset, implicit):
        found.values = {**detector, **found.values}
    dims = [item.get(_POINTER) for item in raw.get(_DIMENSIONS, ())]
    found.dimensions = tuple("{:04X}{:04X}".format(*Struct("<HH").unpack_from(data, d[1])) for d in dims if d)
    return completed(found)


def completed(found: Header) -> Header:
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
        if quick and vr in SHORT_VR and not group & 1:  # most elements are such
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
        elif vr in SHORT_VR:
            begin = position + 8
        elif vr in LONG_VR:
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
_TOP = frozenset({_SHARED, _PER_FRAME, UIH_TILES, _DETECTORS, _DIMENSIONS, _SEGMENTS})


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


def _of_items(data: bytes, items: Any, charset: bytes, implicit: bool) -> list[Values]:
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


def _values(data: bytes, raw: Raw, charset: bytes, implicit: bool) -> Values:
    names = raw.get(0, {})
    values: Values = {}
    for tag, where in raw.items():
        keyword = KEYWORD_OF.get(tag) or names.get(tag)
        if keyword is None or not isinstance(where, tuple):
            continue
        vr, begin, length = where
        kind = str(vr, "latin-1")
        if implicit or kind == "UN":
            kind = GUESSED.get(keyword, "LO") if tag in names else _known_vr(tag)
        read = _repeated if length <= _REPEATED else text_of
        if text := read(data[begin : begin + length], kind, charset):
            values[keyword] = text
    return values


def _known_vr(tag: int) -> str:
    from pydicom.datadict import dictionary_VR

    return dictionary_VR(tag)


GUESSED = {
    "SiemensMosaicImages": "US", "SiemensBValue": "IS", "SiemensDirection": "FD", "SiemensMatrix": "LO",
    "SiemensCSA": "OB", "PhilipsBValue": "FL", "PhilipsDirectionRL": "FL", "PhilipsDirectionAP": "FL",
    "PhilipsDirectionFH": "FL", "PhilipsImageType": "CS", "GEBValue": "IS", "GEImageType": "SS", "GEDirectionX": "DS",
    "GEDirectionY": "DS", "GEDirectionZ": "DS", "GEScanDateTime": "DT", "UIHBValue": "FD", "UIHDirection": "FD",
    "UIHImages": "DS", "PhilipsSUVFactor": "DS", "PhilipsActivityFactor": "DS",
}  # fmt: skip
"""VR of private elements whose file does not say it (implicit VR, or UN)."""


def text_of(value: bytes, kind: str, charset: bytes) -> str:
    """The value of an element of this VR as text."""
    kind = "US" if kind.startswith("US or") else kind
    if kind in _NUMBERS:
        code = _NUMBERS[kind]
        count = len(value) // Struct("<" + code).size
        return "\\".join(shown(v) for v in Struct(f"<{count}{code}").unpack_from(value))
    if kind == "AT":
        several = range(0, len(value) - 3, 4)
        return "\\".join("{:04X}{:04X}".format(*Struct("<HH").unpack_from(value, k)) for k in several)
    if kind in ("OB", "OW"):
        return value.decode("latin-1")
    try:
        text = value.decode("ascii") if value.isascii() else _decoded(value, charset)
    except (LookupError, ValueError):
        text = value.decode("latin-1")
    return (
        "\\".join(part.strip(_BLANK) for part in text.split("\\")).strip("\\ ") if "\\" in text else text.strip(_BLANK)
    )


_repeated = lru_cache(maxsize=2**9)(text_of)  # most of what a header says stands in all others of its series


def shown(value: float) -> str:
    return str(value) if isinstance(value, int) else f"{value:.17g}"


def _syntax(data: bytes, meta: Raw) -> str:
    if 0x00020010 not in meta:
        return ""
    _, begin, length = meta[0x00020010]
    return data[begin : begin + length].decode("ascii", "replace").strip(_BLANK).rstrip(". ")


def _decoded(value: bytes, charset: bytes) -> str:
    from pydicom.charset import decode_bytes

    return decode_bytes(value, _encodings(charset), {ord(c) for c in "\\\n\r\t\f"})


@lru_cache(maxsize=64)
def _encodings(charset: bytes) -> tuple[str, ...]:
    """Python's names of the character sets, as pydicom has them."""
    from pydicom.charset import convert_encodings

    try:
        return tuple(convert_encodings([name.strip(" \0") for name in charset.decode("ascii", "replace").split("\\")]))
    except Exception:  # an unknown name: pydicom warns or raises, and Latin-1 can read any byte
        return ("iso8859",)


def name_of(tag: str) -> str:
    """The keyword of a tag in hexadecimal, itself where it has none."""
    from pydicom.datadict import keyword_for_tag

    return keyword_for_tag(int(tag, 16)) or tag
