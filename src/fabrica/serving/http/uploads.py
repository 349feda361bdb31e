"""What clients send, read as it comes: onto the disk or into memory, no more than is allowed, no slower either."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import ClientDisconnect, Request

from fabrica.serving.http.archives import MOST, numbered
from fabrica.serving.http.tasks import Refused
from fabrica.serving.http.work import FULL

SLOWEST = 16 * 2**10  # bytes a second that a body brings on average, after the first seconds of patience
PATIENCE = 20.0  # seconds
AT_ONCE = 2**20  # bytes that are handed to the disk together
IMAGE = ("files", "file", "image")
"""Names of a form's parts that are the image itself."""


async def chunks(request: Request, largest: int, patience: float = PATIENCE) -> AsyncIterator[bytes]:
    """The body as it comes. Refused: 413 above `largest` bytes, before any is read where the length is said; 408 where
    it comes too slowly; 499 where the client goes away."""
    said = request.headers.get("content-length", "0")
    if not said.isdecimal() or int(said) > largest:
        raise too_large(largest)
    began, found, stream = time.monotonic(), 0, request.stream()
    while True:
        left = began + patience + found / SLOWEST - time.monotonic()
        try:
            async with asyncio.timeout(left):
                chunk = await anext(stream, None)
        except TimeoutError:
            raise Refused(408, f"{found} bytes came, too slowly; at least {SLOWEST} a second are expected") from None
        except ClientDisconnect:
            raise Refused(499, "the client went away") from None
        if chunk is None:
            return
        found += len(chunk)
        if found > largest:
            raise too_large(largest)
        yield chunk


def too_large(largest: int) -> Refused:
    return Refused(413, f"the body is larger than {largest} bytes, which is all that this server takes")


async def in_memory(request: Request, largest: int, patience: float = PATIENCE) -> bytes:
    """The whole body."""
    return b"".join([chunk async for chunk in chunks(request, largest, patience)])


async def on_disk(
    request: Request, folder: Path, others: Mapping[str, Path], largest: int, patience: float = PATIENCE
) -> dict[str, list[Path]]:
    """The files of a body, under numbers: of the image, which is the body, or the parts of a form (multipart/form-data)
    that have one of the names IMAGE; and of what stands beside it, which is the parts of other names.

    folder  where the image's files go; others: which other names there may be, and where their files go.

    Gives the files by name, the image's as "". Raises Refused as `chunks`, 400 for a body without an image, or a part
    of another name, and 507 where the disk is full.
    """
    kind, options = parse_options_header(request.headers.get("content-type"))
    form = kind == b"multipart/form-data"
    boundary = options.get(b"boundary", b"")
    if form and not 0 < len(boundary) <= 70:
        raise Refused(400, "a form has a boundary of 1 to 70 characters; this one has another, or none")
    sink: _File | _Form | None = None
    try:
        sink = _Form(folder, others, boundary) if form else _File(folder)
        held = bytearray()
        async for chunk in chunks(request, largest, patience):
            held += chunk
            if len(held) >= AT_ONCE:
                await asyncio.to_thread(sink.write, bytes(held))
                held.clear()
        await asyncio.to_thread(sink.write, bytes(held))
        sink.finish()
    except FormParserError as error:
        raise Refused(400, "the form is damaged; send files as multipart/form-data, or one as the body") from error
    except OSError as error:
        if error.errno in FULL:
            raise Refused(507, "the server has no room left for it; nothing was kept", 60) from error
        raise
    finally:
        if sink:
            sink.close()
    if not sink.files.get("") or not sink.size:
        raise Refused(400, "the body holds no image; send one as the body, or files as multipart/form-data")
    return sink.files


class _File:
    """A body that is one file."""

    def __init__(self, folder: Path) -> None:
        self.files, self.size = {"": [folder / numbered(1, "")]}, 0
        self._open = self.files[""][0].open("wb")

    def write(self, content: bytes) -> None:
        self._open.write(content)
        self.size += len(content)

    def finish(self) -> None:
        self._open.flush()

    def close(self) -> None:
        _closed(self._open)


class _Form:
    """A form, of which only the parts that are files are kept."""

    def __init__(self, folder: Path, others: Mapping[str, Path], boundary: bytes) -> None:
        self.places, self.size = {"": folder, **others}, 0
        self.files: dict[str, list[Path]] = {}
        self._open: BinaryIO | None = None
        self._field, self._value = b"", b""
        self._part: bytes = b""
        self._name: bytes | None = None
        self._parser = MultipartParser(
            boundary,
            {
                "on_part_begin": self._begin,
                "on_header_field": self._take_field,
                "on_header_value": self._take_value,
                "on_header_end": self._header,
                "on_headers_finished": self._headers,
                "on_part_data": self._data,
                "on_part_end": self._end,
            },
        )

    def write(self, content: bytes) -> None:
        self._parser.write(content)

    def finish(self) -> None:
        self._parser.finalize()

    def close(self) -> None:
        if self._open is not None:
            _closed(self._open)
            self._open = None

    def _begin(self) -> None:
        self._field, self._value, self._part, self._name = b"", b"", b"", None

    def _take_field(self, data: bytes, start: int, end: int) -> None:
        self._field += data[start:end]

    def _take_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _header(self) -> None:
        if self._field.lower() == b"content-disposition":
            said = parse_options_header(self._value.decode("latin-1"))[1]
            self._part, self._name = said.get(b"name", b""), said.get(b"filename", self._name)
        self._field, self._value = b"", b""

    def _headers(self) -> None:
        if self._name is None:
            return
        part = self._part.decode("utf-8", "replace")
        part = "" if part in IMAGE else part
        if part not in self.places:
            others = ", ".join(name for name in self.places if name) or "nothing"
            raise Refused(400, f"no part {part[:40]!r}; send the image as files, and beside it {others}")
        if sum(map(len, self.files.values())) >= MOST:
            raise Refused(413, f"a form of more than {MOST} files; send the series as a zip archive")
        own = self.files.setdefault(part, [])
        name = re.sub(r"[^ -~]", "", self._name.decode("latin-1"))
        path = self.places[part] / numbered(len(own) + 1, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        self._open = path.open("wb")
        own.append(path)

    def _data(self, data: bytes, start: int, end: int) -> None:
        if self._open is not None:
            self._open.write(data[start:end])
            self.size += end - start

    def _end(self) -> None:
        if self._open is not None:
            self._open.flush()
        self.close()


def _closed(file: BinaryIO) -> None:
    """Closed, whatever the disk says: what had to be there was flushed before."""
    with suppress(OSError):
        file.close()
