"""What headers say that tells the images of a DICOM series apart, and what puts the planes of one place in order."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from fabrica.io.dicom.frames import DIMENSION, VECTORS, Frame
from fabrica.io.dicom.geometry import number, numbers
from fabrica.io.dicom.header import Header

_PARTS = {
    **dict.fromkeys(("M", "MAGNITUDE", "0"), "magnitude"),
    **dict.fromkeys(("P", "PHASE", "1", "PHASE MAP"), "phase"),
    **dict.fromkeys(("R", "REAL", "2"), "real"),
    **dict.fromkeys(("I", "IMAGINARY", "3"), "imaginary"),
}


@dataclass(frozen=True)
class Rule:
    """Something that headers say, and that may tell images apart.

    name    what the images are called by: "echo".
    value   of a plane; "" where its header does not say.
    ranked  images are called by their number in order of the value, not by the value itself.
    strong  images that differ in it are different even where none lies at the place of another, unless they are parts
            of one even volume that follow one another.
    """

    name: str
    value: Callable[[Header, Frame], str]
    ranked: bool = False
    strong: bool = False


def _part(header: Header, frame: Frame) -> str:
    """Magnitude, phase, real or imaginary."""
    component = _PARTS.get(frame.text("ComplexImageComponent").upper())
    if component:
        return component
    for words in (frame.text("FrameType"), frame.text("ImageType")):
        for word in words.upper().split("\\")[2:]:
            if word in _PARTS and not word.isdigit():
                return _PARTS[word]
    return _PARTS.get(frame.text("PhilipsImageType", "GEImageType").upper(), "")


def _echo(header: Header, frame: Frame) -> str:
    time, echo = number(frame.text("EffectiveEchoTime", "EchoTime")), frame.text("EchoNumbers")
    return echo if time is None else f"{time:.6g}\\{echo}"


def _b_value(header: Header, frame: Frame) -> str:
    """s/mm2."""
    text = frame.text("DiffusionBValue", "SiemensBValue", "PhilipsBValue", "UIHBValue")
    if not text and (found := numbers(frame.text("GEBValue"))) is not None:
        return f"{float(found[0]) % 1e9 % 1e5:.6g}"  # GE adds 1e9 to mark what was calculated
    value = number(text)
    return "" if value is None else f"{value:.6g}"


def _direction(header: Header, frame: Frame) -> str:
    text = frame.text("DiffusionGradientOrientation", "SiemensDirection", "UIHDirection")
    if text:
        return text
    for keywords in (
        ("PhilipsDirectionRL", "PhilipsDirectionAP", "PhilipsDirectionFH"),
        ("GEDirectionX", "GEDirectionY", "GEDirectionZ"),
    ):
        parts = [frame.text(keyword) for keyword in keywords]
        if any(parts):
            return "\\".join(parts)
    return frame.text("ImageComments") if frame.text("ImageComments").startswith("b=") else ""


def _said(*keywords: str) -> Callable[[Header, Frame], str]:
    """The text of the first of these that is there; numbers without what their spelling adds."""

    def value(header: Header, frame: Frame) -> str:
        text = frame.text(*keywords)
        found = number(text)
        return text if found is None else f"{found:.10g}"

    return value


def _image_type(header: Header, frame: Frame) -> str:
    return f"{frame.text('ImageType')} {frame.text('FrameType')} {frame.text('PhilipsImageType')}"


def _file(header: Header, frame: Frame) -> str:
    """Files of many planes are images of their own where they are whole; montages always are."""
    return "" if header.frames < 2 and frame.tile is None else str(header.path)


RULES = (
    Rule("part", _part, strong=True),
    Rule("stack", _said("StackID"), strong=True),
    Rule("image", _image_type, ranked=True),
    Rule("echo", _echo, ranked=True, strong=True),
    Rule("ti", _said("InversionTime"), strong=True),
    Rule("b", _b_value, strong=True),
    Rule("direction", _direction, ranked=True, strong=True),
    Rule("kvp", _said("KVP")),
    Rule("kernel", _said("ConvolutionKernel")),
    Rule("flip", _said("FlipAngle")),
    Rule("asl", _said("ASLContext")),
    Rule("acquisition", _said("AcquisitionNumber", "FrameAcquisitionNumber")),
    Rule("time", _said("TemporalPositionIndex", "TemporalPositionIdentifier"), strong=True),
    *(Rule(name, _said(keyword)) for keyword, name in VECTORS.items()),
    *(Rule(f"dimension{k}", _said(f"{DIMENSION}{k}")) for k in range(1, 9)),
    Rule(
        "phase", _said("NominalPercentageOfCardiacPhase", "NominalCardiacTriggerDelayTime", "TriggerTime"), ranked=True
    ),
    Rule("volume", _file, ranked=True, strong=True),
    Rule("time", _said("FrameAcquisitionDateTime", "AcquisitionDateTime", "AcquisitionTime"), ranked=True),
    Rule("time", _said("FrameReferenceDateTime", "FrameReferenceTime"), ranked=True),
    Rule("time", _said("ContentTime", "SeriesTime"), ranked=True),
)
"""In the order in which they are tried."""


def _number_of(*keywords: str) -> Callable[[Header, Frame], float | None]:
    def value(header: Header, frame: Frame) -> float | None:
        return number(frame.text(*keywords))

    return value


ORDERING = (
    _number_of("TriggerTime"),
    _number_of("FrameAcquisitionDateTime", "AcquisitionTime"),
    _number_of("FrameReferenceDateTime", "FrameReferenceTime"),
    _number_of("ContentTime"),
    _number_of("FrameAcquisitionNumber", "ImageIndex"),
    *(_number_of(f"{DIMENSION}{k}") for k in range(1, 9)),
)
"""What orders the planes of one place."""
