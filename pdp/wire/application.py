"""The ASGI application: gRPC and Connect for every method of the table, on the same port.

Any ASGI server with HTTP/2 and trailers can run it; `pdp.process.listener` does so with h2corn.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, MutableMapping, Sequence
from typing import Any

import grpc
from google.rpc import status_pb2

from pdp.concurrency.waiting import within
from pdp.errors import DeadlineExceeded, PdpError
from pdp.wire import connect
from pdp.wire.callers import Callers
from pdp.wire.framing import (
    ENCODINGS,
    EncodingError,
    MessageReader,
    check_prefix,
    framed,
    message_of,
    not_one_message,
    status_headers,
)
from pdp.wire.head import Head, checked_timeout, head_of
from pdp.wire.methods import AnyMethod, DialogMethod, StreamMethod
from pdp.wire.pipeline import PROTO, Observe, Outcome, Pipeline, Refusal, Stream, refusal_of
from pdp.wire.streams import Wakes, carry_out

Scope = Mapping[str, Any]
Event = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Event]]
Send = Callable[[Event], Awaitable[None]]

MESSAGE_SECONDS_MAX = 5.0
"""The longest time from the headers of a request to the end of its message, in seconds."""
DIALOG_SECONDS_MAX = 10.0
"""The longest time for a whole stream of reflection requests, in seconds: it needs no caller."""
DRAIN_POLL_SECONDS = 0.01

_GRPC = (b"content-type", b"application/grpc")
_OK = (b"grpc-status", b"0")
_ACCEPT = (b"grpc-accept-encoding", b",".join(ENCODINGS))


class _LeftError(Exception):
    """The client disconnected."""


class Application:
    """Answers HTTP requests, all on the same event loop."""

    def __init__(
        self,
        callers: Callers,
        methods: Sequence[AnyMethod],
        observe: Observe,
        *,
        rpcs_max: int,
        streams_share: int,
    ) -> None:
        """`rpcs_max`: the most requests that are answered at the same time; `streams_share`: the
        most streams that each caller may have open."""
        self._pipeline = Pipeline(callers, observe, rpcs_max=rpcs_max, streams_share=streams_share)
        self._methods = {method.path.encode(): method for method in methods}
        self._wakes = Wakes()
        for method in methods:
            if isinstance(method, StreamMethod):
                method.listen(self._wakes.soon)
        # Without configured callers every process on this machine may administer; a web page must
        # not.
        self._loopback_only = callers.open

    async def drain(self, seconds: float) -> None:
        """Refuses new requests, ends streams, and returns after all other requests have ended."""
        self._pipeline.closing = True
        self._wakes.soon()
        loop = asyncio.get_running_loop()
        ends_at = loop.time() + seconds
        while (self._pipeline.in_flight or len(self._wakes)) and loop.time() < ends_at:
            await asyncio.sleep(DRAIN_POLL_SECONDS)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers an HTTP request."""
        if scope["type"] != "http":
            await _refuse_other(scope, receive, send)
            return
        head = head_of(scope)
        if head.protocol != "grpc":
            await self._connect(scope, head, receive, send)
            return
        try:
            outcome = await self._outcome(scope, head, receive, send)
        except PdpError as error:
            outcome = refusal_of(error)
        except EncodingError:
            code = grpc.StatusCode.UNIMPLEMENTED
            outcome = _status(code, "the message's encoding is not supported")
        except _LeftError:
            return
        if isinstance(outcome, bytes):
            await send(_START)
            await send({"type": "http.response.body", "body": framed(outcome)})
            await send(_TRAILERS_OK)
        elif isinstance(outcome, Refusal):
            await _send_status(send, outcome)
        elif outcome is not None:
            await self._send_stream(send, outcome)

    # --- gRPC -----------------------------------------------------------------------------------

    async def _outcome(
        self, scope: Scope, head: Head, receive: Receive, send: Send
    ) -> Outcome | Stream | None:
        """The outcome of a request; None: the response was sent."""
        # A path must equal a method's byte for byte: it is neither decoded nor normalised before.
        path = b"" if scope["query_string"] else scope["raw_path"]
        method = self._methods.get(path)
        if method is None:
            return _status(grpc.StatusCode.UNIMPLEMENTED, "Method not found!")
        if head.origin:
            return self._pipeline.refuse(method, connect.cross_site())
        if head.encoding not in ENCODINGS:
            raise EncodingError
        if isinstance(method, DialogMethod):
            return await self._dialog(method, head, receive, send)
        try:
            timeout = checked_timeout(head)
            chunk, more = _part(await receive())
            # Before the rest is read, so that a stranger fills no memory.
            caller = self._pipeline.admit(method, head.proof)
            if more:
                rest = _read_rest(chunk, method.request_bytes_max, head.encoding, receive)
                raw = await within(MESSAGE_SECONDS_MAX, rest, "the message did not arrive in time")
            else:
                raw = message_of(chunk, method.request_bytes_max, head.encoding)
        except PdpError as error:
            return self._pipeline.refuse(method, error)
        if isinstance(method, StreamMethod):
            return self._pipeline.open(method, raw, caller, PROTO)
        return await self._pipeline.answer(method, raw, caller, PROTO, timeout)

    async def _send_stream(self, send: Send, stream: Stream) -> None:
        try:
            await send(_START)
        except BaseException:
            stream.close("CANCELLED")
            raise
        refusal = await carry_out(
            stream,
            self._wakes,
            lambda body: send({"type": "http.response.body", "body": body, "more_body": True}),
        )
        await _end(send, refusal)

    async def _dialog(
        self, method: DialogMethod, head: Head, receive: Receive, send: Send
    ) -> Refusal | None:
        """Answers each message of a stream when it arrives."""
        self._pipeline.admit(method, head.proof)
        reader = MessageReader(method.request_bytes_max, head.encoding)
        refusal: Refusal | None = None
        started = False
        try:
            async with asyncio.timeout(DIALOG_SECONDS_MAX):
                more = True
                while more:
                    chunk, more = _part(await receive())
                    reader.feed(chunk)
                    while (raw := reader.take()) is not None:
                        answer = method.answer(PROTO.parse(method.request, raw))
                        if not started:
                            await send(_START)
                            started = True
                        body = framed(answer.SerializeToString())
                        await send({"type": "http.response.body", "body": body, "more_body": True})
        except TimeoutError:
            refusal = self._pipeline.refuse(method, DeadlineExceeded("the stream took too long"))
        except PdpError as error:
            refusal = self._pipeline.refuse(method, error)
        if not started:
            if refusal is not None:
                return refusal
            await send(_START)
        await _end(send, refusal)
        return None

    # --- Connect --------------------------------------------------------------------------------

    async def _connect(self, scope: Scope, head: Head, receive: Receive, send: Send) -> None:
        async def chunk() -> tuple[bytes, bool]:
            return _part(await receive())

        try:
            response = await connect.answer(
                self._pipeline,
                self._methods,
                scope,
                head,
                chunk,
                loopback_only=self._loopback_only,
            )
        except _LeftError:
            return
        await send(
            {
                "type": "http.response.start",
                "status": response.status,
                "headers": response.headers,
            }
        )
        await send({"type": "http.response.body", "body": response.body})


