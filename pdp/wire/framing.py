"""gRPC's messages in an HTTP/2 body, and its statuses in headers.

Source: https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md
"""

import base64
import string
import struct
import zlib
from collections.abc import Sequence
from urllib.parse import quote

from pdp.errors import InvalidRequest, LimitExceeded, Violation
from pdp.wire.pipeline import Refusal

Headers = Sequence[tuple[bytes, bytes]]

IDENTITY, GZIP = b"identity", b"gzip"
ENCODINGS = (IDENTITY, GZIP)
"""The accepted encodings of requests. Answers are never compressed."""

_PREFIX = struct.Struct(">BI")
_PREFIX_BYTES = _PREFIX.size
_GZIP_WINDOW = zlib.MAX_WBITS | 16
_UNQUOTED = "".join(sorted(set(string.printable) - set(string.whitespace) - {"%"})) + " "


class EncodingError(Exception):
    """The compression of the message is not supported."""


class MessageReader:
    """Splits a body into messages. Holds at most a message and the bytes that arrived with it."""

    __slots__ = ("_body", "_bytes_max", "_encoding")

    def __init__(self, bytes_max: int, encoding: bytes) -> None:
        self._bytes_max = bytes_max
        self._encoding = encoding
        self._body = bytearray()

    @property
    def rest(self) -> int:
        """The number of bytes not taken as part of a message."""
        return len(self._body)

    def feed(self, chunk: bytes) -> None:
        """Adds a part of the body. Raises as `check_prefix`."""
        self._body += chunk
        check_prefix(self._body, self._bytes_max, self._encoding)

    def take(self) -> bytes | None:
        """The next message; None: it is incomplete. Raises as `message_of`."""
        if len(self._body) < _PREFIX_BYTES:
            return None
        end = _PREFIX_BYTES + _length(self._body, self._bytes_max, self._encoding)
        if len(self._body) < end:
            return None
        message = _decoded(bytes(self._body[:end]), self._bytes_max)
        del self._body[:end]
        return message


def check_prefix(body: bytes | bytearray, bytes_max: int, encoding: bytes) -> None:
    """Raises EncodingError or LimitExceeded as soon as the prefix of a message shows the
    problem."""
    if len(body) >= _PREFIX_BYTES:
        _length(body, bytes_max, encoding)


def message_of(body: bytes, bytes_max: int, encoding: bytes) -> bytes:
    """The only message of a whole body.

    Raises:
        EncodingError: the compression is not supported.
        LimitExceeded: the message is too large.
        InvalidRequest: the body is not exactly one message.
    """
    if len(body) < _PREFIX_BYTES or len(body) != _PREFIX_BYTES + _length(body, bytes_max, encoding):
        raise not_one_message()
    return _decoded(body, bytes_max)


def inflate(data: bytes, bytes_max: int) -> bytes:
    """The content of a gzip member of at most `bytes_max` bytes.

    Raises:
        LimitExceeded: the content is too large.
        InvalidRequest: the data is not exactly one member.
    """
    inflater = zlib.decompressobj(_GZIP_WINDOW)
    try:
        content = inflater.decompress(data, bytes_max + 1)
    except zlib.error:
        raise InvalidRequest(Violation("", "is not gzip data")) from None
    if len(content) > bytes_max:
        raise LimitExceeded("request_bytes_max", bytes_max, len(content))
    if not inflater.eof or inflater.unused_data:
        raise InvalidRequest(Violation("", "is not one gzip member"))
    return content


def framed(message: bytes) -> bytes:
    """A message with its prefix, not compressed."""
    return _PREFIX.pack(0, len(message)) + message


def status_headers(refusal: Refusal) -> Headers:
    """A status as the headers of a response without a body, or as trailers."""
    headers = [
        (b"grpc-status", b"%d" % refusal.status.code),
        (b"grpc-message", quote(refusal.status.message, safe=_UNQUOTED).encode("ascii")),
    ]
    if refusal.status.details:
        details = base64.b64encode(refusal.status.SerializeToString()).rstrip(b"=")
        headers.append((b"grpc-status-details-bin", details))
    return headers


def not_one_message() -> InvalidRequest:
    """The error of a body that is not exactly one message."""
    return InvalidRequest(Violation("", "is not one length-prefixed message"))


def _length(body: bytes | bytearray, bytes_max: int, encoding: bytes) -> int:
    length: int
    flags, length = _PREFIX.unpack_from(body)
    if flags > 1 or (flags == 1 and encoding != GZIP):
        raise EncodingError
    if length > bytes_max:
        raise LimitExceeded("request_bytes_max", bytes_max, length)
    return length


def _decoded(frame: bytes, bytes_max: int) -> bytes:
    message = frame[_PREFIX_BYTES:]
    return inflate(message, bytes_max) if frame[0] else message
