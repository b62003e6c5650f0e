"""gRPC's messages within an HTTP/2 body, and its statuses within headers.

Source: https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md
"""

import base64
import string
import struct
from collections.abc import Sequence
from urllib.parse import quote

from pdp.errors import InvalidRequest, LimitExceeded, Violation
from pdp.wire.gate import Refusal

Headers = Sequence[tuple[bytes, bytes]]

_PREFIX = struct.Struct(">BI")
_UNQUOTED = "".join(sorted(set(string.printable) - set(string.whitespace) - {"%"})) + " "


class CompressedError(Exception):
    """The message is compressed, which nobody here reads."""


class MessageReader:
    """Puts together the one message of a unary call, and holds no more than `bytes_max` of it."""

    __slots__ = ("_body", "_bytes_max", "length")

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self._body = bytearray()
        self.length = 0
        """Of the message, as its prefix says; 0 while that was not seen."""

    def feed(self, chunk: bytes) -> None:
        """Takes what came. Raises as `message_of`, as soon as that is known."""
        self._body += chunk
        self.length = _length(self._body, self._bytes_max)

    def message(self) -> bytes:
        """The message, once all has come. Raises as `message_of`."""
        return message_of(bytes(self._body), self._bytes_max)


def message_of(body: bytes, bytes_max: int) -> bytes:
    """The one message of a whole body.

    Raises CompressedError, LimitExceeded, and InvalidRequest where it is not one message.
    """
    if len(body) != _PREFIX.size + _length(body, bytes_max):
        raise _not_one_message()
    return body[_PREFIX.size :]


def _length(body: bytes | bytearray, bytes_max: int) -> int:
    """What the prefix says, where there is one; and checks what is known by then."""
    if len(body) < _PREFIX.size:
        return 0
    length: int
    compressed, length = _PREFIX.unpack_from(body)
    if compressed:
        raise CompressedError
    if length > bytes_max:
        raise LimitExceeded("request_bytes_max", bytes_max, length)
    if len(body) > _PREFIX.size + length:
        raise _not_one_message()
    return length


def framed(message: bytes) -> bytes:
    """A message as it goes over the wire, not compressed."""
    return _PREFIX.pack(0, len(message)) + message


def status_headers(refusal: Refusal) -> Headers:
    """A status as headers of a response without a body, or as trailers."""
    headers = [
        (b"grpc-status", b"%d" % refusal.status.code),
        (b"grpc-message", quote(refusal.status.message, safe=_UNQUOTED).encode("ascii")),
    ]
    if refusal.status.details:
        details = base64.b64encode(refusal.status.SerializeToString()).rstrip(b"=")
        headers.append((b"grpc-status-details-bin", details))
    return headers


def _not_one_message() -> InvalidRequest:
    return InvalidRequest(Violation("", "is not one length-prefixed message"))
