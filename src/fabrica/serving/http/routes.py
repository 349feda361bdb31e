"""What each address answers."""

from __future__ import annotations

import asyncio
import secrets
import shutil
import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from fabrica import __version__
from fabrica.serving.http import asked, tensors, uploads
from fabrica.serving.http.line import Place
from fabrica.serving.http.service import Service
from fabrica.serving.http.tasks import Inferred, Made, Refused, Result, Served, Task
from fabrica.serving.page import page_of


async def metrics(request: Request) -> Response:
    return Response(_service(request).metrics.page(), media_type="text/plain; version=0.0.4; charset=utf-8")


async def models(request: Request) -> Response:
    return JSONResponse({"models": [asdict(each) for each in _all_served(request).values()]})


async def server(request: Request) -> Response:
    return JSONResponse({"name": "fabrica", "version": __version__, "extensions": ["binary_tensor_data"]})


async def live(request: Request) -> Response:
    return JSONResponse({"live": True})


async def ready(request: Request) -> Response:
    up = _service(request).crew.ready
    return JSONResponse({"ready": up}, 200 if up else 503)


async def model(request: Request) -> Response:
    return JSONResponse(tensors.described(_served(request, request.path_params["model"])))


async def model_ready(request: Request) -> Response:
    served = _served(request, request.path_params["model"])
    up = _service(request).crew.ready
    return JSONResponse({"name": served.name, "ready": up}, 200 if up else 503)


async def infer(request: Request) -> Response:
    """Tensors through a graph."""
    service, served = _service(request), _served(request, request.path_params["model"])
    said = request.headers.get("content-length", "")
    size = min(int(said) if said.isdecimal() else service.limits.tensors, service.limits.tensors)
    with service.line.place(size) as place:
        body = await uploads.in_memory(request, service.limits.tensors, service.limits.patience)
        parse = asyncio.to_thread if len(body) > 2**16 else _at_once
        task, rest = await parse(tensors.parsed, served, body, request.headers.get(tensors.HEADER))
        del body
        made = await _answer(request, service, task, place)
    assert isinstance(made, Inferred)
    content, length = tensors.answered(served, rest, made, task.as_text)
    if length is None:
        return Response(content, media_type="application/json")
    return Response(content, headers={tensors.HEADER: str(length)}, media_type="application/octet-stream")


async def _at_once(function: Any, *arguments: Any) -> Any:
    return function(*arguments)


async def apply(request: Request) -> Response:
    """Images translated."""
    service, parameters = _service(request), request.query_params
    served = _chosen(request, parameters.get("model", ""), "apply")
    choices = asked.of_apply(parameters, served)
    async with AsyncExitStack() as stack:
        place = stack.enter_context(service.line.place())
        folder = await stack.enter_async_context(_folder(service))
        limits, others = service.limits, choices.beside(served, folder)
        came = await uploads.on_disk(request, folder / "in", others, limits.largest, limits.patience)
        task = choices.task(served.name, came, folder, limits.largest)
        made = await _answer(request, service, task, place)
        assert isinstance(made, Made)
        return ResultFile(made, served, stack.pop_all(), service)


async def sample(request: Request) -> Response:
    """Images made of noise."""
    service = _service(request)
    with service.line.place(uploads.AT_ONCE):
        said = asked.object_of(await uploads.in_memory(request, uploads.AT_ONCE, service.limits.patience))
        served = _chosen(request, str(said.pop("model", "")), "sample")
        choices = asked.of_sample(said)
    async with AsyncExitStack() as stack:
        place = stack.enter_context(service.line.place())
        folder = await stack.enter_async_context(_folder(service))
        made = await _answer(request, service, choices(served.name, folder), place)
        assert isinstance(made, Made)
        return ResultFile(made, served, stack.pop_all(), service)


async def progress(request: Request) -> Response:
    """How far the request is to which its client gave this number (header X-Request-ID)."""
    service = _service(request)
    job = service.jobs.get(request.path_params["number"])
    if job is None:
        return JSONResponse({"state": "unknown"})
    _, done, total = job.progress
    state = {"state": "running", "done": done, "total": total} if job.begun else {"state": "waiting"}
    return JSONResponse({**state, "ahead": service.line.ahead(job)})


