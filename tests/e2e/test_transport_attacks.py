"""Peers that abuse HTTP/2 disturb neither the process nor its other clients.

Bytes are written by hand where the h2 library would refuse to send them.
"""

import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
import h2.config
import h2.connection
import h2.exceptions
import pytest
from pdpapi.v1.decision_service_pb2 import CheckRequest

from tests.e2e.test_check import ask, reason_of, refusal
from tests.kit.server import ServerProcess, Stubs, stubs_on
from tests.kit.waiting import eventually

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
SETTINGS = b"\x00\x00\x00\x04\x00\x00\x00\x00\x00"
HEADERS, RST_STREAM, PING, CONTINUATION = 0x1, 0x3, 0x6, 0x9
END_STREAM, END_HEADERS = 0x1, 0x4
MEBIBYTE = 1024
PATH = "/pdpapi.v1.PolicyDecisionService/Check"
REQUEST_HEADERS = [
    (":method", "POST"),
    (":scheme", "http"),
    (":path", PATH),
    (":authority", "127.0.0.1"),
    ("content-type", "application/grpc"),
    ("te", "trailers"),
]


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    length = len(payload).to_bytes(3, "big")
    return length + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


@contextmanager
def connection(server: ServerProcess) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as peer:
        peer.sendall(PREFACE + SETTINGS)
        yield peer


def resident_kib(server: ServerProcess) -> int:
    status = "".join(Path(f"/proc/{pid}/status").read_text() for pid in server.pids())
    return sum(int(kib) for kib in re.findall(r"^VmRSS:\s+(\d+)", status, re.MULTILINE))


@contextmanager
def good_client(stubs: Stubs) -> Iterator[list[float]]:
    """Asks all the while; every call must be answered, and rightly."""
    done = threading.Event()
    seconds: list[float] = []
    wrong: list[object] = []

    def keep_asking() -> None:
        while not done.is_set():
            started = time.monotonic()
            try:
                reason = reason_of(ask(stubs, "user_ivan", "course:edit"))
            except grpc.RpcError as error:
                wrong.append(error)
            else:
                if reason != "ALLOWED_BY_RULE":
                    wrong.append(reason)
            seconds.append(time.monotonic() - started)

    thread = threading.Thread(target=keep_asking)
    thread.start()
    try:
        yield seconds
    finally:
        done.set()
        thread.join()
    assert not wrong
    assert seconds
    assert sorted(seconds)[len(seconds) * 99 // 100] < 2


def send_until_refused(peer: socket.socket, chunks: Iterator[bytes]) -> int:
    """How many chunks went out before the server closed the connection."""
    sent = 0
    peer.settimeout(5)
    try:
        for chunk in chunks:
            peer.sendall(chunk)
            sent += 1
    except OSError:
        pass
    return sent


def test_rapid_resets_do_not_disturb_others(server: ServerProcess, stubs: Stubs) -> None:
    """CVE-2023-44487: streams opened and reset at once, without end."""
    before = resident_kib(server)
    client = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True))
    client.initiate_connection()

    def resets() -> Iterator[bytes]:
        yield client.data_to_send()
        for number in range(20_000):
            stream = 2 * number + 1
            yield (
                frame(HEADERS, END_HEADERS, stream, client.encoder.encode(REQUEST_HEADERS))
                + frame(RST_STREAM, 0, stream, (8).to_bytes(4, "big"))
            )

    with (
        good_client(stubs),
        socket.create_connection(("127.0.0.1", server.port), timeout=10) as peer,
    ):
        send_until_refused(peer, resets())
    assert resident_kib(server) - before < 64 * MEBIBYTE


@pytest.mark.parametrize("kind", ["ping", "settings"])
def test_floods_of_control_frames_do_not_disturb_others(
    server: ServerProcess, stubs: Stubs, kind: str
) -> None:
    one = SETTINGS if kind == "settings" else frame(PING, 0, 0, b"12345678")
    before = resident_kib(server)
    with good_client(stubs), connection(server) as peer:
        send_until_refused(peer, (one * 100 for _ in range(500)))
    assert resident_kib(server) - before < 64 * MEBIBYTE


def test_endless_header_blocks_are_cut_off(server: ServerProcess, stubs: Stubs) -> None:
    """CVE-2023-33953 and the CONTINUATION floods of 2024: a header block that never ends."""
    before = resident_kib(server)
    # A literal header field whose name is announced as four gibibytes.
    announced = b"\x00\x7f\x81\xff\xff\xff\x0f"

    def blocks() -> Iterator[bytes]:
        yield frame(HEADERS, 0, 1, announced)
        for _ in range(20_000):
            yield frame(CONTINUATION, 0, 1, b"a" * 1024)

    with good_client(stubs), connection(server) as peer:
        sent = send_until_refused(peer, blocks())
        assert sent < 20_000, "the connection was closed"
    assert resident_kib(server) - before < 64 * MEBIBYTE


