"""Outgoing exchanges against servers that keep them open: one deadline for all of an exchange."""

import contextlib
import socket
import threading
import time
from collections.abc import Iterator, Sequence

import httpx
import pytest

from pdp.outgoing import BoundExceeded, open_client

GAP_SECONDS = 0.05
LINE = b"X-Padding: 1\r\n"
HEAD = b"HTTP/1.1 200 OK\r\n"
TRICKLES = {
    "a silent server": [],
    "a status line": [bytes([byte]) for byte in b"HTTP/1.1 200 " + b"O" * 500],
    "header lines": [HEAD, *[LINE] * 500],
    "informational answers": [b"HTTP/1.1 103 Early Hints\r\n\r\n"] * 500,
    "a body": [HEAD + b"Content-Length: 500\r\n\r\n", *[b" "] * 500],
    "chunks": [HEAD + b"Transfer-Encoding: chunked\r\n\r\n", *[b"1\r\n \r\n"] * 500],
    "trailers": [HEAD + b"Transfer-Encoding: chunked\r\n\r\n0\r\n", *[LINE] * 500],
}
# The head of a TLS record of 16 KiB, which never becomes whole.
HANDSHAKE = [b"\x16\x03\x03\x40\x00", *[b"\x00"] * 500]


class Server:
    """Sends pieces one by one, whatever it is asked."""

    def __init__(self, pieces: Sequence[bytes]) -> None:
        self._pieces = pieces
        self._ended = threading.Event()
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._socket.getsockname()[1]}"
        self.hung_up = threading.Event()
        """The client has closed its side."""
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._ended.set()
        self._socket.close()
        self._thread.join(5)

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            connection, _ = self._socket.accept()
            with connection:
                connection.recv(65536)
                for piece in self._pieces:
                    connection.sendall(piece)
                    if self._ended.wait(GAP_SECONDS):
                        return
                while connection.recv(65536):
                    pass
        self.hung_up.set()


@contextlib.contextmanager
def sending(pieces: Sequence[bytes]) -> Iterator[Server]:
    server = Server(pieces)
    try:
        yield server
    finally:
        server.close()


def get(url: str, *, seconds_max: float = 0.3, bytes_max: int = 1000) -> httpx.Response:
    with open_client(seconds_max=seconds_max, bytes_max=bytes_max) as client:
        return client.get(url)


@pytest.mark.parametrize("pieces", TRICKLES.values(), ids=TRICKLES)
def test_a_server_that_trickles_holds_an_exchange_no_longer_than_the_deadline(
    pieces: Sequence[bytes],
) -> None:
    with sending(pieces) as server:
        began = time.monotonic()
        with pytest.raises(BoundExceeded, match=r"took more than 0\.3 s"):
            get(f"http://{server.address}/")
        assert time.monotonic() - began < 10  # every trickle would last 25 s
        assert server.hung_up.wait(10), "the connection is left open"


def test_a_trickling_tls_handshake_is_within_the_deadline() -> None:
    with sending(HANDSHAKE) as server:
        with pytest.raises(BoundExceeded):
            get(f"https://{server.address}/")
        assert server.hung_up.wait(10)


def test_the_timeout_of_the_library_alone_would_not_end_a_trickle() -> None:
    """The control of the tests above: one second of header lines passes a timeout of half a one."""
    pieces = [HEAD, *[LINE] * 20, b"Content-Length: 0\r\n\r\n"]
    with sending(pieces) as server, httpx.Client(timeout=0.5, trust_env=False) as client:
        began = time.monotonic()
        assert client.get(f"http://{server.address}/").status_code == 200
        assert time.monotonic() - began > 0.5
    with sending(pieces) as server, pytest.raises(BoundExceeded):
        get(f"http://{server.address}/", seconds_max=0.5)


def test_an_answer_in_time_arrives_whole() -> None:
    pieces = [HEAD + b"Content-Length: 2\r\nX-Kind: small\r\n\r\n", b"o", b"k"]
    with sending(pieces) as server:
        answer = get(f"http://{server.address}/", seconds_max=30)
    assert (answer.status_code, answer.headers["x-kind"], answer.content) == (200, "small", b"ok")


def test_a_body_past_its_bound_is_not_read_to_its_end() -> None:
    pieces = [HEAD + b"Content-Length: 1000000\r\n\r\n", *[b"x" * 600] * 500]
    with sending(pieces) as server, pytest.raises(BoundExceeded, match="more than 1000 bytes"):
        get(f"http://{server.address}/", seconds_max=30)


def test_one_client_serves_several_threads_and_a_slow_exchange_holds_no_other() -> None:
    fast = [HEAD + b"Content-Length: 2\r\n\r\nok"]
    with (
        sending(TRICKLES["a body"]) as slow,
        sending(fast) as quick,
        open_client(seconds_max=20, bytes_max=1000) as client,
    ):
        failures: list[Exception] = []

        def ask() -> None:
            try:
                client.get(f"http://{slow.address}/")
            except httpx.HTTPError as error:
                failures.append(error)

        waiting = threading.Thread(target=ask, daemon=True)
        waiting.start()
        assert client.get(f"http://{quick.address}/").content == b"ok"
        assert waiting.is_alive()
        slow.close()  # cuts the answer short
        waiting.join(10)
        assert len(failures) == 1
