"""What all handlers of requests share: the line of work and who does it, limits, counts, and where files lie."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from fabrica.serving.http import uploads
from fabrica.serving.http.access import Access
from fabrica.serving.http.crew import Crew
from fabrica.serving.http.line import Job, Line
from fabrica.serving.http.telemetry import Log, Metrics


@dataclass(frozen=True)
class Limits:
    """largest    bytes of an upload, and of what an archive unpacks to; of tensors in memory.
    seconds    that a request may wait and be worked on, once it is there.
    patience   see `fabrica.serving.http.uploads.chunks`.
    """

    largest: int = 2**30
    tensors: int = 32 * 2**20
    seconds: float = 600.0
    patience: float = uploads.PATIENCE


@dataclass
class Service:
    """All that handlers share. jobs: by the number that a client gave its request, to ask how far it is."""

    line: Line
    crew: Crew
    access: Access
    limits: Limits
    metrics: Metrics
    log: Log
    scratch: Path
    jobs: dict[str, Job] = field(default_factory=dict)
