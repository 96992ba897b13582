"""Middleware before every request: who may ask, how much and how slowly; every error is answered in one line."""

import asyncio
import hmac
import sys
from contextlib import suppress
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse

from codec.foundation import UserError
from recipes.apps.serve.metrics import ServiceMetrics

# Many clients read the answer only after they have sent their whole body. So a refused body is still read, up to this
# many times the limit and for this long.
_DRAINED_TIMES, _DRAINED_SECONDS = 4, 10.0
# A body has so many seconds, and one more for so many bytes that came: a slow client is served, a stalled one is not.
_BODY_SECONDS, _BODY_RATE = 30.0, 10_000
_OPEN = "/health", "/docs", "/openapi.json"  # without a key


class RequestError(Exception):
    """An answer with a status above 400, in one line."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


def error_answer(path: str, error: Exception) -> JSONResponse:
    """One line, in OpenAI's shape on its routes; an error that nobody foresaw tells nothing of the inside."""
    status, message = 500, "something went wrong here"
    if isinstance(error, RequestError):
        status, message = error.status, str(error)
    elif isinstance(error, UserError):
        status, message = 400, str(error)
    elif isinstance(error, HTTPException):
        status, message = error.status_code, error.detail
    content: Any = message
    if path.startswith("/v1/"):
        kind = "server_error" if status >= 500 else "invalid_request_error"
        content = {"message": message, "type": kind, "param": None, "code": None}
    headers = {401: {"www-authenticate": "Bearer"}, 503: {"retry-after": "2"}}
    closes = {"connection": "close"}
    return JSONResponse(
        {"error": content}, status, closes if status in (408, 413) else headers.get(status, {})
    )


class GuardMiddleware:
    """ASGI middleware: asks for the key, refuses large and stalled bodies, and lets no exception out.

    A UserError becomes a 400 with its message. Any other error becomes a 500 that tells nothing of the inside; standard
    error gets a line.
    """

    def __init__(self, app: Any, most_bytes: int, api_key: str | None, metrics: ServiceMetrics) -> None:
        self.app, self.most_bytes, self.api_key, self.metrics = app, most_bytes, api_key, metrics

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        answered = False
        taken, began, more = 0, asyncio.get_running_loop().time(), True

        async def counted() -> dict[str, Any]:
            nonlocal taken, more
            try:
                async with asyncio.timeout_at(began + _BODY_SECONDS + taken / _BODY_RATE if more else None):
                    message: dict[str, Any] = await receive()
            except TimeoutError:
                raise RequestError(408, "the request's body did not come in time") from None
            taken, more = taken + len(message.get("body", b"")), message.get("more_body", False)
            if taken > self.most_bytes:
                raise self._too_large()
            return message

        async def watched(message: dict[str, Any]) -> None:
            nonlocal answered
            if message["type"] == "http.response.start":
                answered = True
                # what nobody serves is one route: strangers name many
                route = getattr(scope.get("route"), "path", "none")
                self.metrics.requests.labels(route, str(message["status"])).inc()
            await send(message)

        headers = dict(scope["headers"])
        try:
            self._check_key(scope["path"], headers)
            length = headers.get(b"content-length", b"0")
            if not length.isdigit():
                raise RequestError(400, "the content-length is no number")
            if int(length) > self.most_bytes:
                raise self._too_large()
            await self.app(scope, counted, watched)
        except ClientDisconnect:
            return
        except Exception as error:
            if not isinstance(error, RequestError | UserError):
                # the type and no more: messages may hold what a stranger sent
                print(f"codec-slm: {scope['path']!r}: {type(error).__name__}", file=sys.stderr)
            if not answered:
                answer = error_answer(scope["path"], error)
                await self._answer(answer, receive, watched)

    def _check_key(self, path: str, headers: dict[bytes, bytes]) -> None:
        if self.api_key is None or path in _OPEN:
            return
        expected = f"Bearer {self.api_key}".encode()
        if not hmac.compare_digest(headers.get(b"authorization", b""), expected):
            raise RequestError(401, "give this service's key: Authorization: Bearer KEY")

    def _too_large(self) -> RequestError:
        return RequestError(413, f"the request is larger than {self.most_bytes / 2**20:g} MB")

    async def _answer(self, answer: JSONResponse, receive: Any, send: Any) -> None:
        """Send an answer, and take what still comes of a body that is too large before the end of it."""
        start = {
            "type": "http.response.start",
            "status": answer.status_code,
            "headers": answer.raw_headers,
        }
        await send(start)
        await send({"type": "http.response.body", "body": answer.body, "more_body": True})
        if answer.status_code == 413:
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