@pytest.mark.parametrize(
    "block",
    [
        b"\x00\x7f\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",  # a length beyond 64 bits
        b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x7f",  # an index beyond 64 bits
        b"\xff",  # an index that is cut off
        b"\x3f\xff\xff\xff\xff\x0f",  # a dynamic table of four gibibytes
    ],
)
def test_a_broken_header_block_breaks_its_own_connection_only(
    server: ServerProcess, stubs: Stubs, block: bytes
) -> None:
    """CVE-2024-7246: what one peer sends must not change what another's headers mean."""
    with good_client(stubs), connection(server) as peer:
        peer.sendall(frame(HEADERS, END_HEADERS | END_STREAM, 1, block))
        peer.settimeout(5)
        received = b""
        try:
            while chunk := peer.recv(4096):
                received += chunk
                if b"\x07" in received[3:]:  # GOAWAY
                    break
        except OSError:
            pass
        assert received


def test_metadata_that_is_not_base64_is_an_error_and_not_a_crash(
    server: ServerProcess, stubs: Stubs
) -> None:
    """CVE-2023-32732 and CVE-2023-1428: `-bin` headers that abort the server."""
    for value in ("%%%", "=", "a", "\x7f"):
        client = h2.connection.H2Connection(
            h2.config.H2Configuration(client_side=True, validate_outbound_headers=False)
        )
        client.initiate_connection()
        client.send_headers(1, [*REQUEST_HEADERS, ("x-odd-bin", value)], end_stream=True)
        with socket.create_connection(("127.0.0.1", server.port), timeout=10) as peer:
            peer.sendall(client.data_to_send())
            assert peer.recv(4096)
    assert reason_of(ask(stubs, "user_ivan", "course:edit")) == "ALLOWED_BY_RULE"


def test_a_thousand_idle_connections_keep_nobody_out(server: ServerProcess, stubs: Stubs) -> None:
    """CVE-2023-4785: connections that are opened and left."""
    peers: list[socket.socket] = []
    try:
        with good_client(stubs):
            for number in range(1_000):
                try:
                    peer = socket.create_connection(("127.0.0.1", server.port), timeout=10)
                except OSError:
                    break
                peers.append(peer)
                if number % 2:
                    peer.sendall(PREFACE[: number % len(PREFACE)])
            with server.channel() as late:
                grpc.channel_ready_future(late).result(timeout=10)
    finally:
        for peer in peers:
            peer.close()
    assert len(peers) > 500


def test_a_message_of_many_small_fields_does_not_eat_the_memory(
    server: ServerProcess, stubs: Stubs
) -> None:
    """CVE-2022-1941: 4 MB of one-byte entries, to each service."""
    before = resident_kib(server)
    unknown = b"\xf8\x07\x01" * (4 * 1024 * 1024 // 3 - 16)
    entries = b"\x0a\x00" * 60_000
    context = b"\x22" + _varint(len(entries)) + entries
    items = b"\x12\x00" * (2 * 1024 * 1024 - 16)
    calls: list[Callable[[], object]] = [
        lambda: _raw(stubs, PATH, unknown),
        lambda: _raw(stubs, PATH, b"\x12\x03a:b" + context),
        lambda: _raw(stubs, "/pdpapi.v1.PolicyDecisionService/BatchCheck", items),
        lambda: _raw(stubs, "/pdpapi.v1.PolicyDecisionService/BatchCheck", unknown),
    ]
    for call in calls:
        error = refusal(call)
        assert error.code() in {
            grpc.StatusCode.INVALID_ARGUMENT,
            grpc.StatusCode.RESOURCE_EXHAUSTED,
        }
    assert resident_kib(server) - before < 256 * MEBIBYTE
    assert reason_of(ask(stubs, "user_ivan", "course:edit")) == "ALLOWED_BY_RULE"


def test_a_client_that_cancels_leaves_nothing_behind(server: ServerProcess, stubs: Stubs) -> None:
    """Envoy CVE-2026-50572: answers to calls that are gone."""
    request = CheckRequest(actor_token="x", permission="course:view")
    for delay in (0, 0.0002, 0.0005, 0.001, 0.002):
        for _ in range(100):
            call = stubs.decision.Check.future(request)
            time.sleep(delay)
            call.cancel()
    # A connection that cancels so much may be refused for a while; nobody else is.
    with server.channel() as channel:
        eventually(lambda: allows(stubs_on(channel)))
    assert "Traceback" not in server.log()


def allows(stubs: Stubs) -> bool:
    """Whether it answers; what it answers is asserted."""
    try:
        answer = ask(stubs, "user_ivan", "course:edit")
    except grpc.RpcError as error:
        assert error.code() is grpc.StatusCode.UNAVAILABLE
        return False
    assert reason_of(answer) == "ALLOWED_BY_RULE"
    return True


def _raw(stubs: Stubs, path: str, message: bytes) -> object:
    call = stubs.channel.unary_unary(path, request_serializer=None, response_deserializer=None)
    return call(message, timeout=20)


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*out, number])
