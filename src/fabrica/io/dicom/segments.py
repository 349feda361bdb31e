"""The segments of a DICOM segmentation (SEG): which planes show each, on one grid, those that are not written too.

Writers leave out frames in which a segment is empty. Segments of one file so come with different planes, and with gaps
between them, of which nothing is missing: what is not there is zero.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np

from fabrica.errors import ReadError
from fabrica.image import Float64
from fabrica.io.dicom.frames import EMPTY, MOST_FRAMES, Frame
from fabrica.io.dicom.geometry import SAME_POSITION, number
from fabrica.io.dicom.header import Header
from fabrica.io.dicom.kinds import LABEL_MAP

EVEN = 0.1  # of a step: how far a distance may be off a multiple of it
MOST_PLANES = 10 * MOST_FRAMES  # of all segments of a file, those that are not written too: more is an attack on memory


def segments_of(header: Header, frames: Sequence[Frame]) -> dict[str, list[Frame]]:
    """The frames of a SEG by the number of the segment that they show; by "" of a label map, whose values are the
    numbers. Raises ReadError where the file contradicts itself."""
    listed = [segment.get("SegmentNumber", "") for segment in header.segments]
    if header.get("SOPClassUID") == LABEL_MAP:
        background = header.get("PixelPaddingValue") or "0"
        if background != "0" and "0" in listed:
            raise ReadError(
                f"{header.path}: a label map with a segment 0 and background {background}; expected background 0, as "
                "images have it: number its segments from 1"
            )
        return {"": list(frames)}
    parts: dict[str, list[Frame]] = defaultdict(list)
    for frame in frames:
        shows = segment_of(header, frame)
        if listed and shows not in listed:
            raise ReadError(
                f"{header.path}: frame {frame.number + 1} shows segment {shows or '(not said)'}, expected one that "
                f"SegmentSequence lists ({', '.join(listed[:8])}{', ...' if len(listed) > 8 else ''}); the file "
                "contradicts itself"
            )
        parts[shows].append(frame)
    return dict(sorted(parts.items(), key=lambda part: (number(part[0]) or 0.0, part[0])))


def segment_of(header: Header, frame: Frame) -> str:
    """The number of the segment that a frame shows, which need not stand where there is one; "" where none can be
    told."""
    only = header.segments[0].get("SegmentNumber", "") if len(header.segments) == 1 else ""
    return frame.text("ReferencedSegmentNumber") or only or ("" if header.segments else "1")


def label_of(header: Header, segment: str) -> str:
    """What a segment is called in words, "" where the file does not say."""
    return next((s.get("SegmentLabel", "") for s in header.segments if s.get("SegmentNumber") == segment), "")


def names_of(header: Header) -> dict[int, str]:
    """Segment number -> what the segment is called, in the order of numbers, without the background."""
    background = header.get("PixelPaddingValue") if header.get("SOPClassUID") == LABEL_MAP else ""
    said = ((segment.get("SegmentNumber", ""), segment.get("SegmentLabel", "")) for segment in header.segments)
    return dict(
        sorted((int(n), name) for n, name in said if name and n.isdecimal() and int(n) and n != (background or "0"))
    )


def not_drawn(header: Header, shown: Sequence[str]) -> tuple[str, ...]:
    """A note on the segments that are listed and have no frame, as the empty ones of which all frames are left out."""
    if header.get("SOPClassUID") == LABEL_MAP:
        return ()
    listed = (segment.get("SegmentNumber", "") for segment in header.segments)
    empty = [f"{n} ({label_of(header, n)})" if label_of(header, n) else n for n in listed if n not in shown]
    if not empty:
        return ()
    names = ", ".join(empty[:4]) + (", ..." if len(empty) > 4 else "")
    return (f"{len(empty)} segments that its file lists have no frame, and are no image: {names}",)


def on_one_grid(header: Header, parts: dict[str, list[Frame]]) -> dict[str, list[Frame]]:
    """The parallel planes of each segment, sorted along the normal, at the places of all: a plane that a file leaves
    out has the number EMPTY. Raises ReadError where a segment has two planes at one place."""
    frames = sorted((frame for part in parts.values() for frame in part), key=lambda frame: frame.place.depth)
    depths = np.array([frame.place.depth for frame in frames])
    begins = np.flatnonzero(np.diff(depths, prepend=-np.inf) >= SAME_POSITION)
    places = [frames[k] for k in begins]
    if len(parts) * len(places) > MOST_PLANES:
        raise ReadError(f"{header.path}: {len(parts):,} segments in {len(places):,} places; damaged or not sound")
    counts = _steps(np.diff(depths[begins]), places[0], MOST_PLANES // len(parts))
    grid = []
    for (a, b), count in zip(pairwise(places), counts, strict=True):
        grid += [_empty(a, b, k / count) for k in range(count)]
    grid.append(_empty(places[-1], places[-1], 0.0))
    seats = np.repeat(np.cumsum([0, *counts]), np.diff(begins, append=len(frames)))
    seat_of = {frame.number: int(seat) for frame, seat in zip(frames, seats, strict=True)}
    found = {}
    for segment, part in parts.items():
        planes = list(grid)
        for frame in part:
            seat = seat_of[frame.number]
            if planes[seat].number != EMPTY:
                what = f"segment {segment}" if segment else "the label map"
                raise ReadError(
                    f"{header.path}: frames {planes[seat].number + 1} and {frame.number + 1} show {what} at one place, "
                    "expected one frame at each; the file contradicts itself"
                )
            planes[seat] = frame
        found[segment] = planes
    return found


def left_out(planes: Sequence[Frame]) -> tuple[str, ...]:
    """A note on the planes that are not in the file."""
    count = sum(plane.number == EMPTY for plane in planes)
    note = f"{count} of {len(planes)} planes are not in the file, which leaves out empty ones: zeros"
    return (note,) if count else ()


def _steps(gaps: Float64, frame: Frame, most: int) -> list[int]:
    """How many steps of an even grid of at most `most` planes lie between each place and the next: of the distance that
    the file states, else the smallest, the thickness of slices, the usual distance; 1 each where none of these fits."""
    if not len(gaps):
        return []
    stated = [abs(number(frame.text(name)) or 0.0) for name in ("SpacingBetweenSlices", "SliceThickness")]
    for about in (stated[0], gaps.min(), stated[1], np.median(gaps)):
        single = gaps[np.rint(gaps / about) == 1] if about else gaps[:0]
        # the mean of single steps, first: a rounded one would add up over a long gap
        for step in filter(None, (single.mean() if len(single) else 0.0, about)):
            steps = np.rint(gaps / step)
            if steps.min() > 0 and steps.sum() < most and np.abs(gaps / step - steps).max() <= EVEN:
                return [int(n) for n in steps]
    return [1] * len(gaps)


def _empty(a: Frame, b: Frame, share: float) -> Frame:
    """The plane that lies this share of the way from one to another, and is not in the file."""
    assert a.place.position is not None and b.place.position is not None
    position = a.place.position + share * (b.place.position - a.place.position)
    return replace(a, number=EMPTY, place=replace(a.place, position=position), values={}, notes=())
