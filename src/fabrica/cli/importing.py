"""Heavy packages imported inside a verb, without the garbage collector looking through them again and again."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def importing() -> Iterator[None]:
    """Around the imports of a verb, and the opening of a model, which imports what its networks take.

    PyTorch, MONAI and what belongs to them are some 600,000 objects, nearly all of which stay: a collector that runs
    meanwhile takes a third of the time to find nothing. What is there afterwards is set aside (`gc.freeze`), so that
    later collections do not look through it either. Then the collector is as it was.
    """
    collects, before = gc.isenabled(), len(sys.modules)
    gc.disable()
    try:
        yield
    finally:
        if len(sys.modules) > before:
            gc.freeze()
        if collects:
            gc.enable()
