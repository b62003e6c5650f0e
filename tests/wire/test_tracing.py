"""The end of a process does not wait for a collector."""

import socket
import threading
import time

import pytest

from pdp.wire import tracing
from pdp.wire.tracing import close_provider, open_provider
from tests.kit.siem.collector import running_trace_collector
from tests.kit.stall import Stopwatch


def test_a_collector_that_sends_a_byte_now_and_then_does_not_delay_the_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tracing, "CLOSE_SECONDS_MAX", 0.5)
    asked, ends = threading.Event(), threading.Event()

    def drip(listener: socket.socket) -> None:
        connection, _ = listener.accept()
        with connection:
            connection.recv(65_536)
            asked.set()
            connection.sendall(b"HTTP/1.1 200 OK\r\n")
            began = time.monotonic()
            while not ends.wait(0.1) and time.monotonic() < began + 60:
                try:
                    connection.sendall(b"x")
                except OSError:
                    return

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=drip, args=(listener,))
        thread.start()
        provider = open_provider(f"http://127.0.0.1:{listener.getsockname()[1]}/", "pdp")
        provider.get_tracer("pdp").start_span("a").end()
        watch = Stopwatch()
        close_provider(provider)
        assert watch.seconds < 5
        assert asked.wait(10)  # an export was in progress
        ends.set()
        thread.join()


def test_the_last_spans_are_sent_before_the_end() -> None:
    with running_trace_collector() as collector:
        provider = open_provider(collector.receiver.url, "pdp")
        provider.get_tracer("pdp").start_span("a").end()
        close_provider(provider)
        assert [span.name for span in collector.spans] == ["a"]
