"""Runs a command line on a terminal of its own, on which somebody answers."""

import os
import pty
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from tests.kit.server import PDP

# A process of a new session, whose terminal is its standard output.
_ON_TERMINAL = (
    "import fcntl, os, sys, termios\n"
    "fcntl.ioctl(1, termios.TIOCSCTTY, 0)\n"
    "os.execv(sys.argv[1], sys.argv[1:])"
)
_QUESTIONS = (b"[y/N]", b"from standard input", b"the API key: ")


def on_terminal(
    *arguments: str,
    answer: str = "",
    piped: str | None = None,
    environment: Mapping[str, str] | None = None,
    directory: Path | None = None,
) -> tuple[int, str]:
    """Exit status and what the terminal shows. `piped`: standard input, then no terminal."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", _ON_TERMINAL, *PDP, *arguments],
        env=environment
        if environment is not None
        else {k: v for k, v in os.environ.items() if not k.startswith("PDP_")},
        cwd=directory,
        stdin=theirs if piped is None else subprocess.PIPE,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    )
    os.close(theirs)
    if piped is not None:
        assert process.stdin is not None
        process.stdin.write(piped.encode())
        process.stdin.close()
    shown = b""
    while True:
        try:
            part = os.read(ours, 65_536)
        except OSError:  # nobody is at the other end any more
            break
        shown += part
        if any(question in part for question in _QUESTIONS):
            os.write(ours, answer.encode())
    os.close(ours)
    return process.wait(30), shown.decode().replace("\r\n", "\n")
