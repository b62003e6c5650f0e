"""Ports for servers that tests start."""

import fcntl
import os
import socket
from contextlib import suppress
from pathlib import Path

import psutil

FIRST, LAST = 10_000, 31_999
"""Below those that the system gives to outgoing connections: one of them may take any of those."""
_NEXT = Path(f"/tmp/pdp-test-port-{os.getuid()}")


def free_port() -> int:
    """A port that nobody listens on, and that no other test on this machine is given for long.

    Tests run in several processes at once, and a server binds its port only seconds later. So they
    take turns at one range: a number comes again after all the others.
    """
    while True:
        port = _take_number()
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def listens(pid: int, port: int) -> bool:
    """Whether a process, or one below it, listens on a TCP port."""
    with suppress(psutil.NoSuchProcess, FileNotFoundError):
        process = psutil.Process(pid)
        sockets = _listening(pid, port)
        # Not `net_connections`, which reads about every connection of the machine.
        for member in (process, *process.children(recursive=True)):
            for file in Path(f"/proc/{member.pid}/fd").iterdir():
                with suppress(FileNotFoundError):
                    if str(file.readlink()) in sockets:
                        return True
    return False


def _listening(pid: int, port: int) -> set[str]:
    """The sockets that listen on a port, as their files are named; see proc_net(5)."""
    found = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
            _, local, _, state, *others = line.split()
            if state == "0A" and local.endswith(f":{port:04X}"):
                found.add(f"socket:[{others[5]}]")
    return found


def _take_number() -> int:
    with _NEXT.open("a+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.seek(0)
        text = file.read()
        port = int(text) if text else FIRST
        file.truncate(0)
        file.write(str(FIRST if port == LAST else port + 1))
    return port
