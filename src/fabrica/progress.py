"""How long work tells how far it is."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[str, int, int], None]
"""Called with (what, done, total): of work that has several parts, each with a name."""
Count = Callable[[int, int], None]
"""Called with (done, total): of one part."""
Warn = Callable[[str], None]
"""Called with one sentence that a person should read."""


def part(progress: Progress | None, what: str) -> Count | None:
    """One part's own count, told on under its name."""
    return (lambda done, total: progress(what, done, total)) if progress else None
