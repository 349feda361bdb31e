"""One door for everything a damaged file can do to a decoder."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fabrica.errors import FabricaError, ReadError


@contextmanager
def decoding(path: str | Path, what: str) -> Iterator[None]:
    """Turn whatever a decoder raises while it reads `path` as `what` ("a PNG") into a one-line ReadError.

    Decoders of foreign bytes fail in ways their authors never listed (struct.error, IndexError, MemoryError, ...),
    which is why this catches Exception. Their warnings say nothing a user can act on, and are dropped.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except FabricaError:
        raise
    except Exception as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise ReadError(
            f"{path}: damaged or unsupported, cannot be decoded as {what} ({reason}); fetch or export it again"
        ) from error
