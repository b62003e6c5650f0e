"""Tests of tests/kit/ports.py, which all tests with a server rely on."""

import http.server
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tests.kit.server import ServerProcess

TAKE = "from tests.kit.ports import free_port; print([free_port() for _ in range(200)])"


def test_no_two_processes_are_given_the_same_port() -> None:
    takers = [
        subprocess.Popen([sys.executable, "-c", TAKE], stdout=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    taken: list[int] = []
    for taker in takers:
        taken += eval(taker.communicate(timeout=60)[0])
    assert len(taken) == len(set(taken)) == 600


class Ready(http.server.BaseHTTPRequestHandler):
    """Answers 200, as a server that is ready."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()


def test_a_server_is_not_taken_for_ready_because_another_has_its_port(tmp_path: Path) -> None:
    server = ServerProcess(tmp_path)
    other = http.server.ThreadingHTTPServer(("127.0.0.1", server.http_port), Ready)
    threading.Thread(target=other.serve_forever, daemon=True).start()
    try:
        with pytest.raises(AssertionError, match="the server ended"):
            server.start()
    finally:
        other.shutdown()
        other.server_close()
