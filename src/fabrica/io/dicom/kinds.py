"""What a DICOM object is, where it is not an image of the patient as it was taken.

Read off what the standard lets a header say (PS3.3 C.7.6.1.1.2, Image Type; C.8.16, frame types) and the SOP class.
"""

from __future__ import annotations

import re

from fabrica.io.dicom.header import Header

KINDS = {
    "localizer": "a localizer, scout or surview: it shows where slices lie",
    "derived": "computed from images: ADC, FA, MIP, subtraction, T1 map ...",
    "reformat": "a secondary reconstruction: planes laid anew through images",
    "screen": "a screen capture or a page",
    "dose": "a dose distribution, in Gy",
    "segmentation": "a label map of other images (SEG)",
    "structures": "contours on other images (RTSTRUCT)",
    "presentation": "how to show other images",
    "report": "a report without an image",
    "video": "video",
    "raw": "raw or spectroscopic data, waveforms",
    "stray": "an image that lies apart from the volume of its series",
    "mask": "a label map beside an image",
}
"""Why rows of this kind are set apart unless they are asked for."""

LABEL_MAP = "1.2.840.10008.5.1.4.1.1.66.7"
STRUCTURES = "1.2.840.10008.5.1.4.1.1.481.3"
SEGMENTATIONS = ("1.2.840.10008.5.1.4.1.1.66.4", LABEL_MAP)
PET = ("1.2.840.10008.5.1.4.1.1.128", "1.2.840.10008.5.1.4.1.1.130", "1.2.840.10008.5.1.4.1.1.128.1")
SUV_UNITS = ("BQML", "CNTS", "GML")  # Units of PET of which SUV can be had
_CLASSES = {
    "1.2.840.10008.5.1.4.1.1.481.2": "dose",
    STRUCTURES: "structures",
    **dict.fromkeys(SEGMENTATIONS, "segmentation"),
    "1.2.840.10008.5.1.4.1.1.66.5": "segmentation",  # surface
    "1.2.840.10008.5.1.4.1.1.66": "raw",
    "1.2.840.10008.5.1.4.1.1.4.2": "raw",  # MR spectroscopy
    "1.2.840.10008.5.1.4.1.1.30": "derived",  # parametric map
    "1.2.840.10008.5.1.4.1.1.104.1": "report",  # encapsulated PDF
}
_SECONDARY = "1.2.840.10008.5.1.4.1.1.7"
_VIDEO = "1.2.840.10008.1.2.4.10"  # MPEG-2 to HEVC: .100 to .108
_SCANNERS = ("CT", "MR", "PT", "NM")
_LOCALIZER = re.compile(r"LOCALI[SZ]ER|SCOUT|SURVIEW|TOPOGRAM|SCANOGRAM")
_SCREEN = re.compile(r"SCREEN|DOSE_INFO|DOSE INFO|PROT|SURVIEW|SCREENSAVE|STRUCTURED|RESULT|REPORT|CSA REPORT|OTHER")
_REFORMAT = re.compile(
    r"MPR|REFORMATTED|VOLREN|VOLUME_RENDER|3D|CURVED|RENDER|VRT|SSD|OBLIQUE|RESAMPLED|PROCESSED|AVERAGE"
)
_MAPS = re.compile(
    r"ADC|EADC|FA|FAC|TRACEW?|TENSOR|TENSOR_B0|DIFFUSION_CALCULATED|MIP|MINIP|MAX_IP|MIN_IP|PROJECTION IMAGE|SUB|"
    r"SUBTRACTION|CBF|CBV|RCBF|RCBV|MTT|TTP|TMAX|PBP|T1 MAP|T2 MAP|T2_STAR MAP|R2 MAP|R2_STAR MAP|T2STAR MAP|"
    r"FIELD_MAP_.*|T1_MAP|T2_MAP|STDDEV|STD_DEV|CLR|PERFUSION_MAP|DIFFUSION ANISO|"
    r"ISOTROPIC|ADD_MAP|ZSCORE|TTEST|Z-SCORE|MEAN_MAP|VELOCITY|SPEED|CALC|COMPOSED|ALPHA|RELCBV|RELCBF|RELMTT|K_TRANS|KTRANS|KEP|VE|IAUC|PARAMETRIC_MAP|SWI_MIP|"
    r"MNIP|FAT_FRACTION|FATFRAC|CHEMICAL_SHIFT_MAP"
)


