"""`fabrica version`."""

from __future__ import annotations


def version() -> None:
    """The version of Fabrica."""
    from fabrica import __version__

    print(__version__)
