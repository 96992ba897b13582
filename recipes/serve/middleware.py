"""What stands before every request: a limit on its size, and an answer of one line whatever goes wrong."""

import json
import sys
from typing import Any

from codec.runs import UserError


class Refusal(Exception):
    """An answer with a status above 400, in one line."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Guard:
    """ASGI middleware: refuses bodies of more than `most_bytes`, and lets no exception out of the application.

    A UserError is a 400 with its message; what nobody foresaw a 500 that tells nothing of the inside, and a line on
    standard error.
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
                raise Refusal(400, "the content-length is no number")
            if int(length) > self.most_bytes:
                raise self._too_large()
            await self.app(scope, counted, watched)
        except Exception as error:
            if not isinstance(error, Refusal | UserError):
                # the type and no more: messages may hold what a stranger sent
                print(f"codec-slm: {scope['path']!r}: {type(error).__name__}", file=sys.stderr)
            if not answered:
                await _answer(send, error)

    def _too_large(self) -> Refusal:
        return Refusal(413, f"the request is larger than {self.most_bytes / 2**20:g} MB")


async def _answer(send: Any, error: Exception) -> None:
    status, message = 500, "something went wrong here"
    if isinstance(error, Refusal):
        status, message = error.status, str(error)
    elif isinstance(error, UserError):
        status, message = 400, str(error)
    body = json.dumps({"error": message}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    if status == 503:
        headers.append((b"retry-after", b"2"))
    if status == 413:  # what is still to come of the body will not be read
        headers.append((b"connection", b"close"))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
