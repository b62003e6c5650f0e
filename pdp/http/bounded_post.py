"""POST requests of strangers, bounded in size, time and number."""

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
"""Bodies that are being read at once."""
HANDLING_MAX = 64
"""Requests that have been read and are not answered yet."""
LOG_SECONDS = 60
"""At most one line about refused requests in this time."""

Headers = Sequence[tuple[str, str]]


class PostHandler(Protocol):
    """What a request is for."""

    def refusal(self, headers: Headers) -> str | None:
        """Why a request is refused before its body is read; None: read it."""

    async def answer(self, headers: Headers, body: bytes) -> tuple[int, str]:
        """The status and text of the answer to a whole request."""


class BoundedPost:
    """An endpoint for `handler`. Calls `refused` with the reason if a request does not get that
    far. Lives on one event loop.

    Anybody can send headers that look right and then a body a byte at a time. So if all places for
    reading are taken, the request that has been read for the longest time loses its own: a genuine
    body comes within milliseconds.
    """

    def __init__(self, handler: PostHandler, refused: Callable[[str], None]) -> None:
        self._handler = handler
        self._refused = refused
        self._reading: dict[asyncio.Timeout, None] = {}
        """The time limits of the bodies that are being read, oldest first."""
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
        """The body, or the refusal of one that is too large or does not come."""
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
        # What was not read yet of the body must not be taken for a request.
        return PlainTextResponse(f"{why}\n", status, {"Connection": "close"})

    def _note(self, why: str) -> None:
        self._not_logged[why] += 1
        now = asyncio.get_running_loop().time()
        if now >= self._log_at:
            log.warning("webhooks_refused", reasons=dict(self._not_logged))
            self._not_logged.clear()
            self._log_at = now + LOG_SECONDS


def _length(request: Request) -> int:
    """As announced; 0 if it is not."""
    announced = request.headers.get("content-length", "")
    return int(announced) if announced.isdecimal() else 0


async def _body(request: Request) -> bytes | None:
    """None if it is too large, whatever its headers say."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > BODY_BYTES_MAX:
            return None
    return bytes(body)
