"""The application: routes, and around them who may ask, what is counted, and headers that keep browsers strict."""

from __future__ import annotations

import asyncio
import gc
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp

from fabrica.serving.http.guarded import Guarded
from fabrica.serving.http.routes import ROUTES
from fabrica.serving.http.service import Service
from fabrica.serving.http.tasks import Refused
from fabrica.serving.http.telemetry import Observed

PUBLIC = ("/", "/page/", "/v2/health/")
"""What needs no token, and begins so ("/" alone: itself): none of it says anything of models or images."""


def application(service: Service, failed: Callable[[Exception], None]) -> ASGIApp:
    """The ASGI application. failed: called with the error where models cannot be opened."""

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        async def start() -> None:
            try:
                await service.crew.start()
                gc.freeze()  # what stays is not looked through again and again, which takes longer than a request
                names = sorted(service.crew.served)
                service.log("ready", models={name: service.crew.served[name].hash for name in names})
            except Exception as error:
                failed(error)

        starting = asyncio.create_task(start())
        try:
            yield
        finally:
            starting.cancel()
            await service.crew.stop()
            await asyncio.to_thread(shutil.rmtree, service.scratch, True)
            service.log("stopped")

    app = Starlette(
        routes=ROUTES,
        lifespan=lifespan,
        exception_handlers={Refused: _refused, 404: _no_route, 405: _no_method, 500: _failed},
    )
    app.state.service = service
    return Observed(Guarded(app, service.access, PUBLIC), service.metrics, service.log)


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, Refused)
    headers = {"retry-after": str(error.retry)} if error.retry else {}
    return JSONResponse({"error": error.line}, error.status, headers)


async def _no_route(request: Request, error: Exception) -> Response:
    return JSONResponse({"error": "nothing is served at this address; see /v1/models and /v2"}, 404)


async def _no_method(request: Request, error: Exception) -> Response:
    return JSONResponse({"error": f"{request.method[:10]} is not what this address takes"}, 405)


async def _failed(request: Request, error: Exception) -> Response:
    return JSONResponse({"error": f"unexpected {type(error).__name__}; please report it"}, 500)
