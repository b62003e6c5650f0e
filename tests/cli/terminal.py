"""Runs a command line on a terminal of its own, on which somebody answers."""

import os
import pty
from collections.abc import Mapping
from pathlib import Path

from tests.kit import prefork

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
    given = theirs
    if piped is not None:
        given, ends = os.pipe()
        os.write(ends, piped.encode())
        os.close(ends)
    process = prefork.Process(
        arguments,
        env=environment
        if environment is not None
        else {k: v for k, v in os.environ.items() if not k.startswith("PDP_")},
        cwd=directory or Path.cwd(),
        stdin=given,
        stdout=theirs,
        stderr=theirs,
    )
    for file in {given, theirs}:
        os.close(file)
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
