"""From files that came in to series, and from series to jobs."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from fabrica.errors import FabricaError
from fabrica.io.dicom.header import read_header
from fabrica.io.dicom.kinds import kind_of
from fabrica.serving.node.archive import Answer
from fabrica.serving.node.arriving import DONE
from fabrica.serving.node.entries import OPEN, Received, Series, Wanted
from fabrica.serving.node.queue import Queue
from fabrica.serving.node.rules import FORWARD, Rules
from fabrica.serving.node.store import Store

NEVER_APPLIED = ("localizer", "screen", "dose", "segmentation", "structures", "presentation", "report", "video", "raw")
"""Of `fabrica.io.dicom.kinds`."""

AT_ONCE = 200  # objects in one transaction
CHUNK = 2**20  # bytes of two files that are compared at once
DEFLATED = "1.2.840.10008.1.2.1.99"
LONGEST = 64  # characters of a UID


@dataclass(frozen=True)
class Patience:
    """In seconds: quiet, after the last object of a series, before it may be complete; and how long to wait for objects
    that the archive has, or for an archive that cannot be reached, before people are told."""

    quiet: float = 10.0
    wait: float = 600.0


def take_in(queue: Queue, store: Store, now: float) -> int:
    """Put what came in into the database, then into its place; at whatever point this is killed, the next call ends it.
    Returns how many files it took."""
    names = sorted(path.name for path in store.incoming.iterdir() if path.name.endswith(DONE))[:AT_ONCE]
    known = queue.known(names)
    found: list[tuple[Received, Series]] = []
    refused: list[tuple[str, str]] = []
    for name in names:
        if name in known:  # it was killed before the file was moved
            continue
        looked = _looked(store.incoming / name, now)
        if isinstance(looked, str):
            refused.append((name, looked))
        else:
            found.append(looked)
    found = _without_others(queue, store, found, refused)
    dropped = queue.add(found, refused, now) if found or refused else set()
    for name in names:
        if name in dropped:
            (store.incoming / name).unlink()
        else:
            place = store.object(name)
            place.parent.mkdir(exist_ok=True)
            (store.incoming / name).rename(place)
    return len(names)


def settle(
    queue: Queue,
    rules: Rules,
    hashes: dict[str, str],
    expected: Callable[[str, str], Answer] | None,
    patience: Patience,
    say: Callable[[str], None],
    now: float | None = None,
) -> int:
    """Decide about series that are quiet: wait for what the archive has of them, give them to models, keep them or pass
    them on. hashes: of each model. expected: asks the archive, which is not asked about the others once it turns out
    to be away. Returns how many it has decided about."""
    now = time.time() if now is None else now
    decided, away = 0, None
    for series in queue.quiet(now - patience.quiet, now):
        objects = queue.objects(series.uid)
        note = ""
        if series.cleared > len(objects):
            note = f"{series.cleared} objects of it were cleared, and {len(objects)} came since; send all of them again"
            queue.set_partial(series, note)
            say(f"series {shown(series.uid)} is not complete: {note}")
            continue
        if expected:
            answer = away or expected(series.study, series.uid)
            away = answer if answer.away else None
            waited = now - series.last >= patience.wait
            lacking = answer.count - len(objects)
            if (answer.silent or lacking > 0) and not waited:
                queue.ask_again(series.uid, now + max(1.0, min(patience.quiet, 30.0)))
                continue
            if lacking > 0:
                note = f"{len(objects)} of {answer.count} objects came within {patience.wait:g} s; send the others"
                queue.set_partial(series, note)
                say(f"series {shown(series.uid)} is not complete: {note}")
                continue
            note = "the archive could not be asked how many objects there are" if answer.silent else ""
        slices = sum(each.image for each in objects)
        rule = rules.wanted(series.modality, series.body_part, series.description, slices)
        wanted = [Wanted(name, hashes[name], rule.direction) for name in rule.models] if rule else []
        late = f"version {series.version}, {series.late} came late" if series.version > 1 else ""
        if queue.complete(series, wanted, rules.otherwise == FORWARD, now, late, note):
            decided += 1
            names = " and ".join(each.model for each in wanted)
            kept = "passed on" if rules.otherwise == FORWARD else "kept"
            what = f"for {names}" if names else f"for no model, {kept}"
            more = (late and f" ({late})") + (note and f"; {note}")
            say(f"series {shown(series.uid)}: {len(objects)} objects, {what}{more}")
    return decided


def shown(uid: str) -> str:
    """A UID in a line of a log, whatever a sender wrote there."""
    return "".join(c if c.isascii() and c.isprintable() else "?" for c in uid[:LONGEST])


def _without_others(
    queue: Queue, store: Store, found: list[tuple[Received, Series]], refused: list[tuple[str, str]]
) -> list[tuple[Received, Series]]:
    """Those that are new, or the same once more. Another object under a UID that is taken goes among the refused, where
    it is kept for people to see: dropped it would be lost, and its sender was told that it is not."""
    held = queue.files(each.uid for each, _ in found)
    kept = []
    for each, series in found:
        there = held.setdefault(each.uid, each.name)
        if there != each.name and not _same(store, there, each.name):
            refused.append((each.name, f"its SOP Instance UID is that of {there}, which holds something else"))
        else:
            kept.append((each, series))
    return kept


def _same(store: Store, one: str, two: str) -> bool:
    """Whether two files hold the same data set, whoever sent them."""
    places = [store.object(one), store.incoming / one, store.incoming / two]
    paths = [path for path in places if path.is_file()]
    if len(paths) < 2:  # what was there is gone: nothing can be compared with it
        return False
    with paths[0].open("rb") as first, paths[-1].open("rb") as second:
        for file in (first, second):
            head = file.read(144)  # preamble, mark, and the length of the file meta, which name the sender
            file.seek(144 + int.from_bytes(head[140:144], "little"))
        while (data := first.read(CHUNK)) == second.read(CHUNK):
            if not data:
                return True
    return False


def _looked(path: Path, now: float) -> tuple[Received, Series] | str:
    """What the header of a received file says, or why it cannot be used. Pixels are not looked at."""
    try:
        header = read_header(path)
        if header.syntax == DEFLATED:
            return "deflated, which is not taken"
        uid, series = header.get("SOPInstanceUID").strip(), header.get("SeriesInstanceUID").strip()
        lacking = [name for name, value in (("SOP", uid), ("Series", series)) if not 0 < len(value) <= LONGEST]
        if lacking:
            return f"no usable {' and '.join(lacking)} Instance UID"
        image = header.frames if header.frames and kind_of(header) not in NEVER_APPLIED else 0
        received = Received(
            uid, series, path.name, header.get("SOPClassUID"), header.syntax, image, path.stat().st_size
        )
        modality, part, said = (header.get(each) for each in ("Modality", "BodyPartExamined", "SeriesDescription"))
        study = header.get("StudyInstanceUID").strip()
        return received, Series(series, modality, part, said, study, now, now, OPEN, 1, 0)
    except FabricaError as error:
        return str(error).removeprefix(f"{path}: ")
    except RecursionError:
        return "sequences nested too deeply"