def kind_of(header: Header) -> str:
    """One of KINDS, or "" for an image of the patient."""
    uid = header.get("SOPClassUID")
    if uid in _CLASSES:
        return _CLASSES[uid]
    modality = header.get("Modality")
    if header.syntax.startswith(_VIDEO):
        return "video"
    if not header.frames:
        return _without_pixels(uid, modality)
    if modality == "SEG":
        return "segmentation"
    if modality == "RTDOSE":
        return "dose"
    words = [word.strip() for word in header.get("ImageType").upper().split("\\")]
    first, second, rest = words[0], "".join(words[1:2]), words[2:]
    colour = header.get("SamplesPerPixel") == "3" or header.get("PhotometricInterpretation").startswith("PALETTE")
    if any(_LOCALIZER.search(word) for word in rest):
        return "localizer"
    captured = uid == _SECONDARY or uid.startswith(_SECONDARY + ".")
    shown = modality in _SCANNERS or any("SCREEN" in word for word in words)
    if captured and shown and not header.get("ImagePositionPatient") and header.get("ConversionType") != "SYN":
        return "screen"  # of a scanner: what its console showed
    if modality in _SCANNERS and first == "DERIVED" and any(_MAPS.fullmatch(word) for word in rest):
        return "derived"
    if modality in _SCANNERS and colour:
        return "derived"  # colour FA, fused images
    if modality in ("CT", "MR", "PT") and second == "SECONDARY" and first == "DERIVED":
        made = [word for word in rest if word and word != "NONE"]
        if any(_SCREEN.fullmatch(word) for word in made) and not header.get("ImagePositionPatient"):
            return "screen"
        if any(_REFORMAT.search(word) for word in made):
            return "reformat"
    if modality == "CT" and "OTHER" in rest and second == "SECONDARY" and not header.get("ImagePositionPatient"):
        return "screen"
    return ""


def _without_pixels(uid: str, modality: str) -> str:
    from pydicom.uid import UID

    name = UID(uid).name if uid else ""
    if "Presentation State" in name or modality == "PR":
        return "presentation"
    if "SR" in name.split() or "Report" in name or "Document" in name or modality in ("SR", "DOC"):
        return "report"
    return "raw" if modality in ("RTPLAN", "ECG", "EPS", "HD", "RTRECORD", "REG", "FID", "KO") else ""


def is_colour(header: Header) -> bool:
    """Whether the image has three channels."""
    if header.get("SOPClassUID") in SEGMENTATIONS:  # the palette of a label map says how to show its numbers
        return False
    return header.get("SamplesPerPixel") == "3" or header.get("PhotometricInterpretation") == "PALETTE COLOR"


def unit_of(header: Header) -> str:
    """The unit that an object's values will have, by its header alone."""
    said = header.frame(0)
    if header.get("SOPClassUID") in PET and header.get("Units") in SUV_UNITS:
        return "SUV"
    if header.get("Modality") == "RTDOSE" and header.get("DoseGridScaling"):
        return "Gy" if (header.get("DoseUnits") or "GY").upper() == "GY" else "arbitrary"
    if header.get("Modality") == "CT" and said.get("RescaleSlope") and said.get("RescaleType", "HU") == "HU":
        return "HU"
    whole = header.get("SegmentationType") != "FRACTIONAL"
    return "label" if header.get("SOPClassUID") in SEGMENTATIONS and whole else "arbitrary"
