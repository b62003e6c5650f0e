"""POST requests from anybody, limited in size, time and number."""

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Protocol

import structlog
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response

log = structlog.get_logger("pdp.http")

BODY_BYTES_MAX = 1024 * 1024
BODY_SECONDS_MAX = 10
READING_MAX = 32
"""Bodies that are read at the same time."""
HANDLING_MAX = 64
"""Requests whose body is read and that are not answered yet."""
LOG_SECONDS = 60
"""At most one log line about refused requests per this time."""

Headers = Sequence[tuple[str, str]]


class PostHandler(Protocol):
    """Handles the requests of an endpoint."""

    def refusal(self, headers: Headers) -> str | None:
        """Why a request is refused before its body is read; None: read the body."""

    async def answer(self, headers: Headers, body: bytes) -> tuple[int, str]:
        """The status and text of the response to a complete request."""


class BoundedPost:
    """An endpoint for `handler` on one event loop. Calls `refused` with the reason for each request
    that does not reach the handler.

    Anybody can send valid headers and then the body byte by byte. So if READING_MAX bodies are
    being read, the oldest is aborted for a new one: a genuine body arrives within milliseconds.
    """

    def __init__(self, handler: PostHandler, refused: Callable[[str], None]) -> None:
        self._handler = handler
        self._refused = refused
        self._reading: dict[asyncio.Timeout, None] = {}
        """The timeouts of the bodies that are being read, oldest first."""
        self._handling = 0
        self._not_logged: Counter[str] = Counter()
        self._log_at = 0.0

    async def answer(self, request: Request) -> Response:
        """Answers one request."""
        if request.headers.get("content-encoding", "identity") != "identity":
            return self._refusal(415, "encoded")
        if _length(request) > BODY_BYTES_MAX:
            return self._refusal(413, "too_large")
        headers = request.headers.items()
        why = self._handler.refusal(headers)
        if why is not None:
            return self._refusal(400, why)
        body = await self._read(request)
        return body if isinstance(body, Response) else await self._handle(headers, body)

    async def _read(self, request: Request) -> bytes | Response:
        """The body, or a refusal if it is too large or too slow."""
        if len(self._reading) >= READING_MAX:
            oldest = next(iter(self._reading))
            del self._reading[oldest]
            if not oldest.expired():
                oldest.reschedule(asyncio.get_running_loop().time())
        try:
            async with asyncio.timeout(BODY_SECONDS_MAX) as limit:
                self._reading[limit] = None
                try:
                    body = await _body(request)
                finally:
                    self._reading.pop(limit, None)
        except TimeoutError:
            return self._refusal(408, "too_slow")
        except ClientDisconnect:
            return self._refusal(400, "incomplete")
        return self._refusal(413, "too_large") if body is None else body

    async def _handle(self, headers: Headers, body: bytes) -> Response:
        if self._handling >= HANDLING_MAX:
            return self._refusal(503, "busy")
        self._handling += 1
        try:
            status, text = await self._handler.answer(headers, body)
        finally:
            self._handling -= 1
        if status == 400:  # noqa: PLR2004  # HTTP's "Bad Request"
            self._note(text)
        return PlainTextResponse(f"{text}\n", status)

    def _refusal(self, status: int, why: str) -> Response:
        self._refused(why)
        self._note(why)
        # The unread rest of the body must not be parsed as a request.
        return PlainTextResponse(f"{why}\n", status, {"Connection": "close"})

    def _note(self, why: str) -> None:
        self._not_logged[why] += 1
        now = asyncio.get_running_loop().time()
        if now >= self._log_at:
            log.warning("webhooks_refused", reasons=dict(self._not_logged))
            self._not_logged.clear()
            self._log_at = now + LOG_SECONDS


def _length(request: Request) -> int:
    """The announced length in bytes; 0 if there is none."""
    announced = request.headers.get("content-length", "")
    return int(announced) if announced.isdecimal() else 0


async def _body(request: Request) -> bytes | None:
    """The body; None if it is too large, whatever its headers say."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > BODY_BYTES_MAX:
            return None
    return bytes(body)
