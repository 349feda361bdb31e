"""python -m benchmarks.serving [overload] [batches] [mutated]: a server of exported models.

overload   ten times what it can bear, for SERVING_SECONDS (60): `/v1/apply` of a CT slice by a small network, and
           `/infer` of a window by the same. Each client asks again as soon as it has its answer, or after about as long
           as the whole line takes where it was refused.
batches    calls of a GAN's generator as fast as they go, with batches and without.
mutated    10,000 objects that are damaged while this runs (`benchmarks.mutated`), to /v1/apply: what became of each,
           and the memory of the server's processes.

Clients are plain sockets, which cost as little as can be. SERVER_CORE=1 gives the server and its processes that
processor, and clients whatever this was started with. Kept in benchmarks/real/serving.json.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from http.client import HTTPConnection
from pathlib import Path
from statistics import median
from typing import Any
from urllib.request import urlopen

import numpy as np

from benchmarks.kept import keep
from benchmarks.mutated import maker, numbers, written
from benchmarks.servers import CORE, peak, resident, served
from fabrica import io, runtime
from fabrica.export import export
from fabrica.image import Float32
from fabrica.model.loading import load
from fabrica.phantoms import head
from fabrica.recipe.load import load_recipe
from fabrica.runtime.exported import ExportedModel
from fabrica.training.loop import train
from tests.dicom_network import ct
from tests.handmade import handmade

KEPT = Path(__file__).parent / "real" / "serving.json"
SECONDS = float(os.environ.get("SERVING_SECONDS", 60))
PLACES = 16
TIMES = 10
WARM = 0.25  # of the time: what memory is compared with is that after this
BATCH = 16
ROUNDS = 3


@dataclass
class Load:
    """What clients saw: seconds of each accepted request, how many were refused, and what else happened."""

    seconds: list[float] = field(default_factory=list)
    refused: int = 0
    failed: Counter[str] = field(default_factory=Counter)


def main() -> None:
    names = sys.argv[1:] or list(WHAT)
    for name in names:
        with tempfile.TemporaryDirectory() as folder:
            found = WHAT[name](Path(folder))
        print(name, json.dumps(found, indent=2), flush=True)
        keep(KEPT, name, found)


def overload(place: Path) -> dict[str, Any]:
    models, slice_ = exported(place, "restorer"), place / "ct.dcm"
    io.write(head(0, 256, contrasts=["CT"]).images["CT"], slice_)
    where = f"processor {CORE}, clients elsewhere" if CORE else "where the clients are"
    found: dict[str, Any] = {"seconds": SECONDS, "places": PLACES, "server": where}
    with served(*models.values(), places=PLACES) as (address, process):
        apply = request("/v1/apply?model=restorer&force=1", slice_.read_bytes())
        found["apply"] = overloaded(address, process, apply, SECONDS)
        found["infer"] = overloaded(address, process, window_call(models["restorer"]), SECONDS)
    return found


def mutated(place: Path) -> dict[str, Any]:
    """Half of them with force=1, which lets them on to the network and into a file, whatever they are like."""
    made, became, memory, peaks = maker(random.Random(time.time_ns())), Counter[str](), [], [0.0]
    with served(handmade(place / "model"), places=PLACES) as (address, process):
        for number in numbers():
            status, said = asked(address, f"/v1/apply?force={number % 2}", made(number))
            typed = "error" in said and not said["error"].startswith("unexpected")
            kind = "result" if status == 200 else f"refused with {status}" if typed else f"{status}, of no known kind"
            became["refused, its process died" if status == 500 and "died" in said.get("error", "") else kind] += 1
            if number % 100 == 0:
                memory.append(resident(process))
                peaks.append(peak(process))
        whole = asked(address, "/v1/apply?force=1", written(ct("whole", 1)))[0]
    return {
        "objects": became.total(),
        "became": dict(sorted(became.items())),
        "a whole one afterwards": whole,
        "MiB after a tenth and at the end": [round(memory[len(memory) // 10]), round(memory[-1])],
        "MiB of one process at most": round(max(peaks)),
    }


def asked(address: tuple[str, int], path: str, body: bytes) -> tuple[int, dict[str, Any]]:
    """Status and JSON of an answer; again while nobody is there to work, which is while a process is started."""
    while True:
        connection = HTTPConnection(*address, timeout=600)
        connection.request("POST", path, body, {"Host": "localhost"})
        answer = connection.getresponse()
        content = answer.read()
        connection.close()
        if answer.status not in (429, 503):
            json_ = answer.headers.get_content_type() == "application/json"
            return answer.status, json.loads(content) if json_ else {}
        time.sleep(0.2)


def exported(place: Path, *names: str) -> dict[str, Path]:
    """A small restorer of CT, or the generator of a small GAN: of hardly any training, which does not matter here."""
    recipes = {
        "restorer": ("nafnet-lowdose", ["data.count=16", "data.size=96", "train.steps=2", "train.minutes=0"]),
        "generator": (
            "mlp-xray",
            ["data.source=phantom:chest", "data.count=64", "data.size=64", "train.steps=2", "train.minutes=0"],
        ),
    }
    made = {}
    for name in names:
        recipe, changes = recipes[name]
        trained = train(load_recipe(recipe, changes), place / f"{name}-run")
        made[name] = place / name
        export(load(trained), "onnx", made[name])
    return made


def request(path: str, body: bytes, **headers: str) -> bytes:
    """A request as bytes."""
    lines = [f"POST {path} HTTP/1.1", "Host: localhost", f"Content-Length: {len(body)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode() + body


def generator_call(model: Path) -> bytes:
    """One image of noise."""
    (name,) = runtime.opened(model).record.graphs["generator"].inputs
    return infer_call(model, name, np.random.default_rng(0).normal(size=(1, width(model))).astype(np.float32))


def infer_call(model: Path, name: str, values: Float32) -> bytes:
    """A tensor as bytes, and the result as bytes."""
    size = {"binary_data_size": values.nbytes}
    said = {"name": name, "datatype": "FP32", "shape": list(values.shape), "parameters": size}
    head = json.dumps({"inputs": [said], "parameters": {"binary_data_output": True}}).encode()
    path = f"/v2/models/{model.name}/infer"
    return request(path, head + values.tobytes(), Inference_Header_Content_Length=str(len(head)))


def window_call(model: Path, side: int = 192) -> bytes:
    """One window of the restorer."""
    values = np.random.default_rng(0).uniform(-1, 1, (1, 1, side, side)).astype(np.float32)
    return infer_call(model, "images", values)


def width(model: Path) -> int:
    """Of the generator's noise."""
    import onnx

    graph = onnx.load(str(next(model.glob("generator*.onnx"))), load_external_data=False).graph
    return int(graph.input[0].type.tensor_type.shape.dim[1].dim_value)


