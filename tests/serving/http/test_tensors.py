"""Tensors of the open inference protocol: as JSON and as bytes, there and back, or refused."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fabrica.serving.http.tasks import DATATYPES, Entry, Refused, Served
from fabrica.serving.http.tensors import HEADER, LARGEST_JSON, answered, apart, parsed, together

SERVED = Served(
    "m",
    "model",
    "0" * 12,
    graphs={
        "a2b": (Entry("images", "FP32", (-1, 2, -1, -1)),),
        "generator": (Entry("z", "FP32", (-1, -1)), Entry("labels", "INT64", (-1,))),
    },
)


def as_json(values: Any, kind: str = "FP32", name: str = "images", **more: Any) -> dict[str, Any]:
    return {"name": name, "datatype": kind, "shape": list(values.shape), "data": values.tolist(), **more}


def as_bytes(*inputs: tuple[str, str, Any], **more: Any) -> tuple[bytes, str]:
    """The body and its header."""
    said, raw = [], b""
    for name, kind, values in inputs:
        content = np.asarray(values, DATATYPES[kind]).tobytes()
        raw += content
        size = {"binary_data_size": len(content)}
        said.append({"name": name, "datatype": kind, "shape": list(values.shape), "parameters": size})
    head = json.dumps({"inputs": said, **more}).encode()
    return head + raw, str(len(head))


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    shape=st.tuples(st.integers(1, 3), st.just(2), st.integers(1, 5), st.integers(1, 5)),
    kind=st.sampled_from(list(DATATYPES)),
    seed=st.integers(0, 99),
)
def test_both_forms_say_the_same(shape: tuple[int, ...], kind: str, seed: int) -> None:
    values = np.random.default_rng(seed).integers(0, 100, shape).astype(DATATYPES[kind])
    one, _ = parsed(SERVED, json.dumps({"inputs": [as_json(values, kind)]}).encode(), None)
    other, _ = parsed(SERVED, *as_bytes(("images", kind, values)))
    for task in (one, other):
        assert task.inputs[0].dtype == np.float32
        np.testing.assert_array_equal(task.inputs[0], values.astype(np.float32))


def test_several_inputs_come_in_any_order() -> None:
    z, labels = np.random.default_rng(0).normal(size=(3, 7)).astype(np.float32), np.array([4, 5, 6])
    body, header = as_bytes(("labels", "INT64", labels), ("z", "FP32", z), parameters={"graph": "generator"})
    task, _ = parsed(SERVED, body, header)
    assert task.graph == "generator" and task.rows == 3
    np.testing.assert_array_equal(task.inputs[0], z)
    np.testing.assert_array_equal(task.inputs[1], labels)


@pytest.mark.parametrize("as_text", [True, False])
def test_calls_go_through_together_and_come_apart(as_text: bool) -> None:
    values = [np.random.default_rng(k).normal(size=(k + 1, 2, 4, 3)).astype(np.float32) for k in range(3)]
    more = {} if as_text else {"parameters": {"binary_data_output": True}}
    bodies = [json.dumps({"id": str(k), "inputs": [as_json(each)], **more}).encode() for k, each in enumerate(values)]
    read = [parsed(SERVED, body, None) for body in bodies]
    (all_of_them,) = together([task for task, _ in read])
    assert all_of_them.shape == (6, 2, 4, 3)
    made = apart([task for task, _ in read], all_of_them * 2)
    for k, ((task, rest), each) in enumerate(zip(read, made, strict=True)):
        body, length = answered(SERVED, rest, each, task.as_text)
        assert (length is None) is as_text
        said = json.loads(body[:length])
        (output,) = said["outputs"]
        assert said["id"] == str(k) and said["model_version"] == "0" * 12 and output["shape"] == [k + 1, 2, 4, 3]
        numbers = output["data"] if as_text else np.frombuffer(body[length:], "<f4")
        np.testing.assert_array_equal(np.asarray(numbers, np.float32).reshape(each.shape), values[k] * 2)


def test_an_output_may_be_asked_for_by_itself() -> None:
    values = np.zeros((1, 2, 3, 3))
    for asked, text in (({"binary_data": True}, False), ({"binary_data": False}, True), ({}, True)):
        body = json.dumps({"inputs": [as_json(values)], "outputs": [{"name": "output", "parameters": asked}]})
        assert parsed(SERVED, body.encode(), None)[0].as_text is text


ZEROS = np.zeros((1, 2, 3, 3))


@pytest.mark.parametrize(
    ("request_", "status", "line"),
    [
        ({}, 400, "no JSON of the form"),
        ({"inputs": 3}, 400, "no JSON of the form"),
        ({"inputs": [3]}, 400, "no JSON of the form"),
        ({"inputs": []}, 400, "expected images"),
        ({"inputs": [as_json(ZEROS)], "parameters": 3}, 400, "no JSON of the form"),
        ({"inputs": [as_json(ZEROS)], "parameters": {"graph": "x"}}, 404, "it has a2b, generator"),
        ({"inputs": [as_json(ZEROS)], "parameters": {"graph": ["a2b"]}}, 404, "it has a2b, generator"),
        ({"inputs": [as_json(ZEROS, name="x")]}, 400, "found the inputs x; expected images"),
        ({"inputs": [as_json(ZEROS, "BYTES")]}, 400, "is 'BYTES'"),
        ({"inputs": [{**as_json(ZEROS), "datatype": ["FP32"]}]}, 400, "expected FP32"),
        ({"inputs": [as_json(np.zeros((1, 3, 3, 3)))]}, 400, r"expected \[-1, 2, -1, -1\]"),
        ({"inputs": [as_json(np.zeros((2, 3, 3)))]}, 400, r"has shape \[2, 3, 3\]"),
        ({"inputs": [{**as_json(ZEROS), "shape": [1, 2, 0, 3]}]}, 400, "whole numbers above 0"),
        ({"inputs": [{**as_json(ZEROS), "shape": [1, 2, True, 3]}]}, 400, "whole numbers above 0"),
        ({"inputs": [{**as_json(ZEROS), "shape": [1, 2, 4, 3]}]}, 400, "holds 18 values; its shape says 24"),
        ({"inputs": [{**as_json(ZEROS), "data": "abc"}]}, 400, "are no FP32"),
        ({"inputs": [{**as_json(ZEROS), "data": [[1], [2, 3]]}]}, 400, "are no FP32"),
        ({"inputs": [{**as_json(ZEROS), "data": None}]}, 400, "holds 1 values"),
        ({"inputs": [{**as_json(ZEROS), "parameters": {"binary_data_size": 72}}]}, 400, "as many bytes must follow"),
    ],
)
def test_what_does_not_fit_the_model_is_one_line(request_: dict[str, Any], status: int, line: str) -> None:
    with pytest.raises(Refused, match=line) as refused:
        parsed(SERVED, json.dumps(request_).encode(), None)
    assert refused.value.status == status and "\n" not in str(refused.value)


def test_bytes_that_are_too_few_or_too_many_are_refused() -> None:
    body, header = as_bytes(("images", "FP32", ZEROS))
    for wrong, said in (
        (body[:-1], header),
        (body + b"\0", header),
        (body, str(len(body) + 1)),
        (body, "-1"),
        (body, "x"),
    ):
        with pytest.raises(Refused) as refused:
            parsed(SERVED, wrong, said)
        assert refused.value.status == 400
    with pytest.raises(Refused, match="binary_data_size must be 72"):
        parsed(SERVED, body.replace(b": 72", b": 71"), header)


def test_much_json_and_no_json_are_refused() -> None:
    with pytest.raises(Refused, match="binary tensor data") as refused:
        parsed(SERVED, b" " * (LARGEST_JSON + 1), None)
    assert refused.value.status == 413 and HEADER in str(refused.value)
    for body in (b"", b"\xff\xfe", b"[" * 5000, b'"text"'):
        with pytest.raises(Refused) as refused:
            parsed(SERVED, body, None)
        assert refused.value.status == 400


def test_inputs_that_differ_in_number_are_refused() -> None:
    more = {"parameters": {"graph": "generator"}}
    body, header = as_bytes(("z", "FP32", np.zeros((2, 3))), ("labels", "INT64", np.zeros(3)), **more)
    with pytest.raises(Refused, match="first axis"):
        parsed(SERVED, body, header)
