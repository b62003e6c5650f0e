"""Outgoing HTTP: each exchange has one deadline and one bound in bytes.

A timeout of httpx bounds one read or one write, so a server that sends a byte now and then keeps an
exchange open for as long as it likes. Here name lookup, connection, TLS handshake, request, status
line, headers and body share one deadline. Every client of the project that speaks HTTP is made
here.
"""

import asyncio
import contextlib
import functools
import ssl
import threading
from collections.abc import Mapping
from typing import Any

import httpx

Client = httpx.Client
CLOSE_SECONDS_MAX = 1.0


class BoundExceeded(httpx.TransportError):
    """The exchange took too long, or the answer is too long. The message holds our words only."""


def open_client(
    *,
    seconds_max: float,
    bytes_max: int,
    headers: Mapping[str, str] | None = None,
    tls: ssl.SSLContext | None = None,
) -> Client:
    """A client whose every exchange ends within `seconds_max`, with at most `bytes_max` bytes of
    body (as sent: before any decoding). `tls`: None trusts the usual authorities.

    Redirects are not followed. Proxies and certificates named by the environment are not used:
    settings own it. Safe to share between threads; not across a fork.
    """
    return Client(
        transport=_BoundedTransport(seconds_max, bytes_max, tls),
        timeout=seconds_max,
        follow_redirects=False,
        trust_env=False,
        headers=headers,
    )


@functools.cache
def _usual_authorities() -> ssl.SSLContext:
    """Those of `certifi`. Shared, since it takes 30 ms of a processor to load them."""
    return httpx.create_ssl_context(trust_env=False)


class _BoundedTransport(httpx.BaseTransport):
    """Exchanges run on an event loop of their own thread: there, a deadline can cancel whatever an
    exchange waits for."""

    def __init__(self, seconds_max: float, bytes_max: int, tls: ssl.SSLContext | None) -> None:
        self._seconds_max = seconds_max
        self._bytes_max = bytes_max
        self._transport = httpx.AsyncHTTPTransport(
            verify=_usual_authorities() if tls is None else tls, trust_env=False
        )
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="pdp-outgoing", daemon=True)
        self._thread.start()

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        future = asyncio.run_coroutine_threadsafe(self._exchange(request), self._loop)
        try:
            return future.result()
        except BaseException:  # also an interrupt from the keyboard
            future.cancel()
            raise

    def close(self) -> None:
        closing = asyncio.run_coroutine_threadsafe(self._transport.aclose(), self._loop)
        with contextlib.suppress(TimeoutError):
            closing.result(CLOSE_SECONDS_MAX)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(CLOSE_SECONDS_MAX)

    def _run(self) -> None:
        self._loop.run_forever()
        self._loop.close()

    async def _exchange(self, request: httpx.Request) -> httpx.Response:
        opened: list[Any] = []
        unsent: list[str] = []

        async def trace(event: str, info: Mapping[str, Any]) -> None:
            if event == "connection.connect_tcp.complete":
                opened.append(info["return_value"])
            elif event == "http11.send_request_body.failed":
                unsent.append(event)

        request.extensions = {**request.extensions, "trace": trace}
        try:
            async with asyncio.timeout(self._seconds_max):
                response = await self._send(request)
            if unsent and response.is_success:
                # httpcore reads the answer also if the server stopped reading the request.
                raise httpx.WriteError("the server closed before it had read the request")
            return response
        except BaseException as error:
            # httpcore leaves a connection open whose TLS handshake is cancelled.
            for connection in opened:
                await connection.aclose()
            if isinstance(error, TimeoutError):
                raise BoundExceeded(f"took more than {self._seconds_max:g} s") from None
            raise

    async def _send(self, request: httpx.Request) -> httpx.Response:
        response = await self._transport.handle_async_request(request)
        stream = response.stream
        if not isinstance(stream, httpx.AsyncByteStream):  # the type says less than httpx does
            raise TypeError(type(stream).__name__)
        body = bytearray()
        try:
            async for chunk in stream:
                body += chunk
                if len(body) > self._bytes_max:
                    raise BoundExceeded(f"more than {self._bytes_max} bytes")
        finally:
            await stream.aclose()
        return httpx.Response(
            response.status_code, headers=response.headers, stream=httpx.ByteStream(bytes(body))
        )
