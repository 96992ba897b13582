"""Middleware before every request: it limits the size of the body, and answers every error in one line."""

import asyncio
import json
import sys
from contextlib import suppress
from typing import Any

from codec.foundation import UserError

# Many clients read the answer only after they have sent their whole body. So a refused body is still read, up to this
# many times the limit and for this long.
_DRAINED_TIMES, _DRAINED_SECONDS = 4, 10.0


class RequestError(Exception):
    """An answer with a status above 400, in one line."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class LimitMiddleware:
    """ASGI middleware: refuses bodies of more than `most_bytes`, and lets no exception out of the application.

    A UserError becomes a 400 with its message. Any other error becomes a 500 that tells nothing of the inside; standard
    error gets a line.
    """

    def __init__(self, app: Any, most_bytes: int) -> None:
        self.app, self.most_bytes = app, most_bytes

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        answered = False
        taken = 0

        async def counted() -> dict[str, Any]:
            nonlocal taken
            message: dict[str, Any] = await receive()
            taken += len(message.get("body", b""))
            if taken > self.most_bytes:
                raise self._too_large()
            return message

        async def watched(message: dict[str, Any]) -> None:
            nonlocal answered
            answered = True
            await send(message)

        try:
            length = dict(scope["headers"]).get(b"content-length", b"0")
            if not length.isdigit():
                raise RequestError(400, "the content-length is no number")
            if int(length) > self.most_bytes:
                raise self._too_large()
            await self.app(scope, counted, watched)
        except Exception as error:
            if not isinstance(error, RequestError | UserError):
                # the type and no more: messages may hold what a stranger sent
                print(f"codec-slm: {scope['path']!r}: {type(error).__name__}", file=sys.stderr)
            if not answered:
                await self._answer(receive, send, error)

    def _too_large(self) -> RequestError:
        return RequestError(413, f"the request is larger than {self.most_bytes / 2**20:g} MB")

    async def _answer(self, receive: Any, send: Any, error: Exception) -> None:
        status, message = 500, "something went wrong here"
        if isinstance(error, RequestError):
            status, message = error.status, str(error)
        elif isinstance(error, UserError):
            status, message = 400, str(error)
        body = json.dumps({"error": message}).encode()
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
        if status == 503:
            headers.append((b"retry-after", b"2"))
        if status == 413:
            headers.append((b"connection", b"close"))
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body, "more_body": True})
        if status == 413:
            await self._drain(receive)
        await send({"type": "http.response.body", "body": b""})

    async def _drain(self, receive: Any) -> None:
        """Take what still comes of a body, and throw it away."""
        taken = 0
        with suppress(TimeoutError):
            async with asyncio.timeout(_DRAINED_SECONDS):
                while taken < _DRAINED_TIMES * self.most_bytes:
                    message = await receive()
                    if not message.get("more_body"):
                        return
                    taken += len(message.get("body", b""))
