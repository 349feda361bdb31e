"""A page's files, as they stand in its package: no build, nothing from elsewhere."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import cache
from importlib.resources import files

from starlette.requests import Request
from starlette.responses import Response

from fabrica.serving.http.tasks import Refused

TYPES = {
    "html": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
}
"""What a page is made of; nothing else in its package is given."""


def page_of(package: str) -> Callable[[Request], Awaitable[Response]]:
    """The endpoint that answers with the files of a package of pages, index.html where none is named."""

    async def page(request: Request) -> Response:
        name = request.path_params.get("name", "index.html")
        if name not in _files(package):
            raise Refused(404, "the page has no such file")
        return Response(_files(package)[name], media_type=TYPES[name.rpartition(".")[2]])

    return page


@cache
def _files(package: str) -> dict[str, bytes]:
    found = (each for each in files(package).iterdir() if each.name.rpartition(".")[2] in TYPES)
    return {each.name: each.read_bytes() for each in found}
