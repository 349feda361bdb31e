"""Around an application: who may ask, and headers that keep browsers strict."""

from __future__ import annotations

from collections.abc import Sequence

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fabrica.serving.http.access import Access, refusal

HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cache-control": "no-store",
}


class Guarded:
    """Around an application: requests refused that may not be asked, and strict headers on every answer.

    public   what needs no token, and begins so ("/" alone: itself).
    """

    def __init__(self, app: ASGIApp, access: Access, public: Sequence[str]) -> None:
        self.app, self.access, self.public = app, access, public

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                own = [(key.encode(), value.encode()) for key, value in HEADERS.items()]
                message = {**message, "headers": [*message.get("headers", []), *own]}
            await send(message)

        path = scope["path"]
        public = any(path == each or (each != "/" and path.startswith(each)) for each in self.public)
        if refused := refusal(self.access, scope["method"], scope["headers"], public=public):
            answer = JSONResponse({"error": refused.line}, refused.status)
            if refused.status == 401:
                answer.headers["www-authenticate"] = "Bearer"
            await answer(scope, receive, sending)
            return
        await self.app(scope, receive, sending)