_START: Event = {
    "type": "http.response.start",
    "status": 200,
    "headers": (_GRPC,),
    "trailers": True,
}
_TRAILERS_OK: Event = {"type": "http.response.trailers", "headers": (_OK,)}


def _part(event: Event) -> tuple[bytes, bool]:
    """A part of the body, and whether there is more. Raises _LeftError."""
    if event["type"] == "http.disconnect":
        raise _LeftError
    return event.get("body", b""), event.get("more_body", False)


async def _read_rest(chunk: bytes, bytes_max: int, encoding: bytes, receive: Receive) -> bytes:
    """Reads the message that begins with a part of the body. Raises as `message_of`."""
    check_prefix(chunk, bytes_max, encoding)
    rest, more = _part(await receive())
    if not rest and not more:  # servers report the end of a body as a part of its own
        return message_of(chunk, bytes_max, encoding)
    reader = MessageReader(bytes_max, encoding)
    reader.feed(chunk + rest)
    while more:
        chunk, more = _part(await receive())
        reader.feed(chunk)
    message = reader.take()
    if message is None or reader.rest:
        raise not_one_message()
    return message


async def _end(send: Send, refusal: Refusal | None) -> None:
    """Ends a stream of messages with a status."""
    await send({"type": "http.response.body", "body": b""})
    trailers = (_OK,) if refusal is None else status_headers(refusal)
    await send({"type": "http.response.trailers", "headers": trailers})


async def _send_status(send: Send, refusal: Refusal) -> None:
    """Sends a response without a message: the status is in its headers."""
    await send(
        {
            "type": "http.response.start",
            "status": 200,
            "headers": (_GRPC, _ACCEPT, *status_headers(refusal)),
        }
    )
    await send({"type": "http.response.body"})


async def _refuse_other(scope: Scope, receive: Receive, send: Send) -> None:
    """Closes websockets, and confirms the events of a server's lifespan, which need no work."""
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 1003})
        return
    while True:
        event = (await receive())["type"]
        await send({"type": f"{event}.complete"})
        if event == "lifespan.shutdown":
            return


def _status(code: grpc.StatusCode, message: str) -> Refusal:
    return Refusal(code, status_pb2.Status(code=code.value[0], message=message))
