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
        """Takes what came.

        Raises CompressedError, LimitExceeded as soon as the prefix says a length beyond the bound,
        and InvalidRequest for more than one message.
        """
        self._body += chunk
        if len(self._body) < _PREFIX.size:
            return
        compressed, self.length = _PREFIX.unpack_from(self._body)
        if compressed:
            raise CompressedError
        if self.length > self._bytes_max:
            raise LimitExceeded("request_bytes_max", self._bytes_max, self.length)
        if len(self._body) > _PREFIX.size + self.length:
            raise _not_one_message()

    def message(self) -> bytes:
        """The message, once all has come. Raises InvalidRequest where it is not whole."""
        if len(self._body) < _PREFIX.size or len(self._body) != _PREFIX.size + self.length:
            raise _not_one_message()
        return bytes(memoryview(self._body)[_PREFIX.size :])


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
