"""Peers that hold the port of probes and webhooks, on a real server.

Kubernetes restarts a pod whose probe is not answered, so whatever comes, `/healthz` is.
"""

import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from pdp.http import http_application
from pdp.process.metrics import Metrics
from tests.kit.clerk.events import INSTANCE_ID, SECRET, deliver, event, signed
from tests.kit.server import ServerProcess, running_server
from tests.kit.waiting import eventually
from tests.kit.wire.listening import listening

PROBE = b"GET /healthz HTTP/1.1\r\nHost: pdp\r\nConnection: close\r\n\r\n"
START = b"POST /webhooks/clerk HTTP/1.1\r\nHost: pdp\r\nContent-Length: 1000\r\n"
PROBE_SECONDS_MAX = 2.0
"""A probe of Kubernetes waits for one second; this machine may be busy with other tests."""


@pytest.fixture(scope="module")
def attacked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    clerk = {"instance_id": INSTANCE_ID, "webhook_secrets": [SECRET]}
    with running_server(tmp_path_factory.mktemp("attacked"), CLERK=clerk) as (server, _):
        yield server
        assert "Traceback" not in server.log()


@contextmanager
def held(port: int, number: int, first: Callable[[], bytes], then: bytes = b"") -> Iterator[None]:
    """That many connections, which send `first`, then `then` all the while, and are renewed when
    the server closes them."""
    over = threading.Event()

    def hold(connections: Sequence[None]) -> None:
        opened = {opened_connection(port, first()) for _ in connections}
        while not over.wait(0.2):
            for connection in tuple(opened):
                if not is_open(connection, then):
                    connection.close()
                    opened.remove(connection)
                    opened.add(opened_connection(port, first()))
        for connection in opened:
            connection.close()

    thread = threading.Thread(target=hold, args=([None] * number,))
    thread.start()
    try:
        time.sleep(0.3)
        yield
    finally:
        over.set()
        thread.join()


def opened_connection(port: int, first: bytes) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", port), timeout=10)
    with suppress(OSError):
        connection.sendall(first)
    connection.setblocking(False)
    return connection


def is_open(connection: socket.socket, then: bytes) -> bool:
    try:
        if then:
            connection.send(then)
        return connection.recv(4096) != b""
    except BlockingIOError:
        return True
    except OSError:
        return False


def probed(port: int) -> bool:
    """Whether a probe is answered in time."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=PROBE_SECONDS_MAX) as probe:
            probe.sendall(PROBE)
            return probe.recv(1000).startswith(b"HTTP/1.1 200 ")
    except OSError:
        return False


def right_headers() -> bytes:
    """As anybody can make them: they are not yet a proof."""
    lines = (f"{name}: {value}\r\n" for name, value in signed(b"").items())
    return START + "".join(lines).encode() + b"\r\n{"


@pytest.mark.parametrize(
    ("first", "then"),
    [
        (b"", b""),
        (b"GET /healthz HTTP/1.1\r\n", b""),
        (b"GET /healthz HTTP/1.1\r\nX-Slow: ", b"a"),
        (b"GET /healthz HTTP/1.1\r\nHost: pdp\r\n\r\n", b""),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b""),
        (b"PRI * HT", b""),
        (START + b"\r\n{", b" "),
    ],
    ids=["idle", "half a head", "slow head", "answered", "preface", "half a preface", "unsigned"],
)
def test_held_connections_keep_no_probe_and_no_webhook_out(
    attacked: ServerProcess, first: bytes, then: bytes
) -> None:
    """Slowloris, CVE-2007-6750 and its like: 300 sockets that are renewed when closed."""
    port = attacked.http_port
    with held(port, 300, lambda: first, then):
        assert [probed(port) for _ in range(50)] == [True] * 50
        for _ in range(12):
            assert deliver(port, event("email.created", {})) == (200, "ignored\n")


def test_bodies_that_trickle_keep_no_probe_and_no_webhook_out(attacked: ServerProcess) -> None:
    """Their headers are right, so they are read; the oldest gives way."""
    port = attacked.http_port
    with held(port, 60, right_headers, b" "):
        assert [probed(port) for _ in range(50)] == [True] * 50
        for _ in range(12):
            assert deliver(port, event("email.created", {})) == (200, "ignored\n")


def test_at_its_bound_of_connections_a_port_closes_those_that_are_idle() -> None:
    """Idle connections that were answered make room within some seconds."""
    application = http_application(Metrics({}), list)
    with listening(application, connections_max=20) as port:
        keep_alive = PROBE.replace(b"Connection: close\r\n", b"")
        idle = [opened_connection(port, keep_alive) for _ in range(20)]
        with socket.create_connection(("127.0.0.1", port), timeout=20) as late:
            late.sendall(PROBE)
            assert late.recv(1000).startswith(b"HTTP/1.1 200 ")
        for connection in idle:
            connection.close()


def test_malformed_requests_leave_at_most_a_line_in_the_log(tmp_path: Path) -> None:
    with running_server(tmp_path, LOG_LEVEL="info") as (server, _):
        # A server logs both soon after it is ready, in any order.
        for logged in ("readiness", "serving"):
            eventually(lambda logged=logged: f'"event": "{logged}"' in server.log())
        before = len(server.log())
        for malformed in (
            b"\x16\x03\x01\r\n\r\n",
            b"GET /\r\n\r\n",
            b"GET / HTTP/1.1\r\n\r\n",
        ) * 100:
            with socket.create_connection(("127.0.0.1", server.http_port), timeout=5) as peer:
                peer.sendall(malformed)
                with suppress(ConnectionError):
                    while peer.recv(1000):
                        pass
        assert server.log()[before:].count("\n") <= 1
        assert probed(server.http_port)
