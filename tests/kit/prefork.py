"""Starts `pdp` as a process of its own without waiting for its imports, which take half a second.

A parent imports what the commands run on, once for each process of tests, and forks for each
command: its own process id, environment, directory, files and exit status, and no state of the
test. If its standard output is a terminal, that becomes its own too. What a new interpreter reads
at its start is that of the parent: tests about that start one.

    process = Process(("serve",), cwd=directory, env=environment, stdout=log, stderr=log)
"""

import atexit
import contextlib
import fcntl
import functools
import gc
import importlib
import json
import os
import runpy
import select
import selectors
import socket
import subprocess
import sys
import tempfile
import termios
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from signal import SIGKILL, SIGTERM, Signals
from typing import IO, Any

ROOT = Path(__file__).parents[2]
REQUEST_BYTES_MAX = 1 << 18
RECORD_SECONDS_MAX = 10.0
"""In tests a denial waits so long for its record. Few are about how long a disk may be busy."""
IMPORTED = (
    "pdp.process.app",
    "pdp.process.lifecycle",
    "pdp.process.logs",
    "pdp.process.scheduling",
    "pdp.process.supervisor",
    "pdp.sidecar",
    "pdp.administrator",
    "pdp.database.migrations",
    "h2corn._server",
    "rich.console",
    "rich.table",
)


class Process:
    """A `pdp` that was forked; with the methods of `subprocess.Popen` that tests need."""

    def __init__(
        self,
        arguments: Sequence[str],
        *,
        cwd: Path,
        env: Mapping[str, str],
        stdin: IO[bytes] | int | None = None,
        stdout: IO[bytes] | int,
        stderr: IO[bytes] | int,
        before: str = "",
    ) -> None:
        """`before` is Python that tampers with the process before it is `pdp`."""
        umask = os.umask(0)
        os.umask(umask)
        request = {
            "arguments": arguments,
            "cwd": str(cwd),
            "env": dict(env),
            "umask": umask,
            "before": before,
        }
        self.returncode: int | None = None
        self._status, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with Path(os.devnull).open("rb") as nothing, theirs:
            given = nothing if stdin is None else stdin
            files = [
                file if isinstance(file, int) else file.fileno()
                for file in (given, stdout, stderr, theirs)
            ]
            socket.send_fds(_parent(), [json.dumps(request).encode()], files)
        self.pid = int(self._status.recv(20))

    def poll(self) -> int | None:
        """The exit status, or None while it runs; as of `subprocess`, a signal is negative."""
        return self._ended(0)

    def wait(self, timeout: float | None = None) -> int:
        """The exit status, once it has ended."""
        status = self._ended(timeout)
        if status is None:
            assert timeout is not None
            raise subprocess.TimeoutExpired("pdp", timeout)
        return status

    def send_signal(self, number: Signals) -> None:
        """Does nothing once it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        """SIGTERM."""
        self.send_signal(SIGTERM)

    def kill(self) -> None:
        """SIGKILL."""
        self.send_signal(SIGKILL)

    def _ended(self, timeout: float | None) -> int | None:
        if self.returncode is None and select.select([self._status], [], [], timeout)[0]:
            self.returncode = int(self._status.recv(20))
            self._status.close()
        return self.returncode


def run(
    arguments: Sequence[str], *, cwd: Path, env: Mapping[str, str], stdin: str = "", timeout: float
) -> "subprocess.CompletedProcess[str]":
    """Runs a command to its end, as `subprocess.run` does."""
    with (
        tempfile.TemporaryFile() as given,
        tempfile.TemporaryFile() as out,
        tempfile.TemporaryFile() as err,
    ):
        given.write(stdin.encode())
        given.seek(0)
        process = Process(arguments, cwd=cwd, env=env, stdin=given, stdout=out, stderr=err)
        try:
            status = process.wait(timeout)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise
        texts = []
        for file in (out, err):
            file.seek(0)
            texts.append(file.read().decode())
    return subprocess.CompletedProcess(("pdp", *arguments), status, *texts)


@contextlib.contextmanager
def output_of(arguments: Sequence[str], *, cwd: Path, env: Mapping[str, str]) -> Iterator[IO[str]]:
    """The standard output of a command that runs until the end of the block."""
    reads, writes = os.pipe()
    process = Process(arguments, cwd=cwd, env=env, stdout=writes, stderr=2)
    os.close(writes)
    with os.fdopen(reads, encoding="utf-8") as output:
        try:
            yield output
        finally:
            process.terminate()
            process.wait(30)


@functools.cache
def _parent() -> socket.socket:
    """The way to the parent of this process of tests."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        parent = subprocess.Popen(
            [sys.executable, "-m", "tests.kit.prefork", str(theirs.fileno())],
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            pass_fds=[theirs.fileno()],
            env={name: value for name, value in os.environ.items() if not name.startswith("PDP_")},
        )

    def end() -> None:
        ours.close()
        parent.wait(30)

    atexit.register(end)
    return ours


