"""The images that a DICOM series holds: which planes belong together, and what tells one image from another.

A series is one acquisition in the eyes of the scanner, not one volume: it may hold echoes, magnitude and phase, time
points, diffusion directions, cardiac phases. Planes that lie at the same place belong to different images; what the
headers say of them tells which. Each rule is tried in turn, and taken only where the images that it makes are whole.
Instance numbers come last, and the names of files play no part.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fabrica.errors import ReadError
from fabrica.io.dicom.frames import Frame, frames_of
from fabrica.io.dicom.geometry import SAME_POSITION, number, numbers, same_plane
from fabrica.io.dicom.header import Header
from fabrica.io.dicom.keywords import LOSSY
from fabrica.io.dicom.kinds import SEGMENTATIONS, kind_of
from fabrica.io.dicom.rules import ORDERING, RULES, Rule
from fabrica.io.dicom.segments import label_of, left_out, not_drawn, on_one_grid, segments_of

Plane = tuple[Header, Frame]

NAMELESS = "nameless"  # what a series without SeriesInstanceUID is called by

JITTER = 0.1  # of the distance between slices: nearer ones are repeats of one place
WHOLE = 0.5  # an image is whole that has more than this share of the places
FEW = 1 / 3  # repeats at fewer of the places than this are single images too many, not another volume


@dataclass(frozen=True)
class Volume:
    """One image of a series: its planes in spatial order, one for a 2-D image.

    tells   what tells it from the others of its series, "echo=2,part=phase"; "" where it is the only one.
    kind    see `fabrica.io.dicom.kinds.KINDS`.
    notes   what was assumed, or left out.
    header  of its first plane's file.
    earliest  date and time at which the first image of its series was acquired.
    label   what a segment is called in words.
    """

    frames: tuple[Frame, ...]
    header: Header
    tells: str = ""
    kind: str = ""
    notes: tuple[str, ...] = ()
    earliest: str = ""
    label: str = ""

    @property
    def files(self) -> list[Path]:
        """The files it is read from, each once."""
        return list(dict.fromkeys(frame.path for frame in self.frames))


@dataclass
class Arranged:
    """The images of a series, and (file, reason) of what can be none."""

    volumes: list[Volume] = field(default_factory=list)
    refused: list[tuple[Path, str]] = field(default_factory=list)


def arrange(headers: Iterable[Header]) -> Arranged:
    """The images that files of one series hold; every plane is in one of them, or refused, or a copy that a note
    counts."""
    found = Arranged()
    kept, copies = _without_copies(sorted(headers, key=_order))
    planes: dict[str, list[Plane]] = defaultdict(list)
    segmentations: list[tuple[Header, list[Frame]]] = []
    for header in kept:
        try:
            frames = frames_of(header)
        except ReadError as error:
            found.refused.append((header.path, str(error).removeprefix(f"{header.path}: ")))
            continue
        if not frames:
            found.refused.append((header.path, "holds no image"))
            continue
        if header.get("SOPClassUID") in SEGMENTATIONS:
            segmentations.append((header, frames))
        else:
            planes[kind_of(header)].extend((header, frame) for frame in frames)
    for kind, several in planes.items():
        _arrange_kind(kind, several, found)
    for k, (header, frames) in enumerate(segmentations, start=1):
        chain = (("volume", str(k)),) if len(segmentations) > 1 else ()
        try:
            found.volumes += _of_segments(header, frames, chain)
        except ReadError as error:
            found.refused.append((header.path, str(error).removeprefix(f"{header.path}: ")))
    _name(found, [*_copied(copies), *_numbers_left_out(kept)])
    moments = [header.get("AcquisitionDate") + header.get("AcquisitionTime") for header in kept]
    earliest = min((moment for moment in moments if len(moment) > 8), default="")
    found.volumes = [replace(volume, earliest=earliest) for volume in found.volumes]
    return found


def _order(header: Header) -> tuple[Any, ...]:
    """An order that has nothing to do with names, as far as headers allow."""
    instance = number(header.get("InstanceNumber"))
    return (
        header.get("StudyInstanceUID"),
        header.get("SeriesInstanceUID"),
        float("inf") if instance is None else instance,
        header.get("SOPInstanceUID"),
        -header.size,  # of copies the one that is not cut short
        str(header.path),
    )


def _without_copies(headers: list[Header]) -> tuple[list[Header], int]:
    """Without files that say all the same as another one, their own UID included: the same file twice, or encoded in
    another way without loss."""
    kept: list[Header] = []
    known: dict[str, list[Header]] = defaultdict(list)
    for header in headers:
        uid = header.get("SOPInstanceUID")
        same = (
            other.values == header.values and other.of_frames == header.of_frames and _same_pixels(other, header)
            for other in known[uid]
        )
        if uid and any(same):
            continue
        known[uid].append(header)
        kept.append(header)
    return kept, len(headers) - len(kept)


def _same_pixels(a: Header, b: Header) -> bool:
    """Whether files of the same instance hold the same pixels, as far as headers can tell."""
    return a.length == b.length if a.syntax == b.syntax else not {a.syntax, b.syntax} & LOSSY.keys()


@dataclass
class _Group:
    """Planes that no rule has parted yet; `chain` holds the (name, value) of those that made it. `finished`: no place
    comes twice and slices are even, once that is known."""

    planes: list[Plane]
    chain: tuple[tuple[str, str], ...] = ()
    finished: bool | None = None


def _arrange_kind(kind: str, planes: list[Plane], found: Arranged) -> None:
    alone = [plane for plane in planes if plane[1].place.position is None]
    placed = [plane for plane in planes if plane[1].place.position is not None]
    groups = _split_by(_Group(placed), "study", _study) if placed else []
    groups = [part for group in groups for part in _split_by(group, "series", lambda p: p[0].get("SeriesNumber"))]
    groups = [part for group in groups for part in _parallel(group)]
    groups += [_Group([plane]) for plane in alone]
    largest = max(len(group.planes) for group in groups)
    strays = [group for group in groups if len(group.planes) < 3 and 3 * len(group.planes) <= largest]
    strays = strays if not kind and largest > 2 else []
    for group in groups:
        first = len(found.volumes)
        if group.planes[0][1].place.position is None:
            _arrange_unplaced(kind, group.planes, found)
        else:
            _arrange_parallel(kind, group, found)
        for k in range(first, len(found.volumes)):
            found.volumes[k] = _marked(found.volumes[k], group in strays, strays)


def _marked(volume: Volume, stray: bool, strays: Sequence[_Group]) -> Volume:
    """A plane or two that lie otherwise than the volume of their series are strays: set apart, and named there."""
    if stray:
        return replace(volume, kind="stray")
    if not strays or volume.kind:
        return volume
    names = sorted({frame.path.name for group in strays for _, frame in group.planes})
    shown = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
    note = f"{len(names)} images of its series lie otherwise than its slices and were set apart: {shown}"
    return replace(volume, notes=(*volume.notes, note))


def _arrange_unplaced(kind: str, planes: list[Plane], found: Arranged) -> None:
    """Planes without a place are images of their own: the frames of one file follow one another in time."""
    for header, frame in planes:
        chain = (("time", str(frame.number + 1)),) if header.frames > 1 else ()
        found.volumes.append(_volume(kind, [(header, frame)], chain))


def _of_segments(header: Header, frames: list[Frame], chain: tuple[tuple[str, str], ...]) -> list[Volume]:
    """The images of one segmentation: each of its segments, which are whole without any other file."""
    parts = segments_of(header, frames)
    notes = not_drawn(header, list(parts))
    images: list[tuple[str, tuple[tuple[str, str], ...], list[Frame]]] = []
    placed = [(header, frame) for frame in frames if frame.place.position is not None]
    for group in _parallel(_Group(placed)) if placed else []:
        inside = {frame.number for _, frame in group.planes}
        here = {segment: [frame for frame in part if frame.number in inside] for segment, part in parts.items()}
        for segment, planes in on_one_grid(header, {s: part for s, part in here.items() if part}).items():
            images.append((segment, group.chain, planes))
    for segment, part in parts.items():
        alone = [frame for frame in part if frame.place.position is None]
        for frame in alone:
            images.append((segment, (("time", str(frame.number + 1)),) if len(alone) > 1 else (), [frame]))
    found = []
    for segment, told, planes in images:
        own = (*chain, *((("segment", segment),) if segment else ()), *told)
        volume = _volume(kind_of(header), [(header, plane) for plane in planes], own)
        volume = replace(volume, label=label_of(header, segment), notes=(*volume.notes, *left_out(planes), *notes))
        found.append(volume)
    return found


def _arrange_parallel(kind: str, group: _Group, found: Arranged) -> None:
    """Parallel planes of one size become images of which each has one plane at each place."""
    positions = _positions(group.planes)
    index = {id(plane): k for plane, k in zip(group.planes, positions, strict=True)}

    def repeated(planes: Sequence[Plane]) -> int:
        return len(planes) - len({index[id(plane)] for plane in planes})

    groups = [group]
    for rule in RULES:
        groups = [part for each in groups for part in _apply(rule, each, index)]
    finished = [part for each in groups for part in _by_number(each, index)]
    for each in finished:
        extra = _extra(each.planes, index) if repeated(each.planes) else []
        if extra:
            each = replace(each, planes=[plane for plane in each.planes if plane not in extra])
            found.volumes += [
                _volume(kind or "stray", [plane], (*each.chain, ("extra", str(k)))) for k, plane in enumerate(extra, 1)
            ]
        if repeated(each.planes):
            at = Counter(index[id(plane)] for plane in each.planes)
            reason = (
                f"one of {len(each.planes)} images that lie at {len(at)} places, up to {max(at.values())} at one, and "
                "nothing in their headers tells which belong together; put each volume in a folder of its own"
            )
            found.refused += [(path, reason) for path in dict.fromkeys(header.path for header, _ in each.planes)]
            continue
        volume = _volume(kind, sorted(each.planes, key=lambda p: p[1].place.depth), each.chain)
        if extra:
            note = f"{len(extra)} of {len(each.planes) + len(extra)} images lie at a place already filled: set apart"
            volume = replace(volume, notes=(*volume.notes, note))
        found.volumes.append(volume)


def _extra(planes: Sequence[Plane], index: dict[int, Any]) -> list[Plane]:
    """Single planes too many at a few of the places: all but the first of each by its number; [] where there are more
    than a few, or where numbers do not tell which was first."""
    at: dict[Any, list[Plane]] = defaultdict(list)
    for plane in planes:
        at[index[id(plane)]].append(plane)
    several = [found for found in at.values() if len(found) > 1]
    if len(several) >= FEW * len(at) and not (len(several) == 1 and len(at) > 2):
        return []
    extra = []
    for found in several:
        extra += sorted(found, key=lambda plane: _acquired([plane]))[1:]
    return extra


def _volume(kind: str, planes: Sequence[Plane], chain: tuple[tuple[str, str], ...]) -> Volume:
    tells = ",".join(f"{name}={value}" for name, value in chain)
    notes = dict.fromkeys(note for _, frame in planes for note in frame.notes)
    return Volume(tuple(frame for _, frame in planes), planes[0][0], tells, kind, tuple(notes))


def _positions(planes: Sequence[Plane]) -> npt.NDArray[np.int64]:
    """Which place each plane lies at, counted along the common normal. Planes that lie nearer to one another than a
    small share of the distance between slices, and of their thickness, are repeats of one place, as motion correction
    and rounding leave them: if there are as many at each. Slabs far from one another hold slices, not repeats."""
    depths = np.array([frame.place.depth for _, frame in planes])
    order = np.argsort(depths, kind="stable")
    steps = np.diff(depths[order])
    exact = np.zeros(len(depths), dtype=np.int64)
    exact[order[1:]] = np.cumsum(steps >= SAME_POSITION)
    # the largest jump in the sizes of steps parts what is jitter from what is a distance
    sizes = np.sort(steps[steps >= SAME_POSITION])
    thinnest = min(frame.place.thickness for _, frame in planes)
    jumps = np.flatnonzero((sizes[:-1] < JITTER * sizes[1:]) & (sizes[:-1] < JITTER * thinnest))
    for k in jumps[::-1]:
        near = np.zeros(len(depths), dtype=np.int64)
        near[order[1:]] = np.cumsum(steps > sizes[k])
        counts = np.bincount(near)
        if counts.min() > 1 and counts.max() <= 2 * counts.min():
            return near
    return exact


def _apply(rule: Rule, group: _Group, index: dict[int, Any]) -> list[_Group]:
    """The group parted by the rule, or as it is where that does not make whole images."""
    if _is_finished(group, index) and not rule.strong:
        return [group]
    parts = _parted(group.planes, lambda plane: rule.value(*plane))
    if len(parts) < 2:
        return [group]
    places = {index[id(plane)] for plane in group.planes}
    before = len(group.planes) - len(places)
    sizes = [(len(part), len({index[id(plane)] for plane in part})) for part in parts.values()]
    after = sum(n - of for n, of in sizes)
    if before:
        whole = sum(n for n, of in sizes if of > WHOLE * len(places))
        enough = after < before and whole >= WHOLE * len(group.planes)
    elif rule.strong:
        follow = group.finished and not _overlap(list(parts.values()), index)
        enough = min(n for n, _ in sizes) > 1 and not follow
    else:
        enough = False
    if not enough and not _are_volumes(list(parts.values()), index):
        return [group]
    return _called(group, rule.name, parts, rule.ranked)


def _is_finished(group: _Group, index: dict[int, Any]) -> bool:
    if group.finished is None:
        depths = _depths(group.planes, index)
        group.finished = len(depths) == len(group.planes) and _evenly(depths)
    return group.finished


def _depths(planes: Iterable[Plane], index: dict[int, Any]) -> npt.NDArray[np.float64]:
    """Where the places of planes lie along their normal, sorted; each once."""
    return np.sort(list({index[id(plane)]: plane[1].place.depth for plane in planes}.values()))


def _evenly(depths: npt.NDArray[np.float64]) -> bool:
    steps = np.diff(depths)
    return len(steps) < 2 or bool(np.ptp(steps) <= 0.1 * float(np.median(steps)))


def _overlap(parts: Sequence[Sequence[Plane]], index: dict[int, Any]) -> bool:
    """Whether some part begins before another has ended."""
    ends = sorted((depths[0], depths[-1]) for depths in (_depths(part, index) for part in parts))
    return any(start < end + SAME_POSITION for (_, end), (start, _) in pairwise(ends))


def _are_volumes(parts: Sequence[Sequence[Plane]], index: dict[int, Any]) -> bool:
    """Whether parts are volumes by where they lie, although they reach over different places, as where the patient
    was followed or slabs overlap: each has slices at one and the same distance, lost ones aside. Packages of one
    volume whose slices lie between one another are none: together they are even."""
    depths = [_depths(part, index) for part in parts]
    if any(len(own) < len(part) or len(own) < 3 for own, part in zip(depths, parts, strict=True)):
        return False
    steps = [np.diff(own) for own in depths]
    step = float(np.median([np.median(own) for own in steps]))
    for own in steps:
        multiples = np.rint(own / step)
        if multiples.min() < 1 or np.abs(own / step - multiples).max() > 0.2:
            return False
    if not _overlap(parts, index):
        return False
    together = _depths([plane for part in parts for plane in part], index)
    if len(together) < sum(map(len, parts)):
        return True
    said = parts[0][0][1].place.between
    if said:
        return abs(said / step - 1) < 0.1
    pitch = np.diff(together) * len(parts) / step
    return float(np.mean(np.abs(pitch - 1) < 0.05)) < 0.5


def _split_by(group: _Group, name: str, value: Callable[[Plane], str]) -> list[_Group]:
    parts = _parted(group.planes, value)
    return [group] if len(parts) < 2 else _called(group, name, parts, name == "study")


def _called(group: _Group, name: str, parts: dict[str, list[Plane]], ranked: bool) -> list[_Group]:
    """The parts as groups, in the order of their values, numbers as numbers; of what has no order, as acquired."""
    by_value = name not in _WITHOUT_ORDER
    ordered = sorted(
        parts.items(), key=lambda item: (_sort_key(item[0] if by_value else ""), _acquired(item[1]), item[0])
    )
    return [
        _Group(planes, (*group.chain, (name, str(k) if ranked else _shown(value))))
        for k, (value, planes) in enumerate(ordered, start=1)
    ]


def _study(plane: Plane) -> str:
    """Images of several patients or studies under one series: a UID that was given twice."""
    return f"{plane[0].get('StudyInstanceUID')} {plane[0].get('PatientID')}"


def _parted(planes: Sequence[Plane], value: Callable[[Plane], str]) -> dict[str, list[Plane]]:
    parts: dict[str, list[Plane]] = defaultdict(list)
    for plane in planes:
        parts[value(plane)].append(plane)
    return parts


_WITHOUT_ORDER = ("direction", "image", "volume")


def _acquired(planes: Sequence[Plane]) -> tuple[float, str, str]:
    """What the first of these planes goes by: its number, its time, its UID."""
    times = [frame.text("AcquisitionDateTime", "AcquisitionTime", "ContentTime") for _, frame in planes]
    return _first_instance(planes), min(times), min(header.get("SOPInstanceUID") for header, _ in planes)


def _sort_key(value: str) -> tuple[int, tuple[float, ...], str]:
    found = numbers(value)
    return (1, (), value) if found is None else (0, tuple(float(n) for n in found), value)


def _shown(value: str) -> str:
    found = number(value)
    text = value if found is None else f"{found:.6g}"
    return "".join(c if c.isalnum() or c in "-+._" else "_" for c in text) or "none"


def _first_instance(planes: Sequence[Plane]) -> float:
    found = [n for header, frame in planes for n in (_instance(header, frame),) if n is not None]
    return min(found, default=float("inf"))


def _instance(header: Header, frame: Frame) -> float | None:
    """InstanceNumber; the frames of one file follow one another in its order."""
    found = number(header.get("InstanceNumber"))
    if found is None:
        return frame.number / header.frames if header.frames > 1 else None
    return found + frame.number / max(1, header.frames)


def _by_number(group: _Group, index: dict[int, Any]) -> list[_Group]:
    """The group parted by what orders the planes of each place: their time, where images then follow one another; else
    their numbers; else their time all the same; else whatever else headers say, where that makes whole images; else
    the folders they lie in, where these hold the same places. As it is where none of these tells, or where no place
    comes twice and slices are even."""
    if _is_finished(group, index):
        return [group]
    at: dict[Any, list[Plane]] = defaultdict(list)
    for plane in group.planes:
        at[index[id(plane)]].append(plane)
    numbered = _numbers_tell(group.planes)
    if len(at) == len(group.planes):
        runs = _runs(group.planes, index) if numbered else []
        return _numbered(group, "volume", runs) if runs else [group]
    if len(at) == 1:  # nothing could be mixed
        return _numbered(group, "time", [[plane] for plane in sorted(group.planes, key=lambda p: _acquired([p]))])
    ranks = [(key, ranked) for key in ORDERING if (ranked := _ranked(at, key))]
    for key, ranked in ranks:
        ends = [[key(*plane) or 0.0 for plane in planes] for planes in ranked]
        if all(max(one) < min(next_) for one, next_ in pairwise(ends)):
            return _numbered(group, "time", ranked)
    if numbered:
        for volumes in (_volume_major(group.planes, index, len(at)), _place_major(group.planes, at)):
            if volumes:
                return _numbered(group, "volume", volumes)
    for ranked in (*(ranked for _, ranked in ranks), _ranked(at, _instance) if numbered else []):
        if ranked:
            return _numbered(group, "time", ranked)
    if numbered and (runs := _runs(group.planes, index)):
        return _numbered(group, "volume", runs)
    for keyword in sorted({keyword for _, frame in group.planes for keyword in frame.values}):
        parts = _parted(group.planes, _said_of(keyword))
        if len(parts) > 1 and all(_is_whole(part, index, len(at)) for part in parts.values()):
            return _called(group, keyword, parts, ranked=False)
    by_folder = list(_parted(group.planes, lambda plane: str(plane[0].path.parent)).values())
    if len(by_folder) > 1 and all(sorted(index[id(p)] for p in part) == sorted(at) for part in by_folder):
        return _numbered(group, "folder", sorted(by_folder, key=_acquired))
    return [group]


def _numbers_tell(planes: Sequence[Plane]) -> bool:
    """Whether instance numbers order planes: of several places in one file no standard says in which order they are."""
    of_file: dict[Path, set[Any]] = defaultdict(set)
    for header, frame in planes:
        if header.frames > 1:
            of_file[header.path].add(frame.place.depth)
    found = [_instance(*plane) for plane in planes]
    single = all(len(depths) == 1 for depths in of_file.values())
    return single and None not in found and len(set(found)) == len(found)


def _is_whole(part: Sequence[Plane], index: dict[int, Any], places: int) -> bool:
    """Whether planes are one at each of the places, or at least three at even distances."""
    depths = _depths(part, index)
    return len(depths) == len(part) and (len(part) == places or (len(part) > 2 and _evenly(depths)))


def _said_of(keyword: str) -> Callable[[Plane], str]:
    return lambda plane: plane[1].text(keyword)


def _runs(planes: Sequence[Plane], index: dict[int, Any]) -> list[list[Plane]]:
    """The images of planes whose numbers lead through one after the other, wherever each begins; [] where they do
    not."""
    ordered = sorted(planes, key=lambda plane: _instance(*plane) or 0.0)
    steps = np.diff([plane[1].place.depth for plane in ordered])
    back = np.flatnonzero(steps * np.sign(np.median(steps)) < SAME_POSITION) + 1
    runs = [list(ordered[start:end]) for start, end in pairwise([0, *map(int, back), len(ordered)])]
    return runs if len(runs) > 1 and _are_volumes(runs, index) else []


def _numbered(group: _Group, name: str, volumes: Sequence[list[Plane]]) -> list[_Group]:
    return [_Group(planes, (*group.chain, (name, str(k)))) for k, planes in enumerate(volumes, start=1)]


def _ranked(at: dict[Any, list[Plane]], key: Callable[[Header, Frame], float | None]) -> list[list[Plane]]:
    """The first plane of each place, the second, ..., in the order of `key`; [] where some have none, or the same, or
    where there are not as many everywhere."""
    ordered = []
    for planes in at.values():
        values = [value for plane in planes if (value := key(*plane)) is not None]
        if len(set(values)) < len(planes):
            return []
        ordered.append([planes[k] for k in np.argsort(values)])
    if len({len(planes) for planes in ordered}) > 1:
        return []
    return [list(planes) for planes in zip(*ordered, strict=True)]


def _volume_major(planes: Sequence[Plane], index: dict[int, Any], places: int) -> list[list[Plane]]:
    """One image after the other in the order of instance numbers. Where none is lost, a new one begins where a place
    comes again; else the numbers must say the place and begin at 1, so that a lost file shifts nothing."""
    ordered = sorted(planes, key=lambda plane: _instance(*plane) or 0.0)
    volumes: list[list[Plane]] = [[]]
    filled: set[Any] = set()
    for plane in ordered:
        if index[id(plane)] in filled:
            volumes.append([])
            filled = set()
        filled.add(index[id(plane)])
        volumes[-1].append(plane)
    if all(len(volume) == places for volume in volumes):
        return volumes
    return _counted(ordered, lambda n: (n // places, n % places), index)


def _place_major(planes: Sequence[Plane], at: dict[Any, list[Plane]]) -> list[list[Plane]]:
    """All images' planes of one place, then those of the next."""
    count = max(len(several) for several in at.values())
    index = {id(plane): place for place, several in at.items() for plane in several}
    ordered = sorted(planes, key=lambda plane: _instance(*plane) or 0.0)
    if len(planes) == count * len(at):
        pieces = [ordered[k : k + count] for k in range(0, len(ordered), count)]
        if all(len({index[id(plane)] for plane in piece}) == 1 for piece in pieces):
            return [list(volume) for volume in zip(*pieces, strict=True)]
        return []
    return _counted(ordered, lambda n: (n % count, n // count), index)


def _counted(
    planes: Sequence[Plane], seat: Callable[[int], tuple[int, int]], index: dict[int, Any]
) -> list[list[Plane]]:
    """The images of planes whose instance numbers from 1 say (image, place); [] where they do not."""
    volumes: dict[int, list[Plane]] = defaultdict(list)
    places: dict[int, Any] = {}
    for plane in planes:
        counted = _instance(*plane) or 0.0
        if counted < 1 or counted != int(counted):
            return []
        image, place = seat(int(counted) - 1)
        if places.setdefault(place, index[id(plane)]) != index[id(plane)]:
            return []
        volumes[image].append(plane)
    if len(set(places.values())) < len(places) or len(planes) < WHOLE * len(volumes) * len(places):
        return []
    return [volumes[image] for image in sorted(volumes)]


def _parallel(group: _Group) -> list[_Group]:
    """Parts of one size whose planes are parallel and alike in pixel spacing."""
    parts: list[list[Plane]] = []
    known: dict[Hashable, list[Plane]] = {}
    for plane in group.planes:
        header, frame = plane
        texts = (
            frame.text("ImageOrientationPatient"),
            frame.text("PixelSpacing"),
            frame.size,
            header.get("SamplesPerPixel"),
        )
        part = known.get(texts)
        if part is None:
            part = next((p for p in parts if _alike(p[0], plane)), None)
            if part is None:
                part = []
                parts.append(part)
            known[texts] = part
        part.append(plane)
    if len(parts) < 2:
        return [group]
    parts.sort(key=lambda planes: (-len(planes), _first_instance(planes)))
    return [_Group(planes, (*group.chain, ("plane", str(k)))) for k, planes in enumerate(parts, start=1)]


def _alike(a: Plane, b: Plane) -> bool:
    return (
        a[1].size == b[1].size
        and a[0].get("SamplesPerPixel") == b[0].get("SamplesPerPixel")
        and same_plane(a[1].place, b[1].place)
    )


def _copied(copies: int) -> tuple[str, ...]:
    return (f"{copies} files of its series are copies of others and were left out",) if copies else ()


def _numbers_left_out(headers: Sequence[Header]) -> tuple[str, ...]:
    """A note on instance numbers that no file of the series has, between those that are there: where slices were lost
    from an even volume, such as every second one, places tell nothing of it."""
    counted = [number(header.get("InstanceNumber")) for header in headers if header.frames == 1]
    found = {n for n in counted if n is not None}
    if len(found) < max(3, len(headers)):  # some have none, or the same: they count something else
        return ()
    first, last = int(min(found)), int(max(found))
    lacking = [n for n in range(first, last + 1) if n not in found] if last - first < 2 * len(found) else []
    if not lacking:
        return ()
    shown = ", ".join(map(str, lacking[:3])) + (", ..." if len(lacking) > 3 else "")
    return (f"images {first} to {last} of its series lack {len(lacking)} ({shown}): were some left behind?",)


def _name(found: Arranged, notes: Sequence[str]) -> None:
    """Give each image a name that no other of its series has, "" to the only one; and the notes on its series."""
    ordinary = [volume for volume in found.volumes if not volume.kind]
    used = Counter(volume.tells for volume in found.volumes)
    seen: Counter[str] = Counter()
    for k, volume in enumerate(found.volumes):
        tells = volume.tells
        if len(found.volumes) == 1 or (volume.kind == "" and len(ordinary) == 1):
            tells = ""
        elif not tells or used[tells] > 1:
            seen[tells] += 1
            kind = f"kind={volume.kind}" if volume.kind else ""
            tells = ",".join(filter(None, (tells, kind, f"image={seen[tells]}")))
        found.volumes[k] = replace(volume, tells=tells, notes=(*volume.notes, *notes))


def series_name(header: Header, folder: Path) -> str:
    """What the series of a file in or below a folder is called by there."""
    return header.get("SeriesInstanceUID") or "/".join([NAMELESS, *header.path.parent.relative_to(folder).parts])