async def client(address: tuple[str, int], asked: bytes, until: Callable[[], bool], load: Load, again: float) -> None:
    """Ask over one connection, again and again. again: seconds after which one who was refused does."""
    reader, writer = await asyncio.open_connection(*address)
    while not until():
        if reader.at_eof():  # the server closes what was idle for some seconds
            reader, writer = await asyncio.open_connection(*address)
        began = time.perf_counter()
        try:
            writer.write(asked)
            await writer.drain()
            head = await reader.readuntil(b"\r\n\r\n")
            length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
            await reader.readexactly(int(length.split(b":")[1]))
        except (OSError, EOFError):  # asyncio's IncompleteReadError is one
            load.failed["connection"] += 1
            reader, writer = await asyncio.open_connection(*address)
            continue
        status = int(head[9:12])
        if status == 200:
            load.seconds.append(time.perf_counter() - began)
        elif status in (429, 503):
            load.refused += 1
            await asyncio.sleep(again * random.uniform(0.5, 1.5))  # not all at once
        else:
            load.failed[str(status)] += 1
    writer.close()


def overloaded(address: tuple[str, int], process: int, asked: bytes, seconds: float) -> dict[str, Any]:
    """Ten times as many requests as can be answered, for so long."""
    alone = Load()
    asyncio.run(client(address, asked, lambda: len(alone.seconds) >= 20, alone, 0.1))
    service = median(alone.seconds)
    again = PLACES / fast(address, asked, 3.0)  # so that all clients ask ten times what is answered
    before = worked(address)
    load, memory = Load(), []

    async def all_of_them() -> None:
        end = time.monotonic() + seconds
        clients = [client(address, asked, lambda: time.monotonic() > end, load, again) for _ in range(PLACES * TIMES)]
        working = asyncio.gather(*clients)
        while not working.done():
            memory.append((time.monotonic() - end + seconds, resident(process)))
            await asyncio.sleep(seconds / 100)
        await working

    asyncio.run(all_of_them())
    seconds_of_work, number = (after - at_first for after, at_first in zip(worked(address), before, strict=True))
    warm = [mib for when, mib in memory if when > seconds * WARM]
    p99 = float(np.quantile(load.seconds, 0.99))
    rate = len(load.seconds) / seconds
    return {
        "accepted and answered": len(load.seconds),
        "refused (429)": load.refused,
        "failed": dict(load.failed),
        "asked / answered": round((len(load.seconds) + load.refused) / len(load.seconds), 1),
        "answered a second": round(rate, 2),
        "one alone, ms": round(service * 1e3, 1),
        "one under this load, ms": round(seconds_of_work / number * 1e3, 1),
        "p50 of accepted, ms": round(median(load.seconds) * 1e3, 1),
        "p99 of accepted, ms": round(p99 * 1e3, 1),
        "p99 / (places x one under this load)": round(p99 / (PLACES * seconds_of_work / number), 3),
        "memory after warm-up, at the end, largest, MiB": [round(warm[0], 1), round(warm[-1], 1), round(max(warm), 1)],
        "memory at the end / after warm-up": round(warm[-1] / warm[0], 3),
    }


