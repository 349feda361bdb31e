"""Tensors as the open inference protocol (KServe v2) sends them: as JSON, or as bytes behind it (its binary extension).

https://github.com/kserve/open-inference-protocol: required API, and "binary tensor data extension".
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fabrica.serving.http.tasks import DATATYPES, Entry, Infer, Inferred, Refused, Served, Tensor

HEADER = "inference-header-content-length"
LARGEST_JSON = 4 * 2**20  # bytes: more takes so long to parse that nobody else is answered meanwhile
OUTPUT = "output"


def described(served: Served) -> dict[str, Any]:
    """A model's metadata. Inputs are those of its usual graph; the others are named by a parameter."""
    first = next(iter(served.graphs.values()), ())
    return {
        "name": served.name,
        "versions": [served.hash],
        "platform": "fabrica",
        "inputs": [{"name": each.name, "datatype": each.datatype, "shape": list(each.shape)} for each in first],
        "outputs": [{"name": OUTPUT, "datatype": "FP32", "shape": [-1] * len(first[0].shape)}] if first else [],
        "parameters": {"graphs": list(served.graphs)},
    }


def parsed(served: Served, body: bytes, header: str | None) -> tuple[Infer, dict[str, Any]]:
    """What to run, and the request without its tensors.

    header   the value of HEADER: how many bytes of the body are JSON, where tensors follow as bytes.

    Raises Refused (400, 404, 413) for whatever is not as the model's metadata say.
    """
    length = len(body)
    if header is not None:
        if not header.isdecimal() or int(header) > len(body):
            raise Refused(400, f"{HEADER} is {header[:20]!r}; expected at most the {len(body)} bytes of the body")
        length = int(header)
    if length > LARGEST_JSON:
        raise Refused(413, f"{length} bytes of JSON; more than {LARGEST_JSON} go as binary tensor data ({HEADER})")
    try:
        request = json.loads(body[:length])
        given = {each["name"]: each for each in request["inputs"]}
        graph = request.get("parameters", {}).get("graph", next(iter(served.graphs), ""))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise Refused(400, 'the request is no JSON of the form {"inputs": [{"name": ...}, ...]}') from error
    if not isinstance(graph, str) or graph not in served.graphs:
        known = ", ".join(served.graphs) or "none: it makes images, by /v1/sample"
        raise Refused(404, f"model {served.name} has no graph {str(graph)[:40]!r}; it has {known}")
    entries = served.graphs[graph]
    if sorted(given) != sorted(each.name for each in entries):
        wanted = ", ".join(each.name for each in entries)
        raise Refused(400, f"found the inputs {', '.join(sorted(map(str, given)))[:80]}; expected {wanted}")
    values, at = {}, length
    for each in request["inputs"]:  # bytes follow one another in the order of the request
        entry = next(entry for entry in entries if entry.name == each["name"])
        values[entry.name], at = _tensor(entry, each, body, at)
    if at != len(body):
        raise Refused(400, f"{len(body) - at} bytes are left behind the last tensor; each says its binary_data_size")
    inputs = tuple(values[entry.name] for entry in entries)
    if len({len(each) for each in inputs}) != 1:
        raise Refused(400, "inputs differ in their first axis, which counts what is sent together")
    rest = {key: value for key, value in request.items() if key != "inputs"}
    return Infer(served.name, graph, inputs, as_text=not wants_bytes(rest)), rest


def _tensor(entry: Entry, said: Mapping[str, Any], body: bytes, at: int) -> tuple[Tensor, int]:
    """The values of one input, and where in the body the next one's bytes begin."""
    shape, kind = said.get("shape"), said.get("datatype")
    if not isinstance(shape, list) or not all(type(n) is int and n > 0 for n in shape):
        raise Refused(400, f"input {entry.name} has no shape of whole numbers above 0")
    if not isinstance(kind, str) or kind not in DATATYPES:
        raise Refused(400, f"input {entry.name} is {str(kind)[:20]!r}; expected {', '.join(DATATYPES)}")
    if len(shape) != len(entry.shape) or any(
        want not in (-1, found) for want, found in zip(entry.shape, shape, strict=True)
    ):
        raise Refused(400, f"input {entry.name} has shape {shape[:8]}; expected {list(entry.shape)}, -1 for any")
    dtype, count = DATATYPES[kind], math.prod(shape)
    parameters = said.get("parameters")
    size = parameters.get("binary_data_size") if isinstance(parameters, dict) else None
    if size is None:
        try:
            values = np.asarray(said.get("data"), dtype=dtype).reshape(-1)
        except (ValueError, TypeError, OverflowError) as error:
            raise Refused(400, f"the data of input {entry.name} are no {kind}") from error
        if values.size != count:
            raise Refused(400, f"input {entry.name} holds {values.size} values; its shape says {count}")
    else:
        if type(size) is not int or size != count * dtype.itemsize or at + size > len(body):
            wanted = count * dtype.itemsize
            raise Refused(400, f"input {entry.name}: binary_data_size must be {wanted}, and as many bytes must follow")
        values = np.frombuffer(body, dtype, count, at)
        at += size
    return np.ascontiguousarray(values.reshape(shape), DATATYPES[entry.datatype]), at


def wants_bytes(request: Mapping[str, Any]) -> bool:
    """Whether the result is asked for as bytes."""
    parameters, outputs = request.get("parameters"), request.get("outputs")
    asked = bool(parameters.get("binary_data_output")) if isinstance(parameters, dict) else False
    for each in outputs if isinstance(outputs, list) else ():
        own = each.get("parameters") if isinstance(each, dict) else None
        if isinstance(own, dict) and "binary_data" in own:
            asked = bool(own["binary_data"])
    return asked


def answered(served: Served, request: Mapping[str, Any], made: Inferred, as_text: bool) -> tuple[bytes, int | None]:
    """The body of the answer, and how many bytes of it are JSON (None: all)."""
    output: dict[str, Any] = {"name": OUTPUT, "datatype": "FP32", "shape": list(made.shape)}
    answer: dict[str, Any] = {"model_name": served.name, "model_version": served.hash}
    if isinstance(request.get("id"), str):
        answer["id"] = request["id"]
    if as_text:
        head = json.dumps({**answer, "outputs": [output]})
        return head[:-3].encode() + b', "data": ' + made.content + b"}]}", None
    output["parameters"] = {"binary_data_size": len(made.content)}
    head = json.dumps({**answer, "outputs": [output]})
    return head.encode() + made.content, len(head)


def together(tasks: Sequence[Infer]) -> list[Tensor]:
    """The inputs of several calls of one graph as those of one."""
    if len(tasks) == 1:
        return list(tasks[0].inputs)
    return [np.concatenate(each) for each in zip(*(task.inputs for task in tasks), strict=True)]


def apart(tasks: Sequence[Infer], result: Tensor) -> list[Inferred]:
    """What belongs to each of them of the result (B, ...) of all."""
    found, at = [], 0
    for task in tasks:
        own = np.ascontiguousarray(result[at : at + task.rows], np.float32)
        at += task.rows
        text = task.as_text
        content = json.dumps(own.reshape(-1).tolist()).encode() if text else own.tobytes()
        found.append(Inferred(own.shape, content))
    return found
