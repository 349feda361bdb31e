"""Pages as their files stand in packages, no build and nothing from elsewhere; what pages share: head, icon, looks."""

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
    """The endpoint that answers with the files of a page's package and those that pages share, with index.html where
    none is named: the shared head, and the body of the package."""

    async def page(request: Request) -> Response:
        name = request.path_params.get("name", "index.html")
        if name not in _files(package):
            raise Refused(404, "the page has no such file")
        return Response(_files(package)[name], media_type=TYPES[name.rpartition(".")[2]])

    return page


@cache
def _files(package: str) -> dict[str, bytes]:
    found = {
        each.name: each.read_bytes()
        for place in (__name__, package)
        for each in files(place).iterdir()
        if each.name.rpartition(".")[2] in TYPES
    }
    found["index.html"] = found.pop("head.html") + found.pop("body.html")
    return found
