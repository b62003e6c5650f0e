"""HTTP: only a complete exchange with a 2xx answer confirms a batch."""

import contextlib
import json
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pdp.errors import DeliveryFailed, DeliveryRefused
from pdp.siem.destinations.http import HttpDestination, lines_encoding
from pdp.siem.formats import Format, line_of
from tests.kit.siem.receivers import http_receiver, reset, tls_files
from tests.kit.siem.records import record
from tests.kit.stall import Stopwatch


def destination(url: str, format_: Format = "ocsf", **options: object) -> HttpDestination:
    settings = {"authorization": None, "ca_file": None, "seconds_max": 20.0, **options}
    return HttpDestination(url, lines_encoding(line_of(format_), format_), **settings)


@contextlib.contextmanager
def connection_handler(
    handle: Callable[[socket.socket], None], context: ssl.SSLContext | None = None
) -> Iterator[int]:
    """A port on which each connection is handled by a function."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = server.accept()
                    with contextlib.suppress(OSError):
                        if context is not None:
                            connection = context.wrap_socket(connection, server_side=True)
                        handle(connection)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)
        thread.join(10)


def test_a_batch_is_one_request_with_the_credentials(tmp_path: Path) -> None:
    with http_receiver() as receiver:
        own = destination(receiver.url, authorization="Splunk 123")
        own.deliver([record(decision_id="1"), record(decision_id="2")])
        assert [json.loads(line)["metadata"]["uid"] for line in receiver.lines] == ["1", "2"]
        assert receiver.headers[0]["authorization"] == "Splunk 123"
        assert receiver.headers[0]["content-type"] == "application/x-ndjson"
        destination(receiver.url, "cef").deliver([record()])
        assert receiver.headers[1]["content-type"] == "text/plain; charset=utf-8"


@pytest.mark.parametrize("status", [301, 401, 403, 404, 408, 429, 500, 503])
def test_other_answers_are_failures_to_try_again(status: int) -> None:
    with http_receiver() as receiver:
        receiver.answer = lambda _: status
        with pytest.raises(DeliveryFailed, match=str(status)):
            destination(receiver.url).deliver([record()])


@pytest.mark.parametrize("status", [400, 413, 422])
def test_refused_content_is_told_apart(status: int) -> None:
    with http_receiver() as receiver:
        receiver.answer = lambda _: status
        with pytest.raises(DeliveryRefused, match=str(status)):
            destination(receiver.url).deliver([record()])


def test_an_error_holds_neither_the_url_nor_the_credentials() -> None:
    own = destination("http://127.0.0.1:9/secret-path", authorization="Splunk 123")
    with pytest.raises(DeliveryFailed) as failed:
        own.deliver([record()])
    assert "secret" not in str(failed.value)
    assert "123" not in str(failed.value)


@pytest.mark.parametrize(
    "authorization", ["Splunk 123\r\nx-forged: 1", "Splunk 123\n", "Splunk é123"]
)
def test_no_authorization_adds_a_header_or_is_quoted_in_an_error(authorization: str) -> None:
    with http_receiver() as receiver:
        with pytest.raises((DeliveryFailed, ValueError)) as failed:
            destination(receiver.url, authorization=authorization).deliver([record()])
        assert receiver.headers == []
        assert "123" not in str(failed.value)


def test_200_from_a_receiver_that_stops_reading_confirms_nothing() -> None:
    def answer_early(connection: socket.socket) -> None:
        connection.recv(1024)
        connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
        reset(connection)

    many = [record(token_id="x" * 1000)] * 6_000  # more than the buffers of a socket
    with connection_handler(answer_early) as port, pytest.raises(DeliveryFailed):
        destination(f"http://127.0.0.1:{port}/").deliver(many)


def test_200_with_half_a_body_confirms_nothing() -> None:
    def answer_half(connection: socket.socket) -> None:
        connection.recv(1 << 16)
        connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf")
        connection.close()

    with connection_handler(answer_half) as port, pytest.raises(DeliveryFailed):
        destination(f"http://127.0.0.1:{port}/").deliver([record()])


def test_an_endless_answer_and_a_silent_receiver_end_in_time() -> None:
    def drip(connection: socket.socket) -> None:
        connection.recv(1 << 16)
        connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n")
        with contextlib.suppress(OSError):
            while connection.send(b"x"):
                threading.Event().wait(0.05)

    watch = Stopwatch()
    with connection_handler(drip) as port, pytest.raises(DeliveryFailed):
        destination(f"http://127.0.0.1:{port}/", seconds_max=0.5).deliver([record()])
    with socket.create_server(("127.0.0.1", 0)) as silent:
        own = destination(f"http://127.0.0.1:{silent.getsockname()[1]}/", seconds_max=0.5)
        with pytest.raises(DeliveryFailed):
            own.deliver([record()])
    assert watch.seconds < 8


def test_a_certificate_for_another_host_or_of_another_authority_is_refused(tmp_path: Path) -> None:
    def answer(connection: socket.socket) -> None:
        content = b""
        while not content.endswith(b"}\n"):
            content += connection.recv(1 << 16)
        connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
        connection.close()

    good, other = (tmp_path / name for name in ("good", "other"))
    good.mkdir()
    other.mkdir()
    files, wrong = tls_files(good), tls_files(other, "other.test")
    for each in (files, wrong):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(each.certificate, each.key)
        with connection_handler(answer, context) as port:
            url = f"https://localhost:{port}/"
            if each is files:
                destination(url, ca_file=files.authority).deliver([record()])
                with pytest.raises(DeliveryFailed):
                    destination(url).deliver([record()])
            else:
                with pytest.raises(DeliveryFailed):
                    destination(url, ca_file=wrong.authority).deliver([record()])
