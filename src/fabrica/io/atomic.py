"""Files that are whole or not there."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from fabrica.errors import FabricaError


@contextmanager
def atomic(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; when the block ends well it becomes `path`, flushed to the disk.

    The temporary name keeps the suffix, since many writers go by it. When the block fails nothing is left behind
    and an existing `path` is untouched. An OSError (full disk, no permission) becomes a one-line FabricaError.
    """
    path = Path(path)
    temporary = path.with_name(f".{secrets.token_hex(4)}.{path.name[-80:]}")
    try:
        yield temporary
        flush(temporary, os.O_RDWR)
        temporary.replace(path)
    except OSError as error:
        while error.errno is None and isinstance(error.__cause__, OSError):
            error = error.__cause__  # pydicom raises another in its place, with a text of many lines
        reason = error.strerror or str(error) or type(error).__name__
        raise FabricaError(f"{path}: cannot be written ({reason}); nothing was changed") from error
    finally:
        temporary.unlink(missing_ok=True)
    with suppress(OSError):  # some file systems cannot flush a folder; the file itself is safe by now
        flush(path.parent)


def flush(path: Path, mode: int = os.O_RDONLY) -> None:
    """fsync a file, or a folder so that its new entry survives a power cut."""
    descriptor = os.open(path, mode)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
