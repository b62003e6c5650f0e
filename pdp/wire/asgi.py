"""The front door as an ASGI application: gRPC on whatever HTTP/2 server carries it (Envoy here).

What is answered from memory is answered on the event loop; a denial waits there for its record, and
whatever else has to be waited for gets a thread. The deadline of a call (`grpc-timeout`) ends the
work on its questions; that of a stream stays the client's, with whom it ends.
"""

import asyncio
import contextvars
import re
import socket
import time
from collections.abc import Awaitable, Callable, Mapping, MutableMapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import unquote_to_bytes

import grpc
from google.protobuf.message import DecodeError
from google.rpc import status_pb2
from grpc_health.v1 import health_pb2

from pdp.errors import PdpError
from pdp.settings import Settings, socket_address
from pdp.wire.asgi_streams import Wakes, carry_out
from pdp.wire.callers import Callers, Proof
from pdp.wire.door import CLOSING_SECONDS, rpc_places
from pdp.wire.framing import (
    CompressedError,
    MessageReader,
    framed,
    message_of,
    status_headers,
)
from pdp.wire.gate import Gate, Observe, Outcome, Refusal, Stream, refusal_of
from pdp.wire.methods import AnyMethod, Method, StreamMethod
from pdp.wire.shares import Places
from pdp.wire.wanted import wanted_while, within

Scope = Mapping[str, Any]
Event = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Event]]
Send = Callable[[Event], Awaitable[None]]

AT_ONCE_BYTES_MAX = 4 * 1024
"""A longer request may take long to work on, while everybody else waits for the event loop."""
CERTIFICATE_HEADER = b"x-forwarded-client-cert"
"""Envoy's words about the client's certificate; it drops what a client sends of that name."""

_HEALTH_PATH = b"/grpc.health.v1.Health/Check"
_HEALTH_BYTES_MAX = 1024
_CERTIFICATE = re.compile(rb'(?:[^",]*;)?Cert="([^";,]+)"')
_CONTENT_TYPE = b"application/grpc"
_GRPC = (b"content-type", _CONTENT_TYPE)
_OK = (b"grpc-status", b"0")
_ACCEPT = (b"grpc-accept-encoding", b"identity")


class _LeftError(Exception):
    """The client left."""


