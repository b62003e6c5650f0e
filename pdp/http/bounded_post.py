"""POST requests of strangers, bounded in size, time and number before anybody reads them."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response

BODY_BYTES_MAX = 1024 * 1024
BODY_SECONDS_MAX = 10
REQUESTS_MAX = 32
"""At once."""

PostHandler = Callable[[Sequence[tuple[str, str]], bytes], Awaitable[tuple[int, str]]]
"""(headers as they came, body) -> (status, text)."""


class BoundedPost:
    """An endpoint that hands whole bodies to `handler`. `refused` is told why a
    request did not get that far. Lives on one event loop."""

    def __init__(self, handler: PostHandler, refused: Callable[[str], None]) -> None:
        self._handler = handler
        self._refused = refused
        self._requests = 0

    async def answer(self, request: Request) -> Response:
        """Answers one request."""
        if self._requests >= REQUESTS_MAX:
            return self._refusal(503, "busy")
        self._requests += 1
        try:
            return await self._answer(request)
        finally:
            self._requests -= 1

    async def _answer(self, request: Request) -> Response:
        if request.headers.get("content-encoding", "identity") != "identity":
            return self._refusal(415, "encoded")
        if int(request.headers.get("content-length", 0)) > BODY_BYTES_MAX:
            return self._refusal(413, "too_large")
        try:
            async with asyncio.timeout(BODY_SECONDS_MAX):
                body = await _body(request)
        except TimeoutError:
            return self._refusal(408, "too_slow")
        except ClientDisconnect:
            return self._refusal(400, "incomplete")
        if body is None:
            return self._refusal(413, "too_large")
        status, text = await self._handler(request.headers.items(), body)
        return PlainTextResponse(f"{text}\n", status)

    def _refusal(self, status: int, why: str) -> Response:
        self._refused(why)
        # What was not read yet of the body must not be taken for a request.
        return PlainTextResponse(f"{why}\n", status, {"Connection": "close"})


async def _body(request: Request) -> bytes | None:
    """None where it is too large, whatever its headers say."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > BODY_BYTES_MAX:
            return None
    return bytes(body)