class ResultFile(FileResponse):
    """A result handed out, after which everything that belongs to it is removed, and its place is free."""

    def __init__(self, made: Made, served: Served, stack: AsyncExitStack, service: Service) -> None:
        headers = {"fabrica-model": f"{served.name} {served.hash}"}
        if made.notes:
            headers["fabrica-notes"] = asked.as_header(made.notes)
        name = "result" + "".join(made.file.suffixes[-2:] if made.file.suffix == ".gz" else [made.file.suffix])
        super().__init__(made.file, headers=headers, media_type=made.media_type, filename=name)
        self._stack, self._service = stack, service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Who reads more slowly than a body has to come is cut off: nothing more can be told to them."""
        seconds = self._service.limits.patience + Path(self.path).stat().st_size / uploads.SLOWEST
        async with self._stack:
            try:
                async with asyncio.timeout(seconds) as limit:
                    await super().__call__(scope, receive, send)
            except TimeoutError:
                if not limit.expired():
                    raise
                self._service.log("read too slowly", model=scope["served"], seconds=round(seconds, 4))
                scope["state"]["cut"]()
                await _gone(receive)


@asynccontextmanager
async def _folder(service: Service) -> AsyncIterator[Path]:
    """A folder for one request, gone with it."""
    try:
        service.scratch.mkdir(mode=0o700, parents=True, exist_ok=True)  # what tidies temporary files up may have had it
        folder = Path(tempfile.mkdtemp(dir=service.scratch))
        (folder / "in").mkdir()
    except OSError as error:
        raise Refused(507, "the server has no room to work in; nothing was kept", 60) from error
    try:
        yield folder
    finally:
        await asyncio.to_thread(shutil.rmtree, folder, True)


async def _answer(request: Request, service: Service, task: Task, place: Place) -> Result:
    """The result of a task, once it is there. Raises Refused: its own, 504 after too long, 499 where the client went
    away, in both of which cases it is not worked on any more."""
    number = request.headers.get("x-request-id", "")[:64] or secrets.token_hex(8)
    job = await service.line.add(task, place)
    service.jobs[number] = job
    gone = asyncio.create_task(_gone(request.receive))
    try:
        either: set[asyncio.Future[Any]] = {job.answer, gone}
        await asyncio.wait(either, timeout=service.limits.seconds, return_when=asyncio.FIRST_COMPLETED)
        if job.answer.done():
            result = job.answer.result()
        elif gone.done():
            raise Refused(499, "the client went away")
        else:
            raise Refused(504, f"it took longer than {service.limits.seconds:g} seconds; send a smaller image")
    finally:
        gone.cancel()
        service.line.leave(job)
        service.jobs.pop(number, None)
    if isinstance(result, Refused):
        raise result
    service.line.answered(place)
    return result


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _service(request: Request) -> Service:
    service: Service = request.app.state.service
    return service


def _all_served(request: Request) -> Mapping[str, Served]:
    service = _service(request)
    if not service.crew.served:
        raise Refused(503, "the models are being opened; try again later", 5)
    return service.crew.served


def _served(request: Request, name: str) -> Served:
    served = _all_served(request)
    if name not in served:
        raise Refused(404, f"no model {name[:40]!r}; there {'are' if len(served) > 1 else 'is'} {', '.join(served)}")
    request.scope["served"] = name
    return served[name]


def _chosen(request: Request, name: str, task: str) -> Served:
    """The model of this name, or the only one that does this; Refused for one that does not."""
    able: Sequence[str] = [each.name for each in _all_served(request).values() if task in each.tasks]
    if not name and len(able) == 1:
        name = able[0]
    if not name:
        raise Refused(400, f"say which model, one of {', '.join(able) or 'none'}")
    served = _served(request, name)
    if task not in served.tasks:
        raise Refused(400, f"model {name} does not {task}; it does {', '.join(served.tasks)}")
    return served


ROUTES = [
    Route("/", page_of("fabrica.serving.http.page")),
    Route("/page/{name}", page_of("fabrica.serving.http.page")),
    Route("/metrics", metrics),
    Route("/v1/models", models),
    Route("/v1/apply", apply, methods=["POST"]),
    Route("/v1/sample", sample, methods=["POST"]),
    Route("/v1/progress/{number}", progress),
    Route("/v2", server),
    Route("/v2/health/live", live),
    Route("/v2/health/ready", ready),
    Route("/v2/models/{model}", model),
    Route("/v2/models/{model}/ready", model_ready),
    Route("/v2/models/{model}/infer", infer, methods=["POST"]),
]
