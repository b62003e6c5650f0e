"""Runs a command line within the test's own process: many commands, and no interpreter to start."""

import logging
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest
import structlog

from pdp.cli import main, output


@dataclass(frozen=True)
class Done:
    status: int
    out: str
    err: str


Run = Callable[..., Done]


def _logger_of(command: threading.Thread) -> Callable[..., Any]:
    """The logger of a command that configured none. A thread that an earlier test left behind must
    not write into the command's output."""

    def logger(*_: object) -> structlog.PrintLogger:
        is_own = threading.current_thread() is command
        return structlog.PrintLogger(sys.stdout if is_own else sys.stderr)

    return logger


@contextmanager
def _own_logs(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Log lines of the command go to its captured standard error, and those after it do not."""
    before, handlers, level = structlog.get_config(), logging.root.handlers[:], logging.root.level
    configure = structlog.configure

    def uncached(**settings: Any) -> None:
        configure(**{**settings, "cache_logger_on_first_use": False})

    with monkeypatch.context() as patch:
        patch.setattr(structlog, "configure", uncached)
        structlog.reset_defaults()
        configure(logger_factory=_logger_of(threading.current_thread()))
        try:
            yield
        finally:
            configure(**before)
            logging.root.handlers[:] = handlers
            logging.root.setLevel(level)


def runner(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs `pdp ARGUMENTS`; standard input is a pipe with the text `stdin`."""

    def run(*arguments: str, stdin: str = "") -> Done:
        import io

        monkeypatch.setattr(sys, "argv", ["pdp", *arguments])
        monkeypatch.setattr(sys, "stdin", io.StringIO(stdin))
        output._out.cache_clear()
        output._err.cache_clear()
        capsys.readouterr()
        with _own_logs(monkeypatch), pytest.raises(SystemExit) as ended:
            main()
        said = capsys.readouterr()
        return Done(int(ended.value.code or 0), said.out, said.err)

    return run