# --- the parent ---------------------------------------------------------------------------------


def serve(requests: socket.socket) -> list[str] | None:
    """Forks for each request until there are no more. Returns the arguments in each child, and
    None in the parent."""
    waiting = selectors.DefaultSelector()
    waiting.register(requests, selectors.EVENT_READ)
    while True:
        for key, _ in waiting.select():
            if key.data is not None:
                pid, status = key.data
                waiting.unregister(key.fd)
                os.close(key.fd)
                _report(status, os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
                os.close(status)
                continue
            message, files, _, _ = socket.recv_fds(requests, REQUEST_BYTES_MAX, 4)
            if not message:
                return None
            pid = os.fork()
            if pid == 0:
                # Else their ends would close what later has their numbers.
                waiting.close()
                requests.detach()
                return _become(json.loads(message), files[:3])
            for file in files[:3]:
                os.close(file)
            _report(files[3], pid)
            waiting.register(os.pidfd_open(pid), selectors.EVENT_READ, (pid, files[3]))


def _report(status: int, number: int) -> None:
    # The test may have left without waiting.
    with contextlib.suppress(OSError):
        os.write(status, str(number).encode())


def _become(request: dict[str, Any], files: Sequence[int]) -> list[str]:
    """Gives this process what the request says, and nothing else of the parent."""
    for descriptor, file in enumerate(files):
        os.dup2(file, descriptor)
    if os.isatty(1):
        os.setsid()
        fcntl.ioctl(1, termios.TIOCSCTTY, 0)
    os.closerange(3, os.sysconf("SC_OPEN_MAX"))
    os.chdir(request["cwd"])
    os.umask(request["umask"])
    os.environ.clear()
    os.environ.update(request["env"])
    time.tzset()
    exec(request["before"], {})
    arguments: list[str] = request["arguments"]
    return arguments


def main() -> None:
    """Runs as `python -m tests.kit.prefork FD`, and as `python -m pdp ARGUMENTS` in each child."""
    status: list[int] = []
    atexit.register(_leave, status)  # runs last, since it is the first
    requests = socket.socket(fileno=int(sys.argv[1]))
    for name in IMPORTED:
        importlib.import_module(name)
    importlib.import_module("pdp.cli").command()
    importlib.import_module("pdp.audit.recorder").WAIT_SECONDS_MAX = RECORD_SECONDS_MAX
    gc.collect()
    gc.freeze()
    arguments = serve(requests)
    if arguments is None:
        return
    sys.argv = ["pdp", *arguments]
    try:
        runpy.run_module("pdp", run_name="__main__", alter_sys=True)
    except SystemExit as ended:
        if isinstance(ended.code, int):
            status.append(ended.code)
        raise


def _leave(status: Sequence[int]) -> None:
    """Ends a child without freeing every object, which takes longer than a command."""
    if status:
        try:
            sys.stdout.flush()
            sys.stderr.flush()
        except OSError:
            os._exit(120)  # as an interpreter does
        os._exit(status[0])


if __name__ == "__main__":
    main()
