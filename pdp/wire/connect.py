"""The Connect protocol for unary methods: a POST with JSON or protobuf, which curl can send.

Source: https://connectrpc.com/docs/protocol (Unary-Request, Unary-Response).

A denial is HTTP 200 with the decision in its body; only errors are HTTP errors. Web pages can send
JSON too, so requests with an `Origin` are refused, no CORS header is ever sent, and without
configured callers only loopback names are accepted as `Host` (against DNS rebinding).
"""

import asyncio
import base64
import contextlib
import json
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, NamedTuple

import grpc
from google.protobuf import json_format
from google.protobuf.message import Message
from google.rpc import status_pb2

from pdp.concurrency.waiting import within
from pdp.errors import (
    CallerNotAllowed,
    InvalidRequest,
    LimitExceeded,
    PdpError,
    Violation,
)
from pdp.limits import ATTRIBUTE_DEPTH_MAX
from pdp.settings import is_loopback
from pdp.strict_json import NotStrictJson, parse_object
from pdp.wire.framing import ENCODINGS, GZIP, inflate
from pdp.wire.head import Head, checked_timeout
from pdp.wire.methods import AnyMethod, Method
from pdp.wire.pipeline import PROTO, Codec, Pipeline, Refusal, refusal_of

MESSAGE_SECONDS_MAX = 5.0
JSON_DEPTH_MAX: Final = ATTRIBUTE_DEPTH_MAX + 8

HTTP_STATUSES: Final[Mapping[grpc.StatusCode, int]] = {
    grpc.StatusCode.CANCELLED: 499,
    grpc.StatusCode.UNKNOWN: 500,
    grpc.StatusCode.INVALID_ARGUMENT: 400,
    grpc.StatusCode.DEADLINE_EXCEEDED: 504,
    grpc.StatusCode.NOT_FOUND: 404,
    grpc.StatusCode.ALREADY_EXISTS: 409,
    grpc.StatusCode.PERMISSION_DENIED: 403,
    grpc.StatusCode.RESOURCE_EXHAUSTED: 429,
    grpc.StatusCode.FAILED_PRECONDITION: 400,
    grpc.StatusCode.ABORTED: 409,
    grpc.StatusCode.OUT_OF_RANGE: 400,
    grpc.StatusCode.UNIMPLEMENTED: 501,
    grpc.StatusCode.INTERNAL: 500,
    grpc.StatusCode.UNAVAILABLE: 503,
    grpc.StatusCode.DATA_LOSS: 500,
    grpc.StatusCode.UNAUTHENTICATED: 401,
}
_NAMES: Final = {code: code.name.lower() for code in HTTP_STATUSES} | {
    grpc.StatusCode.CANCELLED: "canceled"
}
_CONTENT_TYPES: Final = {"json": b"application/json", "proto": b"application/proto"}

Chunk = Callable[[], Awaitable[tuple[bytes, bool]]]
"""Reads a part of the body. Returns its bytes, and whether there is more."""