def worked(address: tuple[str, int]) -> tuple[float, float]:
    """Seconds that processes worked since the start, and how many requests that were."""
    with urlopen(f"http://{address[0]}:{address[1]}/metrics") as answer:
        lines = answer.read().decode().splitlines()
    found = {
        name: float(value) for name, value in (line.split() for line in lines if "{" not in line and line[0] != "#")
    }
    return found["fabrica_work_seconds_total"], found["fabrica_batch_jobs_sum"]


def batches(place: Path) -> dict[str, Any]:
    """Calls a second with batches and without, in turn; and of the network alone, in this process."""
    model = exported(place, "generator")["generator"]
    asked = generator_call(model)
    rates: dict[int, list[float]] = {1: [], BATCH: []}
    for _ in range(ROUNDS):
        for batch, found in rates.items():
            with served(model, places=PLACES, batch=batch) as (address, _pid):
                found.append(fast(address, asked))
    graph, noise = runtime.opened(model), width(model)
    alone = {rows: per_second(graph, np.zeros((rows, noise), np.float32)) for rows in rates}
    return {
        "calls a second, batches of 1 and up to 16": [round(median(each), 1) for each in rates.values()],
        "ratio through the server": round(median(b / a for a, b in zip(*rates.values(), strict=True)), 2),
        "ratio of the network alone": round(alone[BATCH] / alone[1], 2),
        "the network alone, images a second": [round(each, 1) for each in alone.values()],
    }


def fast(address: tuple[str, int], asked: bytes, seconds: float = 4.0) -> float:
    """Answers a second to as many clients as there are places."""
    load, began = Load(), time.monotonic()

    async def all_of_them() -> None:
        end = time.monotonic() + seconds
        await asyncio.gather(
            *(client(address, asked, lambda: time.monotonic() > end, load, 0.1) for _ in range(PLACES))
        )

    asyncio.run(all_of_them())
    return len(load.seconds) / (time.monotonic() - began)  # the last are answered after the end


def per_second(graph: ExportedModel, noise: Float32, seconds: float = 2.0) -> float:
    """Images that the generator makes, as many a call as there is noise for."""
    graph.run("generator", noise)
    began, count = time.perf_counter(), 0
    while time.perf_counter() - began < seconds:
        graph.run("generator", noise)
        count += len(noise)
    return count / (time.perf_counter() - began)


WHAT: dict[str, Callable[[Path], dict[str, Any]]] = {"overload": overload, "batches": batches, "mutated": mutated}

if __name__ == "__main__":
    main()
