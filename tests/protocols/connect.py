"""`python -m tests.protocols.connect CONNECTCONFORMANCE`: gRPC and Connect, on our own framing.

The runner calls `connect_service.py` in each way of connecting. It allows a server 10 seconds to
start, less than a busy machine needs to import ours: so the servers run in this process, and what
the runner starts only passes its wishes on. Exits with 1 unless exactly the cases of
connect_known_failures.txt fail.
"""

import json
import socketserver
import struct
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import resources
from pathlib import Path

from grpc_tools import protoc

from pdp.process.listener import EventLoop
from tests.protocols import known_failures

HERE = Path(__file__).parent
STUBS = HERE.parents[1] / "build" / "protocols" / "stubs"
KNOWN = HERE / "connect_known_failures.txt"
FLAKY = HERE / "connect_flaky.txt"
RUN_SECONDS_MAX = 500
PASS_ON = """
import socket, sys
servers = socket.socket(socket.AF_UNIX)
servers.connect(sys.argv[1])
servers.sendall(sys.stdin.buffer.read())
sys.stdout.buffer.write(servers.recv(65536))
sys.stdout.buffer.flush()
servers.recv(1)
"""


def main(runner: str) -> int:
    """Runs every case of connect.yaml once."""
    generate_stubs()
    sys.path.append(str(STUBS))
    known, flaky = known_failures.read(KNOWN), known_failures.read(FLAKY)
    with tempfile.TemporaryDirectory() as directory, servers(f"{directory}/servers") as address:
        ran = subprocess.run(
            [
                *(runner, "--mode", "server", "--conf", str(HERE / "connect.yaml")),
                # The runner also fails for a pattern that matches nothing, or a case that passes.
                *(argument for case in known for argument in ("--known-failing", case)),
                *(argument for case in flaky for argument in ("--known-flaky", case)),
                *("--parallel", "4", "--", sys.executable, "-SEc", PASS_ON, address),
            ],
            capture_output=True,
            text=True,
            timeout=RUN_SECONDS_MAX,
            check=False,
        )
    if ran.returncode:
        sys.stdout.write(ran.stdout + ran.stderr)
    sys.stdout.write(f"connectconformance: {' '.join(ran.stdout.splitlines()[-3:])}\n")
    return ran.returncode


@contextmanager
def servers(address: str) -> Iterator[str]:
    """Gives a server to each that connects to a unix socket, as long as it stays connected."""
    from tests.protocols import connect_service  # the stubs are there now

    loop = EventLoop()
    loop.start()

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            [length] = struct.unpack(">I", self.rfile.read(4))
            with connect_service.serving(self.rfile.read(length), loop) as answer:
                self.wfile.write(struct.pack(">I", len(answer)) + answer)
                self.rfile.read()

    with socketserver.ThreadingUnixStreamServer(address, Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield address
        server.shutdown()
    loop.stop()


def generate_stubs() -> None:
    """Python stubs of the suite's messages, whose source comes with the pinned module."""
    module = subprocess.run(
        ["go", "list", "-m", "-json", "connectrpc.com/conformance"],
        cwd=HERE / "tools",
        capture_output=True,
        check=True,
    )
    source = Path(json.loads(module.stdout)["Dir"]) / "proto"
    STUBS.mkdir(parents=True, exist_ok=True)
    protos = [
        str(path.relative_to(source))
        for path in source.rglob("*.proto")
        if path.stem in {"config", "server_compat", "service"}
    ]
    with resources.as_file(resources.files("grpc_tools") / "_proto") as well_known:
        status = protoc.main(
            ["protoc", f"-I{source}", f"-I{well_known}", f"--python_out={STUBS}", *protos]
        )
    assert status == 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
