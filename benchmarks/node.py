"""python -m benchmarks.node [kills] [receiving] [mutated]: the DICOM node under kills, how fast it receives, and what
becomes of damaged objects.

kills       1,000 small objects, a series each, go in while the node is killed ten times at random moments (SIGKILL),
            and Orthanc, where the results go, twice. What is in the archive then is counted: each result once.
receiving   objects a second of four senders at once (dcmsend, 512 x 512 CT), the node's fsync included, in turn with
            DCMTK's `storescp --fork`, which flushes nothing.
mutated     10,000 objects, a series each, damaged while this runs (`benchmarks.mutated`): what became of each, and the
            memory of the node's processes. Nothing takes the results.

Kept in benchmarks/real/node.json. Orthanc and DCMTK are needed; all runs on the processors that this process may use.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from statistics import median

import pydicom
from pynetdicom import _config

from benchmarks.kept import keep
from benchmarks.mutated import maker, numbers
from benchmarks.servers import peak, resident
from fabrica.serving.node.calling import associated
from fabrica.serving.node.letters import counts, refused
from fabrica.serving.node.peers import Peer
from fabrica.serving.node.queue import Queue
from tests.dicom_network import ct, saved, uid
from tests.handmade import handmade
from tests.orthanc import OTHERS, Orthanc, Running, free_port, orthanc, sent, until

KEPT = Path(__file__).parent / "real" / "node.json"
OBJECTS, KILLS, ARCHIVE_KILLS = int(os.environ.get("NODE_OBJECTS", 1000)), 10, 2
SENDERS, EACH, ROUNDS = 4, 100, int(os.environ.get("NODE_ROUNDS", 5))
CHUNK = 20  # files of one dcmsend
AHEAD = 100  # damaged objects that wait at most while more are sent


def main() -> None:
    names = sys.argv[1:] or list(WHAT)
    for name in names:
        with tempfile.TemporaryDirectory() as folder:
            found = WHAT[name](Path(folder))
        print(name, json.dumps(found, indent=2), flush=True)
        keep(KEPT, name, found)


def kills(home: Path) -> dict[str, object]:
    handmade(home / "model")
    (home / "in").mkdir()
    (home / "archive").mkdir()
    names = [f"s{number}" for number in range(OBJECTS)]
    paths = [saved(ct(name, 1), home / "in" / f"{name}.dcm") for name in names]
    port, chance = free_port(), random.Random(0)
    began = time.monotonic()
    with orthanc(home / "archive", {"FABRICA": port}) as archive:
        node = Running(archive, home, port, "--quiet", 0.5, "--archive", "none")
        node.start()
        tries: list[int] = []
        sender = threading.Thread(target=_send, args=(archive, port, paths, tries))
        sender.start()
        for kill in range(KILLS):
            time.sleep(chance.uniform(1, 8))
            if kill in (KILLS // 3, 2 * KILLS // 3):
                archive.kill()
            node.kill()
            if archive.process is not None and archive.process.poll() is not None:
                time.sleep(chance.uniform(0, 3))
                archive.start()
            node.start()
        sender.join()
        until(lambda: len(_made(archive)) >= OBJECTS, 3600)
        time.sleep(5)  # for what should not come
        node.stop()
        made = _made(archive)
    of = Counter(made)
    return {
        "objects": OBJECTS,
        "node_killed": KILLS,
        "archive_killed": ARCHIVE_KILLS,
        "results": len(made),
        "lost": sum(uid(name, "study") not in of for name in names),
        "twice": sum(count > 1 for count in of.values()),
        "sent_again_by_sender": sum(tries) - len(tries),
        "seconds": round(time.monotonic() - began),
    }


def mutated(home: Path) -> dict[str, object]:
    handmade(home / "model")
    port, made = free_port(), maker(random.Random(time.time_ns()))
    with Running(Orthanc([], home, 9, 9), home, port, "--quiet", 0.5, "--archive", "none", "--tries", 1) as node:
        return _damaged(home, port, made, node)


def _damaged(home: Path, port: int, made: Callable[[int], bytes], node: Running) -> dict[str, object]:
    statuses: Counter[str] = Counter()
    _config.STORE_SEND_CHUNKED_DATASET = True
    memory, peaks, queue = [], [0.0], Queue(home / "store" / "queue.db")

    def left() -> int:
        found = counts(queue)
        peaks.append(peak(node.process.pid))
        busy = ("series open", "jobs waiting", "jobs leased", "jobs made")
        return sum(found.get(what, 0) for what in busy) + len(list((home / "store" / "incoming").iterdir()))

    given = numbers()
    while several := list(islice(given, CHUNK)):
        paths = []
        for number in several:
            paths.append(home / f"{number}.dcm")
            paths[-1].write_bytes(made(number))
        metas = [pydicom.filereader.read_file_meta_info(path) for path in paths]
        contexts = sorted({(str(each.MediaStorageSOPClassUID), str(each.TransferSyntaxUID)) for each in metas})
        with associated("SCANNER", Peer("FABRICA", "127.0.0.1", port), contexts, 60) as association:
            for path in paths:
                statuses[f"{int(association.send_c_store(path).Status):04X}"] += 1
                path.unlink()
        memory.append(resident(node.process.pid))
        until(lambda: left() < AHEAD, 36000)
    until(lambda: not left(), 36000)
    became = _became(queue)
    memory.append(resident(node.process.pid))
    found = {
        "objects": statuses.total(),
        "statuses": dict(statuses),
        "node_alive": node.process.poll() is None,
        "became": dict(became),
        "series": len(queue.series()),
        "megabytes_after_a_tenth_and_at_the_end": [round(memory[len(memory) // 10]), round(memory[-1])],
        "megabytes_of_one_process_at_most": round(max(peaks)),
    }
    lost = statuses["0000"] - became.total()
    assert not lost, f"{lost} objects that were answered with success are in no table"
    return found


def _became(queue: Queue) -> Counter[str]:
    """What became of each object. Where the damage cuts Series Instance UIDs to the same few digits, objects share what
    became of their series."""
    found = Counter({"unreadable, listed": len(refused(queue))})
    jobs = {job.series: job.reason for job in queue.jobs()}  # the last of each series
    for (series,) in queue.rows("SELECT series FROM objects"):
        reason = jobs.get(series)
        if reason is None:
            found["no image, kept"] += 1
        elif "cannot be reached" in reason:  # made, and nobody is there who takes it
            found["result"] += 1
        elif "the process that worked on it" in reason or reason.startswith(("not done after", "begun ")):
            found["refused, its process ended"] += 1
        elif reason.startswith("unexpected"):
            found["refused, of no known kind"] += 1
        else:
            found["refused with the reason"] += 1
    return found


def _send(archive: Orthanc, port: int, paths: list[Path], tries: list[int]) -> None:
    for start in range(0, len(paths), CHUNK):
        tries.append(sent(archive, "FABRICA", port, paths[start : start + CHUNK], tries=2000))


def _made(archive: Orthanc) -> list[str]:
    """The study of each result that the archive has, as often as it has it."""
    return [str(each.StudyInstanceUID) for each in archive.objects() if each.get("SyntheticData") == "YES"]


def receiving(home: Path) -> dict[str, object]:
    handmade(home / "model")
    for sender in range(SENDERS):
        (home / f"in{sender}").mkdir()
        for number in range(EACH):
            saved(ct(f"r{sender}", number, size=512), home / f"in{sender}" / f"{number}.dcm")
    rates: list[tuple[float, float]] = []
    with _node(home) as ours, _storescp(home) as theirs:
        _rate(home, ours)
        for _ in range(ROUNDS):
            pair = _rate(home, ours), _rate(home, theirs)
            for path in (home / "theirs").iterdir():  # it warns of what it writes over
                path.unlink()
            rates.append(pair)
            print(f"{pair[0]:.1f} and {pair[1]:.1f} objects/s", flush=True)
    return {
        "senders": SENDERS,
        "objects_each": EACH,
        "rounds": ROUNDS,
        "processors": len(os.sched_getaffinity(0)),
        "ratio": round(median(ours / theirs for ours, theirs in rates), 2),
        "objects_a_second": round(median(ours for ours, _ in rates), 1),
        "storescp_objects_a_second": round(median(theirs for _, theirs in rates), 1),
        "each_round": [[round(rate, 1) for rate in pair] for pair in rates],
    }


def _rate(home: Path, port: int) -> float:
    """Objects a second, of all senders together."""
    began = time.perf_counter()
    senders = [
        subprocess.Popen(["dcmsend", "-aec", "FABRICA", "127.0.0.1", str(port), "--scan-directories", home / f"in{n}"])
        for n in range(SENDERS)
    ]
    codes = [sender.wait() for sender in senders]
    seconds = time.perf_counter() - began
    assert codes == [0] * SENDERS, codes
    return SENDERS * EACH / seconds


@contextmanager
def _node(home: Path) -> Iterator[int]:
    port = free_port()
    archive = Orthanc([], home, 9, 9)
    with Running(archive, home, port, "--quiet", 3600, "--archive", "none"):
        yield port


@contextmanager
def _storescp(home: Path) -> Iterator[int]:
    port, out = free_port(), home / "theirs"
    out.mkdir()
    process = subprocess.Popen(
        [str(shutil.which("storescp", path=OTHERS)), "--fork", "+xa", "-od", str(out), str(port)]
    )
    try:
        time.sleep(0.5)
        yield port
    finally:
        process.terminate()
        process.wait()


WHAT: dict[str, Callable[[Path], dict[str, object]]] = {"kills": kills, "receiving": receiving, "mutated": mutated}

if __name__ == "__main__":
    main()
