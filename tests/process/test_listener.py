"""The listener, and the files that a process may open."""

import socket
import subprocess
import sys

import pytest

SCRIPT = """
import resource, socket
resource.setrlimit(resource.RLIMIT_NOFILE, ({soft}, {hard}))
from pdp.http import http_application
from pdp.process.metrics import Metrics
from tests.kit.wire.listening import listening
with listening(http_application(Metrics({{}}), list)) as port:
    print(port, flush=True)
    input()
    with socket.create_connection(("127.0.0.1", port), timeout=10) as probe:
        probe.sendall(b"GET /healthz HTTP/1.1\\r\\nHost: pdp\\r\\n\\r\\n")
        print(probe.recv(15), resource.getrlimit(resource.RLIMIT_NOFILE), flush=True)
    input()
"""


@pytest.mark.parametrize(("soft", "hard", "raised"), [(128, 300, 300), (128, 20_000, 8448)])
def test_more_connections_than_files_do_not_end_the_listener(
    soft: int, hard: int, raised: int
) -> None:
    """A host allows 1,024 files by default. Without room for one more, accepting would fail."""
    with subprocess.Popen(
        [sys.executable, "-c", SCRIPT.format(soft=soft, hard=hard)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        port = int(next(line for line in process.stdout if line.strip().isdecimal()))
        peers = [socket.create_connection(("127.0.0.1", port), timeout=10) for _ in range(400)]
        for peer in peers:
            peer.sendall(b"GET / HTTP/1.1\r\n")
        process.stdin.write("\n")
        for peer in peers:
            peer.close()
        process.stdin.flush()
        said = next(line for line in process.stdout if "HTTP" in line)
        assert said == f"b'HTTP/1.1 200 OK' ({raised}, {hard})\n"
        process.stdin.write("\n")