class AsgiDoor:
    """The application, and the door that it is. Its requests run on one event loop."""

    def __init__(self, settings: Settings, methods: Sequence[AnyMethod], observe: Observe) -> None:
        self._listen = settings.listen
        self._gate = Gate(
            Callers(settings.callers),
            observe,
            Places("streams_share", settings.streams_share),
            rpc_places(settings),
        )
        self._methods = {method.path.encode(): method for method in methods}
        self._mtls = settings.tls is not None and settings.tls.client_ca_file is not None
        self._pool = ThreadPoolExecutor(settings.threads, thread_name_prefix="rpc")
        self._wakes = Wakes()
        for method in methods:
            if isinstance(method, StreamMethod):
                method.listen(self._wakes.soon)
        self._serving = False
        self._open = False

    # --- the door -------------------------------------------------------------------------------

    @property
    def port(self) -> int:
        """The TCP port; 0 for a unix socket."""
        return 0 if self._listen.startswith("unix:") else int(self._listen.rpartition(":")[2])

    def is_open(self) -> bool:
        """Whether the port answers: who carries us opens it only after we have started."""
        self._open = self._open or _answers(self._listen)
        return self._open

    def set_serving(self, *, serving: bool) -> None:
        """What `grpc.health.v1` answers from now on."""
        self._serving = serving

    def close(self, grace_seconds: float) -> None:
        """Refuses what is new, finishes what is in flight. Not to be called on the event loop."""
        self.set_serving(serving=False)
        self._gate.closing.set()
        self._wakes.soon()
        deadline = time.monotonic() + grace_seconds
        time.sleep(CLOSING_SECONDS)
        while (self._gate.in_flight or self._wakes) and time.monotonic() < deadline:
            time.sleep(0.01)

    # --- the application ------------------------------------------------------------------------

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one HTTP request."""
        content_type, authorizations, certificates, timeout = _headers_of(scope)
        if scope["method"] != "POST" or not _is_grpc(content_type):
            await _send_only_headers(send, 415, ())
            return
        try:
            certificate = _certificate(certificates) if self._mtls else None
            with wanted_while(within(timeout)):
                outcome = await self._outcome(scope, receive, Proof(authorizations, certificate))
        except PdpError as error:
            outcome = refusal_of(error)
        except CompressedError:
            outcome = _refusal(grpc.StatusCode.UNIMPLEMENTED, "compressed messages are not read")
        except _LeftError:
            return
        if isinstance(outcome, Refusal):
            await _send_only_headers(send, 200, status_headers(outcome))
            return
        try:
            await send(
                {
                    "type": "http.response.start",
                    "status": 200,
                    "headers": (_GRPC,),
                    "trailers": True,
                }
            )
        except BaseException:
            # The client left. A stream that nobody closes would keep its place for ever.
            if isinstance(outcome, Stream):
                outcome.close("CANCELLED")
            raise
        if isinstance(outcome, Stream):
            refusal = await carry_out(
                outcome,
                self._wakes,
                lambda body: send({"type": "http.response.body", "body": body, "more_body": True}),
            )
            await send({"type": "http.response.body"})
            end = (_OK,) if refusal is None else status_headers(refusal)
            await send({"type": "http.response.trailers", "headers": end})
            return
        await send({"type": "http.response.body", "body": framed(outcome)})
        await send({"type": "http.response.trailers", "headers": (_OK,)})

    async def _outcome(self, scope: Scope, receive: Receive, proof: Proof) -> Outcome | Stream:
        # What is not a method byte for byte is none: nothing is decoded or normalised before.
        path = b"" if scope["query_string"] else scope["raw_path"]
        method = self._methods.get(path)
        if isinstance(method, Method):
            return await self._answer(method, receive, proof)
        if method is not None:
            return await self._stream(method, receive, proof)
        if path == _HEALTH_PATH:
            return await self._health(receive)
        return _refusal(grpc.StatusCode.UNIMPLEMENTED, "Method not found!")

    async def _answer(self, method: Method, receive: Receive, proof: Proof) -> Outcome:
        try:
            raw = await _read(
                receive,
                method.request_bytes_max,
                lambda length: self._gate.admit(method, length, proof),
            )
            give_back = self._gate.take_place(proof)
        except PdpError as error:
            return self._gate.refuse(method, error)
        try:
            outcome = None
            if len(raw) <= AT_ONCE_BYTES_MAX:
                outcome = await self._gate.answer_at_once(method, raw, proof)
            if outcome is None:
                loop = asyncio.get_running_loop()
                here = contextvars.copy_context()  # where the deadline is
                outcome = await loop.run_in_executor(
                    self._pool, here.run, self._gate.answer, method, raw, proof
                )
            return outcome
        finally:
            give_back()

    async def _stream(
        self, method: StreamMethod, receive: Receive, proof: Proof
    ) -> Stream | Refusal:
        try:
            raw = await _read(
                receive,
                method.request_bytes_max,
                lambda length: self._gate.admit(method, length, proof),
            )
        except PdpError as error:
            return self._gate.refuse(method, error)
        return self._gate.open(method, raw, proof)

    async def _health(self, receive: Receive) -> Outcome:
        raw = await _read(receive, _HEALTH_BYTES_MAX, lambda _: None)
        try:
            request = health_pb2.HealthCheckRequest.FromString(raw)
        except DecodeError:
            return _refusal(grpc.StatusCode.INVALID_ARGUMENT, "is not a HealthCheckRequest")
        if request.service:
            return _refusal(grpc.StatusCode.NOT_FOUND, "")
        status = health_pb2.HealthCheckResponse.ServingStatus
        answer: bytes = health_pb2.HealthCheckResponse(
            status=status.SERVING if self._serving else status.NOT_SERVING
        ).SerializeToString()
        return answer


def _headers_of(scope: Scope) -> tuple[bytes, Sequence[bytes], Sequence[bytes], bytes]:
    """Content type, values of `authorization`, of CERTIFICATE_HEADER, and `grpc-timeout`. The
    carrier bounds them."""
    authorizations: list[bytes] = []
    certificates: list[bytes] = []
    content_type = timeout = b""
    for name, value in scope["headers"]:
        if name == b"content-type":
            content_type = value
        elif name == b"authorization":
            authorizations.append(value)
        elif name == CERTIFICATE_HEADER:
            certificates.append(value)
        elif name == b"grpc-timeout":
            timeout = value
    return content_type, authorizations, certificates, timeout


def _is_grpc(content_type: bytes) -> bool:
    return content_type.startswith(_CONTENT_TYPE) and content_type[len(_CONTENT_TYPE) :][:1] in (
        b"",
        b"+",
        b";",
    )


async def _read(receive: Receive, bytes_max: int, admit: Callable[[int], object]) -> bytes:
    """The message of a request. `admit` is asked, once, before anything is waited for that did not
    come together with the headers: a stranger does not fill our memory."""
    chunk, more = await _chunk(receive)
    if not more:
        return message_of(chunk, bytes_max)
    reader = MessageReader(bytes_max)
    reader.feed(chunk)
    admit(reader.length)
    while more:
        chunk, more = await _chunk(receive)
        reader.feed(chunk)
    return reader.message()


async def _chunk(receive: Receive) -> tuple[bytes, bool]:
    """A part of the body, and whether more is to come."""
    event = await receive()
    if event["type"] == "http.disconnect":
        raise _LeftError
    return event["body"], event["more_body"]


async def _send_only_headers(
    send: Send, http_status: int, headers: Sequence[tuple[bytes, bytes]]
) -> None:
    await send(
        {
            "type": "http.response.start",
            "status": http_status,
            "headers": (_GRPC, _ACCEPT, *headers),
        }
    )
    await send({"type": "http.response.body"})


def _refusal(code: grpc.StatusCode, message: str) -> Refusal:
    return Refusal(code, status_pb2.Status(code=code.value[0], message=message))


def _certificate(values: Sequence[bytes]) -> bytes | None:
    """The certificate of the peer, and of nobody else, in Envoy's header."""
    found = _CERTIFICATE.fullmatch(values[0]) if len(values) == 1 else None
    return unquote_to_bytes(found[1]) if found else None


def _answers(listen: str) -> bool:
    family, address = socket_address(listen)
    with socket.socket(family) as probe:
        probe.settimeout(0.2)
        return probe.connect_ex(address) == 0
