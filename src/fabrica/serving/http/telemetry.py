"""What a server tells of itself: counts for Prometheus, and a line of JSON for each request.

Neither holds anything of a patient: no path, no query, no file's name, no message; what was asked is told by the name
of the route."""

from __future__ import annotations

import json
import sys
import time
from datetime import UTC, datetime
from typing import Any, TextIO

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fabrica.serving.http.line import Line

SECONDS = (0.005, 0.02, 0.1, 0.5, 2, 10, 60, 300)
CLIENT_GONE = 499


class Metrics:
    """The counts of one server."""

    def __init__(self, line: Line) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "fabrica_requests", "Requests, by route and status.", ["route", "status"], registry=self.registry
        )
        self.seconds = Histogram(
            "fabrica_request_seconds", "Time to answer.", ["route"], buckets=SECONDS, registry=self.registry
        )
        self.batches = Histogram(
            "fabrica_batch_jobs",
            "Requests that went through a network together.",
            buckets=(1, 2, 4, 8, 16, 32),
            registry=self.registry,
        )
        self.working = Counter("fabrica_work_seconds", "Time that processes worked.", registry=self.registry)
        self.died = Counter("fabrica_workers_died", "Processes that died at work.", registry=self.registry)
        waiting = Gauge("fabrica_waiting", "Requests that wait.", registry=self.registry)
        waiting.set_function(lambda: len(line.waiting))
        taken = Gauge("fabrica_places_taken", "Requests that are there, of all places.", registry=self.registry)
        taken.set_function(lambda: line.taken)
        Gauge("fabrica_places", "Requests that may be there.", registry=self.registry).set(line.places)

    def told(self, what: str, **numbers: float) -> None:
        """See `fabrica.serving.http.crew.Crew`."""
        if what == "batch":
            self.batches.observe(numbers["jobs"])
            self.working.inc(numbers["seconds"])
        elif what == "died":
            self.died.inc()

    def page(self) -> bytes:
        return generate_latest(self.registry)


class Log:
    """Lines of JSON, each with its time."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self.stream = stream or sys.stderr

    def __call__(self, event: str, **said: Any) -> None:
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        print(json.dumps({"time": now, "event": event, **said}), file=self.stream, flush=True)


class Observed:
    """Around an ASGI application: each request counted, where it is counted at all, and logged once it is answered."""

    def __init__(self, app: ASGIApp, metrics: Metrics | None, log: Log) -> None:
        self.app, self.metrics, self.log = app, metrics, log

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        began, found = time.monotonic(), {"status": CLIENT_GONE, "sent": 0, "came": 0}

        async def taking() -> Message:
            message = await receive()
            found["came"] += len(message.get("body", b""))
            return message

        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                found["status"] = message["status"]
            found["sent"] += len(message.get("body", b""))
            await send(message)

        try:
            await self.app(scope, taking, sending)
        except Exception as error:
            self.log("failed", kind=type(error).__name__)
            raise
        finally:
            route = getattr(scope.get("endpoint"), "__name__", "none")
            seconds = time.monotonic() - began
            if self.metrics:
                self.metrics.requests.labels(route, found["status"]).inc()
                self.metrics.seconds.labels(route).observe(seconds)
            known = {"model": scope["served"]} if "served" in scope else {}
            self.log("request", route=route, seconds=round(seconds, 4), **found, **known)