class _Body:
    """Reads the body of a request in parts."""

    def __init__(self, chunk: Chunk) -> None:
        self._chunk = chunk
        self._more = True

    async def read(self) -> tuple[bytes, bool]:
        """The next part, and whether there is more."""
        part, self._more = await self._chunk()
        return part, self._more

    async def discard(self) -> None:
        """Discards the rest, up to the server's bound. In HTTP/2, a client that is still sending
        its body may take the end of the stream for an error and never read the answer."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(MESSAGE_SECONDS_MAX):
                while self._more:
                    await self.read()


class Response(NamedTuple):
    """An HTTP response."""

    status: int
    headers: list[tuple[bytes, bytes]]
    body: bytes


async def answer(
    pipeline: Pipeline,
    methods: Mapping[bytes, AnyMethod],
    scope: Mapping[str, Any],
    head: Head,
    chunk: Chunk,
    *,
    loopback_only: bool,
) -> Response:
    """Answers a request that is not gRPC."""
    body = _Body(chunk)
    response = await _response_to(pipeline, methods, scope, head, body, loopback_only=loopback_only)
    await body.discard()
    return response


def cross_site() -> PdpError:
    """The error of a request that a web page sent."""
    return CallerNotAllowed("requests of web pages (with an Origin header) are not answered")


async def _response_to(
    pipeline: Pipeline,
    methods: Mapping[bytes, AnyMethod],
    scope: Mapping[str, Any],
    head: Head,
    body: _Body,
    *,
    loopback_only: bool,
) -> Response:
    codec = _CODECS.get(head.protocol)
    if codec is None:
        return _not_a_request(scope)
    refusal = _cross_site_error(head, loopback_only=loopback_only)
    if refusal is not None:
        return _error(refusal_of(refusal))
    method = methods.get(b"" if scope["query_string"] else scope["raw_path"])
    if not isinstance(method, Method):
        return _unimplemented(404, "there is no such unary method")
    if head.encoding not in ENCODINGS:
        return _unimplemented(501, "the content encoding is not supported")
    return await _answer_method(pipeline, method, codec, head, body)


async def _answer_method(
    pipeline: Pipeline, method: Method, codec: Codec, head: Head, body: _Body
) -> Response:
    try:
        timeout = checked_timeout(head)
        first, more = await body.read()
        # Before the rest is read, so that a stranger fills no memory.
        caller = pipeline.admit(method, head.proof)
        rest = _read(body, first, more=more, bytes_max=method.request_bytes_max)
        raw = await within(MESSAGE_SECONDS_MAX, rest, "the body did not arrive in time")
        if head.encoding == GZIP:
            raw = inflate(raw, method.request_bytes_max)
    except PdpError as error:
        return _error(pipeline.refuse(method, error))
    outcome = await pipeline.answer(method, raw, caller, codec, timeout)
    if isinstance(outcome, Refusal):
        return _error(outcome)
    return _response(200, _CONTENT_TYPES[head.protocol], outcome)


async def _read(body: _Body, first: bytes, *, more: bool, bytes_max: int) -> bytes:
    """Reads the body that begins with `first`. Raises LimitExceeded."""
    whole = bytearray(first)
    while more and len(whole) <= bytes_max:
        part, more = await body.read()
        whole += part
    if len(whole) > bytes_max:
        raise LimitExceeded("request_bytes_max", bytes_max, len(whole))
    return bytes(whole)


def _parse_json(request: type[Message], raw: bytes) -> Message:
    message = request()
    try:
        json_format.ParseDict(
            parse_object(raw, depth_max=JSON_DEPTH_MAX),
            message,
            max_recursion_depth=2 * JSON_DEPTH_MAX,
        )
    except NotStrictJson as error:
        raise InvalidRequest(Violation("", f"is not a JSON object: {error}")) from None
    except json_format.ParseError as error:
        name = request.DESCRIPTOR.name
        raise InvalidRequest(Violation("", f"is not the JSON of a {name}: {error}")) from None
    return message


def _serialize_json(message: Message) -> bytes:
    return json_format.MessageToJson(message, indent=None, ensure_ascii=False).encode()


_CODECS: Final[Mapping[str, Codec]] = {"json": Codec(_parse_json, _serialize_json), "proto": PROTO}


def _cross_site_error(head: Head, *, loopback_only: bool) -> PdpError | None:
    """The error of a request that a web page may have sent; None: none did."""
    if head.origin:
        return cross_site()
    if loopback_only and not _is_loopback(head.host):
        return CallerNotAllowed(
            "without configured callers only a loopback name is accepted as Host; configure callers"
        )
    return None


def _is_loopback(host: bytes) -> bool:
    name = host.decode("latin-1").lower()
    if not name.endswith("]"):
        before, colon, port = name.rpartition(":")
        name = before if colon and port.isdecimal() else name
    return is_loopback(name.removesuffix("."))


def _not_a_request(scope: Mapping[str, Any]) -> Response:
    if scope["method"] != "POST":
        return _response(405, b"text/plain", b"use POST\n", (b"allow", b"POST"))
    accepted = b"application/grpc (HTTP/2), application/json, application/proto"
    return _response(415, b"text/plain", b"unsupported content type\n", (b"accept-post", accepted))


def _error(refusal: Refusal) -> Response:
    return _error_of(HTTP_STATUSES[refusal.code], refusal.code, refusal.status)


def _unimplemented(http_status: int, message: str) -> Response:
    return _error_of(http_status, grpc.StatusCode.UNIMPLEMENTED, status_pb2.Status(message=message))


def _error_of(http_status: int, code: grpc.StatusCode, status: status_pb2.Status) -> Response:
    error: dict[str, Any] = {"code": _NAMES[code], "message": status.message}
    if status.details:
        error["details"] = [
            {
                "type": detail.type_url.rpartition("/")[2],
                "value": base64.b64encode(detail.value).rstrip(b"=").decode("ascii"),
            }
            for detail in status.details
        ]
    return _response(http_status, b"application/json", json.dumps(error).encode())


def _response(
    status: int, content_type: bytes, body: bytes, *headers: tuple[bytes, bytes]
) -> Response:
    length = (b"content-length", str(len(body)).encode())
    return Response(status, [(b"content-type", content_type), length, *headers], body)
