"""Frames of HTTP/2 written by hand, for what the h2 library refuses to send."""

import socket
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

import h2.config
import h2.connection

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS = 0x0, 0x1, 0x2, 0x3, 0x4
PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = 0x6, 0x7, 0x8, 0x9
END_STREAM, END_HEADERS = 0x1, 0x4
HEADER_TABLE_SIZE, INITIAL_WINDOW_SIZE = 0x1, 0x4
CHECK = "/pdpapi.v1.PolicyDecisionService/Check"


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """One frame."""
    length = len(payload).to_bytes(3, "big")
    return length + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


def settings(values: Sequence[tuple[int, int]] = ()) -> bytes:
    """A SETTINGS frame."""
    pairs = (key.to_bytes(2, "big") + value.to_bytes(4, "big") for key, value in values)
    return frame(SETTINGS, 0, 0, b"".join(pairs))


def number(value: int) -> bytes:
    """A payload of 32 bits."""
    return value.to_bytes(4, "big")


def request_headers(path: str = CHECK) -> list[tuple[str, str]]:
    """The headers of a gRPC call."""
    return [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", path),
        (":authority", "127.0.0.1"),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
    ]


def message(raw: bytes) -> bytes:
    """With gRPC's prefix."""
    return b"\x00" + len(raw).to_bytes(4, "big") + raw


def calls(number_: int, after: bytes = b"") -> Iterator[tuple[int, bytes]]:
    """(stream, header block) of so many calls on one connection."""
    config = h2.config.H2Configuration(client_side=True)
    encoder = h2.connection.H2Connection(config).encoder
    for call in range(number_):
        yield 2 * call + 1, encoder.encode(request_headers()) + after


def header_bombs(requests: int = 300) -> Iterator[bytes]:
    """A header of 4 KB, then requests that repeat it 12,000 times by one byte each: 48 MB."""
    value = b"a" * 4_000
    length = len(value) - 127
    header = b"\x40\x01x\x7f" + bytes([length & 0x7F | 0x80, length >> 7]) + value
    # Literals that are not indexed, so that the header of 4 KB remains the newest entry.
    call = b"".join(
        b"\x00" + bytes([len(name)]) + name.encode() + bytes([len(text)]) + text.encode()
        for name, text in request_headers()
    )
    yield frame(HEADERS, END_HEADERS | END_STREAM, 1, call + header)
    for request in range(1, requests + 1):
        yield frame(HEADERS, END_HEADERS | END_STREAM, 2 * request + 1, call + b"\xbe" * 12_000)


@dataclass
class Peer:
    """A connection whose answers are read all the while."""

    socket: socket.socket
    received: bytearray = field(default_factory=bytearray)
    closed: threading.Event = field(default_factory=threading.Event)
    """Set once the server has closed the connection."""

    def send(self, chunks: Iterable[bytes]) -> int:
        """How many chunks went out before the server closed the connection, if it did."""
        sent = 0
        try:
            for chunk in chunks:
                self.socket.sendall(chunk)
                sent += 1
        except OSError:
            pass
        return sent

    def frames(self) -> list[tuple[int, int, bytes]]:
        """(kind, stream, payload) of each frame that was received."""
        found, data, at = [], bytes(self.received), 0
        while at + 9 <= len(data):
            length = int.from_bytes(data[at : at + 3], "big")
            stream = int.from_bytes(data[at + 5 : at + 9], "big")
            found.append((data[at + 3], stream, data[at + 9 : at + 9 + length]))
            at += 9 + length
        return found

    def goaway(self) -> int | None:
        """The error code with which the server ended the connection."""
        for kind, _, payload in self.frames():
            if kind == GOAWAY:
                return int.from_bytes(payload[4:8], "big")
        return None

    def read(self) -> None:
        """Reads until the connection is closed."""
        open_ = True
        while open_:
            try:
                chunk = self.socket.recv(65536)
                self.received += chunk
                open_ = bool(chunk)
            except TimeoutError:
                continue
            except OSError:
                open_ = False
        self.closed.set()


@contextmanager
def connected(port: int, first: bytes | None = None, *, reading: bool = True) -> Iterator[Peer]:
    """A peer that has sent `first`, by default the preface and empty settings."""
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        peer = Peer(connection)
        connection.sendall(PREFACE + settings() if first is None else first)
        reader = threading.Thread(target=peer.read, daemon=True)
        if reading:
            reader.start()
        yield peer
        with suppress(OSError):  # ends the reader
            connection.shutdown(socket.SHUT_RDWR)
