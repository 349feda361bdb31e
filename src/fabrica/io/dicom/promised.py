"""Whether a file holds the frames that its header promises.

Each frame may be an image of its own, which is laid out, read and refused by itself: a header of one wrong number would
keep a machine busy for an hour with 65,535 images that are not there. What was cut short may still lack some.
"""

from __future__ import annotations

from struct import Struct

from fabrica.errors import ReadError
from fabrica.io.dicom.header import Header
from fabrica.io.dicom.mark import UNDEFINED_LENGTH

FEW = 64  # frames that are not worth a look
_DEFLATED = "1.2.840.10008.1.2.1.99"
_VIDEO = "1.2.840.10008.1.2.4.10"  # MPEG: all frames in one stream
_ITEM = 0xFFFEE000
_HEAD = Struct("<HHL")


def check_frames(header: Header) -> None:
    """ReadError for a file that holds fewer than half of the frames that its header promises."""
    if header.frames <= FEW or header.syntax == _DEFLATED or header.syntax.startswith(_VIDEO):
        return
    there = _items(header) if header.length == UNDEFINED_LENGTH else _native(header)
    if 2 * there < header.frames:
        raise ReadError(
            f"{header.path}: the header promises {header.frames} frames, and the pixel data hold {there}; the file "
            "contradicts itself, or was cut short"
        )


def _native(header: Header) -> int:
    """How many frames the bytes suffice for; all of them where the header does not say what one takes."""
    values = (header.get(keyword) for keyword in ("Rows", "Columns", "BitsAllocated"))
    sides = [int(value) if value.isdecimal() else 0 for value in values]
    samples = header.get("SamplesPerPixel")
    bits = sides[0] * sides[1] * sides[2] * (int(samples) if samples.isdecimal() else 1)
    if header.get("PhotometricInterpretation") == "YBR_FULL_422":
        bits = bits * 2 // 3
    there = min(header.length, header.size - max(header.begin, 0))
    return 8 * there // bits if bits else header.frames


def _items(header: Header) -> int:
    """How many fragments there are beside the table of offsets, as far as they are needed: a frame has one or more."""
    if header.begin < 0:
        return header.size // _HEAD.size
    count, place = -1, header.begin
    with header.path.open("rb") as file:
        while count < header.frames:
            file.seek(place)
            head = file.read(_HEAD.size)
            if len(head) < _HEAD.size:
                break
            group, element, length = _HEAD.unpack(head)
            if group << 16 | element != _ITEM:
                break
            count += 1
            place += _HEAD.size + length
    return max(count, 0)
