"""What readers' browsers ask, and are told: nothing that the study's blinding keeps from them.

    GET  /, /page/NAME                   the page, which holds nothing of the study
    GET  /health                         whether the server lives
    GET  /v1/session                     what is asked, how far the reader is, the trial that is next
    GET  /v1/trials/TRIAL/images/PLACE   bare grey values, all of one length
    POST /v1/answer                      {trial, answer, seconds, request, device}; stored when it is answered
    POST /v1/undo                        {request, device}

All under /v1 need the reader's own token. Of his trials a reader gets the images of the next one, of a few that follow
(to be there in time) and of the last one: never all at once, in which repeats could be looked for.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from fabrica.errors import FabricaError, UsageError
from fabrica.serving.http.access import Access
from fabrica.serving.http.guarded import Guarded
from fabrica.serving.http.tasks import Refused
from fabrica.serving.http.telemetry import Log, Observed
from fabrica.serving.page import page_of
from fabrica.serving.study.answers import Answers, Conflict
from fabrica.serving.study.database import Receipt
from fabrica.serving.study.folder import SHOWN, Study
from fabrica.serving.study.forms import checked

AHEAD = 2  # trials after the next one whose images may be fetched
AT_ONCE = 16  # requests of one reader; a browser has six connections
LARGEST = 2**15  # bytes of an answer


@dataclass
class Service:
    """A study that is served. told: of each reader his trials, in order; busy: requests of each that are there."""

    study: Study
    answers: Answers
    about: dict[str, Any] = field(init=False)
    told: dict[str, list[dict[str, Any]]] = field(init=False)
    busy: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.about = json.loads((self.study.folder / SHOWN / "study.json").read_text("utf-8"))
        self.told = {reader: self.study.told(reader) for reader in self.answers.readers}

    def state(self, reader: str) -> dict[str, Any]:
        """Where a reader stands."""
        trials, due = self.told[reader], self.answers.next_trial(reader)
        done = len(trials) if due is None else self._place(reader, due)
        return {
            "done": done,
            "total": len(trials),
            "trial": None if due is None else trials[done],
            "ahead": trials[done + 1 : done + 1 + AHEAD],
            "may_undo": self.answers.may_undo(reader) is not None,
        }

    def image(self, reader: str, trial: str, place: int) -> bytes:
        """Grey values of an image that the reader may see by now; Refused for any other."""
        at, due = self._place(reader, trial), self.answers.next_trial(reader)
        done = len(self.told[reader]) if due is None else self._place(reader, due)
        if not 0 <= place < len(self.told[reader][at]["images"]):
            raise Refused(404, f"the trial has no image {place}")
        if not done - 1 <= at <= done + AHEAD + 1:  # of who takes an answer back what was ahead may be on its way
            raise Refused(409, "this trial is not the next one; the page is behind: load it again")
        return self.study.image(reader, trial, place).read_bytes()

    def answer(self, reader: str, said: dict[str, Any]) -> dict[str, Any]:
        """Store an answer, for good; then where the reader stands, and what is right after a practice trial."""
        known = self.told[reader][self._place(reader, _text(said, "trial"))]
        given = checked(self.study.config, said.get("answer"), known["images"][0]["shape"])
        seconds = said.get("seconds")
        if isinstance(seconds, bool) or not isinstance(seconds, int | float):
            raise UsageError(f"seconds are {str(seconds)[:20]!r}; expected a number")
        request, device = _text(said, "request"), _text(said, "device")
        stored = self.answers.answer(
            reader, known["trial"], given, seconds=float(seconds), request=request, device=device
        )
        right = self.study.feedback.get(known["trial"]) if known["practice"] else None
        return {"receipt": _receipt(stored), "feedback": right, **self.state(reader)}

    def undo(self, reader: str, said: dict[str, Any]) -> dict[str, Any]:
        """Take the last answer back; then where the reader stands."""
        stored = self.answers.undo(reader, request=_text(said, "request"), device=_text(said, "device"))
        return {"receipt": _receipt(stored), **self.state(reader)}

    def _place(self, reader: str, trial: str) -> int:
        try:
            return self.answers.trials[reader].index(trial)
        except ValueError:
            raise Refused(404, "no such trial of this reader") from None

    @contextmanager
    def asked_by(self, request: Request) -> Iterator[str]:
        """The reader whose token came; Refused for nobody, and for one who asks too much at once."""
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        reader = self.answers.reader_of(token.strip()) if scheme.lower() == "bearer" else None
        if reader is None:
            raise Refused(401, "this link opens no study here; use the one that you were sent")
        if self.busy[reader] >= AT_ONCE:
            raise Refused(429, f"more than {AT_ONCE} requests at once; come again")
        self.busy[reader] += 1
        try:
            yield reader
        finally:
            self.busy[reader] -= 1


def application(study: Study, answers: Answers, access: Access, log: Log) -> ASGIApp:
    """The ASGI application. access: without a token; those of the readers are in the study."""
    app = Starlette(
        routes=ROUTES,
        exception_handlers={
            Refused: _refused,
            Conflict: _conflict,
            FabricaError: _unusable,
            ClientDisconnect: _refused,
            404: _no_route,
            405: _no_route,
            500: _failed,
        },
    )
    app.state.service = Service(study, answers)
    return Observed(Guarded(app, access, ()), None, log)


async def health(request: Request) -> Response:
    return JSONResponse({"live": True})


async def session(request: Request) -> Response:
    service: Service = request.app.state.service
    with service.asked_by(request) as reader:
        state = await asyncio.to_thread(service.state, reader)
        return JSONResponse({"study": service.about, "reader": service.answers.readers[reader].name, **state})


async def image(request: Request) -> Response:
    service: Service = request.app.state.service
    with service.asked_by(request) as reader:
        place = {str(k): k for k in range(32)}.get(request.path_params["place"], -1)
        data = await asyncio.to_thread(service.image, reader, request.path_params["trial"], place)
        return Response(data, media_type="application/octet-stream")


async def answer(request: Request) -> Response:
    return await _stored(request, request.app.state.service.answer)


async def undo(request: Request) -> Response:
    return await _stored(request, request.app.state.service.undo)


async def _stored(request: Request, store: Callable[[str, dict[str, Any]], dict[str, Any]]) -> Response:
    service: Service = request.app.state.service
    with service.asked_by(request) as reader:
        said = await _body(request)
        # what began to be stored is stored, whether or not its sender still waits
        return JSONResponse(await asyncio.shield(asyncio.to_thread(store, reader, said)))


async def _body(request: Request) -> dict[str, Any]:
    content = b""
    async for block in request.stream():
        content += block
        if len(content) > LARGEST:
            raise Refused(413, f"the answer is longer than {LARGEST} bytes")
    try:
        said = json.loads(content)
    except (ValueError, RecursionError):
        said = None
    if not isinstance(said, dict):
        raise UsageError("what was sent is no JSON object")
    return said


def _text(said: dict[str, Any], name: str) -> str:
    value = said.get(name, "")
    if not isinstance(value, str) or len(value) > 200:
        raise UsageError(f"{name} is {str(value)[:20]!r}; expected a short text")
    return value


def _receipt(stored: Receipt) -> list[Any]:
    return [stored.seq, stored.hash]


async def _refused(request: Request, error: Exception) -> Response:
    status, line = (error.status, error.line) if isinstance(error, Refused) else (400, "the answer did not come whole")
    headers = {401: {"www-authenticate": "Bearer"}, 429: {"retry-after": "1"}}.get(status)
    return JSONResponse({"error": line}, status, headers)


async def _conflict(request: Request, error: Exception) -> Response:
    return JSONResponse({"error": str(error)}, 409)


async def _unusable(request: Request, error: Exception) -> Response:
    """What a reader's browser should not have sent is his (422); a database that fails is not, and says no path."""
    if isinstance(error, UsageError):
        return JSONResponse({"error": str(error)}, 422)
    return JSONResponse({"error": "the answer could not be stored: tell who runs the study"}, 507)


async def _no_route(request: Request, error: Exception) -> Response:
    return JSONResponse({"error": "nothing is served here"}, getattr(error, "status_code", 404))


async def _failed(request: Request, error: Exception) -> Response:
    return JSONResponse({"error": f"unexpected {type(error).__name__}; please report it"}, 500)


ROUTES = [
    Route("/", page_of("fabrica.serving.study.page")),
    Route("/page/{name}", page_of("fabrica.serving.study.page")),
    Route("/health", health),
    Route("/v1/session", session),
    Route("/v1/trials/{trial}/images/{place}", image),
    Route("/v1/answer", answer, methods=["POST"]),
    Route("/v1/undo", undo, methods=["POST"]),
]
