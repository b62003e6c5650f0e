"""Receivers of records: HTTP and syslog over TLS, which can fail in chosen ways."""

import contextlib
import gzip
import http.server
import re
import socket
import socketserver
import ssl
import struct
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from cryptography import x509

from tests.kit.wire.tls import Authority


@dataclass
class HttpReceiver:
    """Stores the lines of each body, and answers with `answer(lines)`."""

    url: str = ""
    lines: list[str] = field(default_factory=list)
    """Of the requests that were answered with 2xx."""
    requests: list[int] = field(default_factory=list)
    """The status of each."""
    headers: list[dict[str, str]] = field(default_factory=list)
    answer: Callable[[list[str]], int] = lambda _: 200


def _lines_of(body: bytes) -> list[str]:
    assert body.endswith(b"\n")
    return body.decode().splitlines()


@contextlib.contextmanager
def http_receiver(
    read: Callable[[bytes], list[str]] = _lines_of, reply: Callable[[], bytes] = bytes
) -> Iterator[HttpReceiver]:
    """An HTTP receiver on a free port.

    Args:
        read: Returns the lines of a body.
        reply: Returns the body of an answer.
    """
    receiver = HttpReceiver()

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            if self.headers.get("content-encoding") == "gzip":
                body = gzip.decompress(body)
            lines = read(body)
            status = receiver.answer(lines)
            content = reply()
            receiver.requests.append(status)
            receiver.headers.append({name.lower(): value for name, value in self.headers.items()})
            if status < 300:
                receiver.lines += lines
            self.send_response(status)
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        receiver.url = f"http://127.0.0.1:{server.server_address[1]}/records"
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield receiver
        finally:
            server.shutdown()
            thread.join()


def frames(content: bytes) -> list[str]:
    """The messages of a stream with octet counts (RFC 5425, 4.3), parsed strictly."""
    found = []
    while content:
        count = re.match(rb"([1-9][0-9]{0,9}) ", content)
        assert count is not None, content[:80]
        end = count.end() + int(count[1])
        assert end <= len(content), "a frame is cut off"
        found.append(content[count.end() : end].decode())
        content = content[end:]
    return found


@dataclass(frozen=True)
class TlsFiles:
    """The files of a TLS server of one test."""

    authority: Path
    certificate: Path
    key: Path
    client_certificate: Path
    client_key: Path


def tls_files(directory: Path, host: str = "localhost") -> TlsFiles:
    """A certificate for `host` and one for a client, with their authority."""
    authority = Authority("receivers")
    key, certificate = authority.issue(x509.DNSName(host))
    client_key, client_certificate = authority.issue(client=True)
    files = TlsFiles(
        *(directory / name for name in ("ca.pem", "server.pem", "server.key")),
        *(directory / name for name in ("client.pem", "client.key")),
    )
    files.client_certificate.write_bytes(client_certificate)
    files.client_key.write_bytes(client_key)
    files.authority.write_bytes(authority.certificate)
    files.certificate.write_bytes(certificate)
    files.key.write_bytes(key)
    return files


@dataclass
class SyslogReceiver:
    """Stores the messages of connections that ended in order."""

    port: int = 0
    messages: list[str] = field(default_factory=list)
    connections: int = 0
    behave: Callable[["SyslogReceiver", ssl.SSLSocket], None] = lambda own, each: own.read(each)

    def read(self, connection: ssl.SSLSocket) -> None:
        """Reads until close_notify, and answers it."""
        content = bytearray()
        while chunk := connection.recv(1 << 16):
            content += chunk
        self.messages += frames(bytes(content))
        with contextlib.suppress(OSError):
            connection.unwrap()


def reset(connection: socket.socket) -> None:
    """Ends a connection without reading: the kernel sends RST."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


@contextlib.contextmanager
def syslog_receiver(files: TlsFiles, *, mtls: bool = False) -> Iterator[SyslogReceiver]:
    """A syslog server with TLS on a free port; `mtls`: clients must have a certificate."""
    receiver = SyslogReceiver()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(files.certificate, files.key)
    if mtls:
        context.load_verify_locations(files.authority)
        context.verify_mode = ssl.CERT_REQUIRED

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            receiver.connections += 1
            with (
                contextlib.suppress(OSError),
                context.wrap_socket(self.request, server_side=True) as connection,
            ):
                receiver.behave(receiver, connection)

    class Server(socketserver.ThreadingTCPServer):
        daemon_threads = True
        allow_reuse_address = True

    with Server(("127.0.0.1", 0), Handler) as server:
        receiver.port = server.server_address[1]
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield receiver
        finally:
            server.shutdown()
            thread.join()
