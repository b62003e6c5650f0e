"""The headers of a request that this service reads."""

from collections.abc import Mapping
from itertools import chain
from typing import Any, Final, Literal, NamedTuple

from pdp.errors import InvalidRequest, LimitExceeded, Violation
from pdp.limits import METADATA_BYTES_MAX
from pdp.wire.callers import Proof

Protocol = Literal["grpc", "json", "proto", "none"]

_PROTOCOLS: Final[Mapping[bytes, Protocol]] = {
    b"application/grpc": "grpc",
    b"application/grpc+proto": "grpc",
    b"application/json": "json",
    b"application/json;charset=utf-8": "json",
    b"application/proto": "proto",
}
# https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md: at most 8 digits and a unit.
_UNITS: Final = {b"H": 3600.0, b"M": 60.0, b"S": 1.0, b"m": 1e-3, b"u": 1e-6, b"n": 1e-9}
_TIMEOUT_DIGITS_MAX: Final = 10
TIMEOUT_SECONDS_MAX: Final = 3600.0


class Head(NamedTuple):
    """The head of a request."""

    protocol: Protocol
    """`none`: the protocol is not supported."""
    proof: Proof
    encoding: bytes
    """The encoding of the messages in the body."""
    timeout: bytes | None
    """See `checked_timeout`."""
    origin: bool
    """Whether a browser sent it on behalf of a web page."""
    host: bytes
    size: int
    """The size of all headers in bytes."""


def head_of(scope: Mapping[str, Any]) -> Head:
    """The head of an ASGI request. The server bounds the number and the size of its headers."""
    headers = scope["headers"]
    found = dict(headers)
    keys = [value for name, value in headers if name == b"authorization"]
    content_type = found.get(b"content-type", b"")
    protocol = _PROTOCOLS.get(content_type) or _protocol(content_type)
    # A cross-site request cannot use HTTP/2 in clear text; gRPC requires HTTP/2 anyway.
    if scope["method"] != "POST" or (protocol == "grpc" and scope["http_version"][:1] == "1"):
        protocol = "none"
    encoding = b"grpc-encoding" if protocol == "grpc" else b"content-encoding"
    timeout = b"grpc-timeout" if protocol == "grpc" else b"connect-timeout-ms"
    return Head(
        protocol,
        Proof(keys, _certificate(scope)),
        found.get(encoding, b"identity"),
        found.get(timeout),
        b"origin" in found,
        found.get(b"host", b""),
        sum(map(len, chain.from_iterable(headers))),
    )


def checked_timeout(head: Head) -> float | None:
    """How long the client waits for the answer, in seconds from now; None: without limit.

    Raises:
        InvalidRequest: the timeout is malformed.
        LimitExceeded: the headers are too large.
    """
    if head.size > METADATA_BYTES_MAX:
        raise LimitExceeded("metadata_bytes_max", METADATA_BYTES_MAX, head.size)
    value = head.timeout
    if value is None:
        return None
    digits, unit = (
        (value[:-1], _UNITS.get(value[-1:])) if head.protocol == "grpc" else (value, 1e-3)
    )
    if not unit or not digits.isdigit() or len(digits) > _TIMEOUT_DIGITS_MAX:
        raise InvalidRequest(Violation("timeout", "is not a timeout of the protocol"))
    return min(int(digits) * unit, TIMEOUT_SECONDS_MAX)


def _protocol(content_type: bytes) -> Protocol:
    media_type, _, parameters = content_type.lower().partition(b";")
    media_type, parameters = media_type.strip(), parameters.replace(b" ", b"")
    if media_type in (b"application/grpc", b"application/grpc+proto"):
        return "grpc"
    if parameters not in (b"", b"charset=utf-8", b'charset="utf-8"'):
        return "none"
    return _PROTOCOLS.get(media_type, "none")


def _certificate(scope: Mapping[str, Any]) -> bytes | None:
    """The PEM certificate of the client, verified by the server's TLS (ASGI's `tls` extension)."""
    tls = scope.get("extensions", {}).get("tls")
    chain = tls.get("client_cert_chain") if tls else None
    return next(iter(chain)).encode() if chain else None
